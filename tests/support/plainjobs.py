"""Programs that tests start as processes: readers with nothing of ours, and writers to be killed.

python -m support.plainjobs read URL SECONDS      GDAL reads a mosaic over and over
python -m support.plainjobs write URL OPTIONS VALUE AT      a writer that kills itself at a request
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time


def read(url: str, seconds: float) -> None:
    """Print one line for each value that a whole mosaic had; a mixture ends with an error."""
    import rasterio
    from rasterio.errors import RasterioIOError

    end = time.monotonic() + seconds
    seen: dict[float, int] = {}
    while time.monotonic() < end:
        try:
            with rasterio.open(url) as found:
                values = set(found.read(1).ravel().tolist())
        except RasterioIOError as error:
            if "404" in str(error) or "does not exist" in str(error) or "No such" in str(error):
                seen[-1.0] = seen.get(-1.0, 0) + 1
                continue
            raise
        if len(values) != 1:
            raise SystemExit(f"a mixture: {values}")
        (value,) = values
        seen[value] = seen.get(value, 0) + 1
    print(json.dumps(seen))


def write(url: str, options: str, value: str, at: str) -> None:
    """Write a mosaic or a Zarr array full of `value`; the process is killed before request `at`."""
    import numpy as np

    import fstx
    from fstx.stores.link import Link

    count = 0
    real_again, real_once = Link.again, Link.once

    def counted() -> None:
        nonlocal count
        count += 1
        if count == int(at):
            os.kill(os.getpid(), signal.SIGKILL)

    async def again(self: Link, *args: object, **given: object) -> object:
        counted()
        return await real_again(self, *args, **given)  # type: ignore[arg-type]

    async def once(self: Link, *args: object, **given: object) -> object:
        counted()
        return await real_once(self, *args, **given)  # type: ignore[arg-type]

    Link.again, Link.once = again, once  # type: ignore[method-assign,assignment]
    given = json.loads(options)
    array = np.full((64, 64), float(value), "float32")
    more = {"fill_value": -5.0}
    if not url.endswith(".zarr"):
        more = {"crs": "EPSG:4326", "transform": (0, 1, 0, 0, 0, -1)}
    require = given.pop("require")
    fstx.write(
        array, url, overwrite=True, require=require, storage_options=given, chunks=(32, 32), **more
    )
    print(count)


if __name__ == "__main__":
    if sys.argv[1] == "read":
        read(sys.argv[2], float(sys.argv[3]))
    else:
        write(*sys.argv[2:6])
