"""fstx.write under real SIGKILL and SIGINT, on real data: old, new, or what the next run settles."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

import fstx
from support.forking import Forks

Child = Callable[..., int]

DEM = Path(__file__).parents[1] / "data" / "jacksboro_fault_dem.npz"

CHILD = """
import os, signal, time
import dask.array as da
import numpy as np
import fstx.arrays, fstx.backends.local, fstx.layouts.vrt, fstx.layouts.zarr3, fstx.sources.dask_

def run(dem, url, kind, fatal, when, overwrite):
    array = np.load(dem)["elevation"].astype("f4") + 1
    if kind == "dask":
        array = da.from_array(array, chunks=64)

    def progress(done, total):
        if done == when:
            os.kill(os.getpid(), getattr(signal, fatal))
            time.sleep(5)

    geo = {"crs": "EPSG:4326", "transform": (-84.4, 1 / 1200, 0, 36.7, 0, -1 / 1200)}
    options = {"tile_size": 64, **geo} if url.endswith("vrt") else {"chunks": (64, 64)}
    fstx.write(array, url, progress=progress, overwrite=overwrite == "1", max_workers=2, **options)
"""


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """Writes in a process of its own, which a signal meets at the numbered block."""
    with Forks(CHILD) as forks:

        def run(url: Path, kind: str, fatal: str, when: int, overwrite: bool = False) -> int:
            done = forks.run(str(DEM), str(url), kind, fatal, when, str(int(overwrite)))
            if fatal == "SIGINT":
                assert "KeyboardInterrupt" in done.stderr
            return done.returncode

        yield run


def dem() -> np.ndarray:
    return np.load(DEM)["elevation"].astype("f4")


def read(url: Path) -> np.ndarray:
    if url.suffix == ".zarr":
        return np.asarray(zarr.open_array(url, mode="r")[:])
    with rasterio.open(url) as opened:
        return opened.read(1)


def write(url: Path, array: np.ndarray, **how: object) -> None:
    geo = {"crs": "EPSG:4326", "transform": (-84.4, 1 / 1200, 0, 36.7, 0, -1 / 1200)}
    options = {"tile_size": 64, **geo} if url.suffix == ".vrt" else {"chunks": (64, 64)}
    fstx.write(array, url, **options, **how)


@pytest.mark.parametrize("name", ["o.vrt", "o.zarr"])
@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("when", [1, 20, 42])
def test_a_killed_first_write_is_invisible_and_the_retry_works(
    name: str, kind: str, when: int, child: Child, tmp_path: Path
) -> None:
    """A23, A24, G4: SIGKILL at the first, a middle and the last block."""
    url = tmp_path / name
    assert child(url, kind, "SIGKILL", when) == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".fstx"]
    write(url, dem())
    assert (read(url) == dem()).all()
    assert ".fstx" not in os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["o.vrt", "o.zarr"])
def test_a_killed_replacement_leaves_the_old(name: str, child: Child, tmp_path: Path) -> None:
    """A23, A26, H10: the old content is whole for readers before and after recovery."""
    url = tmp_path / name
    write(url, dem())
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    assert child(url, "numpy", "SIGKILL", 20, overwrite=True) == -signal.SIGKILL
    assert (read(url) == dem()).all()
    report = fstx.recover(tmp_path)
    assert [s.state for s in report.settled] == ["aborted"]
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    assert (read(url) == dem()).all()


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("name", ["o.vrt", "o.zarr"])
def test_ctrl_c_leaves_nothing(kind: str, name: str, child: Child, tmp_path: Path) -> None:
    """A25: SIGINT in the middle; no staging, no control directory, and the signal is reported."""
    url = tmp_path / name
    code = child(url, kind, "SIGINT", 20)
    assert code in (-signal.SIGINT, 1, 130)
    assert os.listdir(tmp_path) == []
