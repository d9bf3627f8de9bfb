"""dask arrays under the schedulers of one machine: threads, synchronous, processes, executors."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fstx.errors import StorageError, UsageError
from fstx.sources import lazy, open_source
from fstx.writing import write_into
from support import fakes
from support.sourcetx import DictTx, FailAt, Gauge, plan_for

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

BASE = np.arange(9 * 11, dtype="f4").reshape(9, 11)
LOCK = threading.Lock()


def _written(array: Any, tx: DictTx | None = None, **options: Any) -> np.ndarray[Any, Any]:
    tx, source = tx or DictTx(), open_source(array)
    plan = plan_for(source)
    write_into(tx, source, plan, **options)
    return plan.read(tx.content())


def _counted(shape: tuple[int, ...], chunks: Any) -> tuple[Any, list[Any]]:
    """An array whose source chunks say when they are computed."""
    seen: list[Any] = []

    def make(block_id: Any = None, block_info: Any = None) -> Any:
        with LOCK:
            seen.append(block_id)
        return np.full(block_info[None]["chunk-shape"], float(sum(block_id)))

    grid = da.zeros(shape, chunks=chunks).chunks
    array = da.map_blocks(make, chunks=grid, dtype="f8", meta=np.empty((0,) * len(shape)))
    return array, seen


@pytest.mark.parametrize(
    "array",
    [
        da.from_array(BASE, chunks=(4, 5)),
        da.from_array(BASE, chunks=((2, 6, 1), (1, 10))),
        da.zeros((0, 5), chunks=(4, 5)),
        da.ones((), chunks=()),
        da.from_array(BASE, chunks=4).T[::-1],
        da.from_array(BASE, chunks=4).sum(),
        da.ones((2, 4, 6), chunks=(1, 3, 4), dtype="i2"),
    ],
)
@pytest.mark.parametrize("scheduler", [None, "threads", "synchronous"])
def test_a28_e9_grid_is_the_chunks(array: Any, scheduler: Any) -> None:
    """A28, E9: any chunk grid, written alike under every scheduler of this process."""
    assert np.array_equal(_written(array, scheduler=scheduler), array.compute())


def test_a28_other_grid_is_rechunked() -> None:
    """F22: where the plan's blocks are not the chunks, dask rechunks; no block is shared."""
    source = open_source(da.from_array(BASE, chunks=(2, 11)))
    plan = plan_for(open_source(BASE), 4)
    tx = DictTx()
    write_into(tx, source, plan)
    assert np.array_equal(plan.read(tx.content()), BASE)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize(
    "build",
    [
        lambda x: x,
        lambda x: x - x.mean(),
        lambda x: da.map_overlap(lambda b: b + 1, x, depth=1, boundary="reflect"),
        lambda x: x.rechunk((3, 24)),
    ],
)
def test_e10_each_source_chunk_is_computed_once(build: Any, scheduler: str) -> None:
    """E10: whole-array statistics, overlaps and rechunking compute every source chunk once."""
    array, seen = _counted((24, 24), 4)
    result = _written(build(array), scheduler=scheduler)
    assert len(seen) == len(set(seen)) == 36
    assert result.shape == (24, 24)


def test_e12_peak_of_live_chunks_is_the_number_of_workers() -> None:
    """E12: output chunks alive at once never exceed the workers, counted with weak references."""
    alive: set[int] = set()
    peak: list[int] = []
    numbers = itertools.count()

    def make(block_info: Any = None) -> Any:
        chunk = np.zeros(block_info[None]["chunk-shape"])
        with LOCK:
            number = next(numbers)
            alive.add(number)
            weakref.finalize(chunk, alive.discard, number)
            peak.append(len(alive))
        return chunk

    grid = ((4,) * 8,) * 2
    array = da.map_blocks(make, chunks=grid, dtype="f8", meta=np.empty((0, 0)))
    source = open_source(array)
    plan = plan_for(source, hook=lambda *_: time.sleep(0.001))
    write_into(DictTx(), source, plan, max_workers=3)
    assert len(peak) == 64
    assert max(peak) <= 3
    assert not alive


def test_e6_device_chunks_move_once_each_in_the_worker() -> None:
    """E6, H4: device chunks are copied to the host once each, by the thread that writes them."""
    fakes.MOVES.clear()
    x = da.from_array(BASE, chunks=(4, 5))
    array = x.map_blocks(fakes.FakeDevice, dtype="f4", meta=np.empty((0, 0), "f4"))
    assert np.array_equal(_written(array, scheduler="threads"), BASE)
    assert len(fakes.MOVES) == 9
    assert all(thread.startswith("fstx-write") for _, thread in fakes.MOVES)


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize("bad", [(0, 0), (1, 1), (2, 2)])
def test_a5_a12_a13_failing_write(bad: Any, scheduler: str) -> None:
    """A5, A12, A13: the write's own failure is raised, with its frame and the block's index."""
    source, tx = open_source(da.from_array(BASE, chunks=4)), DictTx()
    with pytest.raises(OSError, match="no space") as caught:
        write_into(tx, source, plan_for(source, hook=FailAt((bad,))), scheduler=scheduler)
    assert caught.value.__notes__ == [f"while writing block {bad}"]
    assert "FailAt.__call__" in _frames(caught.value)
    assert tx.adopted == {}


def _frames(error: BaseException) -> set[str]:
    """Names of the functions in the traceback."""
    names, trace = set(), error.__traceback__
    while trace:
        names |= {trace.tb_frame.f_code.co_qualname, trace.tb_frame.f_code.co_name}
        trace = trace.tb_next
    return names


def _broken(block: Any, block_id: Any = None) -> Any:
    if block_id == (2, 1):
        raise ZeroDivisionError("bad chunk")
    return block


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_a10_failing_computation_settles_too(scheduler: str) -> None:
    """A10, A11, A16: a chunk that can't be computed stops the run; no write is left running."""
    gauge = Gauge()

    def hook(*_: Any) -> None:
        with gauge:
            time.sleep(0.01)

    array = da.zeros((40, 8), chunks=4).map_blocks(_broken, dtype="f8", meta=np.empty((0, 0)))
    source = open_source(array)
    with pytest.raises(ZeroDivisionError, match="bad chunk") as caught:
        write_into(DictTx(), source, plan_for(source, hook=hook), scheduler=scheduler)
    assert gauge.now == 0
    assert gauge.calls < 20
    assert "_broken" in _frames(caught.value)
    assert any("(2, 1)" in note for note in caught.value.__notes__)


def test_a17_first_failure_by_time_fifty_times() -> None:
    """A11, A12, A14, A16, A17: random durations, 50 runs: first failure, no straggler."""
    random = np.random.default_rng(7)
    source = open_source(da.zeros(64, chunks=4))
    for _ in range(50):
        gauge, order = Gauge(), []
        naps = random.uniform(0, 0.004, 16)

        def hook(
            index: Any, _block: Any, naps: Any = naps, gauge: Any = gauge, order: Any = order
        ) -> None:
            with gauge:
                time.sleep(naps[index[0]])
                if index[0] % 3 == 0:
                    with LOCK:
                        order.append(index[0])
                        raise StorageError(f"tile {index[0]}")

        with pytest.raises(StorageError) as caught:
            write_into(DictTx(), source, plan_for(source, hook=hook), max_workers=4)
        after = gauge.calls
        assert gauge.now == 0
        messages = [str(e) for e in (caught.value, *caught.value.others)]
        assert messages == [f"tile {i}" for i in order]
        time.sleep(0.001)
        assert gauge.calls == after < 16


def test_a25_ctrl_c_during_a_dask_write() -> None:
    """A25: SIGINT to a process that writes: no write runs on when KeyboardInterrupt arrives."""
    script = textwrap.dedent(
        """
        import os, sys, threading, time
        sys.path[:0] = {paths!r}
        import dask.array as da
        from support.sourcetx import DictTx, Gauge, plan_for
        from fstx.sources import open_source
        from fstx.writing import write_into
        gauge = Gauge()
        def hook(*_):
            with gauge:
                if gauge.calls == 2:
                    print("writing", flush=True)
                time.sleep(0.15)
        source, tx = open_source(da.zeros(4000, chunks=4)), DictTx()
        try:
            write_into(tx, source, plan_for(source, hook=hook), max_workers=2)
        except KeyboardInterrupt:
            calls = gauge.calls
            time.sleep(0.3)
            print("interrupted", gauge.now, gauge.calls - calls, len(tx.adopted), flush=True)
        """
    ).format(paths=[p for p in sys.path if p])
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child:
        assert child.stdout.readline().strip() == "writing"
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.stdout.read().strip() == "interrupted 0 0 0"
    assert child.returncode == 0


def test_e1_e2_who_decides_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """E1, E2: threads by default; configuration decides, and the argument before it."""
    names: list[str] = []
    source = open_source(da.zeros(16, chunks=4))
    plan = plan_for(source, hook=lambda *_: names.append(threading.current_thread().name))
    here = threading.current_thread().name

    def ran(**options: Any) -> set[str]:
        names.clear()
        write_into(DictTx(), source, plan, **options)
        return set(names)

    assert all(name.startswith("fstx-write") for name in ran())
    with dask.config.set(scheduler="synchronous"):
        assert ran() == {here}
        assert here not in ran(scheduler="threads")
    assert ran(scheduler="sync") == {here}
    calls: list[str] = []

    def custom(graph: Any, keys: Any, **options: Any) -> Any:
        calls.append("custom")
        return dask.get(graph, keys, **options)

    with dask.config.set(scheduler=custom):
        assert ran() == {here}
    assert calls == ["custom"]
    with ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:
        assert all(name.startswith("mine") for name in ran(scheduler=pool))
        with dask.config.set(pool=pool):
            assert all(name.startswith("mine") for name in ran())
        assert pool.submit(int, "3").result() == 3
    with pytest.raises(UsageError, match="nonsense"):
        ran(scheduler="nonsense")
    with pytest.raises(UsageError, match="distributed"):
        ran(scheduler="distributed")


def test_e2_environment_decides_too() -> None:
    """E2: DASK_SCHEDULER is honoured, as dask reads it."""
    code = (
        "import dask.array as da; from fstx.sources.dask_ import choose; print(choose(None).kind)"
    )
    environment = {**os.environ, "DASK_SCHEDULER": "synchronous"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "sync"


def test_e11_concurrency_is_bounded() -> None:
    """E11: max_workers, or else dask's num_workers, bounds the blocks written at once."""
    gauge = Gauge()

    def hook(*_: Any) -> None:
        with gauge:
            time.sleep(0.002)

    source = open_source(da.zeros(80, chunks=4))
    write_into(DictTx(), source, plan_for(source, hook=hook), max_workers=1)
    assert gauge.most == 1
    with dask.config.set(num_workers=3):
        write_into(DictTx(), source, plan_for(source, hook=hook))
    assert gauge.most == 3


def test_progress_counts_every_block_one_call_at_a_time() -> None:
    """The progress callback adds up to the number of blocks and needs no lock of its own."""
    seen, gauge = [], Gauge()

    def progress(blocks: int) -> None:
        with gauge:
            seen.append(blocks)
            time.sleep(0.001)

    _written(da.zeros(80, chunks=4), progress=progress)
    assert sum(seen) == 20
    assert gauge.most == 1


def test_array_that_lies_about_its_chunks_is_refused() -> None:
    """A chunk of another shape than announced would shift the output: refused, block named."""
    array = da.zeros(8, chunks=4).map_blocks(lambda b: b[:2], dtype="f8", meta=np.empty(0))
    with pytest.raises(UsageError, match="announced") as caught:
        _written(array)
    assert any("while computing block" in note for note in caught.value.__notes__)


def test_unknown_chunks_and_masked_arrays_are_refused() -> None:
    """B9: what can't be planned is refused when it is opened."""
    x = da.from_array(np.arange(9), chunks=4)
    with pytest.raises(UsageError, match="compute_chunk_sizes"):
        open_source(x[x > 3])
    with pytest.raises(UsageError, match="filled"):
        open_source(da.ma.masked_greater(x, 3))


def test_xarray_is_unwrapped_lazily() -> None:
    """An xarray object's dask array is taken as it is; nothing is computed on opening."""
    xarray = pytest.importorskip("xarray")
    array, seen = _counted((8, 8), 4)
    source = open_source(xarray.DataArray(array, dims=("y", "x")))
    assert source.spec.grid == ((4, 4), (4, 4))
    assert seen == []


def test_e14_lazy_computes_commits_and_aborts() -> None:
    """E14: one lazy object; computing it commits, its failure aborts, and nothing runs before."""
    tx, bad = DictTx(), DictTx()
    array, seen = _counted((8, 8), 4)
    source = open_source(array - array.mean())

    def write(into: DictTx, hook: Any = None) -> Any:
        try:
            write_into(into, source, plan_for(source, hook=hook))
        except BaseException:
            into.rollback()
            raise
        return into.commit()

    good = lazy(lambda: write(tx))
    failing = lazy(lambda: write(bad, FailAt(((1, 1),))))
    assert seen == []
    assert tx.state == "active"
    (snapshot,) = dask.compute(good)
    assert (tx.state, snapshot.paths, len(seen)) == ("committed", 5, 4)
    with pytest.raises(OSError, match="no space"):
        failing.compute()
    assert bad.state == "rolled back"


# processes ---------------------------------------------------------------------------------------


class PickyError(Exception):
    """An exception that can't be pickled back: its constructor wants two arguments."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} and {right}")


def _fail_with_cause(index: Any, _block: Any) -> None:
    if index == (1,):
        try:
            raise OSError(5, "disk is gone")
        except OSError as error:
            raise StorageError("staging failed", txid="t1") from error


def _fail_picky(index: Any, _block: Any) -> None:
    if index == (1,):
        raise PickyError("one", "two")


@pytest.fixture(scope="module")
def _by_value() -> Any:
    """Functions of this module travel by value: worker processes can't import a test."""
    import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    yield
    cloudpickle.unregister_pickle_by_value(module)


def test_e3_processes_write_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E3, E9: worker processes stage by themselves and return receipts; the output is equal."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    seen: list[int] = []
    tx = DictTx(root=tmp_path)
    array = da.from_array(BASE, chunks=4)
    result = _written(array, tx, scheduler="processes", max_workers=2, progress=seen.append)
    assert np.array_equal(result, BASE)
    assert sum(seen) == 9
    assert "PYTHONHASHSEED" not in os.environ


@pytest.mark.usefixtures("_by_value")
def test_a6_failures_cross_processes_whole(tmp_path: Path) -> None:
    """A6, A13: type, cause, notes and frames of a worker's failure arrive; nothing is adopted."""
    source, tx = open_source(da.zeros(12, chunks=4)), DictTx(root=tmp_path)
    with ProcessPoolExecutor(2, mp_context=_spawn()) as pool:
        for hook, kind, words in (
            (_fail_with_cause, StorageError, "staging failed"),
            (_fail_picky, StorageError, "PickyError: one and two"),
        ):
            with pytest.raises(kind, match=words) as caught:
                write_into(tx, source, plan_for(source, hook=hook), scheduler=pool)
            assert "while writing block (1,)" in caught.value.__notes__
            assert hook.__name__ in _frames(caught.value)
            if hook is _fail_with_cause:
                assert caught.value.txid == "t1"
                assert isinstance(caught.value.__cause__, OSError)
                assert "disk is gone" in str(caught.value.__cause__)
        array = da.zeros((12, 8), chunks=4).map_blocks(_broken, dtype="f8", meta=np.empty((0, 0)))
        broken = open_source(array)
        with (
            dask.config.set(pool=pool),
            pytest.raises(ZeroDivisionError, match="bad chunk") as caught,
        ):
            write_into(tx, broken, plan_for(broken), scheduler="processes")
        assert "_broken" in _frames(caught.value)
        assert any("(2, 1)" in note for note in caught.value.__notes__)
    assert tx.adopted == {}


def _spawn() -> Any:
    import multiprocessing

    return multiprocessing.get_context("spawn")


def test_a16_processes_stop_writing_after_a_failure(tmp_path: Path) -> None:
    """A16: after the first failure the other processes start no further block."""
    source, tx = open_source(da.zeros(800, chunks=4)), DictTx(root=tmp_path)
    plan = plan_for(source, hook=FailAt(((150,), (3,))))
    with pytest.raises(OSError, match="no space"):
        write_into(tx, source, plan, scheduler="processes", max_workers=2)
    written = len(list(tmp_path.iterdir()))
    assert written < 150
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == written


def test_state_between_blocks_never_leaves_the_process() -> None:
    """A scheduler that ships tasks elsewhere without saying so is refused, not half obeyed."""
    import cloudpickle

    from fstx.sources.failures import Failures
    from fstx.sources.tasks import LocalTask

    task = LocalTask(lambda *_: (), ((4,),), np.dtype("f4"), Failures(), print)
    with pytest.raises(UsageError, match="other processes"):
        cloudpickle.dumps(task)
