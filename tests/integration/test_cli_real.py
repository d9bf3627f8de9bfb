"""The command line as a process, on real input: written, killed, interrupted, shown."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

ROOT = Path(__file__).parents[2]
DEM = ROOT / "tests" / "data" / "jacksboro_fault_dem.npz"
MARBLE = ROOT / "tests" / "data" / "bluemarble_5400x2700.jpg"
COMMAND = [sys.executable, "-m", "fstx.cli"]


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *argv], capture_output=True, text=True, check=False, timeout=120
    )


def test_dem_as_mosaic_and_zarr(tmp_path: Path) -> None:
    """Protects the main job on real input: the DEM as VRT and as Zarr, read back equal by GDAL and zarr."""
    values = np.load(DEM)["elevation"]
    done = _run("write", str(DEM), str(tmp_path / "dem.vrt"), "--compression", "deflate")
    assert done.returncode == 0, done.stderr
    with rasterio.open(tmp_path / "dem.vrt") as read:
        assert np.array_equal(read.read(1), values)
        assert read.crs.to_epsg() == 4326
        assert read.bounds.left == pytest.approx(-84.41375)
        assert read.bounds.top == pytest.approx(36.73291666666667)
        assert read.bounds.bottom == pytest.approx(36.44625)
    done = _run("write", str(tmp_path / "dem_tiles" / "tile_00_00.tif"), str(tmp_path / "t.zarr"))
    assert done.returncode == 0, done.stderr
    written = zarr.open_array(tmp_path / "t.zarr", mode="r")
    assert np.array_equal(np.asarray(written), values[:256, :256])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dem.vrt", "dem_tiles", "t.zarr"]


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_image_as_mosaic(tmp_path: Path) -> None:
    """Protects multi-band input: the Blue Marble has three bands that read back equal (B17)."""
    from PIL import Image

    done = _run("write", str(MARBLE), str(tmp_path / "m.vrt"), "--chunks", "1024", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == 3 * 6 + 1
    with rasterio.open(tmp_path / "m.vrt") as read, Image.open(MARBLE) as image:
        assert np.array_equal(read.read(), np.moveaxis(np.asarray(image), -1, 0))


def _begin_slow(source: Path, target: Path) -> subprocess.Popen[str]:
    """A write that is under way: staging has begun and is far from its end."""
    child = subprocess.Popen(
        [*COMMAND, "write", str(source), str(target), "--chunks", "32", "--max-workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(target.parent.glob(".fstx/*/a/*")):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return child


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "large.npy"
    np.save(path, np.random.default_rng(0).integers(0, 9999, (4096, 4096), dtype=np.int16))
    return path


def test_interrupt_leaves_nothing(large: Path, tmp_path: Path) -> None:
    """Protects Ctrl-C: exit code 130, one line, nothing published and nothing left behind."""
    child = _begin_slow(large, tmp_path / "o" / "a.vrt")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert out == ""
    assert err.startswith("fstx: interrupted")
    assert err.count("\n") == 1
    assert list(tmp_path.rglob("*")) == []


def test_many_interrupts_are_told_honestly(large: Path, tmp_path: Path) -> None:
    """Protects impatient people: after several Ctrl-C 130 means nothing is left, 4 that recover clears it."""
    for n, gap_s in enumerate((0.0, 0.003, 0.02)):
        place = tmp_path / str(n)
        target = place / "a.vrt"
        child = _begin_slow(large, target)
        for _ in range(6):
            child.send_signal(signal.SIGINT)
            time.sleep(gap_s)
        out, err = child.communicate(timeout=60)
        assert out == ""
        assert "Traceback" not in err
        assert err.startswith("fstx: interrupted")
        assert not target.exists()
        if child.returncode == 130:
            assert not place.exists() or os.listdir(place) == []
        else:
            assert child.returncode == 4, err
            assert f"fstx recover {target}" in err
            assert _run("recover", str(target)).returncode == 0
            assert not place.exists() or os.listdir(place) == []


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_kill_then_recover(large: Path, tmp_path: Path) -> None:
    """Protects after SIGKILL: no reader sees anything, `fstx recover` clears it, the retry succeeds."""
    target = tmp_path / "a.vrt"
    child = _begin_slow(large, target)
    child.kill()
    child.communicate(timeout=60)
    assert sorted(os.listdir(tmp_path)) == [".fstx"]
    done = _run("recover", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    assert [row["state"] for row in json.loads(done.stdout)["settled"]] == ["aborted"]
    assert os.listdir(tmp_path) == []
    assert _run("write", str(large), str(target)).returncode == 0
    with rasterio.open(target) as read:
        assert np.array_equal(read.read(1), np.load(large))


def test_progress_only_on_a_terminal(tmp_path: Path) -> None:
    """Protects logs: a bar on standard error where that is a terminal, nothing in a file."""
    plain = _run("write", str(MARBLE), str(tmp_path / "a.vrt"), "--chunks", "512")
    assert plain.returncode == 0
    assert plain.stderr == ""
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(
            [*COMMAND, "write", str(MARBLE), str(tmp_path / "b.vrt"), "--chunks", "512"],
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        )
        assert child.wait(timeout=60) == 0
        shown = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "b.vrt" in shown
    assert "\x1b[" in shown


def test_demo_shows_the_difference(tmp_path: Path) -> None:
    """Protects the demo: leftovers and a mixture by the plain writer, old or new by fstx; scratch goes."""
    done = _run("demo", "--dir", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    assert told["plain new, killed"] == "leftovers"
    assert "File exists" in told["plain new, retry"]
    assert told["plain new, resumed"] == "broken"
    assert told["plain replacing, killed"] == "broken"
    assert told["fstx new, killed"] == "nothing"
    assert told["fstx replacing, killed"] == "old"
    assert told["fstx new, retried"] == told["fstx replacing, retried"] == "new"
    assert told["fstx new, left over"] == told["fstx replacing, left over"] == []
    assert list(tmp_path.iterdir()) == []
