"""Values of a dataset in batches: bounds, what was asked for, what became of it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fstx.errors import ResumeError
from fstx.layouts.parquet import part_name
from fstx.resuming import Fingerprint
from fstx.types import Snapshot


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows `start` to `stop` of the dataset, as planned; part `number`."""

    number: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Rows that are planned; fewer may come."""
        return self.stop - self.start

    @property
    def path(self) -> str:
        """Path of the part in the dataset."""
        return part_name(self.number)


@dataclass(frozen=True)
class BatchReport:
    """What became of a dataset: names with ``_now`` are this call's part, the others count all calls.

    Attributes
    ----------
    rows, rows_now
        Real rows, as the parts' footers have them.
    batches, batches_now
        Batches that are written, empty ones included.
    empty
        Batches that brought no row; they have no part.
    parts
        Paths of all parts, in their order.
    post
        ``"none"``; ``"now"``: run by this call; ``"before"``: by an earlier one.
    snapshot
        What this call committed; None where there was nothing to do, or nothing was committed.
    """

    url: str
    rows: int
    rows_now: int
    batches: int
    batches_now: int
    empty: int
    parts: tuple[str, ...]
    post: Literal["none", "now", "before"]
    snapshot: Snapshot | None = None


@dataclass(frozen=True)
class Wanted:
    """What a call asks for."""

    url: str
    schema: Any
    rows: int
    rows_per_batch: int
    fingerprint: Fingerprint
    post: Callable[[Any], object] | None = None
    repeat_post: bool = False
    allow_resize: bool = False
    compression: str | None = "zstd"
    level: int | None = None


def bounds(totals: Sequence[int], rows_per_batch: int) -> list[Batch]:
    """The batches of totals that were asked for one after the other: each goes on where the last ended."""
    found: list[Batch] = []
    start = 0
    for total in totals:
        while start < total:
            stop = min(start + rows_per_batch, total)
            found.append(Batch(len(found), start, stop))
            start = stop
    return found


def totals_with(before: Sequence[int], rows: int, where: str) -> tuple[int, ...]:
    """What was asked for before, and `rows`; ResumeError where that is less."""
    if not before or rows > before[-1]:
        return (*before, rows)
    if rows < before[-1]:
        raise ResumeError(
            f"rows={rows}, but {where} was made for {before[-1]} rows: a dataset can grow, not shrink. Ask "
            f"for {before[-1]} rows or more, or write to another URL"
        )
    return tuple(before)


def check_size(before: int, now: int, where: str) -> None:
    """ResumeError where the batches that are there have another size."""
    if before != now:
        raise ResumeError(
            f"rows_per_batch={now}, but {where} has batches of {before}; pass rows_per_batch={before}, or "
            "begin anew at another URL"
        )


def longest(infos: Sequence[Mapping[str, Any]], before: Sequence[int]) -> tuple[int, ...]:
    """The totals that kept units were made for; `before` where there are none."""
    found = [tuple(info["totals"]) for info in infos]
    return max([tuple(before), *found], key=len)


__all__ = ["Batch", "BatchReport", "Wanted", "bounds", "check_size", "longest", "totals_with"]
