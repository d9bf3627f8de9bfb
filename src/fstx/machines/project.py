"""Publication at plain names of what a record has decided: for readers with nothing of ours.

    start    APPLY(parts put) - APPLY(publishers put) - APPLY(publishers removed) -
             APPLY(parts removed) - Finish - Committed
             APPLY taken, busy or unknown:   Inspect, then
                 new         it is in: go on
                 base        Pause - APPLY again
                 finished    Committed: another one was quicker
                 other       a stranger's: Committed(pending); in recovery Stuck
    recover  Inspect before each APPLY, then the same

The commit point lies before all this: the record. Each operation has a base, a token or nothing, and
is conditional on it; so two that do the same work at once, and requests that come late, do it once.
A *publisher* is what readers start at (an entry document, the metadata of a root); *parts* are found
through publishers.

Invariants (spec.md, section 6):

PROJECT-1   Nothing is published before its record landed.
PROJECT-2   Parts are in before a publisher is, and publishers changed before a part goes.
PROJECT-3   Each operation is conditional on its base, and does nothing elsewhere.
PROJECT-4   An operation that was not certainly done is judged by what lies there, never by its
            error.
PROJECT-5   What is neither new nor base is judged by the log, read after it: this projection is
            finished, or a stranger wrote there.
PROJECT-6   A stranger's content is never replaced and never removed: Committed(pending), in recovery
            Stuck.
PROJECT-7   Finish comes after the last operation, and only then may the next transaction of the log
            commit.
PROJECT-8   After the record a failure is Committed(pending); recovery enters the same machine.

It may not: publish unconditionally, abort, or remove what another operation needs.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fstx.machines.manifest import Busy, Pause, Taken
from fstx.machines.vocabulary import Committed, Done, Refused, Stuck, Unknown


@dataclass(frozen=True, slots=True)
class Op:
    """One plain name. ``base``: token of what may be replaced or removed; None: nothing is there."""

    kind: Literal["put", "remove"]
    publisher: bool = False
    base: str | None = None


# --- effects: one answer each --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Apply:
    """Put or remove, on condition that the base still lies there."""

    op: int


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look what lies there, change nothing; answered by `Found` or ``Unknown``.

    If it is neither new nor base, the log is read after it.
    """

    op: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Append the done record; done as well if there is one."""


Effect: TypeAlias = Apply | Inspect | Finish | Pause


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at the name of an operation.

    ``new``: what it makes (of a removal: nothing). ``base``: what was there before. ``finished``: neither,
    and the log says that this projection is finished. ``other``: neither, and it is not.
    """

    what: Literal["new", "base", "finished", "other"]


Event: TypeAlias = Done | Refused | Unknown | Taken | Busy | Found
Outcome: TypeAlias = Committed | Stuck


class At(enum.Enum):
    """The effect that was asked for last."""

    APPLY = "apply"
    INSPECT = "inspect"
    PAUSE = "pause"
    FINISH = "finish"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a projection stands. ``done``: operations that are in. ``turn``: tries of the next one."""

    at: At
    done: int = 0
    turn: int = 0
    recovering: bool = False


Next: TypeAlias = tuple[Stage, Effect | Outcome]


@dataclass(frozen=True, slots=True)
class Project:
    """Publication of one committed transaction.

    Parameters
    ----------
    ops
        In any order; effects name them by their index.
    tries
        How often one operation is tried before the projection is left to the next one who comes.
    """

    ops: tuple[Op, ...]
    tries: int = 8

    @property
    def order(self) -> tuple[int, ...]:
        """Indexes of the operations in the order in which they are applied."""

        def rank(i: int) -> int:
            op = self.ops[i]
            return (3 - op.publisher) if op.kind == "remove" else int(op.publisher)

        return tuple(sorted(range(len(self.ops)), key=rank))

    def start(self) -> tuple[Stage, Effect | Outcome]:
        """Publish; the record has landed."""
        return self._next(Stage(At.APPLY))

    def recover(self) -> tuple[Stage, Effect | Outcome]:
        """Finish what another process began, or may be doing at this moment."""
        return self._next(Stage(At.INSPECT, recovering=True))

    def step(self, state: Stage, event: Event) -> Next:
        """Take the answer to the last effect; return the next effect or the outcome."""
        match state.at:
            case At.APPLY:
                if isinstance(event, Done):
                    return self._next(replace(state, done=state.done + 1, turn=0))
                if isinstance(event, Refused):
                    return state, Committed(pending=True)
                return self._inspect(state)
            case At.INSPECT:
                return self._found(state, event)
            case At.PAUSE:
                return self._apply(state)
            case At.FINISH:
                return state, Committed(pending=not isinstance(event, Done))

    def _found(self, state: Stage, event: Event) -> Next:
        match event:
            case Found("new"):
                return self._next(replace(state, done=state.done + 1, turn=0))
            case Found("finished"):
                return state, Committed()
            case Found("base"):
                return self._again(state)
            case Found("other") if state.recovering:
                op = self._op(state)
                return state, Stuck(
                    f"operation {op}: neither its base nor its own content is there"
                )
            case _:
                return state, Committed(pending=True)

    # --- building blocks ---

    def _op(self, state: Stage) -> int:
        return self.order[state.done]

    def _next(self, state: Stage) -> Next:
        if state.done == len(self.ops):
            return replace(state, at=At.FINISH), Finish()
        return self._inspect(state) if state.recovering else self._apply(state)

    def _apply(self, state: Stage) -> Next:
        return replace(state, at=At.APPLY), Apply(self._op(state))

    def _inspect(self, state: Stage) -> Next:
        return replace(state, at=At.INSPECT), Inspect(self._op(state))

    def _again(self, state: Stage) -> Next:
        """Apply; from the second time on after a pause, and not for ever."""
        turn = state.turn + 1
        if turn > self.tries:
            return state, Committed(pending=True)
        state = replace(state, turn=turn)
        if turn == 1 and state.recovering:
            return self._apply(state)
        return replace(state, at=At.PAUSE), Pause(turn)
