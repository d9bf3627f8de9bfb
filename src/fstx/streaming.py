"""Writing arrays chunk by chunk as they are produced: the ``write_chunk`` seam.

A producer hands over each chunk the moment it exists and keeps none. Nothing is opened before the first
chunk; nothing is visible before all of them are there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from fstx.errors import UsageError
from fstx.plan import ArraySpec, Grid, Index, Plan, Sink, cut
from fstx.producing import Extras, process_chunks
from fstx.protocol import Transaction
from fstx.sources.failures import Failures, writing
from fstx.sources.host import admit
from fstx.types import Snapshot, StagedObject
from fstx.writing import check_grid, discard

__all__ = ["ChunkReport", "ChunkWriter", "Extras", "Stream", "process_chunks", "uniform_grid"]


@dataclass(frozen=True)
class Stream:
    """One array of a stream: what it is, and its plan or how to make it.

    A callable gets the open transaction once, at the first chunk: the place to check a template.
    """

    spec: ArraySpec
    plan: Plan | Callable[[Transaction], Plan]


@dataclass(frozen=True)
class ChunkReport:
    """What became of a stream.

    Attributes
    ----------
    status
        ``"written"`` (committed), ``"empty"`` (no chunk came; storage was not touched), ``"failed"``
        (rolled back; the target is as it was) or ``"open"``.
    error
        The first failure by time, or None; `message` is its text.
    written, skipped, expected
        Chunks staged; chunks that came after the failure and were not written; chunks of the grid.
    write_s
        Seconds spent in writing chunks, summed over all threads; computing, opening and committing
        are not in it. None when nothing was written or the stream failed.
    size_bytes
        Bytes of the staged objects that chunks completed.
    snapshot
        What was committed, or None.
    """

    status: Literal["open", "empty", "written", "failed"]
    expected: int
    written: int = 0
    skipped: int = 0
    size_bytes: int = 0
    write_s: float | None = None
    error: BaseException | None = None
    snapshot: Snapshot | None = None

    @property
    def message(self) -> str:
        """Type and text of the failure, with its notes; empty where there is none."""
        if self.error is None:
            return ""
        notes = "".join(f" ({note})" for note in getattr(self.error, "__notes__", ()))
        return f"{type(self.error).__name__}: {self.error}{notes}"


def uniform_grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Grid:
    """The grid of chunks of one size over `shape`, the last ones cut: what `ArraySpec.grid` takes.

    Raises
    ------
    UsageError
        Another number of axes, or a chunk length below 1.
    """
    if len(shape) != len(chunks) or any(c < 1 for c in chunks):
        raise UsageError(f"chunks={chunks} don't fit shape {shape}: one positive length per axis")
    return tuple(cut(n, chunk) for n, chunk in zip(shape, chunks, strict=True))


class ChunkWriter:
    """Takes the chunks of one array, and of companions on the same grid, from any thread, in any order.

    Leaving the ``with`` block commits when every chunk came, and raises the first failure otherwise;
    `close` does the same without raising. An exception in the block rolls back. Either way `report`
    tells what happened.

    Parameters
    ----------
    open_tx
        Begins the transaction. Called once, at the first chunk.
    main
        The array that `write_chunk` takes.
    companions
        Further arrays by name, written from `extras`; their grids have as many blocks per axis.
    partial
        True: chunks that never came stay out, for formats with a fill value. Else that is a failure.
    """

    def __init__(
        self,
        open_tx: Callable[[], Transaction],
        main: Stream,
        *,
        grid_shape: tuple[int, ...],
        companions: Mapping[str, Stream] | None = None,
        partial: bool = False,
    ) -> None:
        self._open_tx = open_tx
        self._streams: dict[str | None, Stream] = {None: main}
        self._streams.update(companions or {})
        self._grid_shape = grid_shape
        self._partial = partial
        self._expected = 1
        for n in grid_shape:
            self._expected *= n
        self._opening = threading.Lock()
        self._counting = threading.Condition()
        self._closing = False
        self._active = 0
        self._failures = Failures()
        self._tx: Transaction | None = None
        self._plans: dict[str | None, Plan] = {}
        self._sinks: dict[str | None, Sink] = {}
        self._receipts: dict[str | None, list[StagedObject]] = {n: [] for n in self._streams}
        self._taken: set[Index] = set()
        self._written = self._skipped = 0
        self._write_s = 0.0
        self._final: ChunkReport | None = None

    def write_chunk(self, index: Index, chunk: Any, extras: Extras | None = None) -> bool:
        """Stage one chunk; its memory may be reused as soon as this returns.

        A failure of storage does not raise here: it is kept, later chunks are not written, and
        `close` reports it, or the end of the ``with`` block raises it.

        Parameters
        ----------
        index
            Position in the grid: the chunk's, or the shard's where a shard is one chunk.
        chunk
            An array of any kind that `fstx.write` takes, of the block's shape.
        extras
            The same block of each companion, by name; all of them or the call is refused.

        Returns
        -------
        bool
            True when it was staged, False when it was skipped or failed.

        Raises
        ------
        UsageError
            An index outside the grid or seen before, wrong names in `extras`, or a closed writer.
        """
        self._check(index, extras)
        with self._counting:
            if self._closing:
                raise UsageError("the chunk writer is closed")
            if index in self._taken:
                raise UsageError(f"chunk {index} was written before")
            self._taken.add(index)
            if self._failures.halted:
                self._skipped += 1
                return False
            self._active += 1
        done = None
        seconds = 0.0
        try:
            self._open()
            began = time.perf_counter()
            done = self._put(index, chunk, extras)
            seconds = time.perf_counter() - began
        except Exception as error:  # noqa: BLE001 - kept, reported by close, raised by __exit__
            self._failures.record(error, writing(index))
            return False
        finally:
            with self._counting:
                self._active -= 1
                if done is not None:
                    self._write_s += seconds
                    self._written += 1
                    for name, receipts in done.items():
                        self._receipts[name].extend(receipts)
                self._counting.notify_all()
        return done is not None

    def close(self) -> ChunkReport:
        """Commit when all chunks are there, roll back on failure, and report. Does not raise for either.

        Waits for chunks that other threads are writing. A second call returns the same report.
        """
        self._settle()
        if self._final is not None:
            return self._final
        snapshot = None
        if self._tx is not None and not self._failures.halted:
            try:
                self._complete()
            except BaseException as error:
                self._failures.record(error)
                if not isinstance(error, Exception):
                    self._abort()
                    raise
        if self._failures.halted:
            self._abort()
        elif self._tx is not None:
            try:
                snapshot = self._tx.commit()
            except Exception as error:  # noqa: BLE001 - as above; commit itself left the old state
                self._failures.record(error)
        self._final = self._report(snapshot)
        return self._final

    @property
    def report(self) -> ChunkReport:
        """The final report, or the state so far with status ``"open"``."""
        return self._final or self._report(None, still_open=True)

    def __repr__(self) -> str:
        names = ", ".join(n for n in self._streams if n is not None)
        return (
            f"<ChunkWriter {self.report.status}: {self._written} of {self._expected} chunks written, "
            f"grid {self._grid_shape}{f', with {names}' if names else ''}>"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._failures.record(error)
            self._settle()
            if self._final is None:
                self._abort()
                self._final = self._report(None)
            return
        failed = self.close().error
        if failed is not None:
            raise failed

    def _settle(self) -> None:
        """Refuse new chunks and wait until none is being written."""
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                with self._counting:
                    self._closing = True
                    self._counting.wait_for(lambda: not self._active)
                break
            except KeyboardInterrupt as error:
                self._failures.record(error)
                interrupt = error
        if interrupt is not None:
            self._abort()
            raise interrupt

    def _check(self, index: Index, extras: Extras | None) -> None:
        if not isinstance(index, tuple):
            raise UsageError(
                f"the index of a chunk is a tuple, one number for each axis: {index!r}"
            )
        inside = len(index) == len(self._grid_shape) and all(
            0 <= i < n for i, n in zip(index, self._grid_shape, strict=True)
        )
        if not inside:
            raise UsageError(f"chunk {index} is outside the grid of {self._grid_shape} chunks")
        wanted = {name for name in self._streams if name is not None}
        if set(extras or ()) != wanted:
            raise UsageError(
                f"extras of chunk {index} are {sorted(extras or ())}, "
                f"the companions are {sorted(wanted)}"
            )

    def _open(self) -> None:
        """Begin the transaction and make the plans, once; a failure is the first chunk's."""
        with self._opening:
            if self._tx is not None or self._failures.halted:
                return
            tx = self._tx = self._open_tx()
            for name, stream in self._streams.items():
                plan = stream.plan(tx) if callable(stream.plan) else stream.plan
                check_grid(stream.spec, plan)
                if tuple(len(lengths) for lengths in plan.grid) != self._grid_shape:
                    raise UsageError(
                        f"the plan of {name or 'the array'} has another grid than "
                        f"{self._grid_shape}: {tuple(len(g) for g in plan.grid)}"
                    )
                self._plans[name] = plan
            for name, plan in self._plans.items():
                self._sinks[name] = plan.sink(tx.stager())

    def _put(
        self, index: Index, chunk: Any, extras: Extras | None
    ) -> dict[str | None, tuple[StagedObject, ...]] | None:
        """Receipts by array, or None when another chunk failed in the meantime."""
        done = {}
        for name, stream in self._streams.items():
            if self._failures.halted:
                with self._counting:
                    self._skipped += 1
                return None
            values = chunk if name is None else (extras or {})[name]
            plan = self._plans[name]
            shape = None
            if not getattr(plan, "ragged", False):
                shape = tuple(lengths[i] for lengths, i in zip(plan.grid, index, strict=True))
            done[name] = self._sinks[name].write(index, admit(values, shape, stream.spec.dtype))
        return done

    def _complete(self) -> None:
        assert self._tx is not None
        missing = self._expected - self._written
        if missing and not self._partial:
            raise UsageError(
                f"{self._written} of {self._expected} chunks were written; pass partial=True "
                "when the others are to stay out"
            )
        for name, sink in self._sinks.items():
            self._receipts[name].extend(sink.close())
            self._plans[name].finish(self._tx, self._receipts[name])

    def _abort(self) -> None:
        first = self._failures.first()
        assert first is not None
        for sink in self._sinks.values():
            discard(sink, first)
        if self._tx is None:
            return
        try:
            self._tx.rollback()
        except Exception as error:  # noqa: BLE001 - the first failure is the one to report
            first.add_note(f"rolling back failed too: {error!r}")

    def _report(self, snapshot: Snapshot | None, *, still_open: bool = False) -> ChunkReport:
        error = self._failures.first()
        status: Literal["open", "empty", "written", "failed"] = "written"
        if still_open:
            status = "open"
        elif error is not None:
            status = "failed"
        elif self._tx is None:
            status = "empty"
        size_bytes = sum(r.size_bytes for done in self._receipts.values() for r in done)
        seconds = self._write_s if self._written and error is None else None
        return ChunkReport(
            status,
            self._expected,
            self._written,
            self._skipped,
            size_bytes,
            seconds,
            error,
            snapshot,
        )
