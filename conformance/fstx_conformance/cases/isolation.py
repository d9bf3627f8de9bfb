"""Level "isolation": writers and readers that meet."""

from __future__ import annotations

from fstx_conformance.cases import case
from fstx_conformance.lab import Lab
from fstx_conformance.races import Race, Writer, races
from fstx_conformance.results import Level
from fstx_conformance.scenes import BIG, text

_OLD = {
    "a": text("old a"),
    "b": text("old b", BIG),
    "d/x": text("old x"),
    "d/y": text("old y", BIG),
}


def _one(path: str, name: str, size: int = 40) -> Writer:
    return Writer(name, {path: text(f"{path} of {name}", size)})


@case(
    Level.ISOLATION,
    "disjoint",
    "BACKEND-21",
    "BACKEND-24",
    "BACKEND-28",
    "LOG-4",
    fires=("switch",),
    sees=("committed",),
)
def disjoint(lab: Lab) -> None:
    """Two writers of different paths: both land, or one is told of a conflict; nothing is lost."""
    race = Race("disjoint", _OLD, (_one("a", "writer"), _one("n/b", "rival", BIG)))
    races(lab, [race], 0.25)


@case(
    Level.ISOLATION,
    "same-path",
    "BACKEND-21",
    "BACKEND-24",
    "BACKEND-25",
    "LOG-4",
    "CTRL-5",
    fires=("switch",),
    sees=("committed", "conflict"),
)
def same_path(lab: Lab) -> None:
    """Two writers of one path: the second to commit is told of a conflict, or came after the first."""
    races(lab, [Race("same path", _OLD, (_one("a", "writer"), _one("a", "rival")))], 0.4)


@case(
    Level.ISOLATION,
    "create",
    "BACKEND-15",
    "BACKEND-25",
    fires=("switch",),
    sees=("committed", "conflict"),
)
def create(lab: Lab) -> None:
    """Two and three that create one target: one commits, the others are refused and change nothing."""
    names = ("writer", "rival", "third")
    made = tuple(
        Writer(n, {"a": text(f"a of {n}"), f"{n}/b": text(n, BIG)}, mode="create") for n in names
    )
    races(lab, [Race("create by two", {}, made[:2]), Race("create by three", {}, made)], 0.4)


@case(
    Level.ISOLATION,
    "replace",
    "BACKEND-14",
    "BACKEND-21",
    fires=("switch",),
    sees=("committed", "conflict"),
)
def replace(lab: Lab) -> None:
    """One replaces the target and another updates or replaces it: no mixture of the two."""
    whole = Writer("writer", {"a": text("whole a"), "w": text("whole w")}, mode="replace")
    other = Writer("rival", {"o": text("other o")}, mode="replace")
    races(
        lab,
        [
            Race("replace and update", _OLD, (whole, _one("d/z", "rival"))),
            Race("two replace", _OLD, (whole, other)),
        ],
        0.4,
    )


@case(
    Level.ISOLATION,
    "remove",
    "BACKEND-16",
    "BACKEND-21",
    "PATH-6",
    fires=("switch",),
    sees=("committed", "conflict"),
)
def remove(lab: Lab) -> None:
    """One removes a tree while another adds to it or changes it: a conflict, or one after the other."""
    gone = Writer("writer", {"a": text("new a")}, removes=("d",))
    races(
        lab,
        [
            Race("remove and add", _OLD, (gone, _one("d/z", "rival"))),
            Race("remove and change", _OLD, (gone, _one("d/x", "rival"))),
        ],
        0.4,
    )


@case(Level.ISOLATION, "same-id", "BACKEND-31", "LOG-14", fires=("switch",), sees=("committed",))
def same_id(lab: Lab) -> None:
    """One id, by two at once: it is committed once, and the other one learns that or is refused."""
    twins = tuple(
        Writer(name, {"a": text(f"of {name}")}, id="job 7") for name in ("writer", "rival")
    )
    races(lab, [Race("same id", _OLD, twins)], 0.25)
