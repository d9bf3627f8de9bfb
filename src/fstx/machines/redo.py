"""Several items in place, decided by one record and then rolled forward: POSIX.

    start    SyncData - SyncArea - Lock - Check - RECORD(commit) =*= MOVE... - SyncTargets - Receipt -
             Retire - Clear - Committed
             before RECORD, or RECORD refused:   Retire - Clear - Aborted
             RECORD unknown:   Retire; done: Clear - Aborted; else InDoubt, area kept
    recover  Fence - Lock - Inspect, then
                 commit      SyncArea - MOVE... (those not made yet) - SyncTargets ...
                 no commit   SyncTargets - Retire - Clear - Aborted

``=*=`` is the commit point. MOVE is ``place`` for what is published and ``aside`` for what is
removed, in the order of the items. Each path is whole at any time; the set is mixed for as long as
the renames take.

Recovery, item by item; any other row is Stuck, and then nothing at all is changed:

    new    target        old    do
    NEW    NONE, BASE    any    place                       (publish)
    NEW    OTHER         any    place; not strict           (publish)
    NONE   not BASE      any    nothing                     (publish)
    -      BASE          NONE   aside                       (remove)
    -      OTHER         NONE   aside; nothing if strict    (remove)
    -      NONE, OTHER   any    nothing                     (remove)

Nothing at ``new`` and a stranger's content at the target is *done*: staged content leaves the area by
our own rename only, so it was published, and somebody changed it afterwards. A stranger's content
while ours is still staged was put there after Check: to replace it would destroy it, to skip it would
leave a mixture.

Invariants (spec.md, section 4):

REDO-1  Contents, then the area's entries are durable before the commit record.
REDO-2  The locks are held and the base is compared before the commit record.
REDO-3  The first move is made only when the commit record is durable.
REDO-4  With a commit record that may exist, Aborted is said only when the area is durably retired;
        else InDoubt.
REDO-5  After the commit point a failure is Committed(pending), area kept.
REDO-6  A move that may have taken place is judged by what lies where, never by its error.
REDO-7  SyncTargets, then Receipt, then Retire; without the receipt the area stays.
REDO-8  Recovery goes forward with a commit record, making only the moves not made yet, and retires
        without.
REDO-9  A stranger's content where ours is still staged stops recovery, if strict: Stuck.

It may not: move anything before the commit record, restore, or delete. A stranger's change between
Check, or recovery's look, and the move is overwritten or removed: there is no conditional rename.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fstx.machines.base import At, Journal, Next, State, why
from fstx.machines.rename import describe
from fstx.machines.vocabulary import (
    Done,
    Event,
    Found,
    Item,
    Kind,
    Move,
    Record,
    Refused,
    Retire,
    Seen,
    Stuck,
    SyncArea,
    Who,
)


@dataclass(frozen=True, slots=True)
class Redo(Journal):
    """Commit of any number of items by a redo journal."""

    def step(self, state: State, event: Event) -> Next:
        if state.at is not At.COMMIT:
            return Journal.step(self, state, event)
        if isinstance(event, Done):
            return self._forward(state, self._moves())
        certain = isinstance(event, Refused)
        return replace(state, at=At.DROP, reason=why(event), certain=certain), Retire()

    def _moves(self) -> tuple[Move, ...]:
        return tuple(
            Move(i, "place" if item.kind is Kind.PUBLISH else "aside")
            for i, item in enumerate(self.items)
        )

    def _prepared(self, state: State) -> Next:
        return self._on(state, At.COMMIT, Record("commit"))

    def _judge(self, state: State, found: Found) -> Next:
        if "commit" not in found.records:
            return self._undone(state)
        todo: list[Move] = []
        for i, (item, seen) in enumerate(zip(self.items, found.items, strict=True)):
            how = self._roll_forward(item, seen)
            if how == "stuck":
                return state, Stuck(f"commit, item {i}: {describe(seen)}")
            if how is not None:
                todo.append(Move(i, how))
        return self._on(replace(state, todo=tuple(todo)), At.SETTLE, SyncArea())

    def _roll_forward(self, item: Item, seen: Seen) -> Literal["place", "aside", "stuck"] | None:
        """The move that is still to make for one item, if any."""
        foreign = seen.target is Who.OTHER
        if item.kind is Kind.REMOVE:
            if seen.target is Who.NEW or (seen.target is Who.BASE and seen.old is not Who.NONE):
                return "stuck"
            goes = seen.target is Who.BASE or (foreign and not self.strict)
            return "aside" if goes and seen.old is Who.NONE else None
        if seen.new is Who.NONE:
            return "stuck" if seen.target is Who.BASE else None
        if seen.new is not Who.NEW or seen.target is Who.NEW or (foreign and self.strict):
            return "stuck"
        return "place"
