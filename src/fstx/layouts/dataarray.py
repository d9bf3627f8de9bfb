"""Raster options out of a labelled array: dims, coordinates and attributes. xarray is never imported.

Coordinates are pixel centres and win over attributes, which slicing leaves stale.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.layouts.georef import Transform, parse_nodata, parse_transform

_ROWS = frozenset({"y", "lat", "latitude", "northing", "row", "rows", "projection_y_coordinate"})
_COLS = frozenset(
    {"x", "lon", "long", "longitude", "easting", "col", "cols", "column", "projection_x_coordinate"}
)
_NODATA = ("nodata", "_FillValue", "missing_value", "nodatavals")
_COPIED = ("raster_type", "gdal_metadata", "extra_tags")


def is_labelled(array: object) -> bool:
    """True for what looks like an xarray.DataArray: named axes, coordinates and attributes."""
    return all(hasattr(array, name) for name in ("dims", "coords", "attrs", "shape", "dtype"))


def describe(array: Any, given: Container[str] = ()) -> dict[str, Any]:
    """Options for `vrt.plan` that a labelled array itself tells; what it doesn't tell is left out.

    May hold ``dims``, ``axis_order``, ``crs``, ``transform``, ``nodata``, ``raster_type``,
    ``gdal_metadata``, ``extra_tags`` and ``resolution``. Options of the caller, named in `given`, go over
    them; coordinates are not looked at where a transform is given.
    Raises UsageError for axes in another order than rows, columns; for coordinates that are not evenly
    spaced numbers; for nodata attributes that contradict each other; for a rotated transform.
    """
    dims = tuple(str(dim) for dim in array.dims)
    options: dict[str, Any] = {"dims": dims}
    if len(dims) in (2, 3):
        rows, cols = _spatial(dims)
        if len(dims) == 3:
            options["axis_order"] = "yxb" if cols == 1 else "byx"
        transform = None if "transform" in given else _transform(array, rows, cols)
        if transform is not None:
            options["transform"] = transform
    crs = _crs(array)
    if crs is not None and ("transform" in options or "transform" in given):
        options["crs"] = crs
    nodata = _nodata(array)
    if nodata is not None:
        options["nodata"] = nodata
    attrs = array.attrs
    options |= {name: attrs[name] for name in _COPIED if attrs.get(name) is not None}
    if "raster_type" not in options and str(attrs.get("AREA_OR_POINT", "")).lower() == "point":
        options["raster_type"] = "point"
    if attrs.get("x_resolution") is not None and attrs.get("y_resolution") is not None:
        unit = attrs.get("resolution_unit")
        options["resolution"] = (attrs["x_resolution"], attrs["y_resolution"], unit)
    return options


def _spatial(dims: tuple[str, ...]) -> tuple[int, int]:
    """Positions of rows and columns, by name where the names are known, else by place."""
    lowered = [dim.lower() for dim in dims]
    rows = [i for i, dim in enumerate(lowered) if dim in _ROWS]
    cols = [i for i, dim in enumerate(lowered) if dim in _COLS]
    if len(rows) == 1 and len(cols) == 1:
        if cols[0] != rows[0] + 1:
            raise UsageError(
                f"the axes are {', '.join(dims)}; rows must come right before columns: "
                f"transpose to (..., {dims[rows[0]]!r}, {dims[cols[0]]!r})"
            )
        return rows[0], cols[0]
    if len(dims) == 3:
        raise UsageError(
            f"the axes are {', '.join(dims)}; rename rows and columns to 'y' and 'x' so that the bands show"
        )
    return 0, 1


def _transform(array: Any, rows: int, cols: int) -> Transform | None:
    """From the coordinates; an axis of one element takes its pixel size from the attributes."""
    stated = _stated_transform(array)
    axes = [_axis(array, axis) for axis in (cols, rows)]
    if all(axis is None for axis in axes):
        return stated
    for position, axis in zip((cols, rows), axes, strict=True):
        if axis is None:
            raise UsageError(
                f"the axis {array.dims[position]!r} has no coordinates, but the other has"
            )
    ends = []
    for position, axis, at in zip((cols, rows), axes, (1, 5), strict=True):
        assert axis is not None
        first, step = axis
        if step is None:
            if stated is None:
                raise UsageError(
                    f"the axis {array.dims[position]!r} has one coordinate, which tells no pixel size; "
                    "pass transform="
                )
            step = stated[at]
        ends.append((first - step / 2, step))
    (x0, dx), (y0, dy) = ends
    return (x0, dx, 0.0, y0, 0.0, dy)


def _axis(array: Any, position: int) -> tuple[float, float | None] | None:
    """First coordinate and step of an axis; step None for one element; None without coordinates."""
    name = array.dims[position]
    if name not in array.coords:
        return None
    values = np.asarray(array.coords[name].values)
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        raise UsageError(
            f"the coordinates of {name!r} are {values.dtype}, not numbers along the axis"
        )
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all():
        raise UsageError(f"the coordinates of {name!r} are not all finite")
    if len(exact) == 1:
        return float(exact[0]), None
    step = float(exact[-1] - exact[0]) / (len(exact) - 1)
    # float32 coordinates can't be spaced more evenly than they can be spelled.
    spelling = (
        2 * np.finfo(values.dtype).eps * np.abs(exact).max() if values.dtype.kind == "f" else 0
    )
    even = np.linspace(exact[0], exact[-1], len(exact))
    if step == 0 or np.abs(exact - even).max() > 0.01 * abs(step) + spelling:
        raise UsageError(
            f"the coordinates of {name!r} are not evenly spaced; resample, or drop them and pass transform="
        )
    return float(exact[0]), step


def _grid_mapping(array: Any) -> Mapping[str, Any]:
    encoding = getattr(array, "encoding", None) or {}
    named = encoding.get("grid_mapping") or array.attrs.get("grid_mapping") or "spatial_ref"
    if named in array.coords:
        attrs: Mapping[str, Any] = array.coords[named].attrs
        return attrs
    return {}


def _stated_transform(array: Any) -> Transform | None:
    written = _grid_mapping(array).get("GeoTransform")
    if isinstance(written, str):
        return parse_transform([float(part) for part in written.replace(",", " ").split()])
    value = array.attrs.get("transform")
    if isinstance(value, Sequence | np.ndarray) and len(value) == 6 and not hasattr(value, "a"):
        # An attribute is in rasterio's order (a, b, c, d, e, f), as open_rasterio and
        # xarray-spatial write it.
        value = [value[i] for i in (2, 0, 1, 5, 3, 4)]
    return parse_transform(value)


def _crs(array: Any) -> Any:
    attrs = _grid_mapping(array)
    for value in (attrs.get("crs_wkt"), attrs.get("spatial_ref")):
        if value:
            return value
    for name in ("crs", "crs_wkt"):
        if array.attrs.get(name) is not None:
            return array.attrs[name]
    return None


def _nodata(array: Any) -> Any:
    """The one value that all nodata attributes agree on; NaN says nothing about integers."""
    encoding = getattr(array, "encoding", None) or {}
    dtype = np.dtype(array.dtype)
    stored = (
        np.dtype({"?": "u1", "e": "f4"}.get(dtype.char, dtype.char))
        if dtype.kind in "?bef"
        else dtype
    )
    found: list[tuple[str, Any]] = []
    for name in _NODATA:
        value = array.attrs.get(name)
        values = (
            value if isinstance(value, list | tuple | np.ndarray) and np.ndim(value) else [value]
        )
        found += [(name, item) for item in values if item is not None]
    if not found and encoding.get("_FillValue") is not None:
        found.append(("_FillValue", encoding["_FillValue"]))
    kept: tuple[str, Any] | None = None
    for name, item in found:
        if stored.kind not in "fc" and isinstance(item, float | np.floating) and np.isnan(item):
            continue
        number = parse_nodata(item, stored, name)
        same = kept is None or number == kept[1] or (number != number and kept[1] != kept[1])
        if kept is not None and not same:
            raise UsageError(
                f"{kept[0]} is {kept[1]!r}, but {name} is {number!r}; pass nodata= to decide"
            )
        kept = kept or (name, number)
    return kept[1] if kept else None
