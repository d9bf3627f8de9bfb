"""Level "crash": a process is killed at every call that changes something."""

from __future__ import annotations

from fstx_conformance.cases import case
from fstx_conformance.lab import Lab
from fstx_conformance.results import Level
from fstx_conformance.schedule import Fault

_SEAMS = ("ops", "store", "files")


@case(
    Level.CRASH,
    "kill",
    "BACKEND-35",
    "BACKEND-36",
    "BACKEND-18",
    "BACKEND-17",
    "BACKEND-19",
    "BACKEND-30",
    "BACKEND-31",
    fires=("kill", "kill-after"),
    sees=("died", "committed"),
    seams=_SEAMS,
)
def kill(lab: Lab) -> None:
    """Killed before and after each changing call: old or new, and the next transaction works."""
    lab.sweep(lab.scenes(), ["kill", "kill-after"])


@case(
    Level.CRASH, "torn", "BACKEND-17", "BACKEND-35", fires=("torn",), sees=("died",), seams=_SEAMS
)
def torn(lab: Lab) -> None:
    """Killed when half of a call is done: no reader finds a part of an object."""
    lab.sweep(lab.scenes("create", "update", "streamed"), ["torn"], share=0.5)


@case(
    Level.CRASH,
    "kill-in-recovery",
    "BACKEND-37",
    "RECOVER-6",
    fires=("kill",),
    sees=("died",),
    seams=_SEAMS,
    profiles=("quick", "standard", "exhaustive"),
)
def kill_in_recovery(lab: Lab) -> None:
    """Killed, and the recoverer killed too: the next recoverer ends it."""
    if lab.replay is not None:
        lab.sweep(lab.scenes(), ["kill"])
        return
    scenes = lab.scenes("update", "replace", "index", "create")
    for scene in scenes:
        count = lab._count(scene, "+", "writer", None, None)
        most = {"quick": 3 if lab.subject.cost < 10 else 1, "standard": 12}.get(lab.profile, count)
        step = max(1, count // most)
        for k in range(1 + lab.rng.randrange(step), count + 1, step):
            first = Fault("+", k, "kill-after")
            share = 1 / (len(scenes) * most)
            lab.sweep([scene], ["kill"], agent="recoverer", first=first, share=share)


@case(
    Level.CRASH,
    "interrupt",
    "BACKEND-33",
    fires=("interrupt",),
    sees=("interrupted", "committed"),
    seams=_SEAMS,
)
def interrupt(lab: Lab) -> None:
    """Ctrl-C at each call: old or new, and nothing is left over."""
    lab.sweep(lab.scenes("create", "update", "index"), ["interrupt", "interrupt-after"], share=0.6)
