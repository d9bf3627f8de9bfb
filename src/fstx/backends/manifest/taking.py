"""What others staged by a transaction's URL becomes part of it, in the order in which it was staged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fstx.backends.manifest.joined import Gathered
from fstx.backends.manifest.names import split_attempt
from fstx.errors import PathError
from fstx.paths import is_below
from fstx.state.entries import Entry
from fstx.types import StagedObject

if TYPE_CHECKING:
    from fstx.backends.manifest.transaction import ManifestTransaction


def take(tx: ManifestTransaction, gathered: Gathered) -> None:
    """Take all that was found as staged: of two changes of one path the later counts, whoever made it.

    Raises
    ------
    PathError
        Something lies outside of the transaction's place, or is a file where another is a directory.
    """
    for path, attempt, entry in gathered.in_order():
        if tx.prefix and not is_below(path, tx.prefix):
            raise PathError(
                f"{path!r} was staged by the transaction's URL, but lies outside of {tx.prefix!r}, where "
                "the transaction was begun"
            )
        if entry is None:
            _take_removal(tx, path, attempt)
        else:
            _take_object(tx, path, attempt, entry)


def _take_object(tx: ManifestTransaction, path: str, attempt: str, entry: Entry) -> None:
    mine = tx._entries.get(path)
    if mine == entry:
        return
    if (mine is not None and _attempt_of(mine.key) > attempt) or any(
        when > attempt and is_below(path, tree) for tree, when in tx._removals
    ):
        tx._dropped.add(entry.key)
        return
    logical = tx._stager.logical(path)
    tx.adopt([StagedObject(logical, entry.key, entry.size_bytes, tx.txid)])


def _take_removal(tx: ManifestTransaction, path: str, attempt: str) -> None:
    logical = tx._stager.logical(path)
    later = [r for r in tx._changes.below(logical) if _attempt_of(r.key) > attempt]
    view = tx.view()
    if view.get(path) is None and not view.is_dir(path):
        return
    try:
        tx.drop_tree(logical)
    except FileNotFoundError:
        return  # of a replacement the base is no part
    for receipt in later:
        tx._dropped.discard(receipt.key)
        tx.adopt([receipt])


def _attempt_of(key: str) -> str:
    attempt = key.rpartition("~")[2]
    return attempt if split_attempt(attempt) else ""


__all__ = ["take"]
