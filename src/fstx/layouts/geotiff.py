"""GeoTIFF files out of blocks: one directory, tiled, any number of bands. Bytes only, no I/O.

bool is stored as uint8 and float16 as float32; every other type keeps its values bit for bit, 64-bit
integers included. Bands that come last are interleaved by pixel, bands that come first are stored one
plane behind the other, so that neither is transposed in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from fstx.errors import StorageError, UsageError
from fstx.layouts import tifftags as tt
from fstx.layouts.georef import (
    Crs,
    RasterType,
    Transform,
    geo_keys,
    number_text,
    shifted,
    tie_point,
)
from fstx.layouts.tiffcodecs import Codec, compress
from fstx.plan import Host
from fstx.types import Buffer

Axes: TypeAlias = Literal["yx", "yxb", "byx"]

CLASSIC_LIMIT = 2**32 - 1
"""Classic TIFF offsets have 32 bits; a longer file is BigTIFF."""

PHOTOMETRIC = {"miniswhite": 0, "minisblack": 1, "rgb": 2}
_SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3, "c": 6}
_GDAL_TYPES = {
    "|u1": "Byte",
    "|i1": "Int8",
    "<u2": "UInt16",
    "<i2": "Int16",
    "<u4": "UInt32",
    "<i4": "Int32",
    "<u8": "UInt64",
    "<i8": "Int64",
    "<f4": "Float32",
    "<f8": "Float64",
    "<c8": "CFloat32",
    "<c16": "CFloat64",
}


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in the file: little-endian; uint8 for bool, float32 for float16. UsageError for others."""
    widened = {"?": "u1", "e": "f4"}.get(dtype.char)
    stored = np.dtype(widened) if widened else dtype
    if stored.kind in "uifc":
        stored = stored.newbyteorder("<")
    if stored.str not in _GDAL_TYPES:
        raise UsageError(
            f"a raster of dtype {dtype} can't be a GeoTIFF; convert it to a number type first"
        )
    return stored


def gdal_type(stored: np.dtype[Any]) -> str:
    """GDAL's name for a stored type."""
    return _GDAL_TYPES[stored.str]


def parse_photometric(value: object, stored: np.dtype[Any], bands: int) -> int:
    """Read ``"minisblack"``, ``"miniswhite"``, ``"rgb"``, 0, 1 or 2; None is rgb for 3 or 4 bytes a pixel."""
    if value is None:
        return 2 if stored.str == "|u1" and bands in (3, 4) else 1
    code = PHOTOMETRIC.get(value.lower()) if isinstance(value, str) else value
    if isinstance(code, bool) or code not in (0, 1, 2):
        raise UsageError(f"photometric={value!r}; known: {', '.join(PHOTOMETRIC)}")
    if code == 2 and (bands < 3 or stored.kind == "c"):
        raise UsageError(
            f"photometric={value!r} needs 3 real bands, the raster has {bands} of {stored}"
        )
    return int(code)


def has_alpha(photometric: int, bands: int, stored: np.dtype[Any]) -> bool:
    """True when the fourth band is opacity: of RGB with 8- or 16-bit integers."""
    return photometric == 2 and bands == 4 and stored.str in ("|u1", "<u2")


@dataclass(frozen=True)
class TileFormat:
    """How blocks become GeoTIFF files. Immutable; pickles; shared by threads.

    Parameters
    ----------
    dtype
        Type in the file, as `stored_dtype` gives it.
    axes, bands
        Order of a block's axes and the number of bands (1 for ``"yx"``).
    tile
        Rows and columns of a TIFF tile, multiples of 16.
    transform
        Of the whole raster; each file gets it shifted to its block. None where not georeferenced.
    nodata
        Written to the file. NaN pixels of real floats become this value, in a copy.
    bigtiff
        True always, False never (StorageError where the file would need it), None where needed.
    extra
        Further tags, ready-made.
    """

    dtype: np.dtype[Any]
    axes: Axes
    bands: int
    tile: tuple[int, int]
    codec: Codec
    photometric: int = 1
    crs: Crs | None = None
    transform: Transform | None = None
    raster_type: RasterType = "area"
    nodata: int | float | None = None
    bigtiff: bool | None = None
    extra: tuple[tt.Tag, ...] = ()
    _headers: dict[tuple[int, int, bool], tt.Header] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_headers": {}}

    def raw_size_bytes(self, rows: int, cols: int) -> int:
        """Length of the uncompressed tiles of one file."""
        high, wide = self.tile
        tiles = -(-rows // high) * -(-cols // wide)
        return tiles * high * wide * self.bands * self.dtype.itemsize

    def encode(self, block: Host, row: int = 0, col: int = 0) -> list[Buffer]:
        """One whole file for a block whose first pixel is (row, col) of the raster: header, then tiles.

        The block is not modified; an uncompressed, contiguous block of one tile is returned as it is,
        without a copy, so the buffers are valid as long as the block stays unchanged.
        """
        pixels = self._stored(block)
        rows, cols = self._sides(pixels.shape)
        parts = [compress(self.codec, piece) for piece in self._pieces(pixels, rows, cols)]
        sizes = [len(part) for part in parts]
        header = self._header(rows, cols, len(parts), big=bool(self.bigtiff))
        if not header.big and len(header.packed) + sum(sizes) > CLASSIC_LIMIT:
            if self.bigtiff is False:
                raise StorageError("the file needs BigTIFF, but bigtiff=False; leave it None")
            header = self._header(rows, cols, len(parts), big=True)
        return [header.filled(sizes, self._placement(row, col)), *parts]

    def _sides(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return (shape[1], shape[2]) if self.axes == "byx" else (shape[0], shape[1])

    def _stored(self, block: Host) -> Host:
        if block.dtype == np.bool_:
            block = block.view(np.uint8)
        pixels = block.astype(self.dtype, copy=False)
        if self.nodata is not None and self.dtype.kind == "f" and self.nodata == self.nodata:
            holes = np.isnan(pixels)
            if holes.any():
                return np.where(holes, self.dtype.type(self.nodata), pixels)
        return pixels

    def _pieces(self, pixels: Host, rows: int, cols: int) -> Iterator[Host]:
        """Contiguous TIFF tiles in file order; the last ones of a row or column padded with zeros."""
        high, wide = self.tile
        for plane in pixels if self.axes == "byx" else (pixels,):
            for top in range(0, rows, high):
                for left in range(0, cols, wide):
                    piece = plane[top : top + high, left : left + wide]
                    if piece.shape[:2] != self.tile:
                        padded = np.zeros((*self.tile, *piece.shape[2:]), self.dtype)
                        padded[: piece.shape[0], : piece.shape[1]] = piece
                        piece = padded
                    yield np.ascontiguousarray(piece)

    def _placement(self, row: int, col: int) -> dict[int, tuple[float, ...]]:
        if self.transform is None:
            return {}
        here = shifted(self.transform, row, col)
        x, y = tie_point(here, self.raster_type)
        if here[1] > 0 and here[5] < 0:
            return {tt.MODEL_TIE_POINT: (0.0, 0.0, 0.0, x, y, 0.0)}
        # Pixel scales have no sign, so a flipped axis can only be said by the matrix.
        top, bottom = (here[1], 0.0, 0.0, x, 0.0, here[5], 0.0, y), (0.0,) * 7 + (1.0,)
        return {tt.MODEL_TRANSFORMATION: top + bottom}

    def _header(self, rows: int, cols: int, tiles: int, *, big: bool) -> tt.Header:
        key = (rows, cols, big)
        header = self._headers.get(key)
        if header is None:
            header = tt.pack_header(self._tags(rows, cols), tiles, big=big)
            if len(self._headers) > 64:  # a grid of all-different blocks gains nothing from memory
                self._headers.clear()
            self._headers[key] = header
        return header

    def _tags(self, rows: int, cols: int) -> list[tt.Tag]:
        bands, stored = self.bands, self.dtype
        color = 3 if self.photometric == 2 else 1
        tags = [
            tt.numbers(256, tt.LONG, cols),
            tt.numbers(257, tt.LONG, rows),
            tt.numbers(258, tt.SHORT, *[8 * stored.itemsize] * bands),
            tt.numbers(259, tt.SHORT, self.codec.tiff_code),
            tt.numbers(262, tt.SHORT, self.photometric),
            tt.numbers(277, tt.SHORT, bands),
            tt.numbers(284, tt.SHORT, 2 if self.axes == "byx" and bands > 1 else 1),
            tt.numbers(322, tt.LONG, self.tile[1]),
            tt.numbers(323, tt.LONG, self.tile[0]),
            tt.numbers(339, tt.SHORT, *[_SAMPLE_FORMAT[stored.kind]] * bands),
            *self.extra,
        ]
        if self.codec.predictor != 1:
            tags.append(tt.numbers(317, tt.SHORT, self.codec.predictor))
        if bands > color:
            alpha = 2 if has_alpha(self.photometric, bands, stored) else 0
            tags.append(tt.numbers(338, tt.SHORT, alpha, *[0] * (bands - color - 1)))
        if self.nodata is not None:
            tags.append(tt.text(tt.GDAL_NODATA, number_text(self.nodata)))
        if self.transform is not None and self.transform[1] > 0 and self.transform[5] < 0:
            scale = (self.transform[1], -self.transform[5], 0.0)
            tags.append(tt.numbers(tt.MODEL_PIXEL_SCALE, tt.DOUBLE, *scale))
        for code, values in self._placement(0, 0).items():
            tags.append(tt.numbers(code, tt.DOUBLE, *values))
        if self.crs is not None or self.transform is not None or self.raster_type == "point":
            directory, ascii_params = geo_keys(self.crs, self.raster_type)
            tags.append(tt.numbers(tt.GEO_KEYS, tt.SHORT, *directory))
            if ascii_params:
                tags.append(tt.Tag(tt.GEO_ASCII, tt.ASCII, len(ascii_params), ascii_params))
        return tags
