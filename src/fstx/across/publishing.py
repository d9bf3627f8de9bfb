"""Publishing one target of a decided transaction, by its coordinator or by one who came later."""

from __future__ import annotations

import contextlib

from fstx.across.records import About, Member, depots_in, own_entry, starter
from fstx.errors import ConflictError, StateError, StorageError
from fstx.resuming import ResumableTransaction
from fstx.resuming.jobs import open_job

REMOVE = "remove-"


def published(member: Member, about: About) -> tuple[int, int]:
    """Publish one target of a decided transaction; the number of its files, and their bytes."""
    if member.job is not None:
        job, member.job = member.job, None
        try:
            return _commit(job)
        except (ConflictError, StorageError, StateError):
            pass  # decided: it comes in spite of what others did meanwhile
    for depot in depots_in(member, about.id):
        job = open_job(
            member.backend,
            starter(member, about.mode, about.durability, about.entry),
            depot,
            entry=own_entry(about.entry, member),
        )
        if not job.committed:
            return _commit(job)
    return 0, 0


def _commit(job: ResumableTransaction) -> tuple[int, int]:
    removals = [u.info["remove"] for u in job.done.values() if u.id.startswith(REMOVE)]
    objects = [k.object for u in job.done.values() for k in u.objects]
    if not objects and not removals:
        job.rollback()
        return 0, 0
    for path in removals:
        with contextlib.suppress(FileNotFoundError):  # removed already, or by this process
            job.remove(path)
    job.commit()
    return len(objects), sum(o.size_bytes for o in objects)
