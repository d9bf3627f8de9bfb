"""Who tidies up a log in a model, who reads it, and who only makes it move on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fstx.machines.manifest import Landed
from fstx.machines.vocabulary import Aborted, InDoubt
from support.logagents import Agent, Moves
from support.logmodel import Local, Model, Rec, World, with_agent


@dataclass(frozen=True)
class Collector(Agent):
    """Gives idle transactions up for dead and deletes their data. ``floor``: then drops the fences."""

    name: str = "G"
    floor: bool = False

    def start(self, model: Model, head: int) -> Local:
        return Local("ldata", "fence")

    def do_ldata(self, model: Model, world: World, i: int, local: Local) -> Moves:
        yield "data", with_agent(world, i, local._replace(pc="list", aux=world.data))

    def read(self, model: Model, world: World, i: int, local: Local) -> World:
        head = model.recs[local.head]
        wanted = local.aux - model.reached(world, versions(head)) - head.after.fenced
        if not wanted:
            return with_agent(world, i, Local("end"))
        local = local._replace(aux=frozenset(wanted))
        if not model.rules.fence_first:
            return with_agent(world, i, local._replace(pc="delete"))
        return self.enter("recover", model, world, i, local)

    def judge(self, model: Model, world: World, local: Local) -> str:
        head = model.recs[local.head].after
        if local.mode == "floor":
            return "free"
        return "moot" if local.aux - set(head.paths) <= head.fenced else "free"

    def build(self, model: Model, local: Local) -> Rec:
        head = model.recs[local.head].after
        seq = model.recs[local.head].seq
        if local.mode == "floor":
            floor = seq if model.rules.floor_drops_old_only else 0
            return self.service(model, local, floor=floor, fenced=frozenset())
        return self.service(model, local, fenced=head.fenced | (local.aux - set(head.paths)))

    def after(self, model: Model, world: World, i: int, local: Local, outcome: Any) -> World:
        if isinstance(outcome, Aborted | InDoubt) or local.mode == "floor":
            return with_agent(world, i, Local("end"))
        if isinstance(outcome, Landed):
            local = local._replace(head=world.hist[outcome.slot - 1], since=())
        return with_agent(world, i, local._replace(pc="delete"))

    def do_delete(self, model: Model, world: World, i: int, local: Local) -> Moves:
        head = model.recs[local.head]
        victims = local.aux
        if model.rules.reads_after_fence:
            spared = model.reached(world, versions(head) | {v for _, v in world.pins})
            victims = frozenset(k for k in victims - spared if k in head.after.fenced or not k)
        if not model.rules.fence_first:
            victims = local.aux
        world = world._replace(data=world.data - victims)
        model.intact(world)
        label = f"data of {' '.join(sorted(victims))}"
        if self.floor:
            yield label, self.enter("start", model, world, i, local._replace(mode="floor"))
        else:
            yield label, with_agent(world, i, Local("end"))


def versions(head: Rec) -> set[int]:
    """Versions that are kept as of a head."""
    return set(range(max(1, min(head.after.oldest, head.seq)), head.seq + 1))


@dataclass(frozen=True)
class Keeper(Agent):
    """Retires all versions but the newest, cuts the log, deletes what nobody needs."""

    name: str = "K"
    retires: bool = True
    truncates: bool = True
    sweeps: bool = True

    def start(self, model: Model, head: int) -> Local:
        return Local("list", "retire")

    def read(self, model: Model, world: World, i: int, local: Local) -> World:
        oldest = model.recs[local.head].after.oldest
        local = local._replace(aux=(max(1, oldest), frozenset(), 0))
        if self.retires and model.rules.retire_first:
            return self.enter("start", model, world, i, local)
        return with_agent(world, i, local._replace(pc="pins"))

    def judge(self, model: Model, world: World, local: Local) -> str:
        return "free"

    def build(self, model: Model, local: Local) -> Rec:
        return self.service(model, local, oldest=model.recs[local.head].seq)

    def after(self, model: Model, world: World, i: int, local: Local, outcome: Any) -> World:
        if not isinstance(outcome, Landed):
            return with_agent(world, i, Local("end"))
        pc = "pins" if model.rules.retire_first else self._first(model)
        head = world.hist[outcome.slot - 1]
        return with_agent(world, i, local._replace(pc=pc, head=head, since=()))

    def _first(self, model: Model) -> str:
        if not self.truncates:
            return "sweep"
        return "mark" if model.rules.boundary_first else "cut"

    def do_pins(self, model: Model, world: World, i: int, local: Local) -> Moves:
        pinned = frozenset(v for _, v in world.pins)
        local = local._replace(aux=(local.aux[0], pinned, 0))
        label = f"pinned {sorted(pinned)}"
        if self.retires and not model.rules.retire_first:
            yield label, self.enter("start", model, world, i, local)
        else:
            yield label, with_agent(world, i, local._replace(pc=self._first(model)))

    def _cut_at(self, model: Model, local: Local) -> int:
        head, rules = model.recs[local.head], model.rules
        limits = [head.seq]
        if rules.boundary_below_kept:
            limits.append(head.after.oldest)
        if rules.boundary_below_pins:
            limits.extend(local.aux[1])
        return max(0, min(limits) - 1)

    def do_mark(self, model: Model, world: World, i: int, local: Local) -> Moves:
        bound = max(world.bound, self._cut_at(model, local))
        world = world._replace(bound=bound)
        model.intact(world)
        pc = "cut" if model.rules.boundary_first else "sweep"
        yield f"boundary {bound}", with_agent(world, i, local._replace(pc=pc))

    def do_cut(self, model: Model, world: World, i: int, local: Local) -> Moves:
        n = self._cut_at(model, local)
        world = world._replace(log=(*[0] * n, *world.log[n:]))
        pc = "mark" if not model.rules.boundary_first else "sweep" if self.sweeps else "end"
        local = local._replace(pc=pc) if pc != "end" else Local("end")
        yield f"records to {n}", with_agent(world, i, local)

    def do_sweep(self, model: Model, world: World, i: int, local: Local) -> Moves:
        head = model.recs[local.head]
        kept = versions(head)
        pinned = local.aux[1] if model.rules.pins_spared else frozenset()
        old = model.reached(world, set(range(local.aux[0], min(kept))))
        victims = old - model.reached(world, kept | pinned)
        world = with_agent(world._replace(data=world.data - victims), i, Local("end"))
        model.intact(world)
        yield f"data of {' '.join(sorted(victims))}", world


@dataclass(frozen=True)
class Reader(Agent):
    """Opens the newest version. ``pins``: and holds it for a while."""

    name: str = "R"
    pins: bool = False
    mortal: bool = False

    def start(self, model: Model, head: int) -> Local:
        return Local("list", "first")

    def do_list(self, model: Model, world: World, i: int, local: Local) -> Moves:
        if local.mode == "first" and local.aux is None:
            local = local._replace(aux=len(world.hist))
        yield from super().do_list(model, world, i, local)

    def read(self, model: Model, world: World, i: int, local: Local) -> World:
        head = model.recs[local.head]
        if local.mode == "first":
            model.need(head.seq >= local.aux, f"read {head.seq} after {local.aux} had landed")
            if not self.pins:
                return with_agent(world, i, Local("end"))
            return with_agent(world, i, local._replace(pc="pin", mode="second", aux=head.seq))
        if local.aux < min(head.after.oldest, head.seq):
            return with_agent(world, i, Local("unpin", aux=local.aux))
        return self._hold(model, world, i, local)

    def _hold(self, model: Model, world: World, i: int, local: Local) -> World:
        world = with_agent(world, i, Local("hold", aux=local.aux))
        model.intact(world)
        return world

    def do_pin(self, model: Model, world: World, i: int, local: Local) -> Moves:
        world = world._replace(pins=world.pins | {(self.name, local.aux)})
        if model.rules.reads_after_pin:
            yield f"{local.aux}", with_agent(world, i, local._replace(pc="list"))
        else:
            yield f"{local.aux}", self._hold(model, world, i, local)

    def do_hold(self, model: Model, world: World, i: int, local: Local) -> Moves:
        yield "reads", with_agent(world, i, local._replace(pc="unpin"))

    def do_unpin(self, model: Model, world: World, i: int, local: Local) -> Moves:
        pins = world.pins - {(self.name, local.aux)}
        yield "done", with_agent(world._replace(pins=pins), i, Local("end"))


@dataclass(frozen=True)
class Others(Agent):
    """Writers elsewhere, each commit in one step; they only make the log move on."""

    name: str = "O"
    count: int = 1
    path: int = 0
    mortal: bool = False

    def start(self, model: Model, head: int) -> Local:
        return Local("go", aux=self.count)

    def do_go(self, model: Model, world: World, i: int, local: Local) -> Moves:
        head = model.recs[world.hist[-1]]
        name = f"{self.name}{local.aux}"
        paths = list(head.after.paths)
        paths[self.path] = name
        st = head.after._replace(paths=tuple(paths))
        seq = head.seq + 1
        rec = Rec(seq, name, "commit", head.seq, frozenset({self.path}), head[:2], st)
        world = world._replace(data=world.data | {name})
        world, _ = model.land(world, seq, model.rec(rec))
        left = local.aux - 1
        local = local._replace(aux=left) if left else Local("end")
        yield f"{name} lands at {seq}", with_agent(world, i, local)
