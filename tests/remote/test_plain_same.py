"""The same bytes as on local disk, for each layout and kind of array, on each object store (issue item 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fstx
from support.emulators import Place
from support.fakes import FakeDevice
from support.trees import tree as local_tree

VALUES = (np.arange(50 * 70, dtype="float32") % 977).reshape(50, 70)
GEO = {"crs": "EPSG:32633", "transform": (500000, 10, 0, 5000000, 0, -10), "nodata": -9.0}
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vrt": ("dem.vrt", {**GEO, "chunks": (32, 32)}),
    "vrt south-up": (
        "dem.vrt",
        {"crs": "EPSG:4326", "transform": (0, 1, 0, 0, 0, 1), "chunks": (32, 32)},
    ),
    "vrt point": (
        "dem.vrt",
        {**GEO, "raster_type": "point", "compression": "deflate", "predictor": 3},
    ),
    "vrt odd names": ("a & b <c>.vrt", {"chunks": (32, 32)}),
    "zarr": ("a.zarr", {"chunks": (16, 32)}),
    "shards": ("s.zarr", {"chunks": (16, 16), "shards": (32, 32)}),
    "npy": ("a.npy", {}),
}


def _array(kind: str) -> Any:
    if kind == "numpy":
        return VALUES
    if kind == "device":
        return FakeDevice(VALUES)
    da = pytest.importorskip("dask.array")
    return da.from_array(VALUES, chunks=(32, 32))


# Each layout on each store, each layout from each kind of array, each kind on each store.
PAIRS = [
    pytest.param(store, layout, ("numpy", "dask", "device")[(i + j) % 3], id=f"{store}-{layout}")
    for i, store in enumerate(("s3", "gcs", "azure"))
    for j, layout in enumerate(LAYOUTS)
]


@pytest.mark.parametrize(("store", "layout", "kind"), PAIRS)
def test_bytes_are_those_of_local_disk(
    store: str, layout: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Protects H2, A27, B and A33: nothing of a format depends on where it is written."""
    remote_place: Place = request.getfixturevalue(store)
    name, options = LAYOUTS[layout]
    if kind == "dask" and name.endswith(".vrt"):
        options = {k: v for k, v in options.items() if k != "chunks"}
    for place, more in ((str(tmp_path), {}), (remote_place.url, remote_place.options)):
        for n in range(2):  # the second one replaces the first, where that is atomic
            if n and name.endswith(".zarr"):
                continue
            fstx.write(
                _array(kind),
                f"{place}/{name}",
                overwrite=bool(n),
                max_workers=1,
                storage_options=more,
                **options,
            )
    fs = remote_place.fs
    found = {
        path[len(remote_place.path) + 1 :]: fs.cat_file(path)
        for path in fs.find(remote_place.path)
        if "/.fstx/" not in path
    }
    assert found == local_tree(tmp_path)
