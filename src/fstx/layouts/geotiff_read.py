"""What a GeoTIFF says of itself, as options for `vrt.plan`. By tifffile; no GDAL."""

from __future__ import annotations

import struct
from typing import Any

from fstx.errors import UsageError
from fstx.layouts import tifftags as tt

_PE = "ESRI PE String = "


_PLACE = (
    tt.MODEL_PIXEL_SCALE,
    tt.MODEL_TIE_POINT,
    tt.MODEL_TRANSFORMATION,
    tt.GEO_KEYS,
    tt.GEO_DOUBLES,
    tt.GEO_ASCII,
)


class UnplaceableError(UsageError):
    """The file is sound, but no transform or EPSG code says where it lies."""


def read_geotiff_meta(source: Any, *, crs: bool = True, transform: bool = True) -> dict[str, Any]:
    """Options that reproduce a GeoTIFF's georeferencing; what the file doesn't say is left out.

    Parameters
    ----------
    source
        An open ``tifffile.TiffFile``, or a path or binary file that tifffile opens.
    crs
        False leaves the CRS out, for callers who know it better.
    transform
        False leaves the transform out likewise; the CRS is then told without one.

    Returns
    -------
    dict
        May hold ``crs``, ``transform`` (GDAL's order, outer corner), ``nodata``, ``raster_type`` and
        ``axis_order``.

    Raises
    ------
    UnplaceableError
        Rotated or sheared rasters, ground control points, and a CRS that is only in keys of its own.
    UsageError
        A damaged file: tags that say where it lies can't be read.
    """
    import tifffile

    if isinstance(source, tifffile.TiffFile):
        return _page_meta(source.pages.first, crs, transform)
    with tifffile.TiffFile(source) as opened:
        return _page_meta(opened.pages.first, crs, transform)


def _page_meta(page: Any, with_crs: bool, with_transform: bool) -> dict[str, Any]:
    if with_crs or with_transform:
        _check_readable(page)
    tags = {code: page.tags[code].value for code in page.tags.keys()}  # noqa: SIM118
    options: dict[str, Any] = {}
    keys = _geo_keys(tags)
    if keys.get(1025) == 2:
        options["raster_type"] = "point"
    transform = _transform(tags, point=keys.get(1025) == 2) if with_transform else None
    if transform is not None:
        options["transform"] = transform
    if transform is not None or not with_transform:
        crs = _crs(keys) if with_crs else None
        if crs is not None:
            options["crs"] = crs
    nodata = tags.get(tt.GDAL_NODATA)
    if nodata is not None:
        text = str(nodata).strip("\0 ")
        options["nodata"] = int(text) if text.lstrip("+-").isdigit() else float(text)
        if (
            page.dtype is not None
            and page.dtype.kind in "iu"
            and isinstance(options["nodata"], float)
        ):
            whole = options["nodata"]
            if whole.is_integer():
                options["nodata"] = int(whole)
            else:  # GDAL writes such values; no pixel can have one
                del options["nodata"]
    if page.ndim == 3:
        options["axis_order"] = "byx" if page.planarconfig == 2 else "yxb"
    return options


def _check_readable(page: Any) -> None:
    """tifffile leaves out tags whose values lie behind the end of the file; the directory has them."""
    tiff, file = page.parent.tiff, page.parent.filehandle
    file.seek(page.offset)
    (count,) = struct.unpack(tiff.tagnoformat, file.read(tiff.tagnosize))
    entries = file.read(count * tiff.tagsize)
    for at in range(0, len(entries), tiff.tagsize):
        (code,) = struct.unpack_from(tiff.byteorder + "H", entries, at)
        if code in _PLACE and code not in page.tags:
            raise UsageError(
                f"the GeoTIFF is damaged: tag {code}, which says where it lies, can't be read"
            )


def _geo_keys(tags: dict[int, Any]) -> dict[int, Any]:
    directory = tags.get(tt.GEO_KEYS)
    if not directory or len(directory) < 4:
        return {}
    texts = str(tags.get(tt.GEO_ASCII, ""))
    keys: dict[int, Any] = {}
    for i in range(4, min(len(directory), 4 + 4 * directory[3]) - 3, 4):
        key, place, count, value = directory[i : i + 4]
        if place == 0:
            keys[key] = value
        elif place == tt.GEO_ASCII:
            keys[key] = texts[value : value + count].rstrip("|\0")
    return keys


def _transform(tags: dict[int, Any], *, point: bool) -> tuple[float, ...] | None:
    if tt.MODEL_TRANSFORMATION in tags:
        m = tags[tt.MODEL_TRANSFORMATION]
        if m[1] or m[4]:
            raise UnplaceableError(
                "the GeoTIFF is rotated or sheared; warp it to an axis-parallel grid first, or pass "
                "transform="
            )
        x, dx, y, dy = m[3], m[0], m[7], m[5]
    elif tt.MODEL_PIXEL_SCALE in tags and tt.MODEL_TIE_POINT in tags:
        scale, tie = tags[tt.MODEL_PIXEL_SCALE], tags[tt.MODEL_TIE_POINT]
        dx, dy = scale[0], -scale[1]
        x, y = tie[3] - tie[0] * dx, tie[4] - tie[1] * dy
    elif tt.MODEL_TIE_POINT in tags:
        raise UnplaceableError(
            "the GeoTIFF is placed by ground control points; warp it to a grid first, or pass transform="
        )
    else:
        return None
    half = 0.5 if point else 0.0
    return (x - half * dx, dx, 0.0, y - half * dy, 0.0, dy)


def _crs(keys: dict[int, Any]) -> str | int | None:
    for key in (3072, 2048):
        code = keys.get(key)
        if isinstance(code, int) and 1024 <= code < 32767:
            if key == 2048 and keys.get(1024) != 2:
                break  # the base of a projection of its own
            return code
    citation = keys.get(3073)
    if isinstance(citation, str) and citation.startswith(_PE):
        return citation[len(_PE) :]
    if keys.get(1024) in (1, 2, 3):
        raise UnplaceableError("the GeoTIFF's CRS has no EPSG code; pass crs= (EPSG:n or WKT)")
    return None
