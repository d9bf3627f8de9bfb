"""Level "resume": jobs that are killed and go on, workers that run twice or outlive their job."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

from fstx.errors import FencedError, StateError
from fstx.types import Capability
from fstx_conformance import jobs
from fstx_conformance.cases import case
from fstx_conformance.checks import place, refused, same
from fstx_conformance.jobs import NEW, OLD, UNITS
from fstx_conformance.lab import Lab
from fstx_conformance.races import Calls, at_each_call
from fstx_conformance.results import Level
from fstx_conformance.scenes import BIG, text
from fstx_conformance.schedule import Fault
from fstx_conformance.subjects.base import Process, Room

_SEAMS = ("ops", "store", "files")


@case(
    Level.RESUME,
    "kill-at-every-step",
    "RESUME-1",
    "RESUME-2",
    "RESUME-3",
    "RESUME-6",
    "RESUME-8",
    "RESUME-9",
    fires=("kill",),
    sees=("committed", "died"),
    seams=_SEAMS,
)
def kill(lab: Lab) -> None:
    """Killed at each call, and again when it goes on: finished units count, and the set is exact, once."""
    sweeps = [
        Calls("job", jobs.run_job, lambda k: (Fault("*", k, "kill"),)),
        Calls(
            "job again",
            jobs.run_job,
            lambda k: (
                Fault("*", k, "kill"),
                Fault("*", max(1, k // 2), "kill", agent=jobs.RUNNERS[1]),
            ),
        ),
    ]
    at_each_call(lab, sweeps, lab.trials(0.5, parts=2))


@case(Level.RESUME, "mismatch", "RESUME-4", "RESUME-5", "RESUME-7")
def mismatch(lab: Lab) -> None:
    """Another configuration, none, and one that can't be read: three answers, and what is kept stays."""
    with place(lab, OLD) as room:
        told = [jobs.resumed(room)[1]]
        tx = jobs.begin(room)
        for name in ("0", "2"):
            jobs.do(tx, name)
        tx.suspend()
        told.append(jobs.resumed(room, config={"kit": "another"})[1])
        other = jobs.begin(room, config={"kit": "another"})
        taken = set(other.done)
        other.rollback()
        lab.check(not taken, "a job took the units of another configuration")
        room.recover()
        depots: Any = room.open()
        (name,) = depots.depots(None).names()
        depot = depots.depots(None).open(name)
        record = depot.get_job()
        depot.put_job(b"no record")
        told.append(jobs.resumed(room)[1])
        lab.check(all(told), f"something that can't be resumed was resumed: {told}")
        lab.check(len(set(told)) == 3, f"missing, other and unreadable are told alike: {told}")
        depot.put_job(record)
        with jobs.begin(room, resume="always") as again:
            done = set(again.done)
            lab.check(done == {"0", "2"}, f"kept were units 0 and 2, not {done}")
            same(lab, room, OLD, "while a job waits")
            _rest(again)
        lab.seen["committed"] += 1
        same(lab, room, NEW, "when the job is done")


@case(Level.RESUME, "torn-unit", "RESUME-2", "RESUME-3", "RESUME-1")
def torn(lab: Lab) -> None:
    """Lines that are damaged or cut off count as nothing; a unit whose object is gone is done again."""
    with place(lab, OLD) as room:
        with Process.alone():
            tx = jobs.begin(room)
            for name in ("0", "2", "3"):
                jobs.do(tx, name)
            lost = tx.done["2"].objects[1].object
            tx.suspend()
        backend: Any = room.open()
        (name,) = backend.depots(None).names()
        depot = backend.depots(None).open(name)
        depot.append(b"no line of a unit\n")
        depot.append(b"cut o")
        depot.close()
        depot.delete([lost.key])
        with Process.alone():
            again, _ = jobs.resumed(room)
            if again is None:
                lab.problem("a job whose log has a damaged line can't be resumed")
                return
            with again:
                lab.check(
                    set(again.done) == {"0", "3"},
                    f"object {lost.path} of unit 2 is gone, and units {sorted(again.done)} count",
                )
                _rest(again)
            lab.seen["committed"] += 1
        same(lab, room, NEW, "after a job that lost an object")


@case(Level.RESUME, "late-workers", "RESUME-10", "RESUME-9", "BACKEND-9", sees=("fenced",))
def late_workers(lab: Lab) -> None:
    """A worker that goes on when its job is committed or given up is told, and leaves nothing."""
    for end in ("commit", "rollback"):
        with place(lab, OLD) as room:
            tx = jobs.begin(room)
            stagers = [tx.unit_stager(), *_elsewhere(lab, room, tx.unit_stager())]
            tx.finish("0", [stagers[-1].stage("u/0", UNITS["0"]["u/0"])])
            getattr(tx, end)()
            before = room.read()
            for stager in stagers:
                for path in ("u/0", "u/9"):
                    told = refused(
                        lab,
                        FencedError,
                        lambda stager=stager, path=path: stager.stage(path, text("late", BIG)),  # type: ignore[misc]
                        f"stage({path!r}) after {end}",
                    )
                    lab.seen["fenced"] += isinstance(told, FencedError)
            lab.check(not jobs.left(room), f"late workers left {jobs.left(room)} after {end}")
            same(lab, room, before, f"after late workers of a job ({end})")


@case(Level.RESUME, "duplicates", "BACKEND-7", "BACKEND-9", "RESUME-1", sees=("committed",))
def duplicates(lab: Lab) -> None:
    """Tasks that ran twice, of a transaction and of a job: each attempt has its own bytes, one counts."""
    one, two = text("first attempt", BIG), text("second attempt", 700)
    with place(lab, OLD) as room, contextlib.ExitStack() as stack:
        with room.begin() as tx:
            stager = (_elsewhere(lab, room, tx.stager()) or [tx.stager()])[0]
            a, b = tx.stager().stage("x", one), stager.stage("x", two)
            stager.stage("y", one)  # its answer was lost
            tx.adopt([a, a])
            tx.adopt([b])
            tx.adopt([b])
        same(lab, room, {**OLD, "x": two}, "when the later of two attempts was adopted")
        other = jobs.begin(room, config={"kit": "other"}, id="others")
        strange = other.unit_stager().stage("w", two)
        other.rollback()
        job = jobs.begin(room, id="duplicates")
        stack.callback(job.rollback)  # nothing, once it is over
        stager = (_elsewhere(lab, room, job.unit_stager()) or [job.unit_stager()])[0]
        a, b = job.unit_stager().stage("z", one), stager.stage("z", two)
        first, again = job.finish("1", [a]), job.finish("1", [b])
        lab.check(first == again, "a unit that was finished was finished anew")
        refused(lab, StateError, lambda: job.finish("2", [strange]), "a receipt of another job")
        job.commit()
        lab.seen["committed"] += 2
        same(lab, room, {**OLD, "x": two, "z": one}, "when a unit was finished twice")
        lab.check(not jobs.left(room), f"{jobs.left(room)} is left")


def _rest(tx: Any) -> None:
    for name in tx.remaining(UNITS):
        jobs.do(tx, name)
    tx.stage("index", NEW["index"])


def _elsewhere(lab: Lab, room: Room, stager: Any) -> list[Any]:
    """The stager as another process gets it, where that is promised."""
    told = room.open().guarantee(mode="update", durability="data")
    if not lab.subject.processes or Capability.REMOTE_STAGING not in told:
        return []
    return [pickle.loads(pickle.dumps(stager))]
