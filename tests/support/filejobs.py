"""Transactions on file servers: what lies there before and after, and processes that make them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fstx
from fstx.backends.remotefs import SwapBackend, open_sftp, open_smb
from fstx.types import Mode
from support.dyingops import DyingOps, Killed
from support.emulators import FilePlace
from support.trees import Tree


@dataclass(frozen=True)
class Scene:
    """A transaction, with what lies in the directory before and after it."""

    old: Tree
    new: Tree
    write: Tree
    remove: tuple[str, ...] = ()
    mode: Mode = "update"
    names: tuple[str, ...] = ("t",)
    joined: bool = False

    def backend(self, place: FilePlace, ops: Any = None) -> SwapBackend:
        return backend(place, *self.names, joined=self.joined, ops=ops)

    def run(self, place: FilePlace, ops: Any = None) -> Any:
        with begin(self.backend(place, ops), self.mode) as tx:
            for path, data in self.write.items():
                tx.stage(path, data, publisher=path.endswith("index"))
            for path in self.remove:
                tx.remove(path)
        return tx


_OLD = {"t/a": b"1", "t/s/b": b"2", "t/r/x": b"3", "t/keep": b"4"}
SCENES = {
    "new tree": Scene(
        old={"other": b"o"},
        new={"other": b"o", "t/a": b"A", "t/s/b": b"B"},
        write={"a": b"A", "s/b": b"B"},
        mode="create",
    ),
    "replaced tree": Scene(
        old=_OLD, new={"t/a": b"A", "t/z/b": b"B"}, write={"a": b"A", "z/b": b"B"}, mode="replace"
    ),
    "several files": Scene(
        old=_OLD,
        new={"t/a": b"A", "t/s/b": b"B", "t/n/y": b"N", "t/keep": b"4", "t/index": b"I"},
        write={"index": b"I", "a": b"A", "s/b": b"B", "n/y": b"N"},
        remove=("r",),
    ),
    "two targets": Scene(
        old={"t/a": b"1", "u": b"2"},
        new={"t/a": b"A", "u": b"U"},
        write={"t/a": b"A", "u": b"U"},
        names=("t", "u"),
        joined=True,
    ),
}


def calls_of(place: FilePlace, **more: Any) -> Any:
    """Calls over a connection of their own."""
    name = "t"
    opened = open_smb if place.kind == "smbd" else open_sftp
    return opened([place.at(name)], **{**place.options, **more})._ops


def backend(place: FilePlace, *names: str, joined: bool = False, ops: Any = None) -> SwapBackend:
    urls = [f"{place.url}/{name}" for name in names]
    opened = open_smb if place.kind == "smbd" else open_sftp
    return opened(urls, joined=joined, ops=ops, **({} if ops is not None else place.options))


def begin(found: SwapBackend, mode: Mode = "update", **more: Any) -> Any:
    return found.begin(mode=mode, durability="data", require=frozenset(), **more)


def end_of(ops: Any) -> None:
    """What the end of a process means for its calls: connection and renewals stop."""
    if hasattr(ops, "_locks"):
        ops._locks.forget()
    ops.close()


def dying(place: FilePlace, **faults: Any) -> DyingOps:
    """Calls of a process that is going to die."""
    inner = calls_of(place)
    return DyingOps(inner, end=lambda: end_of(inner), **faults)


def killed_at(scene: Scene, place: FilePlace, k: int) -> str | None:
    """Run a scene in a process that dies at its k-th changing call; that call, None if it lived."""
    ops = dying(place, kill_at=k)
    try:
        scene.run(place, ops)
    except Killed:
        return ops.calls[-1]
    finally:
        end_of(ops.inner)
    return None


# --- processes ------------------------------------------------------------------------------------

WRITER = """
import sys, time
from support.filejobs import stage_and_wait
stage_and_wait(sys.argv[1:])
"""


def stage_and_wait(arguments: list[str]) -> None:
    """A process that begins, stages, says so, and waits to be killed."""
    url, ready, *options = arguments
    tx: Any = fstx.begin(url, **parse(options))
    tx.stage("a", b"never")
    Path(ready).write_text(tx.id)
    time.sleep(600)


def parse(options: list[str]) -> dict[str, Any]:
    """Storage options as they were written by `written`."""
    import json

    return dict(json.loads(options[0]))


def written(options: dict[str, Any]) -> str:
    import json

    return json.dumps(options)


def count_up(arguments: list[str]) -> None:
    """A process that adds one to a counter, again and again where another was faster."""
    url, turns, *options = arguments
    done = 0
    while done < int(turns):
        try:
            with fstx.begin(url, **parse(options)) as tx:
                value = int(tx.read("counter"))
                tx.stage("counter", b"%d" % (value + 1))
            done += 1
        except fstx.ConflictError:
            continue
    print(os.getpid(), done, file=sys.stderr)


def wait_for(condition: Callable[[], Any], what: str, limit_s: float = 60.0) -> Any:
    """The condition's value once it is true."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about within {limit_s:.0f} s")


def stall_and_go_on(arguments: list[str]) -> None:
    """A process on "another host" that stops at its k-th changing call, and goes on when it is told to.

    It writes what became of its commit.
    """
    import signal

    from fstx.ops import processes

    processes.platform.node = lambda: "another host"  # type: ignore[assignment]
    kind, url, k, result, *options = arguments
    place = FilePlace(kind, url, parse(options), Path(), 0)
    ops = DyingOps(
        calls_of(place), kill_at=int(k), before=lambda: os.kill(os.getpid(), signal.SIGSTOP)
    )
    said = "committed"
    try:
        with begin(backend(place, "t", ops=ops)) as tx:
            tx.stage("a", b"A")
            tx.stage("only", b"A")
    except fstx.TransactionError as error:
        said = error.outcome or "refused"
    if len(ops.calls) < int(k):
        said += " unstopped"
    Path(result).write_text(said)


def stopped_or_done(pid: int, result: Path) -> Callable[[], bool]:
    """Asks whether a process is stopped, or has written its result."""

    def ask() -> bool:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T" or result.exists()

    return ask
