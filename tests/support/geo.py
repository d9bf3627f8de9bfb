"""Write arrays through a layout into a folder, block by block, and read them back through GDAL."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from fstx.layouts import vrt
from fstx.plan import ArraySpec, Grid, block_slices, grid_shape
from support.dictstager import DictTransaction


def spec_of(array: np.ndarray, grid: Grid | None = None) -> ArraySpec:
    """The spec of a plain array, with a grid of its own where given."""
    return ArraySpec(array.shape, array.dtype, grid)


def run(plan: vrt.VrtPlan, array: np.ndarray) -> DictTransaction:
    """Write every block of `array` by `plan`, last one first, and finish."""
    tx = DictTransaction()
    stager = tx.stager()
    receipts = []
    indices = list(itertools.product(*map(range, grid_shape(plan.grid))))
    for index in reversed(indices):
        receipts += plan.write(stager, index, array[block_slices(plan.grid, index)])
    plan.finish(tx, receipts)
    return tx


def write_vrt(
    folder: Path, array: np.ndarray, grid: Grid | None = None, name: str = "dem.vrt", **options: Any
) -> Path:
    """Write a mosaic into `folder` and return the path of its index."""
    run(vrt.plan(name, spec_of(array, grid), **options), array).dump(folder)
    return folder / name


def read(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """All bands (band, y, x) and what GDAL says of the file."""
    with rasterio.open(path) as data:
        facts = {
            "crs": data.crs,
            "transform": tuple(data.transform)[:6],
            "nodata": data.nodata,
            "dtypes": data.dtypes,
            "tags": data.tags(),
            "color": [c.name for c in data.colorinterp],
            "blocks": data.block_shapes,
            "compression": data.tags(ns="IMAGE_STRUCTURE").get("COMPRESSION"),
        }
        return data.read(), facts
