"""Running the write step on a dask.distributed cluster, through the active client."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from fstx.sources.blocks import Receipts
from fstx.sources.failures import Failures, computing
from fstx.sources.records import Records
from fstx.sources.tasks import PackedError, RemoteTask, restore
from fstx.types import StagedObject

_SETTLE_S = 10.0
_LEAST, _DEEP = 256, 64  # blocks of a part: so many, or so many for each thread
_QUIET = 2  # looks in a row: a task may be on its way from the scheduler during the first
_OVER = frozenset({"memory", "erred", "error", "released", "forgotten"})


def run_on_cluster(
    client: Any,
    records: Callable[[Any], Records],
    task: RemoteTask,
    name: str,
    *,
    max_workers: int | None,
    progress: Callable[[int], None],
    landed: Callable[[Receipts], None] | None = None,
) -> Iterator[StagedObject]:
    """Compute `records` (a graph made for `task`) and yield receipts as blocks finish.

    Where blocks share nothing the scheduler gets them in parts, two at a time, so that neither it nor
    this process holds the graph of a large array. On any failure the remaining tasks are cancelled, and
    this waits a bounded time for those that run already. A worker that stays away longer can only stage,
    under a name nobody adopts.
    """
    with _reachable(client) as here:
        if max_workers is not None:
            import distributed

            task.gate = distributed.Semaphore(max_leases=max_workers, name=name)
        whole = records(task)
        flight = _Flight(here, whole, _size(here))
        failures = Failures()
        try:
            for batch in flight.batches():
                for future, result in batch:
                    if future.status == "finished":
                        progress(1)
                        receipts = result.item()
                        if landed is not None:
                            landed(receipts)
                        if not failures.halted:
                            yield from receipts
                    else:
                        _record(failures, future, whole.name)
                    flight.landed(future)
                if failures.halted:
                    break
                flight.refill()
        finally:
            flight.cancel()
        first = failures.first()
        if first is not None:
            raise first


def _size(client: Any) -> int:
    """Blocks of a part: enough that workers don't wait for the next."""
    threads: int = sum(client.nthreads().values())
    return max(_LEAST, _DEEP * threads)


class _Flight:
    """The blocks that the scheduler has: two parts at most, and a third when one is through."""

    def __init__(self, client: Any, records: Records, size: int) -> None:
        import distributed

        self._client, self._name, self._size = client, records.name, size
        self._parts = records.parts(size)
        self._finished = distributed.as_completed(with_results=True, raise_errors=False)
        self._futures: dict[Any, Any] = {}
        self._sending = False

    def batches(self) -> Iterator[Any]:
        """Pairs of a future and its result, as they come; `refill` is called between."""
        self.refill()
        yield from self._finished.batches()

    def refill(self) -> None:
        """Send parts until two are on their way."""
        import distributed

        while len(self._futures) <= self._size:
            part = next(self._parts, None)
            if part is None:
                return
            self._sending = True
            futures = distributed.futures_of(self._client.persist(part))
            self._futures.update({future.key: future for future in futures})
            self._sending = False
            self._finished.update(futures)

    def landed(self, future: Any) -> None:
        """This one is through; the scheduler may forget it."""
        self._futures.pop(future.key, None)
        future.release()

    def cancel(self) -> None:
        """None of those that are not through will run, or keeps running."""
        if self._futures or self._sending:  # an interrupt may come while a part is sent
            left = list(self._futures.values())
            self._client.cancel(left, force=True)
            _settle(self._client, self._name)
            for future in left:
                future.release()


def _record(failures: Failures, future: Any, name: str) -> None:
    error = future.exception()
    if isinstance(error, PackedError):
        failures.record(restore(error), at_ns=error.at_ns)
        return
    if error is None:
        error = RuntimeError(f"task {future.key!r} ended as {future.status}")
    key = future.key
    ours = isinstance(key, tuple) and key[0] == name
    failures.record(error, computing(key[1:]) if ours else None)


@contextlib.contextmanager
def _reachable(client: Any) -> Iterator[Any]:
    """`client`, or inside a task of the cluster one that gives the task's slot back meanwhile."""
    import distributed

    try:
        distributed.get_worker()
    except ValueError:
        yield client
        return
    with distributed.worker_client() as inner:
        yield inner


def _settle(client: Any, name: str) -> None:
    """Wait, for a bounded time, until no block of the write step `name` runs or may still begin.

    A cancellation travels by the scheduler to the workers, beside the questions asked here. So the
    scheduler is asked first: once it has forgotten the blocks it sends none any more; then each
    worker, whose queue the cancellation may not have reached yet.
    """
    deadline = time.monotonic() + _SETTLE_S
    quiet = 0
    while quiet < _QUIET and time.monotonic() < deadline:
        busy = client.run_on_scheduler(_known, name) or any(
            client.run(_busy, name, on_error="return").values()
        )
        quiet = 0 if busy else quiet + 1
        time.sleep(0.02)


def _known(name: str, dask_scheduler: Any = None) -> bool:
    """On the scheduler: whether a block of the write step `name` is still to be computed."""
    return any(
        _ours(key, name) and task.state not in _OVER for key, task in dask_scheduler.tasks.items()
    )


def _busy(name: str, dask_worker: Any = None) -> bool:
    """On a worker: whether a block of the write step `name` is executing or queued."""
    return any(
        _ours(key, name) and task.state not in _OVER
        for key, task in list(dask_worker.state.tasks.items())
    )


def _ours(key: Any, name: str) -> bool:
    return isinstance(key, tuple) and bool(key) and key[0] == name
