"""Each fault at each request of a commit, then recovery past the proxy; what was told must stay true.

A run is one fresh place, one schedule and one moment at which late requests arrive. What is judged:

- told *committed*: readers find the new content, now (or once it is recovered, if it was told as pending)
  and after all that comes late; told *aborted*: the old content, for ever; *in doubt*: what the outcome
  says, as soon as it says something;
- readers never meet a mixture, where that is promised;
- a fresh commit works, and late requests don't touch it;
- nothing that nobody needs is left, and no upload is open.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import fstx
from fstx.types import OutcomeState
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.schedule import Fault, Schedule
from fstx_conformance.seams.proxy.control import FaultProxy, shown
from fstx_conformance.seams.proxy.faults import rule_of
from fstx_conformance.seams.proxy.wire import Request
from fstx_conformance.subjects.base import Subject
from fstx_conformance.wire.scenes import Scene, Told, Where
from fstx_conformance.wire.services import endpoint_of, impatient, repeating, through

MOMENTS = ("before", "between", "after")
"""Late requests arrive before recovery, after it, or after a fresh commit that had to recover itself."""

LATE = frozenset({"late", "zombie"})
AMBIGUOUS = (
    "reset-after",
    "zombie",
    "late",
    "status-503-after",
    "status-500-after",
    "stall-after",
    "reset-before",
    "reset-middle",
    "status-503",
    "status-500",
    "status-429",
    "status-409",
    "status-403",
    "stall",
    "duplicate",
    "duplicate-first",
    "truncate",
    "corrupt",
)
"""What may happen to a request that changes something."""

READS = ("truncate", "corrupt", "status-503", "reset-after", "stall", "status-403")
"""What may happen to a request that reads."""

PATIENCE_S = (
    0.3  # of a client whose requests stall; whatever it gives up, what is told must be true
)
_WORDS = {"doubt": "unknown", "lost": "unknown"}
_DONE = (OutcomeState.COMMITTED, OutcomeState.PENDING)
_FAR = 400  # no commit here makes so many requests
_FEW = 60  # lines of a log that are kept with a failure


@dataclass
class Run:
    """One run: what was told, what fired, and what was wrong."""

    schedule: Schedule
    moment: str
    told: Told = field(default_factory=lambda: Told("none"))
    met: bool = False  # a request was chosen; it may have had no older answer to repeat
    fired: tuple[str, ...] = ()
    wrong: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)


class Judge:
    """One run from the attempt to the last look. The scene goes past the proxy for all but the attempt."""

    def __init__(self, scene: Scene, proxy: FaultProxy, run: Run) -> None:
        self.scene = scene
        self.proxy = proxy
        self.run = run
        self.allowed: frozenset[str] = frozenset()

    def go(self) -> Run:
        """Attempt, judge, recover, judge, commit anew, judge."""
        run, faults = self.run, self.run.schedule.faults
        self.proxy.faults(faults)
        run.told = self.scene.attempt("new")
        log = run.log = self.proxy.log()
        self.proxy.rules()
        met = [e for e in log if e["rule"] is not None]
        run.met = bool(met)
        run.fired = tuple(
            faults[e["rule"]].action for e in met if e["do"] != "stale" or "stale" in e
        )
        run.history += [*shown(log)[-_FEW:], f"told {run.told}"]
        try:
            self._judge()
        except Exception as error:  # noqa: BLE001 - whatever it is, past the proxy nothing may go wrong
            self._wrong(f"past the proxy: {type(error).__name__}: {error}")
        return run

    def _judge(self) -> None:
        told, moment = self.run.told, self.run.moment
        if told.kind == "lost":
            self._wrong(f"the writer got an error that is none of fstx's: {told.text}")
        states = {"committed": {"new"}, "aborted": {self.scene.starts}}
        self.allowed = frozenset(states.get(told.kind, {"new", self.scene.starts}))
        self._look("after the attempt", settled=False)
        if moment == "before":
            self._deliver()
            self._look("after late requests", settled=False)
        self._ask()
        if moment != "after":
            self.scene.recover()
            self._look("after recovery")
        if moment == "between":
            self._deliver()
            self._look("after late requests")
            self._ask()
        self.scene.again("newer")
        self.allowed = frozenset({"newer"})
        self._look("after a fresh commit")
        if moment == "after":
            self._deliver()
            self._look("after late requests")
        self.scene.tidy()
        self._look("after tidying")
        left = self.scene.leftovers()
        if left:
            self._wrong(f"left behind: {', '.join(left[:5])}")

    def _look(self, when: str, *, settled: bool = True) -> None:
        found = self.scene.look()
        self.run.history.append(f"{when}: {found}")
        if found in self.allowed:
            return
        pending = self.run.told.pending or self.run.told.kind in ("doubt", "lost")
        if not settled and pending and (self.scene.mixes or found == self.scene.starts):
            return
        self._wrong(
            f"{when} a reader finds {found}; the writer was told {self.run.told.kind}, so it has to be "
            + " or ".join(sorted(self.allowed))
        )

    def _ask(self) -> None:
        """What the outcome says narrows what may be found from here on."""
        told = self.run.told
        if not told.id:
            return
        said = self.scene.outcome(told.id)
        self.run.history.append(f"outcome: {said.value}")
        done, undone = said in _DONE, said is OutcomeState.ABORTED
        forgotten = self.scene.id is None and said is OutcomeState.UNKNOWN
        if told.kind == "committed" and not (done or forgotten):
            self._wrong(f"the writer was told committed, and the outcome says {said.value}")
        if told.kind == "aborted" and not (undone or said is OutcomeState.UNKNOWN):
            self._wrong(f"the writer was told aborted, and the outcome says {said.value}")
        if told.kind == "doubt" and said is OutcomeState.ACTIVE:
            self._wrong("the writer has ended, and the outcome says that it is active")
        if done:
            self.allowed &= {"new"}
        if undone:
            self.allowed &= {self.scene.starts}

    def _deliver(self) -> None:
        answers = self.proxy.deliver()
        if answers:
            self.run.history.append(f"late requests arrive, answers {answers}")

    def _wrong(self, text: str) -> None:
        self.run.wrong.append(text)
        self.run.history.append(f"WRONG: {text}")


class Wire:
    """A proxy in front of the server of a lab's subject, and the sweeps through it.

    Parameters
    ----------
    lab
        Of the case.
    attempts
        How often the client itself makes each request, where its options say so.

    Raises
    ------
    NotApplicable
        The subject's options name no server.
    """

    def __init__(self, lab: Lab, *, attempts: int = 1) -> None:
        self.lab = lab
        subject = lab.subject
        endpoint = endpoint_of(subject.url, subject.options)
        if endpoint is None:
            raise NotApplicable("its options name no server that a proxy could stand before")
        self.proxy = _proxy_of(subject, endpoint)
        faulty = through(subject.url, subject.options, self.proxy.url)
        self.faulty = repeating(subject.url, faulty, attempts)
        self.proxy.clear()
        with lab.room() as room:  # what the storage is proven to do is asked before faults begin
            fstx.guarantee(room.url, **self.faulty)

    def scenes(self, *scenes: type[Scene]) -> list[type[Scene]]:
        """Those that this subject can have; in a replay, the one that it names."""
        chained = self.lab.subject.url.startswith("tx::")
        found = [s for s in scenes if s.chained is None or s.chained == chained]
        named = self.lab.replay.scene if self.lab.replay is not None else ""
        return [s for s in found if not named or s.name == named]

    def one(self, kind: type[Scene], faults: Sequence[Fault], moment: str, id: str | None) -> Run:
        """One run in a fresh room; what it finds is noted."""
        lab = self.lab
        wanted = Schedule(tuple(faults), lab.seed, scene=kind.name, extra=moment)
        run = Run(wanted, moment)
        with lab.room() as room:
            self.proxy.clear()
            scene = kind(self._where(room.url, faults), id)
            scene.prepare(known=any(fault.action == "stale" for fault in faults))
            Judge(scene, self.proxy, run).go()
        lab.runs += 1
        lab.seen[_WORDS.get(run.told.kind, run.told.kind)] += 1
        lab.fired.update(run.fired)
        lab.progress(str(wanted))
        if run.wrong:
            lab.problem(run.wrong[0], schedule=wanted, scene=kind.name, history=run.history)
        return run

    def _where(self, url: str, faults: Sequence[Fault]) -> Where:
        top = url[4:] if url.startswith("tx::") else url.rpartition("/")[0]
        faulty = self.faulty
        if any(fault.action.startswith("stall") for fault in faults):
            faulty = impatient(url, faulty, PATIENCE_S)
        return Where(top, self.lab.subject.options, faulty)

    def sweep(
        self,
        scenes: Sequence[type[Scene]],
        actions: Sequence[str],
        *,
        runs: int | None = None,
        op: str = "+",
        sticky: bool = False,
        late: Sequence[str] = MOMENTS,
        id: str | None = None,
    ) -> None:
        """Each action at each request that `op` means. In a replay the one schedule is run.

        Parameters
        ----------
        runs
            So many of them, drawn by the seed; None: all, request by request until a run ends without the
            fault.
        late
            The moments at which late requests arrive.
        """
        replay = self.lab.replay
        if replay is not None:
            for kind in self.scenes(*scenes):
                self.one(kind, replay.faults, replay.extra or MOMENTS[0], id)
            return
        kinds = self.scenes(*scenes)
        if runs is None:
            for kind in kinds:
                for action in actions:
                    self._through(kind, action, op, sticky, late, id)
            return
        plan = [
            (kind, Fault(op, nth, action, agent="proxy", sticky=sticky), moment)
            for kind in kinds
            for action in actions
            for nth in range(1, self._count(kind, op, id) + 1)
            for moment in _moments(action, nth, late)
        ]
        chosen = sorted(self.lab.rng.sample(range(len(plan)), min(runs, len(plan))))
        for kind, fault, moment in (plan[i] for i in chosen):
            self.one(kind, [fault], moment, id)
        self.lab.sample.of += 1
        self.lab.sample.add(len(chosen), len(plan))

    def _through(
        self,
        kind: type[Scene],
        action: str,
        op: str,
        sticky: bool,
        late: Sequence[str],
        id: str | None,
    ) -> None:
        for nth in range(1, _FAR):
            fault = Fault(op, nth, action, agent="proxy", sticky=sticky)
            runs = [self.one(kind, [fault], m, id) for m in _moments(action, nth, late)]
            if not any(run.met for run in runs):
                return
        raise RuntimeError(f"{action} fires for ever")

    def _count(self, kind: type[Scene], op: str, id: str | None) -> int:
        """How many requests of a run without faults `op` means."""
        known = _counts.setdefault(self.lab.subject, {})
        if (kind, op) not in known:
            quiet = Fault(op, _FAR, "reset-after", agent="proxy")
            log = self.one(kind, [quiet], MOMENTS[0], id).log
            rule = rule_of(quiet)
            asked = (Request(e["method"], e["path"], e["headers"], b"") for e in log)
            known[kind, op] = sum(rule.matches(request) for request in asked)
        return known[kind, op]


def _moments(action: str, nth: int, late: Sequence[str]) -> Sequence[str]:
    """Without late requests, recovery and no recovery in turns."""
    return late if action in LATE else (MOMENTS[0] if nth % 2 else MOMENTS[2],)


_counts: WeakKeyDictionary[Subject, dict[tuple[type[Scene], str], int]] = WeakKeyDictionary()
_proxies: WeakKeyDictionary[Subject, FaultProxy] = WeakKeyDictionary()


def _proxy_of(subject: Subject, endpoint: str) -> FaultProxy:
    """The proxy of a subject, kept for as long as that is: what a client finds out is kept by endpoint."""
    if subject not in _proxies:
        _proxies[subject] = FaultProxy(endpoint)
        weakref.finalize(subject, _proxies[subject].stop)
    return _proxies[subject]


__all__ = ["AMBIGUOUS", "LATE", "MOMENTS", "READS", "Judge", "Run", "Wire"]
