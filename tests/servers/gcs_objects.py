"""Buckets and objects as Google Cloud Storage keeps them: every write gets a new generation.

Nothing here waits, so on one event loop each method is atomic.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import google_crc32c

Query = Mapping[str, str]


class ApiError(Exception):
    """An error that the API reports."""

    def __init__(self, code: int, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.code = code
        self.reason = reason
        self.message = message or reason


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Checksums:
    """What the client says the content's checksums are; empty where it says nothing."""

    md5: str = ""
    crc32c: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Checksums:
        """From the request's headers."""
        pairs = (part.strip().partition("=") for part in headers.get("x-goog-hash", "").split(","))
        named = {name: value for name, _, value in pairs}
        md5 = headers.get("Content-MD5") or named.get("md5", "")
        return cls(md5, named.get("crc32c", ""))


@dataclass
class Object:
    """A live object."""

    bucket: str
    name: str
    data: bytes
    generation: int
    content_type: str
    metadata: dict[str, str]
    metageneration: int = 1
    created: str = ""
    updated: str = ""

    def __post_init__(self) -> None:
        self.md5 = _base64(hashlib.md5(self.data).digest())
        self.crc32c = _base64(google_crc32c.Checksum(self.data).digest())
        self.etag = _base64(str(self.generation).encode())
        self.created = self.updated = _now()

    def resource(self) -> dict[str, Any]:
        """What the API says of it."""
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "size": str(len(self.data)),
            "md5Hash": self.md5,
            "crc32c": self.crc32c,
            "etag": self.etag,
            "timeCreated": self.created,
            "updated": self.updated,
            "storageClass": "STANDARD",
            "contentType": self.content_type,
            "metadata": self.metadata,
        }


@dataclass
class Upload:
    """A resumable upload. Its conditions are checked at the start and, again, when it is finished."""

    bucket: str
    key: str
    about: dict[str, Any]
    query: Query
    data: bytes = b""
    done: Object | None = None

    def add(self, data: bytes, spec: str | None) -> bool:
        """Take a piece at the place that Content-Range names; True if all is there now."""
        if spec is None:
            self.data += data
            return True
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", spec)
        if found is None:
            self.data += data
            return True
        if found[1] is not None:
            start = int(found[1])
            if start > len(self.data):
                raise ApiError(503, "backendError")
            self.data = self.data[:start] + data
        return found[3] != "*" and len(self.data) >= int(found[3])


@dataclass
class Page:
    """One page of a listing."""

    objects: list[Object] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_token: str = ""


class Service:
    """All buckets."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Object]] = {}
        self._uploads: dict[str, Upload] = {}
        self._numbers = itertools.count(int(time.time() * 1e6))

    def bucket(self, name: str) -> dict[str, Object]:
        """The objects of a bucket."""
        if name not in self.buckets:
            raise ApiError(404, "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def create_bucket(self, name: str) -> None:
        """A new, empty bucket."""
        if name in self.buckets:
            raise ApiError(409, "conflict")
        self.buckets[name] = {}

    def delete_bucket(self, name: str) -> None:
        """An empty bucket is gone afterwards."""
        if self.bucket(name):
            raise ApiError(409, "conflict", "not empty")
        del self.buckets[name]

    def get(self, bucket: str, key: str, query: Query) -> Object:
        """The live object, if it has the generation asked for and meets the conditions."""
        found = self._live(bucket, key, query.get("generation"))
        check(found, query, reading=True)
        return found

    def store(
        self,
        bucket: str,
        key: str,
        data: bytes,
        about: Mapping[str, Any],
        query: Query,
        checksums: Checksums = Checksums(),
    ) -> Object:
        """A new generation with this content, if the conditions hold and the checksums fit."""
        objects = self.bucket(bucket)
        check(objects.get(key), query)
        new = Object(
            bucket,
            key,
            data,
            next(self._numbers),
            about.get("contentType", "application/octet-stream"),
            about.get("metadata", {}),
        )
        for said in (about.get("md5Hash"), checksums.md5):
            if said and said != new.md5:
                raise ApiError(400, "invalid", "md5 mismatch")
        for said in (about.get("crc32c"), checksums.crc32c):
            if said and said != new.crc32c:
                raise ApiError(400, "invalid", "crc32c mismatch")
        objects[key] = new
        return new

    def delete(self, bucket: str, key: str, query: Query) -> None:
        """The object is gone afterwards."""
        check(self._live(bucket, key, query.get("generation")), query)
        del self.buckets[bucket][key]

    def patch(self, bucket: str, key: str, metadata: dict[str, str], query: Query) -> Object:
        """Metadata added; the generation stays."""
        found = self._live(bucket, key, query.get("generation"))
        check(found, query)
        found.metadata = {**found.metadata, **metadata}
        found.metageneration += 1
        found.updated = _now()
        return found

    def copy(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        changes: Mapping[str, Any],
        query: Query,
    ) -> Object:
        """The content under another name, on conditions on both sides."""
        found = self._live(*source, query.get("sourceGeneration"))
        check(found, query, prefix="ifSource")
        about = {"contentType": found.content_type, "metadata": found.metadata}
        about |= {k: v for k, v in changes.items() if k in about}
        return self.store(*target, found.data, about, query)

    def move(self, bucket: str, key: str, to_key: str, query: Query) -> Object:
        """As `copy`, and the source is gone afterwards."""
        new = self.copy((bucket, key), (bucket, to_key), {}, query)
        if to_key != key:
            del self.buckets[bucket][key]
        return new

    def compose(self, bucket: str, key: str, order: Mapping[str, Any], query: Query) -> Object:
        """Several objects joined to one, on conditions on each."""
        data = bytearray()
        for part in order["sourceObjects"]:
            generation = part.get("generation")
            found = self._live(
                bucket, part["name"], None if generation is None else str(generation)
            )
            conditions = part.get("objectPreconditions") or {}
            check(found, {name: str(value) for name, value in conditions.items()})
            data += found.data
        return self.store(bucket, key, bytes(data), order.get("destination") or {}, query)

    def listing(self, bucket: str, query: Query) -> Page:
        """Names with a prefix in the order of their bytes; what has a delimiter after it is one prefix."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = unquote(query.get("pageToken", ""))
        limit = int(query.get("maxResults", 1000))
        page, last = Page(), ""
        objects = self.bucket(bucket)
        for key in _between(sorted(objects, key=str.encode), prefix, query):
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            shown = prefix + head + delimiter if found else key
            if after and shown.encode() <= after.encode():
                continue
            if found and page.prefixes and page.prefixes[-1] == shown:
                continue
            if len(page.objects) + len(page.prefixes) >= limit:
                page.next_token = quote(last)
                break
            if found:
                page.prefixes.append(shown)
            else:
                page.objects.append(objects[key])
            last = shown
        return page

    def start_upload(self, upload: Upload) -> str:
        """The id of a new resumable upload."""
        check(self.bucket(upload.bucket).get(upload.key), upload.query)
        upload_id = f"u{next(self._numbers)}"
        self._uploads[upload_id] = upload
        return upload_id

    def upload(self, upload_id: str) -> Upload:
        """An upload that was started and not cancelled."""
        if upload_id not in self._uploads:
            raise ApiError(404, "notFound")
        return self._uploads[upload_id]

    def cancel_upload(self, upload_id: str) -> None:
        """The upload is gone afterwards."""
        self.upload(upload_id)
        del self._uploads[upload_id]

    def finish_upload(self, upload: Upload, checksums: Checksums) -> None:
        """Store what was sent."""
        data, upload.data = upload.data, b""
        where = upload.bucket, upload.key
        upload.done = self.store(*where, data, upload.about, upload.query, checksums)

    def _live(self, bucket: str, key: str, generation: str | None) -> Object:
        found = self.bucket(bucket).get(key)
        if found is None or generation not in (None, str(found.generation)):
            raise ApiError(404, "notFound", f"No such object: {bucket}/{key}")
        return found


def check(found: Object | None, query: Query, *, prefix: str = "if", reading: bool = False) -> None:
    """Raise unless the conditions hold; generation 0 means that there is no object."""
    generation = str(found.generation) if found else "0"
    metageneration = str(found.metageneration) if found else "0"
    message = "At least one of the pre-conditions you specified did not hold."
    if query.get(f"{prefix}GenerationMatch", generation) != generation:
        raise ApiError(412, "conditionNotMet", message)
    if query.get(f"{prefix}GenerationNotMatch") == generation:
        raise ApiError(304 if reading else 412, "conditionNotMet", message)
    if query.get(f"{prefix}MetagenerationMatch", metageneration) != metageneration:
        raise ApiError(412, "conditionNotMet", message)


def _between(keys: Iterable[str], prefix: str, query: Query) -> Iterable[str]:
    start, end = query.get("startOffset", ""), query.get("endOffset")
    return (k for k in keys if k.startswith(prefix) and k >= start and (not end or k < end))


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
