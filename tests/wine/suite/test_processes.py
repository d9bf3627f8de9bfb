"""Two processes at one target on Windows: open files, directories in use, locks."""

from __future__ import annotations

from pathlib import Path

import pytest

from fstx.errors import ConflictError, TargetBusyError
from fstx.ops.windows import WindowsOps
from fstx.types import OutcomeState
from support.localjobs import JOBS, Job
from wine.suite.programs import Disk, running

IN_USE = [("one file", "hold", "f"), ("several files", "hold", "t/r"), ("two targets", "hold", "u")]
IN_USE += [("replaced tree", "stand", "t"), ("two targets", "stand", "t")]


def put(name: str, root: Path) -> tuple[Job, Disk]:
    disk = Disk(root, WindowsOps(patience_s=0.2))
    disk.put(JOBS[name].old)
    return JOBS[name], disk


@pytest.mark.parametrize(("name", "how", "what"), IN_USE)
def test_in_use_by_another_process(name: str, how: str, what: str, tmp_path: Path) -> None:
    """What another program has open is not replaced: TargetBusyError, all as it was, nothing left. Once it
    has let go the same job succeeds."""
    job, disk = put(name, tmp_path)
    with running(how, str(tmp_path / what)) as program:
        program.says()
        with pytest.raises(TargetBusyError) as caught:
            job.run(disk)
        assert (caught.value.outcome, caught.value.retryable) == ("aborted", True)
        assert disk.found() == job.old
        program.tell()
        job.run(disk)
    assert disk.found() == job.new


@pytest.mark.parametrize(("name", "how", "what"), IN_USE)
def test_let_go_in_time(name: str, how: str, what: str, tmp_path: Path) -> None:
    """A program that lets go while a commit waits delays it and no more."""
    job, disk = put(name, tmp_path)
    waited = []
    with running(how, str(tmp_path / what)) as program:
        program.says()

        def sleep(pause_s: float) -> None:
            waited.append(pause_s)
            if len(waited) == 2:
                program.tell()

        job.run(Disk(tmp_path, WindowsOps(sleep=sleep)))
    assert len(waited) >= 2
    assert disk.found() == job.new


def test_first_creator_wins(tmp_path: Path) -> None:
    """While another process creates the target nobody else may; when it is killed its claim is gone."""
    disk = Disk(tmp_path)
    job = JOBS["new tree"]
    disk.put(job.old)
    with running("begin", str(tmp_path), "create") as program:
        program.says()
        with pytest.raises(ConflictError):
            job.run(disk)
        program.kill()
        job.run(disk)
    assert disk.found() == job.new


def test_recovery_leaves_the_living_alone(tmp_path: Path) -> None:
    """A lock that a process holds is its life: recovery touches nothing of it until it was killed."""
    disk = Disk(tmp_path)
    job = JOBS["replaced tree"]
    disk.put(job.old)
    with running("begin", str(tmp_path), "replace") as program:
        program.says()
        assert [row.state for row in job.recover(disk).settled] == [OutcomeState.ACTIVE]
        program.kill()
        assert [row.state for row in job.recover(disk).settled] == [OutcomeState.ABORTED]
    assert disk.found() == job.old


def test_lost_update_is_a_conflict(tmp_path: Path) -> None:
    """Another process committed to the target since begin: ConflictError, its content stays."""
    disk = Disk(tmp_path)
    disk.put(JOBS["replaced tree"].old)
    backend = disk.backend("t")
    with (
        pytest.raises(ConflictError),
        backend.begin(mode="replace", durability="data", require=frozenset()) as tx,
    ):
        tx.stage("a", b"A")
        with running("begin", str(tmp_path), "replace") as program:
            program.says()
            assert program.tell() == "committed"
    assert disk.found() == {"t/by": b"program"}
