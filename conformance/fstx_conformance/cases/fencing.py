"""Level "fencing": writers that are taken for dead and go on, and collections while others work."""

from __future__ import annotations

from functools import partial

from fstx.types import Capability
from fstx_conformance.cases import case
from fstx_conformance.collecting import MEETINGS, Meeting, meet
from fstx_conformance.fences import Fence, run_fence
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.races import Calls, at_each_call
from fstx_conformance.results import Level
from fstx_conformance.sampling import divided
from fstx_conformance.scenes import Scene
from fstx_conformance.schedule import Fault, Schedule
from fstx_conformance.turns import interleavings, switches

_SEAMS = ("ops", "store", "files")
_RULES = ("BACKEND-40", "BACKEND-25", "BACKEND-30", "RECOVER-1", "LOG-5", "EFFECT-6")
_PUT = Fault("put_new", 1, "late", key="log/*")
_SURE = {  # where the one meets the other for certain
    "writer": (("step", 3, "*"), ("put_new", 1, "log/*")),
    "reader": (("step", 2, "*"),),
    "collector": (("put_new", 1, "log/*"), ("list", 1, "pin/*")),
}


# --- fences ---------------------------------------------------------------------------------------------


@case(
    Level.FENCING, "fenced", *_RULES, fires=("fence",), sees=("committed", "fenced"), seams=_SEAMS
)
def fenced(lab: Lab) -> None:
    """Taken for dead and settled at each call, a writer goes on: what recovery said stays."""
    _sweep(lab, lab.scenes("create", "update", "replace", "index"), Fence(), 0.4)


@case(
    Level.FENCING,
    "fenced-and-overtaken",
    *_RULES,
    "BACKEND-21",
    fires=("fence",),
    sees=("committed", "fenced"),
    seams=_SEAMS,
)
def overtaken(lab: Lab) -> None:
    """The same, and another writer commits before it goes on: nothing of that is lost."""
    _sweep(lab, lab.scenes("create", "update", "replace"), Fence(rival=True), 0.3)


@case(
    Level.FENCING,
    "late-after-fence",
    *_RULES,
    "LOG-7",
    "MANIFEST-10",
    fires=("fence", "late"),
    seams=("store",),
)
def late(lab: Lab) -> None:
    """Its record is still under way when it is given up, and arrives afterwards: it counts no more."""
    sweeps = [
        Calls(
            f"{scene.name}{fence}",
            partial(run_fence, scene, fence),
            lambda k: (_PUT, Fault("*", k, "fence")),
            first=(_PUT,),
        )
        for scene in lab.scenes("update", "create", "index")
        for fence in (Fence(), Fence(rival=True))
    ]
    at_each_call(lab, sweeps, lab.trials(0.04))


def _sweep(lab: Lab, scenes: list[Scene], fence: Fence, share: float) -> None:
    sweeps = [
        Calls(
            f"{scene.name}{fence}",
            partial(run_fence, scene, fence),
            lambda k: (Fault("*", k, "fence"),),
        )
        for scene in scenes
    ]
    at_each_call(lab, sweeps, lab.trials(share / max(1, len(scenes))))
    if lab.fired["fence"] and not lab.failures:
        lab.kept.add(Capability.FENCED)


# --- collection -------------------------------------------------------------------------------------------


@case(
    Level.FENCING,
    "collect",
    "LOG-7",
    "LOG-8",
    "LOG-9",
    "LOG-10",
    "LOG-12",
    "BACKEND-22",
    "BACKEND-42",
    fires=("switch",),
    sees=("committed",),
)
def collect(lab: Lab) -> None:
    """Collection at each call of a writer, of a reader that pins, of another one: nothing is missed."""
    _meet(lab, [m for m in MEETINGS if not m.spare], 0.35)


@case(
    Level.FENCING,
    "truncate",
    "LOG-1",
    "LOG-2",
    "LOG-3",
    "LOG-4",
    "LOG-10",
    "MANIFEST-4",
    fires=("switch",),
    sees=("committed",),
)
def truncate(lab: Lab) -> None:
    """The log is cut off at each call of a writer, its put being under way or not: it is told the truth."""
    meetings = [m for m in MEETINGS if m.spare]
    _meet(lab, meetings, 0.2, parts=2)
    puts = [Fault("put_new", 1, action, key="log/*") for action in ("late", "lost-reply")]
    sweeps = [
        Calls(
            meeting.name,
            partial(meet, meeting),
            lambda k, put=put: (put, Fault("*", k, "switch")),  # type: ignore[misc]
            first=(put,),
        )
        for meeting in meetings
        for put in puts
        if meeting.agents[0] == "writer" or not lab.dear
    ]
    if lab.replay is None:
        at_each_call(lab, sweeps, lab.trials(0.04, parts=2))


def _meet(lab: Lab, meetings: list[Meeting], share: float, parts: int = 1) -> None:
    with lab.room() as room:
        if not hasattr(room, "dataset"):
            raise NotApplicable("the storage keeps no versions, so there is nothing to collect")
    lab.sample.of += len(meetings) if lab.replay is None else 0
    if lab.replay is None:  # on a dear storage some of them, drawn by the seed
        meetings = divided(meetings, lab.budget, 4 if lab.dear else 2, lab.rng)
    for meeting in meetings:
        run = partial(meet, meeting)
        if lab.replay is not None:
            if lab.replay.scene in ("", meeting.name):
                lab.experiment(meeting.name, lab.replay, run)
            continue
        quiet = lab.quiet(meeting.name, run)
        counts = {name: len(calls) for name, calls in quiet.calls.items()}
        sure = [
            (Fault(op, nth, "switch", key=key, agent=meeting.agents[0]),)
            for op, nth, key in _SURE.get(meeting.agents[0], ())
        ]
        limit = lab.trials(share / len(meetings), parts=parts * len(meetings))
        if lab.dear:
            sure = sure[:limit]
            limit -= len(sure)
        spread = list(switches(counts, limit, lab.rng.random())) if limit else []
        for faults in (*sure, *spread):
            lab.experiment(meeting.name, Schedule(faults, lab.seed), run)
        lab.sample.add(1 + len(sure) + len(spread), interleavings(counts))
    if lab.fired["switch"] and not lab.failures:
        lab.kept.add(Capability.SNAPSHOTS)
