"""What is said once per process."""

from __future__ import annotations

import threading
import warnings

_MARKERS = frozenset({"zarr.json", ".zgroup", ".zarray"})
_first = threading.Lock()  # taken for good by the first one


class EachCallCommitsWarning(UserWarning):
    """A store of many objects is written through ``tx::`` outside of a transaction: every call commits."""


def note_own_commit(name: str, root: str) -> None:
    """Warn, once, when `name` begins a Zarr store outside of a transaction."""
    if name.rpartition("/")[2] not in _MARKERS or not _first.acquire(blocking=False):
        return
    warnings.warn(
        f"{name} is written outside of a transaction, so each call is a commit of its own and readers "
        f'see the parts appear; put it into a block: with fstx.begin("tx::{root}"): ...',
        EachCallCommitsWarning,
        stacklevel=2,
    )


__all__ = ["EachCallCommitsWarning", "note_own_commit"]
