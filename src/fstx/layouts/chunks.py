"""Zarr v3 chunks: values to bytes and back.

Bytes are little-endian and compressed by numcodecs. Chunks at the array's edge are filled up with
the fill value; a chunk whose every bit equals the fill value has no bytes at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fstx.errors import StorageError, UsageError
from fstx.plan import Host
from fstx.types import Buffer

DTYPES = frozenset(
    ["bool", "float16", "float32", "float64", "complex64", "complex128"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
)
"""Data types that are written, by their names in Zarr v3."""

_LEVELS = {"zstd": (3, -7, 22), "gzip": (6, 0, 9), "blosc": (5, 0, 9)}  # default, least, most
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


@dataclass(frozen=True)
class ChunkCodec:
    """Turns one chunk into bytes and back.

    Parameters
    ----------
    shape
        Of a whole chunk, in elements.
    dtype
        Name of the data type, one of `DTYPES`.
    fill
        The fill value as it lies in memory, little-endian: one element.
    compression, level
        ``"zstd"``, ``"gzip"``, ``"blosc"`` or None, and its level.
    """

    shape: tuple[int, ...]
    dtype: str
    fill: bytes
    compression: str | None
    level: int = 0

    @property
    def storage_dtype(self) -> np.dtype[Any]:
        """The data type in little-endian order."""
        return np.dtype(self.dtype).newbyteorder("<")

    def encode(self, chunk: Host) -> Buffer | None:
        """The bytes of a chunk, whole or cut at the array's edge; None if it is all fill value.

        The result may share memory with `chunk`: use it before the chunk changes.

        Raises
        ------
        UsageError
            The values have another data type.
        """
        if chunk.dtype.name != self.dtype:
            raise UsageError(f"a chunk has data type {chunk.dtype}, not {self.dtype}")
        values = np.asarray(chunk, dtype=self.storage_dtype, order="C")
        if self.is_fill(values):
            return None
        if values.shape != self.shape:
            whole = np.full(self.shape, np.frombuffer(self.fill, self.storage_dtype)[0])
            whole = whole.astype(self.storage_dtype, copy=False)
            whole[tuple(slice(n) for n in values.shape)] = values
            values = whole
        return self._stored(values)

    def encode_fill(self) -> Buffer:
        """The bytes of a chunk that is all fill value, to be stored over one that isn't."""
        fill = np.frombuffer(self.fill, self.storage_dtype)[0]
        return self._stored(np.full(self.shape, fill, self.storage_dtype))

    def _stored(self, values: Host) -> Buffer:
        if self.compression is None:
            return values.reshape(-1).view(np.uint8).data
        return bytes(self._compressor().encode(values))

    def decode(self, data: Buffer) -> Host:
        """The whole chunk, little-endian, read-only.

        Raises
        ------
        StorageError
            The bytes can't be decompressed or have another length than the chunk.
        """
        try:
            raw = data if self.compression is None else self._compressor().decode(data)
        except (RuntimeError, ValueError, OSError, EOFError) as error:
            raise StorageError(f"corrupt chunk: {self.compression} refused it: {error}") from error
        expected = self.storage_dtype.itemsize * math.prod(self.shape)
        if memoryview(raw).nbytes != expected:
            raise StorageError(
                f"corrupt chunk: {memoryview(raw).nbytes} bytes instead of {expected}"
            )
        values = np.frombuffer(raw, self.storage_dtype).reshape(self.shape)
        values.flags.writeable = False
        return values

    def is_fill(self, values: Host) -> bool:
        """True when every element has the fill value's bits: 0.0 and -0.0 differ, NaNs may."""
        word = f"<u{min(8, len(self.fill))}"
        fill = np.frombuffer(self.fill, word)
        bits = values.reshape(-1).view(word).reshape(-1, len(fill))
        # Most chunks differ in their first element, so that one is compared alone.
        return not bool((bits[:1] != fill).any()) and not bool((bits != fill).any())

    def _compressor(self) -> Any:
        import numcodecs

        if self.compression == "zstd":
            return numcodecs.Zstd(level=self.level)
        if self.compression == "gzip":
            return numcodecs.GZip(level=self.level)
        return numcodecs.Blosc("zstd", self.level, _SHUFFLES[shuffle_of(self.dtype)])

    def metadata(self) -> list[dict[str, Any]]:
        """The codecs as they stand in ``zarr.json``."""
        itemsize = self.storage_dtype.itemsize
        first: dict[str, Any] = {"name": "bytes"}
        if itemsize > 1:
            first["configuration"] = {"endian": "little"}
        if self.compression is None:
            return [first]
        configuration: dict[str, Any]
        if self.compression == "zstd":
            configuration = {"level": self.level, "checksum": False}
        elif self.compression == "gzip":
            configuration = {"level": self.level}
        else:
            configuration = {
                "cname": "zstd",
                "clevel": self.level,
                "shuffle": shuffle_of(self.dtype),
                "typesize": itemsize,
                "blocksize": 0,
            }
        return [first, {"name": self.compression, "configuration": configuration}]


def shuffle_of(dtype: str) -> str:
    """Name of blosc's shuffle for a data type."""
    return "shuffle" if np.dtype(dtype).itemsize > 1 else "bitshuffle"


def codec_from_metadata(
    shape: tuple[int, ...], dtype: str, fill: bytes, codecs: list[Mapping[str, Any]]
) -> ChunkCodec:
    """The codec that reads chunks of these ``zarr.json`` codecs.

    Raises
    ------
    UsageError
        A codec that isn't known here; the message names it.
    """
    compression: str | None = None
    for codec in codecs:
        name, configuration = codec["name"], codec.get("configuration", {})
        if name == "bytes" and configuration.get("endian", "little") == "little":
            continue
        if name not in _LEVELS or compression is not None:
            raise UsageError(f"codec {name!r} with {dict(configuration)} can't be read here")
        compression = name
    return ChunkCodec(shape, dtype, fill, compression)


def check_compression(compression: object, level: object) -> tuple[str | None, int]:
    """The codec's name and level.

    Raises
    ------
    UsageError
        An unknown codec, or a level that the codec doesn't have.
    """
    if isinstance(compression, str):
        compression = compression.lower()
    if compression is None or compression == "none":
        if level is not None:
            raise UsageError(f"level={level!r} needs a compression")
        return None, 0
    if not isinstance(compression, str) or compression not in _LEVELS:
        known = ", ".join(sorted(_LEVELS))
        raise UsageError(f"compression={compression!r} is none of {known}, 'none'")
    default, least, most = _LEVELS[compression]
    if level is None:
        return compression, default
    if isinstance(level, bool) or not isinstance(level, int) or not least <= level <= most:
        raise UsageError(
            f"level={level!r}: {compression} takes whole numbers from {least} to {most}"
        )
    return compression, level
