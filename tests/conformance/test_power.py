"""Level "power": the local backend keeps what it acknowledged, and backends that sync too little don't."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fstx import registry
from fstx.backends.local import transaction
from fstx_conformance.broken.unsynced import FILES_UNSYNCED, UNSYNCED
from fstx_conformance.powercuts import JOBS, QUICK, Effort, Swept, replay, sweep
from fstx_conformance.schedule import parse
from fstx_conformance.seams.disk import Model
from fstx_conformance.seams.diskops import DiskOps
from fstx_conformance.subjects.datadisks import DatasetOnDisk
from fstx_conformance.subjects.disks import LocalOnDisk
from fstx_conformance.subjects.urls import subject_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the calls of POSIX")

FEW = replace(QUICK, points=7, states=3)
MANY = Effort(60, 24, again=0.04)
MODELS: tuple[Model, ...] = ("posix", "ordered")


@pytest.fixture
def folder() -> Iterator[str]:
    """In memory where that can be: thousands of files."""
    memory = "/dev/shm"
    made = tempfile.mkdtemp(prefix="fstx-power-", dir=memory if os.path.isdir(memory) else None)
    yield made
    shutil.rmtree(made)


def told(found: Swept) -> str:
    return "\n".join(f"{p.schedule}: {p.message}" for p in found.problems)


@pytest.mark.parametrize("job", JOBS)
def test_local_keeps_what_it_acknowledged(job: str, folder: str) -> None:
    """BACKEND-20: the power cut at points of every job leaves old or new, and new once commit returned."""
    for model in MODELS:
        found = sweep(LocalOnDisk(), folder, JOBS[job], model=model, effort=FEW)
        assert not found.problems, told(found)
        assert found.points >= 7
        assert found.states > 12
        assert found.seen == {"old", "new"}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("job", JOBS)
def test_local_keeps_what_it_acknowledged_at_more_points(
    job: str, exchange: bool, model: Model, folder: str
) -> None:
    """BACKEND-20, BACKEND-37: the same at many points, without exchange too, and cut again in recovery."""
    found = sweep(LocalOnDisk(exchange=exchange), folder, JOBS[job], model=model, effort=MANY)
    assert not found.problems, told(found)
    assert found.again > 10


def test_swap_keeps_what_it_acknowledged(folder: str) -> None:
    """BACKEND-20: a tree that is replaced by two renames is old or new after recovery, too."""
    found = sweep(LocalOnDisk(exchange=False), folder, JOBS["replace"], model="posix", effort=FEW)
    assert not found.problems, told(found)
    assert found.seen == {"old", "new"}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("job", JOBS)
def test_datasets_keep_what_they_acknowledged(job: str, model: Model, folder: str) -> None:
    """BACKEND-20: datasets on local files, the power cut at points of every job and of its recovery."""
    effort = replace(FEW, again=0.1)
    found = sweep(DatasetOnDisk(), folder, JOBS[job], model=model, effort=effort)
    assert not found.problems, told(found)
    assert found.states >= 5
    assert found.seen == {"old", "new"}


# --- what must be caught ----------------------------------------------------------------------------------

ENOUGH = Effort(14, 7, limit=8, draws=2, fresh=0.0)
ORDERED = {"no sync of files", "sync before the write", "record before data"}


@pytest.mark.parametrize("what", UNSYNCED)
def test_a_missing_sync_is_caught(what: str, folder: str) -> None:
    """A backend that syncs too little, or at the wrong time, fails; where names are ordered only by contents.

    Which syncs of directories are missing never shows on ext4, xfs and btrfs, and the model says the same.
    """
    storage = LocalOnDisk(over=UNSYNCED[what])
    for model in MODELS:
        found = sweep(storage, folder, JOBS["replace"], model=model, effort=ENOUGH, most=1)
        caught = model == "posix" or what in ORDERED
        assert bool(found.problems) == caught, (model, told(found))


@pytest.mark.parametrize("what", FILES_UNSYNCED)
def test_a_missing_sync_of_datasets_is_caught(what: str, folder: str) -> None:
    """A local store that syncs too little, or in the wrong order, fails in both models.

    The record's name is the last that a commit writes, so its directory's sync is missed in both.
    """
    storage = DatasetOnDisk(over=FILES_UNSYNCED[what])
    effort = replace(ENOUGH, points=40)
    for model in MODELS:
        found = sweep(storage, folder, JOBS["update"], model=model, effort=effort, most=1)
        assert found.problems, model


@pytest.mark.parametrize("job", JOBS)
def test_no_sync_at_all_is_caught_in_every_job(job: str, folder: str) -> None:
    """No job passes by itself: without any sync of contents or names each one fails."""

    class Nothing(UNSYNCED["no sync of files"]):  # type: ignore[misc]
        def sync_dir(self, path: str) -> None:
            """Nothing."""

    found = sweep(
        LocalOnDisk(over=Nothing), folder, JOBS[job], model="ordered", effort=ENOUGH, most=1
    )
    assert found.problems


def test_a_failure_is_found_again_by_its_schedule(folder: str) -> None:
    """The schedule that is printed shows the same problem, and the repaired backend passes it."""
    broken = LocalOnDisk(over=UNSYNCED["no sync of the target's directories"])
    found = sweep(broken, folder, JOBS["replace"], model="posix", effort=ENOUGH, most=1)
    problem = found.problems[0]
    again = replay(broken, folder, JOBS["replace"], parse(str(problem.schedule)))
    assert problem.message in [p.message for p in again.problems]
    assert [str(p.schedule) for p in again.problems] == [str(problem.schedule)]
    assert problem.history[-1].partition(": ")[0] == str(problem.schedule.faults[0].nth)


def test_a_failure_names_as_little_as_can_be_lost(folder: str) -> None:
    """One lost rename is enough to show that the target's directory was not synced."""
    broken = LocalOnDisk(over=UNSYNCED["no sync of the target's directories"])
    found = sweep(broken, folder, JOBS["replace"], model="posix", effort=ENOUGH, most=1)
    assert len(found.problems[0].schedule.faults[0].action.split(",")) == 1


# --- regressions ------------------------------------------------------------------------------------------


def test_staged_files_are_moved_out_durably(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that does not sync the directory that staged files are moved out of loses them.

    Found here: such a file could be back where it was staged after its tree was published.
    """
    folders = transaction.LocalTransaction._folders

    def forgotten(self: Any) -> list[str]:
        return [f for f in folders(self) if os.path.basename(f) != "a"]

    monkeypatch.setattr(transaction.LocalTransaction, "_folders", forgotten)
    found = sweep(LocalOnDisk(), folder, JOBS["create"], model="posix", effort=ENOUGH, most=1)
    assert found.problems
    lost = found.problems[0].schedule.faults[0].action
    assert lost.startswith("lost(")
    assert "," not in lost


# --- third parties ----------------------------------------------------------------------------------------


class _Entry:
    """A registered scheme: the local backend under another name."""

    @staticmethod
    def load() -> Any:
        from fstx.backends.local import open_backend

        def opened(urls: Any, *, joined: bool = False, **options: Any) -> Any:
            paths = [url.removeprefix("acme://") for url in urls]
            return open_backend(paths, joined=joined, **options)

        return opened


@pytest.mark.parametrize("syncless", [False, True])
def test_a_scheme_over_ops_is_judged(
    syncless: bool, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third party's scheme that goes through Ops has level power by its URL, and fails it when it must."""
    entries = {**registry._entry_points(), "acme": _Entry}
    monkeypatch.setattr(registry, "_entry_points", lambda: entries)
    subject = subject_of(f"acme://{folder}")
    storage = subject.on_disk()
    assert storage is not None
    effort = replace(FEW, points=6)
    if syncless:
        monkeypatch.setattr(DiskOps, "sync_dir", lambda self, path: None)
    found = sweep(storage, folder, JOBS["update"], model="posix", effort=effort, most=1)
    assert bool(found.problems) == syncless, told(found)
    subject.close()
