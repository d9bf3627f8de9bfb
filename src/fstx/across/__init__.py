"""One transaction over targets on different storages: one decision, rolled forward by whoever comes next.

Each target has a job of its own (`fstx.resuming`), which keeps what was staged for it. The *home* is the
target that is published last; the decision is one object in its depot, put if absent: ``commit`` by the
coordinator, or ``abort`` by one who found it dead. After ``commit`` every target is published, now or by
`recover_across`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fstx import registry, seams
from fstx.across.records import ABOUT, PREFIX, About, Member, members_of, own_entry, starter
from fstx.across.settling import settle
from fstx.across.transaction import TransactionAcross
from fstx.errors import ConflictError, PathError, TransactionError
from fstx.paths import check_path
from fstx.resuming import begin_job, fingerprint
from fstx.types import Capability, Durability, Guarantee, Mode, OutcomeState, Promise, Recovery

IDLE_S = 3600.0
"""So long a coordinator counts as alive where nothing tells whether it is."""

_MIXED = (
    "targets on different storages are published one after another: readers may meet old and new"
)
_AFTER = "what others change between the decision and the publication is overwritten"


def begin_across(
    urls: Sequence[registry.URL],
    *,
    mode: Mode = "update",
    durability: Durability = "data",
    entry: str | None = None,
    storage_options: Mapping[str, Mapping[str, Any]] | None = None,
) -> TransactionAcross:
    """Begin one transaction over targets on different storages: data on S3 and an index on local disk.

    What is staged lies beside each target until the decision, which is one object beside the home. From then
    on all targets are published, by this process or by `recover_across`; before it none is.

    Parameters
    ----------
    urls
        The targets: files or directories, with different last names, which paths begin with.
    mode, durability
        As for `begin`; conflicts with others are noticed by ``create`` only.
    entry
        The path by which readers enter; its target is the home, published last. Else the last of `urls` is.
    storage_options
        By scheme: ``{"s3": {...}, "file": {...}}``.

    Raises
    ------
    ConflictError
        Another transaction over these targets is under way.
    UsageError, TargetExistsError, CapabilityError, StorageError
        As for `begin`. In all cases nothing was changed.
    """
    members = members_of(urls, storage_options)
    if entry is not None:
        root = check_path(entry).partition("/")[0]
        if root not in {m.name for m in members}:
            raise PathError(f"entry={entry!r} lies in none of the targets")
        members.sort(key=lambda m: m.name == root)
    active = [s for s in settle(members, IDLE_S) if s.state is OutcomeState.ACTIVE]
    if active:
        raise ConflictError(
            f"transaction {active[0].txid} is under way on {active[0].place}: {active[0].detail}",
            outcome="aborted",
        )
    id = PREFIX + seams.token_hex(16)
    print_ = fingerprint({"across": id})
    home = members[-1]
    try:
        for member in [home, *members[:-1]]:
            member.job = begin_job(
                member.backend,
                starter(member, mode, durability, entry),
                resume="never",
                fingerprint=print_,
                mode=mode,
                entry=own_entry(entry, member),
                id=id,
            )
            assert home.job is not None
            about = About(
                id,
                tuple(m.url for m in members),
                home.job.depot.name,
                mode,
                durability,
                entry,
                int(time.time()),
            )
            with member.job.unit(ABOUT) as unit:
                unit.info.update(vars(about) | {"urls": list(about.urls)})
    except BaseException:
        for member in members:
            if member.job is not None:
                with contextlib.suppress(OSError, TransactionError):
                    member.job.rollback()
        raise
    return TransactionAcross(members, about, promises(members, mode, durability))


def recover_across(
    urls: Sequence[registry.URL],
    *,
    idle_s: float = IDLE_S,
    storage_options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Recovery:
    """Settle what transactions over these targets left: all of a decided one is published, the rest goes.

    Name all targets of the transaction, in any order. Living ones are left alone and listed.

    Parameters
    ----------
    idle_s
        So long after its begin a coordinator counts as alive where the home does not tell (``tx::``).

    Raises
    ------
    RecoveryError
        A target of an unfinished transaction was not named.
    StorageError, CommitError
        A decided one can't be published now; what was published stays, and the next call goes on.
    """
    members = members_of(urls, storage_options)
    for member in members:
        member.backend.recover()
    return Recovery(", ".join(m.url for m in members), tuple(settle(members, idle_s)))


def promises(members: Sequence[Member], mode: Mode, durability: Durability) -> Guarantee:
    """What all members keep, less what can't hold across them."""
    each = [m.backend.guarantee(mode=mode, durability=durability) for m in members]
    lost = {
        Capability.ATOMIC_SET: _MIXED,
        Capability.CONFLICT_DETECTED: _AFTER,
        Capability.SNAPSHOTS: "readers hold versions of one target",
    }
    rows = []
    for capability in Capability:
        kept = all(capability in g for g in each)
        reason = next(
            (g[capability].reason for g in each if capability not in g), "every target keeps it"
        )
        if capability in lost:
            kept, reason = False, lost[capability]
        rows.append(Promise(capability, kept, reason))
    url = ", ".join(m.url for m in members)
    return Guarantee(url, "across", mode, durability, tuple(rows), (_MIXED, _AFTER))


__all__ = ["TransactionAcross", "begin_across", "recover_across"]
