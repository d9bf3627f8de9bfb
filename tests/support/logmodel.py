"""The log of a dataset as a small world: what lies in the store, what is under way, who is at work.

`explore` visits every history that a scene allows: agents take turns request by request, and each request may
be answered, lost, dropped, delayed for any time, repeated or refused; anyone may be killed at any time. A
ghost, the serial history, remembers what landed first at each slot; every promise is a question to it.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from fstx.machines.manifest import Append, Bound, Busy, Look, Pause, Put, Settle, Taken
from fstx.machines.vocabulary import Aborted, Done, Refused, Unknown

Wrap = Callable[[Any], Any]


class ViolationError(AssertionError):
    """A promise was broken; `way` are the steps that led there."""

    def __init__(self, what: str, way: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join([what, *(f"  {step}" for step in way)]))
        self.what = what
        self.way = way


class St(NamedTuple):
    """The state of a dataset: an object's key for each path, and what the log says of transactions."""

    paths: tuple[str, ...]
    fenced: frozenset[str] = frozenset()
    floor: int = 0
    oldest: int = 0
    marks: frozenset[str] = frozenset()


class Rec(NamedTuple):
    """One record. ``prev`` names the record it was built on; ``after`` is the state with its own change."""

    seq: int
    nonce: str
    kind: str
    begun: int
    touched: frozenset[int]
    prev: tuple[int, str]
    after: St
    mark: str = ""


class Local(NamedTuple):
    """Where an agent stands: its next request, the machine's state, and what it has read.

    ``head``: the newest record that it knows; ``at``: how far it has read on; ``since``: records after its
    base, None if some are gone.
    """

    pc: str
    mode: str = ""
    m: int = 0
    head: int = 0
    at: int = 0
    since: tuple[int, ...] | None = ()
    aux: Any = None


class World(NamedTuple):
    """Everything. ``hist`` is the ghost: the record that first landed at each slot. ``told``: what the
    callers heard.
    """

    log: tuple[int, ...]
    hist: tuple[int, ...]
    bound: int
    data: frozenset[str]
    pins: frozenset[tuple[str, int]]
    flight: frozenset[tuple[int, int]]
    agents: tuple[Local, ...]
    told: tuple[str, ...]
    faults: int
    crashes: int


@dataclass(frozen=True)
class Rules:
    """What performers owe; each switched off alone is a mutant."""

    boundary_after_records: bool = True
    boundary_after_listing: bool = True
    truncation_remembers: bool = True
    says_unknown: bool = True  # where truncation does not remember
    conflicts_checked: bool = True
    conflicts_unseen: bool = True  # also where records are gone
    fence_checked: bool = True
    floor_checked: bool = True
    fence_first: bool = True  # collection fences before it deletes
    reads_after_fence: bool = True  # what turned out effective is left
    cancel_fences: bool = True
    retire_first: bool = True  # then pins are listed
    reads_after_pin: bool = True
    pins_spared: bool = True
    links_checked: bool = True
    boundary_first: bool = True  # then keys go
    boundary_below_kept: bool = True
    boundary_below_pins: bool = True
    discards_when_certain: bool = True
    floor_drops_old_only: bool = True
    marks_checked: bool = True
    outcome_scans: bool = True  # all records that are left, before it fences
    landed_before_fenced: bool = True


@dataclass(frozen=True)
class Scene:
    """Who is there, and how much may go wrong. ``keep``: 0 keeps all versions, 99 the newest only."""

    name: str
    agents: tuple[Any, ...]
    faults: int = 0
    crashes: int = 0
    refusals: bool = False
    unreadable: bool = False
    keep: int = 0
    tries: int = 4
    seeded: int = 1
    limit: int = 400_000


@dataclass
class Report:
    """What an exploration met."""

    states: int = 0
    outcomes: set[tuple[str, str]] = field(default_factory=set)
    calm: int = 0
    complete: bool = True


class Model:
    """One exploration; see `explore`."""

    def __init__(self, scene: Scene, wrap: Wrap, rules: Rules) -> None:
        self.scene = scene
        self.rules = rules
        self.wrap = wrap
        self.machine = wrap(Append(0, scene.tries))
        self.report = Report()
        self.recs: list[Rec] = [Rec(0, "", "none", 0, frozenset(), (0, ""), St(("", ""), oldest=0))]
        self._rec_ids: dict[Rec, int] = {self.recs[0]: 0}
        self.states: list[Any] = [None]
        self._state_ids: dict[Any, int] = {}
        self._steps: dict[tuple[int, Any], tuple[int, Any]] = {}
        self._darkness: dict[int, Any] = {}

    # --- interning: small numbers for records and for states of machines ---

    def rec(self, rec: Rec) -> int:
        found = self._rec_ids.get(rec)
        if found is None:
            found = self._rec_ids[rec] = len(self.recs)
            self.recs.append(rec)
        return found

    def _state(self, state: Any) -> int:
        found = self._state_ids.get(state)
        if found is None:
            found = self._state_ids[state] = len(self.states)
            self.states.append(state)
        return found

    def enter(self, how: str, head: int) -> tuple[int, Any]:
        machine = self.wrap(Append(head, self.scene.tries))
        state, then = getattr(machine, how)()
        return self._state(state), then

    def step(self, m: int, event: Any) -> tuple[int, Any]:
        key = (m, event)
        found = self._steps.get(key)
        if found is None:
            state, then = self.machine.step(self.states[m], event)
            found = self._steps[key] = (self._state(state), then)
        return found

    # --- the store ---

    def begin(self) -> World:
        """A dataset that holds a few records, each by a writer of long ago."""
        keep = self.scene.keep
        before = self.recs[0]._replace(after=St(("", ""), oldest=keep))
        hist = []
        for n in range(1, self.scene.seeded + 1):
            name = f"A{n}"
            st = before.after._replace(paths=(name, *before.after.paths[1:]))
            before = Rec(n, name, "commit", n - 1, frozenset({0}), before[:2], st)
            hist.append(self.rec(before))
        log = tuple(hist)
        data = frozenset(self.recs[r].nonce for r in hist)
        count = len(self.scene.agents)
        world = World(
            log, log, 0, data, frozenset(), frozenset(), (), ("",) * count,
            self.scene.faults, self.scene.crashes,
        )  # fmt: skip
        agents = tuple(spec.start(self, hist[-1] if hist else 0) for spec in self.scene.agents)
        return world._replace(agents=agents)

    def land(self, world: World, slot: int, r: int) -> tuple[World, bool]:
        """A put-if-absent takes effect now; whether it found the key absent."""
        log, hist = world.log, world.hist
        if slot <= len(log) and log[slot - 1]:
            return world, False
        self.need(slot <= len(hist) + 1, f"record {slot} leaves a gap")
        if slot <= len(hist):
            self.need(slot <= world.bound, f"record {slot} is missing above the boundary")
            return world._replace(log=(*log[: slot - 1], r, *log[slot:])), True
        world = world._replace(log=(*log, r), hist=(*hist, r))
        self._landed(world, self.recs[r])
        return world, True

    def _landed(self, world: World, rec: Rec) -> None:
        before = self.recs[world.hist[-2]] if len(world.hist) > 1 else self.recs[0]
        self.need(rec.prev == before[:2], f"{rec.nonce} was built on {rec.prev}, not {before[:2]}")
        if rec.kind == "commit":
            name = rec.nonce
            earlier = [self.recs[r] for r in world.hist[:-1]]
            self.need(all(r.nonce != name for r in earlier), f"{name} landed twice")
            self.need(not rec.mark or rec.mark not in before.after.marks, "one id landed twice")
            self.need(name not in before.after.fenced, f"{name} landed although it was fenced")
            self.need(rec.begun >= before.after.floor, f"{name} landed below the floor")
            for other in earlier[rec.begun :]:
                both = other.kind == "commit" and other.touched & rec.touched
                self.need(not both, f"lost update: {name} over {other.nonce}")
            for spec, told in zip(self.scene.agents, world.told, strict=True):
                mine = getattr(spec, "name", "") == name
                self.need(not (mine and told == "aborted"), f"{name} landed after it was aborted")
        self.intact(world)

    def kept(self, world: World) -> set[int]:
        """Versions that must keep their data: unretired ones, and those that a reader holds."""
        newest = len(world.hist)
        if not newest:
            return set()
        oldest = self.recs[world.hist[-1]].after.oldest
        found = set(range(max(1, min(oldest, newest)), newest + 1))
        return found | {local.aux for local in world.agents if local.pc == "hold"}

    def reached(self, world: World, versions: set[int]) -> set[str]:
        """Objects that some versions need."""
        found: set[str] = set()
        for v in versions:
            found.update(self.recs[world.hist[v - 1]].after.paths)
        found.discard("")
        return found

    def intact(self, world: World) -> None:
        kept = self.kept(world)
        lost = self.reached(world, kept) - world.data
        if lost:
            raise ViolationError(f"data of {sorted(lost)} is gone from a version that is kept")
        low = min(kept, default=world.bound + 1)
        self.need(low > world.bound, f"record {low} is void, and its version is kept")

    def need(self, condition: bool, what: str) -> None:
        if not condition:
            raise ViolationError(what)

    def genuine(self, world: World, r: int) -> None:
        """What was read as the head is a state of the serial history."""
        seq = self.recs[r].seq
        if seq and (seq > len(world.hist) or world.hist[seq - 1] != r):
            raise ViolationError(f"read {self.recs[r].nonce} at {seq}, which never was effective")

    def put(self, world: World, slot: int, r: int) -> Iterator[tuple[str, World, Any]]:
        """Every fate of a put-if-absent and of its answer."""
        applied, absent = self.land(world, slot, r)
        answer = Done() if absent else Taken()
        yield "done" if absent else "taken", applied, answer
        if not world.faults:
            return
        left = world.faults - 1
        late = frozenset({(slot, r)})
        yield "lost answer", applied._replace(faults=left), Unknown()
        if absent:
            yield "taken by itself", applied._replace(faults=left), Taken()
            yield "dropped", world._replace(faults=left), Unknown()
            yield "busy", world._replace(faults=left), Busy()
        yield "delayed", world._replace(faults=left, flight=world.flight | late), Unknown()
        yield "repeated", applied._replace(faults=left, flight=world.flight | late), answer
        if self.scene.refusals:
            yield "refused", world._replace(faults=left), Refused("failed")

    # --- histories ---

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        """Everything that may happen next."""
        for i, local in enumerate(world.agents):
            if local.pc in ("end", "dead"):
                continue
            spec = self.scene.agents[i]
            for label, after in spec.moves(self, world, i, local):
                yield f"{spec.name} {local.pc}: {label}", after
            if world.crashes and spec.mortal:
                dead = with_agent(world, i, Local("dead"))
                yield f"{spec.name} is killed", dead._replace(crashes=world.crashes - 1)
        for late in world.flight:
            after, absent = self.land(world._replace(flight=world.flight - {late}), *late)
            what = "lands" if absent else "comes to nothing"
            yield f"late put of {self.recs[late[1]].nonce} at {late[0]} {what}", after

    def run(self, *, calm: bool) -> Report:
        first = self.begin()
        self.seen: dict[World, tuple[World | None, str]] = {first: (None, "begin")}
        queue = deque([first])
        label = ""
        while queue:
            world = queue.popleft()
            ended = True
            try:
                for label, after in self.moves(world):
                    ended = False
                    if after not in self.seen:
                        self.seen[after] = (world, label)
                        queue.append(after)
                if ended:
                    self._ended(world)
                elif calm and len(self.seen) % 64 == 0:
                    self._calm(world)
            except ViolationError as error:
                raise ViolationError(error.what, (*self.way(world), *error.way)) from None
            if len(self.seen) > self.scene.limit:
                self.report.complete = False
                break
        self.report.states = len(self.seen)
        return self.report

    def walk(self, chance: Random) -> int:
        """One history, chosen by chance, from the beginning to its end; how long it was."""
        world, steps = self.begin(), ["begin"]
        try:
            while found := list(self.moves(world)):
                label, world = chance.choice(found)
                steps.append(label)
            self._ended(world)
        except ViolationError as error:
            raise ViolationError(error.what, tuple(steps)) from None
        return len(steps)

    def way(self, world: World) -> tuple[str, ...]:
        steps: list[str] = []
        at: World | None = world
        while at is not None:
            at, label = self.seen[at]
            steps.append(label)
        return tuple(reversed(steps))

    def _dark(self, m: int) -> Any:
        """What a machine does when the store never answers again."""
        if m not in self._darkness:
            at, then, paused = m, None, True
            for _ in range(5 * self.scene.tries + 10):
                at, then = self.step(at, Done() if isinstance(then, Pause) else Unknown())
                if not isinstance(then, Settle | Put | Bound | Look | Pause):
                    break
                self.need(paused or isinstance(then, Pause), "the log is asked without a pause")
                paused = isinstance(then, Pause)
            else:
                raise ViolationError("a store that is down keeps somebody for ever")
            self._darkness[m] = then
        return self._darkness[m]

    def _down(self, world: World) -> None:
        """The store is down for good: everyone ends, and nobody says what isn't known."""
        names = {self.recs[r].nonce for r in world.hist}
        names |= {self.recs[r].nonce for slot, r in world.flight if slot > len(world.hist)}
        for spec, local in zip(self.scene.agents, world.agents, strict=True):
            if local.m and isinstance(self._dark(local.m), Aborted):
                mine = spec.nonce(local) in names
                self.need(not mine, f"{spec.name} is told aborted, and it may be effective")

    def _ended(self, world: World) -> None:
        """Nobody is at work and nothing is under way: what was told is true for ever."""
        names = {self.recs[r].nonce for r in world.hist}
        for spec, told, local in zip(self.scene.agents, world.told, world.agents, strict=True):
            self.report.outcomes.add((spec.name, told or local.pc))
            if told == "committed":
                self.need(spec.name in names, f"{spec.name} was acknowledged and is not effective")

    def _calm(self, world: World) -> None:
        """If faults stop everyone ends, and knows."""
        self._down(world)
        world = world._replace(faults=0, crashes=0)
        steps: list[str] = []
        for _ in range(120):
            busy = [i for i, x in enumerate(world.agents) if x.pc not in ("end", "dead")]
            if not busy:
                break
            for i in busy:
                local = world.agents[i]
                steps.append(f"{self.scene.agents[i].name} {local.pc}, calmly")
                try:
                    _, world = next(self.scene.agents[i].moves(self, world, i, local))
                except ViolationError as error:
                    raise ViolationError(error.what, tuple(steps)) from None
        else:
            raise ViolationError("without further faults somebody never ends")
        self.report.calm += 1
        for spec, told in zip(self.scene.agents, world.told, strict=True):
            self.need(
                told != "doubt" or self.scene.unreadable or not spec.definite,
                f"{spec.name} is in doubt although the log can be read",
            )


def with_agent(world: World, i: int, local: Local) -> World:
    agents = world.agents
    return world._replace(agents=(*agents[:i], local, *agents[i + 1 :]))


def explore(
    scene: Scene,
    wrap: Wrap = lambda m: m,
    rules: Rules | None = None,
    *,
    calm: bool = True,
) -> Report:
    """Explore a scene; `ViolationError` on the first broken promise, by the shortest way there.

    ``calm``: from every 64th state, see too that everyone ends when faults stop, or the store does.
    """
    gc.disable()  # nothing here is cyclic, and there are millions of tuples to look at
    try:
        return Model(scene, wrap, rules or Rules()).run(calm=calm)
    finally:
        gc.enable()


def wander(scene: Scene, count: int, seed: int = 0) -> Report:
    """Walk through so many histories of a scene that is too large to be explored."""
    model = Model(scene, lambda m: m, Rules())
    chance = Random(seed)
    model.report.states = sum(model.walk(chance) for _ in range(count))
    return model.report
