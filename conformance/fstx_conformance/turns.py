"""Interleavings that can be repeated: agents of which one runs at a time, and gives its turn away as told.

Each agent is a thread with a context and an `Injector` of its own: a process, as the seams see it. The
first one that was added begins. ``writer: *#5=switch`` hands the turn on before the writer's fifth call, to
the next agent that has not ended; who ends hands it on too. Nothing waits for time: an agent that finds a
lock held, or pauses, gives its turn away and tries again when it is back.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fstx import seams
from fstx.errors import StorageError
from fstx_conformance.injector import Call, History, Injector, Killed
from fstx_conformance.schedule import Fault

T = TypeVar("T")

_HANG_S = 120.0
_PAUSES = 2000


class HangError(Exception):
    """An agent waits for another one where no seam can see it."""


@dataclass
class Agent:
    """One agent of a run."""

    name: str
    injector: Injector
    work: Callable[[Injector], Any]
    result: Any = None
    error: BaseException | None = None  # what its work raised
    ended: bool = False
    pauses: int = 0


@dataclass
class Turns:
    """One run of two or three agents.

    Parameters
    ----------
    faults
        Of the schedule. ``switch`` hands the turn on.
    history
        Of all agents.
    """

    faults: Sequence[Fault] = ()
    history: History = field(default_factory=History)
    agents: dict[str, Agent] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._turn = threading.Condition()
        self._current: Agent | None = None
        self._stuck: set[str] = set()  # who waits for a lock, since the last call of anybody
        self._moments = itertools.count(1)

    def now(self) -> int:
        """A moment of the run; later ones are greater."""
        return next(self._moments)

    def add(
        self,
        name: str,
        work: Callable[[Injector], Any],
        hooks: dict[str, Callable[[], object]] | None = None,
    ) -> Injector:
        """An agent that does `work`; hooks besides ``switch``."""
        injector = Injector(self.faults, agent=name, history=self.history, hooks=hooks)
        agent = self.agents[name] = Agent(name, injector, work)
        injector.hooks["switch"] = lambda: self._hand_on(agent)
        injector.before = lambda call: self._before(agent)
        injector.blocked = lambda: self._blocked(agent)
        injector.patience_s = 0.0
        return injector

    def run(self) -> dict[str, Agent]:
        """Run all agents to their ends.

        Raises
        ------
        HangError
            An agent waits for another one, and no seam sees it.
        """
        self._current = next(iter(self.agents.values()))
        threads = [
            threading.Thread(target=self._live, args=(agent,), name=f"agent-{name}", daemon=True)
            for name, agent in self.agents.items()
        ]
        with in_order(threads), seams.waiting(self._pause):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(_HANG_S)
                if thread.is_alive():
                    raise HangError(f"{thread.name} does not end, and makes no call")
        return self.agents

    # --- one agent ----------------------------------------------------------------------------------

    def _live(self, agent: Agent) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._current is agent)
        try:
            agent.result = contextvars.Context().run(agent.work, agent.injector)
        except BaseException as error:  # noqa: BLE001 - the run judges it
            agent.error = error
        finally:
            with self._turn:
                agent.ended = True
                self._stuck.clear()
                self._current = self._next(agent)
                self._turn.notify_all()

    def _before(self, agent: Agent) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._current is agent)
            self._stuck.clear()

    # --- turns ----------------------------------------------------------------------------------------

    def _next(self, agent: Agent) -> Agent | None:
        listed = list(self.agents.values())
        at = listed.index(agent) + 1
        return next((a for a in [*listed[at:], *listed[:at]] if not a.ended), None)

    def _hand_on(self, agent: Agent) -> None:
        other = self._next(agent)
        if other is None or other is agent:
            return
        self.history.add(f"-- {other.name} runs")
        with self._turn:
            self._current = other
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._current is agent)
        self.history.add(f"-- {agent.name} goes on")

    def _blocked(self, agent: Agent) -> bool:
        self._stuck.add(agent.name)
        living = {a.name for a in self.agents.values() if not a.ended}
        if self._stuck >= living:
            text = f"deadlock: {', '.join(sorted(living))} wait for locks of each other for ever"
            if len(living) == 1:
                text = f"{agent.name} waits for a lock that nobody lets go"
            self.history.add(f"PROBLEM: {text}")
            self.problems.append(text)
            return False
        self.history.add(f"{agent.name}: waits for a lock")
        self._hand_on(agent)
        return True

    def _pause(self, seconds: float) -> None:
        name = threading.current_thread().name.removeprefix("agent-")
        agent = self.agents.get(name)
        if agent is None:
            return
        agent.pauses += 1
        if agent.pauses > _PAUSES:
            self.problems.append(f"{name} paused {_PAUSES} times: it waits for ever")
            agent.injector.die()
            raise Killed(name)
        self._hand_on(agent)


# --- beside the turns -------------------------------------------------------------------------------


@contextlib.contextmanager
def in_order(threads: Sequence[threading.Thread] = ()) -> Iterator[None]:
    """What these threads, or the running one, give to pools is done at once, in order.

    So a schedule means the same each time, whatever the library does side by side.
    """
    known = set(threads) or {threading.current_thread()}
    before = ThreadPoolExecutor.submit

    def submit(
        self: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **named: Any
    ) -> Future[Any]:
        if threading.current_thread() not in known:
            return before(self, work, *args, **named)
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **named))
        except BaseException as error:  # noqa: BLE001 - the future carries it
            done.set_exception(error)
        return done

    ThreadPoolExecutor.submit = submit  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        ThreadPoolExecutor.submit = before  # type: ignore[method-assign]


def elsewhere(work: Callable[[], T]) -> T:
    """Do something in a context of its own: within a call of one process, as another one."""
    return contextvars.Context().run(work)


def step(injector: Injector, name: str) -> None:
    """A numbered call that does nothing: where agents can be switched on storage without a seam."""
    injector.call(Call("step", name, _nothing, False, _nothing, _no_storage))


def _no_storage() -> StorageError:
    return StorageError("the agent has no storage any more", outcome="aborted")


def _nothing() -> None:
    return None


def interleavings(counts: dict[str, int]) -> int:
    """How many schedules `switches` has without a limit, and one without any switch."""
    first, *others = counts.values()
    return 1 + first * (1 + (others[0] if others else 0))


def switches(counts: dict[str, int], limit: int, start: float = 0.0) -> Iterator[tuple[Fault, ...]]:
    """Schedules with one or two switches of agents that make so many calls each.

    All of them if there are no more than `limit`, else as many, spread evenly; `start`, from 0 to 1, says
    where the spreading begins. The first agent runs first, so a switch at its first call is the other order.
    """
    names = list(counts)
    singles = [(names[0], k) for k in range(1, counts[names[0]] + 1)]
    pairs = [(a, b) for a, b in itertools.pairwise([*names, names[0]]) if a == names[0]]
    total = len(singles) * (1 + sum(counts[b] for _, b in pairs))
    if total <= limit:
        for a, k in singles:
            yield (Fault("*", k, "switch", agent=a),)
            for _, b in pairs:
                for j in range(1, counts[b] + 1):
                    yield Fault("*", k, "switch", agent=a), Fault("*", j, "switch", agent=b)
        return
    single = max(1, min(len(singles), limit // 3))
    for n in range(single):
        a, k = singles[int((n + start) * len(singles) / single) % len(singles)]
        yield (Fault("*", k, "switch", agent=a),)
    a, b = pairs[0]
    for n in range(limit - single):
        # two numbers that fill the square evenly, however many of them are taken
        x = (start + 0.7548776662466927 * (n + 1)) % 1.0
        y = (start + 0.5698402909980532 * (n + 1)) % 1.0
        yield (
            Fault("*", 1 + int(x * counts[a]), "switch", agent=a),
            Fault("*", 1 + int(y * counts[b]), "switch", agent=b),
        )


__all__ = [
    "Agent",
    "HangError",
    "Turns",
    "elsewhere",
    "in_order",
    "interleavings",
    "step",
    "switches",
]
