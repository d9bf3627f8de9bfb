"""The public functions that take URLs: from a URL to a transaction, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

from fstx import layouts, registry
from fstx.checks import (
    DURABILITIES,
    MODES,
    Require,
    capabilities,
    check_choice,
    check_id,
    check_resume,
    urls_of,
)
from fstx.protocol import Transaction
from fstx.registry import URL, name_of, sibling
from fstx.resuming import Job as UnfinishedJob
from fstx.resuming import ResumableTransaction, Resume, begin_job, jobs_of, sweep
from fstx.resuming import fingerprint as fingerprint_of
from fstx.types import Capability, Durability, Guarantee, Mode, OutcomeState, Recovery

__all__ = ["begin", "guarantee", "jobs", "outcome", "recover"]


@overload
def begin(
    url: URL | Sequence[URL],
    *,
    mode: Mode = "update",
    durability: Durability = "data",
    require: Require = (Capability.RECOVERABLE,),
    entry: str | None = None,
    id: str | None = None,
    resume: None = None,
    fingerprint: Any = None,
    **storage_options: Any,
) -> Transaction: ...
@overload
def begin(
    url: URL | Sequence[URL],
    *,
    mode: Mode = "update",
    durability: Durability = "data",
    require: Require = (Capability.RECOVERABLE,),
    entry: str | None = None,
    id: str | None = None,
    resume: Resume,
    fingerprint: Any = None,
    **storage_options: Any,
) -> ResumableTransaction: ...
def begin(
    url: URL | Sequence[URL],
    *,
    mode: Mode = "update",
    durability: Durability = "data",
    require: Require = (Capability.RECOVERABLE,),
    entry: str | None = None,
    id: str | None = None,
    resume: Resume | None = None,
    fingerprint: Any = None,
    **storage_options: Any,
) -> Transaction | ResumableTransaction:
    """Begin a transaction on a directory, or on several files and directories.

    Leaving the ``with`` block commits; an exception in it rolls back. Until commit no reader can see
    anything of it, and after a kill nothing of it is left once the next writer or `recover` came by.

    Parameters
    ----------
    url
        One URL or path: the target is a directory and paths are relative to it. A list of them: each is
        a target, a file or a directory; paths begin with the target's last name, and all are
        published together. The targets of a list share a scheme and a file system.
    mode
        ``"create"``: every target must be absent or an empty directory; the first writer wins.
        ``"replace"``: what is staged becomes the whole target; nothing staged is refused; of a list,
        a target for which nothing is staged stays. ``"update"``: staged paths are added or
        replaced, removed ones go, the rest stays; a conflict if a touched path was changed meanwhile.
    durability
        ``"data"``: what `commit` published survives loss of power. ``"none"``: only kills.
    require
        Capabilities that must be promised here, else `CapabilityError`.
    entry
        The path by which readers enter (an index); it is published last.
    id
        The caller's idempotency key. A second run with the same id learns by ``tx.committed`` that the
        first one committed; a dead first run is settled, and then this one begins anew.
    resume
        Keep finished units of work beyond a kill or an exception, and go on with those that an earlier
        run of these targets (and this `id`) kept: ``"if_possible"`` when its fingerprint is this one, else
        anew; ``"always"`` or raise; ``"never"`` anew, what was kept is left. None: no units.
    fingerprint
        With `resume`: all that changes what the job writes, as `fstx.fingerprint` takes it.
    **storage_options
        For the backend, such as ``syncfs=False`` on local disk.

    Returns
    -------
    Transaction
        With `resume` a `ResumableTransaction`: ``tx.remaining(units)``, ``with tx.unit(id) as unit``.

    Raises
    ------
    UsageError
        A bad argument or URL (`PathError`), or a promise that can't be kept (`CapabilityError`).
    TargetExistsError
        Mode ``create`` and something is there.
    ConflictError
        Another living transaction creates the same target, or has this id.
    ResumeError
        There is nothing to resume, its record can't be read, or it has another fingerprint.
    StorageError
        The place can't be written. In all cases nothing was changed.
    """
    urls, joined = urls_of(url)
    check_choice("mode", mode, MODES)
    check_choice("durability", durability, DURABILITIES)
    check_id(id)
    wanted = capabilities(require)
    if not check_resume(resume, fingerprint) or resume is None:
        found = registry.backend(urls, joined=joined, **storage_options)
        return found.begin(mode=mode, durability=durability, require=wanted, entry=entry, id=id)
    print_ = fingerprint_of(fingerprint)
    found = registry.backend(urls, joined=joined, **storage_options)

    def start(job_id: str) -> Transaction:
        return found.begin(mode=mode, durability=durability, require=wanted, entry=entry, id=job_id)

    return begin_job(found, start, resume=resume, fingerprint=print_, mode=mode, entry=entry, id=id)


def jobs(url: URL | Sequence[URL], **storage_options: Any) -> list[UnfinishedJob]:
    """Unfinished resumable jobs beside a target (on ``tx::``: in its dataset), also those that run now.

    ``job.discard()`` drops what a job kept.
    """
    urls, joined = urls_of(url)
    return jobs_of(registry.backend(urls, joined=joined, **storage_options))


def guarantee(
    url: URL | Sequence[URL],
    *,
    mode: Mode | None = None,
    durability: Durability = "data",
    entry: str | None = None,
    layout: str | None = None,
    **storage_options: Any,
) -> Guarantee:
    """What is promised at a target, each capability with its reason and what proved it.

    Nothing is left behind.

    Parameters
    ----------
    url
        As for `begin`. With a layout's suffix (``.vrt``, ``.zarr``, ``.npy``) or `layout`, the answer is
        what `write` with ``overwrite=True`` gets there.
    mode
        By default ``"update"``, or the layout's way to replace its output.
    durability, entry, **storage_options
        As for `begin`.
    """
    urls, joined = urls_of(url)
    document = None
    if not joined and (layout is not None or urls[0].rstrip("/").endswith(layouts.SUFFIXES)):
        own = urls[0].rstrip("/")
        module = layouts.choose(name_of(own), layout)
        mode = mode or module.OVERWRITE_MODE
        entry = entry or (name_of(own) if module.ENTERED_BY_NAME else None)
        document = f"{name_of(own)}/{module.DOCUMENT}" if module.DOCUMENT else None
        urls, joined = [sibling(own, name) for name in module.targets(name_of(own))], True
    mode = mode or "update"
    check_choice("mode", mode, MODES)
    check_choice("durability", durability, DURABILITIES)
    backend = registry.backend(urls, joined=joined, **storage_options)
    if entry is None and registry.enters_by_document(backend):
        entry = document
    return backend.guarantee(mode=mode, durability=durability, entry=entry)


def recover(url: URL | Sequence[URL], **storage_options: Any) -> Recovery:
    """Settle every interrupted transaction at a target and, for a directory, in it.

    Afterwards each is wholly published or wholly gone. Living transactions are left alone and listed.

    Raises
    ------
    RecoveryError
        A state that it won't guess about, or a record that is damaged or from a newer version: it is
        named, nothing of it was changed, and all others were settled first.
    """
    urls, _ = urls_of(url)
    backend = registry.backend(urls, joined=True, **storage_options)
    report = backend.recover()
    late = sweep(backend)  # of workers that went on when their resumable job was over
    return replace(report, removed=(*report.removed, *late)) if late else report


def outcome(url: URL | Sequence[URL], id: str, **storage_options: Any) -> OutcomeState:
    """What became of a transaction: by the id that its caller chose, or by ``tx.id``.

    A transaction whose id was not chosen by its caller leaves no trace once it is finished: UNKNOWN.
    """
    urls, _ = urls_of(url)
    check_id(id)
    return registry.backend(urls, joined=True, **storage_options).outcome(id)
