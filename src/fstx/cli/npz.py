"""One array out of an ``.npz``, and where it lies if the file says so."""

from __future__ import annotations

import zipfile
from collections.abc import Container
from typing import Any

import numpy as np

from fstx.cli.loaded import Loaded
from fstx.errors import UsageError

_EDGES = ("xmin", "ymin", "xmax", "ymax")
_SAYS = ("transform", "geotransform", "bounds", *_EDGES, "dx", "dy", "crs", "epsg", "nodata")


def read_npz(source: str, name: str | None, given: Container[str] = ()) -> Loaded:
    """The array, and options for a raster but for those `given`.

    The array is the one called `name`, else the only one with two or more axes, else the only one.
    Georeferencing is taken from ``transform`` or ``geotransform``, or from ``bounds`` (xmin, ymin, xmax,
    ymax) or the four of them alone, the first row being the northern one; from ``crs`` or ``epsg``, and
    ``nodata``. UsageError where the choice isn't clear or the file is damaged.
    """
    try:
        with open(source, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            shapes = {key: _shape(file, key) for key in file.files}
            chosen = _choose(source, shapes, name)
            array = file[chosen]
            small = {key: file[key] for key in _SAYS if key in shapes and key != chosen}
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"SRC {source} can't be read as .npz: {error}") from error
    loaded = Loaded(array)
    if array.ndim in (2, 3):
        _place(source, small, loaded, given)
    return loaded


def _shape(file: Any, key: str) -> tuple[int, ...]:
    member = key if key in file.zip.namelist() else key + ".npy"
    with file.zip.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return tuple(np.lib.format.read_array_header_1_0(stream)[0])
        return tuple(np.lib.format.read_array_header_2_0(stream)[0])


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _choose(source: str, shapes: dict[str, tuple[int, ...]], name: str | None) -> str:
    listed = ", ".join(f"{key} {shape}" for key, shape in shapes.items()) or "none"
    if name is not None:
        if name not in shapes:
            raise UsageError(f"--name {name!r} is not in {source}; there are: {listed}")
        return name
    if not shapes:
        raise UsageError(f"SRC {source} holds no array")
    rasters = [key for key, shape in shapes.items() if len(shape) >= 2]
    large = [key for key in rasters if _size(shapes[key]) > 16]  # a small one may be a transform
    for found in (large, rasters, list(shapes)):
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise UsageError(f"SRC {source} holds several arrays; choose one by --name: {listed}")


def _place(source: str, small: dict[str, Any], loaded: Loaded, given: Container[str]) -> None:
    found, shape = loaded.options, loaded.array.shape
    for key in ("transform", "geotransform"):
        if key in small and small[key].size in (6, 9):
            found["transform"] = _numbers(source, small, key)
            loaded.origins["transform"] = f"{key!r} of SRC {source}"
    edges = None
    if "transform" not in found and "transform" not in given:
        if "bounds" in small and small["bounds"].size == 4:
            edges = np.array(_numbers(source, small, "bounds"))
        elif all(key in small and small[key].size == 1 for key in _EDGES):
            edges = np.array([_numbers(source, small, key)[0] for key in _EDGES])
    if edges is not None:
        found["transform"] = _of_edges([float(v) for v in edges], shape, small)
        if "crs" not in small and "epsg" not in small and "crs" not in given and _geographic(edges):
            found["crs"] = "EPSG:4326"
            loaded.notes.append(
                "bounds are within degrees: taken for EPSG:4326 (--crs none says otherwise)"
            )
    for key in ("crs", "epsg"):
        if key in small and "crs" not in given and ("transform" in found or "transform" in given):
            found["crs"] = _crs(source, small, key)
            loaded.origins["crs"] = f"{key!r} of SRC {source}"
    if "nodata" in small and small["nodata"].size == 1:
        found["nodata"] = small["nodata"].item()
        loaded.origins["nodata"] = f"'nodata' of SRC {source}"


def _numbers(source: str, small: dict[str, Any], key: str) -> tuple[float, ...]:
    try:
        return tuple(float(v) for v in small[key].ravel())
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"SRC {source}: {key!r} holds {small[key].dtype}, no numbers; pass --transform"
        ) from error


def _crs(source: str, small: dict[str, Any], key: str) -> str | int:
    way_out = "pass --crs (EPSG:n, WKT, or none)"
    if small[key].size != 1:
        raise UsageError(
            f"SRC {source}: {key!r} has {small[key].size} elements, not one; {way_out}"
        )
    value = small[key].item()
    try:
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, str):
            return f"EPSG:{value}" if value.strip().isdigit() else value
        if not isinstance(value, bool) and int(value) == value:
            return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"SRC {source}: {key!r} is {value!r}, no CRS; {way_out}") from error
    raise UsageError(f"SRC {source}: {key!r} is {value!r}, no CRS; {way_out}")


def _of_edges(
    edges: list[float], shape: tuple[int, ...], small: dict[str, Any]
) -> tuple[float, ...]:
    bands_first = len(shape) == 3 and shape[0] < shape[2]
    rows, cols = (shape[1], shape[2]) if bands_first else (shape[0], shape[1])
    west, east = sorted((edges[0], edges[2]))
    south, north = sorted((edges[1], edges[3]))
    dx = _stated(small, "dx", (east - west) / cols)
    dy = _stated(small, "dy", (north - south) / rows)
    return (west, dx, 0.0, north, 0.0, -dy)


def _stated(small: dict[str, Any], key: str, computed: float) -> float:
    """The pixel size that the file states, if it fits its edges: it has fewer rounding errors."""
    if key in small and small[key].size == 1:
        stated = abs(float(small[key].item())) if small[key].dtype.kind in "iuf" else 0.0
        if abs(stated - computed) <= 1e-6 * computed:
            return stated
    return computed


def _geographic(edges: Any) -> bool:
    x, y = np.abs(edges[::2]), np.abs(edges[1::2])
    return bool((x <= 180).all() and (y <= 90).all())
