"""Arrays written on Windows, read by other libraries."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import fsspec
import numpy as np
import pytest
import tifffile
import zarr

import fstx

DEM = Path(__file__).parents[2] / "data" / "jacksboro_fault_dem.npz"


@pytest.fixture(scope="module")
def dem() -> np.ndarray:
    with np.load(DEM) as data:
        return np.asarray(data["elevation"]).astype("f4")


def write_twice(dem: np.ndarray, url: Path, **options: object) -> None:
    """A first version, which readers close, and the one that is compared."""
    fstx.write(dem + 1, url, **options)  # type: ignore[arg-type]
    fstx.write(dem, url, overwrite=True, **options)  # type: ignore[arg-type]


def test_npy(dem: np.ndarray, tmp_path: Path) -> None:
    """numpy reads what was written over an older file."""
    write_twice(dem, tmp_path / "a.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), dem)


@pytest.mark.parametrize("shards", [None, (128, 128)])
def test_zarr(shards: tuple[int, int] | None, dem: np.ndarray, tmp_path: Path) -> None:
    """zarr reads what was written over an older array, in chunks and in shards."""
    options = {"chunks": (64, 64), **({"shards": shards} if shards else {})}
    write_twice(dem, tmp_path / "a.zarr", **options)
    assert np.array_equal(zarr.open_array(tmp_path / "a.zarr", mode="r")[:], dem)


def test_vrt(dem: np.ndarray, tmp_path: Path) -> None:
    """The index names its tiles with slashes, and they hold the array, read by tifffile."""
    geo = {"crs": "EPSG:4326", "transform": (-84.4, 1 / 1200, 0, 36.7, 0, -1 / 1200)}
    write_twice(dem, tmp_path / "a.vrt", tile_size=128, compression="none", **geo)
    found = np.zeros_like(dem)
    for source in ElementTree.parse(tmp_path / "a.vrt").iter("SimpleSource"):
        name = source.findtext("SourceFilename") or ""
        assert "\\" not in name
        where = source.find("DstRect")
        assert where is not None
        x, y, wide, high = (int(where.attrib[k]) for k in ("xOff", "yOff", "xSize", "ySize"))
        found[y : y + high, x : x + wide] = tifffile.imread(tmp_path / name)[:high, :wide]
    assert np.array_equal(found, dem)


def test_versions(tmp_path: Path) -> None:
    """A dataset with versions below a path with a drive: written, read at a version, collected."""
    url = f"tx::{tmp_path.as_posix()}/d"
    for text in (b"1", b"2"):
        with fstx.begin(url) as tx:
            tx.stage("s/a", text)
    fs, path = fsspec.core.url_to_fs(url)
    assert fs.cat_file(f"{path}/s/a") == b"2"
    dataset = fstx.dataset(url)
    first = min(entry.version for entry in dataset.log())
    with dataset.snapshot(first) as old:
        assert old.read("s/a") == b"1"
    dataset.restore(first)
    fs.invalidate_cache()
    dataset.collect(1, older_than_s=0, dry_run=False)
    assert fs.cat_file(f"{path}/s/a") == b"1"


def test_versions_promise_what_windows_keeps(tmp_path: Path) -> None:
    """A dataset promises no durability that directories don't have here."""
    promised = fstx.guarantee(f"tx::{tmp_path.as_posix()}/d")
    assert fstx.Capability.DURABLE not in promised
    assert fstx.Capability.ATOMIC_SET in promised


def test_names_of_devices(tmp_path: Path) -> None:
    """A large object that no program could open by its name is refused; other names are spelled safely."""
    url = f"tx::{tmp_path.as_posix()}/d"
    large = b"x" * (5 << 20)
    with pytest.raises(fstx.PathError, match="device"), fstx.begin(url) as tx:
        tx.stage("aux.b", large)
    with fstx.begin(url) as tx:
        tx.stage("aux.a", b"small")  # shares an object
        tx.stage("s/aux.c", large)
        tx.stage("d?", large)
    fs, path = fsspec.core.url_to_fs(url)
    assert fs.cat_file(f"{path}/aux.a") == b"small"
    assert sorted(p.removeprefix(path) for p in fs.find(path)) == ["/aux.a", "/d?", "/s/aux.c"]
