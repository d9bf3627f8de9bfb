"""Meetings of a collection with others: writers, readers that pin, another collection."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from fstx import seams
from fstx.backends.manifest import collect as collecting
from fstx.backends.manifest.history import OpenSnapshot, VersionedDataset
from fstx.types import Capability
from fstx_conformance.injector import Injector
from fstx_conformance.races import LANDED, Part, Writer, finish, write
from fstx_conformance.scenes import BIG, Scene, stage_all, text
from fstx_conformance.schedule import Schedule
from fstx_conformance.subjects.base import Process, Tree
from fstx_conformance.trial import Trial, diff
from fstx_conformance.turns import Turns, step

_LONG_S = 86400.0
_TRIES = 5


@dataclass(frozen=True)
class Meeting:
    """Who meets. Agents take their turns in the order of the names.

    ``dead``: the collection takes the writer for dead. ``spare``: so many of the newest records stay.
    """

    name: str
    agents: tuple[str, ...]
    dead: bool = False
    spare: int = 0


MEETINGS = (
    Meeting("writer and collection", ("writer", "collector")),
    Meeting("collection and writer", ("collector", "writer")),
    Meeting("dead writer and collection", ("writer", "collector"), dead=True),
    Meeting("reader and collection", ("reader", "collector")),
    Meeting("collection and reader", ("collector", "reader")),
    Meeting("two collections", ("collector", "second")),
    Meeting("writer and truncation", ("writer", "truncator"), spare=1),
    Meeting("truncation and writer", ("truncator", "writer"), spare=1),
    Meeting("reader and truncation", ("reader", "truncator"), spare=1),
)


def generation(number: int) -> Tree:
    """The tree of a version."""
    return {
        "a": text(f"a{number}"),
        "b": text(f"b{number}", BIG),
        f"c{number}": text(f"c{number}", BIG),
    }


_WRITER = Writer("writer", {"n/a": text("new a"), "n/b": text("new b", BIG)})
_RIVALS = tuple({f"r{n}": text(f"r{n}", BIG)} for n in (1, 2))


def versions(room: Any, process: Injector | None = None) -> VersionedDataset:
    """The dataset of a room, as a process opens it."""
    return VersionedDataset(room.open(process).dataset)


@contextlib.contextmanager
def spare(records: int) -> Iterator[None]:
    """Within the block collections leave so few of the newest records in the log."""
    before, collecting.SPARE = collecting.SPARE, records or collecting.SPARE
    try:
        yield
    finally:
        collecting.SPARE = before


def grow(room: Any, count: int) -> Tree:
    """Versions 1 to `count`; the tree of the newest."""
    tree: Tree = {}
    for number in range(1, count + 1):
        with room.begin(mode="update" if tree else "create") as tx:
            stage_all(generation(number))(tx)
            for path in sorted(set(tree) - set(generation(number))):
                tx.remove(path)
        tree = generation(number)
    return tree


def meet(meeting: Meeting, room: Any, schedule: Schedule) -> Trial:
    """One interleaving in a fresh room."""
    trial = Trial(Scene(meeting.name, {}, {}, lambda tx: None), schedule)
    with Process.alone():
        tree = grow(room, 3)
        trial.promised = room.open().guarantee(mode="update", durability="data")
    part = Part(_WRITER)
    turns = Turns(schedule.faults, trial.history)
    work: dict[str, Callable[[Injector], Any]] = {
        "writer": partial(write, room, part, turns),
        "reader": partial(_read, room, trial),
        "collector": partial(_collect, room, trial, 1, meeting.dead),
        "second": partial(_collect, room, trial, 2, False),
        "truncator": partial(_truncate, room, trial),
    }
    with Process.alone(), spare(meeting.spare):
        for name in meeting.agents:
            turns.add(name, work[name])
        turns.run()
    finish(trial, turns)
    wanted = {**tree, **({k: v for r in _RIVALS for k, v in r.items()} if meeting.spare else {})}
    _judge(room, trial, meeting, part, wanted)
    for agent in turns.agents.values():
        if agent.injector.deliver():
            _judge(room, trial, meeting, part, wanted, "after late requests: ")
    _clean(room, trial)
    return trial


# --- agents ---------------------------------------------------------------------------------------------


def _collect(room: Any, trial: Trial, keep: int, dead: bool, process: Injector) -> None:
    step(process, "collect")
    if dead:
        seams.end_of_process()  # what was open here is another process's, and that is taken for dead
    dataset = versions(room, process)
    dataset.collect(keep, older_than_s=0.0 if dead else _LONG_S, dry_run=False)
    trial.told.append("collected")


def _truncate(room: Any, trial: Trial, process: Injector) -> None:
    """Others commit, and the log is cut off behind them."""
    for files in _RIVALS:
        step(process, "commit")
        with room.begin(process) as tx:
            stage_all(files)(tx)
    _collect(room, trial, 1, False, process)


def _read(room: Any, trial: Trial, process: Injector) -> None:
    """Hold version 2, which is about to be retired, and read it; then the newest one."""
    dataset = versions(room, process)
    step(process, "hold")
    try:
        found = _held(process, dataset.snapshot(2))
    except FileNotFoundError:
        trial.told.append("refused")  # it was retired before it was pinned
    else:
        _compare(trial, "a pinned version", found, generation(2))
    for _ in range(_TRIES):
        try:
            found = _held(process, dataset.snapshot())
        except FileNotFoundError:
            continue  # another one is the newest by now
        kept = [{p: d for p, d in tree.items() if p in generation(3)} for tree in found]
        _compare(trial, "the newest version", kept, generation(3))
        return
    trial.problem(f"the newest version could not be pinned in {_TRIES} tries (LOG-9)")


def _held(process: Injector, snapshot: OpenSnapshot) -> list[Tree]:
    """All of a version, read twice under a pin; FileNotFoundError only if it can't be pinned."""
    with contextlib.ExitStack() as held:
        held.enter_context(snapshot)
        found = []
        for _ in range(2):
            try:
                found.append({path: snapshot.read(path) for path in snapshot.paths()})
            except FileNotFoundError as error:
                found.append({"": str(error).encode()})
            step(process, "again")
        return found


def _compare(trial: Trial, what: str, found: list[Tree], wanted: Tree) -> None:
    for tree in found:
        if tree != wanted:
            trial.problem(
                f"{what} is not whole for a reader that pinned it: {diff(tree, wanted)} (BACKEND-22)",
                Capability.SNAPSHOTS,
            )
            return


# --- what holds -----------------------------------------------------------------------------------------


def _judge(
    room: Any, trial: Trial, meeting: Meeting, part: Part, tree: Tree, when: str = ""
) -> None:
    if trial.problems:
        return
    if part.word and not when:
        trial.told.append(part.word)
    refusals = ("conflict", "fenced") if meeting.dead or meeting.spare else ()
    doubt = ("unknown", "aborted") if trial.schedule.faults else ()
    if part.word and part.word not in (*LANDED, *refusals, *doubt):
        trial.problem(f"{when}the writer was told {part.word}: {part.error} (LOG-7)")
    found = room.read()
    landed = {**tree, **_WRITER.puts}
    allowed = [landed] if part.word in LANDED else [tree]
    if part.word == "unknown":
        allowed.append(landed)
    if found not in allowed:
        trial.problem(
            f"{when}told {part.word or 'nothing'}, and readers find {diff(found, allowed[0])} (BACKEND-24)"
        )
    told = VersionedDataset(room.dataset()).verify(data=True)
    if not told.ok:
        trial.problem(
            f"{when}{'; '.join(map(str, told.problems[:3]))} (LOG-8)", Capability.SNAPSHOTS
        )


def _clean(room: Any, trial: Trial) -> None:
    """Everybody is gone: a collection leaves nothing that nobody needs."""
    if trial.problems:
        return
    before = room.read()
    with Process.alone():
        for pin in (dataset := versions(room)).pins():
            trial.problem(f"the pin {pin} of a reader that ended is left (LOG-9)")
        dataset.collect(1, older_than_s=0.0, dry_run=False)
    if left := room.leftovers():
        trial.problem(f"left over after collection: {', '.join(left[:5])} (BACKEND-42)")
    if (found := room.read()) != before:
        trial.problem(f"collection changed what readers find: {diff(found, before)}")


__all__ = ["MEETINGS", "Meeting", "generation", "grow", "meet", "spare", "versions"]
