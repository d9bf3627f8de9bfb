"""Azure Blob Storage's real calls, made through the service client of an `adlfs` file system.

Each request goes out once: the SDK's own repetitions wait 15 seconds and more, and report one's own
first attempt as a conflict.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from typing import Any

from fstx.stores import Info
from fstx.stores.answers import Cause, Verdict, verdict
from fstx.stores.services import Upload, as_body, own_instance, undeleted, without_answer
from fstx.types import Buffer


class Azure:
    """A `Service` over one container."""

    kind = "azure"
    batch = 32
    ordered = False

    def __init__(self, fs: Any, bucket: str) -> None:
        self.fs = fs
        self.bucket = bucket
        self._options = {"retry_total": 0, **getattr(fs, "_timeout_kwargs", {})}

    @staticmethod
    def instance(fs: Any) -> Any:
        """An instance that caches no listings."""
        return own_instance(fs)

    def endpoint(self) -> str:
        client = self.fs.service_client
        return f"{client.scheme}://{client.primary_hostname}"  # without the query, which may sign

    async def connect(self) -> None:
        return None

    def explain(self, error: BaseException) -> Cause:
        status = getattr(error, "status_code", None)
        if status is None:
            return without_answer(error)
        code = getattr(error, "error_code", None)
        text = str(getattr(error, "message", "") or "").partition("\n")[0]
        return Cause(int(status), str(getattr(code, "value", code) or ""), text)

    async def create(self, key: str, data: bytes) -> None:
        await self._blob(key).upload_blob(
            as_body(data), length=len(data), overwrite=False, **self._options
        )

    async def swap(self, key: str, data: bytes, token: str) -> None:
        from azure.core import MatchConditions

        await self._blob(key).upload_blob(
            as_body(data),
            length=len(data),
            overwrite=True,
            etag=token,
            match_condition=MatchConditions.IfNotModified,
            **self._options,
        )

    async def put(self, key: str, data: Buffer, checksum: str) -> None:
        # The service verifies an MD5 that the client sends along; it knows no CRC32C.
        checked = {"validate_content": True} if checksum else {}
        size_bytes = memoryview(data).nbytes
        await self._blob(key).upload_blob(
            as_body(data), length=size_bytes, overwrite=True, **checked, **self._options
        )

    async def get(self, key: str, start: int, stop: int | None) -> bytes:
        blob = self._blob(key)
        if start < 0:  # the service takes no range from the end
            size = (await blob.get_blob_properties(**self._options)).size
            start = max(0, size + start)
        length = None if stop is None else stop - start
        try:
            stream = await blob.download_blob(
                offset=start, length=length, max_concurrency=4, **self._options
            )
        except Exception as error:
            if self.explain(error).status == 416:
                return b""  # the blob ends before the range begins
            raise
        data: bytes = await stream.readall()
        return data

    async def page(self, prefix: str, mark: str | None) -> tuple[list[Info], str | None]:
        container = self.fs.service_client.get_container_client(self.bucket)
        listing = container.list_blobs(
            name_starts_with=prefix, include=["metadata"], **self._options
        )
        pages = listing.by_page(mark)
        found = []
        async for page in pages:
            async for blob in page:
                folder = (blob.metadata or {}).get("hdi_isfolder") == "true"
                if not folder and not blob.name.endswith("/"):
                    found.append(_info(blob.name, blob))
            break
        return found, pages.continuation_token or None

    async def head(self, key: str) -> Info | None:
        try:
            told = await self._blob(key).get_blob_properties(**self._options)
        except Exception as error:
            if verdict(self.explain(error)) is Verdict.MISSING:
                return None
            raise
        return _info(key, told)

    async def delete(self, keys: Sequence[str]) -> Mapping[str, Cause]:
        results = await asyncio.gather(
            *(self._blob(k).delete_blob(delete_snapshots="include", **self._options) for k in keys),
            return_exceptions=True,
        )
        return undeleted(keys, results, self.explain)

    async def begin(self, key: str, base: str | None = None) -> Upload:
        return Upload(key, "", base=base)

    async def part(self, upload: Upload, number: int, data: Buffer, last: bool) -> None:
        import secrets

        # A name of its own for each writer: blocks of two writers of one blob don't mix.
        if not upload.name:
            upload.name = secrets.token_hex(8)
        name = base64.b64encode(f"{upload.name}{number:08}".encode()).decode()
        await self._blob(upload.key).stage_block(
            name, as_body(data), length=len(data), validate_content=True, **self._options
        )
        upload.parts[number] = name

    async def complete(self, upload: Upload) -> None:
        from azure.storage.blob import BlobBlock

        blocks = [BlobBlock(upload.parts[n]) for n in sorted(upload.parts)]
        try:
            await self._blob(upload.key).commit_block_list(
                blocks, **_condition(upload.base), **self._options
            )
        except Exception as error:
            # Blocks are gone after a commit whose answer was lost: then the blob is there.
            if self.explain(error).code != "InvalidBlockList" or upload.base is not None:
                raise
            found = await self.head(upload.key)
            if found is None or found.size_bytes != upload.size_bytes:
                raise

    async def abort(self, upload: Upload) -> None:
        return None  # blocks that nobody committed are no object; the service drops them in a week

    def _blob(self, key: str) -> Any:
        return self.fs.service_client.get_blob_client(self.bucket, key)


def _condition(base: str | None) -> dict[str, Any]:
    from azure.core import MatchConditions

    if base is None:
        return {}
    if not base:
        return {"match_condition": MatchConditions.IfMissing}
    return {"etag": base, "match_condition": MatchConditions.IfNotModified}


def _info(key: str, told: Any) -> Info:
    modified = told.last_modified
    etag = told.etag
    token = f'"{etag.strip(chr(34))}"' if etag else None  # listings leave the quotes out
    return Info(key, told.size, modified.timestamp() if modified else None, token)


__all__ = ["Azure"]
