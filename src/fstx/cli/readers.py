"""Sources of the command line: a file becomes an array and what it says of itself.

What fits lazily stays lazy: .npy is memory-mapped, Zarr and large GeoTIFF go through dask.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from fstx.cli.loaded import KINDS, LAZY_FROM_BYTES, Loaded, need
from fstx.cli.npz import read_npz
from fstx.cli.tiff import read_tiff
from fstx.errors import UsageError

__all__ = ["KINDS", "LAZY_FROM_BYTES", "Loaded", "kind_of", "opened"]


@contextmanager
def opened(
    source: str,
    name: str | None = None,
    *,
    given: Container[str] = (),
    placeless: bool = False,
) -> Iterator[Loaded]:
    """Open a source; what it holds open is closed on leaving.

    Parameters
    ----------
    source
        A path, or a URL of a Zarr store.
    name
        Which array, where the file holds several.
    given
        Options that the caller names, so that the file is not asked for them: crs, transform.
    placeless
        The target has no place for CRS and transform: what of them can't be read is a note, no error.

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
            yield read_npz(source, name, given)
        elif kind == "tiff":
            yield read_tiff(source, stack, given, placeless=placeless)
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


def _read_zarr(source: str, name: str | None) -> Loaded:
    need("zarr", "zarr", f"reading {source}")
    import zarr

    try:
        found: Any = zarr.open(source, mode="r")
    except ImportError as error:
        scheme = source.partition("://")[0]
        raise UsageError(
            f"SRC {source} needs a package that is not installed ({error}); "
            f"run: pip install 'fsspec[{scheme}]'"
        ) from error
    except (ValueError, OSError, KeyError) as error:
        raise UsageError(f"SRC {source} can't be opened as Zarr: {error}") from error
    if isinstance(found, zarr.Group):
        arrays = {n: a for n, a in found.members(max_depth=None) if isinstance(a, zarr.Array)}
        found = arrays.get(name.strip("/")) if name is not None else None
        if name is None and len(arrays) == 1:
            found = next(iter(arrays.values()))
        if found is None:
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
            need("dask", "dask", f"reading {source} ({found.nbytes / 1e6:.0f} MB) by blocks")
        return Loaded(found[...], options)
    import dask.array

    return Loaded(dask.array.from_zarr(found), options)


def _read_image(source: str) -> Loaded:
    need("PIL", "cli", f"reading {source}")
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
