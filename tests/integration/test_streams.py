"""Streams of chunks on each kind of storage: ragged companions, failures, memory that does not grow."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import fstx
from support.places import PLACES, Target

GRID = [(i, j) for i in range(4) for j in range(4)]
CHUNK = 8


@pytest.fixture(params=PLACES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    (tmp_path / "place").mkdir()
    return Target(request.param, tmp_path / "place")


def dense(index: tuple[int, int]) -> np.ndarray:
    return np.full((CHUNK, CHUNK), 1 + index[0] * 10 + index[1], "f4")


def ragged(index: tuple[int, int]) -> np.ndarray:
    """As many rows as the chunk says: none for the first one."""
    n = index[0] * 4 + index[1]
    return np.arange(n * 3, dtype="f8").reshape(n, 3) + n


def produce(index: tuple[int, int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return dense(index), {"weights.zarr": dense(index).astype("u1"), "points": ragged(index)}


def writer(target: Target, name: str = "a.zarr", **more: Any) -> fstx.ChunkWriter:
    given: dict[str, Any] = {
        "shape": (32, 32),
        "dtype": "f4",
        "chunks": (CHUNK, CHUNK),
        "shards": (16, 32),
        "companions": {
            "weights.zarr": {"dtype": "u1"},
            "points": {"layout": "ragged", "dtype": "f8"},
        },
        "storage_options": target.options,
        **more,
    }
    return fstx.chunk_writer(target.url(name), **given)


def stream(w: fstx.ChunkWriter, indices: list[tuple[int, int]]) -> None:
    fstx.process_chunks(produce, indices, write_chunk=w.write_chunk, chunks_per_shard=len(indices))


def test_dense_and_ragged_companions(target: Target, tmp_path: Path) -> None:
    """F4, F20, F24: both are streamed with a sharded array, from threads, in one commit; zarr reads all."""
    with writer(target) as w:
        threads = [threading.Thread(target=stream, args=(w, GRID[k::3][::-1])) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not any(path.startswith(("a.zarr", "weights", "points")) for path in target.found())
    assert (w.report.status, w.report.written) == ("written", 16)
    folder = target.fetch(tmp_path / "copy")
    whole = np.block([[dense((i, j)) for j in range(4)] for i in range(4)])
    assert (zarr.open_array(folder / "a.zarr", mode="r")[:] == whole).all()
    assert (zarr.open_array(folder / "weights.zarr", mode="r")[:] == whole.astype("u1")).all()
    points = zarr.open_group(folder / "points", mode="r")
    assert sorted(points.array_keys()) == sorted(f"{i}.{j}" for i, j in GRID[1:])
    for i, j in GRID[1:]:
        assert (points[f"{i}.{j}"][:] == ragged((i, j))).all()


def test_kept_ragged_chunks_give_the_same_bytes(tmp_path: Path) -> None:
    """F4: what was streamed equals what was kept first and written afterwards, ragged arrays too."""
    (tmp_path / "place").mkdir()
    target = Target("local", tmp_path / "place")
    with writer(target) as w:
        stream(w, GRID)
    streamed = target.found()
    chunks: dict[Any, Any] = {}
    extras: dict[Any, Any] = {}
    fstx.process_chunks(
        produce, GRID, accumulate=chunks, ragged_out=extras, chunks_per_shard=len(GRID)
    )
    with writer(target, overwrite=True) as w:
        for index in GRID:
            w.write_chunk(index, chunks[index], extras[index])
    assert target.found() == streamed


def test_a_failing_ragged_chunk_leaves_nothing(target: Target) -> None:
    """F10, F11, F12: a companion that can't be written fails the stream; later chunks are skipped."""
    w = writer(target)
    assert w.write_chunk((0, 1), *produce((0, 1)))
    bad = {**produce((0, 2))[1], "points": np.array(["text"])}
    assert not w.write_chunk((0, 2), dense((0, 2)), bad)
    assert not w.write_chunk((0, 3), *produce((0, 3)))
    report = w.close()
    assert (report.status, report.written, report.skipped) == ("failed", 1, 1)
    assert "(0, 2)" in report.message
    assert report.write_s is None
    assert target.found() == {}


def test_what_a_ragged_layout_refuses(tmp_path: Path) -> None:
    """F9: options that mean nothing are refused before storage is touched."""
    bad: list[tuple[dict[str, Any], str]] = [
        ({"shards": (4, 4)}, "no option 'shards'"),
        ({"dtype": "U3"}, "dtype"),
        ({"compression": "lzw"}, "lzw"),
        ({"attributes": {"x": object()}}, "JSON"),
    ]
    for options, words in bad:
        given = {"layout": "ragged", "dtype": "f8", **options}
        with pytest.raises(fstx.UsageError, match=words):
            writer(Target("local", tmp_path), companions={"points": given})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["local", "tx over local"])
def test_memory_does_not_grow_with_the_data(kind: str, tmp_path: Path) -> None:
    """F17: one shard of 16, 64 and 256 chunks of 1 MiB: the peak of all three is the same, within a chunk."""
    (tmp_path / "place").mkdir()
    target, peaks = Target(kind, tmp_path / "place"), []
    values = np.random.default_rng(1).random((512, 512), dtype="f4")
    for times in (1, 4, 16):
        rows = 2 * times
        with fstx.chunk_writer(
            target.url(f"{times}.zarr"),
            shape=(512 * rows, 4096),
            dtype="f4",
            chunks=(512, 512),
            shards=(512 * rows, 4096),
            compression=None,
            durability="none",
            storage_options=target.options,
        ) as w:
            w.write_chunk((0, 0), values)
            tracemalloc.start()
            for i in range(rows):
                for j in range(8):
                    if i + j:
                        w.write_chunk((i, j), values)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert max(peaks) - min(peaks) < values.nbytes, peaks
    assert max(peaks) < 20 * values.nbytes, peaks
