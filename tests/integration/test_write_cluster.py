"""fstx.write from dask processes and a real distributed cluster: acceptance A6, E2, E3, E10."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import zarr

import fstx
from fstx import layouts
from fstx.sources import open_source
from fstx.writing import write_into

SIDE, CHUNK = 64, 16
GEO = {"crs": "EPSG:4326", "transform": (0, 1, 0, 0, 0, -1)}


def data() -> np.ndarray:
    return np.arange(SIDE * SIDE, dtype="f4").reshape(SIDE, SIDE)


def bad(block: np.ndarray, block_info=None) -> np.ndarray:
    if block_info and block_info[0]["chunk-location"] == (2, 1):
        raise ZeroDivisionError("chunk (2, 1)")
    return block


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as made,
    ):
        yield made


@pytest.fixture(params=["processes", "distributed"])
def scheduler(request: pytest.FixtureRequest) -> object:
    if request.param == "distributed":
        return request.getfixturevalue("client")
    return "processes"


@pytest.mark.parametrize("name", ["o.vrt", "o.zarr", "s.zarr", "o.npy"])
def test_workers_stage_and_the_coordinator_commits(name: str, scheduler, tmp_path: Path) -> None:
    """E3: what comes back is receipts; one commit; equal for tiles, chunks, shards and npy."""
    options = {
        "o.vrt": GEO,
        "o.zarr": {"chunks": (CHUNK, CHUNK)},
        "s.zarr": {"chunks": (CHUNK // 2, CHUNK // 2), "shards": (2 * CHUNK, 2 * CHUNK)},
        "o.npy": {},
    }[name]
    array = da.from_array(data(), chunks=CHUNK)
    fstx.write(array, tmp_path / name, scheduler=scheduler, **options)
    if name.endswith("vrt"):
        with rasterio.open(tmp_path / name) as opened:
            found = opened.read(1)
    elif name.endswith("zarr"):
        found = zarr.open_array(tmp_path / name, mode="r")[:]
    else:
        found = np.load(tmp_path / name)
    assert (found == data()).all()
    assert ".fstx" not in os.listdir(tmp_path)


def test_a_failing_chunk_on_workers_leaves_nothing(scheduler, tmp_path: Path) -> None:
    """A6, A7: no index, no tile directory, no staging; the retry works."""
    array = da.map_blocks(
        bad, da.from_array(data(), chunks=CHUNK), dtype="f4", meta=np.empty((0, 0), "f4")
    )
    with pytest.raises(ZeroDivisionError, match="2, 1"):
        fstx.write(array, tmp_path / "o.vrt", scheduler=scheduler, **GEO)
    assert os.listdir(tmp_path) == []
    fstx.write(da.from_array(data(), chunks=CHUNK), tmp_path / "o.vrt", scheduler=scheduler, **GEO)
    with rasterio.open(tmp_path / "o.vrt") as opened:
        assert (opened.read(1) == data()).all()


def test_memory_refuses_other_processes_before_any_chunk(scheduler) -> None:
    """I1: what can't be promised is refused up front, with the way out."""
    computed = []
    array = da.map_blocks(
        lambda b: computed.append(1) or b,
        da.from_array(data(), chunks=CHUNK),
        dtype="f4",
        meta=np.empty((0, 0), "f4"),
    )
    computed.clear()
    with pytest.raises(fstx.CapabilityError, match="threads"):
        fstx.write(array, "memory://cluster/o.vrt", scheduler=scheduler, **GEO)
    assert computed == []


def test_an_active_client_and_the_configuration_are_honoured(client, tmp_path: Path) -> None:
    """E2: dask's own order; without a word the active client computes."""
    pids: list[int] = []
    where = tmp_path / "pids"
    where.mkdir()

    def note(block: np.ndarray) -> np.ndarray:
        (where / str(os.getpid())).touch()
        return block

    array = da.map_blocks(
        note, da.from_array(data(), chunks=CHUNK), dtype="f4", meta=np.empty((0, 0), "f4")
    )
    for name, config in (("a.zarr", {"scheduler": "synchronous"}), ("b.zarr", {})):
        for old in where.iterdir():
            old.unlink()
        with dask.config.set(config):
            fstx.write(array, tmp_path / name)
        pids.append(os.getpid() in {int(p.name) for p in where.iterdir()})
        assert (zarr.open_array(tmp_path / name, mode="r")[:] == data()).all()
    assert pids == [True, False]


@pytest.mark.parametrize("kind", ["mean", "overlap", "rechunk"])
def test_each_source_chunk_is_computed_once(kind: str, tmp_path: Path) -> None:
    """E10: counted where they are made, for graphs that share chunks between outputs."""
    counts: dict[tuple[int, ...], int] = {}

    def source(block_info=None) -> np.ndarray:
        where = block_info[None]["chunk-location"]
        counts[where] = counts.get(where, 0) + 1
        return np.full((CHUNK, CHUNK), sum(where), "f4")

    x = da.map_blocks(
        source, chunks=((CHUNK,) * 4, (CHUNK,) * 4), dtype="f4", meta=np.empty((0, 0), "f4")
    )
    counts.clear()
    array = {
        "mean": lambda: x - x.mean(),
        "overlap": lambda: da.map_overlap(lambda b: b * 2, x, depth=1, boundary="reflect"),
        "rechunk": lambda: x.rechunk((24, 40)),
    }[kind]()
    fstx.write(array, tmp_path / "o.vrt", scheduler="threads", **GEO)
    assert sorted(counts) == [(i, j) for i in range(4) for j in range(4)]
    assert set(counts.values()) == {1}


class Unlucky:
    """A plan whose blocks are written and then, the first time, something happens to the task."""

    def __init__(self, plan: object, folder: Path, block: tuple[int, int], what: str) -> None:
        self.plan, self.folder, self.block, self.what = plan, folder, block, what

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or name in ("plan", "folder"):
            raise AttributeError(name)
        return getattr(self.plan, name)

    def write(self, stager, index, block):
        staged = self.plan.write(stager, index, block)
        (self.folder / f"{index}-{uuid.uuid4().hex}").touch()
        if index == self.block and len(list(self.folder.glob(f"{index}-*"))) == 1:
            if self.what == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError("the answer of this task was lost")
        if self.what == "twice":
            return self.plan.write(stager, index, block + 1) + staged
        return staged


@pytest.mark.parametrize("what", ["killed", "retried", "twice"])
def test_tasks_that_run_twice_commit_once(client, what: str, tmp_path: Path) -> None:
    """E15, E16: killed after writing and before reporting, retried, or run twice: each tile is there once."""
    seen, out = tmp_path / "seen", tmp_path / "out"
    seen.mkdir()
    out.mkdir()
    source = open_source(da.from_array(data(), chunks=CHUNK))
    plan = layouts.choose("o.vrt", None).plan("o.vrt", source.spec, **GEO)
    with (
        fstx.begin([out / "o.vrt", out / "o_tiles"], mode="create") as tx,
        dask.annotate(retries=2),
    ):
        block = (9, 9) if what == "twice" else (1, 2)
        write_into(tx, source, Unlucky(plan, seen, block, what))
    calls = Counter(name.name.partition("-")[0] for name in seen.iterdir())
    assert calls["(1, 2)"] == (1 if what == "twice" else 2)
    assert len(calls) == 16
    with rasterio.open(out / "o.vrt") as opened:
        assert (opened.read(1) == data()).all()
    assert sorted(os.listdir(out)) == ["o.vrt", "o_tiles"]
    assert len(os.listdir(out / "o_tiles")) == 16


def test_progress_is_seen(client, tmp_path: Path) -> None:
    """E3: on the dashboard a write is one kind of task; the caller's progress counts every block."""
    told: list[tuple[int, int]] = []
    fstx.write(
        da.from_array(data(), chunks=CHUNK),
        tmp_path / "p.zarr",
        scheduler=client,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (16, 16)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    kinds = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    assert "fstx-write" in kinds
    assert not any(name.startswith("fstx-write-") for name in kinds)


def test_a_write_on_a_cluster_is_resumed(client, tmp_path: Path) -> None:
    """E16: chunks that a failed run finished on workers are not computed again by the next one."""
    seen, bad = tmp_path / "seen", tmp_path / "bad"
    seen.mkdir()
    bad.touch()

    def compute(block: np.ndarray, block_info=None) -> np.ndarray:
        where = block_info[0]["chunk-location"]
        if where == (3, 3):
            while bad.exists() and len(list(seen.iterdir())) < 10:
                time.sleep(0.01)
            if bad.exists():
                raise ZeroDivisionError("chunk (3, 3)")
        (seen / f"{where}-{uuid.uuid4().hex}").touch()
        return block

    array = da.from_array(data(), chunks=CHUNK).map_blocks(
        compute, dtype="f4", meta=np.empty((0, 0), "f4")
    )
    how = {"scheduler": client, "resume": "if_possible", "fingerprint": 1, "chunks": (CHUNK, CHUNK)}
    with pytest.raises(ZeroDivisionError):
        fstx.write(array, tmp_path / "r.zarr", **how)
    (kept,) = fstx.jobs(tmp_path / "r.zarr")
    first = len(list(seen.iterdir()))
    bad.unlink()
    fstx.write(array, tmp_path / "r.zarr", **how)
    assert kept.units >= 8
    assert len(list(seen.iterdir())) - first == 16 - kept.units
    assert (zarr.open_array(tmp_path / "r.zarr", mode="r")[:] == data()).all()
    assert fstx.jobs(tmp_path / "r.zarr") == []


def test_the_scheduler_never_holds_the_whole_graph(
    client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that share nothing are sent in parts: at most two parts' tasks are with the scheduler."""
    from fstx.sources import cluster

    monkeypatch.setattr(cluster, "_LEAST", 4)
    monkeypatch.setattr(cluster, "_DEEP", 1)
    held = []
    refill = cluster._Flight.refill

    def counted(flight: cluster._Flight) -> None:
        refill(flight)
        tasks = list(client.cluster.scheduler.tasks.values())
        held.append(sum(str(task.key).startswith("('fstx-write") for task in tasks))

    monkeypatch.setattr(cluster._Flight, "refill", counted)
    array = da.from_array(data(), chunks=CHUNK // 2)
    fstx.write(array, tmp_path / "o.zarr", scheduler=client)
    assert len(held) > 4
    assert 0 < max(held) <= 12 < array.npartitions
    assert (zarr.open_array(tmp_path / "o.zarr", mode="r")[:] == data()).all()
