"""The driver: joins any source, any plan and any transaction. It stages; it never commits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fstx.errors import CapabilityError, UsageError
from fstx.plan import ArraySpec, Host, Index, Plan, Sink, Source
from fstx.protocol import Stager, Transaction
from fstx.sources import open_source
from fstx.types import Capability, StagedObject


def write_into(
    tx: Transaction,
    source: Source | Any,
    plan: Plan,
    *,
    scheduler: Any = None,
    max_workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Stage every block of `source` under `plan` in `tx`, then what the plan publishes last.

    Afterwards the transaction holds the whole output and may be committed. When this raises, no
    block is being written any more, none was adopted, and `tx` can only be rolled back.

    Parameters
    ----------
    tx
        An active transaction.
    source
        A `Source`, or an array that `open_source` takes.
    plan
        Made by a layout for this source's `ArraySpec`.
    scheduler
        As for `open_source`; None keeps the source's own.
    max_workers
        Blocks written at once; None leaves it to the source.
    progress
        Called with a number of blocks that have just been finished: one call at a time, for dask
        arrays from worker threads.

    Raises
    ------
    UsageError
        A `plan` or `max_workers` that doesn't fit, before any block is computed.
    CapabilityError
        The scheduler runs in other processes and `tx` can't take objects from there; also before.
    Exception
        The first failure by time, with its traceback and a note that names the block. Later ones
        are in its ``others`` (errors of this library) or in its notes.
    """
    opened = source if hasattr(source, "run") and hasattr(source, "spec") else open_source(source)
    if scheduler is not None:
        opened = opened.with_scheduler(scheduler)
    check_workers(max_workers)
    check_grid(opened.spec, plan)
    report = progress or _quiet
    if opened.remote:
        require_remote(tx)
        work = _Remote(plan, tx.stager())
        receipts = list(opened.run(work, plan.grid, max_workers=max_workers, progress=report))
    else:
        sink = plan.sink(tx.stager())
        try:
            receipts = list(
                opened.run(sink.write, plan.grid, max_workers=max_workers, progress=report)
            )
            receipts.extend(sink.close())
        except BaseException as error:
            discard(sink, error)
            raise
    plan.finish(tx, receipts)


@dataclass(frozen=True)
class _Remote:
    """Stages one block from its plan and stager alone; goes to other processes."""

    plan: Plan
    stager: Stager

    def __call__(self, index: Index, block: Host) -> tuple[StagedObject, ...]:
        return self.plan.write(self.stager, index, block)


def check_workers(max_workers: int | None) -> None:
    """Raise `UsageError` unless `max_workers` is None or a positive integer."""
    if max_workers is None:
        return
    if isinstance(max_workers, bool) or not isinstance(max_workers, int) or max_workers < 1:
        raise UsageError(f"max_workers={max_workers!r}: a positive integer or None is needed")


def check_grid(spec: ArraySpec, plan: Plan) -> None:
    """Raise `UsageError` unless the blocks of `plan` tile an array of `spec` exactly."""
    covered = tuple(sum(lengths) for lengths in plan.grid)
    if covered != spec.shape:
        raise UsageError(
            f"the plan covers shape {covered}, the array has {spec.shape}: "
            "the plan was made for another array"
        )


def discard(sink: Sink, error: BaseException) -> None:
    """Drop what `sink` holds; a failure in that becomes a note of `error` and never hides it."""
    try:
        sink.discard()
    except Exception as second:  # noqa: BLE001 - the first failure is the one to raise
        error.add_note(f"discarding the open objects failed too: {second!r}")


def blocks_of(plan: Plan) -> int:
    """Number of blocks that `write_into` will write under `plan`; the total for `progress`."""
    return math.prod(len(lengths) for lengths in plan.grid)


def require_remote(tx: Transaction) -> None:
    if Capability.REMOTE_STAGING in tx.guarantee:
        return
    promised = {p.capability: p.reason for p in tx.guarantee.promises}
    reason = promised.get(Capability.REMOTE_STAGING, "not promised")
    raise CapabilityError(
        f"{tx.url}: the dask scheduler runs in other processes, and this place can't take objects "
        f"from there ({reason}); use scheduler='threads' or another target",
        txid=tx.id,
    )


def _quiet(_blocks: int) -> None:
    return None
