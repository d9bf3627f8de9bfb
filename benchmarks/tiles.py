"""4096 x 4096 float32 random, chunks 256, zstd 3, to 256 GeoTIFF tiles and a VRT.

    python benchmarks/tiles.py [--rounds N] [--dir PLACE] [--terrain]

The floor compresses the blocks and writes 256 files with two threads: no transaction, no index, no sync.
xarray-spatial is measured beside it where it is installed (Python 3.12 or newer).
"""

from __future__ import annotations

import argparse
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import dask.array as da
import imagecodecs
import numpy as np

import fstx
from harness import interleave

SIDE, CHUNK, LEVEL = 4096, 256, 3


def floor(array: np.ndarray, place: Path) -> None:
    target = place / "tiles"
    target.mkdir()

    def one(corner: tuple[int, int]) -> None:
        r, c = corner
        block = np.ascontiguousarray(array[r : r + CHUNK, c : c + CHUNK])
        data = imagecodecs.zstd_encode(block, level=LEVEL)
        with open(target / f"{r}_{c}", "wb", buffering=0) as file:
            file.write(data)

    corners = [(r, c) for r in range(0, SIDE, CHUNK) for c in range(0, SIDE, CHUNK)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, corners))


def ours(array: object, place: Path, **how: object) -> None:
    fstx.write(
        array,
        place / "o.vrt",
        tile_size=CHUNK,
        compression="zstd",
        level=LEVEL,
        max_workers=2,
        **how,
    )


def theirs(array: object, place: Path) -> None:
    import xarray as xr
    from xrspatial.geotiff import to_geotiff

    labelled = xr.DataArray(array, dims=("y", "x"))
    to_geotiff(
        labelled, str(place / "o.vrt"), compression="zstd", compression_level=LEVEL, tile_size=CHUNK
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dir")
    parser.add_argument("--terrain", action="store_true", help="smooth data, which compresses")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    array = np.random.default_rng(1).random((SIDE, SIDE), dtype=np.float32)
    if given.terrain:
        y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
        array = np.round(1000 + 300 * np.sin(x / 97) * np.cos(y / 61) + array * 2, 1).astype("f4")
    lazy = da.from_array(array, chunks=CHUNK)
    variants = {
        "floor": partial(floor, array),
        "fstx numpy, durability none": partial(ours, array, durability="none"),
        "fstx numpy, durability data": partial(ours, array),
        "fstx dask, durability none": partial(ours, lazy, durability="none"),
        "fstx dask, durability data": partial(ours, lazy),
    }
    try:
        import xrspatial.geotiff  # noqa: F401
    except ImportError:
        print("xarray-spatial with its GeoTIFF writer is not installed here: not measured\n")
    else:
        variants["xarray-spatial dask"] = partial(theirs, lazy)
    interleave(variants, base="floor", rounds=given.rounds, root=given.dir)


if __name__ == "__main__":
    main()
