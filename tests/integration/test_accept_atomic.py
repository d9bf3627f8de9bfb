"""Acceptance A: what a reader, a second writer and a failing machine see of one tiled write."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio

import fstx
from fstx.backends.local import records
from fstx.layouts import geotiff
from support.killer import KillerOps

SIDE, TILE = 96, 32  # 9 tiles
GEO: dict[str, Any] = {"crs": "EPSG:4326", "transform": (10.0, 0.5, 0, 50.0, 0, -0.25)}
KW: dict[str, Any] = {"tile_size": TILE, **GEO}
TILES = {f"tile_{r:02d}_{c:02d}.tif" for r in range(3) for c in range(3)}


def data() -> np.ndarray:
    return np.arange(SIDE * SIDE, dtype="f4").reshape(SIDE, SIDE)


def listing(place: Path) -> list[str]:
    return sorted(p.relative_to(place).as_posix() for p in place.rglob("*"))


COMPLETE = sorted(["o.vrt", "o_tiles", *("o_tiles/" + t for t in TILES)])


def read(place: Path) -> np.ndarray:
    with rasterio.open(place / "o.vrt") as opened:
        return opened.read(1)


class BoomError(Exception):
    """The failure that a test injects."""


@pytest.fixture
def encode(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what runs before each tile is encoded: called with the number of the attempt."""
    original = geotiff.TileFormat.encode
    lock = threading.Lock()

    class State:
        before: Any = staticmethod(lambda number: None)
        attempts = 0
        running = 0

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        with lock:
            State.attempts += 1
            number = State.attempts
            State.running += 1
        try:
            State.before(number)
            return original(self, *args, **kwargs)
        finally:
            with lock:
                State.running -= 1

    monkeypatch.setattr(geotiff.TileFormat, "encode", patched)
    return State


@pytest.mark.parametrize("old", [False, True], ids=["first", "replacement"])
def test_after_every_call_a_reader_finds_a_whole_mosaic(old: bool, tmp_path: Path) -> None:
    """A2, A3, A26: looked at before every call of the writer that changes something: without the index
    there is nothing to open; with it each tile that it names is there and of one generation."""
    if old:
        fstx.write(data() * 0, tmp_path / "o.vrt", **KW)
    seen: list[object] = []

    def look(_name: str, _path: str) -> None:
        if not (tmp_path / "o.vrt").exists():
            seen.append(None)
            return
        found = read(tmp_path)
        assert (found == 0).all() or (found == data()).all()
        seen.append(bool(found.any()))

    ops = KillerOps(act=look)
    fstx.write(data(), tmp_path / "o.vrt", overwrite=old, storage_options={"ops": ops}, **KW)
    look("", "")
    assert len(seen) > 30
    first_new = seen.index(True)
    assert set(seen[:first_new]) == {False if old else None}
    assert set(seen[first_new:]) == {True}


def test_final_names_appear_at_commit_only(tmp_path: Path) -> None:
    """A2, A20: all is staged below the parent's own control directory, and each name is given by one
    rename from there."""
    shown: list[set[str]] = []
    ops = KillerOps(act=lambda *_: shown.append(set(os.listdir(tmp_path)) - {".fstx"}))
    fstx.write(data(), tmp_path / "o.vrt", storage_options={"ops": ops}, **KW)
    control = str(tmp_path / ".fstx") + "/"
    made = [path for call, path in ops.calls if call == "open_new"]
    assert len(made) >= 10
    assert all(path.startswith(control) for path in made)
    moves = [path.split(" -> ") for _, path in ops.calls if " -> " in path]
    out = [
        (source, goal)
        for source, goal in moves
        if not goal.startswith(control) and "absent-" not in source
    ]
    assert [goal for _, goal in out] == [str(tmp_path / "o_tiles"), str(tmp_path / "o.vrt")]
    assert all(source.startswith(control) for source, _ in out)
    commit = next(
        n for n, (_, p) in enumerate(ops.calls) if p.endswith(f"-> {tmp_path / 'o_tiles'}")
    )
    assert set().union(*shown[: commit + 1]) == set()


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_further_failures_are_kept(kind: str, tmp_path: Path, encode: Any) -> None:
    """A12, A14: two tiles fail, the later one while the first is on its way: the first is raised, the
    second is told with it."""
    both = threading.Barrier(2, timeout=10)

    def fail(number: int) -> None:
        if number <= 2:
            both.wait()
            time.sleep(0.05 * (number - 1))
            raise BoomError(f"failure {number}")

    encode.before = fail
    array = data() if kind == "numpy" else da.from_array(data(), chunks=TILE)
    with pytest.raises(BoomError, match="failure 1") as caught:
        fstx.write(array, tmp_path / "o.vrt", max_workers=2, **KW)
    assert "failure 2" in "".join(caught.value.__notes__)
    assert encode.running == 0
    assert listing(tmp_path) == []


def test_cleanup_that_fails_too_hides_nothing(tmp_path: Path, encode: Any) -> None:
    """A15: from the failing tile on the disk refuses every call; the tile's failure is the one raised,
    and the next run finds its way."""
    broken = threading.Event()

    def fail(number: int) -> None:
        if number == 3:
            broken.set()
            raise BoomError("tile 3")

    def refuse(name: str, path: str) -> None:
        if broken.is_set() and name != "release":
            raise OSError(errno.EIO, "disk is gone", path)

    encode.before = fail
    ops = KillerOps(act=refuse)
    with pytest.raises(BoomError, match="tile 3"):
        fstx.write(data(), tmp_path / "o.vrt", max_workers=1, storage_options={"ops": ops}, **KW)
    assert {"o.vrt", "o_tiles"}.isdisjoint(os.listdir(tmp_path))
    encode.before = lambda _number: None
    fstx.write(data(), tmp_path / "o.vrt", **KW)
    assert listing(tmp_path) == COMPLETE


@pytest.mark.parametrize("kind", ["numpy", "dask"])
def test_no_new_tile_after_the_first_failure(kind: str, tmp_path: Path, encode: Any) -> None:
    """A16: of 144 tiles the second fails; at most those already taken by a worker are still begun."""

    def fail(number: int) -> None:
        if number == 2:
            raise BoomError("no space")
        time.sleep(0.002)

    encode.before = fail
    side = 12 * TILE
    array = np.zeros((side, side), "f4")
    source = array if kind == "numpy" else da.from_array(array, chunks=TILE)
    with pytest.raises(BoomError):
        fstx.write(source, tmp_path / "o.vrt", max_workers=3, **KW)
    assert encode.attempts <= 2 + 2 * 3
    assert encode.running == 0


def test_a_failing_computation_waits_for_running_tiles(tmp_path: Path, encode: Any) -> None:
    """A10, A11: a chunk that can't be computed, while other tiles are being written: none runs on."""
    inside = threading.Event()

    def slow(_number: int) -> None:
        inside.set()
        time.sleep(0.05)

    def bad(block: np.ndarray, block_id: Any = None) -> np.ndarray:
        if block_id == (1, 1):
            assert inside.wait(10)
            raise BoomError("upstream")
        return block

    encode.before = slow
    array = da.from_array(data(), chunks=TILE).map_blocks(
        bad, dtype="f4", meta=np.empty((0, 0), "f4")
    )
    with pytest.raises(BoomError, match="upstream"):
        fstx.write(array, tmp_path / "o.vrt", max_workers=4, **KW)
    assert encode.attempts > 0
    assert encode.running == 0
    assert listing(tmp_path) == []


WRITER = """
import sys, numpy as np, fstx
value, target, ready, go = sys.argv[1:]
array = np.full((96, 96), float(value), "f4")
import os, time
open(ready, "w").close()
while not os.path.exists(go):
    time.sleep(0.001)
try:
    fstx.write(
        array, target, tile_size=32, max_workers=1, progress=lambda d, t: time.sleep(0.01),
        crs="EPSG:4326", transform=(0, 1, 0, 0, 0, -1),
    )
except (fstx.ConflictError, fstx.TargetExistsError) as error:
    print(type(error).__name__)
else:
    print("committed")
"""


def test_of_several_processes_one_commits(tmp_path: Path) -> None:
    """A21: three processes write one target at the same moment; one commits, the others get the library's
    own conflict, and data and index are the winner's."""
    go = tmp_path / "go"
    place = tmp_path / "place"
    place.mkdir()
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(n), place / "o.vrt", tmp_path / f"r{n}", go],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in (1, 2, 3)
    ]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"r{n}").exists() for n in (1, 2, 3)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    go.touch()
    answers = [run.communicate(timeout=60)[0].strip() for run in runs]
    assert answers.count("committed") == 1
    assert set(answers) <= {"committed", "ConflictError", "TargetExistsError"}
    assert (read(place) == answers.index("committed") + 1).all()
    assert listing(place) == COMPLETE


def test_numpy_input_is_not_copied_whole(tmp_path: Path) -> None:
    """A29: 32 MiB in tiles of 256 KiB; what Python allocates for the write is a few tiles."""
    big = np.zeros((2048, 4096), "f4")
    fstx.write(data(), tmp_path / "warm.vrt", **KW)
    tracemalloc.start()
    try:
        fstx.write(big, tmp_path / "o.vrt", tile_size=256, durability="none", max_workers=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


@pytest.mark.parametrize("name", ["o.vrt", "o.zarr", "s.zarr", "o.npy"])
def test_dask_input_is_never_whole_in_memory(name: str, tmp_path: Path) -> None:
    """A29, E12: with the real layouts no more output chunks live than there are workers."""
    alive: set[int] = set()
    peaks: list[int] = []
    lock = threading.Lock()

    def make(block_info: Any = None) -> np.ndarray:
        chunk = np.zeros(block_info[None]["chunk-shape"], "f4")
        with lock:
            number = len(peaks)
            alive.add(number)
            weakref.finalize(chunk, alive.discard, number)
            peaks.append(len(alive))
        return chunk

    chunks = ((16,) * 64,) + (((16, 16),) if name != "o.npy" else ((32,),))
    array = da.map_blocks(make, chunks=chunks, dtype="f4", meta=np.empty((0, 0), "f4"))
    peaks.clear()
    options = {"s.zarr": {"chunks": (8, 8), "shards": (32, 32)}, "o.zarr": {"chunks": (16, 16)}}
    extra = options.get(name, {})
    fstx.write(array, tmp_path / name, max_workers=2, durability="none", **extra)
    assert len(peaks) == (64 if name == "o.npy" else 128)
    assert max(peaks) <= 2
    assert not alive


def test_what_the_docstring_promises() -> None:
    """A31: the public function says what a failed write leaves."""
    text = " ".join((fstx.write.__doc__ or "").split())
    assert "When this raises, no block is being written any more, the target is as it was" in text
    assert "nothing is left" in text
    assert "After a kill the next call, or `recover`, settles" in text


@pytest.mark.parametrize(
    "name", ["a", "line\u2028break", "next\x85line", "é" * 80, '"quoted"', "b" * 200]
)
def test_a_record_is_one_line(name: str) -> None:
    """A32: whatever a name holds, its record is one physical line that reads back."""
    entry = records.Entry(
        kind=records.Kind.PUBLISH,
        parent="/p",
        name=name,
        rest="x/y",
        root=0,
        tree=False,
        occupied=False,
        new=(1, 2, 3, 4),
        base=None,
    )
    body = records.RecordBody("0" * 32, "redo", "", True, False, "data", (entry,) * 3)
    line = records.encode(body)
    assert line.endswith(b"\n")
    assert len(line.decode().splitlines()) == 1
    assert records.decode(line, "here") == body


def test_records_are_written_whole(tmp_path: Path) -> None:
    """A32: each record is a file of its own, created exclusively and written by one call: two writers
    can't split or merge theirs. Of two objects of one path the later one wins."""
    ops = KillerOps()
    with fstx.begin(tmp_path / "t", id="key", ops=ops) as tx:
        tx.stage("a", b"old")
        tx.stage("a", b"new")
    wrote = [path for call, path in ops.calls if call == "write"]
    assert {os.path.basename(path).partition(".")[0] for path in wrote} >= {"owner"}
    assert len(wrote) >= 2
    made = [path for call, path in ops.calls if call == "open_new"]
    assert all(made.count(path) == wrote.count(path) == 1 for path in wrote)
    assert (tmp_path / "t" / "a").read_bytes() == b"new"


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770)])
def test_modes_follow_umask(mask: int, file: int, folder: int, tmp_path: Path) -> None:
    """A34: also where a tree is replaced, and in directories that were made for the target."""
    before = os.umask(mask)
    try:
        for how in (False, True):
            fstx.write(data(), tmp_path / "new" / "z.zarr", chunks=(32, 32), overwrite=how)
            fstx.write(data(), tmp_path / "new" / "o.vrt", overwrite=how, **KW)
            fstx.write(data(), tmp_path / "new" / "o.npy", overwrite=how)
    finally:
        os.umask(before)
    modes = {(p.is_dir(), p.stat().st_mode & 0o777) for p in (tmp_path / "new").rglob("*")}
    assert modes == {(False, file), (True, folder)}
    assert (tmp_path / "new").stat().st_mode & 0o777 == folder


def test_memory_failure_leaves_nothing(tmp_path: Path, encode: Any, monkeypatch: Any) -> None:
    """A33, A4: the same on memory://, and nothing is made on the local disk."""
    import fsspec

    monkeypatch.chdir(tmp_path)

    def fail(number: int) -> None:
        if number == 5:
            raise BoomError("tile 5")

    encode.before = fail
    with pytest.raises(BoomError):
        fstx.write(data(), "memory://accept-a33/o.vrt", **KW)
    assert fsspec.filesystem("memory").find("/accept-a33") == []
    assert listing(tmp_path) == []
