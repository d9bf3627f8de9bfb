"""fstx.write under real SIGKILL and SIGINT, on real data: old, new, or what the next run settles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

import fstx

DEM = Path(__file__).parents[1] / "data" / "jacksboro_fault_dem.npz"

CHILD = textwrap.dedent(
    """
    import os, signal, sys, time
    import numpy as np
    import dask.array as da
    import fstx

    dem, url, kind, fatal, when, overwrite = sys.argv[1:]
    array = np.load(dem)["elevation"].astype("f4") + 1
    if kind == "dask":
        array = da.from_array(array, chunks=64)

    def progress(done, total):
        if done == int(when):
            os.kill(os.getpid(), getattr(signal, fatal))
            time.sleep(5)

    geo = {"crs": "EPSG:4326", "transform": (-84.4, 1 / 1200, 0, 36.7, 0, -1 / 1200)}
    options = {"tile_size": 64, **geo} if url.endswith("vrt") else {"chunks": (64, 64)}
    fstx.write(array, url, progress=progress, overwrite=overwrite == "1", max_workers=2, **options)
    """
)


def dem() -> np.ndarray:
    return np.load(DEM)["elevation"].astype("f4")


def run_child(url: Path, kind: str, fatal: str, when: int, overwrite: bool = False) -> int:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD,
            str(DEM),
            str(url),
            kind,
            fatal,
            str(when),
            str(int(overwrite)),
        ],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if fatal == "SIGINT":
        assert b"KeyboardInterrupt" in done.stderr
    return done.returncode


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
    name: str, kind: str, when: int, tmp_path: Path
) -> None:
    """A23, A24, G4: SIGKILL at the first, a middle and the last block."""
    url = tmp_path / name
    assert run_child(url, kind, "SIGKILL", when) == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".fstx"]
    write(url, dem())
    assert (read(url) == dem()).all()
    assert ".fstx" not in os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["o.vrt", "o.zarr"])
def test_a_killed_replacement_leaves_the_old(name: str, tmp_path: Path) -> None:
    """A23, A26, H10: the old content is whole for readers before and after recovery."""
    url = tmp_path / name
    write(url, dem())
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    assert run_child(url, "numpy", "SIGKILL", 20, overwrite=True) == -signal.SIGKILL
    assert (read(url) == dem()).all()
    report = fstx.recover(tmp_path)
    assert [s.state for s in report.settled] == ["aborted"]
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
    assert (read(url) == dem()).all()


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("name", ["o.vrt", "o.zarr"])
def test_ctrl_c_leaves_nothing(kind: str, name: str, tmp_path: Path) -> None:
    """A25: SIGINT in the middle; no staging, no control directory, and the signal is reported."""
    url = tmp_path / name
    code = run_child(url, kind, "SIGINT", 20)
    assert code in (-signal.SIGINT, 1, 130)
    assert os.listdir(tmp_path) == []
