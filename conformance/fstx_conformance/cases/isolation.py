"""Level "isolation": writers and readers that meet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fstx.errors import ConflictError, TransactionError
from fstx.types import Capability
from fstx_conformance.cases import case
from fstx_conformance.injector import Call, Injector
from fstx_conformance.lab import Lab
from fstx_conformance.races import Race, Writer, races, word_of
from fstx_conformance.results import Level
from fstx_conformance.scenes import BIG, Scene, stage_all, text
from fstx_conformance.schedule import Schedule
from fstx_conformance.subjects import raw
from fstx_conformance.subjects.base import Process, Room
from fstx_conformance.trial import Trial, diff, mixed, prepare
from fstx_conformance.turns import elsewhere
from fstx_conformance.worker import count

_OLD = {
    "a": text("old a"),
    "b": text("old b", BIG),
    "d/x": text("old x"),
    "d/y": text("old y", BIG),
}


def _one(path: str, name: str, size: int = 40) -> Writer:
    return Writer(name, {path: text(f"{path} of {name}", size)})


@case(
    Level.ISOLATION,
    "disjoint",
    "BACKEND-21",
    "BACKEND-24",
    "BACKEND-28",
    "LOG-4",
    fires=("switch",),
    sees=("committed",),
)
def disjoint(lab: Lab) -> None:
    """Two writers of different paths: both land, or one is told of a conflict; nothing is lost."""
    race = Race("disjoint", _OLD, (_one("a", "writer"), _one("n/b", "rival", BIG)))
    races(lab, [race], 0.25)


@case(
    Level.ISOLATION,
    "same-path",
    "BACKEND-21",
    "BACKEND-24",
    "BACKEND-25",
    "LOG-4",
    "CTRL-5",
    fires=("switch",),
    sees=("committed", "conflict"),
)
def same_path(lab: Lab) -> None:
    """Two writers of one path: the second to commit is told of a conflict, or came after the first."""
    races(lab, [Race("same path", _OLD, (_one("a", "writer"), _one("a", "rival")))], 0.4)


@case(
    Level.ISOLATION,
    "create",
    "BACKEND-15",
    "BACKEND-25",
    fires=("switch",),
    sees=("committed", "conflict"),
)
def create(lab: Lab) -> None:
    """Two and three that create one target: one commits, the others are refused and change nothing."""
    names = ("writer", "rival", "third")
    made = tuple(
        Writer(n, {"a": text(f"a of {n}"), f"{n}/b": text(n, BIG)}, mode="create") for n in names
    )
    races(lab, [Race("create by two", {}, made[:2]), Race("create by three", {}, made)], 0.4)


@case(
    Level.ISOLATION,
    "replace",
    "BACKEND-14",
    "BACKEND-21",
    fires=("switch",),
    sees=("committed", "conflict"),
)
def replace(lab: Lab) -> None:
    """One replaces the target and another updates or replaces it: no mixture of the two."""
    whole = Writer("writer", {"a": text("whole a"), "w": text("whole w")}, mode="replace")
    other = Writer("rival", {"o": text("other o")}, mode="replace")
    races(
        lab,
        [
            Race("replace and update", _OLD, (whole, _one("d/z", "rival"))),
            Race("two replace", _OLD, (whole, other)),
        ],
        0.4,
    )


@case(
    Level.ISOLATION,
    "remove",
    "BACKEND-16",
    "BACKEND-21",
    "PATH-6",
    fires=("switch",),
    sees=("committed", "conflict"),
)
def remove(lab: Lab) -> None:
    """One removes a tree while another adds to it or changes it: a conflict, or one after the other."""
    gone = Writer("writer", {"a": text("new a")}, removes=("d",))
    races(
        lab,
        [
            Race("remove and add", _OLD, (gone, _one("d/z", "rival"))),
            Race("remove and change", _OLD, (gone, _one("d/x", "rival"))),
        ],
        0.4,
    )


@case(Level.ISOLATION, "same-id", "BACKEND-31", "LOG-14", fires=("switch",), sees=("committed",))
def same_id(lab: Lab) -> None:
    """One id, by two at once: it is committed once, and the other one learns that or is refused."""
    twins = tuple(
        Writer(name, {"a": text(f"of {name}")}, id="job 7") for name in ("writer", "rival")
    )
    races(lab, [Race("same id", _OLD, twins)], 0.25)


# --- readers --------------------------------------------------------------------------------------------


@case(
    Level.ISOLATION,
    "readers",
    "BACKEND-5",
    "BACKEND-17",
    "BACKEND-18",
    "BACKEND-19",
    "BACKEND-22",
    "BACKEND-23",
    sees=("committed",),
    seams=("ops", "store", "files"),
)
def readers(lab: Lab) -> None:
    """A reader looks before each call of a writer: old or new as promised, and never back."""
    scenes = lab.scenes("update", "replace", "index", "create index", "streamed", "many")
    for scene in scenes:
        found = lab.experiment(
            scene.name, Schedule(seed=lab.seed), partial(_watched, scene, 1 + int(lab.subject.cost))
        )
        if not found.problems and found.promised is not None:
            lab.kept |= found.promised.capabilities & _SEEN


_SEEN = {
    Capability.ATOMIC_OBJECT,
    Capability.ATOMIC_SET,
    Capability.NO_GAP,
    Capability.SNAPSHOTS,
}


def _watched(scene: Scene, every: int, room: Room, schedule: Schedule) -> Trial:
    trial = Trial(scene, schedule)
    with Process.alone():
        promised = trial.promised = prepare(room, scene)
    held = _hold(room) if Capability.SNAPSHOTS in promised else None
    process = Injector(schedule.faults, history=trial.history)
    state = {"committing": False, "new": False}

    def look(call: Call) -> None:
        if process.calls % every and not call.changing:
            return
        where = f"before call {process.calls + 1}, {call.op} {call.key}"
        tree = room.read()
        wrong = mixed(tree, scene, promised)
        if wrong is not None:
            trial.problem(f"{where}: {wrong[0]}", wrong[1])
        elif tree != scene.old and not state["committing"]:
            trial.problem(f"{where}: nothing is committed, and readers find other (BACKEND-5)")
        elif state["new"] and tree != scene.new:
            trial.problem(f"{where}: readers had found the new, and do not any more (BACKEND-24)")
        state["new"] = tree == scene.new != scene.old
        if held is not None and (lost := held()):
            trial.problem(f"{where}: {lost} (BACKEND-22)", Capability.SNAPSHOTS)

    process.before = lambda call: elsewhere(partial(look, call))
    with Process.alone():
        tx = room.begin(process, **scene.begin())
        scene.work(tx)
        state["committing"] = True
        pending = tx.commit().pending
    process.before = lambda call: None
    process.die()
    trial.told.append("pending" if pending else "committed")
    if room.read() != scene.new:
        trial.problem(f"after the commit readers find {diff(room.read(), scene.new)} (BACKEND-24)")
    if held is not None and (lost := held()):
        trial.problem(f"after the commit {lost} (BACKEND-22)", Capability.SNAPSHOTS)
    return trial


def _hold(room: Room) -> Callable[[], str] | None:
    """A reader that holds the newest version: what it misses of it now, "" if nothing; None: no way to."""
    dataset = raw.dataset_of(room)
    if dataset is None:
        return None
    version = dataset.view() if dataset.exists() else None
    entries = {} if version is None else {p: e for p, e in version.items() if not e.directory}
    before = {path: dataset.read(entry) for path, entry in entries.items()}

    def look() -> str:
        try:
            now = {path: dataset.read(entry) for path, entry in entries.items()}
            listed = (
                set() if version is None else {p for p, e in version.items() if not e.directory}
            )
        except OSError as error:
            return f"a held version can't be read: {error}"
        return "" if now == before and listed == set(before) else "a held version has changed"

    return look


# --- one thread ------------------------------------------------------------------------------------------


@case(Level.ISOLATION, "by-hand", "BACKEND-5", "BACKEND-6", "BACKEND-8", sees=("committed",))
def by_hand(lab: Lab) -> None:
    """Two transactions of one process, in one thread, by turns: what one stages the other never sees."""
    with lab.room() as room, Process.alone():
        lab.runs += 1
        with room.begin(mode="create") as tx:
            stage_all(_OLD)(tx)
        backend = room.open()
        begin = partial(
            backend.begin, mode="update", durability="data", require=frozenset(), entry=None
        )
        one = begin()
        try:
            two = begin()
        except ConflictError:
            lab.seen["conflict"] += 1
            _alone(lab, room, one)
            return
        lab.check(one.id != two.id, "two transactions have one id")
        receipt = one.stage("a", b"of one")
        two.stage("b", b"of two")
        one.remove("d")
        lab.check(
            two.read("a") == _OLD["a"], "one transaction reads what another staged (BACKEND-5)"
        )
        lab.check(
            "d/x" in list(two.paths()), "a removal is seen by another transaction (BACKEND-5)"
        )
        lab.check(
            one.read("b") == _OLD["b"], "one transaction reads what another staged (BACKEND-5)"
        )
        try:
            two.adopt([receipt])
            lab.problem("a receipt of another transaction was adopted (BACKEND-8)")
        except TransactionError:
            pass
        two.rollback()
        lab.check(one.read("a") == b"of one", "a rollback took what another transaction staged")
        lab.check(room.read() == _OLD, "readers find what is only staged (BACKEND-5)")
        _alone(lab, room, one, {"a": b"of one", "b": _OLD["b"]})


def _alone(lab: Lab, room: Room, one: Any, wanted: dict[str, bytes] | None = None) -> None:
    if wanted is None:
        one.stage("a", b"of one")
        wanted = {**_OLD, "a": b"of one"}
    one.commit()
    lab.seen["committed"] += 1
    found = room.read()
    lab.check(found == wanted, f"after the commit readers find {diff(found, wanted)} (BACKEND-13)")


# --- real threads ----------------------------------------------------------------------------------------


@case(Level.ISOLATION, "threads", "BACKEND-15", "STORE-19", sees=("committed", "conflict"))
def threads(lab: Lab) -> None:
    """Eight threads at once create one target: one of them commits, and it is there."""
    room = lab.subject.room()
    try:
        start = threading.Barrier(8)

        def work(number: int) -> str:
            start.wait(60)
            try:
                with room.begin(mode="create") as tx:
                    tx.stage("a", f"{number}".encode())
                    tx.stage(f"b{number}", text(f"{number}", BIG))
                return "committed"
            except TransactionError as error:
                return word_of(error)

        with ThreadPoolExecutor(8) as pool:
            words = list(pool.map(work, range(8)))
        lab.runs += 1
        lab.seen.update(words)
        won = [n for n, word in enumerate(words) if word == "committed"]
        lab.check(len(won) == 1, f"{len(won)} of 8 were told committed (BACKEND-15)")
        lab.check(set(words) <= {"committed", "conflict"}, f"told: {', '.join(words)} (BACKEND-28)")
        wanted = {"a": f"{won[0]}".encode(), f"b{won[0]}": text(f"{won[0]}", BIG)} if won else {}
        found = room.read()
        lab.check(found == wanted, f"readers find {diff(found, wanted)} (BACKEND-15)")
        room.recover()
        lab.check(
            not room.leftovers(), f"left over: {', '.join(room.leftovers()[:5])} (BACKEND-42)"
        )
    finally:
        room.close()


@case(
    Level.ISOLATION,
    "counter",
    "BACKEND-21",
    "BACKEND-24",
    sees=("committed",),
    profiles=("standard", "exhaustive"),
)
def counter(lab: Lab) -> None:
    """Eight threads each add to one number, some times: it counts the commits that were told."""
    room = lab.subject.room()
    try:
        with room.begin(mode="create") as tx:
            tx.stage("count", b"0")
        with ThreadPoolExecutor(8) as pool:
            told = sum(pool.map(lambda n: count(room.begin, 3), range(8)))
        lab.runs += 1
        lab.seen["committed"] += told
        found = room.read()["count"]
        lab.check(found == b"%d" % told, f"told of {told} commits, the number is {found!r}")
        lab.check(told == 24, f"of 24 commits {told} came through")
    finally:
        room.close()
