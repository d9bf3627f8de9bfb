"""Shards written as a stream: inner chunks of any order go in, complete shards come out.

Nothing needs the whole shard in memory: each encoded chunk is appended the moment it exists, and
the index follows when the last one has arrived. Peak memory is one raw chunk per writing thread and
the encoded bytes in flight.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fstx.errors import StorageError, TransactionError, UsageError
from fstx.layouts.shards import ShardLayout
from fstx.plan import Grid, Host, Index, block_slices
from fstx.protocol import StagedFile, Stager
from fstx.types import Buffer, StagedObject

MAX_OPEN = 128
"""Shards of one sink that are open at once. Chunks of further shards are staged one by one, and the
coordinator composes those shards: slower, but no limit of the system is met."""

Partial = Literal["error", "fill"]


@dataclass
class _Shard:
    """One shard being written."""

    path: str
    left: int
    index: np.ndarray[Any, np.dtype[np.uint64]]
    seen: bytearray
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: AbstractContextManager[StagedFile] | None = None
    file: StagedFile | None = None
    alone: bool = False  # chunks are staged one by one
    offset: int = 0
    over: bool = False
    failure: BaseException | None = None


class ShardSink:
    """Writes shards chunk by chunk: from any thread, in any order, without a shard in memory.

    A shard's file is opened by its first chunk that is not all fill value, and completed by its
    last chunk; a shard of nothing but fill value is never stored. Compression holds no lock. The
    order of chunks inside a shard is the order of arrival; readers don't depend on it.

    Parameters
    ----------
    stager
        Where shards are staged.
    layout
        The array's shards.
    grid
        Blocks of `write`; not needed for `write_chunk`.
    place
        Where a block of `grid` lies in the array, where the grid is not the whole array's.
    partial
        What `close` does when chunks never arrived: ``"fill"`` leaves them to the fill value,
        ``"error"`` raises UsageError and drops what is open.
    max_open
        Shards that are open at once; beyond it chunks are staged one by one, see `MAX_OPEN`.
    """

    def __init__(
        self,
        stager: Stager,
        layout: ShardLayout,
        grid: Grid | None = None,
        *,
        partial: Partial = "error",
        max_open: int = MAX_OPEN,
        place: Callable[[Index], tuple[slice, ...]] | None = None,
    ) -> None:
        if partial not in ("error", "fill"):
            raise UsageError(f"partial={partial!r} is neither 'error' nor 'fill'")
        self._stager = stager
        self._layout = layout
        self._grid = grid
        self._place = place
        self._partial = partial
        self._max_open = max_open
        self._lock = threading.Lock()
        self._shards: dict[Index, _Shard] = {}
        self._open = 0
        self._over = False

    def write(self, index: Index, block: Host, /) -> tuple[StagedObject, ...]:
        """Take a block that covers whole inner chunks, at `index` of the plan's grid."""
        if self._grid is None:
            raise UsageError("this sink has no block grid; use write_chunk")
        region = block_slices(self._grid, index) if self._place is None else self._place(index)
        receipts: list[StagedObject] = []
        for _, chunks in self._layout.chunks_of(region):
            for chunk, place in chunks:
                receipts += self.write_chunk(chunk, block[place])
        return tuple(receipts)

    def write_chunk(self, index: Index, chunk: Host, /) -> tuple[StagedObject, ...]:
        """Take one inner chunk and return the objects that it completed.

        Parameters
        ----------
        index
            Number of the chunk along each axis of the array.
        chunk
            The chunk's values, cut at the array's edge or whole.

        Raises
        ------
        UsageError
            The chunk lies outside the array, has another shape, or was written before.
        """
        layout = self._layout
        region = layout.region(index)
        if any(i < 0 or r.stop <= r.start for i, r in zip(index, region, strict=True)):
            raise UsageError(f"{layout.prefix}: chunk {index} lies outside of shape {layout.shape}")
        if chunk.shape not in (layout.chunks, tuple(r.stop - r.start for r in region)):
            raise UsageError(
                f"{layout.prefix}: chunk {index} has shape {chunk.shape}, not {layout.chunks}"
            )
        chunk = chunk[tuple(slice(r.stop - r.start) for r in region)]
        shard_index, inner = layout.split(index)
        shard = self._shard(shard_index)
        if shard.failure is None:
            data = layout.format.codec.encode(chunk)
        with shard.lock:
            if shard.failure is not None:
                raise StorageError(f"shard {shard.path} failed before") from shard.failure
            number = layout.format.number(inner)
            if shard.over or shard.seen[number]:
                raise UsageError(f"shard {shard.path}: its chunk {inner} was written before")
            try:
                done = () if data is None else self._store(shard, shard_index, inner, data)
                shard.seen[number] = 1
                shard.left -= 1
                return done + (self._complete(shard) if shard.left == 0 else ())
            except BaseException as error:
                shard.failure = error
                self._drop(shard)
                raise

    def close(self) -> tuple[StagedObject, ...]:
        """Complete what is open, as `partial` says. Further chunks are refused.

        Raises
        ------
        UsageError
            Chunks are missing and `partial` is ``"error"``; everything open was dropped.
        StorageError
            A shard failed before; everything open was dropped.
        """
        with self._lock:
            self._over = True
            shards = list(self._shards.values())
        for shard in shards:
            if shard.failure is not None:
                self.discard()
                raise StorageError(f"shard {shard.path} failed before") from shard.failure
        if self._partial == "error":
            short = [s for s in shards if s.left]
            untouched = self._layout.shard_count() - len(shards)
            if short or untouched:
                self.discard()
                what = (
                    f"shard {short[0].path} lacks {short[0].left} chunks"
                    if short
                    else f"{untouched} shards got no chunk"
                )
                raise UsageError(f"{self._layout.prefix}: {what}; partial='fill' leaves them empty")
        receipts: list[StagedObject] = []
        for shard in shards:
            with shard.lock:
                if not shard.over:
                    receipts += self._complete(shard)
        return tuple(receipts)

    def discard(self) -> None:
        """Drop what is open. Never raises."""
        with self._lock:
            self._over = True
            shards = list(self._shards.values())
        for shard in shards:
            with shard.lock:
                self._drop(shard)

    def _shard(self, index: Index) -> _Shard:
        with self._lock:
            if self._over:
                raise UsageError(f"{self._layout.prefix}: the sink is closed")
            shard = self._shards.get(index)
            if shard is None:
                form = self._layout.format
                shard = _Shard(
                    self._layout.path(index),
                    self._layout.chunks_in(index),
                    form.empty_index(),
                    bytearray(math.prod(form.per_shard)),
                )
                self._shards[index] = shard
            return shard

    def _store(
        self, shard: _Shard, index: Index, inner: Index, data: Buffer
    ) -> tuple[StagedObject, ...]:
        if shard.file is None and not shard.alone:
            with self._lock:
                shard.alone = self._open >= self._max_open
                self._open += not shard.alone
            if not shard.alone:
                shard.opened = self._stager.open(shard.path)
                shard.file = shard.opened.__enter__()
        if shard.file is None:
            return (self._stager.stage(self._layout.piece(index, inner), data),)
        shard.file.write(data)
        shard.index[self._layout.format.number(inner)] = (shard.offset, len(data))
        shard.offset += len(data)
        return ()

    def _complete(self, shard: _Shard) -> tuple[StagedObject, ...]:
        shard.over = True
        file, opened = shard.file, shard.opened
        if file is None or opened is None:
            self._forget(shard)
            return ()
        file.write(self._layout.format.encode_index(shard.index))
        opened.__exit__(None, None, None)
        self._forget(shard)
        size_bytes = shard.offset + self._layout.format.index_bytes
        if file.receipt.size_bytes != size_bytes:
            raise StorageError(
                f"shard {shard.path}: {file.receipt.size_bytes} bytes staged, not {size_bytes}"
            )
        return (file.receipt,)

    def _drop(self, shard: _Shard) -> None:
        shard.over = True
        if shard.opened is not None and shard.file is not None:
            given_up = TransactionError(f"shard {shard.path} was given up")
            # The storage's trouble in throwing bytes away must not hide why they are thrown away.
            with suppress(Exception):
                shard.opened.__exit__(TransactionError, given_up, None)
        self._forget(shard)

    def _forget(self, shard: _Shard) -> None:
        if shard.opened is not None:
            with self._lock:
                self._open -= 1
        shard.file = shard.opened = None
        shard.index = shard.index[:0]
