"""Acceptance B at the level of the public function: what GDAL finds, and what is refused."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import tifffile
import xarray as xr
from rasterio.errors import NotGeoreferencedWarning

import fstx
from fstx.layouts import vrt
from support.dictstager import DictTransaction
from support.geo import run, spec_of

DOWN = (500000.0, 10.0, 0.0, 5e6, 0.0, -20.0)
VALUES = np.random.default_rng(4).integers(-3000, 3000, (70, 100)).astype("i2")


def tiles(folder: Path) -> list[Path]:
    return sorted((folder / "o_tiles").rglob("*.tif"))


def open_raster(path: Path) -> Any:
    """Warnings about a missing place aside: some cases mean it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


@pytest.mark.parametrize("codec", ["deflate", "lzw", "zstd"])
@pytest.mark.parametrize(
    ("dtype", "number"),
    [("u1", 2), ("i2", 2), ("u4", 2), ("i8", 2), ("f4", 3), ("f8", 3), ("f2", 3)],
)
def test_predictors_are_told_and_read(codec: str, dtype: str, number: int, tmp_path: Path) -> None:
    """B10: the tile's tag names predictor 2 or 3, and GDAL, which undoes what the tag says, reads the
    values bit for bit."""
    y, x = np.mgrid[:64, :96]
    smooth = (np.hypot(y, x) * 1.5).astype(dtype)
    for used in (False, True):
        place = tmp_path / str(used)
        fstx.write(
            smooth, place / "o.vrt", tile_size=64, compression=codec, predictor=used,
            transform=DOWN,
        )  # fmt: skip
        for path in tiles(place):
            with tifffile.TiffFile(path) as opened:
                tag = opened.pages.first.tags.get(317)
                assert (tag.value if tag else 1) == (number if used else 1)
        wanted = smooth.astype("f4") if dtype == "f2" else smooth
        with rasterio.open(place / "o.vrt") as opened:
            assert opened.read(1).tobytes() == wanted.tobytes()


def test_the_level_reaches_the_tiles(tmp_path: Path) -> None:
    """B18: a higher level gives smaller tiles of the same values."""
    text = np.frombuffer((b"the quick brown fox " * 700)[:12800], "u1").reshape(100, 128).copy()
    text[::3] = np.random.default_rng(1).integers(0, 9, (34, 128))
    sizes = []
    for level in (1, 9):
        fstx.write(
            text, tmp_path / str(level) / "o.vrt", tile_size=128, compression="deflate", level=level,
            transform=DOWN,
        )  # fmt: skip
        sizes.append(sum(p.stat().st_size for p in tiles(tmp_path / str(level))))
        with rasterio.open(tmp_path / str(level) / "o.vrt") as opened:
            assert (opened.read(1) == text).all()
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1), (17, 16), (2, 1, 1), (1, 5, 3)])
@pytest.mark.parametrize("chunked", [False, True])
def test_degenerate_sizes(shape: tuple[int, ...], chunked: bool, tmp_path: Path) -> None:
    """B18: one row, one column, one pixel, one band are read back by GDAL, in place."""
    array = np.arange(1, 1 + np.prod(shape), dtype="i4").reshape(shape)
    given = da.from_array(array, chunks=3) if chunked else array
    options: dict[str, Any] = {"axis_order": "byx"} if array.ndim == 3 else {}
    if not chunked:
        options["tile_size"] = 16
    fstx.write(given, tmp_path / "o.vrt", transform=DOWN, crs=32633, **options)
    with rasterio.open(tmp_path / "o.vrt") as opened:
        assert np.array_equal(opened.read(), array if array.ndim == 3 else array[None])
        assert tuple(opened.transform)[:6] == (10, 0, 5e5, 0, -20, 5e6)


@pytest.mark.parametrize("raster_type", ["area", "point"])
@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_a_labelled_array_lies_where_it_says(
    kind: str, ascending: bool, raster_type: str, tmp_path: Path
) -> None:
    """B4, B6, E9: values at every coordinate of a DataArray, through the index and through each tile
    alone; AREA_OR_POINT in both; the same for dask."""
    y = 40 + 0.5 * np.arange(70)
    x = 10 + 0.25 * np.arange(100)
    values = da.from_array(VALUES, chunks=(30, 40)) if kind == "dask" else VALUES
    array = xr.DataArray(
        values,
        dims=("y", "x"),
        coords={"y": y if ascending else y[::-1], "x": x},
        attrs={"crs": "EPSG:4326", "raster_type": raster_type, "_FillValue": -3000},
    )
    fstx.write(array, tmp_path / "o.vrt", **({"tile_size": 32} if kind == "numpy" else {}))
    points = [(i, j) for i in range(0, 70, 7) for j in range(0, 100, 9)]
    at = [(float(array.x[j]), float(array.y[i])) for i, j in points]
    with rasterio.open(tmp_path / "o.vrt") as opened:
        assert [int(v[0]) for v in opened.sample(at)] == [int(VALUES[p]) for p in points]
        assert opened.nodata == -3000
        assert (opened.tags().get("AREA_OR_POINT") == "Point") == (raster_type == "point")
        whole = opened.bounds
        top, step = (39.75, 0.5) if ascending else (74.75, -0.5)
        assert tuple(opened.transform)[:6] == (0.25, 0, 9.875, 0, step, top)
    covered = 0
    for path in tiles(tmp_path):
        with rasterio.open(path) as tile:
            assert tile.tags()["AREA_OR_POINT"].lower() == raster_type
            left, right = sorted((tile.bounds.left, tile.bounds.right))
            low, high = sorted((tile.bounds.bottom, tile.bounds.top))
            assert min(whole.bottom, whole.top) <= low < high <= max(whole.bottom, whole.top)
            mine = [(k, p) for k, p in zip(at, points, strict=True)
                    if left < k[0] < right and low < k[1] < high]  # fmt: skip
            covered += len(mine)
            found = [int(v[0]) for v in tile.sample([k for k, _ in mine])]
            assert found == [int(VALUES[p]) for _, p in mine]
    assert covered == len(points)


def test_the_index_needs_no_tile(tmp_path: Path) -> None:
    """B14: the index is made of what the plan knows: with every staged tile lost it is the same."""

    class Forgetful(DictTransaction):
        def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
            raise AssertionError(f"{path} was read back")

    plan = vrt.plan("o.vrt", spec_of(VALUES), tile_size=32, transform=DOWN)
    whole = run(plan, VALUES)
    tx = Forgetful()
    receipts = [r for path, r in whole.adopted.items() if path != "o.vrt"]
    plan.finish(tx, receipts)
    assert tx.staged[tx.adopted["o.vrt"].key] == whole.read("o.vrt")


@pytest.mark.parametrize("bands", [2, 5])
def test_wrong_number_of_axes_is_named(bands: int, tmp_path: Path) -> None:
    """B17: three dimensions whose band axis can't be told are refused naming the way out."""
    with pytest.raises(fstx.UsageError, match="axis_order"):
        fstx.write(np.zeros((bands * 20, 50, 40), "u1"), tmp_path / "o.vrt")
    assert list(tmp_path.iterdir()) == []


def uneven() -> xr.DataArray:
    return xr.DataArray(VALUES[:3, :3], dims=("y", "x"), coords={"x": [0, 1, 3], "y": [2, 1, 0]})


REFUSED: list[tuple[Any, Any, dict[str, Any], str]] = [
    (VALUES, io.BytesIO(), {"layout": "vrt"}, "URL"),
    (VALUES, io.BytesIO(), {}, "URL"),
    (VALUES, "o.vrt", {"nodata": np.bool_(True)}, "nodata"),
    (VALUES, "o.vrt", {"nodata": 1e9}, "nodata"),
    (VALUES, "o.vrt", {"crs": False}, "crs"),
    (VALUES, "o.vrt", {"crs": "EPSG:999999"}, "crs|EPSG"),
    (VALUES, "o.vrt", {"compression": "jpeg-of-mars"}, "compression"),
    (VALUES, "o.vrt", {"compression": b"zstd"}, "compression"),
    (VALUES, "o.vrt", {"compression": "deflate", "level": 11}, "level"),
    (VALUES, "o.vrt", {"max_z_error": -0.5}, "max_z_error"),
    (VALUES, "o.vrt", {"max_z_error": 0.5, "compression": "zstd"}, "max_z_error"),
    (VALUES, "o.vrt", {"tile_size": 0}, "tile_size"),
    (VALUES, "o.vrt", {"tile_size": 24}, "tile_size"),
    (VALUES, "o.vrt", {"tile_size": -16}, "tile_size"),
    (VALUES, "o.vrt", {"tiled": False}, "tiled|strip"),
    (VALUES, "o.vrt", {"cog": True}, "cog"),
    (VALUES, "o.vrt", {"overview_levels": [2]}, "overview"),
    (np.float32(1), "o.vrt", {}, "axes|dimension|array"),
    (np.zeros(5), "o.vrt", {}, "axes|dimension"),
    (np.zeros((1, 2, 3, 4)), "o.vrt", {}, "axes|dimension"),
    (np.zeros((0, 4)), "o.vrt", {}, "0"),
    (VALUES, "o.vrt", {"transform": (0, 1, 0.1, 0, 0.1, -1)}, "transform"),
    (VALUES, "o.vrt", {"transform": (0, 0, 0, 0, 0, -1)}, "transform"),
    (uneven(), "o.vrt", {}, "x"),
]


@pytest.mark.parametrize(("array", "url", "options", "says"), REFUSED)
def test_refused_before_anything(
    array: Any, url: Any, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """B9, A8: the offending argument is named, and not even the target's folder is made."""
    target = tmp_path / "new" / url if isinstance(url, str) else url
    with pytest.raises(fstx.UsageError, match=says):
        fstx.write(array, target, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("array", "options", "says"),
    [(a, o, s) for a, url, o, s in REFUSED if a is VALUES and url == "o.vrt"],
)
def test_refused_before_a_chunk(
    array: np.ndarray, options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """B9, A19: the same for dask arrays, before a chunk is computed."""
    computed: list[int] = []
    chunked = da.from_array(array, chunks=16).map_blocks(
        lambda b: computed.append(1) or b, dtype=array.dtype, meta=np.empty((0,) * array.ndim)
    )
    computed.clear()
    with pytest.raises(fstx.UsageError, match=says):
        fstx.write(chunked, tmp_path / "new" / "o.vrt", **options)
    assert computed == []
    assert list(tmp_path.iterdir()) == []


def test_widened_types_are_said_in_the_docs() -> None:
    """B12: the layout's page tells what becomes of bool and float16."""
    pages = Path(__file__).parents[2] / "docs" / "reference"
    text = " ".join((pages / "layouts.md").read_text().split())
    assert "bool becomes uint8 and float16 float32" in text
    assert "other numbers stay as they are" in text
