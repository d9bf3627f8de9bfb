"""numpy and device arrays: threads of this process."""

from __future__ import annotations

import contextvars
import itertools
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest

from fstx.errors import StorageError, UsageError
from fstx.sources import open_source
from fstx.writing import write_into
from support import fakes
from support.sourcetx import DictTx, FailAt, Gauge, plan_for


def _written(array: Any, block: int = 4, **options: Any) -> np.ndarray[Any, Any]:
    tx, source = DictTx(), open_source(array)
    plan = plan_for(source, block)
    write_into(tx, source, plan, **options)
    return plan.read(tx.content())


BASE = np.arange(7 * 9, dtype="f4").reshape(7, 9)


@pytest.mark.parametrize(
    "array",
    [
        BASE,
        np.asfortranarray(BASE),
        BASE[::-1, ::2],
        BASE.astype(">f4"),
        np.zeros((0, 5), "i2"),
        np.float32(3),
        np.arange(24).reshape(2, 3, 4),
        BASE > 3,
    ],
)
@pytest.mark.parametrize("workers", [None, 1, 3])
def test_h7_any_memory_layout_is_written_right(array: Any, workers: int | None) -> None:
    """H7: non-contiguous, Fortran, byte-swapped, empty and 0-d arrays; any number of workers."""
    assert np.array_equal(_written(array, max_workers=workers), array)


def test_h7_read_only_and_memmap(tmp_path: Any) -> None:
    """H7, A29: a read-only memory map is written through views."""
    np.save(tmp_path / "a.npy", BASE)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert np.array_equal(_written(mapped), BASE)


def test_a29_numpy_blocks_are_views() -> None:
    """A29: blocks of a numpy array share its memory, so that it is never copied whole."""
    shared: list[bool] = []
    source = open_source(BASE)
    plan = plan_for(source, 4, lambda _i, block: shared.append(np.shares_memory(block, BASE)))
    write_into(DictTx(), source, plan)
    assert shared == [True] * 6


def test_h4_device_blocks_move_once_each_in_the_workers() -> None:
    """H4, A29: a device array is copied block by block, once, in the worker threads."""
    fakes.MOVES.clear()
    assert np.array_equal(_written(fakes.FakeDevice(BASE), max_workers=2), BASE)
    assert sorted(shape for shape, _ in fakes.MOVES) == sorted(
        [(4, 4), (4, 4), (4, 1), (3, 4), (3, 4), (3, 1)]
    )
    assert all(thread.startswith("fstx-write") for _, thread in fakes.MOVES)


def test_device_array_with_foreign_dtype() -> None:
    """H3: an array whose dtype isn't numpy's (torch) tells it by an empty slice."""
    assert np.array_equal(_written(fakes.TorchLike(BASE)), BASE)


def test_e12_peak_of_live_blocks_is_the_number_of_workers() -> None:
    """E12: host copies alive at once never exceed the workers, counted with weak references."""
    alive: set[int] = set()
    peak: list[int] = []
    lock = threading.Lock()
    numbers = itertools.count()

    def hook(_index: Any, block: Any) -> None:
        with lock:
            number = next(numbers)
            alive.add(number)
            weakref.finalize(block, alive.discard, number)
            peak.append(len(alive))
        time.sleep(0.001)

    source = open_source(fakes.FakeDevice(np.zeros((32, 32), "f4")))
    write_into(DictTx(), source, plan_for(source, 4, hook), max_workers=3)
    assert len(peak) == 64
    assert 1 <= max(peak) <= 3
    assert not alive


@pytest.mark.parametrize("bad", [(0, 0), (0, 2), (1, 2)])
@pytest.mark.parametrize("workers", [1, 3])
def test_a4_a12_a13_failing_block(bad: tuple[int, int], workers: int) -> None:
    """A4, A12, A13: the failure itself is raised, with its frame and the block's index."""
    source, tx = open_source(BASE), DictTx()
    with pytest.raises(OSError, match="no space") as caught:
        write_into(tx, source, plan_for(source, 4, FailAt((bad,))), max_workers=workers)
    assert f"while writing block {bad}" in caught.value.__notes__
    frames = []
    trace = caught.value.__traceback__
    while trace:
        frames.append(trace.tb_frame.f_code.co_qualname)
        trace = trace.tb_next
    assert "FailAt.__call__" in frames
    assert tx.adopted == {}


def test_a11_a12_a14_a16_settled_before_it_raises() -> None:
    """A11, A12, A14, A16: first failure by time wins, nothing runs on, nothing new starts."""
    gauge = Gauge()
    slow = threading.Event()

    def hook(index: tuple[int, ...], _block: Any) -> None:
        with gauge:
            if index == (0,):
                slow.wait(30)
                time.sleep(0.3)
                raise StorageError("later")
            if index == (3,):
                slow.set()
                raise StorageError("first")

    source = open_source(np.zeros(400))
    with pytest.raises(StorageError, match="first") as caught:
        write_into(DictTx(), source, plan_for(source, 4, hook), max_workers=2)
    assert gauge.now == 0
    assert gauge.calls == 4
    assert [str(e) for e in caught.value.others] == ["later"]


def test_a14_other_failures_are_notes_of_foreign_errors() -> None:
    """A14: where the first failure is no error of ours, the others are among its notes."""
    barrier = threading.Barrier(3)

    def hook(index: tuple[int, ...], _block: Any) -> None:
        barrier.wait(30)
        time.sleep(0.2 * index[0])
        raise KeyError(f"number {index[0]}")

    source = open_source(np.zeros(12))
    with pytest.raises(KeyError, match="number 0") as caught:
        write_into(DictTx(), source, plan_for(source, 4, hook), max_workers=3)
    assert sum("also failed: KeyError" in note for note in caught.value.__notes__) == 2


def test_a25_interrupt_waits_for_running_blocks() -> None:
    """A25: Ctrl-C while blocks are written: it is raised after the running ones have ended."""
    gauge = Gauge()

    def hook(_index: Any, _block: Any) -> None:
        with gauge:
            time.sleep(0.03)

    def interrupt(_blocks: int) -> None:
        raise KeyboardInterrupt

    source, tx = open_source(np.zeros(400)), DictTx()
    with pytest.raises(KeyboardInterrupt):
        write_into(tx, source, plan_for(source, 4, hook), max_workers=2, progress=interrupt)
    assert gauge.now == 0
    assert gauge.calls < 20  # of 100
    assert tx.adopted == {}


def test_e11_concurrency_is_bounded() -> None:
    """E11: no more blocks at once than max_workers; the calling thread writes by the scheduler's name."""
    gauge = Gauge()
    names: set[str] = set()

    def hook(_index: Any, _block: Any) -> None:
        with gauge:
            names.add(threading.current_thread().name)
            time.sleep(0.002)

    source = open_source(np.zeros(80))
    write_into(DictTx(), source, plan_for(source, 4, hook), max_workers=3)
    assert gauge.most == 3
    gauge.most = 0
    write_into(DictTx(), source, plan_for(source, 4, hook), max_workers=1)
    assert gauge.most == 1
    assert threading.current_thread().name not in names
    names.clear()
    inline = source.with_scheduler("synchronous")
    write_into(DictTx(), inline, plan_for(source, 4, hook))
    assert names == {threading.current_thread().name}


def test_progress_counts_every_block() -> None:
    """The progress callback adds up to the number of blocks, in the caller's thread."""
    seen: list[tuple[int, str]] = []
    _written(BASE, progress=lambda n: seen.append((n, threading.current_thread().name)))
    assert sum(n for n, _ in seen) == 6
    assert {name for _, name in seen} == {threading.current_thread().name}


def test_context_variables_reach_the_workers() -> None:
    """A block is written in the caller's context, so that what is bound to it joins."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("caller")
    seen: set[str] = set()
    source = open_source(BASE)
    plan = plan_for(source, 4, lambda *_: seen.add(variable.get()))
    write_into(DictTx(), source, plan, max_workers=2)
    assert seen == {"caller"}


def test_scheduler_names() -> None:
    """A scheduler that needs dask is refused for other arrays; dask's names for ours work."""
    for name in ("threads", "synchronous", "sync"):
        assert np.array_equal(_written(BASE, scheduler=name), BASE)
    with pytest.raises(UsageError, match="needs a dask array"):
        _written(BASE, scheduler="processes")
