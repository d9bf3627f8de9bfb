"""Programs for another process: each a part of a test, told what to do by its arguments.

They say on standard output when they are where they were to be, and stay there until they are killed or
read a line.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fstx.ops.windows import WindowsOps
from support.killer import KillerOps
from support.localjobs import JOBS, Place

TESTS = Path(__file__).parents[2]


class Disk(Place):
    """A directory of this Windows. ``ops``: what stands for the process's calls."""

    def __init__(self, root: Path, ops: Any = None) -> None:
        super().__init__(root)
        self._ops = ops or WindowsOps()

    def ops(self, **faults: Any) -> Any:
        return self._ops


class Program:
    """A process that runs one function of this module."""

    def __init__(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-X", "utf8", "-c", _START, str(TESTS), name, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def says(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, f"the program ended with {self._process.wait()}"
        return line

    def tell(self) -> str:
        """Let it go on; what it says then."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.says()

    def kill(self) -> None:
        """TerminateProcess: no clean-up of any kind runs."""
        self._process.kill()
        self._process.communicate()


_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from wine.suite import programs; "
    "programs.main(*sys.argv[2:])"
)


@contextmanager
def running(name: str, *arguments: str) -> Iterator[Program]:
    """A program; it is killed in the end, if not before."""
    program = Program(name, *arguments)
    try:
        yield program
    finally:
        program.kill()


# --- what runs there ------------------------------------------------------------------------------


def main(name: str, *arguments: str) -> None:
    """Entry of the process."""
    {"stop": stop, "hold": hold, "stand": stand, "begin": begin}[name](*arguments)


def say(text: object) -> None:
    print(text, flush=True)


def stop(job: str, action: str, root: str, at: str) -> None:
    """Transactions (``run``) or recoveries (``recover``) of one job, each in a thread and a place of its own,
    each stopped before a call that changes something. Says how many.

    With `at` 0 the first is stopped at its first call, the second at its second... until one runs whole;
    otherwise all that lie below `root` are stopped at that call.
    """
    number = 0
    for k in itertools.count(1):
        place = Path(root) / str(k)
        if at != "0" and not place.exists():
            break
        if stopped(place, job, action, int(at) or k):
            number += 1
        elif at == "0":
            break
    say(number)
    sys.stdin.readline()


def stopped(place: Path, job: str, action: str, at: int) -> bool:
    """True when it was stopped at that call: its thread stays there, with all that it holds."""
    over, reached = threading.Event(), threading.Event()

    def act(_name: str, _path: str) -> None:
        if len(ops.calls) == at:
            reached.set()
            over.set()
            threading.Event().wait()

    def work() -> None:
        try:
            getattr(JOBS[job], action)(disk)
        finally:
            over.set()

    ops = KillerOps(act=act)
    fresh = not place.exists()
    disk = Disk(place, ops)
    if fresh:
        disk.put(JOBS[job].old)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    over.wait()
    return reached.is_set()


def hold(path: str) -> None:
    """The file open as programs open files."""
    with open(path, "rb"):
        say("held")
        sys.stdin.readline()
    say("closed")
    sys.stdin.readline()


def stand(path: str) -> None:
    """The directory as the current one."""
    os.chdir(path)
    say("there")
    sys.stdin.readline()
    os.chdir("..")
    say("gone")
    sys.stdin.readline()


def begin(root: str, mode: Any) -> None:
    """A transaction on the target ``t`` with one file staged."""
    backend = Disk(Path(root)).backend("t")
    with backend.begin(mode=mode, durability="data", require=frozenset()) as tx:
        tx.stage("by", b"program")
        say("staged")
        sys.stdin.readline()
    say("committed")
    sys.stdin.readline()
