"""What runs per chunk under dask, and how its failures are kept: without a scheduler."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fstx.errors import StorageError
from fstx.sources import tasks
from fstx.sources.failures import Failures
from fstx.sources.settle import SettlingPool
from fstx.sources.tasks import LocalTask, PackedError, RemoteTask, restore

GRID = ((2, 2), (3,))
BLOCK = np.zeros((2, 3), "f4")


def _work(calls: list[Any]) -> Any:
    def work(index: Any, _block: Any) -> Any:
        calls.append(index)
        return ()

    return work


def test_a16_a_task_after_the_first_failure_writes_nothing() -> None:
    """A16: a task that starts when another failed does not call the plan."""
    calls: list[Any] = []
    failures = Failures()
    task = LocalTask(_work(calls), GRID, BLOCK.dtype, failures, calls.append)
    assert task(BLOCK, (0, 0))[0, 0] == ()
    assert calls == [(0, 0), 1]
    failures.halt()
    assert task(BLOCK, (1, 0))[0, 0] == ()
    assert calls == [(0, 0), 1]


def test_a16_the_flag_of_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A16: in worker processes the event stops further writes, and a failure sets it."""
    calls: list[Any] = []
    flag = threading.Event()
    monkeypatch.setattr(tasks, "_stop_flag", flag)
    task = RemoteTask(_work(calls), GRID, BLOCK.dtype)
    task(BLOCK, (0, 0))
    with pytest.raises(PackedError, match="announced"):
        task(BLOCK[:1], (1, 0))
    assert flag.is_set()
    task(BLOCK, (1, 0))
    assert calls == [(0, 0)]


def test_a13_packed_failures_survive_pickling() -> None:
    """A13: type, attributes, cause, notes and frames are there after the trip; text is short."""

    def fail() -> None:
        try:
            raise OSError(28, "full")
        except OSError as error:
            raise StorageError("staging failed", txid="t1") from error

    try:
        fail()
    except StorageError as error:
        packed = PackedError.pack(error, "while writing block (0,)")
    assert str(packed) == "StorageError: staging failed"
    back = restore(pickle.loads(pickle.dumps(packed)))
    assert isinstance(back, StorageError)
    assert back.txid == "t1"
    assert isinstance(back.__cause__, OSError)
    assert back.__notes__ == ["while writing block (0,)"]
    assert back.__traceback__ is not None
    names, trace = [], back.__traceback__
    while trace:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names[-1] == "fail"


def _packed(text: str, at_ns: int) -> PackedError:
    try:
        raise StorageError(text)
    except StorageError as error:
        packed = PackedError.pack(error, f"while writing {text}")
    packed.args = (packed.args[0], at_ns, *packed.args[2:])
    packed.at_ns = at_ns
    return packed


def test_a12_time_of_failure_counts_not_of_arrival() -> None:
    """A12, A14: of two failures the earlier is first, though it arrives later."""
    failures = Failures()
    with ThreadPoolExecutor(1) as inner:
        pool = SettlingPool(inner, failures, "write", owned=False)
        now = time.time_ns()
        for text, at_ns in (("late", now), ("early", now - 1_000_000)):
            batch = [(("write", 0), (_packed(text, at_ns), None), True)]
            pool.submit(lambda result: result, batch).result()
        pool.settle()
    first = failures.first()
    assert isinstance(first, StorageError)
    assert str(first) == "early"
    assert [str(e) for e in first.others] == ["late"]
    again = failures.first()
    assert again is first
    assert len(first.others) == 1


def test_a11_settle_waits_for_running_and_cancels_waiting() -> None:
    """A11: settling ends with nothing running; what had not begun never runs."""
    ran: list[int] = []
    release = threading.Event()

    def slow(batch: list[Any]) -> list[Any]:
        release.wait(30)
        time.sleep(0.02)
        ran.append(batch[0][0])
        return []

    with ThreadPoolExecutor(1) as inner:
        pool = SettlingPool(inner, Failures(), "write", owned=False)
        futures: list[Future[Any]] = [pool.submit(slow, [(n,)]) for n in range(3)]
        threading.Timer(0.01, release.set).start()
        pool.settle()
        assert ran == [0]
        assert [f.cancelled() for f in futures] == [False, True, True]
        assert inner.submit(int, "3").result() == 3
