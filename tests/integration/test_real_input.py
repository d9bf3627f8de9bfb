"""Real rasters, through numpy and dask, to every layout, read back by GDAL and zarr: equal."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import rasterio
import zarr
from PIL import Image

import fstx

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module", params=["bluemarble_5400x2700.jpg", "shadedrelief_10800x5400.jpg"])
def image(request: pytest.FixtureRequest) -> np.ndarray:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(DATA / request.param) as opened:
            return np.asarray(opened.convert("RGB"))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def transform(image: np.ndarray) -> tuple[float, ...]:
    return (-180.0, 360 / image.shape[1], 0, 90.0, 0, -180 / image.shape[0])


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_a_real_image_as_a_mosaic(image: np.ndarray, kind: str, tmp_path: Path) -> None:
    """The issue's main job, B17: three bands, georeferenced, equal through GDAL at every pixel."""
    array = image if kind == "numpy" else da.from_array(image, chunks=(1024, 1024, 3))
    fstx.write(
        array,
        tmp_path / "o.vrt",
        crs="EPSG:4326",
        transform=transform(image),
        chunks=(1024, 1024),
        level=1,
        durability="none",
    )
    with rasterio.open(tmp_path / "o.vrt") as opened:
        assert opened.count == 3
        assert opened.crs.to_epsg() == 4326
        assert opened.bounds == pytest.approx((-180, -90, 180, 90))
        assert (np.moveaxis(opened.read(), 0, -1) == image).all()


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("shards", [None, (2048, 2048, 3)])
def test_a_real_image_as_zarr(image: np.ndarray, kind: str, shards, tmp_path: Path) -> None:
    """Chunked and sharded; dask chunks that don't cover shards stream into them (F16, F18, F22)."""
    array = image if kind == "numpy" else da.from_array(image, chunks=(512, 1024, 3))
    fstx.write(
        array, tmp_path / "o.zarr", chunks=(512, 512, 3), shards=shards, level=1, durability="none"
    )
    found = zarr.open_array(tmp_path / "o.zarr", mode="r")
    assert found.shape == image.shape
    assert (found[:] == image).all()


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_a_real_image_as_npy(image: np.ndarray, kind: str, tmp_path: Path) -> None:
    """One file, streamed in slabs where the source is chunked."""
    array = image if kind == "numpy" else da.from_array(image, chunks=(512, 1024, 3))
    fstx.write(array, tmp_path / "o.npy", durability="none")
    assert (np.load(tmp_path / "o.npy", mmap_mode="r") == image).all()
