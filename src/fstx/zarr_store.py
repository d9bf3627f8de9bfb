"""A Zarr store over a transaction: what zarr, xarray and dask write is published whole.

Works with zarr 3.1 and later. Where zarr asks for synchronous access (its fused codec pipeline,
from 3.4 on), that is there too.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from fstx.errors import UsageError
from fstx.protocol import Transaction

_DOCUMENTS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Last parts of keys by which readers find chunks: published after them."""

_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class TransactionStore(Store):
    """Keys of a Zarr hierarchy as paths of a transaction.

    Writes are staged at once and seen by readers of this store at once (read-your-writes); other
    readers see them when the transaction commits, all together. Listings hold keys only: no
    temporary name is ever among them. Reads of what was there before make the commit depend on it.

    Parameters
    ----------
    tx
        An open transaction, the caller's: closing the store neither commits nor rolls back.
    root
        Path within the transaction under which the keys lie, or "" for its top.
    read_only
        Refuse writes with ValueError.

    Notes
    -----
    The store goes where its transaction goes: to any thread, but not to another process. `pickle`
    raises UsageError then; use a thread scheduler, or stage in workers by ``tx.stager()``.
    """

    supports_writes: bool = True
    supports_deletes: bool = True
    supports_listing: bool = True

    def __init__(self, tx: Transaction, root: str = "", *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only)
        self._tx = tx
        self._root = root.strip("/")
        self._exclusive = threading.Lock()

    def with_read_only(self, read_only: bool = False) -> TransactionStore:
        """A store over the same transaction and root with another `read_only`."""
        return type(self)(self._tx, self._root, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TransactionStore)
            and other._tx is self._tx
            and other._root == self._root
            and other.read_only == self.read_only
        )

    __hash__ = None  # type: ignore[assignment]  # as zarr's stores: equal by what they hold

    def __str__(self) -> str:
        return f"{self._tx.url.rstrip('/')}/{self._root}".rstrip("/")

    def __repr__(self) -> str:
        return f"TransactionStore('{self}', transaction {self._tx.id})"

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            pickle.dumps(self._tx)
        except Exception as error:
            raise UsageError(
                f"the store of transaction {self._tx.id} can't go to another process, because its "
                "transaction can't: use a thread scheduler (dask: scheduler='threads'), or let "
                "workers stage by tx.stager() and adopt their receipts",
                txid=self._tx.id,
            ) from error
        return (_rebuild, (self._tx, self._root, self.read_only))

    # --- one object ----------------------------------------------------------------------------

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """The value of `key`, or the asked part of it; None where there is none."""
        self._is_open = True
        make = (prototype or default_buffer_prototype()).buffer.from_bytes
        try:
            return make(self._read(self._path(key), byte_range))
        except _ABSENT:
            return None

    def set_sync(self, key: str, value: Buffer) -> None:
        """Stage `value` under `key`."""
        self._check_writable()
        self._is_open = True
        if not isinstance(value, Buffer):
            raise TypeError(f"value must be a zarr Buffer, not {type(value).__name__}")
        raw = memoryview(value.as_buffer_like()).cast("B")
        self._tx.stage(self._path(key), raw, publisher=key.rpartition("/")[2] in _DOCUMENTS)

    def delete_sync(self, key: str) -> None:
        """Remove `key` at commit; nothing happens where it isn't."""
        self._check_writable()
        self._is_open = True
        if self._exists(key):
            self._tx.remove(self._path(key))

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        # Storage may block: never on zarr's event loop.
        return await asyncio.to_thread(
            self.get_sync, key, prototype=prototype, byte_range=byte_range
        )

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        parts = (self.get(key, prototype, byte_range) for key, byte_range in key_ranges)
        return list(await asyncio.gather(*parts))

    async def set(self, key: str, value: Buffer) -> None:
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        def put() -> None:
            with self._exclusive:
                if not self._exists(key):
                    self.set_sync(key, value)

        await asyncio.to_thread(put)

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self.delete_sync, key)

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._exists, key)

    # --- listings --------------------------------------------------------------------------------

    async def list(self) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(self._keys, ""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in await asyncio.to_thread(self._keys, prefix):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        below = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        keys = await asyncio.to_thread(self._keys, below)
        for name in dict.fromkeys(key[len(below) :].partition("/")[0] for key in keys):
            yield name

    async def delete_dir(self, prefix: str) -> None:
        """Remove everything below `prefix` at commit."""
        self._check_writable()
        await asyncio.to_thread(self._remove_tree, prefix.strip("/"))

    async def clear(self) -> None:
        """Remove every key at commit."""
        await self.delete_dir("")

    # --- in the transaction's terms ---------------------------------------------------------

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if self._root else key

    def _read(self, path: str, wanted: ByteRequest | None) -> bytes:
        if wanted is None:
            return self._tx.read(path)
        if isinstance(wanted, RangeByteRequest):
            return self._tx.read(path, wanted.start, wanted.end)
        if isinstance(wanted, OffsetByteRequest):
            return self._tx.read(path, wanted.offset)
        if not isinstance(wanted, SuffixByteRequest):
            raise ValueError(f"Unexpected byte_range, got {wanted!r}.")
        return self._tx.read(path, -wanted.suffix) if wanted.suffix else b""

    def _exists(self, key: str) -> bool:
        try:
            self._tx.read(self._path(key), 0, 0)
        except _ABSENT:
            return False
        return True

    def _keys(self, prefix: str) -> Sequence[str]:
        """Keys that begin with `prefix`, sorted; `prefix` need not end at a ``/``."""
        directory = self._path(prefix.rpartition("/")[0]).strip("/")
        skipped = len(self._root) + 1 if self._root else 0
        keys = (path[skipped:] for path in self._tx.paths(directory) if len(path) > skipped)
        return [key for key in keys if key.startswith(prefix)]

    def _remove_tree(self, prefix: str) -> None:
        keys = self._keys(f"{prefix}/" if prefix else "")
        if not keys:
            return
        if prefix or self._root:
            self._tx.remove(self._path(prefix).rstrip("/"))
            return
        for top in dict.fromkeys(key.partition("/")[0] for key in keys):
            self._tx.remove(top)


def _rebuild(tx: Transaction, root: str, read_only: bool) -> TransactionStore:
    return TransactionStore(tx, root, read_only=read_only)
