"""What dask runs per chunk: to the host, to the plan, and a small record back."""

from __future__ import annotations

import itertools
import pickle
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from fstx.errors import StorageError, UsageError
from fstx.plan import Grid, Host, Index
from fstx.sources.blocks import Receipts, Work
from fstx.sources.failures import Failures, computing, writing
from fstx.sources.host import admit

_stop_flag: Any = None
"""In a worker process: the event that says that some block failed."""


def set_stop_flag(flag: Any, user_initializer: Callable[[], Any] | None = None) -> None:
    """Initializer of a worker process: remembers `flag` and does what dask's own workers do."""
    global _stop_flag
    from dask.multiprocessing import initialize_worker_process

    _stop_flag = flag
    initialize_worker_process(user_initializer)


def record_of(receipts: Receipts, ndim: int) -> Any:
    """`receipts` as the one element of an array, the only thing that goes back to dask."""
    cell = np.empty((1,) * ndim, dtype=object)
    cell[(0,) * ndim] = receipts
    return cell


class _Task:
    def __init__(self, work: Work, grid: Grid, dtype: np.dtype[Any]) -> None:
        self.work = work
        self.grid = grid
        self.dtype = dtype

    def admit(self, block: Any, index: Index) -> Host:
        shape = tuple(lengths[i] for lengths, i in zip(self.grid, index, strict=True))
        return admit(block, shape, self.dtype)


class LocalTask(_Task):
    """Writes one chunk in this process; skips once anything failed."""

    def __init__(
        self,
        work: Work,
        grid: Grid,
        dtype: np.dtype[Any],
        failures: Failures,
        progress: Callable[[int], None],
        landed: Callable[[Receipts], None] | None = None,
    ) -> None:
        super().__init__(work, grid, dtype)
        self.failures = failures
        self.progress = progress
        self.landed = landed

    def __call__(self, block: Any, block_id: Index = ()) -> Any:
        if self.failures.halted:
            return record_of((), len(block_id))
        where = computing
        try:
            block = self.admit(block, block_id)
            where = writing
            receipts = self.work(block_id, block)
            del block
            if self.landed is not None:
                self.landed(receipts)
            self.progress(1)
        except BaseException as error:
            self.failures.record(error, where(block_id))
            raise
        return record_of(receipts, len(block_id))

    def __reduce__(self) -> NoReturn:
        # State between blocks can't be shared by copies: another process would lose it silently.
        raise UsageError(
            "this scheduler runs in other processes but does not say so to dask; "
            "use scheduler='processes' or a distributed client"
        )


class RemoteTask(_Task):
    """Writes one chunk in whatever process dask chose; its failures travel as `PackedError`."""

    gate: Any = None
    """A semaphore that bounds the blocks written at once, where the cluster can't be told."""

    def __call__(self, block: Any, block_id: Index = ()) -> Any:
        if _stop_flag is not None and _stop_flag.is_set():
            return record_of((), len(block_id))
        where = computing
        try:
            block = self.admit(block, block_id)
            where = writing
            if self.gate is None:
                receipts = self.work(block_id, block)
            else:
                with self.gate:
                    receipts = self.work(block_id, block)
        except Exception as error:  # noqa: BLE001 - packed, sent and raised again by the coordinator
            if _stop_flag is not None:
                _stop_flag.set()
            packed = PackedError.pack(error, where(block_id))
            raise packed from None
        return record_of(receipts, len(block_id))


class PackedError(Exception):
    """A failure on its way between processes, with its causes, notes, frames and time."""

    def __init__(
        self, summary: str, at_ns: int, chain: tuple[bytes, ...], frames: Any, text: str
    ) -> None:
        super().__init__(summary, at_ns, chain, frames, text)
        self.at_ns = at_ns
        self._chain = chain
        self._frames = frames
        self._text = text

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        return f"PackedError({self.args[0]!r})"

    @classmethod
    def pack(cls, error: Exception, where: str) -> PackedError:
        error.add_note(where)
        text = "".join(traceback.format_exception(error))
        chain: list[bytes] = []
        link: BaseException | None = error
        while link is not None and len(chain) < 8:
            chain.append(_dumps(link))
            link = link.__cause__
        summary = f"{type(error).__name__}: {error}"
        return cls(summary, time.time_ns(), tuple(chain), _frames(error.__traceback__), text)

    def unpack(self) -> BaseException:
        """The failure as it was raised, causes and notes restored; frames where tblib is there."""
        links = [pickle.loads(link) for link in self._chain]
        for error, cause in itertools.pairwise(links):
            error.__cause__ = cause
        first: BaseException = links[0]
        if self._frames is not None:
            import tblib

            first.__traceback__ = tblib.Traceback.from_dict(self._frames).as_traceback()
        else:
            first.add_note(f"in a worker process:\n{self._text}")
        return first


def restore(error: BaseException, trace: Any = None) -> BaseException:
    """`error` as raised in a worker, whatever it was packed in on its way."""
    if isinstance(error, PackedError):
        return error.unpack()
    if isinstance(trace, TracebackType):
        return error.with_traceback(trace)
    if isinstance(trace, str):
        error.add_note(f"in a worker process:\n{trace}")
    return error


def _dumps(error: BaseException) -> bytes:
    """Pickled, by value where needed; an error that doesn't survive that keeps its words."""
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(error)
        pickle.loads(data)
    except Exception:  # noqa: BLE001 - errors of other libraries fail here in any way they like
        plain = StorageError(f"{type(error).__module__}.{type(error).__qualname__}: {error}")
        for note in getattr(error, "__notes__", ()):
            plain.add_note(note)
        data = cloudpickle.dumps(plain)
    return data


def _frames(trace: TracebackType | None) -> Any:
    try:
        import tblib
    except ImportError:
        return None
    return tblib.Traceback(trace).to_dict()
