"""Old content aside, then the record that decides, then new content in: where nothing exchanges.

    start    SyncData - SyncArea - Lock - Check - Record(intent) - ASIDE... - [Inspect] -
             RECORD(commit) =*= CREATE... - SyncTargets - Receipt - Retire - Clear - Committed
             before the first ASIDE:   Retire - Clear - Aborted
             an aside refused, a stranger found, the commit record refused or unknown:
                 RESTORE... (backwards) - SyncTargets - Retire - Clear - Aborted
    recover  Fence - Lock - Inspect, then
                 commit        SyncArea - ASIDE... CREATE... (those not made yet) - SyncTargets ...
                 intent only   RESTORE... - SyncTargets - Retire - Clear - Aborted
                 neither       SyncTargets - Retire - Clear - Aborted

``=*=`` is the commit point. Between ASIDE and CREATE the target is absent: a gap, but nothing is lost,
and what blocks an aside (an open file on Windows) shows before the commit point.

Recovery, item by item; any other row is Stuck, and then nothing at all is changed:

    record   new    target        old        do
    commit   NEW    NONE          any        create                      (publish)
    commit   NEW    BASE          any        create                      (publish, not occupied)
    commit   NEW    BASE          NONE       aside, create               (publish, occupied)
    commit   NEW    OTHER         NONE       aside, create; not strict   (publish, occupied)
    commit   NONE   not BASE      any        nothing: it is in, whatever became of it since
    commit   -      BASE          NONE       aside                       (remove)
    commit   -      OTHER         NONE       aside; nothing if strict    (remove)
    commit   -      NONE, OTHER   any        nothing                     (remove)
    intent   any    NONE          not NONE   restore
    intent   any    any           NONE       nothing

Invariants (spec.md, section 4):

SWAP-1   Contents, then the area's entries are durable before anything moves.
SWAP-2   The locks are held before anything moves.
SWAP-3   The intent is durable before the first aside.
SWAP-4   Giving up after an aside puts everything back before the area goes.
SWAP-5   If strict, what was set aside is looked at before the commit record; a stranger's content
         goes back.
SWAP-6   What was put back is durable before the area goes.
SWAP-7   New content goes in only when the commit record is durable.
SWAP-8   With a commit record that may exist, Aborted is said only when the area is durably retired;
         else InDoubt.
SWAP-9   New content never replaces anything.
SWAP-10  After the commit point a failure is Committed(pending), area kept.
SWAP-11  SyncTargets, then Receipt, then Retire; without the receipt the area stays.
SWAP-12  If something can't be put back, InDoubt, area kept.
SWAP-13  A move that may have taken place is judged by what lies where, never by its error.
SWAP-14  Recovery goes forward with a commit record and back without.
SWAP-15  Recovery neither destroys nor moves a stranger's content that it finds in the gap: Stuck.

It may not: publish before every aside is made, delete, or replace. What a stranger puts at a target
while recovery is between its look and an aside goes with the old content.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fstx.machines.base import At, Journal, Next, State, made, why
from fstx.machines.rename import describe
from fstx.machines.vocabulary import (
    Aborted,
    Done,
    Event,
    Found,
    InDoubt,
    Inspect,
    Item,
    Kind,
    Move,
    Reason,
    Record,
    Refused,
    Seen,
    Stuck,
    SyncArea,
    Unknown,
    Who,
)


@dataclass(frozen=True, slots=True)
class Swap(Journal):
    """Commit of any number of items, aside first."""

    def step(self, state: State, event: Event) -> Next:
        match state.at:
            case At.INTENT:
                if isinstance(event, Done):
                    return self._aside(state, self._asides())
                return self._drop(state, event)
            case At.ASIDE:
                if isinstance(event, Done):
                    return self._set_aside(state)
                if isinstance(event, Unknown):
                    return self._on(state, At.ASIDE_LOOK, Inspect())
                return self._give_up(state, why(event))
            case At.ASIDE_LOOK:
                if not isinstance(event, Found):
                    return state, InDoubt()
                if made(state.todo[0], event):
                    return self._set_aside(state)
                return self._give_up(state, "failed")
            case At.COMPARE:
                if isinstance(event, Found) and all(map(_free, self.items, event.items)):
                    return self._on(state, At.COMMIT, Record("commit"))
                return self._give_up(state, "conflict" if isinstance(event, Found) else why(event))
            case At.COMMIT:
                if isinstance(event, Done):
                    return self._forward(state, self._creates())
                return self._give_up(replace(state, certain=isinstance(event, Refused)), why(event))
            case At.RESTORE:
                if isinstance(event, Done):
                    return self._restore(state, state.todo[1:])
                if isinstance(event, Unknown):
                    return self._on(state, At.RESTORE_LOOK, Inspect())
                if why(event) == "gone" and state.certain and not state.recovering:
                    # fenced without a commit record: whoever fenced us puts everything back
                    return state, Aborted("gone")
                return state, InDoubt()
            case At.RESTORE_LOOK:
                if isinstance(event, Found) and made(state.todo[0], event):
                    return self._restore(state, state.todo[1:])
                return state, InDoubt()
            case _:
                return Journal.step(self, state, event)

    # --- commit ---

    def _asides(self) -> tuple[Move, ...]:
        return tuple(
            Move(i, "aside")
            for i, item in enumerate(self.items)
            if item.occupied or item.kind is Kind.REMOVE
        )

    def _creates(self) -> tuple[Move, ...]:
        return tuple(
            Move(i, "create") for i, item in enumerate(self.items) if item.kind is Kind.PUBLISH
        )

    def _prepared(self, state: State) -> Next:
        return self._on(state, At.INTENT, Record("intent"))

    def _aside(self, state: State, todo: tuple[Move, ...]) -> Next:
        if todo:
            return replace(state, at=At.ASIDE, todo=todo), todo[0]
        if self.strict:
            return replace(state, at=At.COMPARE, todo=()), Inspect()
        return replace(state, at=At.COMMIT, todo=()), Record("commit")

    def _set_aside(self, state: State) -> Next:
        return self._aside(replace(state, made=(*state.made, state.todo[0])), state.todo[1:])

    def _give_up(self, state: State, reason: Reason) -> Next:
        back = tuple(Move(move.item, "restore") for move in reversed(state.made))
        return self._restore(replace(state, reason=reason), back)

    def _restore(self, state: State, todo: tuple[Move, ...]) -> Next:
        if not todo:
            return self._undone(state)
        return replace(state, at=At.RESTORE, todo=todo), todo[0]

    # --- recovery ---

    def _judge(self, state: State, found: Found) -> Next:
        if "commit" in found.records:
            asides: list[Move] = []
            creates: list[Move] = []
            for i, (item, seen) in enumerate(zip(self.items, found.items, strict=True)):
                hows = self._roll_forward(item, seen)
                if hows is None:
                    return state, Stuck(f"commit, item {i}: {describe(seen)}")
                asides += [Move(i, "aside")] if "aside" in hows else []
                creates += [Move(i, "create")] if "create" in hows else []
            todo = (*asides, *creates)
            return self._on(replace(state, todo=todo), At.SETTLE, SyncArea())
        back: list[Move] = []
        if "intent" in found.records:
            for i, seen in reversed(list(enumerate(found.items))):
                if seen.old is Who.NONE:
                    continue
                if seen.target is not Who.NONE:
                    return state, Stuck(f"intent, item {i}: {describe(seen)}")
                back.append(Move(i, "restore"))
        return self._restore(state, tuple(back))

    def _roll_forward(self, item: Item, seen: Seen) -> tuple[str, ...] | None:
        """The moves that are still to make for one item; None where there is no telling."""
        goes = seen.old is Who.NONE and (
            seen.target is Who.BASE or (seen.target is Who.OTHER and not self.strict)
        )
        if item.kind is Kind.REMOVE:
            if goes:
                return ("aside",)
            return None if seen.target in (Who.BASE, Who.NEW) else ()
        if seen.new is Who.NONE:
            return None if seen.target is Who.BASE else ()
        if seen.new is not Who.NEW:
            return None
        empty = seen.target is Who.BASE and not item.occupied
        if seen.target is Who.NONE or empty:
            return ("create",)
        return ("aside", "create") if goes and item.occupied else None


def _free(item: Item, seen: Seen) -> bool:
    """Whether new content may go in, and what went out was the base."""
    empty = seen.target is Who.BASE and not item.occupied and item.kind is Kind.PUBLISH
    return seen.old in (Who.NONE, Who.BASE) and (seen.target is Who.NONE or empty)
