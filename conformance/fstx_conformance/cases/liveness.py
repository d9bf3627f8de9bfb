"""Level "liveness": when faults have stopped, everything ends, and the place works."""

from __future__ import annotations

import math
from functools import partial

from fstx_conformance.cases import case
from fstx_conformance.dead import WRITERS, Graves, run_dead, run_dead_collection
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.races import Calls, at_each_call
from fstx_conformance.results import Level
from fstx_conformance.schedule import Fault, Schedule

_SEAMS = ("ops", "store", "files")
_RULES = ("BACKEND-36", "BACKEND-38", "BACKEND-42")


@case(Level.LIVENESS, "after-a-kill", *_RULES, fires=("kill",), sees=("died",), seams=_SEAMS)
def killed(lab: Lab) -> None:
    """After a kill at each call recovery ends and finds nothing again; the next one works without it, too."""
    sweeps = [
        Calls(str(graves), partial(run_dead, graves), lambda k: (Fault("+", k, "kill"),), op="+")
        for graves in (Graves(), Graves(recovered=False))
    ]
    at_each_call(lab, sweeps, max(2, lab.trials(0.2)))


@case(
    Level.LIVENESS,
    "after-an-outage",
    *_RULES,
    "BACKEND-26",
    fires=("fail", "lost-reply"),
    seams=_SEAMS,
)
def outage(lab: Lab) -> None:
    """After an outage that began at any call and is over: the same."""
    sweeps = [
        Calls(
            str(Graves()),
            partial(run_dead, Graves()),
            lambda k, action=action: (Fault("*", k, action, sticky=True),),  # type: ignore[misc]
        )
        for action in ("fail", "lost-reply")
    ]
    at_each_call(lab, sweeps, max(2, lab.trials(0.12)))


@case(
    Level.LIVENESS,
    "three-dead",
    *_RULES,
    "BACKEND-37",
    fires=("kill", "switch"),
    sees=("died",),
    seams=_SEAMS,
)
def three(lab: Lab) -> None:
    """Three writers die at once, at different calls of different work."""
    graves = Graves(3)
    run = partial(run_dead, graves)
    if lab.replay is not None:
        lab.experiment(str(graves), lab.replay, run)
        return
    together = tuple(Fault("step", 2, "switch", agent=w.name) for w in WRITERS)
    quiet = lab.quiet(str(graves), run, together)
    counts = {name: sum(c[2] for c in calls) for name, calls in quiet.calls.items()}
    lab.sample.of += 1
    lab.sample.add(many := lab.trials(0.2, parts=2), math.prod(counts[w.name] for w in WRITERS))
    for _ in range(many):
        kills = tuple(
            Fault("+", 1 + lab.rng.randrange(max(1, counts[w.name])), "kill", agent=w.name)
            for w in WRITERS
        )
        lab.experiment(str(graves), Schedule((*together, *kills), lab.seed), run)


@case(
    Level.LIVENESS,
    "dead-recoverer",
    *_RULES,
    "BACKEND-37",
    "RECOVER-2",
    "RECOVER-6",
    fires=("kill", "fail"),
    sees=("died",),
    seams=_SEAMS,
)
def recoverer(lab: Lab) -> None:
    """The recoverer dies at each of its calls, or storage fails under it: the next one ends the work."""
    run = partial(run_dead, Graves())
    if lab.replay is not None:
        lab.experiment(str(Graves()), lab.replay, run)
        return
    quiet = lab.quiet(str(Graves()), run)
    count = sum(c[2] for c in quiet.calls["writer"])
    deaths = {"quick": 2, "standard": 8}.get(lab.profile, count)
    deaths = min(count, max(1, lab.trials() // 3) if lab.dear else deaths)
    firsts = [
        Fault("+", 1 + int((n + lab.rng.random()) * count / deaths), "kill") for n in range(deaths)
    ]
    sweeps = [
        Calls(
            str(Graves()),
            run,
            lambda k, first=first, action=action: (  # type: ignore[misc]
                first,
                Fault("+", k, action, agent="recoverer", sticky=action == "fail"),
            ),
            agent="recoverer",
            op="+",
            first=(first,),
        )
        for first in firsts
        for action in ("kill", "fail")
    ]
    at_each_call(lab, sweeps, max(2, lab.trials(0.2 / deaths)))


@case(
    Level.LIVENESS,
    "dead-collector",
    "LOG-8",
    "LOG-10",
    "BACKEND-42",
    fires=("kill", "fail"),
    seams=("store",),
)
def collector(lab: Lab) -> None:
    """A collection dies at each of its calls, or storage fails under it: the next one leaves nothing."""
    with lab.room() as room:
        if not hasattr(room, "dataset"):
            raise NotApplicable("the storage keeps no versions, so there is nothing to collect")
    sweeps = [
        Calls(
            "a dead collection",
            run_dead_collection,
            lambda k, action=action: (Fault("*", k, action, agent="collector"),),  # type: ignore[misc]
            agent="collector",
        )
        for action in ("kill", "fail")
    ]
    at_each_call(lab, sweeps, max(2, lab.trials(0.2)))
