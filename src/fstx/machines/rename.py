"""One rename that readers see as one switch: a new tree, one file, a tree exchanged for a tree.

    start    SyncData - SyncArea - Lock - Check - Record(plan) - MOVE =*= SyncTargets - Receipt -
             Retire - Clear - Committed
             before MOVE, or MOVE refused:   Retire - Clear - Aborted
             MOVE unknown, or an exchange that must be verified:   Inspect, then
                 new          =*= SyncTargets ...
                 old          SyncTargets - Retire - Clear - Aborted
                 back         exchange again - Inspect - SyncTargets - Retire - Clear - Aborted
                 no telling   InDoubt, area kept
    recover  Fence - Lock - Inspect, then the same; no telling: Stuck

``=*=`` is the commit point: the rename itself. On which side we are tells the place ``new``:

    how              new     target     verdict
    create, place    NONE    not BASE   new
    create, place    else    any        old
    exchange         NEW     any        old
    exchange         BASE    any        new
    exchange         OTHER   NEW        a stranger's content was displaced: back if strict, else new
    anything else                       no telling

Invariants (spec.md, section 4):

RENAME-1   Contents, then the area's entries are durable before the move.
RENAME-2   The locks are held and the base is compared before the move.
RENAME-3   The plan is recorded before the move and after RENAME-1: with a plan, nothing at ``new``
           means moved.
RENAME-4   A refused move is the end: Aborted.
RENAME-5   A move that may have taken place is judged by what lies where, never by its error.
RENAME-6   If strict, content that an exchange displaced and that is not the base goes back.
RENAME-7   What was exchanged back is looked at, and made durable, before the area goes.
RENAME-8   Committed is said only when the rename is durable; if that can't be had, InDoubt, area
           kept.
RENAME-9   SyncTargets, then Receipt, then Retire; without the receipt the area stays.
RENAME-10  Where nobody can look, InDoubt, area kept.
RENAME-11  After the commit point nothing is reported as Aborted.

It may not: handle two items, move anything twice but an exchange, delete, or retire an area that
holds a stranger's content. A stranger's change between Check and ``place`` is overwritten: there is
no conditional rename.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fstx.machines.base import At, Base, Next, State
from fstx.machines.vocabulary import (
    Done,
    Event,
    Found,
    InDoubt,
    Inspect,
    Move,
    Record,
    Refused,
    Seen,
    Stuck,
    Who,
)

How: TypeAlias = Literal["create", "place", "exchange"]
Verdict: TypeAlias = Literal["new", "old", "back", "no telling"]


@dataclass(frozen=True, slots=True)
class Rename(Base):
    """Commit of one item by one rename; without items, discards an area that has no record."""

    how: How = "create"

    def __post_init__(self) -> None:
        if len(self.items) > 1:
            raise ValueError("rename commits one item")

    def step(self, state: State, event: Event) -> Next:
        match state.at:
            case At.PLAN:
                if isinstance(event, Done):
                    return self._on(state, At.SWITCH, Move(0, self.how))
                return self._drop(state, event)
            case At.SWITCH:
                if isinstance(event, Refused):
                    return self._drop(state, event)
                if isinstance(event, Done) and not (self.how == "exchange" and self.strict):
                    return self._finish(state)
                return self._on(state, At.LOOK, Inspect())
            case At.LOOK:
                if isinstance(event, Found):
                    return self._act(state, event.items[0])
                return state, InDoubt()
            case At.BACK:
                if isinstance(event, Refused):
                    return state, InDoubt()
                return self._on(state, At.BACK_LOOK, Inspect())
            case At.BACK_LOOK:
                # a second stranger may have written while ours was visible: then his lies at `new`
                if isinstance(event, Found) and event.items[0].new is Who.NEW:
                    return self._undone(replace(state, reason="conflict"))
                return state, InDoubt()
            case _:
                return Base.step(self, state, event)

    def verdict(self, seen: Seen) -> Verdict:
        """On which side of the commit point the item is; sound once a plan is recorded."""
        if self.how != "exchange":
            if seen.new is not Who.NONE:
                return "old"
            return "no telling" if seen.target is Who.BASE else "new"
        if seen.new is Who.NEW:
            return "old"
        if seen.new is Who.BASE:
            return "new"
        if seen.new is Who.OTHER and seen.target is Who.NEW:
            return "back" if self.strict else "new"
        return "no telling"

    def _blind(self) -> bool:
        return not self.items

    def _prepared(self, state: State) -> Next:
        return self._on(state, At.PLAN, Record("plan"))

    def _judge(self, state: State, found: Found) -> Next:
        if "plan" not in found.records:
            return self._undone(state)
        return self._act(state, found.items[0])

    def _act(self, state: State, seen: Seen) -> Next:
        match self.verdict(seen):
            case "new":
                return self._finish(state)
            case "old":
                # an earlier recovery may have exchanged back without making it durable
                return self._undone(state)
            case "back":
                return self._on(state, At.BACK, Move(0, "exchange"))
            case "no telling":
                if state.recovering:
                    return state, Stuck(f"{self.how}: {describe(seen)}")
                return state, InDoubt()

    def _unsynced(self, state: State) -> Next:
        return state, InDoubt()


def describe(seen: Seen) -> str:
    """What lies where, for a message."""
    return f"target holds {seen.target.value}, new {seen.new.value}, old {seen.old.value}"
