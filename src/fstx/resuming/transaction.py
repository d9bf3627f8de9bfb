"""A transaction whose finished units of work outlive a kill, an exception and a failed commit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fstx.backends.base import roll_back, storage_errors
from fstx.depot import Depot
from fstx.errors import (
    FencedError,
    PathError,
    StateError,
    StorageError,
    TransactionError,
    UsageError,
)
from fstx.paths import check_path, is_below
from fstx.protocol import StagedFile, Stager, Transaction
from fstx.resuming.handing import hand_over
from fstx.resuming.ledger import Ledger
from fstx.resuming.units import Kept, Unit, UnitId, encode_record, id_text
from fstx.resuming.unitwriter import UnitWriter
from fstx.state.entries import checksum
from fstx.types import Buffer, Data, Guarantee, Sidecars, Snapshot, StagedObject

_READ_BYTES = 8 << 20


class ResumableTransaction:
    """A `Transaction` with units of work. Leaving ``with`` commits; an exception keeps what is finished.

    ``with tx.unit(id) as unit: unit.stage(path, data)`` finishes a unit. `is_done` and `remaining` tell what
    an earlier run finished. `stage` and `open` of the transaction itself are for what belongs to no unit (an
    index): it is not kept, and staged anew by each run.

    Parameters
    ----------
    inner
        The transaction that publishes; open, or committed by an earlier run.
    depot
        Of this job.
    ledger
        Units that earlier runs finished, checked.
    """

    def __init__(
        self,
        inner: Transaction,
        depot: Depot,
        ledger: Ledger,
        *,
        entry: str | None,
        forget: Callable[[], object],
    ) -> None:
        self._inner = inner
        self._before_staging = getattr(inner, "_before_staging", None)
        self._depot = depot
        self._entry = entry
        self._forget = forget
        self._units = ledger
        self._before = frozenset(ledger)
        self._stager = depot.stager()
        self._token = depot.name.partition("-")[2]
        self._lock = threading.RLock()
        self._running: set[str] = set()
        self._over = inner.committed
        self._context = contextlib.ExitStack()

    # --- units -----------------------------------------------------------------------------------

    @property
    def done(self) -> Mapping[str, Unit]:
        """All finished units by the text of their id: of earlier runs and of this one."""
        with self._lock:
            return self._units.copy()

    @property
    def done_before(self) -> frozenset[str]:
        """Ids, as text, of the units that earlier runs finished; the rest of `done` is this run's."""
        return self._before

    def is_done(self, unit: UnitId, /) -> bool:
        """Whether a unit was finished, by this run or an earlier one; all are, once `committed`."""
        return id_text(unit) in self._units or self._inner.committed

    def remaining(self, units: Iterable[Any], /) -> Iterator[Any]:
        """Those of `units` that are not finished, in their order."""
        known = self._units.keys()
        for unit in units:
            if id_text(unit) not in known and not self._inner.committed:
                yield unit

    def unit(self, id: UnitId, /) -> AbstractContextManager[UnitWriter]:
        """A block that does one unit of work.

        When it ends the unit is finished: it survives a kill from here on, and a loss of power at the latest
        256 units later (on local files only where syncfs(2) can be used; elsewhere what the system has not
        written yet is done again). A unit that staged nothing is finished as well, and isn't done again. An
        exception discards what the block staged, and the unit is as if it had not begun.

        Raises
        ------
        StateError
            It is finished already, or under way in another thread.
        PathError
            A path that can't be staged, or that another unit has.
        """
        return UnitWriter(id_text(id), self, self._stager)

    def _begin_unit(self, writer: UnitWriter) -> None:
        """A unit's block begins."""
        id = writer.id
        with self._lock:
            self._must_be_open()
            if id in self._units or id in self._running:
                state = "finished" if id in self._units else "under way"
                raise StateError(f"unit {id} is {state}; ask tx.is_done(unit) first", txid=self.id)
            self._running.add(id)

    def _end_unit(self, writer: UnitWriter, *, finished: bool) -> None:
        """A unit's block ends."""
        try:
            if finished:
                self._keep(writer.id, writer.objects, writer.info)
        except BaseException:
            finished = False
            raise
        finally:
            if not finished:
                with contextlib.suppress(OSError):
                    self._depot.delete([staged.key for staged, _ in writer.objects])
            with self._lock:
                self._running.discard(writer.id)

    def unit_stager(self) -> Stager:
        """A handle for workers: what it stages can be finished here by `finish`."""
        return self._stager

    def finish(
        self,
        id: UnitId,
        receipts: Iterable[StagedObject],
        /,
        *,
        info: Mapping[str, Any] | None = None,
        checksums: Mapping[str, str] | None = None,
    ) -> Unit:
        """Finish a unit that workers staged through `unit_stager`. Again for a finished unit: no effect.

        `checksums`, by the receipts' keys, are computed here where they are missing: by reading back.

        Raises
        ------
        StateError
            A receipt of another job.
        StorageError
            A staged object is not there whole.
        """
        text = id_text(id)
        with self._lock:
            self._must_be_open()
            known = self._units.get(text)
        if known is not None:  # a task that ran twice; what it staged goes with the depot
            return known
        sums = checksums or {}
        taken = []
        for staged in receipts:
            if staged.txid != self._token:
                raise StateError(
                    f"the receipt of {staged.path!r} is of another job, {staged.txid}", txid=self.id
                )
            last = self._may_stage(staged.path, text) or staged.publisher
            taken.append((replace(staged, publisher=last), sums.get(staged.key, "")))
        taken = [(staged, sum_ or self._sum(staged)) for staged, sum_ in taken]
        more = dict(info or {})
        self._keep(text, taken, more)
        return Unit(text, tuple(Kept(*one) for one in taken), more)

    def _keep(
        self, text: str, objects: Collection[tuple[StagedObject, str]], info: dict[str, Any]
    ) -> None:
        try:
            line = encode_record(text, objects, info)
        except (TypeError, ValueError) as error:
            raise UsageError(f"unit {text}: its info is no plain JSON ({error})") from error
        with self._lock:
            self._must_be_open()
            for staged, _ in objects:
                self._must_be_free(staged.path, text)
            with storage_errors(f"recording unit {text} in {self._depot.url} failed", self.id):
                self._depot.append(line)
            self._units.keep(text, [staged for staged, _ in objects], line)

    def _sum(self, staged: StagedObject) -> str:
        found = 0

        def pieces() -> Iterator[bytes]:
            nonlocal found
            for start in range(0, staged.size_bytes, _READ_BYTES):
                piece = self._depot.read(
                    staged.key, start, min(start + _READ_BYTES, staged.size_bytes)
                )
                found += len(piece)
                yield piece

        try:
            sum_ = checksum(pieces())
        except FileNotFoundError:
            found = -1
        if found != staged.size_bytes:
            raise StorageError(
                f"the staged bytes of {staged.path!r} are not there whole ({staged.size_bytes} bytes "
                f"expected, {max(found, 0)} found)",
                txid=self.id,
            )
        return sum_

    def _may_stage(self, path: str, unit: str) -> bool:
        """Refuse a path that can't be staged by a unit; whether it is the entry."""
        check_path(path)
        self._must_be_free(path, unit)
        if self._before_staging is not None:
            self._before_staging(path)
        return path == self._entry

    def _must_be_free(self, path: str, unit: str) -> None:
        """Refuse what another unit wrote."""
        owner = self._units.owner(path)
        if owner is not None and owner != unit:
            raise PathError(f"{path!r} was written by unit {owner}; unit {unit} needs another path")

    # --- Transaction -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The job's id: the caller's, or one drawn by the first run."""
        return self._inner.id

    @property
    def url(self) -> str:
        """The target."""
        return self._inner.url

    @property
    def guarantee(self) -> Guarantee:
        """What is promised here, and what proved it."""
        return self._inner.guarantee

    @property
    def committed(self) -> bool:
        """True once published, also by an earlier run of this job."""
        return self._inner.committed

    @property
    def over(self) -> bool:
        """True after commit, rollback or suspend."""
        return self._over

    @property
    def depot(self) -> Depot:
        """Of this job: for what belongs to a unit that isn't finished."""
        return self._depot

    @property
    def depot_url(self) -> str:
        """Where finished units wait."""
        return self._depot.url

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage and adopt one object that belongs to no unit."""
        self._not_of_a_unit(path)
        return self._inner.stage(path, data, publisher=publisher)

    def open(self, path: str, /, *, publisher: bool = False) -> AbstractContextManager[StagedFile]:
        """A writer of one object that belongs to no unit."""
        self._not_of_a_unit(path)
        return self._inner.open(path, publisher=publisher)

    def local_path(
        self,
        path: str,
        /,
        *,
        copy: bool = False,
        sidecars: Sidecars = "refuse",
        publisher: bool = False,
    ) -> AbstractContextManager[Path]:
        """A local path for a library that writes one file by itself, which belongs to no unit."""
        self._not_of_a_unit(path)
        return self._inner.local_path(path, copy=copy, sidecars=sidecars, publisher=publisher)

    def stager(self) -> Stager:
        """A handle for workers, for objects that belong to no unit; see `unit_stager`."""
        return self._inner.stager()

    def adopt(self, receipts: Iterable[StagedObject], /) -> None:
        """Take objects that `stager` staged."""
        receipts = list(receipts)
        for receipt in receipts:
            self._not_of_a_unit(receipt.path)
        self._inner.adopt(receipts)

    def compose(
        self, path: str, pieces: Sequence[Buffer | StagedObject], /, *, publisher: bool = False
    ) -> StagedObject:
        """Stage one object out of buffers and of what `stager` staged."""
        self._not_of_a_unit(path)
        return self._inner.compose(path, pieces, publisher=publisher)

    def remove(self, path: str, /) -> None:
        """Remove at commit a file or a tree that was there before."""
        self._not_of_a_unit(path)
        self._inner.remove(path)

    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes as they would be after commit."""
        kept = self._kept(path)
        if kept is None:
            return self._inner.read(path, start, stop)
        first, last, _ = slice(start, stop).indices(kept.object.size_bytes)
        return self._depot.read(kept.object.key, first, last) if last > first else b""

    def paths(self, prefix: str = "", /) -> Iterator[str]:
        """Paths of the files below `prefix` as they would be after commit, sorted."""
        with self._lock:
            ours = [p for p in self._units.paths() if not prefix or is_below(p, prefix.rstrip("/"))]
        return iter(sorted({*self._inner.paths(prefix), *ours}))

    def paths_before(self, prefix: str = "", /) -> Iterator[str]:
        """As `paths`, without what units wrote."""
        return self._inner.paths(prefix)

    def _kept(self, path: str) -> Kept | None:
        with self._lock:
            unit = self._units.get(self._units.owner(path) or "")
        if unit is None:
            return None
        return next((k for k in unit.objects if k.object.path == path), None)

    def commit(self) -> Snapshot:
        """Publish all finished units and what was staged besides, or nothing.

        Afterwards nothing of the job is left beside the target. When it raises, the finished units are kept,
        and the job can be resumed: also after a conflict.

        Raises
        ------
        ResumeError
            A kept object is gone; a run that resumes does its unit again.
        FencedError
            Another process took the job over, and ended it.
        CommitError, InDoubtError
            As for any transaction.
        """
        with self._lock:
            if self._running:
                raise StateError(f"unit {min(self._running)} is under way", txid=self.id)
            handed = self._over
            try:
                if not handed:
                    hand_over(self._units, self._depot, self._inner)
                handed = True
                snapshot = self._inner.commit()
            except BaseException as error:
                try:
                    self._leave()
                finally:
                    if not handed:
                        with contextlib.suppress(OSError, TransactionError):
                            self._inner.rollback()
                if not self._inner.committed and not isinstance(error, FencedError):
                    self._tell(error)
                raise
            self._over = True
            self._clear()
            return snapshot

    def rollback(self) -> None:
        """Give up: the target is as it was, and nothing of the job is left, finished units neither."""
        with self._lock:
            if self._over:
                return
            self._over = True
            try:
                self._inner.rollback()
            finally:
                self._clear()

    def suspend(self) -> None:
        """Stop here: the target is as it was, and finished units wait for a run that resumes."""
        with self._lock:
            if not self._over:
                try:
                    self._leave()
                finally:
                    self._inner.rollback()

    def _leave(self) -> None:
        self._over = True
        with contextlib.suppress(OSError):
            self._depot.close()

    def _clear(self) -> None:
        """The commit is done, or given up: what can't be removed now, `fstx.jobs` still shows."""
        with contextlib.suppress(OSError):
            self._depot.remove()
            self._forget()

    def __enter__(self) -> Self:
        current = getattr(self._inner, "current", None)
        if current is not None:  # tx:: file systems of this context join
            self._context.enter_context(current())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._context.close()
        if self._over:
            return
        if kind is None:
            self.commit()
            return
        roll_back(self.suspend, error, self.id)
        if error is not None:
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        error.add_note(
            f"{len(self._units)} finished units are kept in {self._depot.url}; "
            "the same call with resume='if_possible' goes on"
        )

    def __repr__(self) -> str:
        return (
            f"<ResumableTransaction {self.id[:12]} on {self.guarantee.url}: "
            f"{len(self._units)} units finished, {len(self._before)} of them by earlier runs>"
        )

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "a Transaction stays with its coordinator; send tx.unit_stager() to workers and give their "
            "receipts to tx.finish(unit, receipts)"
        )

    def _not_of_a_unit(self, path: str) -> None:
        owner = self._units.owner(path)
        if owner is not None:
            raise PathError(f"{path!r} was written by unit {owner} of this job")

    def _must_be_open(self) -> None:
        if self._over:
            raise StateError(
                f"transaction {self.id} is over"
                + ("; test tx.committed first" if self._inner.committed else ""),
                txid=self.id,
            )


__all__ = ["ResumableTransaction", "UnitWriter"]
