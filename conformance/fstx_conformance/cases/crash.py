"""Level "crash": a process is killed at every call that changes something."""

from __future__ import annotations

from collections.abc import Iterator

from fstx_conformance.cases import case
from fstx_conformance.lab import Lab
from fstx_conformance.results import Level
from fstx_conformance.scenes import Scene
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
    deaths = {"quick": 3 * len(scenes), "standard": 12 * len(scenes)}
    firsts = list(_some_with_work(lab, scenes) if lab.dear else _spread(lab, scenes, deaths))
    for scene, first in firsts:
        parts = len(firsts)
        lab.sweep([scene], ["kill"], agent="recoverer", first=first, share=1 / parts, parts=parts)


def _spread(lab: Lab, scenes: list[Scene], deaths: dict[str, int]) -> Iterator[tuple[Scene, Fault]]:
    """Each scene, killed at calls that are spread evenly over it."""
    for scene in scenes:
        count = lab._count(scene, "+", "writer")
        step = max(1, count // (deaths.get(lab.profile, count * len(scenes)) // len(scenes)))
        for k in range(1 + lab.rng.randrange(step), count + 1, step):
            yield scene, Fault("+", k, "kill-after")


def _some_with_work(lab: Lab, scenes: list[Scene]) -> Iterator[tuple[Scene, Fault]]:
    """Few kills, in scenes that the seed draws, of which a recovery has something to do."""
    most = 1 if lab.profile == "quick" else 3
    for scene in lab.rng.sample(scenes, len(scenes)):
        count, moments, _ = lab._numbers(scene, "+", "writer", None, None)
        first = Fault("+", max(1, min(moments, default=count) - 1), "kill-after")
        found = lab.undisturbed(scene, first)
        if most and any(changing for _, _, changing in found.calls.get("recoverer", ())):
            most -= 1
            yield scene, first
        if not most:
            return


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
