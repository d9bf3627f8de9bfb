"""Stagers in other processes: small receipts, doubled and lost tasks, late workers and late coordinators."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx import registry
from fstx.errors import ConflictError, FencedError, StorageError
from fstx.stores.opening import open_store
from support.places import logical
from support.trees import tree
from support.workerjobs import JOB, content

PATH = "dem_tiles/12/tile_0000123_0000456.tif"


@pytest.fixture(params=["local", "tx"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "place").mkdir()
    return f"{'tx::' if request.param == 'tx' else ''}{tmp_path}/place/out"


def found(url: str) -> dict[str, bytes]:
    """What readers find at the target."""
    place = url.removeprefix("tx::").removesuffix("/out")
    files = logical(place, {}) if url.startswith("tx") else tree(Path(place))
    return {k.removeprefix("out/"): v for k, v in files.items() if ".fstx/done/" not in k}


def staged(url: str) -> list[str]:
    """Objects that lie staged, or were left behind."""
    place = Path(url.removeprefix("tx::").removesuffix("/out"))
    parts = ("jobs", "data", "a")
    return [str(p) for p in place.rglob("*") if p.is_file() and set(p.parts) & set(parts)]


def away(stager: Any) -> Any:
    """The stager as another process gets it."""
    return pickle.loads(pickle.dumps(stager))


def one(job: tuple[Any, int]) -> fstx.StagedObject:
    """A task of a worker process."""
    stager, n = job
    staged: fstx.StagedObject = stager.stage(f"u/{n}", content(n))
    return staged


def _spawned(jobs: list[Any]) -> list[Any]:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(one, jobs)


def _forkserver(jobs: list[Any]) -> list[Any]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
        return list(pool.map(one, jobs))


@pytest.mark.parametrize("run", [_spawned, _forkserver])
def test_pools_of_processes(run: Callable[[list[Any]], list[Any]], tmp_path: Path) -> None:
    """E3: multiprocessing by spawn, concurrent.futures by forkserver: receipts come back, one commit."""
    (tmp_path / "place").mkdir()
    url = f"{tmp_path}/place/out"
    with fstx.begin(url) as tx:
        receipts = run([(tx.stager(), n) for n in range(6)])
        assert found(url) == {} or not any(k.startswith("u/") for k in found(url))
        tx.adopt(receipts)
    assert found(url) == {f"u/{n}": content(n) for n in range(6)}


def test_receipts_are_small(url: str) -> None:
    """E3: what a task sends back is less than 400 bytes, however large the object."""
    with fstx.begin(url) as tx:
        receipt = away(tx.stager()).stage(PATH, b"x" * 300_000)
        assert receipt.size_bytes == 300_000
        assert len(pickle.dumps(receipt)) < 400
        tx.rollback()
    job = fstx.begin(url, resume="never", fingerprint=1)
    assert len(pickle.dumps(away(job.unit_stager()).stage(PATH, b"x" * 300_000))) < 400
    job.rollback()


def test_doubled_and_lost_tasks(url: str) -> None:
    """E15, E16: a task that ran twice counts once, the last one adopted; one that was lost, not at all."""
    with fstx.begin(url) as tx:
        first, second = away(tx.stager()), away(tx.stager())
        a = first.stage("u/1", b"first" * 1000)
        b = second.stage("u/1", b"second" * 1000)
        second.stage("u/1", b"lost" * 1000)
        second.stage("u/2", b"lost" * 1000)
        only = first.stage("u/3", content(3))
        tx.adopt([a, only])
        tx.adopt([b, only])
        tx.adopt([b])
    assert found(url) == {"u/1": b"second" * 1000, "u/3": content(3)}
    if url.startswith("tx"):
        fstx.dataset(url).collect(older_than_s=0, dry_run=False)
        assert len(staged(url)) == 2
    else:
        assert staged(url) == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_late_workers_do_no_harm(end: str, url: str) -> None:
    """A24, E16: staging after the end changes nothing that is read, and what it left is removed."""
    tx = fstx.begin(url)
    late = away(tx.stager())
    tx.adopt([late.stage("u/1", content(1))])
    getattr(tx, end)()
    before = found(url)
    assert before == ({"u/1": content(1)} if end == "commit" else {})
    if url.startswith("tx"):
        late.stage("u/1", b"late" * 1000)  # not told: an object of its own, seen by nobody
        late.stage("u/2", b"late" * 1000)
        registry.backend([url]).recover(idle_s=0)
        if end == "commit":  # recovery asks for the unfinished ones, collection for all
            fstx.dataset(url).collect(dry_run=False)
    else:
        with pytest.raises(FencedError, match="is over"):
            late.stage("u/1", b"late" * 1000)
        with pytest.raises(FencedError, match="is over"), late.open("u/2") as file:
            file.write(b"late")
    assert found(url) == before
    assert len(staged(url)) == (end == "commit" and url.startswith("tx"))


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_late_workers_of_a_job(end: str, url: str) -> None:
    """E16, D28: a worker that goes on after a resumable job is over gets FencedError and leaves nothing."""
    tx = fstx.begin(url, resume="if_possible", **JOB)
    late, here = away(tx.unit_stager()), tx.unit_stager()
    tx.finish(1, [late.stage("u/1", content(1))])
    tx.finish(2, [late.stage("u/2", content(2))])
    getattr(tx, end)()
    before, left = found(url), [p for p in staged(url) if "/jobs/" in p]
    assert left == []
    for stager in (late, here):
        with pytest.raises(FencedError, match="over"):
            stager.stage("u/1", b"late" * 1000)
        with pytest.raises(FencedError, match="over"), stager.open("u/3") as file:
            file.write(b"late" * 1000)
    assert [p for p in staged(url) if "/jobs/" in p] == []
    assert found(url) == before
    assert fstx.jobs(url) == []


def test_tasks_of_a_unit_that_ran_twice(url: str) -> None:
    """E15: a unit is finished once; of two that claim one path the second is refused, and both are clear."""
    tx = fstx.begin(url, resume="if_possible", **JOB)
    first, second = away(tx.unit_stager()), away(tx.unit_stager())
    a, b = first.stage("u/1", b"first" * 1000), second.stage("u/1", b"second" * 1000)
    assert tx.finish(1, [a]) == tx.finish(1, [b])
    with pytest.raises(fstx.PathError, match="written by unit 1"):
        tx.finish(2, [b])
    other = fstx.begin(url, resume="never", fingerprint=2)
    with pytest.raises(fstx.StateError, match="of another job"):
        tx.finish(3, [other.unit_stager().stage("u/9", b"9")])
    other.rollback()
    tx.commit()
    assert found(url) == {"u/1": b"first" * 1000}


def test_what_a_killed_late_worker_left(tmp_path: Path) -> None:
    """D28: an object put after the end, its worker killed, goes with the next job or with `recover`."""
    (tmp_path / "place").mkdir()
    url = f"tx::{tmp_path}/place/out"
    for remove in (
        lambda: fstx.recover(url),
        lambda: fstx.begin(url, resume="never", fingerprint=1).rollback(),
    ):
        tx = fstx.begin(url, resume="if_possible", **JOB)
        with tx.unit(1) as unit:
            receipt = unit.stage("u/1", content(1))
        depot = tx._depot.name
        tx.rollback()
        store = open_store(f"{tmp_path}/place/out").below(f".fstx/jobs/{depot}")
        store.put(receipt.key, b"late")
        assert fstx.jobs(url) == []
        remove()
        assert staged(url) == []


def test_two_coordinators_of_one_job(url: str) -> None:
    """I5: the first was thought dead and goes on: refused or fenced, and the second one's commit stays."""
    first = fstx.begin(url, resume="if_possible", **JOB)
    stager = away(first.unit_stager())
    first.finish(1, [stager.stage("u/1", content(1))])
    late = stager.stage("u/2", b"of the first" * 1000)
    if not url.startswith("tx"):  # where processes are seen the second one learns it at once
        with pytest.raises(ConflictError, match="active"):
            fstx.begin(url, resume="always", **JOB)
        first.rollback()
        return
    second = fstx.begin(url, resume="always", **JOB)
    with pytest.raises(StorageError, match="not there whole"):
        first.finish(2, [late])
    second.finish(2, [second.unit_stager().stage("u/2", content(2))])
    second.commit()
    with first.unit(3) as unit:
        unit.stage("u/3", content(3))
    with pytest.raises(FencedError, match="another process"):
        first.commit()
    fstx.recover(url)
    assert found(url) == {"u/1": content(1), "u/2": content(2)}
    assert [p for p in staged(url) if "/jobs/" in p] == []
