"""dask arrays: one graph, every source chunk computed once, receipts returned and never chunks.

The write is one more ``map_blocks`` on the caller's array, so that dask fuses and shares as for any
other step. Who runs it is dask's decision, in its own order: the argument, the configuration (which
includes DASK_SCHEDULER), an active client, else threads.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.pool
import os
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.plan import ArraySpec, Grid, Index
from fstx.sources.blocks import Receipts, Work
from fstx.sources.failures import Failures
from fstx.sources.records import SHARED_TASKS, Records, records_of, runs
from fstx.sources.settle import SettlingPool
from fstx.sources.tasks import LocalTask, RemoteTask, restore, set_stop_flag
from fstx.types import StagedObject

_BATCH = 16


@dataclass(frozen=True)
class Choice:
    """Who will run the graph: ``kind`` is threads, sync, processes, distributed or custom."""

    kind: str
    scheduler: Any = None
    client: Any = None
    executor: Executor | None = None


class DaskSource:
    """The chunks of a dask array, of numpy or of device arrays.

    Parameters
    ----------
    array
        A ``dask.array.Array`` with known chunk sizes.
    scheduler
        Anything ``dask.compute(scheduler=)`` takes; None leaves it to dask, then threads.
    """

    def __init__(self, array: Any, scheduler: Any = None) -> None:
        if any(np.isnan(n) for lengths in array.chunks for n in lengths):
            raise UsageError(
                "the dask array has chunks of unknown size; call array.compute_chunk_sizes() first"
            )
        meta = getattr(array, "_meta", None)
        if isinstance(meta, np.ma.MaskedArray):
            raise UsageError(
                "a masked array would lose its mask; pass dask.array.ma.filled(array, value)"
            )
        dtype = np.dtype(array.dtype)
        if dtype.hasobject:
            raise UsageError(
                f"an array of dtype {dtype} holds Python objects and has no bytes to write; "
                "convert it with .astype(...)"
            )
        self._array = array
        self._scheduler = scheduler
        grid: Grid = tuple(tuple(int(n) for n in lengths) for lengths in array.chunks)
        self.spec = ArraySpec(tuple(int(n) for n in array.shape), dtype, grid)

    def with_scheduler(self, scheduler: Any) -> DaskSource:
        """The same array under another scheduler."""
        return DaskSource(self._array, scheduler)

    @property
    def remote(self) -> bool:
        """True when chunks are computed in other processes, as settings are at this moment."""
        return choose(self._scheduler).kind in ("processes", "distributed")

    def run(
        self,
        work: Work,
        grid: Grid,
        *,
        max_workers: int | None,
        progress: Callable[[int], None],
        only: Collection[Index] | None = None,
        landed: Callable[[Receipts], None] | None = None,
    ) -> Iterator[StagedObject]:
        """Call `work` once per block and yield what it returned once all are done.

        `progress` is called with 1 after each block: one call at a time, from any thread. When this
        raises, no call of `work` is running (threads, processes; of distributed workers, none that
        ended within the settling time) and none will start. `only`: the graph is culled to these blocks.
        `landed` is called from any thread, with what comes back of a block, as it comes back.
        """
        choice = choose(self._scheduler)
        array = self._array if self.spec.grid == grid else self._array.rechunk(grid)
        name = f"fstx-write-{uuid.uuid4().hex}"
        if choice.kind == "distributed":
            from fstx.sources.cluster import run_on_cluster

            task = RemoteTask(work, grid, self.spec.dtype)
            yield from run_on_cluster(
                choice.client,
                partial(records_of, array, name=name, only=only),
                task,
                name,
                max_workers=max_workers,
                progress=progress,
                landed=landed,
            )
            return
        told = _Told(_one_at_a_time(progress), landed)
        for record in _run_local(choice, array, name, grid, work, max_workers, told, only):
            yield from record.flat[0]


@dataclass(frozen=True)
class _Told:
    """Who hears of finished blocks: their number, and what they brought back."""

    progress: Callable[[int], None]
    landed: Callable[[Receipts], None] | None


def choose(scheduler: Any) -> Choice:
    """Resolve `scheduler` as ``dask.compute`` would, with threads where nothing is set.

    Raises
    ------
    UsageError
        For a name that dask doesn't know, or a distributed scheduler without a client.
    """
    import dask.base

    try:
        get = dask.base.get_scheduler(scheduler=scheduler)
    except (ValueError, RuntimeError, TypeError) as error:
        raise UsageError(f"scheduler={scheduler!r}: {error}") from error
    if get is None:
        return Choice("threads", "threads")
    named = dask.base.named_schedulers
    for kind in ("threads", "processes", "sync"):
        if get is named[kind]:
            return Choice(kind, kind)
    if isinstance(get, partial) and get.args:
        executor = getattr(get.args[0], "__self__", None)
        if isinstance(executor, Executor):
            kind = "processes" if isinstance(executor, ProcessPoolExecutor) else "threads"
            return Choice(kind, executor=executor)
    client = getattr(get, "__self__", None)
    if hasattr(client, "persist") and hasattr(client, "cancel"):
        return Choice("distributed", client=client)
    return Choice("custom", get)


def lazy(call: Callable[[], Any]) -> Any:
    """A ``dask.delayed.Delayed`` that runs `call` when it is computed and holds its result.

    `call` begins, writes and commits by itself, so a failure inside aborts as it does without dask.
    The array that it carries is not looked into: its chunks run in the nested computation, once.
    `call` must pickle where the outer scheduler leaves this process.
    """
    import dask

    return dask.delayed(_Opaque(call), name="fstx-write", pure=False, traverse=False)()


class _Opaque:
    """Keeps dask from unpacking the arrays that a call carries."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def __call__(self) -> Any:
        return self._call()


def _run_local(
    choice: Choice,
    array: Any,
    name: str,
    grid: Grid,
    work: Work,
    max_workers: int | None,
    told: _Told,
    only: Collection[Index] | None,
) -> list[Any]:
    remote = choice.kind == "processes"
    flag = _stop_event() if remote and choice.executor is None else None
    failures = Failures(on_halt=flag.set if flag is not None else None)
    dtype = array.dtype
    task = (
        RemoteTask(work, grid, dtype)
        if remote
        else LocalTask(work, grid, dtype, failures, told.progress, told.landed)
    )
    graph = records_of(array, task, name=name, only=only)
    options: dict[str, Any] = {"scheduler": choice.scheduler}
    try:
        with contextlib.ExitStack() as stack:
            if choice.kind != "custom":
                inner, owned = _pool(choice, max_workers, flag)
                pool = SettlingPool(
                    inner,
                    failures,
                    graph.name,
                    owned=owned,
                    progress=told.progress if remote else None,
                    landed=told.landed if remote else None,
                )
                stack.callback(pool.settle)
                if remote:
                    stack.enter_context(_steady_hashes())
                if choice.executor is not None or choice.kind == "sync":
                    options["scheduler"] = pool
                else:
                    options["pool"] = pool
            stack.callback(failures.halt)
            records = _compute(graph, options, remote)
    except Exception as error:
        first = failures.first(restore(error))
        if first is error:
            raise
    else:
        first = failures.first()  # a failing progress callback, say: no task of dask's failed
        if first is None:
            return records
    assert first is not None
    raise first


def _compute(records: Records, options: dict[str, Any], remote: bool) -> list[Any]:
    """The chunks of `records` in their order, unjoined.

    Where fusing blockwise layers leaves one task per chunk (chunks that depend on no others), dask's
    second fusing is left out: it would find nothing, rename every task and add an alias for each, which
    doubles the time per chunk.
    """
    from dask.array.optimization import optimize
    from dask.base import get_scheduler
    from dask.blockwise import optimize_blockwise

    options = dict(options)
    graph, keys = records.graph, records.keys
    layers = optimize_blockwise(graph, keys=keys)
    fused = dict(layers.cull(set(keys)) if records.some else layers)
    tasks = sum(runs(node) for node in fused.values())
    if tasks > len(keys) + SHARED_TASKS:
        fused = optimize(graph, keys)
    elif "pool" in options and not remote:
        # Independent chunks in batches: each hand-over between dask's loop and a worker thread costs
        # about as much as compressing a small tile. One chunk at a time is alive in a batch all the same.
        options["chunksize"] = _batch(len(keys))
    schedule = get_scheduler(scheduler=options.pop("scheduler"))
    return list(schedule(fused, keys, **options))


def _batch(chunks: int) -> int:
    """Chunks handed over at once: few enough that the workers finish together."""
    return max(1, min(_BATCH, chunks // 32))


def _pool(choice: Choice, max_workers: int | None, flag: Any) -> tuple[Executor, bool]:
    """The executor to run on, and whether it is ours to shut down."""
    import dask
    from dask.local import MultiprocessingPoolExecutor, synchronous_executor
    from dask.system import CPU_COUNT

    if choice.executor is not None:
        return choice.executor, False
    if choice.kind == "sync":
        return synchronous_executor, False
    given = dask.config.get("pool", None)
    if given is not None and max_workers is None:
        if isinstance(given, multiprocessing.pool.Pool):
            return MultiprocessingPoolExecutor(given), False
        return given, False
    workers = max_workers or dask.config.get("num_workers", None) or CPU_COUNT
    if choice.kind == "threads":
        return ThreadPoolExecutor(workers, thread_name_prefix="fstx-write"), True
    from dask.multiprocessing import get_context

    user = dask.config.get("multiprocessing.initializer", None)
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context(), initializer=set_stop_flag, initargs=(flag, user)
    )
    return pool, True


def _stop_event() -> Any:
    from dask.multiprocessing import get_context

    return get_context().Event()


@contextlib.contextmanager
def _steady_hashes() -> Iterator[None]:
    """Worker processes hash strings alike, as in dask's own pool: its shuffles rely on that."""
    before = os.environ.get("PYTHONHASHSEED")
    if before not in (None, "0"):
        yield
        return
    os.environ["PYTHONHASHSEED"] = "6640"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYTHONHASHSEED", None)
        else:
            os.environ["PYTHONHASHSEED"] = before


def _one_at_a_time(progress: Callable[[int], None]) -> Callable[[int], None]:
    lock = threading.Lock()

    def call(blocks: int) -> None:
        with lock:
            progress(blocks)

    return call
