"""Level "power": a run is recorded once on a simulated disk, and the power goes after each of its calls.

What must be there when it is back: the tree from before or the new one, whole; the new one, if commit had
returned; after recovery nothing else; and a fresh commit works. The same when the power goes again
while the recovery runs.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fstx import seams
from fstx.backends.local import native_ops
from fstx.errors import TransactionError, UsageError
from fstx.ops import Ops
from fstx.paths import CONTROL_NAME
from fstx.types import Mode, OutcomeState
from fstx_conformance.schedule import POWER, Fault, Schedule, schedule
from fstx_conformance.seams.disk import Disk, Found, Loss, Model
from fstx_conformance.seams.diskops import DiskOps

Files = Mapping[str, bytes]
Make = Callable[[Ops, str, str], Any]
"""A backend over these calls, in this directory, for the target of this name in it."""

RULES = ("BACKEND-20",)
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


def _many(count: int) -> dict[str, bytes]:
    return {f"d{n % 3}/f{n}": f"content {n}".encode() for n in range(count)}


_OLD = {"a": b"first a", "s/b": b"first b", "r/x": b"first x", "keep": b"kept"}
JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        Job(
            "create",
            None,
            {"a": b"new a", "s/b": b"new b"},
            {"a": b"new a", "s/b": b"new b"},
            "create",
        ),
        Job("many", None, _many(36), _many(36), "create", id="many"),
        Job(
            "update",
            _OLD,
            {"a": b"second a", "s/c": b"second c", "n/m": b"second m"},
            {
                "a": b"second a",
                "s/b": b"first b",
                "s/c": b"second c",
                "n/m": b"second m",
                "keep": b"kept",
            },
            remove=("r",),
            id="update",
        ),
        Job(
            "replace",
            _OLD,
            {"a": b"second a", "z/y": b"second y"},
            {"a": b"second a", "z/y": b"second y"},
            "replace",
        ),
        Job("remove", _OLD, {}, {"s/b": b"first b"}, remove=("a", "r", "keep")),
    )
}


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    ``every``: which points of the log; ``limit`` and ``draws``: see `losses.states`; ``again``: in which
    share of the states the power goes also in the recovery, at how many points, in how many states each.
    """

    every: int = 1
    limit: int = 64
    draws: int = 12
    again: float = 0.05
    again_points: int = 6
    again_states: int = 6


_ALL = 1 << 30
QUICK = Effort(every=3, limit=8, draws=2, again=0.02, again_points=3, again_states=3)
STANDARD = Effort()
EXHAUSTIVE = Effort(limit=256, draws=64, again=1.0, again_points=_ALL, again_states=_ALL)


@dataclass(frozen=True)
class Problem:
    """What went wrong, after which schedule, and what the disk had been asked to do."""

    message: str
    schedule: str
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
    make: Make,
    folder: str | os.PathLike[str],
    job: Job,
    *,
    model: Model,
    effort: Effort = STANDARD,
    seed: int = 0,
) -> Swept:
    """Record one run in `folder`, and cut the power after each of its calls."""
    return _Sweep(make, os.fspath(folder), job, model, effort, seed).all()


def replay(make: Make, folder: str | os.PathLike[str], job: Job, again: Schedule) -> Swept:
    """One run with the losses that a schedule names."""
    faults = tuple(f for f in again.faults if f.op == POWER)
    return _Sweep(make, os.fspath(folder), job, "posix", STANDARD, again.seed).replay(faults)


class _Sweep:
    def __init__(
        self, make: Make, folder: str, job: Job, model: Model, effort: Effort, seed: int
    ) -> None:
        self.make = make
        self.root = os.path.join(os.path.realpath(folder), "disk")
        self.job = job
        self.model: Model = model
        self.effort = effort
        self.seed = seed
        self.rng = random.Random(f"{seed} {job.name} {model}")
        self.result = Swept()
        self.inner = native_ops()

    # --- the run ----------------------------------------------------------------------------------

    def record(self) -> tuple[Disk, int, int]:
        """The disk, the number of the mark before the run, and of that after its commit."""
        if os.path.lexists(self.root):
            shutil.rmtree(self.root)
        os.mkdir(self.root)
        disk = Disk(self.root)
        with self.process():
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
        return self.make(DiskOps(disk, self.inner), self.root, name)

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        """A new process, whose random names are the same each time."""
        names = random.Random(f"names {self.seed}")
        seams.end_of_process()
        with seams.drawing(lambda count: names.randbytes(count).hex()):
            yield

    # --- losses -----------------------------------------------------------------------------------

    def all(self) -> Swept:
        """Every point of the log, as far as the effort goes."""
        disk, ready, done = self.record()
        last = len(disk.log)
        tried: set[Any] = set()
        for k in sorted({*range(ready, last + 1, self.effort.every), done, last}):
            self.result.points += 1
            for found in disk.states(
                k, self.model, self.rng, limit=self.effort.limit, draws=self.effort.draws
            ):
                promised = k >= done
                if (found.key, promised) in tried:
                    continue
                tried.add((found.key, promised))
                self.result.states += 1
                fault = Fault(POWER, k, str(found.loss))
                booted, recovered = self.one(disk, found, (fault,), promised, disk.history(k))
                if self.rng.random() < self.effort.again:
                    self.again(disk, booted, recovered, fault, promised)
        return self.result

    def again(self, disk: Disk, booted: Disk, recovered: int, first: Fault, promised: bool) -> None:
        """The power goes once more while recovery runs."""
        count = min(recovered, self.effort.again_points)
        for j in sorted(self.rng.sample(range(1, recovered + 1), count)):
            found = list(booted.states(j, self.model, self.rng, limit=self.effort.again_states))
            if len(found) > self.effort.again_states:
                found = self.rng.sample(found, self.effort.again_states)
            for state in found:
                self.result.again += 1
                second = Fault(POWER, j, str(state.loss), agent="recoverer")
                history = (*disk.history(first.nth), "the power goes", *booted.history(j))
                self.one(booted, state, (first, second), promised, history)

    def replay(self, faults: tuple[Fault, ...]) -> Swept:
        """The losses of one schedule, one behind the other."""
        disk, _, done = self.record()
        history: tuple[str, ...] = ()
        promised = bool(faults) and faults[0].nth >= done
        for number, fault in enumerate(faults, 1):
            if fault.nth > len(disk.log):
                raise UsageError(f"{fault}: the run has only {len(disk.log)} entries")
            found = disk.state(fault.nth, Loss.parse(fault.action))
            history = (*history, *disk.history(fault.nth), "the power goes")
            disk, _ = self.one(disk, found, faults[:number], promised, history)
        return self.result

    def one(
        self,
        disk: Disk,
        found: Found,
        faults: tuple[Fault, ...],
        promised: bool,
        history: tuple[str, ...],
    ) -> tuple[Disk, int]:
        """One state: the machine comes up, recovers, and commits again; the number of its recovery's mark."""
        booted = disk.boot(found)
        with self.process():
            problems = list(self.recovered(booted, promised))
            recovered = booted.mark("recovery is over")
            problems = problems or list(self.goes_on(booted))
        booted.forget_open_files()
        text = str(schedule(*faults, seed=self.seed))
        self.result.problems += [Problem(message, text, history) for message in problems]
        return booted, recovered

    # --- what must be there -----------------------------------------------------------------------

    def recovered(self, booted: Disk, promised: bool) -> Iterator[str]:
        """Recover; what is wrong then."""
        backend = self.backend(booted)
        try:
            backend.recover()
        except (TransactionError, OSError) as error:
            yield f"recover raised {error!r}"
            return
        before = files_in(os.path.join(self.root, BEFORE))
        if before != _BEFORE:
            yield f"the commit before the run is damaged: {before}"
        found = files_in(os.path.join(self.root, TARGET))
        new = found == self.job.new
        if not new and found != self.job.old:
            yield f"neither old nor new: {found}"
            return
        self.result.seen.add("new" if new else "old")
        if promised and not new:
            yield f"commit had returned, and what is there is old: {found}"
        if self.job.id is not None:
            outcome = backend.outcome(self.job.id)
            if (outcome is OutcomeState.COMMITTED) != new:
                yield f"the outcome is {outcome.value} where what is there is {'new' if new else 'old'}"
        if left := left_in(self.root):
            yield f"recovery left {', '.join(left)}"

    def goes_on(self, booted: Disk) -> Iterator[str]:
        """Commit again; what is wrong then."""
        try:
            _commit(self.backend(booted), "replace", _FRESH)
        except (TransactionError, OSError) as error:
            yield f"a fresh commit after recovery raised {error!r}"
            return
        found = files_in(os.path.join(self.root, TARGET))
        if found != _FRESH:
            yield f"a fresh commit after recovery published {found}"


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


def files_in(path: str) -> dict[str, bytes] | None:
    """Contents of all files below `path`, empty directories with a slash behind; None where nothing is."""
    if not os.path.lexists(path):
        return None
    found: dict[str, bytes] = {}
    for folder, folders, names in os.walk(path):
        rest = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if rest == "." else rest + "/"
        if prefix and not folders and not names:
            found[prefix] = b""
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[prefix + name] = file.read()
    return found


def left_in(root: str) -> list[str]:
    """What lies beside the targets and is no receipt."""
    found = []
    for folder, folders, names in os.walk(root):
        if folder == root:
            folders[:] = [f for f in folders if f not in (TARGET, BEFORE)]
        rest = os.path.relpath(folder, root)
        if rest == os.path.join(CONTROL_NAME, "done"):
            names = [n for n in names if not n.endswith(".json")]
        elif not folders and not names:
            found.append(rest)
        found += [os.path.join(rest, n) for n in names]
    return sorted(f for f in found if f != ".")
