"""Locks that are leases: taken away from the dead, and from nobody else."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fstx.ops import processes, remote
from fstx.ops.posix import PosixOps
from fstx.ops.remote import LeasedLocks


class Clock:
    """Each look is a second later."""

    def __init__(self) -> None:
        self._ticks = itertools.count()
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s = float(next(self._ticks))
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "x.lock")


@pytest.fixture
def made() -> Iterator[list[LeasedLocks]]:
    """Those of a test; none of them renews anything afterwards."""
    found: list[LeasedLocks] = []
    yield found
    for locks in found:
        for lease in list(locks.held):
            lease.close()
        locks.forget()


def patient(sleep: Any = lambda _: None) -> LeasedLocks:
    return LeasedLocks(PosixOps(), lease_s=30, beat_s=15, monotonic=Clock(), sleep=sleep)


@pytest.fixture
def locks(made: list[LeasedLocks]) -> LeasedLocks:
    """A client that looks at a clock of its own."""
    made.append(patient())
    return made[-1]


def held_by(path: str, **who: Any) -> str:
    """Write a lock as another client would; its nonce."""
    own = {**processes.here(), "nonce": "other", "beat_s": 1.0}
    Path(path).write_text(json.dumps({**own, **who}) + "\n")
    return "other"


def nonce_at(path: str) -> str:
    return str(json.loads(Path(path).read_text().partition("\n")[0])["nonce"])


def test_one_holder(locks: LeasedLocks, made: list[LeasedLocks], path: str) -> None:
    """OPS-15: held, another client of this process gets None; released, the file is gone."""
    other = LeasedLocks(PosixOps())
    made.append(other)
    lease = locks.lock(path, wait_s=0)
    assert lease is not None
    assert other.lock(path, wait_s=0) is None
    lease.release()
    assert not os.path.exists(path)
    again = other.lock(path, wait_s=0)
    assert again is not None
    again.release()


def test_a_dead_process_of_this_host(locks: LeasedLocks, path: str) -> None:
    """LEASE-2: a lock of a process that is gone is taken at once; also if its number is another's by now."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for who in ({"pid": child.pid}, {"pid": os.getppid(), "start": 1}):
        held_by(path, **who)
        lease = locks.lock(path, wait_s=0)
        assert lease is not None
        assert locks.monotonic() < 15  # nothing was watched for a lease
        lease.release()


def test_a_living_process_of_this_host(locks: LeasedLocks, path: str) -> None:
    """LEASE-2: a lock of a process that lives is never taken, however long it does not renew it."""
    parent = os.getppid()
    held_by(path, pid=parent, start=processes.start_of(parent))
    assert locks.lock(path, wait_s=200) is None
    assert locks.monotonic() > 200
    assert nonce_at(path) == "other"


@pytest.mark.parametrize("who", [{"host": "elsewhere"}, {"boot": "before"}, {"pids": "container"}])
def test_a_silent_holder_elsewhere(locks: LeasedLocks, path: str, who: dict[str, str]) -> None:
    """LEASE-3: taken once it was seen unchanged for the lease, by the watcher's clock, not before."""
    held_by(path, **who)
    os.utime(path, (0, 0))  # what the file's own times say counts for nothing
    lease = locks.lock(path, wait_s=0)
    assert lease is not None
    assert 30 <= locks.monotonic() < 60
    assert nonce_at(path) == lease.nonce
    lease.release()


def test_a_holder_elsewhere_that_renews(made: list[LeasedLocks], path: str) -> None:
    """LEASE-3: one byte more while it is watched, and the lock stays its holder's."""
    held_by(path, host="elsewhere")

    def beat(_: float) -> None:
        with open(path, "ab") as file:
            file.write(b".")

    locks = patient(beat)
    made.append(locks)
    assert locks.lock(path, wait_s=500) is None
    assert nonce_at(path) == "other"


def test_a_lock_without_its_line(locks: LeasedLocks, path: str) -> None:
    """LEASE-3: a file whose creator died before it wrote its name is judged by the lease alone."""
    Path(path).touch()
    lease = locks.lock(path, wait_s=0)
    assert lease is not None
    assert locks.monotonic() >= 30
    lease.release()


def test_one_breaker_wins(made: list[LeasedLocks], path: str) -> None:
    """LEASE-4: of many that find a dead one's lock at once exactly one has it afterwards."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for _ in range(20):
        held_by(path, pid=child.pid)
        clients = [LeasedLocks(PosixOps()) for _ in range(8)]
        made += clients
        start, won = threading.Barrier(8), []

        def take(locks: LeasedLocks, start: Any = start, won: Any = won) -> None:
            start.wait()
            if (lease := locks.lock(path, wait_s=0)) is not None:
                won.append(lease)

        threads = [threading.Thread(target=take, args=(c,)) for c in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert nonce_at(path) == won[0].nonce
        won[0].release()
        assert os.listdir(os.path.dirname(path)) == []


def test_a_lock_taken_by_mistake_is_given_back(made: list[LeasedLocks], path: str) -> None:
    """LEASE-4: if another took the lock between the look and the rename, it has it afterwards."""

    class Slow(PosixOps):
        def rename(self, src: str, dst: str) -> None:
            if src == path:
                held_by(path, nonce="successor", pid=os.getppid(), start=start)
            super().rename(src, dst)

    start = processes.start_of(os.getppid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    held_by(path, pid=child.pid)
    locks = LeasedLocks(Slow())
    made.append(locks)
    assert locks.lock(path, wait_s=0) is None
    assert nonce_at(path) == "successor"


def test_a_late_release_takes_nothing_away(locks: LeasedLocks, path: str) -> None:
    """LEASE-5: a holder that stalled until its lock was taken does not delete its successor's."""
    lease = locks.lock(path, wait_s=0)
    assert lease is not None
    held_by(path, nonce="successor")
    for _ in range(40):
        locks.monotonic()
    lease.release()
    assert nonce_at(path) == "successor"


def test_renewal_survives_a_lost_handle(locks: LeasedLocks, path: str) -> None:
    """LEASE-1: a held lock grows, also after its handle was lost; never one that is another's by now."""
    lease = locks.lock(path, wait_s=0)
    assert lease is not None
    size = os.path.getsize(path)
    lease.renew()
    assert os.path.getsize(path) == size + 1
    lease.close()
    lease.renew()
    assert os.path.getsize(path) == size + 2
    lease.close()
    held_by(path, nonce="successor")
    before = Path(path).read_bytes()
    with pytest.raises(FileNotFoundError):
        lease.renew()
    assert Path(path).read_bytes() == before


def test_a_thread_renews(made: list[LeasedLocks], path: str) -> None:
    """LEASE-1: as long as a lock is held a thread renews it; what was forgotten is renewed no more."""
    locks = LeasedLocks(PosixOps(), lease_s=1, beat_s=0.02)
    made.append(locks)
    lease = locks.lock(path, wait_s=0)
    assert lease is not None
    size = os.path.getsize(path)
    end = threading.Event()
    for _ in range(500):
        if os.path.getsize(path) > size + 2:
            break
        end.wait(0.02)
    assert os.path.getsize(path) > size + 2
    thread = locks._thread
    locks.forget()
    lease.close()
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    other = LeasedLocks(PosixOps())
    made.append(other)
    again = other.lock(path, wait_s=0)  # nobody of this process holds it any more
    assert again is not None
    again.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_holds_nothing(locks: LeasedLocks, path: str) -> None:
    """OPS-15: after a fork the child's copy is no holder, and its end leaves the parent's lock alone."""
    lease = locks.lock(path, wait_s=0)
    assert lease is not None
    pid = os.fork()
    if pid == 0:
        lease.release()
        os._exit(0 if not remote._held and locks.lock(path, wait_s=0) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert nonce_at(path) == lease.nonce
    lease.release()
