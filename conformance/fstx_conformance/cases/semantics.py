"""Level "semantics": promises, modes, conflicts, ids and ends of transactions, nothing going wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from fstx.errors import (
    CapabilityError,
    CommitError,
    ConflictError,
    StateError,
    TargetExistsError,
    TransactionError,
)
from fstx.types import Capability, Durability, Mode, OutcomeState
from fstx_conformance.cases import case
from fstx_conformance.checks import (
    MODES,
    OLD,
    another,
    create,
    opened,
    place,
    reads_none,
    refused,
    same,
    together,
)
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.results import Level
from fstx_conformance.scenes import BIG, text
from fstx_conformance.subjects import raw
from fstx_conformance.subjects.base import Room
from fstx_conformance.trial import diff


@case(Level.SEMANTICS, "guarantee", "BACKEND-1", "BACKEND-2")
def guarantee(lab: Lab) -> None:
    """What is promised names every capability once, leaves nothing, and is what a transaction gets."""
    durabilities: tuple[Durability, ...] = ("data", "none")
    for old in ({}, OLD):
        with place(lab, old) as room:
            before = raw.listing(room)
            for mode in MODES:
                for durability in durabilities:
                    _promised(lab, room, mode, durability, bool(old))
            same(lab, room, old, "after questions and transactions that were given up")
            after = raw.listing(room)
            if before is not None and after is not None and not old:
                told = sorted(set(after) - set(before))
                # the format keeps its marker and log
                left = [n for n in told if n.split("/")[0] == "t" and ".fstx" not in n.split("/")]
                lab.check(not left, f"left in the target: {', '.join(left[:5])} (BACKEND-2)")


def _promised(lab: Lab, room: Room, mode: Mode, durability: Durability, there: bool) -> None:
    what = f"guarantee(mode={mode!r}, durability={durability!r})"
    before = raw.listing(room)
    told = room.open().guarantee(mode=mode, durability=durability)
    lab.check(raw.listing(room) == before, f"{what} left or changed something (BACKEND-2)")
    named = [p.capability for p in told.promises]
    lab.check(
        sorted(named) == sorted(Capability),
        f"{what} names {', '.join(named)}: not every capability once (BACKEND-1)",
    )
    dumb = [p.capability for p in told.promises if not p.reason.strip()]
    lab.check(not dumb, f"{what} gives no reason for {', '.join(dumb)} (BACKEND-1)")
    if mode == "create" and there:
        return
    tx = room.begin(mode=mode, durability=durability)
    fewer = told.capabilities - tx.guarantee.capabilities
    lab.check(
        not fewer, f"{what} promises {', '.join(sorted(fewer))}, and the transaction does not"
    )
    tx.rollback()
    lab.seen["aborted"] += 1


@case(Level.SEMANTICS, "require", "BACKEND-3")
def require(lab: Lab) -> None:
    """What is not promised and yet required is refused before a byte is written."""
    missing = 0
    with place(lab) as room:
        for mode in ("replace", "update"):
            before = raw.listing(room) or room.read()
            told = room.open().guarantee(mode=mode, durability="data")
            for capability in Capability:
                if capability in told:
                    continue
                missing += 1
                wanted = frozenset({capability})

                def begin(wanted: frozenset[Capability] = wanted, mode: Any = mode) -> object:
                    return room.begin(mode=mode, require=wanted)

                refused(lab, CapabilityError, begin, f"begin(mode={mode!r}, require={capability})")
                after = raw.listing(room) or room.read()
                lab.check(after == before, f"refusing {capability} changed {diff(after, before)}")
            with room.begin(mode=mode, require=told.capabilities) as tx:
                tx.rollback()
                lab.seen["aborted"] += 1
    if not missing:
        raise NotApplicable("every capability is promised here: there is nothing to refuse")


@case(Level.SEMANTICS, "replace", "BACKEND-14")
def replace(lab: Lab) -> None:
    """A replaced target holds what was staged and nothing else; nothing staged is refused."""
    with place(lab) as room:
        tx = room.begin(mode="replace")
        refused(lab, TransactionError, tx.commit, "commit of mode replace with nothing staged")
        lab.seen["aborted"] += 1
        same(lab, room, OLD, "after an empty replacement")
        with room.begin(mode="replace") as tx:
            tx.stage("a", b"only")
            told = list(tx.paths())
            lab.check(told == ["a"], f"of mode replace the base stays: paths() gives {told}")
            reads_none(lab, tx, "b", "what a replacement takes away")
        lab.seen["committed"] += 1
        same(lab, room, {"a": b"only"}, "after a replacement")


@case(Level.SEMANTICS, "create", "BACKEND-15", sees=("committed",))
def create_once(lab: Lab) -> None:
    """A target that holds something is not created; of several at once one commits."""
    with place(lab) as room:
        refused(lab, TargetExistsError, lambda: create(room, b"x"), "create of what is there")
        same(lab, room, OLD, "after a refused creation")
    with place(lab, {}) as room:
        found = together([partial(create, room, b"writer %d" % n) for n in range(5)])
        won = [n for n, error in enumerate(found) if error is None]
        lab.seen["committed"] += len(won)
        lab.check(len(won) == 1, f"of 5 that create one target {len(won)} were told that they did")
        for error in found:
            if error is not None:
                lab.check(
                    isinstance(error, CommitError),
                    f"who came second was told {type(error).__name__}: {error}",
                )
        if len(won) == 1:
            same(lab, room, {"a": b"writer %d" % won[0], "n/b": b"2"}, "after the race")


@case(Level.SEMANTICS, "conflict", "BACKEND-21", sees=("conflict", "committed"))
def conflict(lab: Lab) -> None:
    """A commit on what another one changed since is refused, and the other's work stays."""
    ways: dict[str, tuple[Callable[[Any], object], Callable[[Any], object]]] = {
        "staged": (lambda tx: tx.stage("a", b"mine"), lambda tx: tx.stage("a", b"other's")),
        "read": (
            lambda tx: (tx.read("a"), tx.stage("mine", b"from a")),
            lambda tx: tx.stage("a", b"other's"),
        ),
        "removed": (lambda tx: tx.remove("d"), lambda tx: tx.stage("d/x", b"other's")),
        "staged what went": (lambda tx: tx.stage("a", b"mine"), lambda tx: tx.remove("a")),
        "staged what came": (
            lambda tx: tx.stage("new", b"mine"),
            lambda tx: tx.stage("new", b"other's"),
        ),
    }
    for name, (mine, others) in ways.items():
        with place(lab) as room:
            _must_detect(room)
            tx = room.begin()
            mine(tx)
            with another(room) as other:
                others(other)
            lab.seen["committed"] += 1
            now = room.read()
            error = refused(
                lab, ConflictError, tx.commit, f"commit after another changed what was {name}"
            )
            lab.seen["conflict"] += isinstance(error, ConflictError)
            same(lab, room, now, f"after a conflict ({name})", Capability.CONFLICT_DETECTED)
    lab.kept.add(Capability.CONFLICT_DETECTED)


def _must_detect(room: Room) -> None:
    if Capability.CONFLICT_DETECTED not in room.open().guarantee(mode="update", durability="data"):
        raise NotApplicable("CONFLICT_DETECTED is not promised")


@case(Level.SEMANTICS, "ids", "BACKEND-31", "BACKEND-30", sees=("committed",))
def ids(lab: Lab) -> None:
    """Of all runs with one id one commits; the next ones find that, and change nothing."""
    with place(lab) as room:
        tx = room.begin(id="job")
        lab.check(tx.id == "job", f"the transaction of id 'job' says {tx.id!r}")
        tx.stage("a", b"once")
        tx.rollback()
        lab.seen["aborted"] += 1
        tx = room.begin(id="job")
        lab.check(not tx.committed, "an id that was given up counts as committed")
        tx.stage("a", b"once")
        twin = _twin(lab, room)
        tx.commit()
        lab.seen["committed"] += 1
        if twin is not None:
            try:
                lab.check(twin.commit() and twin.committed, "the twin's commit is not one")
            except ConflictError:
                lab.seen["conflict"] += 1
        tx = room.begin(id="job")
        lab.check(tx.committed, "an id that was committed is not known")
        refused(
            lab, StateError, lambda: tx.stage("a", b"twice"), "stage of what is committed already"
        )
        lab.check(
            room.outcome("job") is OutcomeState.COMMITTED, f"outcome says {room.outcome('job')}"
        )
        told = room.outcome("never")
        lab.check(
            told in (OutcomeState.UNKNOWN, OutcomeState.ABORTED),
            f"outcome of no transaction: {told}",
        )
        same(lab, room, {**OLD, "a": b"once"}, "after the second run")


def _twin(lab: Lab, room: Room) -> Any:
    """Another run with the id, at the same time: refused at once, or at its end."""
    try:
        twin = room.begin(id="job")
        twin.stage("a", b"twice")
    except ConflictError:
        lab.seen["conflict"] += 1
        return None
    return twin


@case(Level.SEMANTICS, "given-up", "BACKEND-32", "BACKEND-42", sees=("aborted",))
def given_up(lab: Lab) -> None:
    """After `rollback`, and after an exception in the block, which comes out as it is, all is as it was."""
    for raised in (None, LookupError("the caller's own"), KeyboardInterrupt()):
        with place(lab) as room:
            found: BaseException | None = None
            try:
                with room.begin() as tx:
                    tx.stage("a", text("new", BIG))
                    tx.remove("d")
                    if raised is not None:
                        raise raised
                    tx.rollback()
            except (LookupError, KeyboardInterrupt) as error:
                found = error
            lab.seen["aborted"] += 1
            lab.check(found is raised, f"the block raised {raised!r}, and {found!r} came out")
            same(lab, room, OLD, f"after {raised!r} in the block" if raised else "after rollback")
            lab.check(not tx.committed, "committed is true of what was given up")
            left = room.leftovers()
            lab.check(not left, f"left over: {', '.join(left[:5])} (BACKEND-42)")


@case(Level.SEMANTICS, "over", "BACKEND-34")
def over(lab: Lab) -> None:
    """A transaction that is over takes no call; its end may be asked for again."""
    for committed in (True, False):
        with place(lab) as room:
            tx = room.begin()
            receipt = tx.stager().stage("p", b"p")
            tx.stage("a", b"new")
            if committed:
                first = tx.commit()
                lab.seen["committed"] += 1
                lab.check(tx.commit() == first, "commit again gives another snapshot")
            else:
                tx.rollback()
                lab.seen["aborted"] += 1
                tx.rollback()
                refused(lab, StateError, tx.commit, "commit after rollback")
            wanted = {**OLD, "a": b"new"} if committed else OLD
            end = "commit" if committed else "rollback"
            for name, call in _calls(tx, receipt).items():
                refused(lab, StateError, call, f"{name} after {end}")
            with contextlib.suppress(StateError):
                tx.rollback()
            lab.check(tx.committed == committed, f"committed is {tx.committed} after {end}")
            same(lab, room, wanted, f"after calls that came after {end}")


def _calls(tx: Any, receipt: Any) -> dict[str, Callable[[], object]]:
    return {
        "stage": lambda: tx.stage("late", b"x"),
        "open": lambda: opened(tx, "late"),
        "compose": lambda: tx.compose("late", [b"x"]),
        "adopt": lambda: tx.adopt([receipt]),
        "remove": lambda: tx.remove("b"),
        "read": lambda: tx.read("b"),
        "paths": lambda: list(tx.paths()),
    }
