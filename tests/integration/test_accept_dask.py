"""Acceptance E through the public function: schedulers, bounds, lazy writes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import rasterio

import fstx
from fstx.layouts import geotiff
from support.fakes import MOVES, FakeDevice
from support.killer import KillerOps
from support.trees import tree

SIDE, CHUNK = 96, 32
GEO: dict[str, Any] = {"crs": "EPSG:4326", "transform": (0, 1, 0, 0, 0, -1)}
META = np.empty((0, 0), "f4")


def data() -> np.ndarray:
    return np.arange(SIDE * SIDE, dtype="f4").reshape(SIDE, SIDE)


def chunked(function: Any = None) -> da.Array:
    array = da.from_array(data(), chunks=CHUNK)
    return array if function is None else array.map_blocks(function, dtype="f4", meta=META)


class BoomError(Exception):
    """The failure that a test injects."""


@pytest.fixture
def _by_value() -> Iterator[None]:
    """Functions of this module travel by value: worker processes can't import a test."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(params=["processes", "distributed"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A scheduler that works in other processes."""
    if request.param == "processes":
        yield "processes"
        return
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None)
    with cluster, Client(cluster) as client:
        yield client


@pytest.mark.usefixtures("_by_value")
def test_device_chunks_in_worker_processes(elsewhere: Any, tmp_path: Path) -> None:
    """E3, E6, H4: dask of a device in other processes: copied to the host there, never here; the files
    are those of numpy."""
    MOVES.clear()
    fstx.write(chunked(FakeDevice), tmp_path / "a" / "o.vrt", scheduler=elsewhere, **GEO)
    assert MOVES == []
    fstx.write(data(), tmp_path / "b" / "o.vrt", tile_size=CHUNK, **GEO)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_each_tile_has_a_path_of_its_own(tmp_path: Path) -> None:
    """E4: no two blocks stage into the same file, and each file is opened once."""
    ops = KillerOps()
    fstx.write(chunked(), tmp_path / "o.vrt", storage_options={"ops": ops}, **GEO)
    made = [path for call, path in ops.calls if call == "open_new" and "/a/" in path]
    assert len(made) == 10
    assert len(set(made)) == 10


@pytest.mark.parametrize("kind", ["numpy", "dask"])
@pytest.mark.parametrize("workers", [1, 2])
def test_bounded(kind: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E11: no more tiles at once than max_workers allows, and not fewer."""
    lock = threading.Lock()
    now = most = 0
    original = geotiff.TileFormat.encode

    def encode(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        try:
            return original(self, *args, **kwargs)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(geotiff.TileFormat, "encode", encode)
    if kind == "dask":
        fstx.write(chunked(), tmp_path / "o.vrt", max_workers=workers, **GEO)
    else:
        fstx.write(data(), tmp_path / "o.vrt", max_workers=workers, tile_size=CHUNK, **GEO)
    assert most == workers


def test_a_lazy_write_commits_or_aborts(tmp_path: Path) -> None:
    """E14: nothing happens before compute; one object commits; the failure of another leaves nothing,
    and it can be computed again."""
    state = {"fail": True}
    computed: list[int] = []

    def maybe(block: np.ndarray, block_id: Any = None) -> np.ndarray:
        computed.append(1)
        if state["fail"] and block_id == (1, 1):
            raise BoomError("chunk")
        return block

    array = chunked(maybe)
    computed.clear()
    lazy = fstx.write(array, tmp_path / "o.vrt", compute=False, **GEO)
    assert computed == []
    assert os.listdir(tmp_path) == []
    with pytest.raises(BoomError):
        lazy.compute()
    assert os.listdir(tmp_path) == []
    state["fail"] = False
    assert lazy.compute().paths == 10
    with rasterio.open(tmp_path / "o.vrt") as opened:
        assert (opened.read(1) == data()).all()


@pytest.mark.parametrize("compute", [True, False])
@pytest.mark.parametrize(
    ("name", "last"), [("o.vrt", "o.vrt"), ("o.zarr", "zarr.json"), ("s.zarr", "zarr.json")]
)
def test_what_readers_enter_by_comes_last(
    name: str, last: str, compute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E17, A3, G1: the index or metadata is staged when every part has been, also by a lazy write."""
    order: list[str] = []
    from fstx.backends.local import transaction

    original = transaction.LocalTransaction.stage
    parts: list[int] = []

    def stage(self: Any, path: str, data_: Any, /, **how: Any) -> Any:
        order.append(path)
        parts.append(sum("/a/" in p for c, p in ops.calls if c == "open_new"))
        return original(self, path, data_, **how)

    monkeypatch.setattr(transaction.LocalTransaction, "stage", stage)
    ops = KillerOps()
    options = GEO if name == "o.vrt" else {"chunks": (CHUNK // 2, CHUNK // 2)}
    if name == "s.zarr":
        options = {**options, "shards": (CHUNK, CHUNK)}
    job = fstx.write(
        chunked(), tmp_path / name, compute=compute, storage_options={"ops": ops}, **options
    )
    if not compute:
        assert order == []
        dask.compute(job)
    assert os.path.basename(order[-1]) == last
    assert parts[-1] >= (36 if name == "o.zarr" else 9)
    staged = sum("/a/" in p for c, p in ops.calls if c == "open_new")
    assert staged == parts[-1] + 1


def test_a_task_that_ran_twice_gives_one_tile(tmp_path: Path) -> None:
    """E15, A32: receipts of two attempts at one path: the later counts, the other leaves nothing."""
    with fstx.begin(tmp_path / "t") as tx:
        first = tx.stager().stage("tile", b"first attempt")
        second = tx.stager().stage("tile", b"second")
        assert first.key != second.key
        tx.adopt([first, second])
    assert tree(tmp_path) == {"t/tile": b"second"}


def test_two_arrays_of_one_graph(tmp_path: Path) -> None:
    """E10: two results of one source in one write: each source chunk is computed once."""
    counts: dict[Any, int] = {}

    def note(block: np.ndarray, block_id: Any = None) -> np.ndarray:
        counts[block_id] = counts.get(block_id, 0) + 1
        return block

    source = chunked(note)
    counts.clear()
    both = da.stack([source, source * 2 - source.mean()]).rechunk((2, CHUNK, CHUNK))
    fstx.write(both, tmp_path / "o.vrt", axis_order="byx", **GEO)
    assert len(counts) == 9
    assert set(counts.values()) == {1}
    with rasterio.open(tmp_path / "o.vrt") as opened:
        assert (opened.read(1) == data()).all()
