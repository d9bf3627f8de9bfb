"""The write_chunk seam over real layouts and storage: acceptance F."""

from __future__ import annotations

import gc
import os
import random
import threading
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

import fstx

SIDE, CHUNK = 64, 16
GRID = [(i, j) for i in range(4) for j in range(4)]


def value(index: tuple[int, int]) -> np.ndarray:
    return np.full((CHUNK, CHUNK), 1 + index[0] * 10 + index[1], "f4")


def whole() -> np.ndarray:
    return np.block([[value((i, j)) for j in range(4)] for i in range(4)])


def writer(url: Path, **how: object) -> fstx.ChunkWriter:
    return fstx.chunk_writer(url, shape=(SIDE, SIDE), dtype="f4", chunks=(CHUNK, CHUNK), **how)


@pytest.mark.parametrize("shards", [None, (32, 32), (64, 64)])
def test_chunks_in_any_order_from_several_threads(shards, tmp_path: Path) -> None:
    """F1, F16, F18, F24: one interface for chunks and shards; index right whatever the order."""
    order = GRID.copy()
    random.Random(3).shuffle(order)
    with writer(tmp_path / "a.zarr", shards=shards) as w:
        threads = [
            threading.Thread(
                target=lambda part: [w.write_chunk(i, value(i)) for i in part], args=(p,)
            )
            for p in (order[::3], order[1::3], order[2::3])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not (tmp_path / "a.zarr").exists()
    assert (zarr.open_array(tmp_path / "a.zarr", mode="r")[:] == whole()).all()
    assert w.report.status == "written"
    assert w.report.written == 16
    assert w.report.write_s is not None


def test_streamed_equals_written_whole(tmp_path: Path) -> None:
    """F3, F4: chunk by chunk in order gives the bytes of the accumulated write."""
    with writer(tmp_path / "a.zarr") as w:
        for index in GRID:
            w.write_chunk(index, value(index))
    fstx.write(whole(), tmp_path / "b.zarr", chunks=(CHUNK, CHUNK))
    files = sorted(p.relative_to(tmp_path / "a.zarr") for p in (tmp_path / "a.zarr").rglob("*.*"))
    assert files
    for folder in ("a.zarr", "b.zarr"):
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["c", "zarr.json"]
    for path in (tmp_path / "a.zarr").rglob("*"):
        if path.is_file():
            other = tmp_path / "b.zarr" / path.relative_to(tmp_path / "a.zarr")
            assert path.read_bytes() == other.read_bytes()


def test_mosaic_and_npy_take_chunks_too(tmp_path: Path) -> None:
    """F24: the same seam for tiles."""
    geo = {"crs": "EPSG:4326", "transform": (0, 1, 0, 0, 0, -1)}
    with writer(tmp_path / "a.vrt", **geo) as w:
        for index in GRID:
            w.write_chunk(index, value(index))
    with rasterio.open(tmp_path / "a.vrt") as opened:
        assert (opened.read(1) == whole()).all()
    with fstx.chunk_writer(
        tmp_path / "a.npy", shape=(SIDE, SIDE), dtype="f4", chunks=(CHUNK, SIDE)
    ) as w:
        for i in (2, 0, 3, 1):
            w.write_chunk((i, 0), whole()[i * CHUNK : (i + 1) * CHUNK])
    assert (np.load(tmp_path / "a.npy") == whole()).all()
    with pytest.raises(fstx.UsageError, match="npy"):
        writer(tmp_path / "b.npy")


def test_no_chunk_is_kept(tmp_path: Path) -> None:
    """F2, F17: the producer's array dies before the next is made, proved by weak references."""
    alive: list[int] = []
    refs: list[weakref.ref] = []
    with writer(tmp_path / "a.zarr", shards=(64, 64)) as w:
        for index in GRID:
            alive.append(sum(r() is not None for r in refs))
            chunk = value(index)
            refs.append(weakref.ref(chunk))
            w.write_chunk(index, chunk)
            del chunk
    assert max(alive) == 0


def test_a_shard_needs_no_slab(tmp_path: Path) -> None:
    """F17: 64 MiB in one shard of 256 chunks; Python's allocations stay under 8 MiB."""
    rng = np.random.default_rng(1)
    with fstx.chunk_writer(
        tmp_path / "a.zarr",
        shape=(4096, 4096),
        dtype="f4",
        chunks=(256, 256),
        shards=(4096, 4096),
        durability="none",
    ) as w:
        w.write_chunk((0, 0), rng.random((256, 256), dtype="f4"))
        tracemalloc.start()
        try:
            for i in range(16):
                for j in range(16):
                    if i + j:
                        w.write_chunk((i, j), rng.random((256, 256), dtype="f4"))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 8 << 20
    assert zarr.open_array(tmp_path / "a.zarr", mode="r")[4095, 4095] > 0


def test_a_run_without_data_touches_no_storage(tmp_path: Path) -> None:
    """F9: nothing is opened before the first chunk, not even the parent."""
    with writer(tmp_path / "deep" / "a.zarr", partial=True) as w:
        pass
    assert os.listdir(tmp_path) == []
    assert w.report.status == "empty"
    assert w.report.write_s is None


def test_the_template_is_checked_once_and_lazily(tmp_path: Path) -> None:
    """F9, F10: a refused template fails the first chunk, later ones short-circuit, the report says so."""
    calls = []

    def check(tx: fstx.Transaction) -> None:
        calls.append(tx.url)
        raise LookupError("no template here")

    w = writer(tmp_path / "a.zarr", check=check)
    assert calls == []
    assert [w.write_chunk(index, value(index)) for index in GRID] == [False] * 16
    report = w.close()
    assert len(calls) == 1
    assert (report.status, report.skipped) == ("failed", 15)
    assert "no template here" in report.message
    assert report.write_s is None
    assert os.listdir(tmp_path) == []


def test_a_failing_chunk_discards_what_was_staged(tmp_path: Path) -> None:
    """F11, F12, F13: chunk 1 staged then discarded, chunk 3 never written, error and its text kept."""
    w = writer(tmp_path / "a.zarr")
    assert w.write_chunk((0, 0), value((0, 0)))
    assert not w.write_chunk((0, 1), np.zeros((3, 3), "f4"))
    assert not w.write_chunk((0, 2), value((0, 2)))
    report = w.close()
    assert (report.status, report.written, report.skipped) == ("failed", 1, 1)
    assert "(0, 1)" in report.message
    assert os.listdir(tmp_path) == []


def test_missing_chunks_are_counted(tmp_path: Path) -> None:
    """F14: keys come from the grid and are checked against the count seen."""
    with pytest.raises(fstx.UsageError, match="15 of 16"), writer(tmp_path / "a.zarr") as w:
        for index in GRID[:-1]:
            w.write_chunk(index, value(index))
    assert os.listdir(tmp_path) == []
    with writer(tmp_path / "a.zarr", partial=True, shards=(32, 32)) as w:
        for index in GRID[:-1]:
            w.write_chunk(index, value(index))
    found = zarr.open_array(tmp_path / "a.zarr", mode="r")[:]
    assert (found[48:, 48:] == 0).all()
    assert (found[:48] == whole()[:48]).all()


def test_companions_are_streamed_with_the_array(tmp_path: Path) -> None:
    """F20 for dense companions in one process: both arrays in one commit."""
    with writer(
        tmp_path / "a.zarr", shards=(32, 32), companions={"weights.zarr": {"dtype": "u1"}}
    ) as w:
        for index in GRID:
            w.write_chunk(index, value(index), {"weights.zarr": value(index).astype("u1") + 1})
    assert (zarr.open_array(tmp_path / "a.zarr", mode="r")[:] == whole()).all()
    weights = zarr.open_array(tmp_path / "weights.zarr", mode="r")
    assert weights.dtype == "u1"
    assert (weights[:] == whole() + 1).all()


def test_empty_inner_chunks_take_no_byte(tmp_path: Path) -> None:
    """F19: a chunk that is all fill value is left out of the shard."""
    with writer(tmp_path / "a.zarr", shards=(64, 64)) as w:
        for index in GRID:
            w.write_chunk(index, value(index) * (index == (2, 2)))
    shard = tmp_path / "a.zarr" / "c" / "0" / "0"
    assert shard.stat().st_size < 16 * 16 + 4 + 200
    found = zarr.open_array(tmp_path / "a.zarr", mode="r")[:]
    assert (found[32:48, 32:48] == 23).all()
    assert found.sum() == 23 * CHUNK * CHUNK


def test_an_exception_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    """F23: a shard is never visible half-written."""
    with pytest.raises(KeyError), writer(tmp_path / "a.zarr", shards=(64, 64)) as w:
        w.write_chunk((0, 0), value((0, 0)))
        raise KeyError("producer")
    gc.collect()
    assert os.listdir(tmp_path) == []
    assert w.report.status == "failed"
