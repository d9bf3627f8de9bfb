"""Jobs whose finished units outlive their process: run, killed, taken up by another one."""

from __future__ import annotations

import gc
import warnings
from typing import Any

from fstx.errors import ResumeError, TransactionError
from fstx.resuming import ResumableTransaction, begin_job, fingerprint, jobs_of
from fstx_conformance.injector import Injector, Killed
from fstx_conformance.lab import NotApplicable
from fstx_conformance.races import note
from fstx_conformance.scenes import BIG, Scene, text
from fstx_conformance.schedule import Schedule
from fstx_conformance.subjects.base import Process, Room, Tree
from fstx_conformance.trial import Trial, diff
from fstx_conformance.turns import in_order

OLD: Tree = {"a": text("old a"), "u/0": text("old unit", BIG)}
UNITS: dict[str, Tree] = {
    "0": {"u/0": text("unit 0", BIG)},
    "1": {},
    "2": {"u/2": text("unit 2"), "v/2": text("unit 2 as well", BIG)},
    "3": {"u/3": text("unit 3", BIG)},
}
NEW: Tree = {
    **OLD,
    **{path: data for unit in UNITS.values() for path, data in unit.items()},
    "index": text("index"),
}
CONFIG = {"kit": "resume", "units": len(UNITS)}
RUNNERS = ("writer", "resumer")


def begin(
    room: Room,
    process: Injector | None = None,
    *,
    resume: Any = "if_possible",
    config: Any = None,
    id: str | None = "the job",
) -> ResumableTransaction:
    """The job in a fresh process; NotApplicable where nothing can be kept."""
    backend = room.open(process)
    if getattr(backend, "depots", None) is None:
        raise NotApplicable("the backend keeps no units of unfinished jobs")

    def start(id: str) -> Any:
        return backend.begin(
            mode="update", durability="data", require=frozenset(), entry=None, id=id
        )

    return begin_job(
        backend,
        start,
        resume=resume,
        fingerprint=fingerprint(CONFIG if config is None else config),
        mode="update",
        entry=None,
        id=id,
    )


def do(tx: ResumableTransaction, name: str) -> None:
    """One unit."""
    with tx.unit(name) as unit:
        for path, data in UNITS[name].items():
            unit.stage(path, data)


def left(room: Room) -> list[str]:
    """Names of what depots lie in the place."""
    backend: Any = room.open()
    names: list[str] = backend.depots(None).names()
    return names


def run_job(room: Room, schedule: Schedule) -> Trial:
    """The job by two processes that may be killed, and by a third one that is not."""
    trial = Trial(Scene("job", OLD, NEW, lambda tx: None), schedule)
    with Process.alone():
        room.lay(OLD)
        trial.promised = room.open().guarantee(mode="update", durability="data")
    finished: set[str] = set()
    landed = False
    for agent in RUNNERS:
        process = Injector(schedule.faults, agent=agent, history=trial.history)
        with Process.alone(), in_order():
            word = _attempt(room, trial, process, finished)
        process.die()
        gc.collect()
        note(trial, process)
        process.deliver()
        trial.told.append(word)
        landed = landed or word == "committed"
        _seen(room, trial, landed, f"after {agent} ({word})")
        if landed:
            break
    if not landed:
        with Process.alone(), in_order():
            word = _attempt(room, trial, None, finished)
        trial.told.append(word)
        if word != "committed":
            trial.problem(f"nothing goes wrong any more, and the job is told {word} (RESUME-8)")
    _over(room, trial)
    return trial


def _attempt(room: Room, trial: Trial, process: Injector | None, finished: set[str]) -> str:
    """Go on, do what is missing, commit."""
    try:
        tx = begin(room, process)
        if tx.committed:
            return "committed"
        with tx:
            _kept(trial, tx, finished)
            for name in tx.remaining(UNITS):
                do(tx, name)
                finished.add(name)
            tx.stage("index", NEW["index"])
        return "committed"
    except Killed:
        return "died"
    except NotApplicable:
        raise
    except TransactionError as error:
        trial.history.add(f"{type(error).__name__}: {error}")
        return "aborted"
    except Exception as error:  # noqa: BLE001 - a caller would get this
        trial.problem(f"{type(error).__name__} came out, not one of fstx's errors: {error}")
        return "interrupted"


def _kept(trial: Trial, tx: ResumableTransaction, finished: set[str]) -> None:
    lost = finished - set(tx.done)
    if lost:
        trial.problem(f"units {sorted(lost)} were finished and are not kept (RESUME-1)")
    more = set(tx.done) - finished
    if len(more) > 1:  # one may have been finished when its process died
        trial.problem(f"units {sorted(more)} are said to be finished, and nobody did (RESUME-1)")
    finished |= more


def _seen(room: Room, trial: Trial, landed: bool, when: str) -> None:
    tree = room.read()
    if landed and tree != NEW:
        trial.problem(f"{when}: the job is committed, and readers find {diff(tree, NEW)}")
    scratch = {path for path in tree if path not in NEW}
    if scratch:
        trial.problem(f"{when}: readers find {sorted(scratch)} (RESUME-6)")


def _over(room: Room, trial: Trial) -> None:
    with Process.alone():
        tx = begin(room)
        if not tx.committed:
            trial.problem("the job is committed, and its id does not say so (RESUME-8)")
            tx.rollback()
    tree = room.read()
    if tree != NEW:
        trial.problem(f"when all is over: readers find {diff(tree, NEW)}")
    with Process.alone():
        room.recover()
        waiting = jobs_of(room.open())
        if waiting or left(room):
            trial.problem(f"the job is over, and {left(room)} is left of it (RESUME-9)")


def resumed(room: Room, **how: Any) -> tuple[ResumableTransaction | None, str]:
    """The job that goes on, and what was warned or raised."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            tx = begin(room, resume="always", **how)
        except ResumeError as error:
            return None, str(error)
    return tx, "; ".join(str(w.message) for w in told)


__all__ = ["CONFIG", "NEW", "OLD", "RUNNERS", "UNITS", "begin", "do", "left", "resumed", "run_job"]
