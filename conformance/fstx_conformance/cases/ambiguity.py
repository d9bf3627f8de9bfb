"""Level "ambiguity": answers that are lost, doubled, late, or errors of what was done."""

from __future__ import annotations

from fstx_conformance.cases import case
from fstx_conformance.lab import Lab
from fstx_conformance.results import Level

_SEAMS = ("ops", "store", "files")


@case(
    Level.AMBIGUITY,
    "lost",
    "BACKEND-24",
    "BACKEND-25",
    "BACKEND-26",
    "BACKEND-27",
    "BACKEND-28",
    "BACKEND-30",
    fires=("lost-reply", "lost-request"),
    sees=("committed",),
    seams=_SEAMS,
)
def lost(lab: Lab) -> None:
    """An answer lost before or after the call took effect: what is told is true."""
    lab.sweep(lab.scenes(), ["lost-reply", "lost-request"], op="*")


@case(
    Level.AMBIGUITY,
    "late",
    "BACKEND-25",
    "MANIFEST-9",
    "MANIFEST-10",
    fires=("late",),
    seams=("store",),
)
def late(lab: Lab) -> None:
    """A request that is told of as lost arrives after everybody has gone: nothing told becomes untrue."""
    lab.sweep(lab.scenes(), ["late"])


@case(
    Level.AMBIGUITY, "duplicate", "BACKEND-28", "MANIFEST-5", fires=("duplicate",), seams=("store",)
)
def duplicate(lab: Lab) -> None:
    """A request that is made twice, as clients do that try again inside: no conflict with oneself."""
    lab.sweep(lab.scenes(), ["duplicate"], share=0.6)


@case(
    Level.AMBIGUITY,
    "refused",
    "BACKEND-11",
    "BACKEND-25",
    "BACKEND-29",
    fires=("fail",),
    sees=("aborted",),
    seams=_SEAMS,
)
def refused(lab: Lab) -> None:
    """A call that fails, once: given up with the tree as it was, or carried through."""
    lab.sweep(lab.scenes(), ["fail"], op="*")


@case(
    Level.AMBIGUITY,
    "outage",
    "BACKEND-25",
    "BACKEND-26",
    fires=("fail", "lost-request"),
    seams=_SEAMS,
)
def outage(lab: Lab) -> None:
    """Storage that is gone from one call on: what is told stays true when it is back."""
    scenes = lab.scenes("create", "update", "index", "keyed")
    lab.sees = ("unknown",)  # nowhere is it likelier
    lab.sweep(scenes, ["fail", "lost-request"], op="*", sticky=True, parts=2)
    lab.sweep(scenes, ["lost-reply"], op="*", sticky=True, share=0.5, parts=3)
    lab.sees = ()
