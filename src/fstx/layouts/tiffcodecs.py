"""TIFF compression: which codec, which predictor, and bytes from pixels. imagecodecs where installed.

All codecs are lossless and release the GIL while they work.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.plan import Host
from fstx.types import Buffer

TIFF_CODES = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773, "zstd": 50000}
LEVELS = {"deflate": (1, 9, 6), "zstd": (1, 22, 3)}
"""Least, greatest and default level of the codecs that have one."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A checked choice: codec name, level (0 where it has none), TIFF predictor 1, 2 or 3."""

    name: str
    level: int
    predictor: int

    @property
    def tiff_code(self) -> int:
        """The value of the Compression tag."""
        return TIFF_CODES[self.name]


def default_compression() -> str:
    """``"zstd"`` where imagecodecs has it, else ``"deflate"``."""
    return "zstd" if _encoder("zstd") is not None else "deflate"


def parse_codec(
    compression: object, level: object, predictor: object, dtype: np.dtype[Any]
) -> Codec:
    """Check the choice for pixels of `dtype`. None for `compression` means ``"none"``.

    ``predictor=True`` is 2 for integers and 3 for floats. Raises UsageError for an unknown codec, one
    that is not installed, a level out of range or for a codec without levels, and a predictor that
    does not fit codec or dtype.
    """
    compression = "none" if compression is None else compression
    known = ", ".join(TIFF_CODES)
    if not isinstance(compression, str):
        raise UsageError(f"compression={compression!r} is not the name of a codec; known: {known}")
    name = compression.lower()
    if name not in TIFF_CODES:
        raise UsageError(f"compression={compression!r} is unknown; known: {known}")
    if _encoder(name) is None:
        raise UsageError(f"compression={name!r} needs imagecodecs: pip install 'fstx[geo]'")
    return Codec(name, _parse_level(name, level), _parse_predictor(name, predictor, dtype))


def _parse_level(name: str, level: object) -> int:
    if name not in LEVELS:
        if level is not None:
            raise UsageError(f"level={level!r}: compression={name!r} has no levels")
        return 0
    least, greatest, default = LEVELS[name]
    if level is None:
        return default
    whole = isinstance(level, int | np.integer) and not isinstance(level, bool)
    if not whole or not least <= int(level) <= greatest:  # type: ignore[call-overload]
        raise UsageError(f"level={level!r}: {name} takes an integer from {least} to {greatest}")
    return int(level)  # type: ignore[call-overload,no-any-return]


def _parse_predictor(name: str, predictor: object, dtype: np.dtype[Any]) -> int:
    if predictor is None or predictor is False or (predictor == 1 and predictor is not True):
        return 1
    if isinstance(predictor, bool):
        chosen = 3 if dtype.kind == "f" else 2
    elif isinstance(predictor, int | np.integer) and predictor in (2, 3):
        chosen = int(predictor)
    else:
        raise UsageError(f"predictor={predictor!r}; pass False, True, 2 (integers) or 3 (floats)")
    if name in {"none", "packbits"}:
        raise UsageError(f"predictor={predictor!r} needs deflate, lzw or zstd, not {name!r}")
    if chosen == 3 and dtype.kind != "f":
        raise UsageError(f"predictor=3 is for floats, the array is {dtype}; pass 2 or True")
    if chosen == 2 and dtype.kind not in "iu":
        raise UsageError(f"predictor=2 is for integers, the array is {dtype}; pass 3 or True")
    if _imagecodecs() is None:
        raise UsageError(f"predictor={predictor!r} needs imagecodecs: pip install 'fstx[geo]'")
    return chosen


@cache
def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs


@cache
def _encoder(name: str) -> Callable[[Any, int], Buffer] | None:
    """Bytes from a contiguous array and a level; None where the codec is not installed."""
    if name == "none":
        # Through numpy, because memoryview can't cast complex numbers.
        return lambda pixels, _: memoryview(pixels.reshape(-1).view(np.uint8))
    codecs = _imagecodecs()
    if codecs is None:
        if name == "deflate":
            return lambda pixels, level: zlib.compress(pixels, level)
        return None
    if not getattr(codecs, name.upper()).available:
        return None
    encode = getattr(codecs, f"{name}_encode")
    if name in LEVELS:
        return lambda pixels, level: encode(pixels, level=level)
    if name == "packbits":
        # TIFF 6.0 section 9: each row is packed on its own.
        return lambda pixels, _: encode(pixels.view(np.uint8).reshape(pixels.shape[0], -1), axis=-1)
    return lambda pixels, _: encode(pixels)


def compress(codec: Codec, pixels: Host) -> Buffer:
    """The compressed bytes of one TIFF tile: (rows, columns) or (rows, columns, bands), contiguous."""
    if codec.predictor == 2:
        pixels = _imagecodecs().delta_encode(pixels, axis=1)
    elif codec.predictor == 3:
        pixels = _imagecodecs().floatpred_encode(pixels, axis=1)
    encode = _encoder(codec.name)
    assert encode is not None  # parse_codec has looked
    return encode(pixels, codec.level)
