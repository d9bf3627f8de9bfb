"""GeoTIFF as a source: pixels, whole or by blocks, and where they lie."""

from __future__ import annotations

import logging
import struct
from collections.abc import Container
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

from fstx.cli.loaded import LAZY_FROM_BYTES, Loaded, need
from fstx.errors import UsageError

BLOCK = 1024
"""Rows and columns of a block of a large TIFF, a multiple of the usual tile sizes."""

_PALETTE = 3
_DAMAGE = (ValueError, RuntimeError, OSError, EOFError, LookupError, TypeError, struct.error)


def read_tiff(source: str, stack: ExitStack, given: Container[str], *, placeless: bool) -> Loaded:
    """The first image of a TIFF; the file stays open for `stack` where it is read by blocks.

    What is `given` is not looked up in the file. With `placeless` the target can't say where a raster
    lies, so that a place of an odd kind is a note and no error.
    """
    need("tifffile", "geo", f"reading {source}")
    import tifffile

    _hush(stack)  # what tifffile logs is told here, as one line
    try:
        tiff = stack.enter_context(tifffile.TiffFile(source))
        series = tiff.series[0]
        _check_whole(tiff, series)
    except UsageError:
        raise
    except _DAMAGE as error:
        raise UsageError(f"SRC {source} can't be read as TIFF: {error}") from error
    notes = []
    if len(tiff.series) > 1:
        notes.append(f"{source} holds {len(tiff.series)} images; the first was taken")
    if int(series.keyframe.photometric) == _PALETTE:
        notes.append(
            f"the values of {source} are numbers of colours; they are kept, its colour table is not"
        )
    options = _options(source, tiff, given, placeless, notes)
    if series.ndim == 3:
        options["axis_order"] = "yxb" if series.axes.endswith("S") else "byx"
    else:
        options.pop("axis_order", None)
    if series.nbytes >= LAZY_FROM_BYTES and find_spec("dask") and find_spec("zarr"):
        return Loaded(_by_blocks(series, stack), options, notes)
    try:
        return Loaded(series.asarray(), options, notes)
    except _DAMAGE as error:
        raise UsageError(f"SRC {source} is damaged: {error}") from error


def _options(
    source: str, tiff: Any, given: Container[str], placeless: bool, notes: list[str]
) -> dict[str, Any]:
    from fstx.layouts.geotiff_read import UnplaceableError, read_geotiff_meta

    wanted = {key: key not in given for key in ("crs", "transform")}
    try:
        return read_geotiff_meta(tiff, **wanted)
    except UnplaceableError as error:
        if not placeless:
            raise UsageError(f"SRC {source}: {error}") from error
        notes.append(f"where {source} lies is left out: {str(error).partition(';')[0]}")
        return read_geotiff_meta(tiff, crs=False, transform=False)
    except UsageError as error:
        raise UsageError(f"SRC {source}: {error}") from error


def _hush(stack: ExitStack) -> None:
    log = logging.getLogger("tifffile")
    stack.callback(setattr, log, "disabled", log.disabled)
    log.disabled = True


def _check_whole(tiff: Any, series: Any) -> None:
    size = tiff.filehandle.size
    for page in series.pages:
        places = zip(page.dataoffsets, page.databytecounts, strict=False) if page else ()
        if any(offset + count > size for offset, count in places):
            raise UsageError(f"SRC {tiff.filehandle.path} is cut off: pixels lie behind its end")


def _by_blocks(series: Any, stack: ExitStack) -> Any:
    """A dask array of blocks of about `BLOCK` rows and columns, however thin the strips of the file.

    Strips span all columns: they are read in groups of rows, and only then divided into columns, so that
    each is decompressed once.
    """
    import dask.array
    import zarr

    stored = zarr.open_array(stack.enter_context(series.aszarr(level=0)), mode="r")
    spatial = [series.axes.index(axis) for axis in "YX"]
    read, blocks = list(stored.chunks), list(stored.chunks)
    for axis in spatial:
        read[axis] = min(max(read[axis], BLOCK), stored.shape[axis])
        blocks[axis] = min(BLOCK, stored.shape[axis])
    return dask.array.from_zarr(stored, chunks=tuple(read)).rechunk(tuple(blocks))
