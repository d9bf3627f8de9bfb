"""The subject that a test suite's hooks make: a backend by a function, read by another."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fstx.protocol import Backend
from fstx_conformance.subjects.base import Room, Seam, Subject, Tree
from fstx_conformance.subjects.schemes import SchemeRoom, looking, versioned
from fstx_conformance.subjects.urls import TARGET


@dataclass(frozen=True)
class Hooks:
    """What a third party says of its storage. All but `make` may be left out.

    Parameters
    ----------
    make
        A backend for the target at a URL (or name), as a process that has just begun opens it.
    read
        What readers find there, by a way that bypasses the backend.
    leftovers
        What lies beside the content and does not stay for good, nobody being alive.
    remove
        Nothing is left of the target, nor of what its backend keeps beside it.
    replay
        The command that runs a schedule again.
    """

    make: Callable[[str], Backend]
    read: Callable[[str], Tree] | None = None
    leftovers: Callable[[str], Iterable[str]] | None = None
    remove: Callable[[str], object] | None = None
    replay: Callable[[str], str] | None = None
    options: dict[str, Any] = field(default_factory=dict)


class HookSubject(Subject):
    """Storage behind hooks. What its calls go through, a store or calls on files, is found out.

    Parameters
    ----------
    url
        Rooms lie below a random prefix in it; empty: the prefix is a name of its own.
    hooks
        How backends are made and read.
    cost
        How much dearer a run is than on a local disk.
    """

    strategy = "of its own"

    def __init__(self, url: str, hooks: Hooks, *, name: str, cost: float = 2.0) -> None:
        self.name, self.url, self.cost, self.hooks = name, url, cost, hooks
        prefix = f"fstx-conformance-{secrets.token_hex(4)}"
        self._top = f"{url.rstrip('/')}/{prefix}" if url else prefix
        self._count = 0
        self.seam = self._find_seam()

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.hooks.options)

    def _find_seam(self) -> Seam:
        self._versioned = versioned(self.hooks.make, [self._next(), self._next()])
        room = self.room()
        try:
            with looking() as used:
                backend = self.hooks.make(room.url)
            found = backend.guarantee(mode="create", durability="data")
            self.strategy = found.strategy or self.strategy
        finally:
            room.close()
        return used[0] if used else "none"

    def _next(self) -> str:
        self._count += 1
        return f"{self._top}/r{self._count}/{TARGET}"

    def room(self) -> HookRoom:
        return HookRoom(self._next(), self.hooks, versioned=self._versioned)

    def replay_line(self, schedule: str) -> str:
        if self.hooks.replay is None:
            return super().replay_line(schedule)
        return self.hooks.replay(schedule)


class HookRoom(SchemeRoom):
    """One target that hooks make and read."""

    def __init__(self, url: str, hooks: Hooks, *, versioned: bool) -> None:
        super().__init__(url, hooks.options, versioned=versioned)
        self._hooks = hooks
        self.passive = hooks.read is not None

    def make(self) -> Backend:
        return self._hooks.make(self.url)

    def read(self) -> Tree:
        return super().read() if self._hooks.read is None else self._hooks.read(self.url)

    def leftovers(self) -> list[str]:
        if self._hooks.leftovers is None:
            return super().leftovers()
        return list(self._hooks.leftovers(self.url))

    def close(self) -> None:
        if self._hooks.remove is None:
            super().close()
        else:
            self._hooks.remove(self.url)


class ReadElsewhere(Subject):
    """A subject of the kit whose rooms are read by a third party's way.

    Everything else is that of `inner`.
    """

    def __init__(self, inner: Subject, read: Callable[[str], Tree]) -> None:
        self.inner, self._read = inner, read
        self.name, self.url, self.strategy, self.seam = (
            inner.name,
            inner.url,
            inner.strategy,
            inner.seam,
        )
        self.cost, self.processes = inner.cost, inner.processes

    @property
    def options(self) -> dict[str, Any]:
        return self.inner.options

    def room(self) -> Room:
        room = self.inner.room()
        read = self._read
        room.read = lambda: read(room.url)  # type: ignore[method-assign]
        return room

    def environment(self) -> dict[str, str]:
        return self.inner.environment()

    def close(self) -> None:
        self.inner.close()


__all__ = ["HookRoom", "HookSubject", "Hooks", "ReadElsewhere"]
