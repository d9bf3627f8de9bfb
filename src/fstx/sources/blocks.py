"""Arrays that are cut by slicing: numpy, device arrays, anything with shape, dtype and slices."""

from __future__ import annotations

import contextvars
import itertools
import math
import os
import queue
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeAlias

from fstx.errors import UsageError
from fstx.plan import ArraySpec, Grid, Host, Index
from fstx.sources.failures import Failures, computing, writing
from fstx.sources.host import admit, dtype_of, settle
from fstx.types import StagedObject

Receipts: TypeAlias = tuple[StagedObject, ...]
Work: TypeAlias = Callable[[Index, Host], Receipts]

_THREADS = ("threads", "threading")
_INLINE = ("sync", "synchronous", "single-threaded")


def default_workers() -> int:
    """Threads for an array that brings no scheduler: the usable cores, at most 8."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, min(cores, 8))


class BlockSource:
    """Slices of one array, cut and converted to host memory in the worker threads.

    Parameters
    ----------
    array
        Has ``shape``, ``dtype`` and basic slicing. It is never copied whole.
    scheduler
        None or ``"threads"``, or ``"synchronous"`` for the calling thread alone.
    """

    remote = False

    def __init__(self, array: Any, scheduler: str | None = None) -> None:
        if scheduler is not None and scheduler not in _THREADS + _INLINE:
            raise UsageError(
                f"scheduler={scheduler!r} needs a dask array; this one is written by threads "
                "of this process (scheduler='threads' or 'synchronous')"
            )
        self._array = array
        self._inline = scheduler in _INLINE
        self.spec = ArraySpec(tuple(int(n) for n in array.shape), dtype_of(array), None)
        if self.spec.dtype.hasobject:
            raise UsageError(
                f"an array of dtype {self.spec.dtype} holds Python objects and has no bytes to "
                "write; convert it with .astype(...)"
            )

    def with_scheduler(self, scheduler: Any) -> BlockSource:
        """The same array under another scheduler."""
        return BlockSource(self._array, scheduler)

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
        """Call `work` once per block and yield its receipts as blocks finish.

        `progress` is called with 1 after each block, in the caller's thread. When this raises, no
        call of `work` is running and none will start. `only`: these blocks alone. `landed` is called with
        the receipts of each block, in the caller's thread.
        """
        settle(self._array)
        bounds = [list(itertools.accumulate(lengths, initial=0)) for lengths in grid]
        blocks: Iterator[Index] = itertools.product(*(range(len(lengths)) for lengths in grid))
        count = math.prod(len(lengths) for lengths in grid)
        if only is not None:
            blocks, count = iter(sorted(only)), len(only)
        workers = min(max_workers or default_workers(), max(1, count))

        def one(index: Index) -> Receipts:
            region = tuple(slice(b[i], b[i + 1]) for b, i in zip(bounds, index, strict=True))
            shape = tuple(s.stop - s.start for s in region)
            where = computing
            try:
                block = admit(self._array[region], shape, self.spec.dtype)
                where = writing
                return work(index, block)
            except Exception as error:
                error.add_note(where(index))
                raise

        def told(receipts: Receipts) -> Receipts:
            progress(1)
            if landed is not None:
                landed(receipts)
            return receipts

        if not self._inline:
            # A thread also for one worker: the caller's is the one that hears Ctrl-C, and codecs that
            # drop exceptions (imagecodecs 2026.3 looks at its input in a bare except) would lose it.
            yield from _in_threads(one, blocks, workers, told)
            return
        for index in blocks:
            yield from told(one(index))


def _in_threads(
    one: Callable[[Index], Receipts],
    blocks: Iterator[Index],
    workers: int,
    told: Callable[[Receipts], Receipts],
) -> Iterator[StagedObject]:
    failures = Failures()
    turn = threading.Lock()
    done: queue.SimpleQueue[Receipts | None] = queue.SimpleQueue()

    def loop() -> None:
        try:
            while not failures.halted:
                with turn:
                    index = next(blocks, None)
                if index is None:
                    return
                done.put(one(index))
        except BaseException as error:  # noqa: BLE001 - raised again by the coordinator
            failures.record(error)
        finally:
            done.put(None)

    threads = [
        threading.Thread(
            target=contextvars.copy_context().run, args=(loop,), name=f"fstx-write-{n}"
        )
        for n in range(workers)
    ]
    started: list[threading.Thread] = []
    try:
        for thread in threads:
            started.append(thread)
            thread.start()
        running = workers
        while running:
            try:
                receipts = done.get(timeout=1.0)  # a bound, since Windows can't interrupt a wait
            except queue.Empty:
                continue
            if receipts is None:
                running -= 1
                continue
            yield from told(receipts)
    finally:
        failures.halt()
        settle_threads(started)
    first = failures.first()
    if first is not None:
        raise first


def settle_threads(threads: list[threading.Thread]) -> None:
    """Wait until every thread has ended; a Ctrl-C meanwhile is raised afterwards."""
    interrupt: KeyboardInterrupt | None = None
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt
