"""A simulated file system, small enough to be explored exhaustively, and a performer on it.

What it models, on the pessimistic side of POSIX:

- A directory operation is visible at once and volatile until every directory it touches was synced.
  A power cut loses any subset of the volatile ones; only an operation whose *source* was put there by a
  lost operation is lost with it (one can't move what isn't there). A rename is one operation.
- Contents (and the entries inside a staged tree) are torn by a power cut unless they were synced.
- Process kills lose nothing.

Names are slots: ``T<i>`` targets, ``ctl`` the control directory's entry, ``X``, ``X.fenced``,
``X.trash`` the area's three names, ``done`` the receipt; in the area ``n<i>``, ``o<i>``, ``tmp``,
``plan``, ``intent``, ``commit``. Contents are words: ``N<i>`` staged, ``B<i>`` base, ``F<i>`` put by
a stranger and seen by a `Check` or `Inspect` since, ``f<i>`` put by a stranger behind our back, ``g<i>``
a stranger's that a machine replaced in the window its docstring excuses. Nothing is ``""``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

from fstx.machines.vocabulary import (
    Check,
    Clear,
    Done,
    Effect,
    Event,
    Fence,
    Found,
    Inspect,
    Item,
    Kind,
    Lock,
    Move,
    Receipt,
    Record,
    Refused,
    Retire,
    Seen,
    SyncArea,
    SyncData,
    SyncTargets,
    Unknown,
    Who,
)


class Op(NamedTuple):
    writes: tuple[tuple[int, str], ...]
    sources: tuple[int, ...]
    volatile: frozenset[str]  # directories that still have to be synced


class _Disk(NamedTuple):
    base: tuple[str, ...]
    ops: tuple[Op, ...]
    live: tuple[str, ...]
    dirty: frozenset[str] = frozenset()
    torn: frozenset[str] = frozenset()


class Disk(_Disk):
    """A file system: what is on the platter, what happened since, what a process sees."""

    _hash: int

    def __hash__(self) -> int:  # taken often enough to be worth remembering
        try:
            return self._hash
        except AttributeError:
            self._hash = tuple.__hash__(self)
            return self._hash


@dataclass(frozen=True)
class Rules:
    """What the performer owes the machines; a mutant turns one of these off."""

    record_syncs_file: bool = True
    record_syncs_area: bool = True
    area_syncs: frozenset[str] = frozenset({"trees", "A", "C", "P"})
    targets_sync_all: bool = True
    targets_sync_area: bool = True
    retire_syncs: bool = True
    trash_synced_first: bool = True
    area_by_name: bool = True
    one_recoverer: bool = True
    refused_is_sure: bool = True
    place_keeps_trees: bool = True
    checks_base: bool = True
    clash_seen: bool = True


@dataclass(frozen=True)
class Scene:
    """One transaction in one surrounding, and how much goes wrong."""

    name: str
    strategy: str
    items: tuple[Item, ...]
    how: str = "create"
    strict: bool = True
    keyed: bool = True
    durable: bool = True
    faults: int = 0  # answers other than the plain one
    crashes: int = 0
    strangers: int = 0  # changes of a target by a program that knows no lock
    rivals: int = 0  # changes by one that takes the lock
    empty: bool = False  # an empty directory is where nothing else is
    clash: bool = False  # the first item removes what the second one publishes anew
    rules: Rules = field(default_factory=Rules)

    def target(self, i: int) -> str:
        return "T0" if self.clash and i == 1 else f"T{i}"

    def before(self, i: int) -> str:
        """What was at the target of an item at begin."""
        if self.clash and i == 1:
            return "B0"
        item = self.items[i]
        if item.occupied or item.kind is Kind.REMOVE:
            return f"B{i}"
        return f"E{i}" if self.empty else ""

    @cached_property
    def slots(self) -> tuple[str, ...]:
        n = range(len(self.items))
        return (
            *(f"T{i}" for i in n),
            *("ctl", "X", "X.fenced", "X.trash", "done"),
            *(f"n{i}" for i in n),
            *(f"o{i}" for i in n),
            *("tmp", "plan", "intent", "commit"),
        )

    @cached_property
    def at(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.slots)}

    @cached_property
    def dirs(self) -> tuple[str, ...]:
        """The directory of each slot; the targets lie in two."""
        where = {"ctl": "P0", "X": "C", "X.fenced": "C", "X.trash": "C", "done": "D"}
        return tuple(f"P{int(s[1:]) % 2}" if s[0] == "T" else where.get(s, "A") for s in self.slots)

    @property
    def excuses(self) -> bool:
        """Whether a stranger's change right before a move is beyond protection."""
        return self.strategy == "redo" or (self.strategy == "rename" and self.how == "place")

    def begin(self) -> Disk:
        """Everything staged, nothing synced."""
        live = [""] * len(self.slots)
        for i in range(len(self.items)):
            live[self.at[self.target(i)]] = self.before(i)
        disk = Disk(tuple(live), (), tuple(live))
        disk = apply(self, disk, {"ctl": "C"})
        disk = apply(self, disk, {"X": "A"})
        dirty: set[str] = set()
        for i, item in enumerate(self.items):
            if item.kind is Kind.PUBLISH:
                disk = apply(self, disk, {f"n{i}": f"N{i}"})
                dirty |= {f"N{i}", f"N{i}/"} if item.tree else {f"N{i}"}
        return disk._replace(dirty=frozenset(dirty) if self.durable else frozenset())


# --- the file system ---


def get(scene: Scene, disk: Disk, slot: str) -> str:
    return disk.live[scene.at[slot]]


def _written(state: tuple[str, ...], writes: tuple[tuple[int, str], ...]) -> tuple[str, ...]:
    new = list(state)
    for slot, value in writes:
        new[slot] = value
    return tuple(new)


def apply(scene: Scene, disk: Disk, writes: dict[str, str], *, synced: bool = False) -> Disk:
    """One directory operation; `synced` is a stranger's, durable at once with what it was put upon."""
    slots = tuple((scene.at[name], value) for name, value in writes.items())
    live = _written(disk.live, slots)
    if not scene.durable:
        return disk._replace(base=live, live=live)
    # a source is a name that something is taken from; what is merely overwritten is none
    put = {value for _, value in slots}
    sources = tuple(
        slot for slot, value in slots if disk.live[slot] and (not value or disk.live[slot] in put)
    )
    dirs = frozenset() if synced else frozenset(scene.dirs[slot] for slot, _ in slots)
    if synced:
        sources = tuple(slot for slot, _ in slots)
    disk = disk._replace(ops=(*disk.ops, Op(slots, sources, dirs)), live=live)
    return _settle(disk) if synced else _fold(disk)


def sync(disk: Disk, where: str) -> Disk:
    """Entries of one directory durable."""
    if not any(where in op.volatile for op in disk.ops):
        return disk
    ops = tuple(op._replace(volatile=op.volatile - {where}) for op in disk.ops)
    return _settle(disk._replace(ops=ops))


def _settle(disk: Disk) -> Disk:
    """What a durable operation presupposes is durable."""
    ops = list(disk.ops)
    for j in range(len(ops) - 1, -1, -1):
        if not ops[j].volatile:
            for i in _needs(tuple(ops), j):
                ops[i] = ops[i]._replace(volatile=frozenset())
    return _fold(disk._replace(ops=tuple(ops)))


def _needs(ops: tuple[Op, ...], j: int) -> list[int]:
    """The operations that put there what operation j took away."""
    found = []
    for slot in ops[j].sources:
        for i in range(j - 1, -1, -1):
            if any(slot == s for s, _ in ops[i].writes):
                found.append(i)
                break
    return found


def _fold(disk: Disk) -> Disk:
    base, ops = disk.base, disk.ops
    while ops and not ops[0].volatile:
        base, ops = _written(base, ops[0].writes), ops[1:]
    return disk._replace(base=base, ops=ops)


def power_cuts(scene: Scene, disk: Disk) -> set[Disk]:
    """Every file system that may be found when power comes back."""
    found = set()
    loose = [i for i, op in enumerate(disk.ops) if op.volatile]
    needs = [_needs(disk.ops, j) for j in range(len(disk.ops))]
    for choice in itertools.product((False, True), repeat=len(loose)):
        kept = [True] * len(disk.ops)
        for i, keep in zip(loose, choice, strict=True):
            kept[i] = keep
        if any(kept[j] and not all(kept[i] for i in needs[j]) for j in range(len(kept))):
            continue
        live = disk.base
        for keep, op in zip(kept, disk.ops, strict=True):
            if keep:
                live = _written(live, op.writes)
        live = _reachable(scene, live)
        there = set(live)
        torn = {w for w in disk.dirty | disk.torn if w.rstrip("/") in there}
        found.add(Disk(live, (), live, frozenset(), frozenset(torn)))
    return found


def _reachable(scene: Scene, live: tuple[str, ...]) -> tuple[str, ...]:
    at = scene.at
    new = list(live)
    if not new[at["ctl"]]:
        for name in ("X", "X.fenced", "X.trash", "done"):
            new[at[name]] = ""
    if not any(new[at[name]] for name in ("X", "X.fenced", "X.trash")):
        for slot, where in enumerate(scene.dirs):
            if where == "A":
                new[slot] = ""
    return tuple(new)


# --- the performer ---


def area(scene: Scene, disk: Disk, me: str) -> str | None:
    """The name by which this process reaches the area, if it does."""
    names = ("X",) if me == "owner" else ("X.fenced", "X")
    if me == "owner" and not scene.rules.area_by_name:
        names = ("X", "X.fenced", "X.trash")  # through a descriptor that was opened before
    return next((name for name in names if get(scene, disk, name)), None)


def perform(
    scene: Scene, disk: Disk, effect: Effect, me: str, *, fresh: bool = True
) -> tuple[list[Disk], Event]:
    """The file system after each primitive operation of an effect, beginning with none, and the answer.

    ``fresh``: this process compares for the first time. What it meets then, it must not destroy.
    """
    here = area(scene, disk, me)
    steps = [disk]

    def do(writes: dict[str, str]) -> None:
        steps.append(apply(scene, steps[-1], writes))

    def flush(where: str) -> None:
        if scene.durable:
            steps.append(sync(steps[-1], where))

    def clean(words: set[str]) -> None:
        if scene.durable:
            steps.append(steps[-1]._replace(dirty=steps[-1].dirty - words))

    match effect:
        case SyncData():
            for word in sorted(w for w in disk.dirty if w[0] == "N" and w[-1] != "/"):
                clean({word})
            return steps, Done()
        case Lock():
            return steps, Done()
        case Receipt():
            if scene.keyed:
                do({"done": "receipt"})
                flush("D")
            return steps, Done()
        case Clear():
            _clear(scene, steps, do)
            return steps, Done()
        case Fence():
            if get(scene, disk, "X.fenced"):
                return steps, Done()
            if not get(scene, disk, "X"):
                return steps, Refused("gone")
            do({"X": "", "X.fenced": "A"})
            return steps, Done()
        case SyncTargets():
            for where in sorted(
                {d for s, d in zip(scene.slots, scene.dirs, strict=True) if s[0] == "T"}
            ):
                if scene.rules.targets_sync_all or where == "P0":
                    flush(where)
            if here is None:
                return steps, Refused("gone")
            if scene.rules.targets_sync_area:
                flush("A")
            return steps, Done()
        case _ if here is None:
            return steps, Refused("gone")
        case SyncArea():
            if "trees" in scene.rules.area_syncs:
                clean({w for w in disk.dirty if w[-1] == "/"})
            for where, what in (("A", "A"), ("C", "C"), ("P0", "P")):
                if what in scene.rules.area_syncs:
                    flush(where)
            return steps, Done()
        case Check():
            return [_looked(scene, disk)], _check(scene, disk)
        case Inspect():
            # later looks are for a process's own moves, but where all strangers are protected
            compares = fresh or (me == "owner" and not scene.excuses)
            return [_looked(scene, disk) if compares else disk], _inspect(scene, disk)
        case Record(kind):
            do({"tmp": kind})
            if scene.durable:
                steps[-1] = steps[-1]._replace(dirty=steps[-1].dirty | {kind})
            clean({kind} if scene.rules.record_syncs_file else set())
            do({"tmp": "", kind: kind})
            flush("A" if scene.rules.record_syncs_area else "nowhere")
            return steps, Done()
        case Retire():
            assert here is not None
            do({here: "", "X.trash": "A"})
            flush("C" if scene.rules.retire_syncs else "nowhere")
            return steps, Done()
        case Move():
            writes = _move(scene, disk, effect, me)
            if isinstance(writes, Refused):
                return steps, writes
            do(writes)
            return steps, Done()
    raise AssertionError(effect)


def _clear(scene: Scene, steps: list[Disk], do) -> None:  # type: ignore[no-untyped-def]
    if get(scene, steps[-1], "X.trash"):
        inside = [s for s, d in zip(scene.slots, scene.dirs, strict=True) if d == "A"]
        for part in ([s for s in inside if s[0] in "no"], [s for s in inside if s[0] not in "no"]):
            full = {s: "" for s in part if get(scene, steps[-1], s)}
            if full:
                do(full)
        do({"X.trash": ""})
    used = any(get(scene, steps[-1], s) for s in ("X", "X.fenced", "X.trash", "done"))
    if get(scene, steps[-1], "ctl") and not used:
        do({"ctl": ""})


def _looked(scene: Scene, disk: Disk) -> Disk:
    """A stranger's content that a look has met may not be destroyed afterwards."""
    n = len(scene.items)
    live = tuple(w.upper() if i < n and w[:1] == "f" else w for i, w in enumerate(disk.live))
    return disk._replace(live=live)


def _check(scene: Scene, disk: Disk) -> Event:
    if not scene.rules.checks_base:
        return Done()
    for i in range(len(scene.items)):
        there, had = get(scene, disk, scene.target(i)), scene.before(i)
        if scene.strict and there != had:
            return Refused("conflict")
        if had[:1] in ("", "E") and there[:1] not in ("", "E"):
            return Refused("exists")
    return Done()


def _inspect(scene: Scene, disk: Disk) -> Event:
    records = frozenset(k for k in ("plan", "intent", "commit") if get(scene, disk, k))
    if records & disk.torn:
        return Refused("failed")  # REC-2
    return Found(
        tuple(
            Seen(
                _who(scene, i, get(scene, disk, scene.target(i)), at_target=True),
                _who(scene, i, get(scene, disk, f"n{i}")),
                _who(scene, i, get(scene, disk, f"o{i}")),
            )
            for i in range(len(scene.items))
        ),
        records,
    )


def _who(scene: Scene, i: int, word: str, *, at_target: bool = False) -> Who:
    if at_target and scene.clash and i == 1 and word == "B0" and scene.rules.clash_seen:
        return Who.NONE  # the item before sees to it
    known = {"": Who.NONE, f"N{i}": Who.NEW, f"B{i}": Who.BASE, f"E{i}": Who.BASE}
    return known.get(word, Who.OTHER)


def _move(scene: Scene, disk: Disk, move: Move, me: str) -> dict[str, str] | Refused:
    i, item = move.item, scene.items[move.item]
    at = scene.target(i)
    target, new, old = (get(scene, disk, slot) for slot in (at, f"n{i}", f"o{i}"))
    full = target[:1] not in ("", "E")

    def excused(word: str) -> str:
        # redo, and swap in recovery, set aside what came after their last look
        late = scene.excuses or (move.how == "aside" and me == "recoverer")
        return "g" + word[1:] if word[:1] == "f" and late else word

    match move.how:
        case "place" | "create":
            blocked = full and (
                move.how == "create" or (item.tree and scene.rules.place_keeps_trees)
            )
            if blocked:
                return Refused("exists")
            return {f"n{i}": "", at: new} if new else Refused("failed")
        case "exchange":
            return {f"n{i}": target, at: new} if new and target else Refused("failed")
        case "aside":
            return {at: "", f"o{i}": excused(target)} if target else Refused("failed")
        case "restore":
            if target:
                return Refused("exists")
            return {f"o{i}": "", at: old} if old else Refused("failed")


# --- what storage may answer instead ---


@cache
def other_answers(effect: Effect, steps: int, sure: bool) -> tuple[tuple[int, Event], ...]:
    """Pairs of (primitive operations done, answer) besides the plain answer; `steps` counts operations."""
    last = steps
    busy, failed, unknown = Refused("busy"), Refused("failed"), Unknown()
    match effect:
        case SyncData() | SyncArea() | SyncTargets():
            return (*((k, failed) for k in range(last)), (0, unknown), (last, unknown))
        case Record():
            # refused up to the rename, unknown from there
            rename = last - 1 if last == 4 else last
            options = [(k, failed) for k in range(rename)]
            options += [(k, unknown) for k in (0, *range(rename, last + 1))]
            if not sure:
                options.append((rename, failed))
            return tuple(options)
        case Move():
            more = () if sure else ((last, failed),)
            return ((0, busy), (0, failed), (0, unknown), (last, unknown), *more)
        case Lock() | Check():
            return ((0, busy), (0, unknown))
        case Inspect():
            return ((0, failed), (0, unknown))
        case Clear():
            return ()
        case _:
            more = () if sure or last < 1 else ((1, failed),)
            return ((0, failed), *((k, unknown) for k in range(last + 1)), *more)
