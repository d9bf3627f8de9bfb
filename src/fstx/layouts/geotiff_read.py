"""What a GeoTIFF says of itself, as options for `vrt.plan`. By tifffile; no GDAL."""

from __future__ import annotations

from typing import Any

from fstx.errors import UsageError
from fstx.layouts import tifftags as tt

_PE = "ESRI PE String = "


def read_geotiff_meta(source: Any, *, crs: bool = True) -> dict[str, Any]:
    """Options that reproduce a GeoTIFF's georeferencing; what the file doesn't say is left out.

    Parameters
    ----------
    source
        An open ``tifffile.TiffFile``, or a path or binary file that tifffile opens.
    crs
        False leaves the CRS out, for callers who know it better.

    Returns
    -------
    dict
        May hold ``crs``, ``transform`` (GDAL's order, outer corner), ``nodata``, ``raster_type`` and
        ``axis_order``.

    Raises
    ------
    UsageError
        Rotated or sheared rasters, ground control points, and a CRS that is only in keys of its own.
    """
    import tifffile

    if isinstance(source, tifffile.TiffFile):
        return _page_meta(source.pages.first, crs)
    with tifffile.TiffFile(source) as opened:
        return _page_meta(opened.pages.first, crs)


def _page_meta(page: Any, with_crs: bool) -> dict[str, Any]:
    tags = {code: page.tags[code].value for code in page.tags.keys()}  # noqa: SIM118
    options: dict[str, Any] = {}
    keys = _geo_keys(tags)
    if keys.get(1025) == 2:
        options["raster_type"] = "point"
    transform = _transform(tags, point=keys.get(1025) == 2)
    if transform is not None:
        options["transform"] = transform
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
            raise UsageError(
                "the GeoTIFF is rotated or sheared; warp it to an axis-parallel grid first"
            )
        x, dx, y, dy = m[3], m[0], m[7], m[5]
    elif tt.MODEL_PIXEL_SCALE in tags and tt.MODEL_TIE_POINT in tags:
        scale, tie = tags[tt.MODEL_PIXEL_SCALE], tags[tt.MODEL_TIE_POINT]
        dx, dy = scale[0], -scale[1]
        x, y = tie[3] - tie[0] * dx, tie[4] - tie[1] * dy
    elif tt.MODEL_TIE_POINT in tags:
        raise UsageError("the GeoTIFF is placed by ground control points; warp it to a grid first")
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
        raise UsageError("the GeoTIFF's CRS has no EPSG code; pass crs= (EPSG:n or WKT)")
    return None
