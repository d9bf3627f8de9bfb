"""Sources of the command line: a file becomes an array and what it says of itself.

What fits lazily stays lazy: .npy is memory-mapped, Zarr and large GeoTIFF go through dask.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np

from fstx.cli.npz import read_npz
from fstx.errors import UsageError

LAZY_FROM_BYTES = 64 << 20
"""A GeoTIFF from this size on is read by blocks."""

KINDS = ".npy, .npz, GeoTIFF, Zarr, or an image that Pillow reads (.jpg, .png)"


@dataclass
class Loaded:
    """An array and the options that its file suggests; `notes` are for people."""

    array: Any
    options: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@contextmanager
def opened(source: str, name: str | None = None, *, crs_given: bool = False) -> Iterator[Loaded]:
    """Open a source; what it holds open is closed on leaving.

    Parameters
    ----------
    source
        A path, or a URL of a Zarr store.
    name
        Which array, where the file holds several.
    crs_given
        The caller names the CRS, so that of the file is not looked at.

    Raises
    ------
    UsageError
        No such file, a kind that can't be read, several arrays without `name`, a missing extra.
    """
    kind = kind_of(source)
    if name is not None and kind not in ("npz", "zarr"):
        raise UsageError(f"--name {name!r}: {source} holds one array only")
    with ExitStack() as stack:
        if kind == "npy":
            yield Loaded(_read_npy(source))
        elif kind == "npz":
            yield Loaded(*read_npz(source, name))
        elif kind == "tiff":
            yield _read_tiff(source, stack, crs_given)
        elif kind == "zarr":
            yield _read_zarr(source, name)
        else:
            yield _read_image(source)


def kind_of(source: str) -> str:
    """What a source is, by its first bytes: npy, npz, tiff, zarr or image."""
    if "://" in source:
        if source.rstrip("/").endswith(".zarr"):
            return "zarr"
        raise UsageError(f"SRC {source}: of URLs only Zarr stores (.zarr) are read; copy it first")
    if os.path.isdir(source):
        marks = ("zarr.json", ".zarray", ".zgroup", ".zmetadata")
        if any(os.path.exists(os.path.join(source, mark)) for mark in marks):
            return "zarr"
        raise UsageError(f"SRC {source} is a directory, but no Zarr store; give {KINDS}")
    try:
        with open(source, "rb") as file:
            head = file.read(8)
    except FileNotFoundError as error:
        raise UsageError(f"SRC {source} does not exist") from error
    except OSError as error:
        raise UsageError(f"SRC {source} can't be read: {error.strerror}") from error
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "npz"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    return "image"


def _need(module: str, extra: str, what: str) -> None:
    if find_spec(module) is None:
        raise UsageError(f"{what} needs {module}; run: pip install 'fstx[{extra}]'")


def _read_npy(source: str) -> Any:
    try:
        with open(source, "rb") as file:
            empty = os.fstat(file.fileno()).st_size == _npy_header_bytes(file)
        return np.load(source, mmap_mode=None if empty else "r", allow_pickle=False)
    except ValueError as error:
        raise UsageError(f"SRC {source} can't be read as .npy: {error}") from error


def _npy_header_bytes(file: Any) -> int:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    if version <= (2, 0):
        read(file)
    return int(file.tell())


def _read_tiff(source: str, stack: ExitStack, crs_given: bool) -> Loaded:
    _need("tifffile", "geo", f"reading {source}")
    import tifffile

    from fstx.layouts.geotiff_read import read_geotiff_meta

    try:
        tiff = stack.enter_context(tifffile.TiffFile(source))
        series = tiff.series[0]
    except (tifffile.TiffFileError, IndexError) as error:
        raise UsageError(f"SRC {source} can't be read as TIFF: {error}") from error
    notes = []
    if len(tiff.series) > 1:
        notes.append(f"{source} holds {len(tiff.series)} images; the first was taken")
    try:
        options = read_geotiff_meta(tiff, crs=not crs_given)
    except UsageError as error:
        raise UsageError(f"SRC {source}: {error}") from error
    if series.ndim == 3:
        options["axis_order"] = "yxb" if series.axes.endswith("S") else "byx"
    else:
        options.pop("axis_order", None)
    lazy = find_spec("dask") is not None and find_spec("zarr") is not None
    if series.nbytes >= LAZY_FROM_BYTES and lazy:
        import dask.array
        import zarr

        store = stack.enter_context(series.aszarr(level=0))
        return Loaded(dask.array.from_zarr(zarr.open_array(store, mode="r")), options, notes)
    return Loaded(series.asarray(), options, notes)


def _read_zarr(source: str, name: str | None) -> Loaded:
    _need("zarr", "zarr", f"reading {source}")
    import zarr

    try:
        found: Any = zarr.open(source, mode="r")
    except (ValueError, FileNotFoundError, KeyError) as error:
        raise UsageError(f"SRC {source} can't be opened as Zarr: {error}") from error
    if isinstance(found, zarr.Group):
        arrays = dict(found.arrays())
        found = found.get(name) if name is not None else None
        if name is None and len(arrays) == 1:
            found = next(iter(arrays.values()))
        if not isinstance(found, zarr.Array):
            listed = ", ".join(f"{n} {a.shape}" for n, a in sorted(arrays.items())) or "none"
            raise UsageError(f"SRC {source} is a group; choose an array by --name: {listed}")
    elif name is not None:
        raise UsageError(f"--name {name!r}: {source} is one array")
    options: dict[str, Any] = {"attributes": dict(found.attrs)} if found.attrs else {}
    if found.fill_value is not None:
        options["fill_value"] = found.fill_value
    dims = getattr(found.metadata, "dimension_names", None)
    if dims and any(dims):
        options["dimension_names"] = tuple(dims)
    if find_spec("dask") is None:
        if found.nbytes >= LAZY_FROM_BYTES:
            _need("dask", "dask", f"reading {source} ({found.nbytes / 1e6:.0f} MB) by blocks")
        return Loaded(found[...], options)
    import dask.array

    return Loaded(dask.array.from_zarr(found), options)


def _read_image(source: str) -> Loaded:
    _need("PIL", "cli", f"reading {source}")
    from PIL import Image, UnidentifiedImageError

    limit, Image.MAX_IMAGE_PIXELS = (
        Image.MAX_IMAGE_PIXELS,
        None,
    )  # the user's own file, however large
    try:
        with Image.open(source) as image:
            plain = {"P": "RGBA" if "transparency" in image.info else "RGB", "1": "L"}
            plain |= {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "PA": "RGBA"}
            mode = plain.get(image.mode)
            array = np.asarray(image.convert(mode) if mode else image)
    except UnidentifiedImageError as error:
        raise UsageError(f"SRC {source} is of no kind that is read here; give {KINDS}") from error
    except (OSError, SyntaxError) as error:
        raise UsageError(f"SRC {source} is damaged: {error}") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return Loaded(array, {"axis_order": "yxb"} if array.ndim == 3 else {})
