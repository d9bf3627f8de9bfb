"""Google Cloud Storage's real calls (JSON API), made through the session of a `gcsfs` file system.

Each request goes out once: past gcsfs's repetitions, which report one's own first attempt as a conflict.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from fstx.stores import Info
from fstx.stores.answers import Cause, Verdict, verdict
from fstx.stores.hiding import plain_url
from fstx.stores.services import (
    Upload,
    as_body,
    crc32c_base64,
    own_instance,
    undeleted,
    without_answer,
)
from fstx.types import Buffer

_FIELDS = "items(name,size,updated,generation),nextPageToken"
_BY_TYPE = {FileExistsError: 412, FileNotFoundError: 404}


class GCS:
    """A `Service` over one bucket."""

    kind = "gcs"
    batch = 32
    ordered = True

    def __init__(self, fs: Any, bucket: str) -> None:
        self.fs = fs
        self.bucket = bucket
        # The decorated method repeats; what it wraps does not.
        self._once = getattr(type(fs)._request, "__wrapped__", None)
        self._seen = False  # the bucket is there

    @staticmethod
    def instance(fs: Any) -> Any:
        """An instance that caches no listings."""
        return own_instance(fs)

    def endpoint(self) -> str:
        return plain_url(self.fs._location)

    async def connect(self) -> None:
        return None

    def explain(self, error: BaseException) -> Cause:
        """gcsfs has four ways to tell a status: its own error, and builtin ones for some."""
        cause = _explain(error)
        # Without the undecorated method gcsfs repeats inside.
        return cause if self._once is not None else replace(cause, repeated=True)

    async def create(self, key: str, data: bytes) -> None:
        await self._media(key, data, ifGenerationMatch="0")

    async def swap(self, key: str, data: bytes, token: str) -> None:
        await self._media(key, data, ifGenerationMatch=token)

    async def put(self, key: str, data: Buffer, checksum: str) -> None:
        crc = crc32c_base64(checksum)
        headers = {"x-goog-hash": f"crc32c={crc}"} if crc else {}
        told = await self._media(key, data, headers)
        if crc and told.get("crc32c") not in (None, crc):
            raise _AnswerError(400, "BadDigest", "the object that was stored has another CRC32C")

    async def _media(
        self, key: str, data: Buffer, headers: Mapping[str, str] | None = None, **params: str
    ) -> dict[str, Any]:
        try:
            _, content = await self._call(
                "POST",
                self._url("upload/storage/v1", ""),
                headers={"Content-Type": "application/octet-stream", **(headers or {})},
                data=as_body(data),
                uploadType="media",
                name=key,
                **params,
            )
        except FileNotFoundError as error:
            raise _no_bucket() from error
        told: dict[str, Any] = json.loads(content)
        return told

    async def get(self, key: str, start: int, stop: int | None) -> bytes:
        headers = {}
        if start < 0:
            headers = {"Range": f"bytes={start}"}
        elif start or stop is not None:
            headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        url = self._url("download/storage/v1", key)
        try:
            _, content = await self._call("GET", url, headers=headers, alt="media")
        except Exception as error:
            cause = self.explain(error)
            if headers and cause.status == 416:
                return b""  # the object ends before the range begins
            if cause.status == 404 and not self._seen:
                await self.page("", None)  # tells of a missing bucket, which 404 alone does not
            raise
        return content

    async def page(self, prefix: str, mark: str | None) -> tuple[list[Info], str | None]:
        more = {"pageToken": mark} if mark else {}
        url = self._url("storage/v1", "")
        try:
            _, content = await self._call("GET", url, prefix=prefix, fields=_FIELDS, **more)
        except FileNotFoundError as error:
            raise _no_bucket() from error
        told = json.loads(content)
        found = [_info(o) for o in told.get("items", ()) if not o["name"].endswith("/")]
        return found, told.get("nextPageToken")

    async def head(self, key: str) -> Info | None:
        try:
            _, content = await self._call("GET", self._url("storage/v1", key))
        except Exception as error:
            if verdict(self.explain(error)) is Verdict.MISSING:
                return None
            raise
        return _info(json.loads(content))

    async def delete(self, keys: Sequence[str]) -> Mapping[str, Cause]:
        results = await asyncio.gather(
            *(self._call("DELETE", self._url("storage/v1", key)) for key in keys),
            return_exceptions=True,
        )
        return undeleted(keys, results, self.explain)

    async def begin(self, key: str, base: str | None = None) -> Upload:
        url = self._url("upload/storage/v1", "")
        only = {} if base is None else {"ifGenerationMatch": base or "0"}
        try:
            headers, _ = await self._call(
                "POST", url, json={}, uploadType="resumable", name=key, **only
            )
        except FileNotFoundError as error:
            raise _no_bucket() from error
        return Upload(key, headers["Location"], base=base)

    async def part(self, upload: Upload, number: int, data: Buffer, last: bool) -> None:
        first = sum(upload.parts[n] for n in range(number))
        end = first + len(data)
        upload.parts[number] = len(data)
        view = memoryview(data)
        sent = first
        while True:
            total = str(end) if last else "*"
            span = f"bytes {sent}-{end - 1}/{total}"
            headers, _ = await self._call(
                "PUT",
                upload.name,
                headers={"Content-Range": span},
                data=as_body(view[sent - first :]),
            )
            kept = re.fullmatch(r"bytes=0-(\d+)", headers.get("Range", ""))
            arrived = int(kept[1]) + 1 if kept else (end if last else 0)
            if arrived >= end:
                return
            if arrived <= sent:
                raise ConnectionError(f"the upload session stands at byte {arrived}")
            sent = arrived

    async def complete(self, upload: Upload) -> None:
        return None  # the last part has done it

    async def abort(self, upload: Upload) -> None:
        try:
            await self._call("DELETE", upload.name)
        except FileNotFoundError:
            return  # finished or forgotten already

    def _url(self, api: str, key: str) -> str:
        url = f"{self.fs._location}/{api}/b/{quote(self.bucket, safe='')}/o"
        return f"{url}/{quote(key, safe='')}" if key else url

    async def _call(self, method: str, url: str, **wanted: Any) -> tuple[Any, bytes]:
        for turn in range(2):
            try:
                if self._once is None:
                    told = await self.fs._request(method, url, **wanted)
                else:
                    told = await self._once(self.fs, method, url, **wanted)
                self._seen = True
                return told[1], told[3]
            except Exception as error:
                # An expired token was certainly not accepted; it is renewed with the next request.
                if turn or self.explain(error).status != 401:
                    raise
        raise AssertionError("unreachable")


class _AnswerError(Exception):
    """An answer whose meaning this module knows better than its status tells."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(f"{status} {code}: {text}")
        self.status, self.code, self.text = status, code, text

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.status, self.code, self.text))


def _explain(error: BaseException) -> Cause:
    if isinstance(error, _AnswerError):
        return Cause(error.status, error.code, error.text)
    told = getattr(error, "_error_response", None)
    if isinstance(told, dict):
        code = told.get("code")
        reasons = [e.get("reason", "") for e in told.get("errors") or [] if isinstance(e, dict)]
        number = int(str(code)) if str(code).isdigit() else None
        return Cause(number, reasons[0] if reasons else "", _text(told.get("message")))
    for kind, status in _BY_TYPE.items():
        if type(error) is kind and not getattr(error, "errno", None):
            return Cause(status, "", "")
    text = str(error)
    if type(error) is OSError and text.startswith("Forbidden"):
        return Cause(403, "", text.partition("\n")[2])
    if type(error) is ValueError and text.startswith("Bad Request"):
        return Cause(400, "", text.partition("\n")[2])
    if type(error).__name__ == "ProxyError":
        return Cause(502, "", "")
    return without_answer(error)


def _no_bucket() -> _AnswerError:
    return _AnswerError(404, "NoSuchBucket", "the specified bucket does not exist")


def _text(message: Any) -> str:
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message or "")


def _info(told: Mapping[str, Any]) -> Info:
    updated = told.get("updated")
    modified_s = None
    if updated:
        modified_s = datetime.datetime.fromisoformat(updated.replace("Z", "+00:00")).timestamp()
    return Info(told["name"], int(told.get("size", 0)), modified_s, told.get("generation"))


__all__ = ["GCS"]
