"""One record into a log of numbered write-once records: object stores, and ``tx::`` on any storage.

    start    Settle - PUT(slot) - done: Bound - clear: Landed
             anything else but a certain refusal: (Pause) - Look, then
                 own record found    Landed
                 slot still free     PUT(slot), the same again
                 log moved on        free: PUT(head + 1);  conflict, gone: Aborted;  moot: Moot
                 can't be read       Pause - Look ...; at last InDoubt if a put is outstanding
    cancel   Look, then
                 own record found    Landed
                 slot occupied       Aborted
                 slot still free     InDoubt: the performer occupies it by a fence, another `Append`
    recover  Look, then as above

The commit point is the record at ``log/<slot>``. A record is put only by one who has read the record
before it, so nothing lands between a record and its base: conflict, fence and floor are judged once,
before the put, and a put that comes late finds its slot occupied. A *turn* is a put that didn't settle
the matter, or a look that couldn't be had.

Invariants (spec.md, section 6):

MANIFEST-1   What is staged is durable before the first put.
MANIFEST-2   A record is put only at the slot after a head that was read, on that head's verdict.
MANIFEST-3   The log decides, never the answer: whatever a put was answered but a certain refusal,
             the log is read before anything is said.
MANIFEST-4   A put that was done counts only when the boundary, read after it, is below its slot.
MANIFEST-5   A slot that is taken may be taken by one's own record, from a request whose answer was
             lost.
MANIFEST-6   A slot that is found free is put again, with the same record.
MANIFEST-7   Conflict, gone and moot are believed only of a head at or above every slot that was
             put.
MANIFEST-8   A certain refusal is Aborted only if no put is outstanding.
MANIFEST-9   With a put outstanding and a log that does not tell, InDoubt, never Aborted.
MANIFEST-10  Giving up with a put outstanding is Aborted only when the slot is occupied by another
             record; else a fence must occupy it.
MANIFEST-11  Turns are bounded, with a pause before each but the first that another writer won; the
             last put is looked for too.

It may not: put a slot below one that it put before, take an error for "not landed", or decide by
time. It never sees what a record holds: the performer builds the record, and judges.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fstx.machines.vocabulary import Aborted, Done, InDoubt, Reason, Refused, Unknown

Verdict: TypeAlias = Literal[
    "free",  # the record may follow this head
    "conflict",  # what it depends on was changed
    "gone",  # its transaction is fenced, or older than the floor
    "moot",  # what it would do is done already
    "blocked",  # the projection of an earlier record is not finished
]

# --- effects: one answer each --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settle:
    """Make all staged objects durable."""


@dataclass(frozen=True, slots=True)
class Put:
    """Put the record of this slot if there is none; the same bytes for the same slot and head."""

    slot: int


@dataclass(frozen=True, slots=True)
class Bound:
    """Read the boundary; answered by `Clear`, `Overtaken` or ``Unknown``."""

    slot: int


@dataclass(frozen=True, slots=True)
class Look:
    """Read the log on from the head, the boundary after it; answered by `Seen` or ``Unknown``.

    ``Unknown`` also where records are gone and nothing tells whether this one was among them.
    """

    slot: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Back off, with jitter; longer as ``turn`` grows."""

    turn: int


Effect: TypeAlias = Settle | Put | Bound | Look | Pause

# --- events, besides Done, Refused and Unknown --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """Something is there, perhaps one's own."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Nothing is settled: the same request may be made again."""


@dataclass(frozen=True, slots=True)
class Clear:
    """The boundary is below the slot."""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """The boundary is at or above the slot: a record there may be void."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest record, and what it means for this append.

    ``own``: the slot where this very append is effective, known from the log or from what the
    truncation remembers. ``verdict``: whether its record may follow ``head``.
    """

    head: int
    own: int | None
    verdict: Verdict


Event: TypeAlias = Done | Refused | Unknown | Taken | Busy | Clear | Overtaken | Seen

# --- outcomes, besides Aborted and InDoubt ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Landed:
    """The record is effective at ``slot``, and stays so."""

    slot: int


@dataclass(frozen=True, slots=True)
class Moot:
    """The record was not needed, and will not land."""


Outcome: TypeAlias = Landed | Aborted | InDoubt | Moot


class At(enum.Enum):
    """The effect that was asked for last."""

    SETTLE = "settle"
    PUT = "put"
    BOUND = "bound"
    PAUSE = "pause"
    LOOK = "look"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an append stands.

    ``slot``: the one that is put, or would be. ``out``: a slot where a put may have landed or may still
    land; None: there is none. ``turn``: turns since another writer last won. ``lost``: how many won.
    ``giving_up``: entered by `Append.cancel`.
    """

    at: At
    slot: int
    out: int | None = None
    turn: int = 0
    lost: int = 0
    reason: Reason = "busy"
    giving_up: bool = False


Next: TypeAlias = tuple[Progress, Effect | Outcome]

_CROWD = 25
_SHORT = 3


@dataclass(frozen=True, slots=True)
class Append:
    """Append of one record: a commit, a fence, a retirement, a claim, or the end of a projection.

    Parameters
    ----------
    head
        Number of the newest record that was read, and on which the verdict was ``"free"``.
    tries
        Turns without any progress, its own or another writer's, after which it ends. It ends too when
        others won 25 times as often.
    """

    head: int
    tries: int = 40

    def start(self) -> tuple[Progress, Effect]:
        """Commit."""
        return Progress(At.SETTLE, self.head + 1), Settle()

    def cancel(self) -> tuple[Progress, Effect]:
        """Give up while a put at ``head + 1`` may be outstanding."""
        slot = self.head + 1
        return Progress(At.LOOK, slot, out=slot, giving_up=True), Look(slot)

    def recover(self) -> tuple[Progress, Effect]:
        """Append what another process may have appended, or what may not be needed: look first."""
        return Progress(At.LOOK, self.head + 1, out=self.head), Look(self.head + 1)

    def step(self, state: Progress, event: Event) -> Next:
        """Take the answer to the last effect; return the next effect or the outcome."""
        match state.at:
            case At.SETTLE:
                if isinstance(event, Done):
                    return self._put(state)
                return state, Aborted(event.reason if isinstance(event, Refused) else "failed")
            case At.PUT:
                return self._answered(state, event)
            case At.BOUND:
                if isinstance(event, Clear):
                    return state, Landed(state.slot)
                return self._again(state, at_once=isinstance(event, Overtaken))
            case At.PAUSE:
                return self._look(state)
            case At.LOOK:
                # a head older than the one that is known tells nothing
                if not isinstance(event, Seen) or event.head < state.slot - 1:
                    return self._again(state, ends=True)
                return self._seen(state, event)

    def _answered(self, state: Progress, event: Event) -> Next:
        if isinstance(event, Refused):
            if state.out is None:
                return state, Aborted(event.reason)
            return self._again(replace(state, reason=event.reason))
        state = replace(state, out=state.slot)
        if isinstance(event, Done):
            return replace(state, at=At.BOUND), Bound(state.slot)
        return self._again(state, at_once=isinstance(event, Taken))

    def _seen(self, state: Progress, seen: Seen) -> Next:
        if seen.own is not None:
            return state, Landed(seen.own)
        if state.out is not None and seen.head < state.out:
            # the slot is free, and the put may still land
            if state.giving_up or state.turn > self.tries:
                return state, InDoubt()
            return self._put(state) if seen.verdict == "free" else self._again(state, ends=True)
        moved = seen.head >= state.slot
        state = replace(state, out=None, slot=seen.head + 1)
        match seen.verdict:
            case "moot":
                return state, Moot()
            case "conflict" | "gone":
                return state, Aborted(seen.verdict)
            case _ if state.giving_up:
                return state, Aborted("gone")
            case "blocked":
                return self._again(state, ends=True)
        if moved:
            turn = min(state.turn, _SHORT, self.tries)
            state = replace(state, lost=state.lost + 1, turn=turn)
        if state.lost > _CROWD * self.tries or state.turn > self.tries:
            return state, Aborted(state.reason)
        return self._put(state)

    # --- building blocks ---

    def _put(self, state: Progress) -> Next:
        return replace(state, at=At.PUT), Put(state.slot)

    def _look(self, state: Progress) -> Next:
        return replace(state, at=At.LOOK), Look(state.slot)

    def _again(self, state: Progress, *, at_once: bool = False, ends: bool = False) -> Next:
        """The next turn, or the end of them; never the end while the last put was not looked for."""
        first = state.turn == 0
        state = replace(state, turn=state.turn + 1)
        if ends and state.turn > self.tries:
            return state, Aborted(state.reason) if state.out is None else InDoubt()
        if first and at_once:
            return self._look(state)
        return replace(state, at=At.PAUSE), Pause(state.turn)
