"""From a machine's outcome to what the caller gets."""

from __future__ import annotations

from fstx.backends.local.records import Entry
from fstx.errors import (
    CommitError,
    ConflictError,
    FencedError,
    TargetBusyError,
    TargetExistsError,
)
from fstx.machines import vocabulary as v
from fstx.types import Capability, Mode


def what_is_lost(
    strategy: str, entries: tuple[Entry, ...], entry: str | None, require: frozenset[Capability]
) -> str:
    """Why what was required can't be kept by the strategy that the commit needs; empty if it can."""
    going = {(e.root, e.rest) for e in entries if e.kind is v.Kind.REMOVE}
    gap = any((e.root, e.rest) in going for e in entries if e.kind is v.Kind.PUBLISH)
    lost = []
    if strategy in ("redo", "swap") and len(entries) > 1 and entry is None:
        lost += [c for c in (Capability.ATOMIC_SET,) if c in require]
    if strategy == "swap" or gap:  # a directory removed and staged anew is absent in between
        lost += [c for c in (Capability.NO_GAP,) if c in require]
    return f"leaves no way to keep {', '.join(lost)}" if lost else ""


def commit_error(reason: v.Reason, because: str, *, mode: Mode, txid: str, url: str) -> CommitError:
    """The error for an aborted commit: by what the caller does next."""
    kinds: dict[str, type[CommitError]] = {
        "conflict": ConflictError,
        "exists": TargetExistsError if mode == "create" else ConflictError,
        "busy": TargetBusyError,
        "gone": FencedError,
    }
    ways = {
        "conflict": "; read the target again and retry",
        "exists": "; it was left as it is",
        "busy": "; close the program that holds it open and retry",
        "gone": ": this writer was given up for dead, so stop",
    }
    return kinds.get(reason, CommitError)(
        f"transaction {txid} was not published to {url}: {because or reason}"
        + ways.get(reason, "; the target is as it was"),
        txid=txid,
        outcome="aborted",
    )
