"""The loop over the batches of a dataset, and its end: post-processing, ``_metadata``, commit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self

from fstx.batching.values import Batch, BatchReport, Wanted
from fstx.errors import PathError, ResumeError, StateError, UsageError
from fstx.layouts import parquet
from fstx.layouts.parquet import DatasetRecord, Part
from fstx.protocol import StagedFile, Transaction
from fstx.resuming import ResumableTransaction, UnitWriter
from fstx.types import Data, Snapshot, StagedObject

_THREADS = 8
POST, POST_STARTED = "post", "post/started"


def unit_id(number: int) -> str:
    """The id of the unit of one batch."""
    return f"batch/{number}"


def part_of(info: Mapping[str, Any], objects: Any) -> Part:
    """What a kept unit says of its batch."""
    kept = objects[0] if objects else None
    return Part(
        info["start"],
        info["stop"],
        info["rows"],
        kept.object.size_bytes if kept else 0,
        kept.checksum if kept else "",
    )


def read_footer(tx: Transaction | ResumableTransaction, path: str, size_bytes: int) -> Any:
    """The footer of a part; ValueError where it has none, or another length."""
    start = max(0, size_bytes - parquet.TAIL_BYTES)
    while True:
        tail = tx.read(path, start)
        if len(tail) != size_bytes - start:
            raise ValueError(f"{path} has another length than {size_bytes} bytes")
        found = parquet.footer(tail)
        if found is not None:
            return found
        if not start:
            raise ValueError(f"{path}: its footer says that it is longer than the file")
        start = max(0, size_bytes - int.from_bytes(tail[-8:-4], "little") - 8)


class Batches:
    """The batches of a dataset that are still to be written; made by `fstx.batches`.

    ``for batch in job: job.write(batch, rows)``. Leaving the ``with`` block commits when all batches are
    there; an exception keeps those that are, for a call that resumes. `write` may be called from any thread.
    """

    def __init__(
        self,
        wanted: Wanted,
        tx: ResumableTransaction | None,
        plan: list[Batch],
        totals: tuple[int, ...],
        there: Mapping[int, Part],
        post: bool,
    ) -> None:
        self._wanted = wanted
        self._tx = tx
        self._plan = plan
        self._totals = totals
        self._lock = threading.Lock()
        self._parts = dict(there)
        self._now: set[int] = set()
        self._post: Literal["none", "now", "before"] = "before" if post else "none"
        self._snapshot: Snapshot | None = None

    @property
    def url(self) -> str:
        """The dataset."""
        return self._wanted.url

    @property
    def finished(self) -> bool:
        """True when the dataset was complete before: there is nothing to do."""
        return self._tx is None

    @property
    def committed(self) -> bool:
        """Whether readers find the whole dataset."""
        return self._tx is None or self._snapshot is not None

    @property
    def plan(self) -> tuple[Batch, ...]:
        """All batches, written ones too."""
        return tuple(self._plan)

    def remaining(self) -> Iterator[Batch]:
        """The batches that are not written yet."""
        for batch in self._plan:
            if batch.number not in self._parts:
                yield batch

    __iter__ = remaining

    @property
    def report(self) -> BatchReport:
        """What is there, and which part of it is this call's."""
        with self._lock:
            parts, now = dict(self._parts), set(self._now)
        return BatchReport(
            self.url,
            rows=sum(p.rows for p in parts.values()),
            rows_now=sum(parts[n].rows for n in now),
            batches=len(parts),
            batches_now=len(now),
            empty=sum(not p.rows for p in parts.values()),
            parts=tuple(parquet.part_name(n) for n, p in sorted(parts.items()) if p.rows),
            post=self._post,
            snapshot=self._snapshot,
        )

    def write(self, batch: Batch, data: Any) -> int:
        """Write one batch; it is kept from here on, whatever ends this process. Returns its rows.

        Parameters
        ----------
        batch
            One of `remaining`.
        data
            A pyarrow Table, RecordBatch or iterable of them, a DataFrame, a list of dictionaries, or a
            dictionary of columns. Fewer rows than planned are taken for what they are, also none at all;
            more only with ``allow_resize=True``.

        Raises
        ------
        UsageError
            Other columns than the schema's, too many rows, or a batch of another plan.
        StateError
            The batch is written already, or all is over.
        """
        tx = self._open()
        if not 0 <= batch.number < len(self._plan) or self._plan[batch.number] != batch:
            raise UsageError(f"{batch} is no batch of this dataset")
        if batch.number in self._parts:
            raise StateError(f"batch {batch.number} is written already", txid=tx.id)
        table = parquet.to_table(data, self._wanted.schema)
        rows: int = table.num_rows
        if rows > batch.rows and not self._wanted.allow_resize:
            raise UsageError(
                f"batch {batch.number} brought {rows} rows, planned are {batch.rows}; pass allow_resize=True "
                "(with resume='never') where batches may grow"
            )
        with tx.unit(unit_id(batch.number)) as unit:
            if rows:
                codec, level = self._wanted.compression, self._wanted.level
                unit.stage(batch.path, parquet.encode(table, compression=codec, level=level))
            unit.info |= {
                "batch": batch.number,
                "start": batch.start,
                "stop": batch.stop,
                "rows": rows,
                "rows_per_batch": self._wanted.rows_per_batch,
                "totals": list(self._totals),
            }
        part = Part(batch.start, batch.stop, rows)
        for staged, sum_ in unit.objects:
            part = replace(part, size_bytes=staged.size_bytes, checksum=sum_)
        with self._lock:
            self._parts[batch.number] = part
            self._now.add(batch.number)
        return rows

    def suspend(self) -> None:
        """Stop here: readers see what they saw before, and written batches wait for a call that resumes."""
        if self._tx is not None:
            self._tx.suspend()

    def _open(self) -> ResumableTransaction:
        if self._tx is None:
            raise StateError(f"{self.url} was complete before; there is nothing to write")
        return self._tx

    def __enter__(self) -> Self:
        if self._tx is not None:
            self._tx.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        tx = self._tx
        if tx is None:
            return
        if kind is None and not tx.over:
            try:
                self._complete(tx)
            except BaseException as failure:
                tx.__exit__(type(failure), failure, failure.__traceback__)
                raise
        tx.__exit__(kind, error, trace)

    def _complete(self, tx: ResumableTransaction) -> None:
        missing = list(self.remaining())
        if missing:
            raise StateError(
                f"{len(missing)} of {len(self._plan)} batches of {self.url} are not written, the first is "
                f"{missing[0].number}; to stop here on purpose call suspend()",
                txid=tx.id,
            )
        if self._wanted.post is not None and self._post == "none":
            self._run_post(tx)
        record = DatasetRecord(
            self._wanted.rows_per_batch,
            self._totals,
            (
                self._wanted.fingerprint.algorithm,
                self._wanted.fingerprint.version,
                self._wanted.fingerprint.digest,
            ),
            self._wanted.fingerprint.readable,
            self._parts,
            self._post != "none",
        )
        named = [(n, p) for n, p in sorted(self._parts.items()) if p.rows]

        def one(numbered: tuple[int, Part]) -> tuple[str, Any]:
            path = parquet.part_name(numbered[0])
            return path, read_footer(tx, path, numbered[1].size_bytes)

        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                footers = list(pool.map(one, named))
        except (ValueError, FileNotFoundError) as error:
            raise ResumeError(
                f"a part of {self.url} was damaged while it waited: {error}. Run the same call again: it is "
                "done anew",
                txid=tx.id,
            ) from error
        data = parquet.metadata_file(self._wanted.schema, footers, record)
        tx.stage(parquet.METADATA, data, publisher=True)
        self._snapshot = tx.commit()

    def _run_post(self, tx: ResumableTransaction) -> None:
        assert self._wanted.post is not None
        if not tx.is_done(POST_STARTED):
            tx.finish(POST_STARTED, [])
        with tx.unit(POST) as unit:
            self._wanted.post(PostProcessing(tx, unit, self.report))
        self._post = "now"

    def __repr__(self) -> str:
        report = self.report
        return (
            f"<Batches of {self.url}: {report.batches} of {len(self._plan)} written, {report.rows} rows, "
            f"{report.batches_now} batches by this call>"
        )


class PostProcessing:
    """What post-processing works with: all parts, readable, and a place for more files.

    Files are published with the dataset. Their names begin with ``_`` or ``.``, which readers of parquet
    datasets skip.
    """

    def __init__(self, tx: ResumableTransaction, unit: UnitWriter, report: BatchReport) -> None:
        self._tx = tx
        self._unit = unit
        self.report = report

    @property
    def parts(self) -> tuple[str, ...]:
        """Paths of the parts."""
        return self.report.parts

    def table(self, part: str, columns: list[str] | None = None) -> Any:
        """One part as a pyarrow Table."""
        pa, pq = parquet.libraries()
        source = pa.BufferReader(self._tx.read(part))
        return pq.read_table(source, columns=columns, page_checksum_verification=True)

    def stage(self, path: str, data: Data, /) -> StagedObject:
        """Add one file."""
        return self._unit.stage(self._named(path), data)

    def open(self, path: str, /) -> AbstractContextManager[StagedFile]:
        """Add one file that is written piece by piece."""
        return self._unit.open(self._named(path))

    def _named(self, path: str) -> str:
        if path == parquet.METADATA or path[:1] not in ("_", "."):
            raise PathError(
                f"{path!r}: files beside the parts have names that begin with '_' or '.', which readers of "
                f"the dataset skip; {parquet.METADATA} is taken"
            )
        return path


__all__ = ["POST", "POST_STARTED", "Batches", "PostProcessing", "part_of", "read_footer", "unit_id"]
