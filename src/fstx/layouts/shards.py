"""Zarr v3 shards: where chunks belong, and the index that finds them in a shard.

A shard is its inner chunks in any order and an index behind them; see `fstx.layouts.shard_sink` for
how one is written without being held in memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fstx.errors import StorageError
from fstx.layouts.chunks import ChunkCodec
from fstx.plan import Host, Index
from fstx.types import Buffer

MISSING = np.uint64(2**64 - 1)
"""Offset and length of an inner chunk that isn't stored: its values are all the fill value."""

Shape = tuple[int, ...]


def _crc32c(data: bytes) -> bytes:
    import google_crc32c

    return int(google_crc32c.value(data)).to_bytes(4, "little")


@dataclass(frozen=True)
class ShardFormat:
    """How one shard is laid out: the codec of its inner chunks, and how many there are.

    Parameters
    ----------
    codec
        Shape, dtype and compression of an inner chunk.
    per_shard
        Inner chunks along each axis.
    index_at
        Where the index lies; what we write has it at the end.
    """

    codec: ChunkCodec
    per_shard: Shape
    index_at: Literal["start", "end"] = "end"

    @property
    def index_bytes(self) -> int:
        """Length of the index: two numbers of 8 bytes per inner chunk, and the checksum."""
        return 16 * math.prod(self.per_shard) + 4

    def empty_index(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """An index in which every inner chunk is missing: shape (chunks, 2)."""
        return np.full((math.prod(self.per_shard), 2), MISSING, dtype="<u8")

    def encode_index(self, index: np.ndarray[Any, np.dtype[np.uint64]]) -> bytes:
        """The index as stored, checksum included."""
        raw = index.astype("<u8", copy=False).tobytes()
        return raw + _crc32c(raw)

    def number(self, inner: Index) -> int:
        """Position of an inner chunk in the index."""
        return int(np.ravel_multi_index(inner, self.per_shard))

    def decode_index(self, shard: Buffer) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """The index of a whole shard, shape (chunks, 2), after its checksum was verified.

        Raises
        ------
        StorageError
            The shard is too short, the checksum differs, or an entry points outside the shard.
        """
        view = memoryview(shard)
        if len(view) < self.index_bytes:
            raise StorageError(
                f"corrupt shard: {len(view)} bytes can't hold an index of {self.index_bytes}"
            )
        at_end = self.index_at == "end"
        stored = bytes(view[-self.index_bytes :] if at_end else view[: self.index_bytes])
        if _crc32c(stored[:-4]) != stored[-4:]:
            raise StorageError("corrupt shard: the checksum of its index does not match")
        index = np.frombuffer(stored[:-4], dtype="<u8").reshape(-1, 2)
        for start, length in index.tolist():
            if start != MISSING and start + length > len(view):
                raise StorageError(
                    f"corrupt shard: bytes {start} to {start + length} of {len(view)} in its index"
                )
        return index

    def decode(self, shard: Buffer) -> Iterator[tuple[Index, Host]]:
        """The stored inner chunks of a whole shard with their positions in it, in C order."""
        view = memoryview(shard)
        index = self.decode_index(shard)
        for number, inner in enumerate(np.ndindex(*self.per_shard)):
            start, length = (int(n) for n in index[number])
            if start != MISSING:
                yield inner, self.codec.decode(view[start : start + length])


@dataclass(frozen=True)
class ShardLayout:
    """An array in shards: which chunk belongs where, and what its shard is called.

    Parameters
    ----------
    prefix
        Path in front of the shard's number: ``dem.zarr/c``.
    shape, shards
        Of the array and of one shard, in elements; the inner chunk's shape is the format's.
    """

    prefix: str
    shape: Shape
    shards: Shape
    format: ShardFormat

    @property
    def chunks(self) -> Shape:
        return self.format.codec.shape

    def path(self, shard: Index) -> str:
        """Path of a shard."""
        return "/".join([self.prefix, *map(str, shard)])

    def piece(self, shard: Index, inner: Index) -> str:
        """Path under which one inner chunk of a shard is staged alone; never published."""
        return f"{self.path(shard)}#{'.'.join(map(str, inner))}"

    def split(self, chunk: Index) -> tuple[Index, Index]:
        """Shard of a chunk, and the chunk's position in it."""
        pairs = [divmod(i, n) for i, n in zip(chunk, self.format.per_shard, strict=True)]
        return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)

    def shard_count(self) -> int:
        return math.prod(-(-n // s) for n, s in zip(self.shape, self.shards, strict=True))

    def chunks_in(self, shard: Index) -> int:
        """Inner chunks of a shard that lie in the array, at least in part."""
        return math.prod(
            -(-min(s, n - i * s) // c)
            for i, n, s, c in zip(shard, self.shape, self.shards, self.chunks, strict=True)
        )

    def region(self, chunk: Index) -> tuple[slice, ...]:
        """Elements of a chunk, cut at the array's edge."""
        return tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(chunk, self.chunks, self.shape, strict=True)
        )

    def chunks_of(
        self, region: tuple[slice, ...]
    ) -> Iterator[tuple[Index, list[tuple[Index, tuple[slice, ...]]]]]:
        """Shards that a region touches, each with its chunks there and their places in it."""
        if any(s.stop <= s.start for s in region):
            return
        spans = [
            range(r.start // s, -(-r.stop // s)) for r, s in zip(region, self.shards, strict=True)
        ]
        for shard in itertools.product(*spans):
            axes = [
                range(max(r.start, i * s) // c, -(-min(r.stop, (i + 1) * s) // c))
                for r, i, s, c in zip(region, shard, self.shards, self.chunks, strict=True)
            ]
            yield (
                shard,
                [(chunk, self._within(region, chunk)) for chunk in itertools.product(*axes)],
            )

    def _within(self, region: tuple[slice, ...], chunk: Index) -> tuple[slice, ...]:
        return tuple(
            slice(c.start - r.start, c.stop - r.start)
            for r, c in zip(region, self.region(chunk), strict=True)
        )
