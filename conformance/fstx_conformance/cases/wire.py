"""Level "ambiguity", below the retries of every client: faults on the wire, by a proxy before the server.

For storage whose options name a server. Without a seam in the backend, and also for clients that fstx does
not know from inside.
"""

from __future__ import annotations

from fstx_conformance.cases import case
from fstx_conformance.lab import Lab
from fstx_conformance.results import Level
from fstx_conformance.wire.scenes import EntryDocument, InPlace, RootLast, Versioned
from fstx_conformance.wire.sweep import AMBIGUOUS, LATE, READS, Wire

_TRUE = ("BACKEND-24", "BACKEND-25", "BACKEND-26", "BACKEND-28", "BACKEND-30")
_MORE = ("standard", "exhaustive")
_SCENES = (Versioned, EntryDocument, RootLast, InPlace)


@case(
    Level.AMBIGUITY,
    "wire-lost",
    *_TRUE,
    "BACKEND-27",
    "MANIFEST-3",
    "MANIFEST-5",
    fires=("reset-after",),
    sees=("committed",),
)
def lost(lab: Lab) -> None:
    """The answer to a request that changes something is lost, below the client's own retries."""
    scenes = _SCENES if lab.profile != "quick" else (Versioned, EntryDocument)
    Wire(lab).sweep(scenes, ["reset-after"])


@case(Level.AMBIGUITY, "wire-late", *_TRUE, "MANIFEST-10", "PROJECT-3", fires=tuple(sorted(LATE)))
def late(lab: Lab) -> None:
    """A request arrives late, or once more, when others have gone on: nothing told becomes untrue."""
    wire = Wire(lab)
    if lab.profile == "quick":
        wire.sweep((Versioned, EntryDocument), ["late"], step=3, late=("after",))
        wire.sweep((Versioned, EntryDocument), ["zombie"], step=4, late=("between",))
        return
    every = lab.profile == "exhaustive"
    wire.sweep(_SCENES, sorted(LATE), late=("before", "between", "after") if every else ("after",))


@case(
    Level.AMBIGUITY,
    "wire-errors",
    *_TRUE,
    "BACKEND-29",
    "BACKEND-42",
    sees=("committed", "aborted"),
    profiles=_MORE,
)
def errors(lab: Lab) -> None:
    """Every other fault at every request that changes something: errors, stalls, repetitions, damage."""
    step = 1 if lab.profile == "exhaustive" else 3
    actions = [a for a in AMBIGUOUS if a not in LATE and a != "reset-after"]
    Wire(lab).sweep(_SCENES, actions, step=step)


@case(Level.AMBIGUITY, "wire-reads", "BACKEND-25", "BACKEND-29", profiles=_MORE)
def reads(lab: Lab) -> None:
    """Requests that read are refused, cut short, damaged or never answered."""
    Wire(lab).sweep(_SCENES, READS, op="GET", step=2 if lab.profile == "exhaustive" else 9)


@case(
    Level.AMBIGUITY,
    "wire-outage",
    *_TRUE,
    "BACKEND-38",
    "MANIFEST-9",
    sees=("aborted",),
    profiles=_MORE,
)
def outage(lab: Lab) -> None:
    """From one request on none is answered any more, or none is let in: then the server is back."""
    step = 2 if lab.profile == "exhaustive" else 7
    wire = Wire(lab)
    wire.sweep(_SCENES, ["reset-after", "status-503"], sticky=True, step=step)
    wire.sweep(_SCENES, ["reset-before"], op="*", sticky=True, step=4 * step)


@case(Level.AMBIGUITY, "wire-keyed", "BACKEND-30", "BACKEND-31", profiles=_MORE)
def keyed(lab: Lab) -> None:
    """With an id that the caller chose, the outcome is known also of what is finished."""
    step = 1 if lab.profile == "exhaustive" else 2
    Wire(lab).sweep(_SCENES, ["reset-after", "status-403"], step=step, id="job 7")


@case(Level.AMBIGUITY, "wire-client-retries", *_TRUE, profiles=_MORE)
def client_retries(lab: Lab) -> None:
    """A client that repeats requests itself, as its user told it to: it meets its own first attempts."""
    step = 1 if lab.profile == "exhaustive" else 2
    Wire(lab, attempts=4).sweep(_SCENES, ["reset-after", "status-503-after"], step=step)
