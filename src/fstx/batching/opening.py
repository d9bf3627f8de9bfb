"""What a call of `fstx.batches` goes on with: a finished dataset, an unfinished job, or nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from fstx import registry
from fstx.batching.run import POST, POST_STARTED, Batches, part_of, read_footer
from fstx.batching.values import (
    Wanted,
    bounds,
    check_size,
    longest,
    totals_with,
)
from fstx.checks import (
    DURABILITIES,
    Require,
    capabilities,
    check_choice,
    check_resume,
    urls_of,
)
from fstx.depot import Depot
from fstx.errors import ResumeError, TargetExistsError, UsageError
from fstx.integers import plain_numbers
from fstx.layouts import parquet
from fstx.layouts.parquet import DatasetRecord
from fstx.protocol import Transaction
from fstx.registry import URL
from fstx.resuming import ResumableTransaction, Resume, begin_job, fingerprint, jobs_of
from fstx.resuming.fingerprint import Fingerprint, differences
from fstx.resuming.units import Unit
from fstx.state.entries import matches
from fstx.types import Capability, Durability, Mode

_THREADS = 8


def batches(
    url: URL,
    *,
    schema: Any,
    rows: int,
    rows_per_batch: int,
    fingerprint: Any,
    resume: Resume = "if_possible",
    overwrite: bool = False,
    post: Callable[[Any], object] | None = None,
    repeat_post: bool = False,
    allow_resize: bool = False,
    verify: bool | None = None,
    compression: str | None = "zstd",
    level: int | None = None,
    durability: Durability = "data",
    require: Require = (Capability.RECOVERABLE,),
    storage_options: dict[str, Any] | None = None,
) -> Batches:
    """Generate a parquet dataset in batches that outlive a kill, and go on where an earlier call stopped.

    ``with fstx.batches(...) as job: for batch in job: job.write(batch, make(batch.start, batch.stop))``.
    Each written batch is kept at once, as ``part-00000.parquet`` and so on; readers see nothing before all
    are there. The same call with more `rows` adds batches to a dataset that is there.

    Parameters
    ----------
    url
        The dataset, a directory.
    schema
        A ``pyarrow.Schema``, or names and types.
    rows
        Rows of the whole dataset. More than before: the first batches keep their bounds. Less is refused.
    rows_per_batch
        Rows of a batch, the last one of a total has the rest. Another number than before is refused.
    fingerprint
        All that changes the rows, as `fstx.fingerprint` takes it; not `rows`.
    resume
        ``"if_possible"``: go on with what is kept, or with the dataset, where its fingerprint is this one.
        ``"always"``: or raise. ``"never"``: begin anew; what was kept is left alone.
    overwrite
        True: a dataset of `batches` that is there and can't be gone on with is replaced whole by the commit.
        Anything else at `url` is refused all the same.
    post
        Called once when all batches are there, with a `PostProcessing`, whose files are published as well.
        A dataset that went through it is complete: no other number of rows is taken afterwards.
    repeat_post
        True: `post` may run again where an earlier run of it was cut off. Otherwise that is refused.
    allow_resize
        Batches may bring more rows than planned; only with ``resume="never"``.
    verify
        True: compare the checksum of all that is kept or there, before anything else. False: look at lengths
        and footers. None: as False, but checksums of what was kept where power may have been lost since.
    compression, level
        Of the parts: ``"zstd"``, ``"snappy"``, ``"gzip"``, ``"lz4"``, ``"none"``.
    durability, require, storage_options
        As for `fstx.begin`.

    Raises
    ------
    ResumeError
        What is there can't be gone on with; the message says why, and what to do.
    TargetExistsError
        Something else is at `url`; or a dataset that `overwrite` would replace.
    UsageError
        A bad argument. In all cases before any work, and nothing was changed.
    """
    check_choice("durability", durability, DURABILITIES)
    check_resume(resume, fingerprint)
    rows, rows_per_batch = _count("rows", rows, 0), _count("rows_per_batch", rows_per_batch, 1)
    if allow_resize and resume != "never":
        raise UsageError(
            f"allow_resize=True with resume={resume!r}: batches of another length than planned can't "
            "be gone on with; pass resume='never', or leave allow_resize out"
        )
    if post is not None and not callable(post):
        raise UsageError(f"post={post!r} can't be called")
    schema = parquet.schema_of(schema)
    parquet.check_compression(compression, level)
    (target,), _ = urls_of(url)
    how: dict[str, Any] = {"compression": compression, "level": level, "allow_resize": allow_resize}
    wanted = Wanted(
        target,
        schema,
        rows,
        rows_per_batch,
        _print(fingerprint, schema, how),
        post,
        repeat_post,
        **how,
    )
    backend = registry.backend([target], joined=False, **dict(storage_options or {}))
    opening = _Opening(wanted, backend, durability, capabilities(require), verify, bool(overwrite))
    return opening(resume)


def _count(name: str, value: Any, least: int) -> int:
    value = plain_numbers(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name}={value!r}: a whole number from {least} is needed")
    return value


def _print(given: Any, schema: Any, how: dict[str, Any]) -> Fingerprint:
    data = fingerprint(given)
    parts = {
        "data": [data.algorithm, data.version, data.digest],
        "schema": parquet.described(schema),
        **how,
    }
    made = fingerprint(parts)
    told = tuple((f"data {name}", value) for name, value in data.readable)
    rest = tuple(pair for pair in made.readable if pair[0] != "data")
    return Fingerprint(made.algorithm, made.version, made.digest, (*told, *rest))


@dataclass(frozen=True)
class _Opening:
    """One call, its arguments checked."""

    wanted: Wanted
    backend: Any
    durability: Durability
    require: frozenset[Capability]
    verify: bool | None
    overwrite: bool

    def __call__(self, resume: Resume) -> Batches:
        while True:
            found, damaged = self._existing()
            if found is None:
                job = self._begin_first(resume)
            elif self._is_replaced(found, resume):
                found, damaged = None, frozenset()
                job = self._begin("replace", resume)
            else:
                self._must_fit(found, resume)
                self._settle_left()
                if not damaged and self._is_complete(found):
                    return self._batches(None, found, damaged)
                job = self._begin("update", "if_possible")
            if (
                job.committed
            ):  # a kill came between its commit and its clearing, and it is cleared now
                continue
            try:
                return self._batches(job, found, damaged)
            except BaseException:
                job.suspend()
                raise

    # --- what is there -----------------------------------------------------------------------------

    def _existing(self) -> tuple[DatasetRecord | None, frozenset[int]]:
        """The record of the dataset at the URL, and the numbers of its parts that are not whole."""
        tx = self._start("update", None, frozenset())
        try:
            try:
                data = tx.read(parquet.METADATA)
            except FileNotFoundError:
                return None, frozenset()
            try:
                found = parquet.read_record(data)
            except ValueError as error:
                raise ResumeError(
                    f"{self.wanted.url}/{parquet.METADATA} can't be read: {error}. Write to another URL, or "
                    "remove the dataset first"
                ) from error
            if found is None:
                return None, frozenset()
            return found, self._damaged(tx, found)
        finally:
            tx.rollback()

    def _damaged(self, tx: Transaction, found: DatasetRecord) -> frozenset[int]:
        def is_whole(number: int) -> bool:
            part = found.parts[number]
            path = parquet.part_name(number)
            try:
                rows = read_footer(tx, path, part.size_bytes).num_rows if part.rows else 0
                if rows != part.rows:
                    return False
                return not self.verify or not rows or matches(tx.read(path), part.checksum)
            except (ValueError, FileNotFoundError):
                return False

        with ThreadPoolExecutor(_THREADS) as pool:
            whole = list(pool.map(is_whole, found.parts))
        damaged = frozenset(n for n, good in zip(found.parts, whole, strict=True) if not good)
        if damaged:
            first = parquet.part_name(min(damaged))
            warnings.warn(
                f"{len(damaged)} parts of {self.wanted.url} are not there whole (the first: {first}); they "
                "are done again",
                RuntimeWarning,
                stacklevel=5,
            )
        return damaged

    def _is_replaced(self, found: DatasetRecord, resume: Resume) -> bool:
        if not self.overwrite:
            return False
        try:
            self._must_fit(found, resume)
        except (ResumeError, TargetExistsError):
            return True
        return False

    def _must_fit(self, found: DatasetRecord, resume: Resume) -> None:
        wanted, url = self.wanted, self.wanted.url
        before = Fingerprint(*found.fingerprint, found.readable)
        if resume == "never":
            raise TargetExistsError(
                f"{url} is there, and resume='never' begins anew: pass overwrite=True to replace it, or "
                "write to another URL"
            )
        if before != wanted.fingerprint:
            how = differences(before, wanted.fingerprint)
            if resume == "if_possible":
                raise TargetExistsError(
                    f"{url} holds a dataset that was configured otherwise: {how}. It is left as it is; pass "
                    "overwrite=True to replace it, or write to another URL"
                )
            raise ResumeError(
                f"{url} was configured otherwise: {how}. Call it with the configuration that it has, or "
                "write to another URL"
            )
        check_size(found.rows_per_batch, wanted.rows_per_batch, url)
        totals_with(found.totals, wanted.rows, url)
        self._post_allows(found.post, found.totals)

    def _post_allows(self, done: bool, totals: tuple[int, ...]) -> None:
        if done and totals[-1] != self.wanted.rows:
            raise ResumeError(
                f"{self.wanted.url} went through post-processing with {totals[-1]} rows, so it is complete: "
                f"ask for rows={totals[-1]}, or write {self.wanted.rows} rows to another URL"
            )

    def _is_complete(self, found: DatasetRecord) -> bool:
        return found.totals[-1] == self.wanted.rows and (self.wanted.post is None or found.post)

    def _settle_left(self) -> None:
        """Clear the job that made the dataset, where it was killed right after its commit."""
        ours = self.wanted.fingerprint
        modes: tuple[Mode, ...] = ("create", "update", "replace")
        for mode in modes:
            if not any(j.fingerprint == ours and j.mode == mode for j in jobs_of(self.backend)):
                continue
            try:
                job = self._begin(mode, "always")
            except (ResumeError, TargetExistsError):
                continue
            if not job.committed:
                job.suspend()

    # --- beginning ---------------------------------------------------------------------------------

    def _start(
        self, mode: Mode, id: str | None, require: frozenset[Capability] | None = None
    ) -> Transaction:
        tx: Transaction = self.backend.begin(
            mode=mode,
            durability=self.durability,
            require=self.require if require is None else require,
            entry=parquet.METADATA,
            id=id,
        )
        return tx

    def _begin(self, mode: Mode, resume: Resume) -> ResumableTransaction:
        return begin_job(
            self.backend,
            partial(self._start, mode),
            resume=resume,
            fingerprint=self.wanted.fingerprint,
            mode=mode,
            entry=parquet.METADATA,
            id=None,
            verify=self.verify,
            accept=accept,
        )

    def _begin_first(self, resume: Resume) -> ResumableTransaction:
        try:
            return self._begin("create", resume)
        except TargetExistsError as error:
            error.add_note(
                f"{self.wanted.url} holds no dataset of fstx.batches; it is left as it is. Write to "
                "another URL"
            )
            raise

    def _batches(
        self,
        tx: ResumableTransaction | None,
        found: DatasetRecord | None,
        damaged: frozenset[int],
    ) -> Batches:
        """The loop over what is missing; raises before any work where what is kept doesn't fit."""
        wanted = self.wanted
        units = {} if tx is None else dict(tx.done)
        post = (found is not None and found.post) or POST in units
        if POST_STARTED in units and POST not in units and not wanted.repeat_post:
            raise ResumeError(
                f"post-processing of {wanted.url} was begun and not finished by an earlier run, so nobody "
                "knows what it did. Where it may run again, pass repeat_post=True; otherwise begin anew with "
                "resume='never'"
            )
        kept = [unit for unit in units.values() if "batch" in unit.info]
        for unit in kept[:1]:
            check_size(unit.info["rows_per_batch"], wanted.rows_per_batch, wanted.url)
        before = longest([u.info for u in kept], found.totals if found else ())
        totals = totals_with(before, wanted.rows, wanted.url)
        if post:
            self._post_allows(True, before or totals)
        plan = bounds(totals, wanted.rows_per_batch)
        there = {n: p for n, p in found.parts.items() if n not in damaged} if found else {}
        for unit in kept:
            number, part = unit.info["batch"], part_of(unit.info, unit.objects)
            planned = plan[number] if number < len(plan) else None
            if planned is None or (planned.start, planned.stop) != (part.start, part.stop):
                raise ResumeError(
                    f"{wanted.url} was extended by another call since this job began, so its batch {number} "
                    "has other rows now. Drop the job, fstx.jobs(url), and call again"
                )
            there[number] = part
        return Batches(wanted, tx, plan, totals, there, post)


def accept(unit: Unit, depot: Depot) -> bool:
    """Whether the footer of a kept part says what its unit says."""
    if "batch" not in unit.info or not unit.objects:
        return True
    part = part_of(unit.info, unit.objects)
    staged = unit.objects[0].object

    class Kept:
        @staticmethod
        def read(path: str, start: int = 0) -> bytes:
            return depot.read(staged.key, start, staged.size_bytes)

    try:
        reader: Any = Kept
        rows: int = read_footer(reader, staged.path, staged.size_bytes).num_rows
    except (ValueError, OSError):
        return False
    return rows == part.rows


__all__ = ["accept", "batches"]
