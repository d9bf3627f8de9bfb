"""Real processes: killed, interrupted, stopped, forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx.types import OutcomeState
from support.forking import TESTS, Forks
from support.trees import plant, tree

OLD = {"t/a": b"1" * 5000, "t/s/b": b"2", "t/r/x": b"3", "t/keep": b"4"}
NEW = {"t/a": b"A" * 70000, "t/s/b": b"B", "t/n/m": b"N", "t/keep": b"4"}

CHILD = """
import os, signal
from support.killer import KillerOps
from fstx.backends.local import LocalBackend

def run(target, at, deadly):
    def act(name, path):
        if len(ops.calls) == at:
            os.kill(os.getpid(), getattr(signal, deadly))

    ops = KillerOps(act=act)
    backend = LocalBackend([target], joined=False, ops=ops)
    with backend.begin(mode="update", durability="data", require=frozenset()) as tx:
        tx.stage("a", b"A" * 70000)
        with tx.open("s/b") as file:
            file.write(b"B")
        tx.stage("n/m", b"N")
        tx.remove("r")
    print(len(ops.calls))
"""


@pytest.fixture(scope="module")
def child() -> Iterator[Callable[[Path, int, str], subprocess.CompletedProcess[str]]]:
    """Updates a target in a process of its own, which a signal meets at the numbered call."""
    with Forks(CHILD) as forks:
        yield lambda target, at, deadly: forks.run(str(target), at, deadly)


def spread(child: Any, tmp_path: Path, points: int) -> list[int]:
    """Numbers of calls, spread over a whole run."""
    plant(tmp_path, OLD)
    whole = child(tmp_path / "t", 0, "SIGKILL")
    assert whole.returncode == 0, whole.stderr
    assert tree(tmp_path) == NEW
    calls = int(whole.stdout)
    return sorted({1 + n * (calls - 1) // (points - 1) for n in range(points)})


def again(target: Path) -> None:
    """The same job, by the public function."""
    with fstx.begin(target) as tx:
        tx.stage("a", b"A" * 70000)
        tx.stage("s/b", b"B")
        tx.stage("n/m", b"N")
        if any(p.startswith("r/") for p in tx.paths()):
            tx.remove("r")


@pytest.mark.slow
def test_sigkill(child: Any, tmp_path: Path) -> None:
    """A23, A24: SIGKILL at forty points of a real run; the next run recovers by itself and succeeds."""
    half = 0
    for at in spread(child, tmp_path / "whole", 40):
        root = tmp_path / str(at)
        plant(root, OLD)
        killed = child(root / "t", at, "SIGKILL")
        assert killed.returncode == -signal.SIGKILL, (at, killed.stderr)
        half += ".fstx" in os.listdir(root)
        again(root / "t")
        assert tree(root) == NEW, at
    assert half > 20


def test_sigint(child: Any, tmp_path: Path) -> None:
    """A25: Ctrl-C in staging and in commit leaves nothing, and the old or the new state whole."""
    seen = set()
    for at in spread(child, tmp_path / "whole", 16):
        root = tmp_path / str(at)
        plant(root, OLD)
        stopped = child(root / "t", at, "SIGINT")
        found = tree(root)
        assert found in (OLD, NEW), (at, found)
        assert stopped.returncode != 0 or found == NEW, at
        assert "KeyboardInterrupt" in stopped.stderr or found == NEW, at
        seen.add(found == NEW)
    assert seen == {False, True}


def test_stopped_owner_is_not_cleaned(tmp_path: Path) -> None:
    """A24: a stopped owner is alive: nobody takes its staging, and when it goes on it commits."""
    plant(tmp_path, OLD)
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD + f"run({str(tmp_path / 't')!r}, 32, 'SIGSTOP')"],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        report = fstx.recover(tmp_path / "t")
        assert [s.state for s in report.settled] == [OutcomeState.ACTIVE]
        with fstx.begin(tmp_path / "t") as tx:
            tx.stage("mine", b"m")
        assert any(name.endswith(".alive") for name in os.listdir(tmp_path / ".fstx"))
    finally:
        os.kill(process.pid, signal.SIGCONT)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 0, complaint
    assert tree(tmp_path) == {**NEW, "t/mine": b"m"}


FORKING = """
import os, sys, time
import fstx
tx = fstx.begin(sys.argv[1])
tx.stage("a", b"A")
if os.fork() == 0:
    os.write(1, b"forked\\n")
    time.sleep(300)
    os._exit(0)
time.sleep(300)
"""


def test_forked_child_keeps_nothing_alive(tmp_path: Path) -> None:
    """rename.md 5e: the lock is its owner's alone; a forked child that lives on does not hold it."""
    plant(tmp_path, OLD)
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING, str(tmp_path / "t")],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"forked\n"
        assert [s.state for s in fstx.recover(tmp_path / "t").settled] == [OutcomeState.ACTIVE]
        process.kill()  # the owner alone
        process.wait(timeout=30)
        report = fstx.recover(tmp_path / "t")
        assert [s.state for s in report.settled] == [OutcomeState.ABORTED]
        assert tree(tmp_path) == OLD
        os.killpg(process.pid, 0)  # the child was alive all the time
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_dropped_transaction_is_rolled_back(tmp_path: Path) -> None:
    """A transaction that nobody ended is no leftover: dropping it warns and rolls back."""
    plant(tmp_path, OLD)
    tx = fstx.begin(tmp_path / "t")
    tx.stage("a", b"A")
    with pytest.warns(ResourceWarning, match="without commit or rollback"):
        del tx
    assert tree(tmp_path) == OLD


def test_lock_of_a_dead_process_goes_at_once(child: Any, tmp_path: Path) -> None:
    """A kill is recovered from within moments, not after a lease."""
    plant(tmp_path, OLD)
    killed = child(tmp_path / "t", 30, "SIGKILL")
    assert killed.returncode == -signal.SIGKILL
    start = time.monotonic()
    again(tmp_path / "t")
    assert time.monotonic() - start < 20
    assert tree(tmp_path) == NEW
