"""Our GCS server answers as the documentation of the JSON API says; there is no other honest one to ask."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from support.emulators import Place
from support.rawhttp import Call, Reply, ask


class Bucket:
    """Raw requests to one bucket."""

    def __init__(self, place: Place) -> None:
        self._port, self._bucket = place.port, place.bucket
        self._at = f"/storage/v1/b/{place.bucket}/o"

    def put(self, name: str, body: bytes = b"x", query: str = "", **headers: str) -> Reply:
        """A simple upload."""
        path = f"/upload{self._at}?uploadType=media&name={quote(name, safe='')}{query}"
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return ask(self._port, Call("POST", path, named), body)

    def call(self, method: str, name: str, rest: str = "", body: Any = None, **h: str) -> Reply:
        """A request about an object."""
        path = f"{self._at}/{quote(name, safe='')}{rest}"
        return ask(self._port, Call(method, path, h), json.dumps(body).encode() if body else b"")

    def listing(self, query: str) -> dict[str, Any]:
        """A page of a listing."""
        found: dict[str, Any] = json.loads(ask(self._port, Call("GET", f"{self._at}?{query}")).body)
        return found

    def generation(self, name: str) -> str:
        """The generation of an object."""
        return str(json.loads(self.call("GET", name).body)["generation"])

    def start(self, name: str, query: str = "") -> str:
        """The path of a new resumable upload."""
        path = f"/upload{self._at}?uploadType=resumable&name={quote(name, safe='')}{query}"
        reply = ask(self._port, Call("POST", path), b"{}")
        assert reply.status == 200, reply
        return "/" + reply.headers["location"].split("/", 3)[3]

    def piece(self, path: str, body: bytes, spec: str) -> Reply:
        """A request of a resumable upload."""
        return ask(self._port, Call("PUT", path, {"Content-Range": f"bytes {spec}"}), body)


@pytest.fixture
def bucket(gcs: Place) -> Bucket:
    """A fresh bucket."""
    return Bucket(gcs)


def test_every_write_is_a_new_generation(bucket: Bucket) -> None:
    """Protects tests of tokens: also the same content gets a new one (no ABA)."""
    bucket.put("a")
    first = bucket.generation("a")
    bucket.put("a")
    assert bucket.generation("a") != first
    assert bucket.put("a", query=f"&ifGenerationMatch={first}").status == 412
    assert bucket.call("GET", "a", f"?generation={first}").status == 404


def test_conditions_hold_for_all_operations(bucket: Bucket) -> None:
    """Protects tests of stores: get, delete, copy, move and compose check the generation on each side."""
    bucket.put("a", b"one")
    bucket.put("b", b"two")
    now, other = bucket.generation("a"), bucket.generation("b")
    assert bucket.call("GET", "a", f"?ifGenerationMatch={other}").status == 412
    assert bucket.call("GET", "a", f"?ifGenerationNotMatch={now}").status == 304
    assert bucket.call("DELETE", "a", f"?ifGenerationMatch={other}").status == 412
    assert bucket.call("PATCH", "a", "?ifMetagenerationMatch=7", {"metadata": {}}).status == 412
    to = f"/rewriteTo/b/{bucket._bucket}/o/c"
    assert bucket.call("POST", "a", f"{to}?ifSourceGenerationMatch={other}").status == 412
    assert bucket.call("POST", "a", f"{to}?ifGenerationMatch={other}").status == 412
    assert bucket.call("POST", "a", f"{to}?ifGenerationMatch=0").status == 200
    assert bucket.call("POST", "a", "/moveTo/o/b?ifGenerationMatch=0").status == 412
    parts = [{"name": "a", "objectPreconditions": {"ifGenerationMatch": other}}, {"name": "b"}]
    assert bucket.call("POST", "d", "/compose", {"sourceObjects": parts}).status == 412
    parts[0] = {"name": "a", "generation": now}
    assert bucket.call("POST", "d", "/compose", {"sourceObjects": parts}).status == 200
    assert bucket.call("GET", "d", "?alt=media").body == b"onetwo"
    assert bucket.call("GET", "c", "?alt=media").body == b"one"
    assert bucket.call("DELETE", "a", f"?ifGenerationMatch={now}").status == 204
    assert bucket.call("DELETE", "a").status == 404


def test_wrong_checksums_are_refused(bucket: Bucket) -> None:
    """Protects tests of checksums: what does not fit its md5 or crc32c is not stored."""
    assert bucket.put("a", b"x", x_goog_hash="crc32c=AAAAAA==").status == 400
    assert bucket.put("a", b"x", Content_MD5="AAAAAAAAAAAAAAAAAAAAAA==").status == 400
    assert bucket.call("GET", "a").status == 404
    assert bucket.put("a", b"", x_goog_hash="crc32c=AAAAAA==").status == 200


def test_ranges(bucket: Bucket) -> None:
    """Protects tests of partial reads: first and last bytes, beyond the end, none."""
    bucket.put("a", b"0123456789")

    def found(spec: str) -> tuple[int, bytes]:
        reply = bucket.call("GET", "a", "?alt=media", Range=f"bytes={spec}")
        return reply.status, reply.body

    assert found("2-4") == (206, b"234")
    assert found("7-") == (206, b"789")
    assert found("-3") == (206, b"789")
    assert found("5-99") == (206, b"56789")
    assert found("10-")[0] == 416


def test_listings_have_pages_and_prefixes(bucket: Bucket) -> None:
    """Protects tests of listing: all names once, in the order of their bytes, however small the pages."""
    for name in ("b/1", "b/2", "a", "c", "b-", "ü", "Z"):
        bucket.put(name)

    def pages(query: str, size: int) -> list[str]:
        names, token = [], ""
        while True:
            page = bucket.listing(f"{query}&maxResults={size}&pageToken={token}")
            items = [i["name"] for i in page.get("items", [])] + page.get("prefixes", [])
            assert len(items) <= size
            names += sorted(items, key=str.encode)
            token = quote(page.get("nextPageToken", ""), safe="")
            if not token:
                return names

    flat = ["Z", "a", "b-", "b/1", "b/2", "c", "ü"]
    folded = ["Z", "a", "b-", "b/", "c", "ü"]
    for size in (1, 2, 3, 100):
        assert pages("prefix=", size) == flat
        assert pages("delimiter=/", size) == folded
        assert pages("prefix=b/&delimiter=/", size) == ["b/1", "b/2"]
    assert pages("startOffset=b/1&endOffset=c", 100) == ["b/1", "b/2"]


def test_resumable_uploads(bucket: Bucket) -> None:
    """Protects tests of large objects: pieces, a question how far it is, a repeated last piece."""
    path = bucket.start("a")
    assert bucket.piece(path, b"", "*/*").headers.get("range") is None
    assert bucket.piece(path, b"0123", "0-3/*").headers["range"] == "bytes=0-3"
    assert bucket.piece(path, b"", "*/*").status == 308
    assert bucket.piece(path, b"89", "8-9/10").status == 503
    assert bucket.call("GET", "a").status == 404
    assert bucket.piece(path, b"345", "3-5/6").status == 200
    assert bucket.piece(path, b"345", "3-5/6").status == 200
    assert bucket.call("GET", "a", "?alt=media").body == b"012345"


def test_resumable_uploads_check_conditions_at_their_end(bucket: Bucket) -> None:
    """Protects tests of fencing: whoever finishes second is refused, though both started in time."""
    paths = [bucket.start("a", "&ifGenerationMatch=0") for _ in range(2)]
    assert [bucket.piece(p, b"x", "0-0/1").status for p in paths] == [200, 412]
    path = bucket.start("b")
    assert ask(bucket._port, Call("DELETE", path)).status == 499
    assert bucket.piece(path, b"x", "0-0/1").status == 404


def test_batches_answer_each(gcs: Place, bucket: Bucket) -> None:
    """Protects tests of deletion: of a batch each part has its own status, and the rest is done."""
    bucket.put("a")
    parts = "".join(
        f"--x\r\nContent-Type: application/http\r\n\r\n"
        f"DELETE /storage/v1/b/{gcs.bucket}/o/{name} HTTP/1.1\r\n\r\n\r\n"
        for name in ("a", "absent")
    )
    kind = {"Content-Type": "multipart/mixed; boundary=x"}
    reply = ask(gcs.port, Call("POST", "/batch/storage/v1", kind), (parts + "--x--").encode())
    assert [line for line in reply.body.decode().splitlines() if line.startswith("HTTP/1.1")] == [
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 404 notFound",
    ]
    assert bucket.call("GET", "a").status == 404


def test_buckets(gcs: Place) -> None:
    """Protects the fixtures: buckets are made once, removed when empty, and unknown ones are 404."""
    port = gcs.port
    fresh = Call("POST", "/storage/v1/b?project=test")
    body = json.dumps({"name": gcs.bucket}).encode()
    assert ask(port, fresh, body).status == 409
    Bucket(gcs).put("a")
    at = f"/storage/v1/b/{gcs.bucket}"
    assert ask(port, Call("DELETE", at)).status == 409
    Bucket(gcs).call("DELETE", "a")
    assert ask(port, Call("DELETE", at)).status == 204
    assert ask(port, Call("GET", at)).status == 404
    assert ask(port, Call("GET", f"{at}/o")).status == 404
    assert ask(port, Call("GET", "/storage/v1/nonsense")).status == 404
    assert ask(port, fresh, body).status == 200
