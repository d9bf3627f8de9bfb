"""The interface between cases and storage.

A `Subject` is one kind of storage under one strategy. It gives `Room`s: fresh places, each with one target
in it. A room opens backends as new processes would, with or without faults under them, and reads what
lies there by a way that bypasses them.
"""

from __future__ import annotations

import contextlib
import gc
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from fstx import seams
from fstx.protocol import Backend
from fstx.types import Capability, Durability, Guarantee, Mode, OutcomeState, Recovery
from fstx_conformance.checked import Checked
from fstx_conformance.injector import Injector
from fstx_conformance.subjects.disks import OnDisk

Tree = dict[str, bytes]
Seam = Literal["store", "ops", "files", "none"]


class Room(ABC):
    """One fresh place with one target. Closing it removes all that is in it."""

    url: str
    checked: bool = False  # what cases do with transactions is watched by `checked.Checked`
    passive: bool = False  # `read` changes nothing, also while a writer is under way
    promises: dict[Any, Guarantee] | None = None  # known from other rooms; where asking costs much

    # --- to be filled in ----------------------------------------------------------------------------

    @abstractmethod
    def open(self, process: Injector | None = None) -> Backend:
        """A backend for the target, as a process that has just begun opens it."""

    @abstractmethod
    def read(self) -> Tree:
        """What the readers that the strategy speaks of find now, by a way that bypasses the backend."""

    @abstractmethod
    def close(self) -> None:
        """Nothing is left of this room."""

    # --- that follow, or may be refined ---------------------------------------------------------------

    def lay(self, files: Tree, entry: str | None = None) -> None:
        """A committed tree that is there before a trial begins."""
        with self.begin(mode="create", entry=entry) as tx:
            for path, data in files.items():
                tx.stage(path, data)

    def recover(self, process: Injector | None = None) -> Recovery:
        """Settle; every writer that is not alive by all signs counts as dead at once."""
        return self.open(process).recover()

    def outcome(self, id: str) -> OutcomeState:
        """What a fresh process is told of a transaction."""
        return self.open().outcome(id)

    def leftovers(self) -> list[str]:
        """What lies there beside the content and what the strategy keeps for good, nobody being alive."""
        return []

    def lose_locks(self, process: Injector) -> None:  # noqa: B027 - most have none
        """The process is taken for dead though it lives: whatever shows that it lives is gone."""

    def begin(
        self,
        process: Injector | None = None,
        *,
        mode: Mode = "update",
        durability: Durability = "data",
        require: frozenset[Capability] = frozenset(),
        entry: str | None = None,
        id: str | None = None,
    ) -> Any:
        """A transaction of a fresh process."""
        backend = self.open(process)
        if self.checked:
            backend = Checked(backend, strict=False)
        return backend.begin(mode=mode, durability=durability, require=require, entry=entry, id=id)


class Subject(ABC):
    """One kind of storage under one strategy."""

    name: str
    url: str
    strategy: str = ""
    seam: Seam = "none"
    cost: float = 1.0  # how much dearer a run is than on a local disk: budgets are divided by it
    processes: bool = True  # other processes see the same storage
    spared: Mapping[str, str] = MappingProxyType({})  # levels that mean nothing here, and why
    checks: bool = True  # transactions may be watched by `checked.Checked`
    login: Callable[[], object] | None = (
        None  # done by another process first, to be let in; pickles
    )

    @abstractmethod
    def room(self) -> Room:
        """A fresh place of this kind, below a prefix of its own."""

    @property
    def options(self) -> dict[str, Any]:
        """Storage options, for processes that open the rooms' URLs themselves."""
        return {}

    def on_disk(self) -> OnDisk | None:
        """The same storage on a simulated disk, for losses of power; None where there is no such thing."""
        return None

    def environment(self) -> dict[str, str]:
        """Facts about the storage for the report."""
        return {}

    def replay_line(self, schedule: str) -> str:
        """The command that runs a schedule again."""
        return f"fstx conformance run {self.url} --replay {shlex.quote(schedule)}"

    def close(self) -> None:  # noqa: B027 - nothing, by default
        """Remove what all rooms left, and the prefix."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.url}>"


class Process:
    """The lifetime of simulated processes: ends them so that nothing of them is remembered here."""

    @staticmethod
    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        """A process that begins and ends with the block; transactions that it had open are a dead one's."""
        seams.end_of_process()
        try:
            yield
        finally:
            gc.collect(1)  # what is young: transactions that a dead process held in cycles
            seams.end_of_process()
