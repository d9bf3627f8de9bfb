"""Real processes: killed, interrupted, stopped, forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fstx
from fstx.types import OutcomeState
from support.trees import plant, tree

SUPPORT = str(Path(__file__).parents[1])
OLD = {"t/a": b"1" * 5000, "t/s/b": b"2", "t/r/x": b"3", "t/keep": b"4"}
NEW = {"t/a": b"A" * 70000, "t/s/b": b"B", "t/n/m": b"N", "t/keep": b"4"}

CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[4])
from support.killer import KillerOps
from fstx.backends.local import LocalBackend

at = int(sys.argv[2])
deadly = getattr(signal, sys.argv[3])

def act(name, path):
    if len(ops.calls) == at:
        os.kill(os.getpid(), deadly)

ops = KillerOps(act=act)
backend = LocalBackend([sys.argv[1]], joined=False, ops=ops)
with backend.begin(mode="update", durability="data", require=frozenset()) as tx:
    tx.stage("a", b"A" * 70000)
    with tx.open("s/b") as file:
        file.write(b"B")
    tx.stage("n/m", b"N")
    tx.remove("r")
print(len(ops.calls))
"""


def child(target: Path, at: int, deadly: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(target), str(at), deadly, SUPPORT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def spread(tmp_path: Path, points: int) -> list[int]:
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
def test_sigkill(tmp_path: Path) -> None:
    """A23, A24: SIGKILL at forty points of a real run; the next run recovers by itself and succeeds."""
    half = 0
    for at in spread(tmp_path / "whole", 40):
        root = tmp_path / str(at)
        plant(root, OLD)
        killed = child(root / "t", at, "SIGKILL")
        assert killed.returncode == -signal.SIGKILL, (at, killed.stderr)
        half += ".fstx" in os.listdir(root)
        again(root / "t")
        assert tree(root) == NEW, at
    assert half > 20


def test_sigint(tmp_path: Path) -> None:
    """A25: Ctrl-C in staging and in commit leaves nothing, and the old or the new state whole."""
    seen = set()
    for at in spread(tmp_path / "whole", 16):
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
        [sys.executable, "-c", CHILD, str(tmp_path / "t"), "32", "SIGSTOP", SUPPORT],
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
    time.sleep(30)
    os._exit(0)
time.sleep(30)
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


def test_lock_of_a_dead_process_goes_at_once(tmp_path: Path) -> None:
    """A kill is recovered from within moments, not after a lease."""
    plant(tmp_path, OLD)
    killed = child(tmp_path / "t", 30, "SIGKILL")
    assert killed.returncode == -signal.SIGKILL
    start = time.monotonic()
    again(tmp_path / "t")
    assert time.monotonic() - start < 5
    assert tree(tmp_path) == NEW
