"""Scenes of the log and of plain names: who is there, and how much may go wrong.

`SCENES` and `PLAIN` are explored to the end each time. `LARGE` are too large for that: histories are chosen
by chance; docs/decisions/0010-model-of-the-log.md says how far they were explored by hand.
"""

from __future__ import annotations

from support.logagents import Resolver, Writer
from support.logkeepers import Collector, Keeper, Others, Reader
from support.logmodel import Scene
from support.plainmodel import PlainScene


def truncator(name: str = "T") -> Keeper:
    """Cuts the log and retires nothing: the dataset keeps its newest version only."""
    return Keeper(name, retires=False, sweeps=False)


X, Y, Y2 = Writer("X"), Writer("Y"), Writer("Y", path=1)
ELSEWHERE = Others(path=1)

SCENES = [
    Scene("two conflicting", (X, Y), faults=3, crashes=2),
    Scene("two disjoint", (X, Y2), faults=3, crashes=2),
    Scene("three writers", (X, Y2, Writer("Z")), faults=1, crashes=1),
    Scene("refusals", (X, Y2), faults=3, refusals=True),
    Scene("unreadable", (X, Y2), faults=3, unreadable=True, tries=1),
    Scene("moody", (Writer("X", moody=True), ELSEWHERE), faults=1, crashes=1, tries=6),
    Scene("one id", (Writer("X", mark="k"), Writer("Y", 1, mark="k")), faults=3, crashes=1),
    Scene("cancel", (Writer("X", cancels=True), Y), faults=2, crashes=1),
    Scene("resolver", (X, Resolver("X"), ELSEWHERE), faults=2, crashes=1),
    Scene("two resolvers", (X, Resolver("X"), Resolver("X")), faults=1, crashes=1),
    Scene("collector", (X, Collector(), ELSEWHERE), faults=2, crashes=1),
    Scene("floor", (X, Collector(floor=True), ELSEWHERE), faults=1),
    Scene("truncation", (X, Others(count=2, path=1), truncator()), faults=2, keep=99),
    Scene("truncation, conflict", (X, Others(count=2), truncator()), faults=2, keep=99),
    Scene(
        "truncation, cancel",
        (Writer("X", cancels=True), Others(count=2), truncator()),
        faults=1,
        keep=99,
    ),
    Scene("two truncators", (X, Others(count=2, path=1), truncator(), truncator("T2")), keep=99),
    Scene("reader", (X, Others(count=2, path=1), truncator(), Reader()), faults=1, keep=99),
    Scene("pin", (Reader(pins=True), Others(count=2), Keeper()), faults=1, crashes=1),
    Scene(
        "pin, no truncation",
        (Reader(pins=True), Others(count=2), Keeper(truncates=False)),
        faults=1,
        crashes=1,
    ),
    Scene("link", (Writer("X", 1, link=True), Others(), Keeper()), faults=1, crashes=1),
    Scene("keeper and collector", (Writer("X", 1), Keeper(), Collector(), Others())),
    Scene("outcome", (X, Others(), truncator(), Resolver("X", cold=True)), crashes=1, keep=99),
    Scene("outcome, fenced", (X, Others(), Collector(), Resolver("X", cold=True)), keep=99),
]

LARGE = [
    Scene("three writers", (X, Y2, Writer("Z")), faults=3, crashes=1),
    Scene(
        "everything",
        (Writer("X", cancels=True), Y2, Keeper(), Collector(), Reader(pins=True)),
        faults=3,
        crashes=1,
    ),
    Scene(
        "truncation and collection",
        (X, Others(count=3), truncator(), Collector(floor=True), Resolver("X", cold=True)),
        faults=3,
        crashes=1,
        keep=99,
    ),
    Scene("reader", (X, Y2, Others(count=3, path=1), truncator(), Reader()), faults=3, keep=99),
]

OWNER, NEXT, RECOVERER, COLLECTOR = "owner", "next", "recoverer", "collector"

PLAIN = [
    PlainScene("entry", (OWNER, RECOVERER, NEXT)),
    PlainScene("entry, two faults", (OWNER, NEXT), faults=2, crashes=1),
    PlainScene("two recoverers", (OWNER, RECOVERER, RECOVERER), crashes=1),
    PlainScene("creation", (OWNER, RECOVERER, NEXT), empty=True),
    PlainScene("parts go", (OWNER, NEXT), crashes=1, removes=True),
    PlainScene("collection", (OWNER, NEXT, COLLECTOR), crashes=1),
    PlainScene("a stranger", (OWNER, NEXT), crashes=1, strangers=1),
    PlainScene("removal", (OWNER, RECOVERER, NEXT), unpublishes=True),
]

LARGE_PLAIN = [
    PlainScene("entry", (OWNER, RECOVERER, RECOVERER, NEXT), faults=2, crashes=1),
    PlainScene("parts go", (OWNER, RECOVERER, NEXT), faults=2, crashes=1, removes=True),
    PlainScene("collection", (OWNER, RECOVERER, NEXT, COLLECTOR), faults=2, crashes=1),
]

COMES_BACK = PlainScene("removal of what was created", (OWNER, NEXT), unpublishes=True, empty=True)
"""Not part of what is promised: see `test_a_name_that_was_removed_may_come_back`."""

ALL = {scene.name: scene for scene in SCENES}
ALL_PLAIN = {scene.name: scene for scene in PLAIN}
