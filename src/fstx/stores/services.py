"""What the remote store needs of one service: its real calls, each made once.

No call retries, none caches; whoever calls decides what a failure means. A service names objects by
their full key in one bucket (container).
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fstx.stores import Info
from fstx.stores.answers import Cause, Verdict, verdict
from fstx.types import Buffer


@dataclass(slots=True)
class Upload:
    """One object that is being put piece by piece."""

    key: str
    name: str  # the service's name of it
    parts: dict[int, Any] = field(default_factory=dict)
    size_bytes: int = 0
    base: str | None = (
        None  # token of what may be replaced at the end, "" for nothing; None: anything
    )


class Service(Protocol):
    """Coroutines over one bucket. Failures are the client library's own exceptions."""

    kind: str  # "s3", "gcs", "azure"
    bucket: str
    batch: int  # keys in one call of `delete`
    ordered: bool  # parts of an upload go one after the other

    def endpoint(self) -> str:
        """Where the service is; no credentials. Makes no request."""

    def explain(self, error: BaseException) -> Cause:
        """What the service said."""

    async def connect(self) -> None:
        """Afterwards `endpoint` is exact."""

    async def create(self, key: str, data: bytes) -> None: ...
    async def swap(self, key: str, data: bytes, token: str) -> None: ...
    async def put(self, key: str, data: Buffer, checksum: str) -> None: ...
    async def get(self, key: str, start: int, stop: int | None) -> bytes: ...
    async def page(self, prefix: str, mark: str | None) -> tuple[list[Info], str | None]: ...
    async def head(self, key: str) -> Info | None: ...

    async def delete(self, keys: Sequence[str]) -> Mapping[str, Cause]:
        """The keys that are not gone, and why."""

    async def begin(self, key: str, base: str | None = None) -> Upload: ...
    async def part(self, upload: Upload, number: int, data: Buffer, last: bool) -> None: ...
    async def complete(self, upload: Upload) -> None: ...
    async def abort(self, upload: Upload) -> None: ...


_LARGE_BYTES = 1 << 20
_LATE = (asyncio.TimeoutError, TimeoutError)
_UNSENT = frozenset(
    {
        # Raised before anything is sent: no credentials, nonsense in the call.
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "NoAuthTokenError",
        "TokenRetrievalError",
        "ParamValidationError",
        "NoRegionError",
        "ProfileNotFound",
        "InvalidRegionError",
        "DefaultCredentialsError",
        "RefreshError",
    }
)


def without_answer(error: BaseException) -> Cause:
    """The cause of an exception that carries no answer of the service."""
    name = type(error).__name__
    text = str(error) or name
    if isinstance(error, _LATE):
        return Cause(None, "Timeout", text)
    return Cause(None, name, text, sent=name not in _UNSENT)


def undeleted(
    keys: Sequence[str],
    results: Sequence[object],
    explain: Callable[[BaseException], Cause],
) -> dict[str, Cause]:
    """Keys that single deletions left, each with why; one that was not there is gone."""
    left = {}
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, Exception):
            cause = explain(result)
            if verdict(cause) is not Verdict.MISSING:
                left[key] = cause
        elif isinstance(result, BaseException):
            raise result
    return left


def as_bytes(data: Buffer) -> bytes:
    """`data` in the form that every client takes."""
    return data if isinstance(data, bytes) else bytes(data)


def as_body(data: Buffer) -> Any:
    """`data` as the HTTP library wants it: large ones in pieces, not in one."""
    raw = as_bytes(data)
    return io.BytesIO(raw) if len(raw) > _LARGE_BYTES else raw


def crc32c_base64(checksum: str) -> str:
    """A checksum ``c........`` as the services spell it; "" where it is another kind."""
    if not checksum.startswith("c"):
        return ""
    import base64

    return base64.b64encode(bytes.fromhex(checksum[1:])).decode()


def own_instance(fs: Any, **wanted: Any) -> Any:
    """An instance like `fs` that caches no listings, in sync mode, with other options as `wanted`."""
    options = {k: v for k, v in fs.storage_options.items() if k not in ("loop", "asynchronous")}
    options.update(wanted, use_listings_cache=False)
    return type(fs)(*fs.storage_args, **options)


__all__ = [
    "Service",
    "Upload",
    "as_body",
    "as_bytes",
    "crc32c_base64",
    "own_instance",
    "without_answer",
]
