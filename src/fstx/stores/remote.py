"""Objects of S3, Google Cloud Storage and Azure Blob Storage, through their fsspec file systems."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from fstx import seams
from fstx.stores import Answer, Info, Proof
from fstx.stores.answers import Cause, transient
from fstx.stores.keys import below, check_key, check_prefix
from fstx.stores.link import Link
from fstx.stores.uploads import ConditionalWriter, RemoteWriter
from fstx.types import Buffer

PART_BYTES = 8 << 20
_BATCHES = 4


class RemoteStore:
    """A `Store` in a bucket of an object store.

    It pickles as fsspec file systems do: by class and storage options, so that credentials given as
    options are in the pickle (those of the environment are not). Texts never show them.

    Parameters
    ----------
    link
        The connection to the bucket.
    scheme
        Of the URL.
    root
        Path below the bucket; "" is the bucket itself.
    part_bytes
        Size of the parts of large objects.
    """

    def __init__(
        self, link: Link, scheme: str, root: str = "", *, part_bytes: int = PART_BYTES
    ) -> None:
        self._link = link
        self._scheme = scheme
        self._root = root.strip("/")
        self._part_bytes = part_bytes
        self._bucket = link._bucket

    @property
    def url(self) -> str:
        return f"{self._scheme}://{below(self._bucket, self._root).rstrip('/')}"

    @property
    def identity(self) -> str:
        return f"{self.place}/{self._root}"

    @property
    def token(self) -> str:
        """Differs for two stores that reach the objects with other options, such as other credentials."""
        return self._link.token

    @property
    def place(self) -> str:
        """Service, endpoint and bucket: what a proof is about."""
        return f"{self._link.typed().kind}:{self._link.endpoint()}:{self._bucket}"

    @property
    def link(self) -> Link:
        """The connection, for the probe."""
        return self._link

    def __repr__(self) -> str:
        return f"<RemoteStore {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make, (self._link, self._scheme, self._root, self._part_bytes))

    # --- writing -------------------------------------------------------------------------------

    def put_new(self, key: str, data: bytes, /) -> Answer:
        make = partial(self._link.typed().create, self._key(key), bytes(data))
        try:
            return self._link.wait(self._link.once(make, "create", self._place(key), len(data)))
        except FileNotFoundError as error:
            # No such bucket: of an object that must be absent nothing else can be missing.
            raise OSError(errno.ENXIO, error.strerror, error.filename) from error.__cause__

    def start_put_new(self, key: str, data: bytes, /) -> Future[Answer]:
        """As `put_new`, without waiting."""
        make = partial(self._link.typed().create, self._key(key), data)
        return self._link.submit(self._link.once(make, "create", self._place(key), len(data)))

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        if token is None:
            return self.put_new(key, data)
        make = partial(self._link.typed().swap, self._key(key), bytes(data), token)
        try:
            return self._link.wait(self._link.once(make, "replace", self._place(key), len(data)))
        except FileNotFoundError:
            return Answer.TAKEN  # gone: it has the token no more

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        self._link.wait(self._put(key, data, checksum))

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        return self._link.submit(self._put(check_key(key), data, checksum))

    async def _put(self, key: str, data: Buffer, checksum: str) -> None:
        make = partial(self._link.typed().put, self._key(key), data, checksum)
        await self._link.again(make, "put", self._place(key), size_bytes=memoryview(data).nbytes)

    def open(self, key: str, /) -> RemoteWriter:
        return RemoteWriter(
            self._link, self._key(key), self._place(key), part_bytes=self._part_bytes
        )

    def open_if(self, key: str, token: str | None, /) -> ConditionalWriter:
        """As `open`; its ``close`` puts only if the object still has `token` (None: if absent)."""
        return ConditionalWriter(
            self._link,
            self._key(key),
            self._place(key),
            part_bytes=self._part_bytes,
            base=token or "",
        )

    def delete(self, keys: Iterable[str], /) -> None:
        self._link.wait(self._delete([self._key(key) for key in keys]))

    async def _delete(self, keys: list[str]) -> None:
        """Delete in batches; keys that a passing failure left go into another round."""
        import asyncio

        service = self._link.typed()
        left: dict[str, Cause] = {}
        for turn in range(_BATCHES):
            batches = [keys[n : n + service.batch] for n in range(0, len(keys), service.batch)]
            left = {}
            for start in range(0, len(batches), _BATCHES):
                calls = [
                    self._link.again(partial(service.delete, batch), "delete", self.url)
                    for batch in batches[start : start + _BATCHES]
                ]
                for found in await asyncio.gather(*calls):
                    left.update(found)
            keys = [key for key, cause in left.items() if transient(cause)]
            if len(keys) < len(left) or not keys:
                break
            await seams.pause_async(0.2 * 2**turn)
        for key, cause in left.items():
            place = f"{self._scheme}://{self._bucket}/{key}"
            raise self._link.failure(cause, place, "delete")

    # --- reading -------------------------------------------------------------------------------

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and (start < 0 or stop <= start):
            if start < 0:
                raise ValueError("a range from the end has no stop")
            return b""
        make = partial(self._link.typed().get, self._key(key), start, stop)
        size_bytes = 1 << 28 if stop is None else stop - start
        return self._link.wait(
            self._link.again(make, "read", self._place(key), size_bytes=size_bytes)
        )

    def list(self, prefix: str, /) -> Iterator[Info]:
        check_prefix(prefix)
        service = self._link.typed()
        unsorted = service.kind == "azure" or self._bucket.endswith("--x-s3")
        if unsorted:  # accounts and buckets with real directories have an order of their own
            yield from sorted(self._pages(prefix), key=lambda info: info.key)
        else:
            yield from self._pages(prefix)

    def _pages(self, prefix: str) -> Iterator[Info]:
        service = self._link.typed()
        top = f"{self._root}/" if self._root else ""
        mark: str | None = None
        while True:
            make = partial(service.page, top + prefix, mark)
            found, mark = self._link.wait(self._link.again(make, "list", self._place(prefix)))
            for info in found:
                yield Info(info.key[len(top) :], info.size_bytes, info.modified_s, info.token)
            if mark is None:
                return

    def info(self, key: str, /) -> Info | None:
        make = partial(self._link.typed().head, self._key(key))
        found = self._link.wait(self._link.again(make, "look at", self._place(key)))
        if found is None:
            return None
        return Info(key, found.size_bytes, found.modified_s, found.token)

    # --- what it is ----------------------------------------------------------------------------

    def probe(self) -> Proof:
        from fstx.stores.probe import prove

        return prove(self)

    def below(self, path: str, /) -> RemoteStore:
        root = below(self._root, check_key(path))
        return RemoteStore(self._link, self._scheme, root, part_bytes=self._part_bytes)

    def tidy(self, older_than_s: float) -> int:
        """Abort uploads below the root that killed writers left open; returns how many."""
        import time

        before_s = time.time() - older_than_s
        return self._abort(lambda key, begun_s: begun_s < before_s)

    def abort_uploads(self, dead: Callable[[str], bool]) -> int:
        """Abort open uploads of keys that are `dead`; returns how many."""
        return self._abort(lambda key, begun_s: dead(key))

    def open_uploads(self) -> tuple[Info, ...]:
        """Uploads below the root that nobody has finished; their time is when they began."""
        return tuple(Info(key, 0, begun_s) for key, begun_s, _ in self._uploads())

    def _uploads(self) -> Iterator[tuple[str, float, Any]]:
        service = self._link.service
        if not hasattr(service, "open_uploads"):
            return
        top = f"{self._root}/" if self._root else ""
        make = partial(service.open_uploads, top)
        found = self._link.wait(self._link.again(make, "list uploads", self.url))
        for upload, begun_s in found:
            yield upload.key[len(top) :], begun_s, upload

    def _abort(self, doomed: Callable[[str, float], bool]) -> int:
        going = [upload for key, begun_s, upload in self._uploads() if doomed(key, begun_s)]
        for upload in going:
            make = partial(self._link.service.abort, upload)
            self._link.wait(self._link.again(make, "abort an upload", self.url))
        return len(going)

    def _key(self, key: str) -> str:
        return below(self._root, check_key(key))

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}"


def _make(link: Link, scheme: str, root: str, part_bytes: int) -> RemoteStore:
    return RemoteStore(link, scheme, root, part_bytes=part_bytes)


def remote_store(fs: Any, path: str) -> RemoteStore | None:
    """The store at `path` on one of the known services' file systems; None for another kind."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    service: Any
    if "s3" in protocols and hasattr(fs, "_call_s3"):
        from fstx.stores.s3 import S3 as service  # noqa: N811

        scheme = "s3"
    elif "gs" in protocols and hasattr(fs, "_request"):
        from fstx.stores.gcs import GCS as service  # noqa: N811

        scheme = "gs"
    elif "abfs" in protocols and hasattr(fs, "service_client"):
        from fstx.stores.azure import Azure as service  # noqa: N813

        scheme = "az"
    else:
        return None
    bucket, root = fs.split_path(path)[:2]
    return RemoteStore(Link(fs, service, bucket), scheme, root)


__all__ = ["PART_BYTES", "RemoteStore", "remote_store"]
