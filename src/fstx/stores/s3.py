"""S3's real calls, made through the client of an `s3fs` file system.

Past `s3fs`'s own wrapper, because that repeats requests and translates errors: a conditional put that
is repeated meets its own first attempt, and then nobody can tell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fstx.stores import Info
from fstx.stores.answers import Cause, Verdict, verdict
from fstx.stores.hiding import plain_url
from fstx.stores.services import (
    Upload,
    as_bytes,
    crc32c_base64,
    own_instance,
    without_answer,
)
from fstx.types import Buffer

_CONNECTIONS = 32
_bare: set[str] = set()  # endpoints that want etags in If-Match without quotes
_AWS = "https://s3.amazonaws.com"
_AWS_HOST = re.compile(r"https://s3[.a-z0-9-]*\.amazonaws\.com$")


class S3:
    """A `Service` over one bucket."""

    kind = "s3"
    batch = 1000
    ordered = False

    def __init__(self, fs: Any, bucket: str) -> None:
        self.fs = fs
        self.bucket = bucket
        self._one_by_one = False

    @staticmethod
    def instance(fs: Any) -> Any:
        """An instance with one attempt per request and more connections, unless the caller chose."""
        config = dict(fs.storage_options.get("config_kwargs") or {})
        config.setdefault("max_pool_connections", _CONNECTIONS)
        config.setdefault("retries", {"total_max_attempts": 1, "mode": "standard"})
        return own_instance(fs, config_kwargs=config)

    def endpoint(self) -> str:
        client = getattr(self.fs, "_s3", None)
        if client is not None:
            url = plain_url(client.meta.endpoint_url)
            # One name for all regions: there is one bucket of a name.
            return _AWS if _AWS_HOST.match(url) else url
        named = self.fs.endpoint_url or self.fs.client_kwargs.get("endpoint_url")
        named = named or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return plain_url(named or _AWS)

    async def connect(self) -> None:
        await self.fs.set_session()

    def explain(self, error: BaseException) -> Cause:
        response = getattr(error, "response", None)
        if not isinstance(response, dict):
            return without_answer(error)
        told = response.get("Error") or {}
        code = str(told.get("Code") or "")
        status = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
        if status is None and code.isdigit():
            status = int(code)
        return Cause(
            status,
            "" if code.isdigit() else code,
            str(told.get("Message") or ""),
            # where the caller's configuration lets the client repeat
            repeated=bool((response.get("ResponseMetadata") or {}).get("RetryAttempts")),
        )

    async def create(self, key: str, data: bytes) -> None:
        await self._call("put_object", Key=key, Body=data, must={"IfNoneMatch": "*"})

    async def swap(self, key: str, data: bytes, token: str) -> None:
        await self._call("put_object", Key=key, Body=data, must=self._condition(token))

    def _condition(self, base: str | None) -> dict[str, str] | None:
        """What must lie there: nothing ("") or an object of this token; None: anything."""
        if base is None:
            return None
        if not base:
            return {"IfNoneMatch": "*"}
        bare = base.strip('"')
        return {"IfMatch": bare if self.endpoint() in _bare else f'"{bare}"'}

    async def put(self, key: str, data: Buffer, checksum: str) -> None:
        crc = crc32c_base64(checksum)
        checks: dict[str, Any] = {"ChecksumCRC32C": crc} if crc else {}
        await self._call("put_object", Key=key, Body=as_bytes(data), **checks)

    async def get(self, key: str, start: int, stop: int | None) -> bytes:
        ranged: dict[str, Any] = {}
        if start < 0:
            ranged = {"Range": f"bytes={start}"}
        elif start or stop is not None:
            ranged = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        try:
            answer = await self._call("get_object", Key=key, **ranged)
        except Exception as error:
            if ranged and self.explain(error).status == 416:
                return b""  # the object ends before the range begins
            raise
        async with answer["Body"] as body:
            data: bytes = await body.read()
        if len(data) != answer.get("ContentLength", len(data)):
            raise ConnectionError(f"the answer ended after {len(data)} bytes")
        return data

    async def page(self, prefix: str, mark: str | None) -> tuple[list[Info], str | None]:
        more: dict[str, Any] = {"ContinuationToken": mark} if mark else {}
        answer = await self._call("list_objects_v2", Prefix=prefix, **more)
        found = [
            Info(o["Key"], o["Size"], o["LastModified"].timestamp(), o.get("ETag"))
            for o in answer.get("Contents", ())
            if not o["Key"].endswith("/")  # the placeholder of a folder
        ]
        return found, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None

    async def head(self, key: str) -> Info | None:
        try:
            answer = await self._call("head_object", Key=key)
        except Exception as error:
            if verdict(self.explain(error)) is Verdict.MISSING:
                return None
            raise
        modified = answer.get("LastModified")
        return Info(
            key,
            answer["ContentLength"],
            modified.timestamp() if modified else None,
            answer.get("ETag"),
        )

    async def delete(self, keys: Sequence[str]) -> Mapping[str, Cause]:
        if self._one_by_one:
            return await self._delete_each(keys)
        try:
            answer = await self._call(
                "delete_objects", Delete={"Objects": [{"Key": k} for k in keys], "Quiet": False}
            )
        except Exception as error:
            cause = self.explain(error)
            if cause.status not in (400, 405, 501):
                raise
            self._one_by_one = True  # a server without the batch call (or with a narrower one)
            return await self._delete_each(keys)
        left = {
            e["Key"]: Cause(
                403 if e.get("Code") == "AccessDenied" else 400,
                str(e.get("Code") or "InternalError"),
                str(e.get("Message") or ""),
            )
            for e in answer.get("Errors", ())
            if e.get("Key") and e.get("Code") != "NoSuchKey"
        }
        told = left.keys() | {d["Key"] for d in answer.get("Deleted", ()) if "Key" in d}
        if silent := [k for k in keys if k not in told]:
            left.update(await self._delete_each(silent))
        return left

    async def _delete_each(self, keys: Sequence[str]) -> dict[str, Cause]:
        left = {}
        for key in keys:
            try:
                await self._call("delete_object", Key=key)
            except Exception as error:  # noqa: BLE001 - told with its key
                cause = self.explain(error)
                if verdict(cause) is not Verdict.MISSING:
                    left[key] = cause
        return left

    async def begin(self, key: str, base: str | None = None) -> Upload:
        answer = await self._call("create_multipart_upload", Key=key)
        return Upload(key, answer["UploadId"], base=base)

    async def part(self, upload: Upload, number: int, data: Buffer, last: bool) -> None:
        answer = await self._call(
            "upload_part",
            Key=upload.key,
            UploadId=upload.name,
            PartNumber=number + 1,
            Body=as_bytes(data),
        )
        upload.parts[number] = answer["ETag"]

    async def complete(self, upload: Upload) -> None:
        parts = [{"PartNumber": n + 1, "ETag": upload.parts[n]} for n in sorted(upload.parts)]
        try:
            await self._call(
                "complete_multipart_upload",
                Key=upload.key,
                UploadId=upload.name,
                MultipartUpload={"Parts": parts},
                must=self._condition(upload.base),
            )
        except Exception as error:
            # Some servers forget a completed upload at once: then a repeated call finds none.
            if self.explain(error).code != "NoSuchUpload" or upload.base is not None:
                raise
            found = await self.head(upload.key)
            if found is None or found.size_bytes != upload.size_bytes:
                raise

    async def abort(self, upload: Upload) -> None:
        await self._call("abort_multipart_upload", Key=upload.key, UploadId=upload.name)

    async def open_uploads(self, prefix: str) -> list[tuple[Upload, float]]:
        """Uploads below `prefix` that nobody has finished, and when they began."""
        answer = await self._call("list_multipart_uploads", Prefix=prefix)
        return [
            (Upload(u["Key"], u["UploadId"]), u["Initiated"].timestamp())
            for u in answer.get("Uploads", ())
        ]

    def other_quotes(self) -> None:
        """From now on etags go the other way round (radosgw 16 wants them bare)."""
        _bare.symmetric_difference_update({self.endpoint()})

    async def _call(self, name: str, /, *, must: Any = None, **wanted: Any) -> Any:
        await self.fs.set_session()
        client = await self.fs.get_s3(self.bucket)
        method = getattr(client, name)
        named = self.fs._get_s3_method_kwargs(method, Bucket=self.bucket, **wanted)
        # Past the filter, which drops silently what an old botocore doesn't know.
        return await method(**named, **(must or {}))


__all__ = ["S3"]
