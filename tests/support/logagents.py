"""Who is at work on the log of a model: writers, collectors, keepers, readers; one request each move.

Every append is decided by `fstx.machines.manifest.Append`; what stands here are its performers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fstx.machines.manifest import (
    Bound,
    Clear,
    Landed,
    Look,
    Moot,
    Overtaken,
    Pause,
    Put,
    Seen,
    Settle,
)
from fstx.machines.vocabulary import Aborted, Done, InDoubt, Unknown
from support.logmodel import Local, Model, Rec, World, with_agent

Moves = Iterator[tuple[str, World]]
GONE = 0  # stands in `since` for records that could not be read any more


class Agent:
    """What all have in common: reading the log, and performing an append."""

    name = ""
    mortal = True
    definite = False  # must know the outcome when faults stop

    def start(self, model: Model, head: int) -> Local:
        raise NotImplementedError

    def nonce(self, local: Local) -> str:
        return f"{self.name}:{local.mode}"

    def judge(self, model: Model, world: World, local: Local) -> str:
        raise NotImplementedError

    def build(self, model: Model, local: Local) -> Rec:
        raise NotImplementedError

    def after(self, model: Model, world: World, i: int, local: Local, outcome: Any) -> World:
        raise NotImplementedError

    def read(self, model: Model, world: World, i: int, local: Local) -> World:
        """The newest record was read, outside an append."""
        raise NotImplementedError

    def moves(self, model: Model, world: World, i: int, local: Local) -> Moves:
        yield from getattr(self, f"do_{local.pc}")(model, world, i, local)
        reading = local.pc in ("bound", "get", "fbound", "list", "gmax", "nbound")
        if reading and local.m and model.scene.unreadable and world.faults:
            left = world._replace(faults=world.faults - 1)
            yield "unreadable", self.hear(model, left, i, local, Unknown())

    # --- performing an append ---

    def enter(self, how: str, model: Model, world: World, i: int, local: Local) -> World:
        m, then = model.enter(how, model.recs[local.head].seq)
        return self.ask(model, world, i, local._replace(m=m), then)

    def hear(self, model: Model, world: World, i: int, local: Local, event: Any) -> World:
        m, then = model.step(local.m, event)
        return self.ask(model, world, i, local._replace(m=m), then)

    def ask(self, model: Model, world: World, i: int, local: Local, then: Any) -> World:
        while isinstance(then, Pause):
            m, then = model.step(local.m, Done())
            local = local._replace(m=m)
        match then:
            case Settle():
                return with_agent(world, i, local._replace(pc="settle"))
            case Put():
                return with_agent(world, i, local._replace(pc="put"))
            case Bound():
                return with_agent(world, i, local._replace(pc="bound"))
            case Look():
                return with_agent(world, i, local._replace(pc="get", at=local.head))
        return self.after(model, world, i, local._replace(m=0), then)

    def do_settle(self, model: Model, world: World, i: int, local: Local) -> Moves:
        yield "nothing to do", self.hear(model, world, i, local, Done())

    def do_put(self, model: Model, world: World, i: int, local: Local) -> Moves:
        rec = self.build(model, local)
        slot = model.states[local.m].slot
        for label, after, answer in model.put(world, slot, model.rec(rec._replace(seq=slot))):
            yield f"{slot} {label}", self.hear(model, after, i, local, answer)

    def do_bound(self, model: Model, world: World, i: int, local: Local) -> Moves:
        event = Clear() if world.bound < model.states[local.m].slot else Overtaken()
        yield type(event).__name__, self.hear(model, world, i, local, event)

    # --- reading on, and from the start ---

    def do_get(self, model: Model, world: World, i: int, local: Local) -> Moves:
        n = model.recs[local.at].seq
        r = world.log[n] if n < len(world.log) else 0
        if r:
            since = (*(local.since or ()), r)
            yield f"{n + 1}", with_agent(world, i, local._replace(at=r, since=since))
        else:
            yield f"{n + 1} absent", with_agent(world, i, local._replace(pc="fbound"))

    def do_fbound(self, model: Model, world: World, i: int, local: Local) -> Moves:
        passed = world.bound > model.recs[local.head].seq
        if passed and model.rules.boundary_after_records:
            local = local._replace(pc="list", since=(GONE,))
            yield "passed", with_agent(world, i, local)
        else:
            yield "below", self.seen(model, world, i, local)

    def do_list(self, model: Model, world: World, i: int, local: Local) -> Moves:
        n = max((k for k, r in enumerate(world.log, 1) if r), default=0)
        if n:
            yield f"{n}", with_agent(world, i, local._replace(pc="gmax", at=n))
        else:
            yield "empty", self.seen(model, world, i, local._replace(at=0))

    def do_gmax(self, model: Model, world: World, i: int, local: Local) -> Moves:
        r = world.log[local.at - 1]
        if not r:
            yield "absent", with_agent(world, i, local._replace(pc="list"))
        elif model.rules.boundary_after_listing:
            yield "there", with_agent(world, i, local._replace(pc="nbound", at=r))
        else:
            yield "there", self.seen(model, world, i, local._replace(at=r))

    def do_nbound(self, model: Model, world: World, i: int, local: Local) -> Moves:
        if world.bound >= model.recs[local.at].seq:
            yield "passed", with_agent(world, i, local._replace(pc="list"))
        else:
            yield "below", self.seen(model, world, i, local)

    def seen(
        self, model: Model, world: World, i: int, local: Local, *, verdict: Any = None
    ) -> World:
        model.genuine(world, local.at)
        local = local._replace(head=local.at)
        if not local.m:
            return self.read(model, world, i, local)
        own = self.slot_of(model, world, local, self.nonce(local))
        if own is None and self.blind(model, world, local):
            return self.hear(model, world, i, local, Unknown())
        verdict = verdict or ("free" if own else self.judge(model, world, local))
        event = Seen(model.recs[local.head].seq, own, verdict)
        return self.hear(model, world, i, local, event)

    def slot_of(self, model: Model, world: World, local: Local, nonce: str) -> int | None:
        """Where a record is effective, by what was read and by what the truncation remembers."""
        for r in local.since or ():
            if r and model.recs[r].nonce == nonce:
                return model.recs[r].seq
        if GONE in (local.since or ()) and model.rules.truncation_remembers:
            for r in world.hist[: world.bound]:
                if model.recs[r].nonce == nonce:
                    return model.recs[r].seq
        return None

    def blind(self, model: Model, world: World, local: Local) -> bool:
        """Whether a record of ours may have been among those that are gone."""
        rules = model.rules
        out = model.states[local.m].out
        forgets = rules.says_unknown and not rules.truncation_remembers
        return forgets and GONE in (local.since or ()) and out is not None and out <= world.bound

    def service(self, model: Model, local: Local, **changes: Any) -> Rec:
        """A record that changes no path."""
        head = model.recs[local.head]
        st = head.after._replace(**changes)
        return Rec(0, self.nonce(local), local.mode, head.seq, frozenset(), head[:2], st)


def tell(world: World, i: int, word: str) -> World:
    return world._replace(told=(*world.told[:i], word, *world.told[i + 1 :]))


class Fencing(Agent):
    """Answers for a transaction by fencing it: the last word of a writer in doubt, and of `outcome`."""

    name: str
    definite = True

    def blind(self, model: Model, world: World, local: Local) -> bool:
        """A fence is told only by one who can tell that the transaction has not landed."""
        if local.mode != "fence":
            return super().blind(model, world, local)
        rules = model.rules
        forgets = rules.says_unknown and not rules.truncation_remembers
        landed = self.slot_of(model, world, local, self.name)
        return forgets and GONE in (local.since or ()) and landed is None

    def judge_fence(self, model: Model, world: World, local: Local) -> str:
        fenced = self.name in model.recs[local.head].after.fenced
        return "moot" if fenced or self.slot_of(model, world, local, self.name) else "free"

    def build_fence(self, model: Model, local: Local) -> Rec:
        fenced = model.recs[local.head].after.fenced | {self.name}
        return self.service(model, local, fenced=fenced)

    def after_fence(self, model: Model, world: World, i: int, local: Local, outcome: Any) -> World:
        if isinstance(outcome, Aborted | InDoubt):
            return with_agent(tell(world, i, "doubt"), i, Local("end"))
        fenced = self.name in model.recs[local.head].after.fenced
        believed = fenced and not model.rules.landed_before_fenced
        landed = self.slot_of(model, world, local, self.name)
        if isinstance(outcome, Moot) and landed and not believed:
            return self.committed(model, world, i)
        return self.aborted(model, world, i, local)

    def committed(self, model: Model, world: World, i: int) -> World:
        names = {model.recs[r].nonce for r in world.hist}
        model.need(self.name in names, f"{self.name} is told committed and is not effective")
        return with_agent(tell(world, i, "committed"), i, Local("end"))

    def aborted(self, model: Model, world: World, i: int, local: Local) -> World:
        names = {model.recs[r].nonce for r in world.hist}
        model.need(self.name not in names, f"{self.name} is told aborted and is effective")
        return with_agent(tell(world, i, "aborted"), i, Local("discard"))

    def do_discard(self, model: Model, world: World, i: int, local: Local) -> Moves:
        after = with_agent(world._replace(data=world.data - {self.name}), i, Local("end"))
        model.intact(after)
        yield "own data", after


@dataclass(frozen=True)
class Writer(Fencing):
    """One transaction, begun at the first head. ``link``: it names an object that is there already.
    ``moody``: its judgement of one head may change. ``mark``: an id that its caller chose.
    """

    name: str
    path: int = 0
    cancels: bool = False
    link: bool = False
    moody: bool = False
    mark: str = ""
    mortal: bool = True

    def start(self, model: Model, head: int) -> Local:
        m, _ = model.enter("start", model.recs[head].seq)
        return Local("settle", "commit", m, head, head, (), head)

    def nonce(self, local: Local) -> str:
        return self.name if local.mode == "commit" else f"{self.name}:fence"

    def moves(self, model: Model, world: World, i: int, local: Local) -> Moves:
        yield from super().moves(model, world, i, local)
        if self.cancels and local.m and local.mode == "commit":
            state = model.states[local.m]
            if state.out is not None and not state.giving_up:
                yield "interrupt", self.enter("cancel", model, world, i, local)
        if self.moody and local.pc == "fbound" and world.bound <= model.recs[local.head].seq:
            yield "another mind", self.seen(model, world, i, local, verdict="conflict")

    def do_settle(self, model: Model, world: World, i: int, local: Local) -> Moves:
        data = world.data if self.link else world.data | {self.name}
        yield "data put", self.hear(model, world._replace(data=data), i, local, Done())

    def build(self, model: Model, local: Local) -> Rec:
        if local.mode == "fence":
            return self.build_fence(model, local)
        base, head = model.recs[local.aux], model.recs[local.head]
        paths = list(head.after.paths)
        paths[self.path] = base.after.paths[0] if self.link else self.name
        marks = head.after.marks | ({self.mark} if self.mark else set())
        st = head.after._replace(paths=tuple(paths), marks=marks)
        touched = frozenset({self.path})
        return Rec(0, self.name, "commit", base.seq, touched, head[:2], st, self.mark)

    def judge(self, model: Model, world: World, local: Local) -> str:
        if local.mode == "fence":
            return self.judge_fence(model, world, local)
        rules, base, head = model.rules, model.recs[local.aux], model.recs[local.head]
        if self.mark and self.mark in head.after.marks and rules.marks_checked:
            return "moot"
        if rules.fence_checked and self.name in head.after.fenced:
            return "gone"
        if rules.floor_checked and base.seq < head.after.floor:
            return "gone"
        if rules.links_checked and self.link and base.seq < min(head.after.oldest, head.seq):
            return "gone"
        if GONE in (local.since or ()):
            differ = base.after.paths[self.path] != head.after.paths[self.path]
            return "conflict" if differ and rules.conflicts_unseen else "free"
        since = [model.recs[r] for r in local.since or ()]
        met = any(r.kind == "commit" and self.path in r.touched for r in since)
        return "conflict" if met and rules.conflicts_checked else "free"

    def after(self, model: Model, world: World, i: int, local: Local, outcome: Any) -> World:
        if local.mode == "fence":
            return self.after_fence(model, world, i, local, outcome)
        match outcome:
            case Landed(slot):
                mine = slot <= len(world.hist) and model.recs[world.hist[slot - 1]]
                named = bool(mine) and mine.nonce == self.name
                model.need(named, f"{self.name} is told committed at {slot}, which is not its own")
                return self.committed(model, world, i)
            case Aborted() | Moot():
                return self.aborted(model, world, i, local)
        if not model.rules.cancel_fences:
            return self.aborted(model, world, i, local)
        if not model.rules.discards_when_certain:
            world = world._replace(data=world.data - {self.name})
            model.intact(world)
        return self.enter("recover", model, world, i, local._replace(mode="fence"))


@dataclass(frozen=True)
class Resolver(Fencing):
    """Another process that asks what became of a writer. ``cold``: it has read nothing yet."""

    name: str
    cold: bool = False

    def start(self, model: Model, head: int) -> Local:
        if self.cold:
            return Local("list", "fence")
        m, _ = model.enter("recover", model.recs[head].seq)
        return Local("get", "fence", m, head, head, ())

    def nonce(self, local: Local) -> str:
        return f"{self.name}:outcome"

    def judge(self, model: Model, world: World, local: Local) -> str:
        return self.judge_fence(model, world, local)

    def build(self, model: Model, local: Local) -> Rec:
        return self.build_fence(model, local)

    def after(self, model: Model, world: World, i: int, local: Local, outcome: Any) -> World:
        return self.after_fence(model, world, i, local, outcome)

    def read(self, model: Model, world: World, i: int, local: Local) -> World:
        """From the head down to the boundary, every record is read."""
        if not model.rules.outcome_scans:
            return self.enter("recover", model, world, i, local._replace(since=()))
        n = model.recs[local.head].seq
        local = local._replace(pc="scan", aux=(n, world.bound), since=())
        return with_agent(world, i, local)

    def do_scan(self, model: Model, world: World, i: int, local: Local) -> Moves:
        n, bound = local.aux
        if n > bound:
            r = world.log[n - 1]
            again = local._replace(pc="list", since=())
            onward = local._replace(since=(r, *(local.since or ())), aux=(n - 1, bound))
            yield f"{n}", with_agent(world, i, onward if r else again)
        elif world.bound > bound:
            yield "passed", with_agent(world, i, local._replace(pc="list", since=()))
        else:
            since = (GONE, *(local.since or ())) if bound else local.since
            local = local._replace(since=since)
            yield "all", self.enter("recover", model, world, i, local)

    def do_discard(self, model: Model, world: World, i: int, local: Local) -> Moves:
        yield "nothing", with_agent(world, i, Local("end"))
