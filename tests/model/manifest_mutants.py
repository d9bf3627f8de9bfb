"""For every numbered rule of the log, machines or performers that break it and nothing else.

The model must find each of them out; a rule whose breach it can't see is no rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fstx.machines import project
from fstx.machines.manifest import (
    Append,
    At,
    Clear,
    Overtaken,
    Pause,
    Put,
    Seen,
    Taken,
)
from fstx.machines.project import Apply, Finish, Found, Project
from fstx.machines.vocabulary import (
    Aborted,
    Committed,
    Done,
    InDoubt,
    Refused,
    Unknown,
)
from model.mutants import Around, Wrap, hear, unknown_as_refused
from support.logmodel import Rules
from support.plainmodel import PlainRules


@dataclass(frozen=True)
class Mutant:
    """One breach, and the scene in which it is to be found out."""

    rule: str
    what: str
    scene: str
    wrap: Wrap = lambda machine: machine
    rules: Rules | PlainRules = field(default_factory=Rules)

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def instead(cls: type[Append]) -> Wrap:
    return lambda machine: cls(machine.head, machine.tries)


def says(change: Callable[[Any, Any], Any]) -> Wrap:
    """Another last word."""

    class Says(Around):
        def cancel(self) -> Any:
            return self.out(*self.inner.cancel())  # type: ignore[attr-defined]

        def out(self, state: Any, then: Any) -> Any:
            return state, change(state, then)

    return Says


def hears(at: At, change: Callable[[Any], Any]) -> Wrap:
    made: Any = hear(at, change)  # type: ignore[arg-type]

    class Hears(made):  # type: ignore[misc]
        def cancel(self) -> Any:
            return self.inner.cancel()

    return Hears


def no(rule: str, what: str, scene: str, **rules: bool) -> Mutant:
    """A performer that leaves something out."""
    return Mutant(rule, what, scene, rules=Rules(**rules))


class Unsettled(Append):
    """Puts its record before what it names is durable."""

    __slots__ = ()

    def start(self) -> Any:
        state, _ = Append.start(self)
        return Append.step(self, state, Done())


class Hurries(Append):
    """Takes the next slot when one is taken, without reading what took it."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        if state.at is At.PUT and isinstance(event, Taken):
            state = replace(state, slot=state.slot + 1)
            return state, Put(state.slot)
        return Append.step(self, state, event)


class Believes412(Append):
    """Takes a slot that is taken for a conflict."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        if state.at is At.PUT and isinstance(event, Taken):
            return state, Aborted("conflict")
        return Append.step(self, state, event)


class FreeIsFailed(Append):
    """Takes an unknown put whose slot is free for one that failed."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        free = state.at is At.LOOK and isinstance(event, Seen) and event.own is None
        if free and state.out is not None and event.head < state.out:
            return state, Aborted("failed")
        return Append.step(self, state, event)


class LeavesTheSlot(Append):
    """Puts at the slot after the free one."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        free = state.at is At.LOOK and isinstance(event, Seen) and event.own is None
        if free and state.out is not None and event.head < state.out:
            return replace(state, at=At.PUT, slot=state.slot + 1), Put(state.slot + 1)
        return Append.step(self, state, event)


class BelievesTooSoon(Append):
    """Believes a verdict while its put is outstanding."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        if state.at is At.LOOK and isinstance(event, Seen) and event.verdict == "conflict":
            return state, Aborted("conflict")
        return Append.step(self, state, event)


class BelievesRefusal(Append):
    """Takes the second put's refusal for the first one's."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        if state.at is At.PUT and isinstance(event, Refused):
            return state, Aborted(event.reason)
        return Append.step(self, state, event)


class Counts(Append):
    """Never loses patience."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        return Append.step(self, replace(state, turn=min(state.turn, 2)), event)


class Rushes(Append):
    """Never pauses."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        state, then = Append.step(self, state, event)
        return Append.step(self, state, Done()) if isinstance(then, Pause) else (state, then)


def _disowned(event: Any) -> Any:
    return replace(event, own=None) if isinstance(event, Seen) else event


def _conflicting(event: Any) -> Any:
    own = isinstance(event, Seen) and event.own is not None
    return replace(event, own=None, verdict="conflict") if own else event


def _clear(event: Any) -> Any:
    return Clear() if isinstance(event, Overtaken) else event


def _certain(state: Any, then: Any) -> Any:
    if isinstance(then, InDoubt) and not state.giving_up:
        return Aborted("failed")
    return then


def _cancelled(state: Any, then: Any) -> Any:
    return Aborted("gone") if isinstance(then, InDoubt) and state.giving_up else then


MACHINE = [
    Mutant("MANIFEST-1", "unsettled", "two disjoint", instead(Unsettled)),
    Mutant("MANIFEST-2", "the next slot, unread", "two disjoint", instead(Hurries)),
    Mutant("MANIFEST-3", "412 taken for a conflict", "two disjoint", instead(Believes412)),
    Mutant(
        "MANIFEST-3",
        "unknown taken for refused",
        "two disjoint",
        hears(At.PUT, unknown_as_refused),
    ),
    Mutant(
        "MANIFEST-3", "unknown and free taken for failed", "two disjoint", instead(FreeIsFailed)
    ),
    Mutant("MANIFEST-4", "the answer trusted", "truncation", hears(At.BOUND, _clear)),
    Mutant("MANIFEST-5", "own record not known", "two disjoint", hears(At.LOOK, _disowned)),
    Mutant("MANIFEST-5", "own record a conflict", "two disjoint", hears(At.LOOK, _conflicting)),
    Mutant("MANIFEST-6", "another slot", "two disjoint", instead(LeavesTheSlot)),
    Mutant("MANIFEST-7", "believed too soon", "moody", instead(BelievesTooSoon)),
    Mutant("MANIFEST-8", "second refusal believed", "refusals", instead(BelievesRefusal)),
    Mutant("MANIFEST-9", "doubt told as aborted", "unreadable", says(_certain)),
    Mutant("MANIFEST-10", "cancelled at a free slot", "cancel", says(_cancelled)),
    no("MANIFEST-10", "no fence", "cancel", cancel_fences=False),
    Mutant("MANIFEST-11", "endless patience", "two disjoint", instead(Counts)),
    Mutant("MANIFEST-11", "no pause", "two disjoint", instead(Rushes)),
]

PERFORMER = [
    no("LOG-1", "boundary not read", "truncation", boundary_after_records=False),
    no("LOG-2", "listing believed", "reader", boundary_after_listing=False),
    no(
        "LOG-3",
        "forgotten, and told as absent",
        "truncation",
        truncation_remembers=False,
        says_unknown=False,
    ),
    no("LOG-4", "no check", "two conflicting", conflicts_checked=False),
    no("LOG-4", "no check of what is gone", "truncation, conflict", conflicts_unseen=False),
    no("LOG-5", "fence ignored", "collector", fence_checked=False),
    no("LOG-5", "floor ignored", "floor", floor_checked=False),
    no("LOG-6", "link to a retired object", "link", links_checked=False),
    no("LOG-7", "deleted by age", "collector", fence_first=False),
    no("LOG-7", "not read again", "collector", reads_after_fence=False),
    no("LOG-8", "pins listed first", "pin", retire_first=False),
    no("LOG-8", "pins ignored", "pin", pins_spared=False),
    no("LOG-9", "pinned unread", "pin", reads_after_pin=False),
    no("LOG-10", "keys deleted first", "reader", boundary_first=False),
    no("LOG-10", "kept version cut", "pin", boundary_below_kept=False),
    no("LOG-10", "pinned version cut", "pin", boundary_below_pins=False),
    no("LOG-11", "fences dropped without floor", "floor", floor_drops_old_only=False),
    no("LOG-12", "data of a doubtful one deleted", "cancel", discards_when_certain=False),
    no("LOG-13", "not scanned", "outcome", outcome_scans=False),
    no("LOG-13", "fenced believed first", "outcome, fenced", landed_before_fenced=False),
    no("LOG-14", "id not looked for", "one id", marks_checked=False),
]


# --- plain names --------------------------------------------------------------------------------------


def plain(rule: str, what: str, scene: str, **rules: bool) -> Mutant:
    return Mutant(rule, what, scene, rules=PlainRules(**rules))


def projecting(cls: type[Project]) -> Wrap:
    return lambda machine: cls(machine.ops, machine.tries)


class PublishersFirst(Project):
    """Publishes the entry before what it names."""

    __slots__ = ()

    @property
    def order(self) -> tuple[int, ...]:
        return tuple(reversed(Project.order.fget(self)))  # type: ignore[attr-defined]


class RemovesFirst(Project):
    """Removes old parts while the old entry still names them."""

    __slots__ = ()

    @property
    def order(self) -> tuple[int, ...]:
        order = Project.order.fget(self)  # type: ignore[attr-defined]
        return tuple(sorted(order, key=lambda i: self.ops[i].kind == "put"))


class FinishesFirst(Project):
    """Appends the done record before the last operation."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        if state.at is project.At.FINISH and state.turn != -1:
            state = replace(state, turn=-1)
            return replace(state, at=project.At.APPLY), Apply(self.order[-1])
        if state.turn == -1:
            return state, Committed()
        state, then = Project.step(self, state, event)
        last = isinstance(then, Apply) and then.op == self.order[-1]
        return (replace(state, at=project.At.FINISH), Finish()) if last else (state, then)


class BelievesAnswers(Project):
    """Takes an unknown answer for done."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        unknown = state.at is project.At.APPLY and isinstance(event, Unknown)
        return Project.step(self, state, Done() if unknown else event)


class BelievesTaken(Project):
    """Takes a name that is taken for its own work."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        taken = state.at is project.At.APPLY and isinstance(event, Taken)
        return Project.step(self, state, Done() if taken else event)


class SkipsStrangers(Project):
    """Goes on where a stranger's content is, and says finished."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        other = isinstance(event, Found) and event.what == "other"
        return Project.step(self, state, Found("new") if other else event)


class Aborts(Project):
    """Takes a failure after the record for the end."""

    __slots__ = ()

    def step(self, state: Any, event: Any) -> Any:
        state, then = Project.step(self, state, event)
        return state, Committed() if then == Committed(pending=True) else then


PLAIN = [
    plain("PROJECT-1", "published before the record", "entry", record_first=False),
    Mutant("PROJECT-2", "publisher first", "entry", projecting(PublishersFirst), PlainRules()),
    Mutant("PROJECT-2", "removal first", "parts go", projecting(RemovesFirst), PlainRules()),
    plain("PROJECT-3", "unconditional", "entry", conditional=False),
    plain("PROJECT-3", "nothing there taken for the base", "removal", nothing_is_no_base=False),
    Mutant("PROJECT-4", "unknown believed", "entry", projecting(BelievesAnswers), PlainRules()),
    Mutant("PROJECT-4", "taken believed", "a stranger", projecting(BelievesTaken), PlainRules()),
    plain("PROJECT-5", "the log read before the name", "entry", log_after_look=False),
    Mutant("PROJECT-6", "stranger skipped", "a stranger", projecting(SkipsStrangers), PlainRules()),
    plain("PROJECT-6", "stranger replaced", "a stranger", conditional=False),
    Mutant("PROJECT-7", "done record first", "entry", projecting(FinishesFirst), PlainRules()),
    plain("PROJECT-7", "next commit at once", "entry", one_at_a_time=False),
    Mutant("PROJECT-8", "pending told as finished", "entry", projecting(Aborts), PlainRules()),
    plain("PLAIN-1", "tokens repeat", "entry", tokens_unique=False),
    plain("PLAIN-2", "collected while pending", "collection", collection_waits=False),
    plain("PLAIN-3", "base not compared", "a stranger", base_compared=False),
]

MUTANTS = [*MACHINE, *PERFORMER, *PLAIN]
