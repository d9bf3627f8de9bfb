"""Processes killed before every call that changes something, on the calls of Windows itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.localjobs import JOBS, Job
from wine.suite.programs import Disk, running

pytestmark = pytest.mark.timeout(900)  # some 80 places each


@pytest.fixture(params=list(JOBS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def killed(name: str, root: Path) -> Iterator[Disk]:
    """A place for each call: its process was killed when it came there."""
    with running("stop", name, "run", str(root), "0") as program:
        number = int(program.says())
        program.kill()
    assert number > 40
    for k in range(1, number + 1):
        yield Disk(root / str(k))


def settled(job: Job, disk: Disk) -> bool:
    return disk.found() in (job.old, job.new, *job.also)


def test_kill_at_every_call(name: str, tmp_path: Path) -> None:
    """A23: killed at any call, another process brings old or new whole, and leaves nothing else."""
    job, ends = JOBS[name], set()
    for disk in killed(name, tmp_path):
        job.recover(disk)
        assert settled(job, disk), (disk.root.name, disk.found())
        assert not job.recover(disk), disk.root.name
        ends.add(disk.found() == job.new)
    assert ends == {True, False}


@pytest.mark.parametrize("name", ["several files", "two targets"])
def test_kill_of_recoveries(name: str, tmp_path: Path) -> None:
    """A23: recoveries killed as well, two of them one after the other."""
    job = JOBS[name]
    disks = list(killed(name, tmp_path))
    for at in (4, 9):
        with running("stop", name, "recover", str(tmp_path), str(at)) as program:
            assert int(program.says()) > 10
            program.kill()
    for disk in disks:
        job.recover(disk)
        assert settled(job, disk), (disk.root.name, disk.found())


@pytest.mark.parametrize("name", ["replaced tree", "several files"])
def test_next_run_recovers_by_itself(name: str, tmp_path: Path) -> None:
    """A23: after a kill the same job simply runs again, and ends in the new state."""
    job = JOBS[name]
    again = replace(job, mode="replace" if job.mode == "create" else job.mode, remove=())
    kept = {f"t/{r}": job.old[f"t/{r}"] for r in job.remove}
    for disk in killed(name, tmp_path):
        again.run(disk)
        assert disk.found() in (job.new, job.new | kept), disk.root.name
