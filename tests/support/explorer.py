"""Exhaustive exploration of a commit machine on the simulated file system.

`explore` drives one transaction through every answer, kill, power cut and stranger that its scene
allows, lets recovery run from every file system that this leaves (with further faults while the scene has
some left, and once without any), and checks after each what was promised. `race` lets an owner that was given
up for dead go on beside its recoverer, and `two_recoverers` drops or keeps the liveness lock.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fstx.machines import build, discard
from fstx.machines.vocabulary import (
    Aborted,
    Check,
    Clear,
    Committed,
    Effect,
    Event,
    InDoubt,
    Inspect,
    Kind,
    Lock,
    Machine,
    Outcome,
    Stuck,
)
from support.modelfs import (
    Disk,
    Scene,
    apply,
    get,
    other_answers,
    perform,
    power_cuts,
    sync,
)

Wrap = Callable[[Machine[Any]], Machine[Any]]
OUTCOMES = (Committed, Aborted, InDoubt, Stuck)


class ViolationError(AssertionError):
    """A promise was broken; the message ends with the way that led there."""


class Node(NamedTuple):
    """Where a history stands. ``phase``: an owner or a recoverer is at work, or nobody is."""

    phase: str
    disk: Disk
    state: Any = None
    effect: Effect | None = None
    blank: bool = False  # the recoverer found no record and discards
    looked: bool = False
    locked: bool = False
    told: str = ""
    touched: frozenset[int] = frozenset()
    faults: int = 0
    crashes: int = 0
    strangers: int = 0
    rivals: int = 0


@dataclass
class Report:
    """What an exploration met; `states` guards against one that explored nothing."""

    states: int = 0
    outcomes: set[tuple[str, Outcome]] = field(default_factory=set)
    settled: set[str] = field(default_factory=set)


def machine_of(scene: Scene, wrap: Wrap, *, blank: bool = False) -> Machine[Any]:
    if blank:
        return wrap(discard())
    how: Any = scene.how
    return wrap(build(scene.strategy, scene.items, how=how, strict=scene.strict))


def has_record(scene: Scene, disk: Disk) -> bool:
    return any(get(scene, disk, kind) for kind in ("plan", "intent", "commit"))


def protected(scene: Scene, disk: Disk) -> set[str]:
    """Contents of strangers that may not be destroyed any more."""
    if not scene.strict:
        return set()
    words = "F" if scene.excuses else "Ff"
    return {w.upper() for w in disk.live if w[:1] and w[0] in words}


def survivors(disk: Disk) -> set[str]:
    return {f"F{w[1:]}" for w in disk.live if w[:1] and w[0] in "Ffg"}


def sides(scene: Scene, disk: Disk, touched: frozenset[int]) -> set[str]:
    """On which side the targets are: ``{"old"}``, ``{"new"}``, both, or none if strangers hold all."""
    found = set()
    for i, item in enumerate(scene.items):
        if i in touched or (scene.clash and i == 0):
            continue
        there = get(scene, disk, scene.target(i))
        new = f"N{i}" if item.kind is Kind.PUBLISH else ""
        old = scene.before(i)
        found.add("new" if there == new else "old" if there == old else f"lost {there!r}")
        if there in disk.torn or f"{there}/" in disk.torn:
            found.add(f"torn {there}")
    return found


class Explorer:
    """One exploration; see `explore`."""

    def __init__(self, scene: Scene, wrap: Wrap) -> None:
        self.scene = scene
        self.machines = {b: machine_of(scene, wrap, blank=b) for b in (False, True)}
        self.report = Report()
        self.seen: dict[Node, tuple[Node | None, Sequence[object]]] = {}
        self.stack: list[Node] = []
        self.settled: dict[Disk, tuple[Disk, tuple[str, ...]]] = {}
        self.performed: dict[Any, tuple[list[Disk], Event]] = {}
        self.cuts: dict[Disk, set[Disk]] = {}
        self.current: Node | None = None

    def run(self) -> Report:
        scene = self.scene
        machine = self.machines[False]
        for state, effect in (machine.start(), machine.rollback()):
            self.push(
                Node(
                    "owner",
                    scene.begin(),
                    state,
                    effect,
                    faults=scene.faults,
                    crashes=scene.crashes,
                    strangers=scene.strangers,
                    rivals=scene.rivals,
                ),
                ("begin",),
            )
        while self.stack:
            self.current = node = self.stack.pop()
            if node.phase == "dead":
                self.nobody(node)
            else:
                self.somebody(node)
            self.foreign(node)
        self.report.states = len(self.seen)
        return self.report

    # --- histories ---

    def push(self, node: Node, label: Sequence[object]) -> None:
        if node not in self.seen:
            self.seen[node] = (self.current, label)
            self.stack.append(node)

    def fail(self, what: str) -> None:
        way = []
        node = self.current
        while node is not None:
            before, label = self.seen[node]
            found = f": {show(self.scene, node.disk)}" if node.phase == "dead" else ""
            way.append(f"  {' '.join(map(str, label))}{found}")
            node = before
        raise ViolationError("\n".join([f"{self.scene.name}: {what}", *reversed(way)]))

    def need(self, condition: bool, what: str) -> None:
        if not condition:
            self.fail(what)

    # --- moves of the game ---

    def somebody(self, node: Node) -> None:
        scene = self.scene
        assert node.effect is not None
        steps, event = self.perform(node)
        safe = protected(scene, steps[0])
        for disk in steps:
            if safe and not safe <= survivors(disk):
                self.fail(f"{node.effect} destroyed a stranger's content")
        self.answer(node, steps[-1], event)
        if node.faults:
            options = other_answers(node.effect, len(steps) - 1, scene.rules.refused_is_sure)
            for k, other in options:
                self.answer(node._replace(faults=node.faults - 1), steps[k], other)
        if node.crashes:
            for k, disk in enumerate(steps):
                self.crash(node, disk, ("in", node.effect, "after", k))

    def perform(self, node: Node) -> tuple[list[Disk], Event]:
        assert node.effect is not None
        key = (node.disk, node.effect, node.phase, node.looked)
        if key not in self.performed:
            self.performed[key] = perform(
                self.scene, node.disk, node.effect, node.phase, fresh=not node.looked
            )
        return self.performed[key]

    def answer(self, node: Node, disk: Disk, event: Event) -> None:
        assert node.effect is not None
        state, then = self.machines[node.blank].step(node.state, event)
        label = (node.phase, node.effect, "->", event)
        if isinstance(then, OUTCOMES):
            told = self.outcome(node, disk, then)
            self.push(
                Node(
                    "dead",
                    disk,
                    told=told,
                    touched=node.touched,
                    faults=node.faults,
                    crashes=node.crashes,
                    strangers=node.strangers,
                ),
                (*label, "=>", then),
            )
            return
        looked = node.looked or isinstance(node.effect, (Check, Inspect))
        locked = node.locked or isinstance(node.effect, Lock)
        self.push(
            node._replace(disk=disk, state=state, effect=then, looked=looked, locked=locked), label
        )

    def outcome(self, node: Node, disk: Disk, outcome: Outcome) -> str:
        """Check a machine's last word against what is there, and return what the world was told."""
        found = sides(self.scene, disk, node.touched)
        self.report.outcomes.add((node.phase, outcome))
        match outcome:
            case Committed(pending):
                self.need(node.told != "aborted", "committed after aborted")
                self.need(pending or found <= {"new"}, f"says {outcome}, targets are {found}")
                return "committed" if not pending else node.told or "pending"
            case Aborted():
                self.need(node.told not in ("committed", "pending"), f"{outcome} after {node.told}")
                self.need(found <= {"old"}, f"says {outcome}, targets are {found}")
                return "aborted"
            case Stuck():
                self.need(node.phase == "recoverer", "an owner is stuck")
                self.need(bool(node.touched), f"{outcome} without a stranger")
        return node.told

    def crash(self, node: Node, disk: Disk, where: Sequence[object]) -> None:
        dead = Node(
            "dead",
            disk,
            told=node.told,
            touched=node.touched,
            faults=node.faults,
            crashes=node.crashes - 1,
            strangers=node.strangers,
        )
        self.push(dead, ("kill", node.phase, *where))
        if not self.scene.durable:
            return
        safe = protected(self.scene, disk)
        if disk not in self.cuts:
            self.cuts[disk] = power_cuts(self.scene, disk)
        for after in self.cuts[disk]:
            if safe and not safe <= survivors(after):
                self.fail(f"power cut {where[0]} destroyed a stranger's content")
            self.push(dead._replace(disk=after), ("power cut", *where))

    def foreign(self, node: Node) -> None:
        """A program that isn't ours replaces, makes or deletes a target."""
        if node.rivals and node.phase == "owner" and not node.locked:
            for i in range(len(self.scene.items)):
                self.intrude(node._replace(rivals=node.rivals - 1), i, f"F{i}")
        if node.strangers:
            for i in range(len(self.scene.items)):
                left = node._replace(strangers=node.strangers - 1)
                letter = "f" if node.looked else "F"
                self.intrude(left, i, f"{letter}{i}.{node.strangers}")
                if get(self.scene, node.disk, f"T{i}")[:1] in ("B", "N", "E"):
                    self.intrude(left, i, "")

    def intrude(self, node: Node, i: int, word: str) -> None:
        disk = apply(self.scene, node.disk, {f"T{i}": word}, synced=True)
        self.push(
            node._replace(disk=disk, touched=node.touched | {i}), ("a stranger at", i, repr(word))
        )

    def nobody(self, node: Node) -> None:
        """Everyone is dead or done: check, then cut the power, then recover."""
        if node.told == "committed":
            found = sides(self.scene, node.disk, node.touched)
            self.need(found <= {"new"}, f"committed, but targets are {found}")
        self.settle(node)
        if node.crashes:
            self.crash(node, node.disk, ("at rest",))
        if node.faults or node.crashes or node.strangers:
            blank = not has_record(self.scene, node.disk)
            if get(self.scene, node.disk, "X") or get(self.scene, node.disk, "X.fenced"):
                state, effect = self.machines[blank].recover()
                self.push(
                    node._replace(phase="recoverer", state=state, effect=effect, blank=blank),
                    ("recover",),
                )
            elif get(self.scene, node.disk, "X.trash") and node.crashes:
                for k, disk in enumerate(sweep(self.scene, node.disk)):
                    self.crash(node, disk, ("in sweeping after", k))

    # --- recovery that nothing disturbs ---

    def settle(self, node: Node) -> None:
        scene = self.scene
        if node.disk not in self.settled:
            self.settled[node.disk] = self.recover(node.disk)
        disk, words = self.settled[node.disk]
        safe = protected(scene, node.disk)
        self.need(safe <= survivors(disk), f"recovery destroyed a stranger's content: {words}")
        stuck = any(w.startswith("Stuck") for w in words)
        if stuck:
            self.need(
                bool(node.touched) and not scene.rivals,
                f"recovery is stuck without a stranger: {words}",
            )
            self.report.settled.add("stuck")
            return
        left = [s for s in ("X", "X.fenced", "X.trash") if get(scene, disk, s)]
        self.need(not left, f"recovery left {left}: {words}")
        receipt = bool(get(scene, disk, "done"))
        self.need(receipt or not get(scene, disk, "ctl"), "recovery left the control directory")
        found = sides(scene, disk, node.touched)
        self.need(
            len(found) < 2 and found <= {"old", "new"},
            f"after recovery {words} targets are {found}",
        )
        said = {w.split("(")[0] for w in words} & {"Committed", "Aborted"}
        told = {"committed": "new", "pending": "new", "aborted": "old"}.get(node.told)
        for side in found:
            self.report.settled.add(side)
            self.need(told in (None, side), f"told {node.told}, recovered {side} {words}")
            expected = {"new": {"Committed"}, "old": {"Aborted"}}[side]
            self.need(said <= expected, f"recovery said {words}, targets are {side}")
            if scene.keyed:
                self.need(receipt == (side == "new"), f"receipt {receipt}, targets are {side}")

    def recover(self, disk: Disk) -> tuple[Disk, tuple[str, ...]]:
        """Run recovery without faults until nothing is left to do; the last words of each run."""
        scene = self.scene
        words: list[str] = []
        for _ in range(3):
            if not (get(scene, disk, "X") or get(scene, disk, "X.fenced")):
                break
            machine = self.machines[not has_record(scene, disk)]
            state, then = machine.recover()
            for _ in range(80):
                steps, event = perform(scene, disk, then, "recoverer")  # type: ignore[arg-type]
                disk = steps[-1]
                state, then = machine.step(state, event)  # type: ignore[assignment]
                if isinstance(then, OUTCOMES):
                    break
            else:
                self.fail("recovery doesn't end")
            words.append(str(then))
            if isinstance(then, Stuck):
                break
        return sweep(scene, disk)[-1], tuple(words)


def sweep(scene: Scene, disk: Disk) -> list[Disk]:
    """Delete trash that was found, and an empty control directory."""
    first = sync(disk, "C") if scene.durable and scene.rules.trash_synced_first else disk
    return [disk, *perform(scene, first, Clear(), "recoverer")[0]]


def show(scene: Scene, disk: Disk) -> str:
    """What lies where."""
    return " ".join(f"{s}={w}" for s, w in zip(scene.slots, disk.live, strict=True) if w)


def explore(scene: Scene, wrap: Wrap = lambda m: m) -> Report:
    """Explore a scene; raise `ViolationError` on the first broken promise."""
    gc.disable()  # nothing here is cyclic, and there are many tuples
    try:
        return Explorer(scene, wrap).run()
    finally:
        gc.enable()


# --- two processes at once ---


@dataclass(frozen=True)
class Actor:
    """A process that performs a machine, one effect at a time."""

    who: str
    state: Any = None
    then: Effect | Outcome | None = None  # None: has not begun
    blank: bool = False

    @property
    def over(self) -> bool:
        return isinstance(self.then, OUTCOMES)


def _advance(explorer: Explorer, disk: Disk, actor: Actor) -> tuple[Disk, Actor]:
    scene = explorer.scene
    if actor.then is None:
        if not (get(scene, disk, "X") or get(scene, disk, "X.fenced")):
            return disk, Actor(actor.who, None, InDoubt())
        blank = not has_record(scene, disk)
        state, effect = explorer.machines[blank].recover()
        return disk, Actor(actor.who, state, effect, blank)
    steps, event = perform(scene, disk, actor.then, actor.who)  # type: ignore[arg-type]
    explorer.need(
        protected(scene, disk) <= survivors(steps[-1]), f"{actor} destroyed a stranger's content"
    )
    state, then = explorer.machines[actor.blank].step(actor.state, event)
    return steps[-1], Actor(actor.who, state, then, actor.blank)


def race(
    scene: Scene,
    wrap: Wrap = lambda m: m,
    *,
    starts: Iterable[Disk] = (),
    touched: int | None = None,
) -> Report:
    """Interleave an owner and a recoverer, or two recoverers from each of `starts`, effect by effect."""
    explorer = Explorer(scene, wrap)
    state, effect = explorer.machines[False].start()
    begins = [(scene.begin(), Actor("owner", state, effect), Actor("recoverer"))]
    if starts:
        begins = [(disk, Actor("recoverer"), Actor("recoverer")) for disk in starts]
    strange = frozenset() if touched is None else frozenset({touched})
    seen = set(begins)
    stack = list(begins)
    while stack:
        disk, one, two = stack.pop()
        nexts = []
        if not one.over:
            after, moved = _advance(explorer, disk, one)
            nexts.append((after, moved, two))
        alone = scene.rules.one_recoverer and one.who == "recoverer"
        if not two.over and not (alone and one.then is not None and not one.over):
            after, moved = _advance(explorer, disk, two)
            nexts.append((after, one, moved))
        for new in nexts:
            if new not in seen:
                seen.add(new)
                stack.append(new)
        if not nexts:
            told = {"Committed": "committed", "Aborted": "aborted"}.get(type(one.then).__name__, "")
            if isinstance(one.then, Committed) and one.then.pending:
                told = "pending"
            explorer.report.outcomes |= {
                (a.who, a.then) for a in (one, two) if isinstance(a.then, OUTCOMES)
            }
            node = Node("dead", disk, told=told, touched=strange)
            explorer.current = None
            explorer.nobody(node)
    explorer.report.states = len(seen)
    return explorer.report


def interrupted(scene: Scene, wrap: Wrap = lambda m: m) -> dict[int | None, set[Disk]]:
    """File systems with an area in which nobody is at work, by the item a stranger touched."""
    explorer = Explorer(scene, wrap)
    explorer.run()
    found: dict[int | None, set[Disk]] = {}
    for node in explorer.seen:
        if node.phase == "dead" and get(scene, node.disk, "X") and len(node.touched) < 2:
            found.setdefault(next(iter(node.touched), None), set()).add(node.disk)
    return found
