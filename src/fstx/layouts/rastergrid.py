"""Axes, block grid and TIFF tile size of a raster: pure arithmetic on an `ArraySpec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.layouts.geotiff import Axes
from fstx.plan import ArraySpec, Grid, cut

FEW_BANDS = 4
"""Up to so many elements, an outer axis of a 3-D array without names is taken for bands."""


def parse_axes(shape: tuple[int, ...], axis_order: object, dims: Sequence[str] | None) -> Axes:
    """Which axes are rows, columns and bands.

    ``axis_order`` is ``"yx"``, ``"yxb"``, ``"byx"`` or None. A 3-D array without it has its bands last
    when the last axis has at most 4 elements and the first has more, first when it is the other way
    round, and is refused else. Raises UsageError naming the axis or the option.
    """
    names = tuple(dims) if dims is not None else tuple(f"axis {i}" for i in range(len(shape)))
    if len(shape) not in (2, 3):
        raise UsageError(
            f"a raster has 2 or 3 axes (rows, columns, bands), the array has {len(shape)}"
            + (f": {', '.join(names)}; select along the others" if shape else "")
        )
    for name, length in zip(names, shape, strict=False):
        if length == 0:
            raise UsageError(
                f"{name} of the array is empty (shape {shape}); there is nothing to write"
            )
    if axis_order is not None:
        fitting = ("yx",) if len(shape) == 2 else ("yxb", "byx")
        if axis_order not in fitting:
            raise UsageError(
                f"axis_order={axis_order!r} does not fit an array with {len(shape)} axes; "
                f"pass {' or '.join(map(repr, fitting))}"
            )
        return axis_order  # type: ignore[return-value]
    if len(shape) == 2:
        return "yx"
    few_first, few_last = shape[0] <= FEW_BANDS, shape[2] <= FEW_BANDS
    if few_first == few_last:
        raise UsageError(
            f"shape {shape} does not tell which axis is the bands; pass axis_order='yxb' or 'byx'"
        )
    return "yxb" if few_last else "byx"


def spatial_axes(axes: Axes) -> tuple[int, int]:
    """Positions of rows and columns among the axes."""
    return (1, 2) if axes == "byx" else (0, 1)


def parse_tile_size(value: object) -> int:
    """A positive multiple of 16, as TIFF demands; None is 256."""
    if value is None:
        return 256
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or int(value) < 16 or int(value) % 16 or int(value) > 65536:  # type: ignore[call-overload]
        raise UsageError(f"tile_size={value!r}; pass a positive multiple of 16, for example 256")
    return int(value)  # type: ignore[call-overload,no-any-return]


def block_grid(spec: ArraySpec, axes: Axes, chunks: object, tile_size: int) -> Grid:
    """The tiles of the mosaic: `chunks` where given, else the array's own blocks, else `tile_size`.

    All bands of a place are in one block. Raises UsageError for chunks that don't fit the shape.
    """
    if spec.grid is not None:
        for lengths, length in zip(spec.grid, spec.shape, strict=True):
            if sum(lengths) != length:
                raise UsageError(
                    f"the array's chunks {lengths} don't add up to its length {length}; "
                    "compute the unknown chunk sizes first"
                )
    places = spatial_axes(axes)
    wanted = _parse_chunks(chunks, spec, axes)
    grid: list[tuple[int, ...]] = [(length,) for length in spec.shape]
    for place, want in zip(places, wanted, strict=True):
        length = spec.shape[place]
        if want is not None:
            grid[place] = _checked(want, length)
        elif spec.grid is not None:
            # A block without elements has nothing to store; GDAL has no empty files.
            grid[place] = tuple(n for n in spec.grid[place] if n)
        else:
            grid[place] = cut(length, tile_size)
    return tuple(grid)


def _parse_chunks(chunks: object, spec: ArraySpec, axes: Axes) -> tuple[Any, Any]:
    if chunks is None:
        return (None, None)
    if isinstance(chunks, int | np.integer) and not isinstance(chunks, bool):
        return (int(chunks), int(chunks))
    if (
        not isinstance(chunks, Sequence)
        or isinstance(chunks, str)
        or len(chunks) not in (2, len(spec.shape))
    ):
        raise UsageError(
            f"chunks={chunks!r}; pass rows and columns of a tile, for example (1024, 1024)"
        )
    if len(chunks) == 2:
        return (chunks[0], chunks[1])
    row, col = spatial_axes(axes)
    return (chunks[row], chunks[col])


def _checked(want: object, length: int) -> tuple[int, ...]:
    if isinstance(want, int | np.integer) and not isinstance(want, bool):
        if want == -1:
            return (length,)
        if want > 0:
            return cut(length, min(int(want), length))
    elif isinstance(want, Sequence) and not isinstance(want, str):
        lengths = tuple(want)
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in lengths)
        if whole and sum(lengths) == length:
            return lengths
    raise UsageError(f"chunks: {want!r} does not divide an axis of {length} elements into tiles")


def tiff_tile(grid: Grid, axes: Axes, tile_size: int) -> tuple[int, int]:
    """Rows and columns of the TIFF tiles: `tile_size`, or less where every block is smaller."""
    high, wide = (min(tile_size, -(-max(grid[axis]) // 16) * 16) for axis in spatial_axes(axes))
    return high, wide
