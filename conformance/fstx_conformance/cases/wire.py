"""Level "ambiguity", below the retries of every client: faults on the wire, by a proxy before the server.

For storage whose options name a server. Without a seam in the backend, and also for clients that fstx does
not know from inside.
"""

from __future__ import annotations

from fstx_conformance.cases import case
from fstx_conformance.lab import Lab
from fstx_conformance.results import Level
from fstx_conformance.wire.scenes import SCENES, STREAMED, EntryDocument, Versioned
from fstx_conformance.wire.sweep import AMBIGUOUS, LATE, READS, Wire

_TRUE = ("BACKEND-24", "BACKEND-25", "BACKEND-26", "BACKEND-28", "BACKEND-30")
_MORE = ("standard", "exhaustive")


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
    if lab.profile == "quick":
        Wire(lab).sweep((Versioned, EntryDocument), ["reset-after"], runs=3)
    else:
        Wire(lab).sweep(SCENES, ["reset-after"])


@case(Level.AMBIGUITY, "wire-late", *_TRUE, "MANIFEST-10", "PROJECT-3", fires=tuple(sorted(LATE)))
def late(lab: Lab) -> None:
    """A request arrives late, or once more, when others have gone on: nothing told becomes untrue."""
    wire = Wire(lab)
    for action in sorted(LATE):
        if lab.profile == "quick":
            wire.sweep((Versioned, EntryDocument), [action], runs=1, late=("between", "after"))
        else:
            wire.sweep(SCENES, [action], runs=_runs(lab, 18))


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
    """Every other fault at requests that change something: errors, stalls, repetitions, damage."""
    actions = [a for a in AMBIGUOUS if a not in LATE and a != "reset-after"]
    Wire(lab).sweep(SCENES, actions, runs=_runs(lab, 60))


@case(Level.AMBIGUITY, "wire-reads", "BACKEND-25", "BACKEND-29", profiles=_MORE)
def reads(lab: Lab) -> None:
    """Requests that read are refused, cut short, damaged or never answered."""
    Wire(lab).sweep(SCENES, READS, op="GET", runs=_runs(lab, 25))


@case(
    Level.AMBIGUITY,
    "wire-stale",
    "BACKEND-24",
    "BACKEND-25",
    "MANIFEST-2",
    fires=("stale",),
    profiles=_MORE,
)
def stale(lab: Lab) -> None:
    """A listing or a read answers what it answered before: told is only what is true all the same."""
    Wire(lab).sweep(SCENES, ["stale"], op="GET", runs=_runs(lab, 20))


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
    wire = Wire(lab)
    wire.sweep(SCENES, ["reset-after", "status-503"], sticky=True, runs=_runs(lab, 9))
    wire.sweep(SCENES, ["reset-before"], op="*", sticky=True, runs=_runs(lab, 6))


@case(Level.AMBIGUITY, "wire-keyed", "BACKEND-30", "BACKEND-31", profiles=_MORE)
def keyed(lab: Lab) -> None:
    """With an id that the caller chose, the outcome is known also of what is finished."""
    Wire(lab).sweep(SCENES, ["reset-after", "status-403"], runs=_runs(lab, 10), id="job 7")


@case(Level.AMBIGUITY, "wire-client-retries", *_TRUE, profiles=_MORE)
def client_retries(lab: Lab) -> None:
    """A client that repeats requests itself, as its user told it to: it meets its own first attempts."""
    wire = Wire(lab, attempts=4)
    wire.sweep(SCENES, ["reset-after", "status-503-after"], runs=_runs(lab, 10))


@case(
    Level.HYGIENE,
    "wire-uploads",
    "BACKEND-42",
    "BACKEND-24",
    "BACKEND-25",
    sees=("committed",),
    profiles=_MORE,
)
def uploads(lab: Lab) -> None:
    """Objects of several parts, each request of an upload gone wrong: no upload stays open."""
    wire = Wire(lab)
    actions = ["reset-after", "status-403", "status-503-after", "zombie"]
    wire.sweep(STREAMED, actions, runs=_runs(lab, 10), late=("after",))
    wire.sweep(STREAMED, ["reset-before"], sticky=True, runs=_runs(lab, 3))


def _runs(lab: Lab, standard: int) -> int | None:
    """How many runs the profile allows; None: all."""
    if lab.profile == "exhaustive":
        return None
    return max(2, standard // 3) if lab.dear else standard
