"""An executor for dask that can say when nothing runs any more, and what failed, and when."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from typing import Any

from fstx.sources.failures import Failures, computing
from fstx.sources.tasks import PackedError, restore


class SettlingPool(Executor):
    """Hands dask's batches to `inner` and remembers those that have not ended.

    dask raises at the first failing batch and leaves the others running. This watches every batch
    as it ends: a failure halts the run at once, also one in computing a chunk, and those that come
    after it are kept.

    Parameters
    ----------
    inner
        Runs the batches.
    failures
        Where failures of batches go.
    name
        Name of the write step; a key ``(name, i, j)`` is block ``(i, j)``.
    owned
        Whether `settle` also shuts `inner` down.
    progress
        Called with the number of blocks that a batch finished; None where tasks report themselves.
    landed
        Called with what came back of a block; None as above.
    """

    def __init__(
        self,
        inner: Executor,
        failures: Failures,
        name: str,
        *,
        owned: bool,
        progress: Callable[[int], None] | None = None,
        landed: Callable[[Any], None] | None = None,
    ) -> None:
        self._inner = inner
        self._failures = failures
        self._name = name
        self._owned = owned
        self._progress = progress
        self._landed = landed
        self._pending: dict[Future[Any], Any] = {}
        self._lock = threading.Lock()
        self._processes = isinstance(inner, ProcessPoolExecutor)
        workers: int = getattr(inner, "_max_workers", 1)
        # dask keeps as many batches in flight as the pool says it has workers. One more for each
        # thread of ours is waiting when it gets free, so that no thread waits for the coordinator.
        self._max_workers = workers if self._processes or not owned else 2 * workers

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not self._processes:
            future = self._inner.submit(contextvars.copy_context().run, fn, *args, **kwargs)
        else:
            future = self._inner.submit(fn, *args, **kwargs)
        batch = args[0] if args and isinstance(args[0], list) else []
        with self._lock:
            self._pending[future] = batch[0][0] if len(batch) == 1 else None
        future.add_done_callback(self._ended)
        return future

    def settle(self) -> None:
        """Return once no batch runs and none can start, also through repeated Ctrl-C."""
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                with self._lock:
                    pending = set(self._pending)
                for future in pending:
                    future.cancel()
                wait(pending)
                if self._owned:
                    self._inner.shutdown(wait=True, cancel_futures=True)
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _ended(self, future: Future[Any]) -> None:
        try:
            if not future.cancelled():
                self._look(future)
        except Exception as error:  # noqa: BLE001 - a callback of a future can't raise: it is kept
            self._failures.record(error)
        finally:
            with self._lock:
                self._pending.pop(future, None)

    def _look(self, future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:  # schedulers that let a task's error through, and broken pools
            self._keep(error, None, self._pending.get(future))
            return
        finished = 0
        for key, payload, failed in future.result():
            if not failed:
                finished += self._ours(key)
                if self._landed is not None and self._ours(key):
                    import cloudpickle

                    record = cloudpickle.loads(payload) if isinstance(payload, bytes) else payload
                    self._landed(record[0].flat[0])
                continue
            if isinstance(payload, bytes):
                import cloudpickle

                payload = cloudpickle.loads(payload)
            packed, trace = payload
            self._keep(packed, trace, key)
        if finished and self._progress is not None:
            self._progress(finished)

    def _ours(self, key: Any) -> bool:
        return isinstance(key, tuple) and bool(key) and key[0] == self._name

    def _keep(self, packed: BaseException, trace: Any, key: Any) -> None:
        error = restore(packed, trace)
        if isinstance(packed, PackedError):
            self._failures.record(error, at_ns=packed.at_ns)
        elif key is None or self._failures.knows(error):
            self._failures.record(error)
        else:
            where = computing(key[1:]) if self._ours(key) else f"in task {key!r}"
            self._failures.record(error, where)
