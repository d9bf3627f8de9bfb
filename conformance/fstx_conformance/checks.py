"""What cases ask: a prepared place, what readers find there, what has to be refused."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from fstx.errors import ConflictError
from fstx.types import Capability, Mode
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.scenes import BIG, stage_all, text
from fstx_conformance.subjects.base import Process, Room, Tree
from fstx_conformance.trial import diff

MODES: tuple[Mode, ...] = ("create", "replace", "update")
OLD = {"a": text("old a"), "b": text("old b", BIG), "d/x": text("old x"), "d/y": text("old y", 300)}


@contextlib.contextmanager
def place(lab: Lab, old: Tree | None = None) -> Iterator[Room]:
    """A fresh room with this in it, and a process of its own around it."""
    lab.runs += 1
    with lab.room() as room, Process.alone():
        files = OLD if old is None else old
        if files:
            with room.begin(mode="create") as tx:
                stage_all(files)(tx)
        yield room


def same(lab: Lab, room: Room, wanted: Tree, when: str, *broken: Capability) -> bool:
    """A problem, unless readers find this."""
    found = room.read()
    return lab.check(
        found == wanted,
        f"{when}: readers find other than they should: {diff(found, wanted)}",
        *broken,
    )


def refused(
    lab: Lab, kind: type[BaseException], call: Callable[[], object], what: str
) -> BaseException | None:
    """The error that a call has to raise; a problem for another one, or for none."""
    try:
        call()
    except kind as error:
        return error
    except Exception as error:  # noqa: BLE001 - what came instead is told
        lab.problem(f"{what}: {kind.__name__} was due, and {type(error).__name__} came: {error}")
        return error
    lab.problem(f"{what}: {kind.__name__} was due, and nothing was raised")
    return None


def create(room: Room, content: bytes) -> None:
    """Create the target with this in ``a``."""
    with room.begin(mode="create") as tx:
        tx.stage("a", content)
        tx.stage("n/b", b"2")


def opened(tx: Any, path: str) -> None:
    """Write one object through `open`."""
    with tx.open(path) as file:
        file.write(b"x")


def reads_none(lab: Lab, tx: Any, path: str, what: str) -> None:
    """A problem, if the transaction reads anything there."""
    refused(lab, FileNotFoundError, lambda: tx.read(path), f"read of {what}")


def together(calls: list[Callable[[], object]]) -> list[BaseException | None]:
    """Call all of them at once; what each raised."""
    found: list[BaseException | None] = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def run(n: int) -> None:
        gate.wait(60)
        try:
            calls[n]()
        except BaseException as error:  # noqa: BLE001 - told to the caller
            found[n] = error

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def another(room: Room) -> Any:
    """A second open transaction; NotApplicable where a target has one at a time."""
    try:
        return room.begin()
    except ConflictError:
        raise NotApplicable("a target has one open transaction at a time here") from None
