"""Faults at numbered calls: one injector stands for one process, whatever seam its calls go through."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fstx_conformance.schedule import Fault

T = TypeVar("T")


class Killed(BaseException):
    """The process died here. No clean-up of its own can do anything: every later call raises this too."""


@dataclass
class History:
    """What all agents of one run did, in order."""

    lines: list[str] = field(default_factory=list)
    limit: int = 2000

    def add(self, line: str) -> None:
        """Note one line; the first `limit` are kept."""
        if len(self.lines) < self.limit:
            self.lines.append(line)


@dataclass(frozen=True, slots=True)
class Call:
    """One call as a seam sees it.

    ``ambiguous`` gives what a caller gets that can't know whether the call took place (an exception is
    raised, anything else returned); ``refusal`` the error of a call that certainly did not.
    ``torn`` does a part of the call; ``stale`` gives an older answer, if there is one.
    """

    op: str
    key: str
    perform: Callable[[], Any]
    changing: bool
    ambiguous: Callable[[], Any]
    refusal: Callable[[], BaseException]
    torn: Callable[[], Any] | None = None
    stale: Callable[[], Any] | None = None


class Injector:
    """Counts the calls of one process and lets some go wrong.

    Parameters
    ----------
    faults
        Those of the schedule; entries of other agents are ignored.
    agent
        Name of this process in schedules.
    history
        Shared by all processes of a run.
    hooks
        By action: called at ``switch`` and ``fence``, before the call goes on.
    """

    def __init__(
        self,
        faults: Sequence[Fault] = (),
        *,
        agent: str = "writer",
        history: History | None = None,
        hooks: dict[str, Callable[[], object]] | None = None,
    ) -> None:
        self.agent = agent
        self.faults = tuple(f for f in faults if f.agent == agent)
        self.history = history if history is not None else History()
        self.hooks = dict(hooks or {})
        self.before: Callable[[Call], None] = lambda call: (
            None
        )  # for interleavings: each call's turn
        self.blocked: Callable[[], bool] = lambda: False  # a lock is held: whether to try it again
        self.patience_s = 60.0  # the longest wait for a lock
        self.calls = 0
        self.changes = 0
        self.names: list[tuple[str, str, bool]] = []
        self.fired: list[tuple[Fault, int]] = []  # with the index of the call
        self.dead = False
        self.on_death: list[Callable[[], object]] = []
        self._seen = [0] * len(self.faults)
        self._late: list[tuple[str, Callable[[], Any]]] = []
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Injector {self.agent}: {self.calls} calls, {len(self.fired)} faults fired>"

    def arm(self, *faults: Fault) -> None:
        """Other faults from here on; calls are counted from now."""
        with self._lock:
            self.faults = tuple(f for f in faults if f.agent == self.agent)
            self._seen = [0] * len(self.faults)

    # --- the process ------------------------------------------------------------------------------

    def die(self) -> None:
        """The end of the process: what the kernel lets go is let go, nothing else happens any more."""
        if self.dead:
            return
        self.dead = True
        for hook in self.on_death:
            hook()

    def live(self) -> None:
        """Killed, if the process is dead."""
        if self.dead:
            raise Killed(f"{self.agent} is dead")

    def deliver(self) -> int:
        """Requests that were on their way arrive now, the process being dead or not; how many."""
        late, self._late = self._late, []
        for name, perform in late:
            self.history.add(f"{self.agent}: {name} arrives late -> {_shown(perform)}")
        return len(late)

    # --- calls --------------------------------------------------------------------------------------

    def call(self, call: Call) -> Any:
        """Let one call take place, or go wrong as the schedule says."""
        self.live()
        self.before(call)
        with self._lock:
            self.live()
            self.calls += 1
            self.changes += call.changing
            self.names.append((call.op, call.key, call.changing))
            fault = self._due(call)
            if fault is not None:
                self.fired.append((fault, len(self.names) - 1))
        name = f"{call.op} {call.key}".strip()
        if fault is None:
            return self._plain(call, name)
        self.history.add(f"{self.agent}: {name} -> {fault.action}")
        return self._wrong(call, fault, name)

    def _due(self, call: Call) -> Fault | None:
        due = None
        for i, fault in enumerate(self.faults):
            if fault.matches(self.agent, call.op, call.key, call.changing):
                self._seen[i] += 1
                if self._seen[i] == fault.nth or (fault.sticky and self._seen[i] > fault.nth):
                    due = due or fault
        return due

    def _plain(self, call: Call, name: str) -> Any:
        try:
            found = call.perform()
        except BaseException as error:
            self.history.add(f"{self.agent}: {name} raises {type(error).__name__}")
            raise
        if call.changing:
            self.history.add(f"{self.agent}: {name}")
        return found

    def _wrong(self, call: Call, fault: Fault, name: str) -> Any:
        action = fault.action
        if action == "fail":
            raise call.refusal()
        if action in ("lost-request", "lost-reply", "late"):
            if action == "lost-reply":
                call.perform()
            elif action == "late" and call.changing:
                self._late.append((name, call.perform))
            return call.ambiguous()
        if action in ("kill", "kill-after", "torn"):
            if action == "kill-after":
                call.perform()
            elif action == "torn" and call.torn is not None:
                call.torn()
            self.die()
            raise Killed(f"{self.agent} at {name}")
        if action == "duplicate":
            call.perform()
            return call.perform()
        if action in ("interrupt", "interrupt-after"):
            if action == "interrupt-after":
                call.perform()
            raise KeyboardInterrupt(name)
        if action == "stale":
            return call.perform() if call.stale is None else call.stale()
        if action in ("sigkill", "sigstop"):
            os.kill(os.getpid(), getattr(signal, action.upper()))
            return call.perform()
        hook = self.hooks.get(action)
        if hook is not None:
            hook()
        return call.perform()


def _shown(perform: Callable[[], Any]) -> str:
    """Make a late call; what the server said to it, which nobody hears."""
    try:
        return repr(perform())[:60]
    except OSError as error:
        return type(error).__name__
