"""Runs that are recorded once on a simulated disk; then the power goes after each of their calls.

What must be there when it is back: the tree from before or the new one, whole; the new one, if commit had
returned; after recovery nothing else; and a fresh commit works. The same when the power goes again
while the recovery runs.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fstx import seams
from fstx.errors import TransactionError, UsageError
from fstx.types import Mode, OutcomeState
from fstx_conformance.schedule import POWER, Fault, Schedule, schedule
from fstx_conformance.seams.disk import Disk, Found, Loss, Model
from fstx_conformance.seams.losses import smaller
from fstx_conformance.subjects.disks import OnDisk

Files = Mapping[str, bytes]

TARGET = "t"
BEFORE = "before"  # a target with a commit of its own, acknowledged before the run begins
_BEFORE = {"a": b"before"}
_FRESH = {"fresh": b"fresh"}


@dataclass(frozen=True)
class Job:
    """One transaction on the target, and what that holds before (None: it is absent) and after."""

    name: str
    old: Files | None
    write: Files
    new: Files
    mode: Mode = "update"
    remove: tuple[str, ...] = ()
    id: str | None = None


def _text(what: str, size: int = 0) -> bytes:
    """A content that tells what it is; long enough, stores keep it in an object of its own."""
    return what.encode() * max(1, size // len(what))


_LONG = 6000
_OLD = {"a": _text("first a", _LONG), "s/b": b"first b", "r/x": b"first x", "keep": b"kept"}
_TREE = {"a": b"new a", "s/b": _text("new b", _LONG)}
_MANY = {f"d{n % 3}/f{n}": f"content {n}".encode() for n in range(36)}
_CHANGED = {"a": _text("second a", _LONG), "s/c": b"second c", "n/m": b"second m"}
_OTHER = {"a": b"second a", "z/y": _text("second y", _LONG)}
JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        Job("create", None, _TREE, _TREE, "create"),
        Job("many", None, _MANY, _MANY, "create", id="many"),
        Job(
            "update",
            _OLD,
            _CHANGED,
            {**_CHANGED, "s/b": b"first b", "keep": b"kept"},
            remove=("r",),
            id="update",
        ),
        Job("replace", _OLD, _OTHER, _OTHER, "replace"),
        Job("remove", _OLD, {}, {"s/b": b"first b"}, remove=("a", "r", "keep")),
    )
}


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    Parameters
    ----------
    points
        At how many points of the log the power goes, evenly spread.
    states
        How many states are tried at each, of those that `losses.states` gives for `limit` and `draws`.
    again
        In which share of the states the power goes again in the recovery: at `again_points` points, in
        `again_states` states each.
    fresh
        In which share of the states a commit follows.
    """

    points: int
    states: int
    limit: int = 64
    draws: int = 12
    again: float = 0.0
    again_points: int = 3
    again_states: int = 3
    fresh: float = 1.0


_ALL = 1 << 30
_SHRUNK = 3  # so many problems are told with the smallest loss that shows them
QUICK = Effort(8, 6, limit=8, draws=2, again=0.04, fresh=0.25)
STANDARD = Effort(60, 40, again=0.05, again_points=5, again_states=5)
EXHAUSTIVE = Effort(
    _ALL, _ALL, limit=256, draws=64, again=1.0, again_points=_ALL, again_states=_ALL
)


@dataclass(frozen=True)
class Problem:
    """What went wrong, after which schedule, and what the disk had been asked to do."""

    message: str
    schedule: Schedule
    history: tuple[str, ...] = ()


@dataclass
class Swept:
    """What a sweep came to."""

    problems: list[Problem] = field(default_factory=list)
    points: int = 0
    states: int = 0
    again: int = 0
    seen: set[str] = field(default_factory=set)  # "old", "new"


def sweep(
    storage: OnDisk,
    folder: str,
    job: Job,
    *,
    model: Model,
    effort: Effort = STANDARD,
    seed: int = 0,
    most: int = _ALL,
) -> Swept:
    """Record one run in `folder`, and cut the power after each of its calls, until `most` problems."""
    return _Sweep(storage, folder, job, model, effort, seed).all(most)


def replay(storage: OnDisk, folder: str, job: Job, again: Schedule) -> Swept:
    """One run with the losses that a schedule names."""
    faults = tuple(f for f in again.faults if f.op == POWER)
    return _Sweep(storage, folder, job, "posix", STANDARD, again.seed).replay(faults)


class _Sweep:
    def __init__(
        self, storage: OnDisk, folder: str, job: Job, model: Model, effort: Effort, seed: int
    ) -> None:
        self.storage = storage
        self.root = os.path.join(os.path.realpath(folder), "disk")
        self.job = job
        self.model: Model = model
        self.effort = effort
        self.seed = seed
        self.rng = random.Random(f"{seed} {job.name} {model}")
        self.result = Swept()
        self.replaying = False

    # --- the run ----------------------------------------------------------------------------------

    def record(self) -> tuple[Disk, int, int]:
        """The disk, the number of the mark before the run, and of that after its commit."""
        if os.path.lexists(self.root):
            shutil.rmtree(self.root)
        os.mkdir(self.root)
        disk = Disk(self.root)
        with self.process(disk):
            _commit(self.backend(disk, BEFORE), "create", _BEFORE)
            if self.job.old is not None:
                _commit(self.backend(disk), "create", self.job.old)
            ready = disk.mark("the run begins")
            job = self.job
            _commit(self.backend(disk), job.mode, job.write, remove=job.remove, id=job.id)
            done = disk.mark("commit has returned")
        disk.forget_open_files()
        return disk, ready, done

    def backend(self, disk: Disk, name: str = TARGET) -> Any:
        """A backend on `disk`."""
        return self.storage.open(disk, name)

    @contextlib.contextmanager
    def process(self, disk: Disk) -> Iterator[None]:
        """A new process on `disk`, whose random names are the same each time and no earlier process's."""
        names = random.Random(f"names {self.seed} {disk.boots}")
        seams.end_of_process()
        with seams.drawing(lambda count: names.randbytes(count).hex()):
            yield

    # --- losses -----------------------------------------------------------------------------------

    def all(self, most: int) -> Swept:
        """Every point of the log, as far as the effort goes."""
        disk, ready, done = self.record()
        last = len(disk.log)
        step = max(1, (last - ready) // self.effort.points)
        tried: set[Any] = set()
        for k in sorted({*range(ready, last + 1, step), done, last}):
            self.result.points += 1
            promised = k >= done
            for found in self.some(disk, k, self.effort.states):
                if len(self.result.problems) >= most:
                    return self.result
                if (found.key, promised) in tried:
                    continue
                tried.add((found.key, promised))
                self.result.states += 1
                fault = Fault(POWER, k, str(found.loss))
                fresh = self.rng.random() < self.effort.fresh
                booted, recovered = self.one(
                    disk, found, (fault,), promised, disk.history(k), fresh=fresh
                )
                if self.rng.random() < self.effort.again:
                    self.again(disk, booted, recovered, fault, promised)
        return self.result

    def some(self, disk: Disk, k: int, most: int) -> list[Found]:
        """States after entry `k`; where there are more than `most`, so many drawn ones."""
        effort = self.effort
        return list(
            disk.states(k, self.model, self.rng, limit=effort.limit, draws=effort.draws, most=most)
        )

    def again(self, disk: Disk, booted: Disk, recovered: int, first: Fault, promised: bool) -> None:
        """The power goes once more while recovery runs."""
        count = min(recovered, self.effort.again_points)
        for j in sorted(self.rng.sample(range(1, recovered + 1), count)):
            for state in self.some(booted, j, self.effort.again_states):
                self.result.again += 1
                second = Fault(POWER, j, str(state.loss), agent="recoverer")
                history = (*disk.history(first.nth), "the power goes", *booted.history(j))
                self.one(booted, state, (first, second), promised, history, fresh=False)

    def replay(self, faults: tuple[Fault, ...]) -> Swept:
        """The losses of one schedule, one behind the other."""
        self.replaying = True
        disk, _, done = self.record()
        history: tuple[str, ...] = ()
        promised = bool(faults) and faults[0].nth >= done
        for number, fault in enumerate(faults, 1):
            if fault.nth > len(disk.log):
                raise UsageError(f"{fault}: the run has only {len(disk.log)} entries")
            found = disk.state(fault.nth, Loss.parse(fault.action))
            history = (*history, *disk.history(fault.nth), "the power goes")
            disk, _ = self.one(disk, found, faults[:number], promised, history, fresh=True)
        return self.result

    def one(
        self,
        disk: Disk,
        found: Found,
        faults: tuple[Fault, ...],
        promised: bool,
        history: tuple[str, ...],
        *,
        fresh: bool,
    ) -> tuple[Disk, int]:
        """One state: the machine comes up and recovers; the new disk, and the number of recovery's mark."""
        booted, recovered, problems = self.up(disk, found, promised, fresh=fresh)
        if problems and len(self.result.problems) < _SHRUNK and not self.replaying:
            found, problems = self.shrunk(disk, found, faults[-1].nth, promised, problems)
            faults = (*faults[:-1], replace(faults[-1], action=str(found.loss)))
            booted, recovered, _ = self.up(disk, found, promised, fresh=False)
        text = schedule(*faults, seed=self.seed)
        text = replace(text, scene=self.job.name)
        self.result.problems += [Problem(message, text, history) for message in problems]
        return booted, recovered

    def up(
        self, disk: Disk, found: Found, promised: bool, *, fresh: bool
    ) -> tuple[Disk, int, list[str]]:
        """The machine comes up: its disk, the number of recovery's mark, and what is wrong."""
        booted = disk.boot(found)
        with self.process(booted):
            problems = list(self.recovered(booted, promised))
            recovered = booted.mark("recovery is over")
            if fresh and not problems:
                problems = list(self.goes_on(booted))
        booted.forget_open_files()
        return booted, recovered, problems

    def shrunk(
        self, disk: Disk, found: Found, k: int, promised: bool, problems: list[str]
    ) -> tuple[Found, list[str]]:
        """A smaller loss at the same point that does harm too: as little as can be lost."""
        for loss in smaller(found.loss):
            try:
                less = disk.state(k, loss)
            except UsageError:
                continue
            _, _, harm = self.up(disk, less, promised, fresh=True)
            if harm:
                return self.shrunk(disk, less, k, promised, harm)
        return found, problems

    # --- what must be there -----------------------------------------------------------------------

    def recovered(self, booted: Disk, promised: bool) -> Iterator[str]:
        """Recover; what is wrong then."""
        backend = self.backend(booted)
        try:
            self.storage.recover(backend)
        except (TransactionError, OSError) as error:
            yield f"recover raised {error!r}"
            return
        try:
            yield from self.what_is_there(promised)
            if left := self.storage.left(self.root, (TARGET, BEFORE)):
                yield f"recovery left {', '.join(left)}"
            if self.job.id is not None:
                outcome = backend.outcome(self.job.id)
                new = self.storage.read(self.root, TARGET) == self.job.new
                if (outcome is OutcomeState.COMMITTED) != new:
                    yield f"the outcome is {outcome.value}, and what is there is {'new' if new else 'old'}"
        except (TransactionError, OSError) as error:
            yield f"reading after recovery raised {error!r}"

    def what_is_there(self, promised: bool) -> Iterator[str]:
        """What is wrong with what readers find."""
        before = self.storage.read(self.root, BEFORE)
        if before != _BEFORE:
            yield f"the commit before the run is damaged: {_shown(before)}"
        found = self.storage.read(self.root, TARGET)
        new = found == self.job.new
        if not new and found != self.job.old:
            yield f"neither old nor new: {_shown(found)}"
            return
        self.result.seen.add("new" if new else "old")
        if promised and not new:
            yield f"commit had returned, and what is there is old: {_shown(found)}"

    def goes_on(self, booted: Disk) -> Iterator[str]:
        """Commit again; what is wrong then."""
        try:
            _commit(self.backend(booted), "replace", _FRESH)
        except (TransactionError, OSError) as error:
            yield f"a fresh commit after recovery raised {error!r}"
            return
        found = self.storage.read(self.root, TARGET)
        if found != _FRESH:
            yield f"a fresh commit after recovery published {_shown(found)}"


def _shown(tree: Files | None) -> str:
    if tree is None:
        return "nothing"
    told = (f"{path}={data[:12]!r} ({len(data)} bytes)" for path, data in sorted(tree.items()))
    return ", ".join(told) or "empty"


def _commit(
    backend: Any,
    mode: Mode,
    write: Files,
    *,
    remove: tuple[str, ...] = (),
    id: str | None = None,
) -> None:
    with backend.begin(mode=mode, durability="data", require=frozenset(), id=id) as tx:
        for path, data in write.items():
            tx.stage(path, data)
        for path in remove:
            tx.remove(path)
