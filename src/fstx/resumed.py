"""One `write` that goes on where an earlier run stopped: blocks of the plan are units that are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from typing import Any, Protocol, cast

from fstx.errors import ResumeError, UsageError
from fstx.goals import Goal
from fstx.plan import Grid, Host, Index, Plan, Source
from fstx.progress import Progress, reporter
from fstx.protocol import Stager, Transaction
from fstx.resuming import Fingerprint, ResumableTransaction, fingerprint
from fstx.resuming.summing import SummingStager
from fstx.types import Buffer, Snapshot, StagedObject
from fstx.writing import blocks_of, check_grid, discard, require_remote

_CLERKS = 4
_WORD_CHARS = 200
_READ_BYTES = 8 << 20


class ResumablePlan(Plan, Protocol):
    """A plan whose blocks can be kept before the others are there."""

    @property
    def units(self) -> Grid:
        """How many neighbouring blocks along each axis are finished together."""


@dataclass(frozen=True)
class Landed:
    """What came of one block: its objects, each with its checksum where that is known."""

    index: Index
    objects: tuple[tuple[StagedObject, str], ...]


@dataclass(frozen=True)
class ResumedJob:
    """One resumable `write`, ready to run: validated, nothing begun."""

    goal: Goal
    source: Source
    max_workers: int | None
    progress: Progress

    def __call__(self) -> Snapshot:
        check_grid(self.source.spec, self.goal.plan)
        tx, plan = self._opened(self.goal)
        if tx.committed:
            reason = "committed before"
            return Snapshot(tx.id, (self.goal.url,), tx.guarantee.strategy, 0, 0, reason=reason)
        with tx, reporter(self.progress, blocks_of(plan), self.goal.url) as advance:
            units = _Units(tx, plan)
            before = len(tx.done_before)
            if units.skipped:
                advance(units.skipped)
            if units.wanted:
                self._run(tx, plan, units, advance)
            receipts = [k.object for unit in tx.done.values() for k in unit.objects]
            plan.finish(cast("Transaction", _Adopted(tx)), receipts)
            total = len(tx.done)
            snapshot = tx.commit()
        if not before or snapshot.reason:
            return snapshot
        reason = (
            f"{before} of {total} units were finished by earlier runs, {total - before} by this one"
        )
        return replace(snapshot, reason=reason)

    def _opened(self, goal: Goal) -> tuple[ResumableTransaction, ResumablePlan]:
        """The job's transaction and the plan that its kept units were made for."""
        opened: Any = goal.open()
        tx: ResumableTransaction = opened
        if tx.committed:
            return tx, cast("ResumablePlan", goal.plan)
        try:
            return tx, self._prepared(tx)
        except ResumeError:
            tx.suspend()
            if goal.resume != "if_possible":
                raise
        except BaseException:
            tx.suspend()
            raise
        return self._opened(replace(goal, resume="never"))

    def _prepared(self, tx: ResumableTransaction) -> ResumablePlan:
        plan: Any = self.goal.prepare(cast("Transaction", tx), self.goal.plan)
        number = getattr(plan, "generation", None)
        kept = {unit.info["generation"] for unit in tx.done.values() if "generation" in unit.info}
        if number is None or not kept or kept == {number}:
            return cast("ResumablePlan", plan)
        if max(kept) < number:
            raise ResumeError(
                f"{self.goal.url} was replaced since its unfinished job began; what that kept has no place "
                "beside the new tiles. Begin anew with resume='never'; fstx.jobs(url) shows what was kept",
                txid=tx.id,
            )
        return cast("ResumablePlan", replace(plan, generation=max(kept)))

    def _run(
        self,
        tx: ResumableTransaction,
        plan: ResumablePlan,
        units: _Units,
        advance: Callable[[int], None],
    ) -> None:
        how: dict[str, Any] = {
            "max_workers": self.max_workers,
            "progress": advance,
            "only": units.wanted,
        }
        if self.source.remote:
            require_remote(cast("Transaction", tx))
            with _Clerks(units) as clerks:
                work: Any = _Remote(plan, tx.unit_stager())
                for _ in self.source.run(work, plan.grid, landed=clerks.landed, **how):
                    pass
            return
        stager = SummingStager(tx.unit_stager())
        sink = plan.sink(stager)

        def write(index: Index, block: Host) -> tuple[StagedObject, ...]:
            receipts = sink.write(index, block)
            units.take(Landed(index, tuple((r, stager.take(r)) for r in receipts)))
            return ()

        try:
            for _ in self.source.run(write, plan.grid, **how):
                pass
            sink.close()
        except BaseException as error:
            discard(sink, error)
            raise


def job_fingerprint(given: Any, plan: Any, keep_previous: bool) -> Fingerprint:
    """What makes two writes the same job: the caller's word for the data, and all of the plan."""
    data = fingerprint(given)
    parts = {
        "data": [data.algorithm, data.version, data.digest],
        "plan": plan,
        "keep_previous": keep_previous,
    }
    told = tuple((f"data {name}", value) for name, value in data.readable)
    return replace(fingerprint(parts), readable=(*told, *_words("", plan)))


def _words(above: str, plan: Any) -> Iterator[tuple[str, str]]:
    """What a plan says, field by field and short: for messages."""
    for one in fields(plan):
        value = getattr(plan, one.name)
        if is_dataclass(value):
            yield from _words(f"{above}{one.name}.", value)
        else:
            yield f"{above}{one.name}", repr(value)[:_WORD_CHARS]


class _Units:
    """Which blocks make up a unit, which are still to be written, and what has come of them."""

    def __init__(self, tx: ResumableTransaction, plan: ResumablePlan) -> None:
        self._tx = tx
        self._plan: Any = plan
        groups = [list(_groups(counts)) for counts in plan.units]
        blocks = product(*(range(len(lengths)) for lengths in plan.grid))
        self._of = {
            block: tuple(axis[i] for axis, i in zip(groups, block, strict=True)) for block in blocks
        }
        self._left: dict[Index, set[Index]] = {}
        for block, unit in self._of.items():
            self._left.setdefault(unit, set()).add(block)
        done = tx.done
        for unit in [u for u in self._left if unit_id(u) in done]:
            del self._left[unit]
        self.wanted = frozenset(b for b, unit in self._of.items() if unit in self._left)
        self.skipped = len(self._of) - len(self.wanted)
        self._objects: dict[Index, list[tuple[StagedObject, str]]] = {}
        self._lock = threading.Lock()

    def take(self, landed: Landed) -> None:
        """Take what came of a block; the last one of a unit finishes the unit. A repeated one is dropped."""
        unit = self._of[landed.index]
        with self._lock:
            left = self._left.get(unit)
            if left is None or landed.index not in left:
                return
            self._objects.setdefault(unit, []).extend(landed.objects)
            left.remove(landed.index)
            if left:
                return
            del self._left[unit]
            objects = self._objects.pop(unit)
        self._finish(unit, objects)

    def _finish(self, unit: Index, objects: list[tuple[StagedObject, str]]) -> None:
        receipts = [receipt for receipt, _ in objects]
        sums = {receipt.key: sum_ for receipt, sum_ in objects if sum_}
        if hasattr(self._plan, "parts"):
            receipts, composed = self._plan.parts(receipts)
            for path, pieces in composed.items():
                whole, sum_ = self._compose(path, pieces)
                receipts.append(whole)
                sums[whole.key] = sum_
        number = getattr(self._plan, "generation", None)
        info = {} if number is None else {"generation": number}
        self._tx.finish(unit_id(unit), receipts, info=info, checksums=sums)

    def _compose(
        self, path: str, pieces: Sequence[Buffer | StagedObject]
    ) -> tuple[StagedObject, str]:
        depot, stager = self._tx.depot, SummingStager(self._tx.unit_stager())
        with stager.open(path) as file:
            for piece in pieces:
                if not isinstance(piece, StagedObject):
                    file.write(piece)
                    continue
                for start in range(0, piece.size_bytes, _READ_BYTES):
                    stop = min(start + _READ_BYTES, piece.size_bytes)
                    file.write(depot.read(piece.key, start, stop))
        depot.delete([p.key for p in pieces if isinstance(p, StagedObject)])
        return file.receipt, stager.take(file.receipt)


def unit_id(index: Index) -> str:
    """The id of a unit of blocks."""
    return "b" + ".".join(map(str, index))


def _groups(counts: tuple[int, ...]) -> Iterator[int]:
    """For each block along an axis the number of its unit."""
    for number, count in enumerate(counts):
        yield from [number] * count


@dataclass(frozen=True)
class _Remote:
    """Stages one block from its plan and stager alone; goes to other processes."""

    plan: Plan
    stager: Stager

    def __call__(self, index: Index, block: Host) -> tuple[Landed, ...]:
        stager = SummingStager(self.stager)
        receipts = self.plan.write(stager, index, block)
        return (Landed(index, tuple((r, stager.take(r)) for r in receipts)),)


class _Clerks:
    """Threads that finish units as their blocks come back from other processes."""

    def __init__(self, units: _Units) -> None:
        self._units = units
        self._pool = ThreadPoolExecutor(_CLERKS, thread_name_prefix="fstx-unit")
        self._failure: BaseException | None = None

    def landed(self, told: tuple[Any, ...]) -> None:
        """Called from any thread; raises what finishing an earlier unit raised."""
        if self._failure is not None:
            raise self._failure
        for one in told:
            self._pool.submit(self._units.take, one).add_done_callback(self._ended)

    def _ended(self, future: Future[None]) -> None:
        error = future.exception()
        if error is not None and self._failure is None:
            self._failure = error

    def __enter__(self) -> _Clerks:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._pool.shutdown(wait=True)
        if error is None and self._failure is not None:
            raise self._failure


class _Adopted:
    """The transaction as a plan's `finish` sees it: finished units go along by themselves."""

    def __init__(self, tx: ResumableTransaction) -> None:
        self.stage = tx.stage

    def adopt(self, receipts: Any, /) -> None:
        """Nothing to do."""


def check_resumable(plan: Plan) -> None:
    """Raise `UsageError` for a plan that has no units."""
    if not hasattr(plan, "units"):  # the property itself may refuse, and say why
        raise UsageError(f"{plan.names[0]} can't be resumed: its layout has no units")


__all__ = ["Landed", "ResumedJob", "check_resumable", "job_fingerprint", "unit_id"]
