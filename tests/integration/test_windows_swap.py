"""The local backend on a simulated Windows: swap, open readers, scanners, kills at every call."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fstx.errors import (
    CommitError,
    ConflictError,
    PathError,
    RecoveryError,
    TargetBusyError,
    TargetExistsError,
)
from fstx.ops.windows import WindowsOps
from fstx.types import Capability, OutcomeState
from support.localjobs import JOBS, Job, Place
from support.winsim import Killed, SimDisk


class Clock:
    """Time that passes in `sleep` alone."""

    now_s = 0.0

    def sleep(self, pause_s: float) -> None:
        self.now_s += pause_s

    def monotonic(self) -> float:
        return self.now_s


class Machine(Place):
    """A simulated Windows whose disk is a directory; targets lie in its root."""

    def __init__(self, root: Path, **options: Any) -> None:
        super().__init__(root)
        self.clock = Clock()
        self.disk = SimDisk(str(root), **options)

    def ops(self, **faults: Any) -> WindowsOps:
        return WindowsOps(
            self.disk.process(**faults),
            sleep=self.clock.sleep,
            monotonic=self.clock.monotonic,
            jitter=lambda: 0.5,
        )


@pytest.fixture(params=list(JOBS))
def job(request: pytest.FixtureRequest) -> Job:
    return JOBS[request.param]


def test_commit(job: Job, tmp_path: Path) -> None:
    """A18, A23 on Windows: the new state whole, nothing left beside it."""
    machine = Machine(tmp_path)
    machine.put(job.old)
    job.run(machine)
    assert machine.found() == job.new
    assert machine.disk.handles == []
    assert machine.clock.now_s == 0


def test_rollback(job: Job, tmp_path: Path) -> None:
    """An exception in the body leaves the old state and nothing else."""
    machine = Machine(tmp_path)
    machine.put(job.old)
    with pytest.raises(RuntimeError, match="stop"):
        job.run(machine, fail=True)
    assert machine.found() == job.old


@pytest.mark.parametrize("calls", [1, 3, 6])
def test_commit_under_antivirus(job: Job, calls: int, tmp_path: Path) -> None:
    """A scanner that holds every new and renamed entry for some calls delays a commit, no more."""
    machine = Machine(tmp_path, antivirus_calls=calls)
    machine.put(job.old)
    job.run(machine)
    assert machine.found() == job.new
    assert machine.clock.now_s > 0


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("replaced tree", "t/s/c"),
        ("replaced tree", "t"),
        ("several files", "t/s/b"),
        ("several files", "t/r"),
        ("one file", "f"),
        ("two targets", "u"),
        ("two targets", "t/a"),
    ],
)
def test_permanent_reader(name: str, held: str, tmp_path: Path) -> None:
    """A reader that stays: TargetBusyError after the patience, all rolled back, nothing left."""
    job, machine = JOBS[name], Machine(tmp_path)
    machine.put(job.old)
    machine.disk.hold(str(tmp_path / held))
    with pytest.raises(TargetBusyError) as caught:
        job.run(machine)
    assert (caught.value.outcome, caught.value.retryable) == ("aborted", True)
    assert machine.found() == job.old
    assert 4 < machine.clock.now_s < 15


def killed_at_each_call(job: Job, tmp_path: Path) -> Any:
    """One machine for every call at which the commit can be killed; ends with a whole run."""
    for k in itertools.count(1):
        machine = Machine(tmp_path / str(k))
        machine.put(job.old)
        try:
            job.run(machine, kill_at=k)
        except Killed:
            yield k, machine
        else:
            assert k > 10
            assert machine.found() == job.new
            return


def settled(job: Job, machine: Machine) -> bool:
    return machine.found() in (job.old, job.new, *job.also)


def test_kill_at_every_call(job: Job, tmp_path: Path) -> None:
    """A23: killed at any call, recovery brings the old or the new state whole, without leftovers."""
    for k, machine in killed_at_each_call(job, tmp_path):
        job.recover(machine)
        assert settled(job, machine), (k, machine.found())
        assert not job.recover(machine), k


def test_kill_of_every_recovery(job: Job, tmp_path: Path) -> None:
    """A23: recoveries killed at their first, second, third... call, one after the other."""
    for k, machine in killed_at_each_call(job, tmp_path):
        for j in itertools.count(1):
            try:
                job.recover(machine, kill_at=j)
            except Killed:
                continue
            break
        assert settled(job, machine), (k, j, machine.found())


@pytest.mark.parametrize("name", ["replaced tree", "empty target", "several files"])
def test_next_run_recovers_by_itself(name: str, tmp_path: Path) -> None:
    """A23: after a kill the same job simply runs again, and ends in the new state."""
    job = JOBS[name]
    again = replace(job, mode="replace" if job.mode == "create" else job.mode, remove=())
    for k, machine in killed_at_each_call(job, tmp_path):
        again.run(machine)
        found = machine.found()
        assert found in (job.new, job.new | {f"t/{r}": job.old[f"t/{r}"] for r in job.remove}), k


def test_interrupt_at_every_call(job: Job, tmp_path: Path) -> None:
    """A25: Ctrl-C at any call leaves nothing behind, the state whole, and says which one it is."""
    for k in itertools.count(1):
        machine = Machine(tmp_path / str(k))
        machine.put(job.old)
        try:
            job.run(machine, interrupt_at=k)
        except KeyboardInterrupt as interrupt:
            found = machine.found()
            assert found in (job.old, job.new), (k, found)
            said = "committed" in "".join(getattr(interrupt, "__notes__", []))
            assert said == (found == job.new), k
            assert machine.clock.now_s < 1, k
        else:
            assert machine.found() == job.new
            break


# --- what is promised, refused and reported -------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "strategy", "no_gap", "atomic_set"),
    [
        ("new tree", "rename", True, True),
        ("replaced tree", "swap", False, True),
        ("several files", "swap", False, False),
        ("two targets", "swap", False, False),
    ],
)
def test_guarantee(
    name: str, strategy: str, no_gap: bool, atomic_set: bool, tmp_path: Path
) -> None:
    """The gap of a swap is told, and so is what Windows can't make durable; nothing is left."""
    job, machine = JOBS[name], Machine(tmp_path)
    machine.put(job.old)
    promised = machine.backend(*job.names, joined=job.joined).guarantee(
        mode=job.mode, durability="data"
    )
    assert promised.strategy == strategy
    assert (Capability.NO_GAP in promised) == no_gap
    assert (Capability.ATOMIC_SET in promised) == atomic_set
    assert Capability.RECOVERABLE in promised
    assert Capability.CONFLICT_DETECTED in promised
    assert Capability.DURABLE not in promised
    assert machine.found() == job.old


def test_retry_after_the_reader_left(tmp_path: Path) -> None:
    """TargetBusyError is retryable: the same job succeeds once the file is closed."""
    job, machine = JOBS["replaced tree"], Machine(tmp_path)
    machine.put(job.old)
    reader = machine.disk.hold(str(tmp_path / "t/a"))
    with pytest.raises(TargetBusyError):
        job.run(machine)
    machine.disk.let_go(reader)
    job.run(machine)
    assert machine.found() == job.new


def test_first_creator_wins(tmp_path: Path) -> None:
    """Two creators of one target: the second is refused while the first lives, and afterwards."""
    job, machine = JOBS["new tree"], Machine(tmp_path)
    machine.put(job.old)
    with machine.backend("t").begin(mode="create", durability="data", require=frozenset()) as tx:
        tx.stage("a", b"A")
        with pytest.raises(ConflictError):
            job.run(machine)
        tx.stage("s/b", b"B")
    with pytest.raises(TargetExistsError):
        job.run(machine)
    assert machine.found() == job.new


def test_recovery_leaves_the_living_alone(tmp_path: Path) -> None:
    """A held lock is life: recovery by another process touches nothing of a running transaction."""
    job, machine = JOBS["replaced tree"], Machine(tmp_path)
    machine.put(job.old)
    with machine.backend("t").begin(mode="replace", durability="data", require=frozenset()) as tx:
        tx.stage("a", b"A")
        report = job.recover(machine)
        assert [row.state for row in report.settled] == [OutcomeState.ACTIVE]
        tx.stage("s/b", b"B")
    assert machine.found() == job.new


def test_read_only_target_is_not_called_busy(tmp_path: Path) -> None:
    """The read-only attribute does not go away by waiting: another error, at once."""
    job, machine = JOBS["one file"], Machine(tmp_path)
    machine.put(job.old)
    (tmp_path / "f").chmod(0o444)
    with pytest.raises(CommitError) as caught:
        job.run(machine)
    assert not isinstance(caught.value, TargetBusyError)
    assert machine.clock.now_s == 0
    assert machine.found() == job.old


def test_read_only_files_of_a_replaced_tree_go(tmp_path: Path) -> None:
    """Displaced content is deleted whatever its attributes."""
    job, machine = JOBS["replaced tree"], Machine(tmp_path)
    machine.put(job.old)
    (tmp_path / "t/a").chmod(0o444)
    job.run(machine)
    assert machine.found() == job.new


def test_names_are_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    """B9: a name that Windows can't hold, as target and as path."""
    machine = Machine(tmp_path)
    with pytest.raises(PathError, match="device"):
        machine.backend("nul.zarr")
    with (
        machine.backend("t").begin(mode="create", durability="none", require=frozenset()) as tx,
        pytest.raises(PathError, match="contains ':'"),
    ):
        tx.stage("s/a:b", b"x")
    assert ".fstx/" not in machine.found()


def test_old_files_set_aside_are_not_dropped_with_a_replaced_target(tmp_path: Path) -> None:
    """Nothing is lost: the target was exchanged by hand while old files of it lay in a dead area."""
    job = JOBS["several files"]
    refused = 0
    for _, machine in killed_at_each_call(job, tmp_path):
        area = next((p.parent for p in machine.root.glob(".fstx/*/intent")), None)
        if area is None or area.suffix == ".trash" or (area / "commit").exists():
            continue
        aside = {p: p.read_bytes() for p in area.glob("o[0-9]*")}
        (machine.root / "t").rename(machine.root / "t.bak")
        (machine.root / "t").mkdir()
        if aside:
            refused += 1
            with pytest.raises(RecoveryError, match="set aside"):
                job.recover(machine)
            assert {p: p.read_bytes() for p in aside} == aside
        else:
            job.recover(machine)
            assert not list(machine.root.glob(".fstx"))
        assert list((machine.root / "t").iterdir()) == []
    assert refused > 0
