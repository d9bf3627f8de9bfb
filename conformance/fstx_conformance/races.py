"""Races: writers on one target that take turns, and what holds of every interleaving.

The end is what the ones that were told committed make in some order, one after the other. Who was refused
was refused because of another's commit, and changed nothing. Who depends on what another commit changed
meanwhile is refused.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fstx.errors import (
    ConflictError,
    FencedError,
    InDoubtError,
    TargetExistsError,
    TransactionError,
)
from fstx.paths import is_below
from fstx.types import Capability, Mode, OutcomeState
from fstx_conformance.injector import Injector, Killed
from fstx_conformance.lab import Lab
from fstx_conformance.sampling import divided, musts, pick
from fstx_conformance.scenes import FRESH, Scene, stage_all
from fstx_conformance.schedule import Fault, Schedule
from fstx_conformance.subjects.base import Process, Room, Tree
from fstx_conformance.trial import Trial, diff
from fstx_conformance.turns import Turns, interleavings, step, switches

LANDED = ("committed", "pending")


@dataclass(frozen=True)
class Writer:
    """One transaction of a race."""

    name: str
    puts: Tree
    removes: tuple[str, ...] = ()
    mode: Mode = "update"
    id: str | None = None

    def work(self, tx: Any) -> None:
        """Stage it."""
        for path in self.removes:
            tx.remove(path)
        stage_all(self.puts)(tx)

    def after(self, tree: Tree) -> Tree | None:
        """What it makes of a tree; None where it has to be refused."""
        if self.mode == "create" and tree:
            return None
        if self.mode != "update":
            return dict(self.puts)
        if any(not any(is_below(p, r) for p in tree) for r in self.removes):
            return None
        kept = {p: d for p, d in tree.items() if not any(is_below(p, r) for r in self.removes)}
        return {**kept, **self.puts}

    def hurt_by(self, other: Writer, old: Tree) -> bool:
        """Whether the other one, on `old`, changes what this one depends on."""
        new = other.after(old) or {}
        changed = {path for path in {*old, *new} if old.get(path) != new.get(path)}
        if self.mode != "update":
            return bool(changed)
        return any(p in self.puts or any(is_below(p, r) for r in self.removes) for p in changed)


@dataclass(frozen=True)
class Race:
    """Writers that meet over an old tree."""

    name: str
    old: Tree
    writers: tuple[Writer, ...]
    seconds: float = 1.0  # share of the budget


@dataclass
class Part:
    """How it went for one writer, with moments of the run."""

    writer: Writer
    word: str = ""
    txid: str | None = None
    error: str = ""
    touched: int = 0  # all is staged
    committing: int = 0
    before: bool = False  # it found its id committed when it began
    found: Tree = field(default_factory=dict)  # what readers found when it was told

    @property
    def landed(self) -> bool:
        """Whether it was told committed, of its own work."""
        return self.word in LANDED and not self.before

    def missed(self, before: Part, old: Tree) -> bool:
        """Whether this one, committed after `before`, had to be told of a conflict."""
        if self.writer.id is not None and self.writer.id == before.writer.id:
            return False
        together = self.touched < before.committing and before.touched < self.committing
        return together and self.writer.hurt_by(before.writer, old)


def word_of(error: BaseException) -> str:
    """What a caller is told by an error."""
    if isinstance(error, Killed):
        return "died"
    if isinstance(error, InDoubtError):
        return "unknown"
    if isinstance(error, FencedError):
        return "fenced"
    if isinstance(error, ConflictError | TargetExistsError):
        return "conflict"
    if isinstance(error, TransactionError):
        return "aborted" if error.outcome in (None, "aborted") else "unknown"
    if isinstance(error, FileNotFoundError):
        return "absent"
    return "interrupted"


def told(error: BaseException, room: Room) -> str:
    """An error as text that is the same in another room."""
    where = room.url.removeprefix("tx::")
    text = str(error).replace(where, "TARGET").replace(where.rpartition("/")[0], "ROOM")
    return f"{type(error).__name__}: {text}"


def write(room: Room, part: Part, turns: Turns, process: Injector) -> None:
    """One writer's run in one process."""
    writer, tx = part.writer, None
    try:
        step(process, "begin")
        tx = room.begin(process, mode=writer.mode, id=writer.id)
        part.txid = tx.id
        if tx.committed:
            part.word, part.before = "committed", True
            return
        step(process, "stage")
        writer.work(tx)
        part.touched = turns.now()
        step(process, "commit")
        part.committing = turns.now()
        part.word = "pending" if tx.commit().pending else "committed"
    except BaseException as error:  # noqa: BLE001 - judged by what it says
        part.word, part.error = word_of(error), told(error, room)
        if tx is not None:  # of a dead process, too: what it still wants to do has no effect
            with contextlib.suppress(TransactionError, Killed):
                tx.rollback()
    finally:
        part.found = room.read()
        process.history.add(f"{writer.name}: told {part.word} {part.error}".rstrip())


def run_race(room: Room, race: Race, schedule: Schedule) -> Trial:
    """One interleaving in a fresh room."""
    trial = Trial(Scene(race.name, race.old, {}, lambda tx: None), schedule)
    with Process.alone():
        if race.old:
            with room.begin(mode="create") as tx:
                stage_all(race.old)(tx)
        trial.promised = room.open().guarantee(mode="update", durability="data")
    turns = Turns(schedule.faults, trial.history)
    parts = [Part(writer) for writer in race.writers]
    with Process.alone():
        for part in parts:
            turns.add(part.writer.name, partial(write, room, part, turns))
        turns.run()
        gc.collect()
    finish(trial, turns)
    trial.told += [part.word for part in parts]
    _judge(room, trial, race, parts)
    _settle(room, trial, parts)
    return trial


def finish(trial: Trial, turns: Turns) -> None:
    """The agents are over; what fired is noted in the trial."""
    for problem in turns.problems:
        trial.problem(problem)
    for name, agent in turns.agents.items():
        agent.injector.die()
        if agent.error is not None:
            trial.problem(f"{name}: {type(agent.error).__name__}: {agent.error}")
            agent.error = None
        note(trial, agent.injector)


def note(trial: Trial, process: Injector) -> None:
    """Calls and faults of one process."""
    trial.calls[process.agent] = process.names
    for fault, number in process.fired:
        trial.fired[fault.action] += 1
        op = process.names[number][0]
        nth = sum(name == op for name, _, _ in process.names[: number + 1])
        trial.named.setdefault(fault, replace(fault, op=op, key="*", nth=nth))


# --- what holds -----------------------------------------------------------------------------------------


def orders(old: Tree, parts: Sequence[Part], *, detected: bool = True) -> list[Tree]:
    """The trees that these can make, one after the other in any order.

    `detected`: but for orders in which one changes what the next had staged already.
    """
    found = []
    for order in itertools.permutations(parts):
        tree: Tree | None = dict(old)
        for i, part in enumerate(order):
            tree = None if tree is None else part.writer.after(tree)
            if detected and any(part.missed(before, old) for before in order[:i]):
                tree = None
        if tree is not None:
            found.append(tree)
    return found


def _judge(room: Room, trial: Trial, race: Race, parts: list[Part]) -> None:
    landed = [p for p in parts if p.landed]
    for part in parts:
        name, others = part.writer.name, [p for p in landed if p is not part]
        if part.word not in (*LANDED, "conflict", "absent") or part.word == "pending":
            trial.problem(f"{name} was told {part.word}, and nothing went wrong: {part.error}")
        elif part.word in ("conflict", "absent") and not others:
            trial.problem(
                f"{name} was refused, and nobody else committed: {part.error} (BACKEND-28)"
            )
        elif part.before and not any(p.writer.id == part.writer.id for p in others):
            trial.problem(f"{name} was told that its id is committed; it is not (BACKEND-31)")
    tree = room.read()
    for part in parts:
        if part.writer.id is not None and part.word in LANDED and part.found != tree:
            trial.problem("one id was committed twice (BACKEND-31)")
    names = ", ".join(p.writer.name for p in landed) or "nobody"
    possible = orders(race.old, landed, detected=False)
    if tree not in possible:
        wanted = possible[0] if possible else race.old
        trial.problem(
            f"told committed: {names}; readers find {diff(tree, wanted)}: no order of them makes that",
            Capability.CONFLICT_DETECTED,
        )
    assert trial.promised is not None
    if Capability.CONFLICT_DETECTED in trial.promised and tree not in orders(race.old, landed):
        trial.problem(
            f"told committed: {names}; one of them changed what another had staged before, and that one was "
            "not told of a conflict (BACKEND-21)",
            Capability.CONFLICT_DETECTED,
        )


def _settle(room: Room, trial: Trial, parts: list[Part]) -> None:
    """Afterwards nothing is left to settle, and the place works."""
    if trial.problems:
        return
    tree = room.read()
    with Process.alone():
        room.recover()
    if (found := room.read()) != tree:
        trial.problem(f"recovery changed what was over: {diff(found, tree)} (BACKEND-24)")
    if left := room.leftovers():
        trial.problem(f"left over: {', '.join(left[:5])} (BACKEND-42)")
    with Process.alone():
        for part in parts:
            outcome = None if part.txid is None else room.outcome(part.txid)
            known = outcome in (OutcomeState.COMMITTED, OutcomeState.ABORTED)
            same = part.writer.id is not None and any(p.landed for p in parts)
            if known and (outcome == OutcomeState.COMMITTED) != (part.word in LANDED or same):
                trial.problem(f"{part.writer.name}: told {part.word}, outcome says {outcome}")
        with room.begin() as tx:
            stage_all(FRESH)(tx)
    if (found := room.read()) != {**tree, **FRESH}:
        trial.problem(f"the next transaction left {diff(found, {**tree, **FRESH})} (BACKEND-36)")


# --- many interleavings -----------------------------------------------------------------------------------


def races(lab: Lab, listed: Iterable[Race], share: float = 1.0) -> None:
    """All interleavings with at most two switches, or as many as the budget allows."""
    listed = list(listed)
    lab.sample.of += 0 if lab.replay else len(listed)
    if lab.dear and lab.replay is None:
        listed = divided(listed, lab.budget, 4, lab.rng)
    total = sum(race.seconds for race in listed)
    for race in listed:
        if lab.replay is not None:
            if lab.replay.scene in ("", race.name):
                lab.experiment(race.name, lab.replay, partial(_run, race))
            continue
        quiet = lab.experiment(race.name, Schedule(seed=lab.seed), partial(_run, race))
        counts = {w.name: len(quiet.calls[w.name]) for w in race.writers}
        limit = max(4, int(lab.budget * share * race.seconds / total))
        if lab.dear:
            limit = max(0, lab.budget // len(listed) - 2)
        meeting = (Fault("step", 3, "switch", agent=race.writers[0].name),)  # all is staged
        lab.experiment(race.name, Schedule(meeting, lab.seed), partial(_run, race))
        tried = 2
        for faults in switches(counts, limit, lab.rng.random()) if limit else ():
            lab.experiment(race.name, Schedule(faults, lab.seed), partial(_run, race))
            tried += 1
        lab.sample.add(tried, interleavings(counts))
    if not lab.failures:
        lab.kept.add(Capability.CONFLICT_DETECTED)


@dataclass(frozen=True)
class Calls:
    """Something at each call of an agent in a kind of run; `first`: what has happened before.

    Calls up to what `first` hits are left out.
    """

    name: str
    run: Callable[[Room, Schedule], Trial]
    faults: Callable[[int], tuple[Fault, ...]]
    agent: str = "writer"
    op: str = "*"
    first: tuple[Fault, ...] = ()


def at_each_call(lab: Lab, sweeps: Sequence[Calls], limit: int) -> None:
    """Each sweep at each call, or at `limit` of them: spread evenly, and where the log decides.

    On a dear storage `limit` is for all sweeps together, and some are left out where it is small.
    """
    if lab.replay is not None:
        named = {s.name: s for s in sweeps if lab.replay.scene in ("", s.name)}
        for sweep in named.values():
            lab.experiment(sweep.name, lab.replay, sweep.run)
        return
    lab.sample.of += lab.all_of(len(sweeps))
    if lab.dear:
        sweeps = divided(sweeps, limit, 1, lab.rng)
        limit = max(1, limit // len(sweeps))
    for turn, sweep in enumerate(sweeps):
        _at_each_call(lab, sweep, limit, turn)


def _at_each_call(lab: Lab, sweep: Calls, limit: int, turn: int) -> None:
    quiet = lab.quiet(sweep.name, sweep.run, sweep.first)
    probe = Fault(sweep.op, 1, "fail", agent=sweep.agent)
    calls = [c for c in quiet.calls.get(sweep.agent, []) if probe.matches(sweep.agent, *c)]
    begin = 1
    for fault in sweep.first:
        begin += next((i for i, c in enumerate(calls) if fault.matches(sweep.agent, *c)), 0) + 1
    count = len(calls) - begin + 1
    decides = [k for k, c in enumerate(calls, 1) if c[1].startswith("log/") and k >= begin][-1:]
    decides = decides or [begin + count * 2 // 5]  # no log: somewhere before it is decided
    tried = 0
    chosen = pick(count, limit, musts([1, count], [k - begin + 1 for k in decides], turn), lab.rng)
    more = lab.more(count, chosen)
    for k in itertools.chain(chosen, more):
        faults = sweep.faults(k + begin - 1)
        lab.experiment(sweep.name, Schedule(faults, lab.seed), sweep.run)
        tried += 1
    lab.sample.add(tried, max(0, count))


def _run(race: Race, room: Room, schedule: Schedule) -> Trial:
    return run_race(room, race, schedule)


__all__ = [
    "LANDED",
    "Calls",
    "Fault",
    "Part",
    "Race",
    "Writer",
    "finish",
    "note",
    "orders",
    "races",
    "word_of",
]
