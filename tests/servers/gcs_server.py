"""The JSON API of Google Cloud Storage in memory: ``python -m servers.gcs_server PORT``.

Generations and preconditions are exact: checking and storing is one block without ``await`` on one event
loop, so nothing comes between. A body that is cut short stores nothing. ``POST /_reset`` forgets all.
This file is HTTP; what is stored, and under which conditions, is in `gcs_objects`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlparse

from aiohttp import web

from servers.gcs_objects import ApiError, Checksums, Object, Query, Service, Upload

MAX_BODY_BYTES = 1 << 32
Json = dict[str, Any]


class Handler:
    """Answers all requests."""

    def __init__(self) -> None:
        self.service = Service()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request; the only ``await`` is for its body."""
        try:
            data = await request.read()  # raises when the client hangs up half-way
            query = dict(request.query)
            path = request.rel_url.raw_path.lstrip("/")
            if path == "_reset":
                self.service = Service()
                return web.json_response({})
            if path.startswith("batch/"):
                return self.batch(request, data)
            if path.startswith("upload/"):
                return self.upload(request, path, query, data)
            path = re.sub(r"^(download/)?storage/v1/", "", path)
            return self.operation(request.method, path, query, data, request.headers)
        except ApiError as error:
            return refusal(error)

    def operation(
        self, method: str, path: str, query: Query, data: bytes, headers: Mapping[str, str]
    ) -> web.Response:
        """Everything but uploads; `path` is still percent-encoded."""
        service = self.service
        match [unquote(part) for part in path.split("/")]:
            case ["b"] if method == "GET":
                return reply({"items": [bucket_resource(name) for name in service.buckets]})
            case ["b"]:
                name = json.loads(data)["name"]
                service.create_bucket(name)
                return reply(bucket_resource(name))
            case ["b", name] if method == "DELETE":
                service.delete_bucket(name)
                return web.Response(status=204)
            case ["b", name]:
                service.bucket(name)
                return reply(bucket_resource(name) | {"metageneration": "1"})
            case ["b", name, "o"]:
                return reply(listing(service, name, query))
            case ["b", name, "o", key]:
                return self.one_object(method, name, key, query, data, headers)
            case ["b", name, "o", key, "rewriteTo" | "copyTo" as how, "b", to_name, "o", to_key]:
                changes = json.loads(data) if data else {}
                copy = service.copy((name, key), (to_name, to_key), changes, query)
                return reply(copy.resource() if how == "copyTo" else rewritten(copy))
            case ["b", name, "o", key, "moveTo", "o", to_key]:
                return reply(service.move(name, key, to_key, query).resource())
            case ["b", name, "o", key, "compose"]:
                return reply(service.compose(name, key, json.loads(data), query).resource())
        raise ApiError(404, "notFound", f"no such method: {method} {path}")

    def one_object(
        self,
        method: str,
        bucket: str,
        key: str,
        query: Query,
        data: bytes,
        headers: Mapping[str, str],
    ) -> web.Response:
        """Get, delete or patch."""
        if method == "DELETE":
            self.service.delete(bucket, key, query)
            return web.Response(status=204)
        if method in ("PATCH", "PUT"):
            changes = json.loads(data).get("metadata") or {}
            return reply(self.service.patch(bucket, key, changes, query).resource())
        found = self.service.get(bucket, key, query)
        if query.get("alt") == "media":
            return content(found, headers.get("Range", ""))
        return reply(found.resource())

    def batch(self, request: web.Request, data: bytes) -> web.Response:
        """Several requests without bodies in one; each has its own status in the answer."""
        parts = []
        requests = re.finditer(rb"^(GET|DELETE|PATCH|POST) (\S+) HTTP/1\.[01]", data, re.M)
        for number, found in enumerate(requests, 1):
            url = urlparse(found[2].decode())
            path = url.path.split("storage/v1/", 1)[1]
            try:
                query = dict(parse_qsl(url.query))
                self.operation(found[1].decode(), path, query, b"", request.headers)
                status = "204 No Content"
            except ApiError as error:
                status = f"{error.code} {error.reason}"
            parts.append(
                "--batch_x\r\nContent-Type: application/http\r\n"
                f"Content-ID: <response-{number}>\r\n\r\n"
                f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n"
            )
        kind = "multipart/mixed; boundary=batch_x"
        return web.Response(body="".join(parts) + "--batch_x--", headers={"Content-Type": kind})

    def upload(self, request: web.Request, path: str, query: Query, data: bytes) -> web.Response:
        """Simple, multipart and resumable uploads."""
        bucket = unquote(path.split("/b/")[1].split("/")[0])
        checksums = Checksums.of(request.headers)
        if "upload_id" in query:
            return self.resume(request, query["upload_id"], data, checksums)
        kind = query.get("uploadType")
        if kind == "resumable":
            about = json.loads(data or b"{}")
            key = query.get("name") or about["name"]
            started = self.service.start_upload(Upload(bucket, key, about, query))
            url = f"http://{request.host}/{path}?uploadType=resumable&upload_id={started}"
            return web.Response(headers={"Location": url, "x-guploader-uploadid": started})
        if kind == "multipart":
            about, data = two_parts(data, request.headers["Content-Type"])
        else:
            about = {"contentType": request.content_type}
        key = query.get("name") or about["name"]
        return reply(self.service.store(bucket, key, data, about, query, checksums).resource())

    def resume(
        self, request: web.Request, upload_id: str, data: bytes, checksums: Checksums
    ) -> web.Response:
        """One request of a resumable upload: a piece, a question how far it is, or a cancellation."""
        if request.method == "DELETE":
            self.service.cancel_upload(upload_id)
            return web.Response(status=499)
        upload = self.service.upload(upload_id)
        if upload.done is None:
            spec = request.headers.get("Content-Range")
            whole = upload.add(data, spec)
            if not whole:
                end = len(upload.data) - 1
                return web.Response(
                    status=308, headers={"Range": f"bytes=0-{end}"} if upload.data else {}
                )
            self.service.finish_upload(upload, checksums)
        assert upload.done is not None
        return reply(upload.done.resource())


def reply(body: Json) -> web.Response:
    """A JSON answer."""
    return web.json_response(body)


def refusal(error: ApiError) -> web.Response:
    """An error as the API words it."""
    if error.code == 304:
        return web.Response(status=304)
    detail = {"reason": error.reason, "domain": "global", "message": error.message}
    body = {"code": error.code, "message": error.message, "errors": [detail]}
    return web.json_response({"error": body}, status=error.code)


def bucket_resource(name: str) -> Json:
    """What is said of a bucket."""
    about = {"kind": "storage#bucket", "location": "US", "storageClass": "STANDARD"}
    return {"name": name, "id": name, **about}


def rewritten(copy: Object) -> Json:
    """The answer of a rewrite that was finished in one call."""
    size = str(len(copy.data))
    return {
        "kind": "storage#rewriteResponse",
        "done": True,
        "totalBytesRewritten": size,
        "objectSize": size,
        "resource": copy.resource(),
    }


def content(found: Object, spec: str) -> web.Response:
    """An object's bytes, or the range of them that the Range header asks for."""
    data, size = found.data, len(found.data)
    headers = {
        "x-goog-generation": str(found.generation),
        "x-goog-metageneration": str(found.metageneration),
        "x-goog-hash": f"crc32c={found.crc32c},md5={found.md5}",
        "ETag": found.etag,
        "Content-Type": found.content_type,
    }
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", spec)
    if asked is None or asked[0] == "bytes=-":
        return web.Response(body=data, headers=headers)
    first, last = asked[1], asked[2]
    if first:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    else:
        start, stop = max(0, size - int(last)), size
    if start >= size:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return web.Response(status=206, body=data[start:stop], headers=headers)


def listing(service: Service, bucket: str, query: Query) -> Json:
    """One page of a listing."""
    page = service.listing(bucket, query)
    body: Json = {"kind": "storage#objects"}
    if page.objects:
        body["items"] = [found.resource() for found in page.objects]
    if page.prefixes:
        body["prefixes"] = page.prefixes
    if page.next_token:
        body["nextPageToken"] = page.next_token
    return body


def two_parts(body: bytes, content_type: str) -> tuple[Json, bytes]:
    """Metadata and content of a multipart upload; line ends may be LF alone (gcsfs)."""
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if found is None:
        raise ApiError(400, "badRequest", "no boundary")
    mark = b"--" + found[1].encode()
    parts = []
    at = body.find(mark)
    while at >= 0 and not body.startswith(mark + b"--", at):
        start = at + len(mark)
        end = body.find(b"\n" + mark, start)
        if end < 0:
            break
        part = body[start:end].removesuffix(b"\r")
        blank = re.search(rb"\r?\n\r?\n", part)
        parts.append(part[blank.end() :] if blank else b"")
        at = end + 1
    if len(parts) != 2:
        raise ApiError(400, "badRequest", "two parts expected")
    return json.loads(parts[0]), parts[1]


def serve(port: int) -> None:
    """Serve on the loopback address until the process ends."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", Handler().answer)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
