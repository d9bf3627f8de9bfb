"""Transactions that are open side by side: apart from each other, and left alone by recovery."""

from __future__ import annotations

from functools import partial

from fstx.errors import ConflictError, TransactionError
from fstx.types import OutcomeState
from fstx_conformance.cases import case
from fstx_conformance.checks import OLD, place, same
from fstx_conformance.injector import Injector
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.races import Calls, at_each_call, note
from fstx_conformance.results import Level
from fstx_conformance.scenes import BIG, SCENES, Scene, text
from fstx_conformance.schedule import Fault, Schedule
from fstx_conformance.subjects.base import Process, Room
from fstx_conformance.trial import Trial, afterwards, diff, perform, prepare
from fstx_conformance.turns import elsewhere


@case(
    Level.SEMANTICS,
    "apart",
    "BACKEND-6",
    "BACKEND-7",
    "BACKEND-25",
    "BACKEND-32",
    sees=("committed", "aborted"),
)
def apart(lab: Lab) -> None:
    """Of two open transactions none has a part of the other's, whichever ends first and how."""
    for committed in (True, False):
        with place(lab) as room:
            one = room.begin()
            try:
                two = room.begin()
            except ConflictError:
                one.rollback()
                raise NotApplicable("a target has one open transaction at a time here") from None
            one.stage("one", text("one", BIG))
            one.remove("a")
            two.stage("two", text("two", BIG))
            seen = list(two.paths())
            wanted = sorted({*OLD, "two"})
            lab.check(seen == wanted, f"a transaction sees {seen}, not {wanted}, beside another")
            lab.check("two" not in list(one.paths()), "one transaction sees what the other staged")
            if committed:
                one.commit()
                tree = {path: data for path, data in OLD.items() if path != "a"}
                tree["one"] = text("one", BIG)
            else:
                one.rollback()
                tree = dict(OLD)
            lab.seen["committed" if committed else "aborted"] += 1
            same(lab, room, tree, "when one of two ended")
            two.commit()
            lab.seen["committed"] += 1
            same(lab, room, {**tree, "two": text("two", BIG)}, "when both ended")


@case(
    Level.FENCING,
    "living",
    "BACKEND-39",
    "BACKEND-24",
    fires=("fence",),
    sees=("committed",),
    seams=("ops", "store", "files"),
)
def living(lab: Lab) -> None:
    """Others recover at each call of a writer that lives by all signs: it is left alone, and commits."""
    sweeps = [
        Calls(name, partial(_left_alone, SCENES[name]), lambda k: (Fault("*", k, "fence"),))
        for name in ("update", "create", "index")
    ]
    at_each_call(lab, sweeps, lab.trials(0.12, 3))


def _left_alone(scene: Scene, room: Room, schedule: Schedule) -> Trial:
    trial = Trial(scene, schedule)
    with Process.alone():
        trial.promised = prepare(room, scene)
    process = Injector(schedule.faults, history=trial.history)

    def others() -> None:
        recoverer = Injector(agent="recoverer", history=trial.history)
        try:
            found = room.open(recoverer).recover()
        except TransactionError as error:
            trial.history.add(f"recoverer: {type(error).__name__}: {error}")
        else:
            for settled in found.settled:
                trial.history.add(f"recoverer: {settled.state} {settled.txid}")
                if settled.state is OutcomeState.ABORTED:
                    trial.problem("recovery gave up a writer that lives (BACKEND-39)")
        recoverer.die()

    process.hooks["fence"] = partial(elsewhere, others)
    with Process.alone():
        told = perform(room, scene, process, trial)
        told.error = None
    trial.told.append(told.word)
    process.die()
    note(trial, process)
    if told.word != "committed":
        trial.problem(f"told {told.word}, though others only recovered (BACKEND-39)")
    elif (tree := room.read()) != scene.new:
        trial.problem(f"told committed, and readers find {diff(tree, scene.new)} (BACKEND-24)")
    else:
        afterwards(room, trial, told, leftovers=True)
    return trial
