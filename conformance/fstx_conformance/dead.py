"""Dead writers and dead recoverers: recovery ends, finds nothing the second time, and the place works.

An end is told by counting calls, not by a clock: a recovery that makes more of them than a bound, or pauses
more often, is one that runs for ever.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fstx import seams
from fstx.errors import RecoveryError, TransactionError
from fstx.types import Capability, Recovery
from fstx_conformance.collecting import generation, grow, versions
from fstx_conformance.injector import Call, History, Injector, Killed
from fstx_conformance.races import LANDED, Part, Writer, finish, note, orders, write
from fstx_conformance.scenes import BIG, FRESH, Scene, stage_all, text
from fstx_conformance.schedule import Schedule
from fstx_conformance.subjects.base import Process, Room, Tree
from fstx_conformance.trial import Trial, diff
from fstx_conformance.turns import Turns, in_order

TIMES = 20  # the bound: so many times the calls that the work of the dead took
_LEAST = 400
_RECOVERIES = 4

OLD: Tree = {
    "a": text("old a"),
    "b": text("old b", BIG),
    "d/x": text("old x"),
    "d/y": text("old y", BIG),
}
WRITERS = (
    Writer("writer", {"a": text("new a"), "n/b": text("new b", BIG)}, removes=("d",)),
    Writer("second", {"m/c": text("new c", BIG), "m/d": text("new d")}),
    Writer("third", {"b": text("of the job", BIG)}, id="job 7"),
)
_GIVEN_UP = ("conflict", "fenced", "aborted", "absent")


@dataclass(frozen=True)
class Graves:
    """How many writers die, and whether anybody recovers before the next transaction."""

    writers: int = 1
    recovered: bool = True

    def __str__(self) -> str:
        many = {1: "a dead writer", 3: "three dead writers"}[self.writers]
        return many if self.recovered else f"{many}, then the next one"


@dataclass
class Bound:
    """Ends a process that makes too many calls or pauses."""

    process: Injector
    limit: int
    over: str = ""
    pauses: int = 0
    _inner: Any = field(init=False)

    def __post_init__(self) -> None:
        self._inner = self.process.before
        self.process.before = self._before

    def _before(self, call: Call) -> None:
        self._inner(call)
        if self.process.calls >= self.limit:
            self._end(f"{self.limit} calls")

    def _pause(self, seconds: float) -> None:
        self.pauses += 1
        if self.pauses >= self.limit:
            self._end(f"{self.limit} pauses")

    def _end(self, what: str) -> None:
        self.over = what
        self.process.die()
        raise Killed(f"{self.process.agent} after {what}")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Pauses count within the block; pools work in order."""
        with seams.waiting(self._pause), in_order():
            yield


def run_dead(graves: Graves, room: Room, schedule: Schedule) -> Trial:
    """Writers meet the faults of the schedule; then everybody is gone, and others come."""
    trial = Trial(Scene(str(graves), OLD, {}, lambda tx: None), schedule)
    with Process.alone():
        with room.begin(mode="create") as tx:
            stage_all(OLD)(tx)
        trial.promised = room.open().guarantee(mode="update", durability="data")
    turns = Turns(schedule.faults, trial.history)
    parts = [Part(writer) for writer in WRITERS[: graves.writers]]
    with Process.alone():
        for part in parts:
            turns.add(part.writer.name, partial(write, room, part, turns))
        turns.run()
        gc.collect()
    finish(trial, turns)
    trial.told += [part.word for part in parts]
    for part in parts:
        if part.word == "interrupted":
            trial.problem(f"{part.error} came out, not one of fstx's errors (BACKEND-29)")
    for agent in turns.agents.values():
        agent.injector.deliver()
    limit = max(_LEAST, TIMES * sum(len(calls) for calls in trial.calls.values()))
    if graves.recovered:
        recover(room, trial, limit)
        _judge(room, trial, parts)
    _next(room, trial, parts, limit)
    if not graves.recovered:
        recover(room, trial, limit)
    _nothing_left(room, trial)
    return trial


def recover(room: Room, trial: Trial, limit: int) -> None:
    """Recover until it is not disturbed any more; it ends, and then finds nothing."""
    for turn in range(_RECOVERIES):
        faults = trial.schedule.faults if turn == 0 else ()
        process = Injector(faults, agent="recoverer", history=trial.history)
        ended = _once(room, trial, process, limit)
        note(trial, process) if turn == 0 else None
        process.deliver()
        if trial.problems or (ended is not None and not process.fired):
            break
    else:
        trial.problem("recover did not end", Capability.RECOVERABLE)
    if trial.problems:
        return
    again = _once(room, trial, Injector(agent="again", history=trial.history), limit)
    if again is None or again:
        trial.problem(f"a second recover found something: {again} (BACKEND-38)")


def _once(room: Room, trial: Trial, process: Injector, limit: int) -> Recovery | None:
    bound = Bound(process, limit)
    found: Recovery | None = None
    with Process.alone(), bound.watching():
        try:
            found = room.recover(process)
        except (Killed, KeyboardInterrupt):
            pass
        except RecoveryError as error:
            if not process.fired:
                trial.problem(f"recover refused: {error}", Capability.RECOVERABLE)
        except TransactionError as error:
            if not process.fired:
                trial.problem(f"recover failed: {error}", Capability.RECOVERABLE)
    if bound.over:
        trial.problem(f"recover does not end: {bound.over} (BACKEND-38)", Capability.RECOVERABLE)
    trial.history.add(f"{process.agent}: {found}".replace(room.url, "TARGET"))
    process.die()
    return found


# --- what holds -----------------------------------------------------------------------------------------


def _possible(parts: list[Part]) -> list[Tree]:
    """The trees that may be there: of all that were told committed, and any that were not told."""
    sure = [p for p in parts if p.word in LANDED]
    open_ = [p for p in parts if p.word not in (*LANDED, *_GIVEN_UP)]
    found = []
    for count in range(len(open_) + 1):
        for more in itertools.combinations(open_, count):
            found += orders(OLD, [*sure, *more], detected=False)
    return found


def _judge(room: Room, trial: Trial, parts: list[Part]) -> None:
    if trial.problems:
        return
    tree = room.read()
    possible = _possible(parts)
    if tree not in possible:
        told = ", ".join(f"{p.writer.name} {p.word}" for p in parts)
        trial.problem(
            f"after recovery readers find {diff(tree, possible[0])} (told: {told}) (BACKEND-35)",
            Capability.RECOVERABLE,
        )


def _next(room: Room, trial: Trial, parts: list[Part], limit: int) -> None:
    """The next transaction works, in a bounded number of calls."""
    if trial.problems:
        return
    process = Injector(agent="next", history=trial.history)
    bound = Bound(process, limit)
    try:
        with Process.alone(), bound.watching(), room.begin(process) as tx:
            stage_all(FRESH)(tx)
    except (TransactionError, Killed) as error:
        trial.problem(
            f"the next transaction fails: {bound.over or error} (BACKEND-36)",
            Capability.RECOVERABLE,
        )
        return
    finally:
        process.die()
    found = room.read()
    if found not in [{**tree, **FRESH} for tree in _possible(parts)]:
        wanted = {**_possible(parts)[0], **FRESH}
        trial.problem(f"after the next transaction readers find {diff(found, wanted)} (BACKEND-36)")


def _nothing_left(room: Any, trial: Trial) -> None:
    """A collection, where there is one, and nothing is left over."""
    if trial.problems:
        return
    before = room.read()
    if hasattr(room, "dataset"):
        with Process.alone():
            versions(room).collect(1, older_than_s=0.0, dry_run=False)
            told = versions(room).verify(data=True)
        if not told.ok:
            trial.problem(f"after collection: {'; '.join(map(str, told.problems[:3]))} (LOG-8)")
    if left := room.leftovers():
        trial.problem(f"left over: {', '.join(left[:5])} (BACKEND-42)")
    if (found := room.read()) != before:
        trial.problem(f"collection changed what readers find: {diff(found, before)} (LOG-8)")


def run_dead_collection(room: Any, schedule: Schedule) -> Trial:
    """A collection that meets the faults of the schedule; the next one finishes it."""
    trial = Trial(Scene("a dead collection", {}, {}, lambda tx: None), schedule)
    with Process.alone():
        tree = grow(room, 3)
        trial.promised = room.open().guarantee(mode="update", durability="data")
        # under faults nothing is put after the end of its process
        tx = room.begin(Injector(agent="lost"))
        tx.stage("lost", text("lost", BIG))
        del tx
    process = Injector(schedule.faults, agent="collector", history=trial.history)
    with Process.alone(), in_order():
        try:
            versions(room, process).collect(1, older_than_s=0.0, dry_run=False)
            trial.told.append("collected")
        except (Killed, TransactionError, OSError) as error:
            trial.told.append("died" if isinstance(error, Killed) else "refused")
    process.die()
    note(trial, process)
    process.deliver()
    if (found := room.read()) != tree or tree != generation(3):
        trial.problem(f"half a collection changed what readers find: {diff(found, tree)} (LOG-8)")
    _nothing_left(room, trial)
    return trial


__all__ = ["Bound", "Graves", "History", "recover", "run_dead", "run_dead_collection"]
