"""For every numbered rule, machines or performers that break it and nothing else.

The model must find each of them out; a rule whose breach it can't see is no rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from fstx.machines import Redo, Rename, State, Swap
from fstx.machines.base import At
from fstx.machines.vocabulary import (
    Aborted,
    Check,
    Committed,
    Done,
    Effect,
    Event,
    Found,
    InDoubt,
    Lock,
    Machine,
    Move,
    Outcome,
    Receipt,
    Refused,
    Retire,
    Seen,
    Stuck,
    SyncData,
    SyncTargets,
    Unknown,
    Who,
)
from support.modelfs import Rules

Wrap = Callable[[Machine[Any]], Machine[Any]]
OUTCOMES = (Committed, Aborted, InDoubt, Stuck)


class Around:
    """A machine around a machine; subclasses change one thing on the way."""

    def __init__(self, inner: Machine[Any]) -> None:
        self.inner = inner

    def start(self) -> Any:
        return self.out(*self.inner.start())

    def rollback(self) -> Any:
        return self.out(*self.inner.rollback())

    def recover(self) -> Any:
        return self.out(*self.inner.recover())

    def step(self, state: Any, event: Event) -> Any:
        return self.out(*self.inner.step(state, self.hear(state, event)))

    def hear(self, state: State, event: Event) -> Event:
        return event

    def out(self, state: State, then: Effect | Outcome) -> Any:
        return state, then


def skip(when: Callable[[State, Effect], bool]) -> Wrap:
    """Takes for done what it doesn't do."""

    class Skip(Around):
        def out(self, state: State, then: Effect | Outcome) -> Any:
            while not isinstance(then, OUTCOMES) and when(state, then):
                state, then = self.inner.step(state, Done())
            return state, then

    return Skip


def skip_at(at: At, *, recovering: bool | None = None) -> Wrap:
    return skip(lambda s, _: s.at is at and recovering in (None, s.recovering))


def hear(at: At, change: Callable[[Event], Event]) -> Wrap:
    """Takes one answer for another."""

    class Hear(Around):
        def hear(self, state: State, event: Event) -> Event:
            return change(event) if state.at is at else event

    return Hear


def say(change: Callable[[State, Any], Any]) -> Wrap:
    """Ends otherwise, or goes on where it should end."""

    class Say(Around):
        def out(self, state: State, then: Effect | Outcome) -> Any:
            return change(state, then) if isinstance(then, OUTCOMES) else (state, then)

    return Say


def early(late: type[Any], soon: Effect) -> Wrap:
    """Does one effect before another instead of after it."""

    class Early(Around):
        def out(self, state: Any, then: Any, held: Any = None, had: bool = False) -> Any:
            if isinstance(then, late) and not had:
                return (state, then, True), soon
            if had and then == soon:
                state, then = self.inner.step(state, Done())
            return (state, None, had), then

        def step(self, state: Any, event: Event) -> Any:
            inner, held, had = state
            if held is not None:
                return (inner, None, had), held
            return self.out(*self.inner.step(inner, event), had=had)

    return Early


def bad_as_done(event: Event) -> Event:
    return Done() if isinstance(event, Refused | Unknown) else event


def refused_as_done(event: Event) -> Event:
    return Done() if isinstance(event, Refused) else event


def unknown_as_done(event: Event) -> Event:
    return Done() if isinstance(event, Unknown) else event


def unknown_as_refused(event: Event) -> Event:
    return Refused("failed") if isinstance(event, Unknown) else event


def without_records(event: Event) -> Event:
    return replace(event, records=frozenset()) if isinstance(event, Found) else event


def without_commit(event: Event) -> Event:
    if isinstance(event, Found):
        return replace(event, records=event.records - {"commit"})
    return event


def with_commit(event: Event) -> Event:
    if isinstance(event, Found) and "intent" in event.records:
        return replace(event, records=event.records | {"commit"})
    return event


def all_as_expected(event: Event) -> Event:
    if isinstance(event, Found):
        seen = tuple(Seen(Who.NONE, s.new, Who.NONE) for s in event.items)
        return replace(event, items=seen)
    return event


def new_is_back(event: Event) -> Event:
    if isinstance(event, Found):
        return replace(event, items=(replace(event.items[0], new=Who.NEW),))
    return event


def pending_as(outcome: Outcome) -> Wrap:
    return say(lambda s, o: (s, outcome if o == Committed(pending=True) else o))


def drops(at: At) -> Wrap:
    """Retires the area where it should be kept."""
    return say(lambda s, o: (replace(s, at=At.DROP), Retire()) if s.at is at else (s, o))


def instead(cls: type[Any]) -> Wrap:
    """Another class over the same fields, for the machine that it derives from."""

    def wrap(machine: Machine[Any]) -> Machine[Any]:
        base = cls.__bases__[0]
        if not isinstance(machine, base) or not machine.items:
            return machine
        if isinstance(machine, Rename):
            return cls(machine.items, machine.strict, machine.how)
        return cls(machine.items, machine.strict)

    return wrap


class KeepsForeign(Rename):
    """Publishes over a stranger's content although it is strict."""

    __slots__ = ()

    def verdict(self, seen: Seen) -> Any:
        found = Rename.verdict(self, seen)
        return "new" if found == "back" else found


class Replaces(Swap):
    """Puts new content in by a rename that replaces files."""

    __slots__ = ()

    def _creates(self) -> tuple[Move, ...]:
        return tuple(Move(move.item, "place") for move in Swap._creates(self))


class SetsAside(Swap):
    """Sets a stranger's content aside to make room."""

    __slots__ = ()

    def _roll_forward(self, item: Any, seen: Seen) -> Any:
        hows = Swap._roll_forward(self, item, seen)
        return ("aside", "create") if hows is None else hows


class PlacesOver(Redo):
    """Rolls forward over a stranger's content."""

    __slots__ = ()

    def _roll_forward(self, item: Any, seen: Seen) -> Any:
        how = Redo._roll_forward(self, item, seen)
        return "place" if how == "stuck" else how


class Repeats(Redo):
    """Rolls forward from the first move, whatever has been made."""

    __slots__ = ()

    def _roll_forward(self, item: Any, seen: Seen) -> Any:
        return Redo._moves(self)[self.items.index(item)].how


@dataclass(frozen=True)
class Mutant:
    """One way to break one rule, and a scene in which that shows."""

    rule: str
    name: str
    scene: str
    wrap: Wrap = lambda machine: machine
    rules: Rules = field(default_factory=Rules)

    def __str__(self) -> str:
        return f"{self.rule}: {self.name}"


def _ordered(rule: str, scene: str) -> list[Mutant]:
    """The rule that syncing comes before the receipt and that before retiring, thrice broken."""
    return [
        Mutant(rule, "receipt before the sync", scene, early(SyncTargets, Receipt())),
        Mutant(rule, "retired before the sync", scene, early(SyncTargets, Retire())),
        Mutant(rule, "retired before the receipt", scene, early(Receipt, Retire())),
        Mutant(rule, "a failed receipt ignored", scene, hear(At.RECEIPT, bad_as_done)),
    ]


def _prepared(rule: str, scene: str) -> list[Mutant]:
    return [
        Mutant(rule, "contents not synced", scene, skip(lambda _, e: e == SyncData())),
        Mutant(rule, "area not synced", scene, skip_at(At.AREA)),
        Mutant(rule, "failed sync ignored", scene, hear(At.DATA, bad_as_done)),
    ]


NO_LOCK = skip(lambda s, e: e == Lock() and not s.recovering)
NO_CHECK = skip(lambda _, e: e == Check())

RENAME = [
    *_prepared("RENAME-1", "rename create, faults"),
    Mutant("RENAME-2", "no lock", "rename place, a rival", NO_LOCK),
    Mutant("RENAME-2", "no check", "rename place, strangers", NO_CHECK),
    Mutant("RENAME-3", "no plan", "rename exchange, faults", skip_at(At.PLAN)),
    Mutant(
        "RENAME-4", "refused taken for done", "rename create, faults", hear(At.SWITCH, bad_as_done)
    ),
    Mutant(
        "RENAME-5",
        "unknown taken for refused",
        "rename place, faults",
        hear(At.SWITCH, unknown_as_refused),
    ),
    Mutant(
        "RENAME-5",
        "unknown taken for done",
        "rename create, faults",
        hear(At.SWITCH, unknown_as_done),
    ),
    Mutant(
        "RENAME-6", "a stranger's content kept", "rename exchange, strangers", instead(KeepsForeign)
    ),
    Mutant(
        "RENAME-7", "no second look", "rename exchange, strangers", hear(At.BACK_LOOK, new_is_back)
    ),
    Mutant("RENAME-7", "not synced", "rename exchange, strangers", skip_at(At.UNDONE)),
    Mutant(
        "RENAME-8", "failed sync ignored", "rename create, faults", hear(At.FINISH, bad_as_done)
    ),
    *_ordered("RENAME-9", "rename exchange, faults"),
    Mutant("RENAME-10", "drops unseen", "rename place, faults", drops(At.LOOK)),
    Mutant(
        "RENAME-11",
        "failed retiring is an error",
        "rename create, faults",
        say(lambda s, o: (s, Aborted("failed") if s.at is At.RETIRE else o)),
    ),
]

SWAP = [
    *_prepared("SWAP-1", "swap file+tree, faults"),
    Mutant("SWAP-2", "no lock", "swap file, a rival", NO_LOCK),
    Mutant("SWAP-3", "no intent", "swap file, faults", skip_at(At.INTENT)),
    Mutant(
        "SWAP-4",
        "nothing put back",
        "swap file, faults",
        skip(lambda s, e: s.at is At.RESTORE and not s.recovering),
    ),
    Mutant("SWAP-5", "not compared", "swap file, a stranger", hear(At.COMPARE, all_as_expected)),
    Mutant("SWAP-6", "not synced", "swap file, faults", skip_at(At.UNDONE)),
    Mutant("SWAP-7", "no commit record", "swap file, faults", skip_at(At.COMMIT)),
    Mutant(
        "SWAP-7", "unknown taken for done", "swap file, faults", hear(At.COMMIT, unknown_as_done)
    ),
    Mutant(
        "SWAP-8",
        "unknown taken for refused",
        "swap file, two faults",
        hear(At.COMMIT, unknown_as_refused),
    ),
    Mutant("SWAP-9", "new content replaces", "swap file, a stranger", instead(Replaces)),
    Mutant("SWAP-10", "pending told as done", "swap file, faults", pending_as(Committed())),
    Mutant("SWAP-10", "pending told as aborted", "swap file, faults", pending_as(Aborted("busy"))),
    *_ordered("SWAP-11", "swap file+tree, faults"),
    Mutant(
        "SWAP-12", "failed restore ignored", "swap file, two faults", hear(At.RESTORE, bad_as_done)
    ),
    Mutant("SWAP-12", "dropped", "swap file, two faults", drops(At.RESTORE)),
    Mutant(
        "SWAP-13",
        "aside unknown taken for refused",
        "swap file, faults",
        hear(At.ASIDE, unknown_as_refused),
    ),
    Mutant(
        "SWAP-13",
        "create unknown taken for done",
        "swap file, faults",
        hear(At.FORWARD, unknown_as_done),
    ),
    Mutant(
        "SWAP-14", "back in spite of commit", "swap file, faults", hear(At.INSPECT, without_commit)
    ),
    Mutant(
        "SWAP-14", "forward without commit", "swap file, two faults", hear(At.INSPECT, with_commit)
    ),
    Mutant("SWAP-15", "makes room", "swap file, a stranger", instead(SetsAside)),
    Mutant(
        "SWAP-15",
        "drops what it can't restore",
        "swap file, a stranger",
        say(
            lambda s, o: (replace(s, at=At.DROP), Retire()) if isinstance(o, Stuck) else (s, o),
        ),
    ),
]

REDO = [
    *_prepared("REDO-1", "redo file+tree, faults"),
    Mutant("REDO-2", "no lock", "redo file, a rival", NO_LOCK),
    Mutant("REDO-2", "no check", "redo file, a stranger", NO_CHECK),
    Mutant("REDO-3", "no commit record", "redo file+tree, faults", skip_at(At.COMMIT)),
    Mutant(
        "REDO-3",
        "unknown taken for done",
        "redo file+tree, faults",
        hear(At.COMMIT, unknown_as_done),
    ),
    Mutant(
        "REDO-4",
        "unknown taken for refused",
        "redo file, two faults",
        hear(At.COMMIT, unknown_as_refused),
    ),
    Mutant("REDO-5", "pending told as done", "redo file, faults", pending_as(Committed())),
    Mutant("REDO-5", "pending told as aborted", "redo file, faults", pending_as(Aborted("busy"))),
    Mutant(
        "REDO-6", "unknown taken for done", "redo file, faults", hear(At.FORWARD, unknown_as_done)
    ),
    *_ordered("REDO-7", "redo file+tree, faults"),
    Mutant(
        "REDO-8",
        "back in spite of commit",
        "redo file+tree, faults",
        hear(At.INSPECT, without_commit),
    ),
    Mutant("REDO-8", "moves repeated", "redo file+tree, faults", instead(Repeats)),
    Mutant("REDO-9", "places over a stranger's", "redo file, a stranger", instead(PlacesOver)),
]


def blank_hears(change: Callable[[Event], Event]) -> Wrap:
    def wrap(machine: Machine[Any]) -> Machine[Any]:
        blank = isinstance(machine, Rename) and not machine.items
        return hear(At.INSPECT, change)(machine) if blank else machine

    return wrap


RECOVER = [
    Mutant("RECOVER-1", "no fence", "swap file, fenced", skip_at(At.FENCE)),
    Mutant(
        "RECOVER-2", "two at once", "swap file, two recoverers", rules=Rules(one_recoverer=False)
    ),
    Mutant(
        "RECOVER-2",
        "two at once",
        "rename exchange, two recoverers",
        rules=Rules(one_recoverer=False),
    ),
    Mutant(
        "RECOVER-3", "judged before the fence", "redo file, fenced", blank_hears(without_records)
    ),
    Mutant("RECOVER-4", "record not settled", "swap file, faults", skip_at(At.SETTLE)),
    Mutant("RECOVER-4", "record not settled", "redo file+tree, faults", skip_at(At.SETTLE)),
    Mutant(
        "RECOVER-5",
        "retired before the sync",
        "rename exchange, strangers",
        skip_at(At.UNDONE, recovering=True),
    ),
    Mutant(
        "RECOVER-5",
        "retired before the sync",
        "swap file, faults",
        skip_at(At.UNDONE, recovering=True),
    ),
    Mutant(
        "RECOVER-6",
        "a refused move taken for made",
        "redo file, two faults",
        hear(At.FORWARD, refused_as_done),
    ),
    Mutant(
        "RECOVER-7",
        "pending for ever",
        "redo file+tree, not strict",
        say(lambda s, o: (s, Committed(pending=True) if isinstance(o, Stuck) else o)),
    ),
]

ALL = frozenset({"trees", "A", "C", "P"})
PERFORMER = [
    Mutant("REC-1", "file not synced", "redo file, faults", rules=Rules(record_syncs_file=False)),
    Mutant(
        "REC-1", "area not synced", "redo file+tree, faults", rules=Rules(record_syncs_area=False)
    ),
    *(
        Mutant("EFFECT-1", "refused after all", scene, rules=Rules(refused_is_sure=False))
        for scene in ("rename place, faults", "redo file, two faults")
    ),
    *(
        Mutant(
            "EFFECT-2",
            f"without {what}",
            "redo file+tree, faults",
            rules=Rules(area_syncs=ALL - {what}),
        )
        for what in sorted(ALL)
    ),
    Mutant(
        "EFFECT-3", "one directory", "redo file+tree, faults", rules=Rules(targets_sync_all=False)
    ),
    Mutant(
        "EFFECT-3", "not the area", "rename create, faults", rules=Rules(targets_sync_area=False)
    ),
    Mutant("EFFECT-4", "not synced", "redo file, faults", rules=Rules(retire_syncs=False)),
    Mutant(
        "EFFECT-5",
        "swept at once",
        "rename exchange, faults",
        rules=Rules(trash_synced_first=False),
    ),
    Mutant("EFFECT-6", "by descriptor", "rename create, fenced", rules=Rules(area_by_name=False)),
    Mutant(
        "EFFECT-7", "base not compared", "rename place, strangers", rules=Rules(checks_base=False)
    ),
]

PERFORMER += [
    Mutant("EFFECT-8", "no regard", scene, rules=Rules(clash_seen=False))
    for scene in ("redo over removal, faults", "swap over removal, faults")
]

MUTANTS = [*RENAME, *SWAP, *REDO, *RECOVER, *PERFORMER]
