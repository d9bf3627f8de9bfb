"""A cache shared by real processes: racing, replacing, killed, stopped and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import fstx
from support import cachejobs
from support.cachejobs import holder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks and signals of POSIX")


def run(*arguments: str) -> None:
    """A job that has to end well, without a warning."""
    command = [sys.executable, "-W", "error", cachejobs.__file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def files_below(place: Path) -> list[str]:
    return sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())


def test_two_hundred_processes_on_fifty_keys(tmp_path: Path) -> None:
    """C3, C9: no failure, no timeout; each value is computed once and read right; no lock is left."""
    place = tmp_path / "c"
    run("crowd", str(place), "200", "50")
    assert sorted(cachejobs.notes(str(place))) == sorted(f"computed {n}" for n in range(50))
    cache = fstx.cache(place)
    assert (len(cache), cache.check().ok) == (50, True)
    assert len(files_below(place)) == 50


def test_thirty_two_processes_race_for_one_key(tmp_path: Path) -> None:
    """C2, C8: twenty rounds: one computes; one is the first; of the last ones a whole value stays."""
    place = tmp_path / "c"
    run("rounds", str(place), "32", "20")
    counted = Counter(cachejobs.notes(str(place)))
    assert counted == {f"{what} {n}": 1 for what in ("computed", "first") for n in range(20)}
    cache = fstx.cache(place)
    for turn in range(20):
        last: Any = cache.get(("last", turn))
        assert last == last[: len(last) // 1000] * 1000
    assert len(files_below(place)) == 60


def test_readers_of_a_value_that_is_replaced(tmp_path: Path) -> None:
    """C1, C4: each read gives one whole value, of its own length, whatever the writer is at."""
    place = tmp_path / "c"
    run("churn", str(place), "50")
    assert cachejobs.notes(str(place)) == ["seen", "seen"]
    assert len(files_below(place)) == 1


def test_a_killed_leader_is_followed_by_the_next(tmp_path: Path) -> None:
    """C9: those that wait don't wait for the lease: one of them computes, the others read."""
    place, calls, found = tmp_path / "c", [], []

    def compute() -> bytes:
        calls.append(1)
        return b"mine"

    def wait() -> None:
        found.append(fstx.cache(place, lease_s=3600).get_or_compute("a", compute))

    with holder(str(place), 3600) as leader:
        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads:
            thread.start()
        assert not calls
        leader.kill()
        for thread in threads:
            thread.join(60)
    assert (len(calls), found) == (1, [b"mine"] * 4)
    assert len(files_below(place)) == 1


def test_a_stopped_leader_is_followed_after_the_lease(tmp_path: Path) -> None:
    """C9: it shows no sign of life, though it holds its lock; going on later it does no harm."""
    place = tmp_path / "c"
    with holder(str(place), 0.3) as leader:
        os.kill(leader.pid, signal.SIGSTOP)
        assert fstx.cache(place, lease_s=0.3).get_or_compute("a", lambda: b"mine") == b"mine"
        os.kill(leader.pid, signal.SIGCONT)
        _, errors = leader.communicate("late\n", timeout=60)
        assert (leader.returncode, errors) == (0, "")
    assert fstx.cache(place).get("a") == b"late\n"
    assert len(files_below(place)) == 1


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """C10: a leader that is interrupted lets its turn go, and leaves no file."""
    place = tmp_path / "c"
    with holder(str(place), 3600) as leader:
        leader.send_signal(signal.SIGINT)
        _, errors = leader.communicate(timeout=60)
        assert errors.endswith("KeyboardInterrupt\n")
    assert files_below(place) == []
    assert fstx.cache(place).get_or_compute("a", lambda: b"mine") == b"mine"
