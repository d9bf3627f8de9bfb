"""Finds what earlier runs of a job left, decides whether this one goes on there, and begins."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from fstx import seams
from fstx.backends.base import storage_errors, wrap_storage_error
from fstx.depot import Depot, Depots
from fstx.errors import CapabilityError, ResumeError, TransactionError
from fstx.ops.processes import boot_id
from fstx.protocol import Transaction
from fstx.resuming.checking import checked
from fstx.resuming.fingerprint import Fingerprint, differences
from fstx.resuming.ledger import Ledger, sizes_of
from fstx.resuming.transaction import ResumableTransaction
from fstx.resuming.units import JobRecord, Unit, encode_job, record_of
from fstx.types import Mode

Resume: TypeAlias = Literal["never", "always", "if_possible"]
RESUMES: tuple[str, ...] = get_args(Resume)


@dataclass(frozen=True)
class Job:
    """An unfinished job: what `fstx.jobs` lists.

    ``problem`` says why its record can't be read, where it can't; the other fields are then empty.
    """

    name: str
    url: str
    targets: tuple[str, ...]
    mode: str
    fingerprint: Fingerprint | None
    begun_s: int
    units: int
    size_bytes: int
    problem: str
    _depot: Depot

    def discard(self) -> None:
        """Nothing of it is left afterwards. The target is not touched."""
        self._depot.remove()

    def __str__(self) -> str:
        if self.problem:
            return f"{self.url}: {self.problem}"
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.begun_s))
        return (
            f"{', '.join(self.targets)}: {self.units} units, {self.size_bytes} bytes, begun {begun}, "
            f"{self.fingerprint} in {self.url}"
        )


def key_of(targets: Sequence[str], id: str | None) -> str:
    """By this a job's depots are found: digest of its targets and of the caller's id."""
    text = "\n".join([*sorted(targets), id or ""])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def depots_of(backend: Any, entry: str | None = None) -> Depots:
    """The depots of a backend's place; CapabilityError where it has none."""
    make = getattr(backend, "depots", None)
    if make is None:
        raise CapabilityError(
            f"{backend!r} can't keep the units of an unfinished job, so nothing can be resumed there; "
            "leave resume= out, or use another storage"
        )
    found: Depots = make(entry)
    return found


def jobs_of(backend: Any) -> list[Job]:
    """All unfinished jobs in the place of a backend's targets, also those that run now."""
    depots = depots_of(backend)
    found = [_described(depots.open(name)) for name in depots.names()]
    return [job for job in found if job is not None]


def sweep(backend: Any) -> list[str]:
    """Remove what workers of jobs that are over have put there since; URLs of what went."""
    make = getattr(backend, "depots", None)
    if make is None:
        return []
    depots: Depots = make(None)
    with storage_errors(f"removing what is left of jobs in {backend!r} failed"):
        return depots.sweep()


def _described(depot: Depot) -> Job | None:
    try:
        record = record_of(depot)
    except FileNotFoundError:
        return None  # over: what is left of it is swept
    except (ResumeError, OSError) as error:
        return Job(depot.name, depot.url, (), "", None, 0, 0, 0, str(error), depot)
    with _uncollected():
        sizes = sizes_of(depot.lines())
    return Job(
        depot.name,
        depot.url,
        record.targets,
        record.mode,
        record.fingerprint,
        record.begun_s,
        len(sizes),
        sum(sizes.values()),
        "",
        depot,
    )


def begin_job(
    backend: Any,
    begin: Callable[[str], Transaction],
    *,
    resume: Resume,
    fingerprint: Fingerprint,
    mode: Mode,
    entry: str | None,
    id: str | None,
    verify: bool | None = None,
    accept: Callable[[Unit, Depot], bool] | None = None,
) -> ResumableTransaction:
    """Go on with what an earlier run left, or begin anew, as `resume` says.

    Parameters
    ----------
    begin
        Begins the transaction that publishes, under the id that it is given.
    verify
        True: the checksum of all that was kept is compared first; None: where a loss of power may have come
        since.
    accept
        What else is looked at in a kept unit; one that isn't accepted is done again.

    Raises
    ------
    ResumeError
        ``always`` and there is nothing to resume, or what is there has another fingerprint; or its record
        can't be read. Nothing was changed.
    """
    depots = depots_of(backend, entry)
    depots.sweep()
    key = key_of(depots.targets, id)
    found = None if resume == "never" else _choose(depots, key, resume, fingerprint, mode, id)
    if found is None:
        token = seams.token_hex(8)
        record = JobRecord(
            token,
            key,
            mode,
            depots.targets,
            fingerprint,
            id or f"job-{token}",
            int(time.time()),
            platform.node(),
            boot_id(),
            chosen=id is not None,
        )
        # Refuses what can't be written before anything of the job is there.
        inner = begin(record.id)
        return _first(inner, depots.open(f"{key}-{token}"), record, entry, backend)
    return _continued(backend, begin, *found, entry, verify, accept)


def _continued(
    backend: Any,
    begin: Callable[[str], Transaction],
    depot: Depot,
    record: JobRecord,
    entry: str | None,
    verify: bool | None,
    accept: Callable[[Unit, Depot], bool] | None,
) -> ResumableTransaction:
    inner = begin(record.id)
    try:
        ledger = (
            Ledger(record.token) if inner.committed else _checked(depot, record, verify, accept)
        )
    except BaseException:
        inner.rollback()
        raise
    tx = ResumableTransaction(inner, depot, ledger, entry=entry, forget=_forget(backend, record))
    if inner.committed:  # the kill came between the commit and the clearing
        tx._clear()
    return tx


def open_job(
    backend: Any, begin: Callable[[str], Transaction], depot: Depot, *, entry: str | None
) -> ResumableTransaction:
    """Go on with the job of a depot, whoever began it; one that is committed is cleared away."""
    record = record_of(depot)
    return _continued(backend, begin, depot, record, entry, None, None)


def _first(
    inner: Transaction, depot: Depot, record: JobRecord, entry: str | None, backend: Any
) -> ResumableTransaction:
    if not inner.committed:
        try:
            depot.put_job(encode_job(record))
        except BaseException as error:
            inner.rollback()
            if isinstance(error, OSError) and not isinstance(error, TransactionError):
                raise wrap_storage_error(error, f"the job's record in {depot.url}") from error
            raise
    ledger = Ledger(record.token)
    return ResumableTransaction(inner, depot, ledger, entry=entry, forget=_forget(backend, record))


def _forget(backend: Any, record: JobRecord) -> Callable[[], object]:
    """What to do once all is over: an id that nobody chose is not remembered, where that can be."""
    forget = getattr(backend, "forget", None)
    if record.chosen or forget is None:
        return lambda: None
    return lambda: forget(record.id)


def _choose(
    depots: Depots,
    key: str,
    resume: Resume,
    fingerprint: Fingerprint,
    mode: str,
    id: str | None,
) -> tuple[Depot, JobRecord] | None:
    """The newest job of these targets that this one continues."""
    fitting: list[tuple[int, str, Depot, JobRecord]] = []
    others: list[JobRecord] = []
    for name in depots.names():
        if not name.startswith(key):
            continue
        depot = depots.open(name)
        try:
            record = record_of(depot)
        except FileNotFoundError:
            continue  # killed before it began, or while it was removed: no job
        if record.fingerprint == fingerprint and record.mode == mode:
            fitting.append((record.begun_s, name, depot, record))
        else:
            others.append(record)
    if fitting:
        return max(fitting, key=lambda f: f[:2])[2:]
    if resume == "if_possible":
        return None
    where = ", ".join(depots.targets)
    if not others:
        raise ResumeError(
            f"there is nothing to resume for {where}"
            + (f" under the id {id!r}" if id else "")
            + ": no unfinished job is there. Begin with resume='if_possible'",
            txid=id,
        )
    newest = max(others, key=lambda r: r.begun_s)
    how = (
        f"mode was {newest.mode}, is {mode}"
        if newest.mode != mode
        else differences(newest.fingerprint, fingerprint)
    )
    raise ResumeError(
        f"the unfinished job for {where} was configured otherwise: {how}. Run it with the configuration "
        "that it began with, or begin anew with resume='never' (what was kept is left; fstx.jobs(url) "
        "shows it)",
        txid=id,
    )


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """10^5 records at once are no garbage, and the collector would go through them again and again."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _checked(
    depot: Depot,
    record: JobRecord,
    verify: bool | None,
    accept: Callable[[Unit, Depot], bool] | None,
) -> Ledger:
    """The units of which all is there; what is there besides is removed."""
    digests = depot.moved() if verify is None else verify
    with _uncollected():
        ledger, torn = checked(depot, record.token, digests=digests, accept=accept)
    if torn:
        warnings.warn(
            f"{len(torn)} units that {depot.url} names are not there whole (the first: {torn[0]}); they are "
            "done again",
            RuntimeWarning,
            stacklevel=5,
        )
    return ledger


__all__ = [
    "RESUMES",
    "Job",
    "Resume",
    "begin_job",
    "depots_of",
    "jobs_of",
    "key_of",
    "open_job",
    "sweep",
]
