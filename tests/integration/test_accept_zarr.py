"""Acceptance F and G with real stores: streamed shards, foreign readers and writers, kills."""

from __future__ import annotations

import itertools
import json
import os
import threading
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

import fstx
from fstx.layouts.chunks import codec_from_metadata
from fstx.layouts.shards import ShardFormat
from fstx.zarr_store import TransactionStore
from support.killer import Killed, KillerOps
from support.trees import tree, without_receipts

SIDE, CHUNK = 32, 8
GRID = list(itertools.product(range(4), range(4)))
VALUES = np.random.default_rng(6).integers(1, 99, (SIDE, SIDE)).astype("i4")


def block(index: tuple[int, int]) -> np.ndarray:
    i, j = (CHUNK * n for n in index)
    return VALUES[i : i + CHUNK, j : j + CHUNK]


def stream(url: Path, **how: Any) -> fstx.ChunkWriter:
    return fstx.chunk_writer(url, shape=(SIDE, SIDE), dtype="i4", chunks=(CHUNK, CHUNK), **how)


@pytest.mark.parametrize("per_shard", [1, 4])
def test_a_runner_with_one_and_with_several_chunks(per_shard: int, tmp_path: Path) -> None:
    """F3, F4, F8, F14, F15: a runner hands each shard's chunks to `process_chunks` with the callback; with
    one chunk to a shard the index is the shard's; bytes equal one write; nothing comes back."""
    from fstx.streaming import process_chunks

    shards = None if per_shard == 1 else (CHUNK, 4 * CHUNK)
    calls: list[tuple[int, int]] = []

    def produce(index: Any) -> Any:
        calls.append(index)
        return block(index).copy()

    with stream(tmp_path / "a.zarr", shards=shards) as writer:
        for start in range(0, 16, per_shard):
            part = GRID[start : start + per_shard]
            returned = process_chunks(
                produce, part, write_chunk=writer.write_chunk, chunks_per_shard=per_shard
            )
            assert returned == {}
    report = writer.report
    assert calls == GRID
    assert (report.status, report.expected, report.written) == ("written", 16, 16)
    fstx.write(VALUES, tmp_path / "b.zarr", chunks=(CHUNK, CHUNK), shards=shards)
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")


@pytest.mark.parametrize("shards", [None, (16, 16)])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_runner_whose_chunk_fails(failing: int, shards: Any, tmp_path: Path) -> None:
    """F10, F11, F12, F13: chunk k of three fails while it is produced or written: nothing after it is
    written, text and place of the error reach the caller, no seconds, nothing on disk."""
    produced: list[int] = []
    writer = stream(tmp_path / "a.zarr", shards=shards)
    for n, index in enumerate(GRID[:3]):
        chunk = block(index) if n != failing else np.zeros((1, 1), "i4")
        if writer.write_chunk(index, chunk):
            produced.append(n)
    report = writer.close()
    assert produced == list(range(failing))
    assert report.status == "failed"
    assert report.skipped == 2 - failing
    assert str(GRID[failing]) in report.message
    assert "(1, 1)" in report.message
    assert report.write_s is None
    assert report.snapshot is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("compression", ["zstd", "gzip", "blosc", None])
def test_tensorstore_reads_ours_and_we_theirs(compression: str | None, tmp_path: Path) -> None:
    """F21: both ways, index checksum valid, a chunk of fill value left out by either."""
    import tensorstore

    values = VALUES.copy()
    values[8:16, 0:8] = 0
    fstx.write(
        values,
        tmp_path / "ours.zarr",
        chunks=(CHUNK, CHUNK),
        shards=(16, 32),
        compression=compression,
    )
    spec: dict[str, Any] = {"driver": "zarr3"}
    spec["kvstore"] = {"driver": "file", "path": str(tmp_path / "ours.zarr") + "/"}
    found = tensorstore.open(spec).result().read().result()
    assert np.array_equal(found, values)
    document = json.loads((tmp_path / "ours.zarr" / "zarr.json").read_text())
    theirs = {
        k: v for k, v in document.items() if k not in ("attributes", "zarr_format", "node_type")
    }
    spec["kvstore"]["path"] = str(tmp_path / "theirs.zarr") + "/"
    made = tensorstore.open({**spec, "metadata": theirs, "create": True}).result()
    made.write(values).result()
    inner = document["codecs"][0]["configuration"]
    read = codec_from_metadata((CHUNK, CHUNK), "int32", b"\0" * 4, inner["codecs"])
    form = ShardFormat(read, (2, 4), inner.get("index_location", "end"))
    back = np.zeros_like(values)
    for shard in range(2):
        raw = (tmp_path / "theirs.zarr" / "c" / str(shard) / "0").read_bytes()
        chunks = dict(form.decode(raw))
        assert ((1, 0) in chunks) == (shard == 1)
        for (i, j), chunk in chunks.items():
            at = (16 * shard + 8 * i, 8 * j)
            back[at[0] : at[0] + 8, at[1] : at[1] + 8] = chunk
    assert np.array_equal(back, values)


@pytest.mark.parametrize("chunks", [(5, 7), (12, 32), (32, 3)])
@pytest.mark.parametrize("shards", [None, (16, 16)])
def test_unaligned_dask_chunks(chunks: Any, shards: Any, tmp_path: Path) -> None:
    """F16, F22: chunks that cut shards are rechunked: each object is created once, never read."""
    ops = KillerOps()
    fstx.write(
        da.from_array(VALUES, chunks=chunks),
        tmp_path / "a.zarr",
        chunks=(CHUNK, CHUNK),
        shards=shards,
        storage_options={"ops": ops},
    )
    assert (zarr.open_array(tmp_path / "a.zarr", mode="r")[:] == VALUES).all()
    objects = [p for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()]
    assert len(objects) == 1 + (4 if shards else 16)
    goals = [p.partition(" -> ")[2] for c, p in ops.calls if c == "rename" and "/s/0/" in p]
    assert len(goals) == len(set(goals))


def test_a_shard_is_never_half_visible(tmp_path: Path) -> None:
    """F23, G1, A2: looked at before every call that changes something: the array is absent, or whole."""
    states: set[str] = set()

    def look(*_: str) -> None:
        if not (tmp_path / "a.zarr").exists():
            states.add("absent")
            return
        assert (zarr.open_array(tmp_path / "a.zarr", mode="r")[:] == VALUES).all()
        states.add("whole")

    ops = KillerOps(act=look)
    with stream(tmp_path / "a.zarr", shards=(16, 16), storage_options={"ops": ops}) as writer:
        workers = [
            threading.Thread(
                target=lambda p: [writer.write_chunk(i, block(i)) for i in p], args=(part,)
            )
            for part in (GRID[::2], GRID[1::2])
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert states == {"absent", "whole"}


def test_fill_chunks_take_no_byte(tmp_path: Path) -> None:
    """F19: in shards and without; a shard of nothing but fill value is no object at all."""
    sparse = np.zeros((SIDE, SIDE), "i4")
    sparse[0, 0] = 5
    fstx.write(sparse, tmp_path / "c.zarr", chunks=(CHUNK, CHUNK))
    assert sorted(tree(tmp_path / "c.zarr")) == ["c/0/0", "zarr.json"]
    fstx.write(sparse, tmp_path / "s.zarr", chunks=(CHUNK, CHUNK), shards=(16, 16))
    assert sorted(tree(tmp_path / "s.zarr")) == ["c/0/0", "zarr.json"]
    form = 4 * 16 + 4
    one = (tmp_path / "c.zarr" / "c" / "0" / "0").stat().st_size
    assert (tmp_path / "s.zarr" / "c" / "0" / "0").stat().st_size == one + form
    for name in ("c.zarr", "s.zarr"):
        assert (zarr.open_array(tmp_path / name, mode="r")[:] == sparse).all()


def _old_array(place: Path) -> None:
    fstx.write(VALUES, place / "a.zarr", chunks=(16, 16))


def _change(place: Path, ops: KillerOps) -> None:
    """An update in place through zarr: every chunk and nothing else."""
    with fstx.begin(place / "a.zarr", mode="update", ops=ops) as tx:
        array = zarr.open_array(TransactionStore(tx), mode="r+")
        array[...] = VALUES + 100


def _keys(store: LocalStore) -> list[str]:
    async def listed() -> list[str]:
        return sorted([key async for key in store.list()])

    import asyncio

    return asyncio.run(listed())


def test_a_kill_leaves_whole_chunks_and_no_strange_name(tmp_path: Path) -> None:
    """G3, G4, C1: killed at every call of an update in place: at once, before any recovery, each chunk
    is wholly old or wholly new, and a listing of the array holds its keys alone; afterwards all are of
    one kind."""
    (tmp_path / "model").mkdir()
    _old_array(tmp_path / "model")
    keys = _keys(LocalStore(tmp_path / "model" / "a.zarr"))
    old = tree(tmp_path / "model")
    whole = KillerOps()
    _change(tmp_path / "model", whole)
    new = tree(tmp_path / "model")
    outcomes = set()
    for number in range(1, len(whole.calls) + 1, 2):
        place = tmp_path / str(number)
        place.mkdir()
        _old_array(place)
        try:
            _change(place, KillerOps(kill_at=number))
        except Killed:
            outcomes.add("killed")
        assert _keys(LocalStore(place / "a.zarr")) == keys
        for path, content in tree(place).items():
            if path.startswith("a.zarr/"):
                assert content in (old[path], new[path]), (number, path)
        fstx.recover(place / "a.zarr")
        after = without_receipts(tree(place))
        assert after in (old, new)
        outcomes.add("old" if after == old else "new")
    assert outcomes == {"killed", "old", "new"}


def test_metadata_is_renamed_last(tmp_path: Path) -> None:
    """G1, A3: an array that grows in place: its new chunks have their names before its document says
    so; a new array in an old group arrives by one rename."""
    zarr.create_group(tmp_path / "g")
    for round_ in range(2):
        ops = KillerOps()
        with fstx.begin(tmp_path / "g", ops=ops) as tx:
            store = TransactionStore(tx)
            if round_ == 0:
                made = zarr.create_array(
                    store, name="a", shape=VALUES.shape, chunks=(16, 16), dtype="i4"
                )
                made[...] = VALUES
            else:
                zarr.open_array(store, path="a", mode="r+").append(VALUES)
        goals = [p.partition(" -> ")[2] for _, p in ops.calls if " -> " in p]
        goals = [g for g in goals if ".fstx" not in g and "absent-" not in g]
        names = [str(Path(g).relative_to(tmp_path)) for g in goals]
        if round_ == 0:
            assert names == ["g/a"]
    assert names[-1] == "g/a/zarr.json"
    assert sorted(names[:-1]) == ["g/a/c/2", "g/a/c/3"]
    found = zarr.open_array(tmp_path / "g" / "a", mode="r")[:]
    assert (found == np.concatenate([VALUES, VALUES])).all()


def test_completeness_is_known_without_listing(tmp_path: Path) -> None:
    """G6: a committed whole write is a statement that every chunk came: they are counted and a missing
    one refuses the commit; the outcome of a keyed write answers later, with the data's folder gone."""
    writer = stream(tmp_path / "s.zarr", id="part")
    for index in GRID[:-1]:
        writer.write_chunk(index, block(index))
    report = writer.close()
    assert report.status == "failed"
    assert "15 of 16" in report.message
    assert fstx.outcome(tmp_path / "s.zarr", "part") != "committed"
    assert not (tmp_path / "s.zarr").exists()
    snapshot = fstx.write(VALUES, tmp_path / "a.zarr", chunks=(16, 16), id="whole")
    assert snapshot.paths == 5
    (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
    assert fstx.outcome(tmp_path / "a.zarr", "whole") == "committed"
