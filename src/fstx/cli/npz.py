"""One array out of an ``.npz``, and where it lies if the file says so."""

from __future__ import annotations

import zipfile
from typing import Any

import numpy as np

from fstx.errors import UsageError

_EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_npz(source: str, name: str | None) -> tuple[Any, dict[str, Any], list[str]]:
    """Array, options for a raster, and notes.

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
            small = {k: file[k] for k, s in shapes.items() if k != chosen and _size(s) <= 16}
    except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"SRC {source} can't be read as .npz: {error}") from error
    notes: list[str] = []
    options: dict[str, Any] = {}
    if array.ndim in (2, 3):
        options = _placed(small, array.shape, notes)
    return array, options, notes


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
    for axes in (2, 1, 0):
        found = [key for key, shape in shapes.items() if len(shape) >= axes]
        if axes == 2:
            found = [key for key in found if _size(shapes[key]) > 16]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise UsageError(f"SRC {source} holds several arrays; choose one by --name: {listed}")


def _placed(small: dict[str, Any], shape: tuple[int, ...], notes: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in ("transform", "geotransform"):
        if key in small and small[key].size in (6, 9):
            found["transform"] = tuple(float(v) for v in small[key].ravel())
    edges = small.get("bounds")
    if edges is None and all(key in small for key in _EDGES):
        edges = np.array([small[key] for key in _EDGES])
    if "transform" not in found and edges is not None and edges.size == 4:
        found["transform"] = _of_edges([float(v) for v in edges.ravel()], shape, small)
        if "crs" not in small and "epsg" not in small and _geographic(edges):
            found["crs"] = "EPSG:4326"
            notes.append(
                "bounds are within degrees: taken for EPSG:4326 (--crs none says otherwise)"
            )
    for key in ("crs", "epsg"):
        if key in small and small[key].size == 1 and "transform" in found:
            value = small[key].item()
            found["crs"] = value if isinstance(value, str) else int(value)
    if "nodata" in small and small["nodata"].size == 1:
        found["nodata"] = small["nodata"].item()
    return found


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
        stated = abs(float(small[key].item()))
        if abs(stated - computed) <= 1e-6 * computed:
            return stated
    return computed


def _geographic(edges: Any) -> bool:
    x, y = np.abs(edges.ravel()[::2]), np.abs(edges.ravel()[1::2])
    return bool((x <= 180).all() and (y <= 90).all())
