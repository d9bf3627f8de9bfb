"""Where a raster lies: coordinate reference system, transform, raster type, nodata. No I/O.

A transform is kept in GDAL's order ``(x0, dx, 0, y0, 0, dy)`` and always names the outer *corner* of
the first pixel, also where the raster type is "point": the type is a remark on what a value means and
moves nothing. The half pixel that GeoTIFF demands for points is added in `geo_tags` and nowhere else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fstx.errors import UsageError

Transform: TypeAlias = tuple[float, float, float, float, float, float]
RasterType: TypeAlias = Literal["area", "point"]
Kind: TypeAlias = Literal["geographic", "projected", "other"]

USER_DEFINED = 32767

# What can be told apart without pyproj: the codes that most rasters carry. A wrong guess between
# geographic and projected would make the tiles unreadable, so any other code needs pyproj or WKT.
_GEOGRAPHIC = frozenset({4258, 4267, 4269, 4283, 4326, 4490, 4612, 4617, 4674, 6318, 6668, 7844})
_PROJECTED = (
    range(32601, 32661),
    range(32701, 32761),
    range(25828, 25839),
    range(26901, 26924),
    range(3857, 3858),
    range(3035, 3036),
    range(3031, 3032),
    range(3413, 3414),
    range(5070, 5071),
    range(6931, 6934),
)
_ROOT_AUTHORITY = re.compile(
    r"""(?:AUTHORITY\s*\[\s*"EPSG"\s*,\s*"(\d+)"\s*\]|ID\s*\[\s*"EPSG"\s*,\s*(\d+)\s*\])\s*\]\s*$"""
)


@dataclass(frozen=True, slots=True)
class Crs:
    """A coordinate reference system: text for an index, code and kind for GeoTIFF keys."""

    text: str
    epsg: int | None
    kind: Kind


def parse_crs(value: object) -> Crs | None:
    """Read a CRS: EPSG number, ``"EPSG:n"``, WKT, an object with ``to_wkt()``, or None.

    With pyproj installed any text that it understands is taken, and EPSG codes are checked. Raises
    UsageError for a bool, an unknown code, or text that is no CRS.
    """
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        raise UsageError("crs= is a bool; pass an EPSG number, 'EPSG:n', WKT, or None")
    if isinstance(value, int | np.integer):
        return _from_epsg(int(value))
    if isinstance(value, str):
        return _from_text(value.strip())
    to_wkt = getattr(value, "to_wkt", None)
    if callable(to_wkt):
        return _from_text(str(to_wkt()))
    raise UsageError(
        f"crs= is a {type(value).__name__}; pass an EPSG number, 'EPSG:n', WKT, or an object with to_wkt()"
    )


def _pyproj() -> Any:
    try:
        import pyproj
    except ImportError:
        return None
    return pyproj


def _from_epsg(code: int) -> Crs:
    pyproj = _pyproj()
    if pyproj is not None:
        return _from_pyproj(pyproj, f"EPSG:{code}", f"EPSG:{code}")
    if code in _GEOGRAPHIC:
        return Crs(f"EPSG:{code}", code, "geographic")
    if any(code in codes for codes in _PROJECTED):
        return Crs(f"EPSG:{code}", code, "projected")
    raise UsageError(f"crs=EPSG:{code} can't be resolved without pyproj; install it or pass WKT")


def _from_text(text: str) -> Crs:
    named = re.fullmatch(r"(?i)epsg:\s*(\d+)", text)
    if named:
        return _from_epsg(int(named.group(1)))
    pyproj = _pyproj()
    if pyproj is not None:
        return _from_pyproj(pyproj, text, None)
    root = re.match(r"\s*([A-Z_]+)\s*\[", text)
    if not root or text.count("[") != text.count("]"):
        raise UsageError(f"crs={_short(text)} is neither 'EPSG:n' nor WKT; other texts need pyproj")
    code = _ROOT_AUTHORITY.search(text)
    epsg = int(code.group(1) or code.group(2)) if code else None
    word = root.group(1)
    if word in {"GEOGCS", "GEOGCRS"}:
        return Crs(text, epsg, "geographic")
    if word in {"PROJCS", "PROJCRS"}:
        return Crs(text, epsg, "projected")
    return Crs(text, None, "other")


def _from_pyproj(pyproj: Any, value: str, shown: str | None) -> Crs:
    try:
        crs = pyproj.CRS.from_user_input(value)
    except pyproj.exceptions.CRSError as error:
        raise UsageError(f"crs={shown or _short(value)} can't be resolved: {error}") from error
    try:
        text = str(crs.to_wkt("WKT1_GDAL"))
    except pyproj.exceptions.CRSError:
        text = str(crs.to_wkt("WKT2_2019"))
    plain = len(crs.axis_info) == 2 and not crs.is_bound and not crs.is_compound
    kind: Kind = "other"
    if plain and crs.is_projected:
        kind = "projected"
    elif plain and crs.is_geographic:
        kind = "geographic"
    authority = crs.to_authority(min_confidence=100)
    epsg = int(authority[1]) if authority and authority[0] == "EPSG" else None
    return Crs(text, epsg, kind)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def parse_transform(value: object) -> Transform | None:
    """Read a transform; axis-parallel, with pixel sizes of either sign.

    A plain sequence of 6 is in GDAL's order ``(x0, dx, 0, y0, 0, dy)``. An affine matrix (an object with
    attributes ``a`` to ``f``, as rasterio's ``Affine``, or its 9 elements) is in its own:
    ``x = a*col + b*row + c``, ``y = d*col + e*row + f``. Raises UsageError for rotation, shear, a
    pixel size of zero, and values that are not finite.
    """
    if value is None:
        return None
    if all(hasattr(value, letter) for letter in "abcdef"):
        items: list[Any] = [getattr(value, letter) for letter in "cabfde"]
    else:
        if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
            raise UsageError(f"transform= is a {type(value).__name__}; pass 6 numbers or an Affine")
        items = list(value)
        if len(items) == 9:
            items = [items[i] for i in (2, 0, 1, 5, 3, 4)]
    if len(items) != 6:
        raise UsageError(f"transform= has {len(items)} elements; pass 6 numbers or an Affine")
    try:
        x0, dx, rx, y0, ry, dy = (float(item) for item in items)
    except (TypeError, ValueError) as error:
        raise UsageError(f"transform={value!r} has elements that are no numbers") from error
    if not all(math.isfinite(number) for number in (x0, dx, rx, y0, ry, dy)):
        raise UsageError(f"transform={value!r} has elements that are not finite")
    if dx == 0 or dy == 0:
        raise UsageError(
            f"transform={value!r} gives pixels of no size or a right-angle rotation; a plain sequence is in "
            "GDAL's order (x0, dx, 0, y0, 0, dy); pass rasterio's Affine as the object itself"
        )
    if rx != 0 or ry != 0:
        raise UsageError(
            f"transform={value!r} is rotated or sheared; warp the raster to an axis-parallel grid first"
        )
    return (x0, dx, 0.0, y0, 0.0, dy)


def parse_raster_type(value: object) -> RasterType:
    """Read ``"area"`` (also None) or ``"point"``, in any case."""
    name = "area" if value is None else value
    if isinstance(name, str) and name.lower() in {"area", "point"}:
        return "point" if name.lower() == "point" else "area"
    raise UsageError(f"raster_type={value!r}; pass 'area' or 'point'")


def parse_nodata(value: object, dtype: np.dtype[Any], name: str = "nodata") -> int | float | None:
    """Read a nodata value that `dtype` can hold exactly; 64-bit integers stay integers.

    Raises UsageError for a bool, text, and a number out of the range of `dtype`.
    """
    if value is None:
        return None
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool | np.bool_):
        raise UsageError(f"{name}= is a bool; pass a number or None")
    if not isinstance(value, int | float | np.integer | np.floating):
        raise UsageError(f"{name}={value!r} is no real number; pass a number or None")
    if dtype.kind in "iu":
        if not math.isfinite(value) or value != int(value):
            raise UsageError(f"{name}={value!r} is no integer, but the array is {dtype}")
        whole, limits = int(value), np.iinfo(dtype)
        if not limits.min <= whole <= limits.max:
            raise UsageError(f"{name}={whole} does not fit into {dtype}")
        return whole
    # The value that the pixels will hold: 0.1 as float32 is not 0.1.
    part = np.dtype("f4") if dtype.itemsize == (8 if dtype.kind == "c" else 4) else np.dtype("f8")
    with np.errstate(over="ignore"):
        held = float(part.type(value))
    if math.isinf(held) and math.isfinite(value):
        raise UsageError(f"{name}={value!r} does not fit into {dtype}")
    return held


def number_text(value: float) -> str:
    """The shortest decimal text that reads back equal; whole numbers without a fraction."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    return repr(value)


def shifted(transform: Transform, row: int, col: int) -> Transform:
    """The transform of a part that begins at pixel (row, col)."""
    x0, dx, _, y0, _, dy = transform
    return (x0 + col * dx, dx, 0.0, y0 + row * dy, 0.0, dy)


def tie_point(transform: Transform, raster_type: RasterType) -> tuple[float, float]:
    """Model coordinates of raster position (0, 0) as GeoTIFF stores them.

    Of a point raster this is the centre of the first pixel, of an area raster its corner
    (OGC GeoTIFF 1.1, requirements for GTRasterTypeGeoKey).
    """
    half = 0.5 if raster_type == "point" else 0.0
    return transform[0] + half * transform[1], transform[3] + half * transform[5]


def geo_keys(crs: Crs | None, raster_type: RasterType) -> tuple[tuple[int, ...], bytes]:
    """The GeoKeyDirectory's SHORTs and the GeoAsciiParams for it (empty where not needed).

    A CRS without an EPSG code is spelled as WKT behind ``ESRI PE String =``, which GDAL reads under a
    user-defined model type; plain GeoTIFF keys can't say it.
    """
    keys = [(1025, 0, 1, 2 if raster_type == "point" else 1)]
    ascii_params = b""
    if crs is not None:
        if crs.epsg is not None and crs.epsg < USER_DEFINED and crs.kind != "other":
            projected = crs.kind == "projected"
            keys.append((1024, 0, 1, 1 if projected else 2))
            keys.append((3072 if projected else 2048, 0, 1, crs.epsg))
        else:
            ascii_params = b"ESRI PE String = " + crs.text.encode("utf-8") + b"|"
            keys.append((1024, 0, 1, USER_DEFINED))
            keys.append((3073, 34737, len(ascii_params), 0))
    keys.sort()
    directory = (1, 1, 0, len(keys), *(number for key in keys for number in key))
    return directory, ascii_params + b"\0" if ascii_params else b""
