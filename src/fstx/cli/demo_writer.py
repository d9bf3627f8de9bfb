"""The two writers that `fstx demo` kills. Each runs in a process of its own.

The plain one is what is usually written by hand: make the final directory, write the tiles into it,
write the index last. Both write the same raster in the same tiles.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any

import numpy as np

TILE = 256
CRS = "EPSG:4326"
TRANSFORM = (
    -84.41375,
    0.00013888888888888889,
    0.0,
    36.73291666666667,
    0.0,
    -0.00013888888888888889,
)
RAISED_M = 100
"""The second version of the raster is this many metres higher everywhere."""


def raster(version: int) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Elevations in metres, int16 of shape (2052, 2400); version 2 lies higher than version 1."""
    with as_file(files("fstx.cli") / "demo_data" / "dem.npz") as path, np.load(path) as file:
        small = file["elevation"]
    large = np.repeat(np.repeat(small, 12, axis=0), 12, axis=1)
    return large + np.int16(RAISED_M * (version - 1))


def blocks(array: Any) -> dict[tuple[int, int], tuple[slice, slice]]:
    """Regions of the tiles, by row and column."""
    rows, cols = (range(0, n, TILE) for n in array.shape)
    return {
        (i, j): (slice(y, y + TILE), slice(x, x + TILE))
        for i, y in enumerate(rows)
        for j, x in enumerate(cols)
    }


def write_plain(
    array: Any, path: str, told: Callable[[int], None], *, replace: bool, skip_existing: bool
) -> None:
    """Tiles into the final directory, then the index. `told` is called inside each tile's file."""
    folder = path.removesuffix(".vrt") + "_tiles"
    os.makedirs(folder, exist_ok=replace or skip_existing)
    for done, ((i, j), region) in enumerate(blocks(array).items()):
        name = os.path.join(folder, f"tile_{i:02d}_{j:02d}.tif")
        if skip_existing and os.path.exists(name):
            continue
        content = _tiff(array[region])
        with open(name, "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            told(done)
            file.write(content[len(content) // 2 :])
    with open(path, "w", encoding="utf-8") as file:
        file.write(_index(array, os.path.basename(folder)))


def write_fstx(array: Any, path: str, told: Callable[[int], None], *, replace: bool) -> None:
    """One call."""
    import fstx

    fstx.write(
        array,
        path,
        chunks=(TILE, TILE),
        crs=CRS,
        transform=TRANSFORM,
        overwrite=replace,
        keep_previous=False,
        max_workers=1,
        progress=lambda done, total: told(done),
    )


def _tiff(block: Any) -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, block, photometric="minisblack")
    return file.getvalue()


def _index(array: Any, folder: str) -> str:
    lines = [
        f'<VRTDataset rasterXSize="{array.shape[1]}" rasterYSize="{array.shape[0]}">',
        f"<SRS>{CRS}</SRS>",
        f"<GeoTransform>{', '.join(str(n) for n in TRANSFORM)}</GeoTransform>",
        '<VRTRasterBand dataType="Int16" band="1">',
    ]
    for (i, j), region in blocks(array).items():
        rows, cols = array[region].shape
        size = f'xSize="{cols}" ySize="{rows}"'
        lines.append(
            '<SimpleSource><SourceFilename relativeToVRT="1">'
            f"{folder}/tile_{i:02d}_{j:02d}.tif</SourceFilename><SourceBand>1</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" {size}/>'
            f'<DstRect xOff="{j * TILE}" yOff="{i * TILE}" {size}/></SimpleSource>'
        )
    return "\n".join([*lines, "</VRTRasterBand>", "</VRTDataset>\n"])


def main(argv: list[str]) -> int:
    """``KIND VERSION PATH STOP [replace] [skip]``: at STOP tiles, say so and wait to be killed."""
    kind, version, path, stop, *how = argv

    def told(done: int) -> None:
        if done == int(stop):
            print(f"at {done}", flush=True)
            while True:
                time.sleep(60)

    array = raster(int(version))
    if kind == "plain":
        write_plain(array, path, told, replace="replace" in how, skip_existing="skip" in how)
    else:
        write_fstx(array, path, told, replace="replace" in how)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
