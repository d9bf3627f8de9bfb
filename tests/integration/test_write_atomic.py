"""fstx.write of a mosaic is all or nothing: acceptance A at the level of the public function."""

from __future__ import annotations

import os
import random
import threading
import time
import traceback
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio

import fstx
from fstx.layouts import geotiff
from support.fakes import FakeDevice

SIDE, TILE = 96, 32  # 9 tiles
KW = {"tile_size": TILE, "crs": "EPSG:4326", "transform": (10.0, 0.5, 0, 50.0, 0, -0.25)}


def data() -> np.ndarray:
    return np.arange(SIDE * SIDE, dtype="f4").reshape(SIDE, SIDE)


def numpy_input() -> object:
    return data()


def dask_input() -> object:
    return da.from_array(data(), chunks=TILE)


def device_input() -> object:
    return FakeDevice(data())


KINDS = pytest.mark.parametrize(
    "make", [numpy_input, dask_input, device_input], ids=["numpy", "dask", "device"]
)


def listing(place: Path) -> list[str]:
    return sorted(p.relative_to(place).as_posix() for p in place.rglob("*"))


TILES = [f"o_tiles/tile_{r:02d}_{c:02d}.tif" for r in range(3) for c in range(3)]
COMPLETE = sorted(["o.vrt", "o_tiles", *TILES])


def read(place: Path) -> np.ndarray:
    with rasterio.open(place / "o.vrt") as opened:
        return opened.read(1)


class BoomError(Exception):
    """The failure that a test injects."""


@pytest.fixture
def failing_tile(monkeypatch: pytest.MonkeyPatch):
    """Makes the k-th tile write fail; counts attempts and those still running."""
    state = {"attempts": 0, "running": 0, "k": 0}
    lock = threading.Lock()
    original = geotiff.TileFormat.encode

    def encode(self, *args, **kwargs):
        with lock:
            state["attempts"] += 1
            mine = state["attempts"]
            state["running"] += 1
        try:
            time.sleep(random.uniform(0, 0.004))
            if mine == state["k"]:
                raise BoomError(f"tile {mine}")
            return original(self, *args, **kwargs)
        finally:
            with lock:
                state["running"] -= 1

    monkeypatch.setattr(geotiff.TileFormat, "encode", encode)
    return state


@KINDS
def test_a_complete_write_leaves_the_output_and_nothing_else(make, tmp_path: Path) -> None:
    """A1, A34: index, tile directory, tiles; modes as umask gives them."""
    before = os.umask(0o022)
    try:
        snapshot = fstx.write(make(), tmp_path / "o.vrt", **KW)
    finally:
        os.umask(before)
    assert listing(tmp_path) == COMPLETE
    assert (read(tmp_path) == data()).all()
    assert snapshot.paths == 10
    assert {oct((tmp_path / p).stat().st_mode & 0o777) for p in ["o.vrt", TILES[0]]} == {"0o644"}
    assert oct((tmp_path / "o_tiles").stat().st_mode & 0o777) == "0o755"


def test_nothing_is_visible_before_commit(tmp_path: Path) -> None:
    """A2, A3: while tiles are written neither final name exists; they appear tiles first."""
    seen: list[list[str]] = []

    def watch(done: int, total: int) -> None:
        seen.append([n for n in listing(tmp_path) if not n.startswith(".fstx")])

    fstx.write(numpy_input(), tmp_path / "o.vrt", progress=watch, max_workers=1, **KW)
    assert len(seen) == 9
    assert all(names == [] for names in seen)


@KINDS
@pytest.mark.parametrize("k", [1, 5, 9], ids=["first", "middle", "last"])
def test_a_failing_tile_leaves_nothing_and_a_retry_works(
    make, k: int, tmp_path: Path, failing_tile
) -> None:
    """A4, A5, A7, A11, A12: nothing left, no writer running, the first failure raised, retry equal."""
    failing_tile["k"] = k
    with pytest.raises(BoomError, match=f"tile {k}"):
        fstx.write(make(), tmp_path / "o.vrt", **KW)
    assert failing_tile["running"] == 0
    assert listing(tmp_path) == []
    failing_tile["k"] = 0
    fstx.write(make(), tmp_path / "o.vrt", **KW)
    assert listing(tmp_path) == COMPLETE
    assert (read(tmp_path) == data()).all()


def test_a_failing_dask_tile_settles_fifty_times(tmp_path: Path, failing_tile) -> None:
    """A17: no race between the failure and the writers beside it, with random durations."""
    for round_ in range(50):
        failing_tile["attempts"] = 0
        failing_tile["k"] = 1 + round_ % 9
        with pytest.raises(BoomError):
            fstx.write(dask_input(), tmp_path / "o.vrt", max_workers=4, **KW)
        assert failing_tile["running"] == 0
        assert listing(tmp_path) == []


def test_the_failure_keeps_its_frame_and_names_its_tile(tmp_path: Path, failing_tile) -> None:
    """A13, A16: traceback of the failing write, a note with the block; no new write after it."""
    failing_tile["k"] = 2
    with pytest.raises(BoomError) as caught:
        fstx.write(dask_input(), tmp_path / "o.vrt", max_workers=1, **KW)
    frames = "".join(traceback.format_exception(caught.value))
    assert "in encode" in frames
    assert "while writing o_tiles/tile_" in "".join(caught.value.__notes__)
    assert failing_tile["attempts"] == 2


def test_a_failing_chunk_computation_obeys_the_same(tmp_path: Path) -> None:
    """A10: an error upstream in the graph, not in the write."""

    def bad(block: np.ndarray, block_info=None) -> np.ndarray:
        if block_info and block_info[0]["chunk-location"] == (1, 1):
            raise BoomError("upstream")
        time.sleep(0.002)
        return block

    array = da.map_blocks(bad, dask_input(), dtype="f4", meta=np.empty((0, 0), "f4"))
    before = set(threading.enumerate())  # the file system `tx` keeps its threads
    with pytest.raises(BoomError, match="upstream"):
        fstx.write(array, tmp_path / "o.vrt", **KW)
    assert listing(tmp_path) == []
    assert not [t for t in threading.enumerate() if t.name.startswith("fstx") and t not in before]


@pytest.mark.parametrize(
    ("array", "options", "error"),
    [
        (np.zeros((2, 3, 4, 5), "f4"), {}, fstx.UsageError),
        (np.zeros((0, 5), "f4"), {}, fstx.UsageError),
        (data(), {"crs": True}, fstx.UsageError),
        (data(), {"crs": "no such system"}, fstx.UsageError),
        (data(), {"crs": "EPSG:4326", "transform": None}, fstx.UsageError),
        (data(), {"transform": (0, 1, 0.5, 0, 0, -1)}, fstx.UsageError),
        (data(), {"nodata": True}, fstx.UsageError),
        (data(), {"nodata": "x"}, fstx.UsageError),
        (data(), {"compression": "lzma2"}, fstx.UsageError),
        (data(), {"compression": 7}, fstx.UsageError),
        (data(), {"level": 99}, fstx.UsageError),
        (data(), {"tile_size": 100}, fstx.UsageError),
        (data(), {"cog": True}, fstx.UsageError),
        (data(), {"tiled": False}, fstx.UsageError),
        (data(), {"overview_levels": [2]}, fstx.UsageError),
        (data(), {"max_z_error": -1}, fstx.UsageError),
        (data(), {"no_such_option": 1}, fstx.UsageError),
        (np.array([[object()]]), {}, fstx.UsageError),
        ([[1, 2]], {}, fstx.UsageError),
    ],
)
def test_bad_input_is_refused_before_a_byte(array, options, error, tmp_path: Path) -> None:
    """A8, B9: a clear error, nothing staged, nothing left."""
    with pytest.raises(error):
        fstx.write(array, tmp_path / "o.vrt", **{**KW, **options})
    assert listing(tmp_path) == []


def test_a_failing_index_leaves_no_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A9: failure while the index is made; a retry works."""
    from fstx.layouts import vrt

    with monkeypatch.context() as patch:

        def boom(*_: object) -> None:
            raise BoomError("index")

        patch.setattr(vrt.VrtPlan, "finish", boom)
        with pytest.raises(BoomError, match="index"):
            fstx.write(data(), tmp_path / "o.vrt", **KW)
    assert listing(tmp_path) == []
    fstx.write(data(), tmp_path / "o.vrt", **KW)
    assert listing(tmp_path) == COMPLETE


def test_an_empty_tile_directory_is_reused(tmp_path: Path) -> None:
    """A18."""
    (tmp_path / "o_tiles").mkdir()
    fstx.write(data(), tmp_path / "o.vrt", **KW)
    assert listing(tmp_path) == COMPLETE


def test_a_full_tile_directory_is_refused_before_any_chunk(tmp_path: Path) -> None:
    """A19: FileExistsError before a chunk is computed; what is there stays."""
    computed = []

    def note(block: np.ndarray) -> np.ndarray:
        computed.append(block.shape)
        return block

    array = da.map_blocks(note, dask_input(), dtype="f4", meta=np.empty((0, 0), "f4"))
    (tmp_path / "o_tiles").mkdir()
    (tmp_path / "o_tiles" / "mine.txt").write_text("keep")
    computed.clear()
    with pytest.raises(FileExistsError, match="o_tiles"):
        fstx.write(array, tmp_path / "o.vrt", **KW)
    assert computed == []
    assert listing(tmp_path) == ["o_tiles", "o_tiles/mine.txt"]


def test_of_two_writers_one_commits_and_the_other_learns_it_early(tmp_path: Path) -> None:
    """A21, A22: the loser gets the conflict error before it wrote a tile."""
    inside, go = threading.Event(), threading.Event()
    results: list[object] = []

    def slow(done: int, total: int) -> None:
        inside.set()
        go.wait(10)

    first = threading.Thread(
        target=lambda: results.append(
            fstx.write(data(), tmp_path / "o.vrt", progress=slow, max_workers=1, **KW)
        )
    )
    first.start()
    assert inside.wait(10)
    told: list[int] = []
    with pytest.raises(fstx.ConflictError):
        fstx.write(data() * 0, tmp_path / "o.vrt", progress=lambda d, t: told.append(d), **KW)
    go.set()
    first.join()
    assert told == []
    assert len(results) == 1
    assert listing(tmp_path) == COMPLETE
    assert (read(tmp_path) == data()).all()


def test_two_replacements_at_once_keep_data_and_index_together(tmp_path: Path) -> None:
    """A21 for overwrite: one of two wins, or both one after the other; never a mixture."""
    fstx.write(data(), tmp_path / "o.vrt", **KW)
    barrier = threading.Barrier(2)
    outcomes: list[object] = []

    def replace(value: float) -> None:
        barrier.wait()
        try:
            fstx.write(np.full((SIDE, SIDE), value, "f4"), tmp_path / "o.vrt", overwrite=True, **KW)
            outcomes.append(value)
        except fstx.ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=replace, args=(v,)) for v in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = [o for o in outcomes if isinstance(o, float)]
    assert len(outcomes) == 2
    assert values
    found = read(tmp_path)
    assert found.min() == found.max()
    assert found[0, 0] in values


def test_overwrite_shows_readers_all_old_or_all_new(tmp_path: Path) -> None:
    """A26: readers that open the index at any moment; ten replacements beside them."""
    fstx.write(np.full((SIDE, SIDE), 0, "f4"), tmp_path / "o.vrt", **KW)
    stop = threading.Event()
    mixtures: list[object] = []
    reads = 0

    def reader() -> None:
        nonlocal reads
        while not stop.is_set():
            found = read(tmp_path)
            reads += 1
            if found.min() != found.max():
                mixtures.append(np.unique(found))

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        for value in range(1, 11):
            fstx.write(np.full((SIDE, SIDE), value, "f4"), tmp_path / "o.vrt", overwrite=True, **KW)
            time.sleep(0.02)  # a reader is slower than two replacements; one is what is promised
    finally:
        stop.set()
        thread.join()
    assert mixtures == []
    assert reads > 5
    assert (read(tmp_path) == 10).all()
    assert sorted(os.listdir(tmp_path / "o_tiles")) == ["10", "9"]


def test_overwrite_may_remove_the_old_tiles_at_once(tmp_path: Path) -> None:
    """A26: without keeping the previous ones only the new remain; names count up."""
    for _ in range(3):
        fstx.write(data(), tmp_path / "o.vrt", overwrite=True, keep_previous=False, **KW)
    assert sorted(os.listdir(tmp_path / "o_tiles")) == ["2"]
    assert (read(tmp_path) == data()).all()


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    """A27, B15, E9: numpy, dask on any scheduler, device; twice."""
    made = {}
    for name, array, how in [
        ("numpy", numpy_input(), {}),
        ("again", numpy_input(), {"max_workers": 1}),
        ("dask", dask_input(), {}),
        ("sync", dask_input(), {"scheduler": "synchronous"}),
        ("device", device_input(), {}),
    ]:
        place = tmp_path / name
        fstx.write(array, place / "o.vrt", **KW, **how)
        made[name] = {n: (place / n).read_bytes() for n in ["o.vrt", *TILES]}
    assert all(files == made["numpy"] for files in made.values())


def test_the_grid_is_the_arrays_own(tmp_path: Path) -> None:
    """A28: irregular dask chunks, and a numpy array with cut edges."""
    array = da.from_array(data()[:80, :70], chunks=((33, 47), (50, 20)))
    fstx.write(array, tmp_path / "o.vrt", **KW)
    assert sorted(os.listdir(tmp_path / "o_tiles")) == [
        f"tile_{r:02d}_{c:02d}.tif" for r in range(2) for c in range(2)
    ]
    assert (read(tmp_path) == data()[:80, :70]).all()
    with rasterio.open(tmp_path / "o_tiles" / "tile_01_00.tif") as tile:
        assert tile.shape == (47, 50)
    fstx.write(data()[:80, :70], tmp_path / "n" / "o.vrt", **KW)
    assert len(os.listdir(tmp_path / "n" / "o_tiles")) == 9
    assert (read(tmp_path / "n") == data()[:80, :70]).all()


def test_nan_becomes_nodata_and_the_input_stays(tmp_path: Path) -> None:
    """A30: only where nodata is set; the caller's buffer is never modified."""
    array = data()
    array[3, 4] = np.nan
    copy = array.copy()
    fstx.write(array, tmp_path / "a" / "o.vrt", nodata=-9999.0, **KW)
    fstx.write(array, tmp_path / "b" / "o.vrt", **KW)
    assert np.array_equal(array, copy, equal_nan=True)
    assert read(tmp_path / "a")[3, 4] == -9999
    assert np.isnan(read(tmp_path / "b")[3, 4])


def test_a_remote_target_gets_index_and_tiles(tmp_path: Path, monkeypatch) -> None:
    """A33: memory://, and no local directory by that name."""
    import fsspec

    monkeypatch.chdir(tmp_path)
    fstx.write(data(), "memory://bucket-a33/o.vrt", **KW)
    found = fsspec.filesystem("memory").find("/bucket-a33")
    assert found == sorted(["/bucket-a33/o.vrt", *("/bucket-a33/" + t for t in TILES)])
    assert listing(tmp_path) == []
    fsspec.filesystem("memory").get("/bucket-a33", str(tmp_path / "got"), recursive=True)
    assert (read(tmp_path / "got") == data()).all()


def test_a_stale_sidecar_does_not_survive(tmp_path: Path) -> None:
    """B16: statistics of an older raster beside the new index."""
    (tmp_path / "o.vrt.aux.xml").write_text("<PAMDataset/>")
    fstx.write(data(), tmp_path / "o.vrt", **KW)
    assert listing(tmp_path) == COMPLETE
    (tmp_path / "o.vrt.aux.xml").write_text("<PAMDataset/>")
    fstx.write(data(), tmp_path / "o.vrt", overwrite=True, **KW)
    assert not (tmp_path / "o.vrt.aux.xml").exists()


def test_a_lazy_write_commits_when_computed(tmp_path: Path) -> None:
    """E14, E17: nothing before compute(); its failure leaves nothing."""
    lazy = fstx.write(dask_input(), tmp_path / "o.vrt", compute=False, **KW)
    assert listing(tmp_path) == []
    (snapshot,) = dask.compute(lazy)
    assert snapshot.paths == 10
    assert listing(tmp_path) == COMPLETE


def test_a_key_commits_once(tmp_path: Path) -> None:
    """I5: the second call with the same id does nothing and says so."""
    first = fstx.write(data(), tmp_path / "o.vrt", id="run-1", **KW)
    stamp = (tmp_path / "o.vrt").stat().st_mtime_ns
    again = fstx.write(data() * 2, tmp_path / "o.vrt", id="run-1", **KW)
    assert (first.paths, again.paths) == (10, 0)
    assert "before" in again.reason
    assert (tmp_path / "o.vrt").stat().st_mtime_ns == stamp
    assert fstx.outcome(tmp_path / "o.vrt", "run-1") == "committed"


@pytest.mark.parametrize("url", ["{}/x.zarr", "memory://guard-{}/x.zarr"])
@pytest.mark.parametrize("foreign", ["x.zarr", "x.zarr/notes.txt"])
def test_overwrite_replaces_zarr_stores_only(url: str, foreign: str, tmp_path: Path) -> None:
    """A folder or file of other things under that name is no output of ours: it stays."""
    import fsspec

    url = url.format(tmp_path if "memory" not in url else tmp_path.name)
    place = url.rpartition("/")[0] + "/" + foreign
    with fsspec.open(place, "wb", auto_mkdir=True) as file:
        file.write(b"mine")
    with pytest.raises(fstx.TargetExistsError, match=r"zarr\.json"):
        fstx.write(data(), url, overwrite=True)
    with fsspec.open(place, "rb") as file:
        assert file.read() == b"mine"
    fs, path = fsspec.core.url_to_fs(place)
    fs.rm(path)
    fstx.write(data(), url, overwrite=True)
    fstx.write(data() + 1, url, overwrite=True)
    with fsspec.open(url + "/zarr.json", "rb") as file:
        assert file.read(1) == b"{"
