"""Plain names beside a log as a small world: an entry, its parts, and who publishes them.

The log itself is explored in `support.logmodel`; here an append is one step that fails where the log moved
on. A plain reader starts at the entry, so what must hold at any moment is: the parts of the entry are there,
and the entry never shows an older version than it did.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from fstx.machines.manifest import Pause, Taken
from fstx.machines.project import Apply, Finish, Found, Inspect, Op, Project
from fstx.machines.vocabulary import Committed, Done, Refused, Stuck, Unknown
from support.logmodel import Report, ViolationError

Wrap = Callable[[Any], Any]
STRANGER = 99
TX = {"owner": 1, "next": 2}


@dataclass(frozen=True)
class PlainRules:
    """What performers owe; each switched off alone is a mutant."""

    conditional: bool = True
    nothing_is_no_base: bool = True  # where something was
    tokens_unique: bool = True
    log_after_look: bool = True
    record_first: bool = True
    one_at_a_time: bool = True  # the next commit waits for the projection
    collection_waits: bool = True
    base_compared: bool = True  # at the next commit


@dataclass(frozen=True)
class PlainScene:
    """``kinds``: who is there. ``empty``: there is no entry yet. ``removes``: old parts go in the projection.
    ``unpublishes``: the second transaction removes the entry.
    """

    name: str
    kinds: tuple[str, ...]
    faults: int = 1
    crashes: int = 0
    strangers: int = 0
    empty: bool = False
    removes: bool = False
    unpublishes: bool = False
    tries: int = 2


class Rec(NamedTuple):
    kind: str  # commit | done
    tx: int
    ops: tuple[Op, ...] = ()
    names: tuple[str, ...] = ()


class Who(NamedTuple):
    """An agent: its next request, the transaction that it publishes, and its machine's state."""

    pc: str
    tx: int = 0
    m: int = 0
    op: int = 0
    recovering: bool = False
    seen: Any = None


class Plain(NamedTuple):
    """``log``: numbers of records. ``names``: what lies at plain names, as (name, transaction, token).
    ``flight``: late requests.
    """

    log: tuple[int, ...]
    names: frozenset[tuple[str, int, str]]
    flight: frozenset[tuple[int, int]]
    agents: tuple[Who, ...]
    newest: int  # where in the log the newest record is that the entry ever showed
    faults: int
    crashes: int
    strangers: int


class PlainModel:
    """One exploration; see `explore_plain`."""

    def __init__(self, scene: PlainScene, wrap: Wrap, rules: PlainRules) -> None:
        self.scene = scene
        self.wrap = wrap
        self.rules = rules
        self.report = Report()
        self.kinds = (*scene.kinds, "recoverer")  # one more comes when all is calm
        self.states: list[Any] = [None]
        self._ids: dict[Any, int] = {}
        self.recs: list[Rec] = []
        self._rec_ids: dict[Rec, int] = {}
        self._pending: dict[tuple[int, ...], int | None] = {}
        self._steps: dict[Any, Any] = {}

    def rec(self, rec: Rec) -> int:
        if rec not in self._rec_ids:
            self._rec_ids[rec] = len(self.recs)
            self.recs.append(rec)
        return self._rec_ids[rec]

    def read(self, world: Plain) -> list[Rec]:
        return [self.recs[r] for r in world.log]

    # --- the store ---

    def begin(self) -> Plain:
        log = (self.rec(Rec("commit", 0)), self.rec(Rec("done", 0)))
        names = frozenset({("E", 0, "t0"), ("P0", 0, "p0")})
        if self.scene.empty:
            log, names = (), frozenset()
        agents = tuple(Who("look") for _ in self.scene.kinds)
        scene = self.scene
        return Plain(
            log, names, frozenset(), agents, 0, scene.faults, scene.crashes, scene.strangers
        )

    def at(self, world: Plain, name: str) -> tuple[int, str] | None:
        return next(((tx, token) for n, tx, token in world.names if n == name), None)

    def pending(self, world: Plain) -> int | None:
        """The transaction whose projection is not finished."""
        if world.log not in self._pending:
            log = self.read(world)
            done = {r.tx for r in log if r.kind == "done"}
            left = (r.tx for r in log if r.kind == "commit" and r.tx not in done)
            self._pending[world.log] = next(left, None)
        return self._pending[world.log]

    def transaction(self, world: Plain, tx: int) -> Rec:
        """What a transaction would publish on what is there now, its operations in no useful order."""
        entry = self.at(world, "E")
        base = entry[1] if entry else None
        old = (
            [(n, t) for n, _, t in sorted(world.names) if n[0] == "P"] if self.scene.removes else []
        )
        ops = [*(Op("remove", base=t) for _, t in old)]
        names = [n for n, _ in old]
        if self.scene.unpublishes and tx == 2:
            return Rec("commit", tx, (*ops, Op("remove", True, base)), (*names, "E"))
        ops += [Op("put", True, base), Op("put", False, None)]
        return Rec("commit", tx, tuple(ops), (*names, "E", f"P{tx}"))

    def version(self, world: Plain, tx: int) -> int:
        """Where in the log a transaction was committed."""
        return next((n for n, r in enumerate(self.read(world)) if r[:2] == ("commit", tx)), 0)

    def token(self, tx: int, name: str) -> str:
        if name == "E" and not self.rules.tokens_unique:
            return f"t{tx % 2}"  # a token is a hash, and the third content is the first one again
        return f"{'t' if name == 'E' else 'p'}{tx}"

    def change(self, world: Plain, tx: int, op: int, ops: int) -> tuple[Plain, bool]:
        """A conditional request takes effect now; whether its condition held."""
        what, name = self.recs[ops].ops[op], self.recs[ops].names[op]
        there = self.at(world, name)
        if not self.is_base(there, what) and self.rules.conditional:
            return world, False
        self.need(not there or there[0] != STRANGER, f"{tx} destroyed a stranger's {name}")
        names = frozenset(n for n in world.names if n[0] != name)
        if what.kind == "put":
            names |= {(name, tx, self.token(tx, name))}
        world = world._replace(names=names)
        if name == "E":
            version = self.version(world, tx)
            self.need(version >= world.newest, f"the entry goes back to {tx}")
            world = world._replace(newest=version)
        self.whole(world)
        return world, True

    def is_base(self, there: tuple[int, str] | None, what: Op) -> bool:
        if there is None and not self.rules.nothing_is_no_base:
            return True
        return (there[1] if there else None) == what.base

    def whole(self, world: Plain) -> None:
        """A plain reader that starts at the entry now finds all that it names."""
        entry = self.at(world, "E")
        if entry and entry[0] != STRANGER:
            found = self.at(world, f"P{entry[0]}")
            self.need(found is not None, f"the entry of {entry[0]} names parts that are not there")
            landed = any(r[:2] == ("commit", entry[0]) for r in self.read(world))
            self.need(landed, f"{entry[0]} is published without a record")

    def need(self, condition: bool, what: str) -> None:
        if not condition:
            raise ViolationError(what)

    # --- machines ---

    def _id(self, state: Any) -> int:
        if state not in self._ids:
            self._ids[state] = len(self.states)
            self.states.append(state)
        return self._ids[state]

    def machine(self, ops: int) -> Any:
        return self.wrap(Project(self.recs[ops].ops, self.scene.tries))

    def enter(self, world: Plain, i: int, tx: int, recovering: bool, ops: int) -> Plain:
        machine = self.machine(ops)
        state, then = machine.recover() if recovering else machine.start()
        who = Who("", tx, self._id(state), recovering=recovering)
        return self.ask(world, i, who, then, ops)

    def hear(self, world: Plain, i: int, who: Who, event: Any, ops: int) -> Plain:
        key = (who.m, event, ops)
        if key not in self._steps:
            state, then = self.machine(ops).step(self.states[who.m], event)
            self._steps[key] = (self._id(state), then)
        m, then = self._steps[key]
        return self.ask(world, i, who._replace(m=m), then, ops)

    def ask(self, world: Plain, i: int, who: Who, then: Any, ops: int) -> Plain:
        match then:
            case Pause():
                return self.hear(world, i, who, Done(), ops)
            case Apply(op):
                return self.put(world, i, who._replace(pc="apply", op=op))
            case Inspect(op):
                known = None if self.rules.log_after_look else self.pending(world)
                return self.put(world, i, who._replace(pc="inspect", op=op, seen=known))
            case Finish():
                return self.put(world, i, who._replace(pc="finish"))
        return self.told(world, i, who, then)

    def told(self, world: Plain, i: int, who: Who, outcome: Any) -> Plain:
        kind = self.kinds[i]
        foreign = world.strangers < self.scene.strangers
        self.report.outcomes.add((kind, str(outcome)))
        match outcome:
            case Stuck():
                self.need(foreign, f"{outcome} without a stranger")
                self.need(who.recovering, "an owner is stuck")
            case Committed(pending=False):
                done = Rec("done", who.tx) in self.read(world)
                self.need(done, f"{who.tx} is told finished, and the log does not know")
        again = who.tx != TX.get(kind, who.tx) and outcome == Committed()
        return self.put(world, i, Who("look" if again else "end"))

    def put(self, world: Plain, i: int, who: Who) -> Plain:
        agents = world.agents
        return world._replace(agents=(*agents[:i], who, *agents[i + 1 :]))

    # --- moves of the game ---

    def moves(self, world: Plain) -> Iterator[tuple[str, Plain]]:
        for i, who in enumerate(world.agents):
            if who.pc in ("end", "dead"):
                continue
            name = self.scene.kinds[i]
            for label, after in getattr(self, f"do_{who.pc}")(world, i, who):
                yield f"{name} {who.pc}: {label}", after
            if world.crashes:
                dead = self.put(world, i, Who("dead"))
                yield f"{name} is killed", dead._replace(crashes=world.crashes - 1)
        for late in world.flight:
            tx, op = late
            left = world._replace(flight=world.flight - {late})
            after, held = self.change(left, tx, op, self.ops_of(world, tx))
            yield f"late request {op} of {tx} {'lands' if held else 'is refused'}", after
        if world.strangers and self.at(world, "E"):
            names = frozenset(n for n in world.names if n[0] != "E") | {("E", STRANGER, "s")}
            yield "a stranger writes the entry", world._replace(names=names, strangers=0)

    def ops_of(self, world: Plain, tx: int) -> int:
        """The record of a transaction; what it would be, for a mutant that publishes first."""
        for r in world.log:
            if self.recs[r][:2] == ("commit", tx):
                return r
        return self.rec(self.transaction(world, tx))

    def do_look(self, world: Plain, i: int, who: Who) -> Iterator[tuple[str, Plain]]:
        kind = self.kinds[i]
        pending = self.pending(world)
        if kind == "collector":
            if pending is None or not self.rules.collection_waits:
                yield "log", self.put(world, i, Who("collect", seen=len(world.log)))
            else:
                yield "pending", self.put(world, i, Who("end"))
        elif kind == "recoverer" or (pending is not None and self.rules.one_at_a_time):
            yield from self._recover(world, i, pending)
        else:
            yield from self._prepare(world, i, TX[kind])

    def _recover(self, world: Plain, i: int, tx: int | None) -> Iterator[tuple[str, Plain]]:
        if tx is None:
            yield "nothing to do", self.put(world, i, Who("end"))
        else:
            yield f"{tx} is pending", self.enter(world, i, tx, True, self.ops_of(world, tx))

    def _prepare(self, world: Plain, i: int, tx: int) -> Iterator[tuple[str, Plain]]:
        """Plan on what is there; a plain name that is not as the log has it is a conflict."""
        entry = self.at(world, "E")
        commits = [r.tx for r in self.read(world) if r.kind == "commit"]
        last = commits[-1] if commits else None
        compares = self.rules.base_compared and self.rules.one_at_a_time
        if compares and (entry[0] if entry else None) != last:
            yield "conflict", self.put(world, i, Who("end"))
            return
        plan = (len(world.log), self.rec(self.transaction(world, tx)))
        if not self.rules.record_first:
            yield "publish", self.enter(world, i, tx, False, plan[1])
            return
        yield "plan", self.put(world, i, Who("commit", tx, seen=plan))

    def do_commit(self, world: Plain, i: int, who: Who) -> Iterator[tuple[str, Plain]]:
        length, rec = who.seen
        if len(world.log) != length:
            yield "the log moved on", self.put(world, i, Who("look"))
            return
        world = world._replace(log=(*world.log, rec))
        yield "landed", self.enter(world, i, who.tx, False, rec)

    def do_apply(self, world: Plain, i: int, who: Who) -> Iterator[tuple[str, Plain]]:
        ops = self.ops_of(world, who.tx)
        applied, held = self.change(world, who.tx, who.op, ops)
        answer = Done() if held else Taken()
        yield f"{who.op} {'done' if held else 'taken'}", self.hear(applied, i, who, answer, ops)
        if not world.faults:
            return
        left, late = world.faults - 1, frozenset({(who.tx, who.op)})
        fates = [
            ("lost answer", applied, Unknown()),
            ("taken by itself", applied, Taken()),
            ("dropped", world, Unknown()),
            ("refused", world, Refused("failed")),
            ("delayed", world._replace(flight=world.flight | late), Unknown()),
            ("repeated", applied._replace(flight=world.flight | late), answer),
        ]
        for label, after, event in fates:
            yield f"{who.op} {label}", self.hear(after._replace(faults=left), i, who, event, ops)

    def do_inspect(self, world: Plain, i: int, who: Who) -> Iterator[tuple[str, Plain]]:
        ops = self.ops_of(world, who.tx)
        what, name = self.recs[ops].ops[who.op], self.recs[ops].names[who.op]
        there = self.at(world, name)
        new = (who.tx, self.token(who.tx, name)) if what.kind == "put" else None
        if there == new:
            yield "new", self.hear(world, i, who, Found("new"), ops)
        elif self.is_base(there, what):
            yield "base", self.hear(world, i, who, Found("base"), ops)
        elif self.rules.log_after_look:
            yield "neither", self.put(world, i, who._replace(pc="judge"))
        else:
            finished = who.seen != who.tx
            event = Found("finished" if finished else "other")
            yield event.what, self.hear(world, i, who, event, ops)

    def do_judge(self, world: Plain, i: int, who: Who) -> Iterator[tuple[str, Plain]]:
        finished = Rec("done", who.tx) in self.read(world)
        event = Found("finished" if finished else "other")
        yield event.what, self.hear(world, i, who, event, self.ops_of(world, who.tx))

    def do_finish(self, world: Plain, i: int, who: Who) -> Iterator[tuple[str, Plain]]:
        ops = self.ops_of(world, who.tx)
        done = Rec("done", who.tx)
        if done not in self.read(world):
            shown = world.newest >= self.version(world, who.tx)
            self.need(shown, f"{who.tx} is told finished, and the entry never showed it")
            world = world._replace(log=(*world.log, self.rec(done)))
        yield "done", self.hear(world, i, who, Done(), ops)

    def do_collect(self, world: Plain, i: int, who: Who) -> Iterator[tuple[str, Plain]]:
        """Parts that the newest state does not name; those of transactions not landed are another matter."""
        log = self.read(world)[: who.seen]
        commits = [r.tx for r in log if r.kind == "commit"]
        last = commits[-1] if commits else -1
        old = {n for n in world.names if n[0][0] == "P" and n[1] in commits and n[1] != last}
        world = self.put(world._replace(names=world.names - old), i, Who("end"))
        self.whole(world)
        yield " ".join(sorted(n for n, _, _ in old)) or "nothing", world

    # --- histories ---

    def run(self, *, calm: bool) -> Report:
        first = self.begin()
        self.seen: dict[Plain, tuple[Plain | None, str]] = {first: (None, "begin")}
        queue = deque([first])
        while queue:
            world = queue.popleft()
            ended = True
            try:
                for label, after in self.moves(world):
                    ended = False
                    if after not in self.seen:
                        self.seen[after] = (world, label)
                        queue.append(after)
                if calm and (ended or len(self.seen) % 64 == 0):
                    self.calm(world)
            except ViolationError as error:
                raise ViolationError(error.what, (*self.way(world), *error.way)) from None
        self.report.states = len(self.seen)
        return self.report

    def way(self, world: Plain) -> tuple[str, ...]:
        steps: list[str] = []
        at: Plain | None = world
        while at is not None:
            at, label = self.seen[at]
            steps.append(label)
        return tuple(reversed(steps))

    def calm(self, world: Plain) -> None:
        """If faults stop, whoever comes next finishes, and the entry shows the newest commit."""
        foreign = world.strangers < self.scene.strangers
        world = world._replace(faults=0, crashes=0, strangers=0)
        for _ in range(100):
            busy = [i for i, x in enumerate(world.agents) if x.pc not in ("end", "dead")]
            if not busy:
                break
            for i in busy:
                who = world.agents[i]
                _, world = next(getattr(self, f"do_{who.pc}")(world, i, who))
        else:
            raise ViolationError("without further faults somebody never ends")
        self.report.calm += 1
        tx = self.pending(world)
        if tx is not None:
            world = self.put(world, (i := len(self.scene.kinds)), Who("look"))
            world = self.enter(world, i, tx, True, self.ops_of(world, tx))
            while (who := world.agents[i]).pc != "end":
                _, world = next(getattr(self, f"do_{who.pc}")(world, i, who))
            if self.pending(world) == tx:
                self.need(foreign, f"{tx} stays pending without a stranger")
                return
        entry = self.at(world, "E")
        commits = [r for r in self.read(world) if r.kind == "commit"]
        if commits and not foreign:
            gone = self.scene.unpublishes and commits[-1].tx == 2
            shown = entry[0] if entry else None
            expected = None if gone else commits[-1].tx
            self.need(shown == expected, f"the entry shows {shown}, the log says {expected}")


def explore_plain(
    scene: PlainScene,
    wrap: Wrap = lambda m: m,
    rules: PlainRules | None = None,
    *,
    calm: bool = True,
) -> Report:
    """Explore a scene; `ViolationError` on the first broken promise, by the shortest way there."""
    gc.disable()  # nothing here is cyclic
    try:
        return PlainModel(scene, wrap, rules or PlainRules()).run(calm=calm)
    finally:
        gc.enable()
