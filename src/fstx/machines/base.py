"""What the commit machines have in common: the way in, the way out, and roll-forward.

    start    DATA - AREA - LOCK - CHECK - (the machine's own steps) - FINISH - RECEIPT - RETIRE -
             CLEAR
             a failure up to CHECK:   DROP - DROPPED - Aborted
    recover  FENCE - RELOCK - INSPECT - (the machine's judgement) - SETTLE - FORWARD ... FINISH ...
                                                                or UNDONE - DROP - DROPPED - Aborted

A position is named by the effect whose answer is awaited there. The performer lets go of every lock
when an outcome is reached; machines ask for `Clear` only where there is something to delete.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TypeAlias

from fstx.machines.vocabulary import (
    Aborted,
    Check,
    Clear,
    Committed,
    Done,
    Effect,
    Event,
    Fence,
    Found,
    InDoubt,
    Inspect,
    Item,
    Lock,
    Move,
    Outcome,
    Reason,
    Receipt,
    Refused,
    Retire,
    Seen,
    Stuck,
    SyncArea,
    SyncData,
    SyncTargets,
    Unknown,
    Who,
)


class At(enum.Enum):
    """The effect that was asked for last, and why."""

    DATA = "data"
    AREA = "area"
    LOCK = "lock"
    CHECK = "check"
    PLAN = "plan"  # rename: the record that holds the identities
    SWITCH = "switch"  # rename: the move that commits
    LOOK = "look"  # rename: what did the switch do
    BACK = "back"  # rename: exchange back what was displaced by mistake
    BACK_LOOK = "back-look"
    INTENT = "intent"  # swap
    ASIDE = "aside"
    ASIDE_LOOK = "aside-look"
    COMPARE = "compare"  # swap: is what was set aside the base
    RESTORE = "restore"
    RESTORE_LOOK = "restore-look"
    COMMIT = "commit"  # swap, redo: the record that decides
    SETTLE = "settle"  # recovery: make the record that was read durable
    FORWARD = "forward"  # moves after the commit point
    FORWARD_LOOK = "forward-look"
    FINISH = "finish"
    RECEIPT = "receipt"
    RETIRE = "retire"
    CLEAR = "clear"
    UNDONE = "undone"  # every target is as it was: make that durable
    DROP = "drop"
    DROPPED = "dropped"
    FENCE = "fence"
    RELOCK = "relock"
    INSPECT = "inspect"


@dataclass(frozen=True, slots=True)
class State:
    """Where a machine stands.

    ``todo``: moves still to make; the first is the one that was asked for. ``made``: moves made,
    oldest first. ``certain``: no commit record can be on the storage. ``recovering``: entered by
    `recover`.
    """

    at: At
    todo: tuple[Move, ...] = ()
    made: tuple[Move, ...] = ()
    reason: Reason = "failed"
    certain: bool = True
    recovering: bool = False


Next: TypeAlias = tuple[State, Effect | Outcome]


def why(event: Event) -> Reason:
    """The reason to give for an event that stopped a transaction."""
    return event.reason if isinstance(event, Refused) else "failed"


@dataclass(frozen=True, slots=True)
class Base:
    """The steps that every machine takes before its first and after its last move."""

    items: tuple[Item, ...]
    strict: bool = True

    def start(self) -> tuple[State, Effect]:
        return State(At.DATA), SyncData()

    def rollback(self) -> tuple[State, Effect]:
        return State(At.DROP), Retire()

    def recover(self) -> tuple[State, Effect]:
        return State(At.FENCE, recovering=True), Fence()

    def step(self, state: State, event: Event) -> Next:
        done = isinstance(event, Done)
        match state.at:
            case At.DATA:
                return self._on(state, At.AREA, SyncArea()) if done else self._drop(state, event)
            case At.AREA:
                return self._on(state, At.LOCK, Lock()) if done else self._drop(state, event)
            case At.LOCK:
                return self._on(state, At.CHECK, Check()) if done else self._drop(state, event)
            case At.CHECK:
                return self._prepared(state) if done else self._drop(state, event)
            case At.FINISH:
                return self._on(state, At.RECEIPT, Receipt()) if done else self._unsynced(state)
            case At.RECEIPT:
                # without its receipt the transaction must stay findable: the area is kept
                return (
                    self._on(state, At.RETIRE, Retire())
                    if done
                    else (state, Committed(pending=True))
                )
            case At.RETIRE:
                return self._on(state, At.CLEAR, Clear()) if done else (state, Committed())
            case At.CLEAR:
                return state, Committed()
            case At.UNDONE:
                if done:
                    return self._on(state, At.DROP, Retire())
                return state, Aborted(state.reason) if state.certain else InDoubt()
            case At.DROP:
                if done:
                    return self._on(state, At.DROPPED, Clear())
                return state, Aborted(state.reason) if state.certain else InDoubt()
            case At.DROPPED:
                return state, Aborted(state.reason)
            case At.FENCE:
                return self._on(state, At.RELOCK, Lock()) if done else (state, InDoubt())
            case At.RELOCK:
                return self._on(state, At.INSPECT, Inspect()) if done else (state, InDoubt())
            case At.INSPECT:
                if not isinstance(event, Found):
                    return state, InDoubt()
                if self._blind() and event.records:
                    # the owner wrote its record after we took the area for one without: start again
                    return state, InDoubt()
                return self._judge(state, event)
            case _:
                raise AssertionError(f"no step from {state.at}")

    # --- what a machine fills in ---

    def _blind(self) -> bool:
        """True for a machine that was built to discard an area without a record."""
        return False

    def _prepared(self, state: State) -> Next:
        raise NotImplementedError

    def _judge(self, state: State, found: Found) -> Next:
        raise NotImplementedError

    def _unsynced(self, state: State) -> Next:
        raise NotImplementedError

    # --- building blocks ---

    def _on(self, state: State, at: At, effect: Effect) -> Next:
        return replace(state, at=at), effect

    def _drop(self, state: State, event: Event) -> Next:
        """Give up where no target was touched."""
        return replace(state, at=At.DROP, reason=why(event)), Retire()

    def _undone(self, state: State) -> Next:
        """Every target is as it was; that must be durable before the area may go."""
        return replace(state, at=At.UNDONE, todo=(), made=()), SyncTargets()

    def _finish(self, state: State) -> Next:
        return replace(state, at=At.FINISH, todo=(), made=()), SyncTargets()


class Journal(Base):
    """What the machines share whose commit point is a record: roll-forward."""

    __slots__ = ()

    def step(self, state: State, event: Event) -> Next:
        match state.at:
            case At.SETTLE:
                if isinstance(event, Done):
                    return self._forward(state, state.todo)
                return state, InDoubt()
            case At.FORWARD:
                if isinstance(event, Done):
                    return self._forward(state, state.todo[1:])
                if isinstance(event, Unknown):
                    return self._on(state, At.FORWARD_LOOK, Inspect())
                if state.recovering and why(event) == "exists":
                    # a stranger's content is in the way, and no later run will find it otherwise
                    return state, Stuck(f"item {state.todo[0].item}: something is at the target")
                return state, Committed(pending=True)
            case At.FORWARD_LOOK:
                if isinstance(event, Found) and made(state.todo[0], event):
                    return self._forward(state, state.todo[1:])
                return state, Committed(pending=True)
            case _:
                # named, not super(): a slotted dataclass is not the class that its body closes over
                return Base.step(self, state, event)

    def _forward(self, state: State, todo: tuple[Move, ...]) -> Next:
        if not todo:
            return self._finish(state)
        return replace(state, at=At.FORWARD, todo=todo), todo[0]

    def _unsynced(self, state: State) -> Next:
        return state, Committed(pending=True)


def made(move: Move, found: Found) -> bool:
    """Whether a move took place, judged by what left or reached the area."""
    seen: Seen = found.items[move.item]
    if move.how == "aside":
        return seen.old is not Who.NONE
    if move.how == "restore":
        return seen.old is Who.NONE
    return seen.new is Who.NONE
