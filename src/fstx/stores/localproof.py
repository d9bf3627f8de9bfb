"""What a local file system promises: by its name where that is known, by trying elsewhere."""

from __future__ import annotations

import os
import sys

from fstx.stores import Proof
from fstx.types import Capability

_LINK = "link(2) refuses a taken name in one step"
_RENAME = "a rename on Windows refuses a taken name in one step"


def prove(root: str, *, durable: bool) -> Proof:
    """The proof of a `LocalStore` at `root`, which need not exist yet."""
    place = root
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    name = _name(place)
    if sys.platform == "win32" or name:
        source = _RENAME if sys.platform == "win32" else f"{_LINK} ({name})"
        return _proof(True, source, durable, name)
    from fstx.stores.local import LocalStore
    from fstx.stores.probe import race

    outcome = race(LocalStore(place, durable=False), "put_new")
    text = f"{outcome.text}; the file system is not known by name"
    return _proof(outcome.kept, text, durable, name)


def _name(place: str) -> str:
    if sys.platform == "win32":
        return ""
    from fstx.ops.posix import PosixOps

    return "apfs" if sys.platform == "darwin" else PosixOps().fs_name(place)


def _proof(put_new: bool, source: str, durable: bool, name: str) -> Proof:
    kept, reason = _durability(durable, name)
    return Proof(
        promises=(
            (Capability.ATOMIC_OBJECT, True, "a file takes its name when it is whole", "rename(2)"),
            (Capability.DURABLE, kept, reason, "fsync(2)" if kept else ""),
        ),
        put_new=put_new,
        put_new_reason=source,
        consistent=True,
        consistent_reason="one file system; a network mount's caches are not looked into",
        replace_if=False,
        durable=kept,
        durable_reason=reason,
        shared=True,
        notes=() if name else ("the kind of file system is not known by name",),
    )


def _durability(durable: bool, name: str) -> tuple[bool, str]:
    if not durable:
        return False, "syncs were declined"
    if sys.platform == "win32":
        return False, "Windows has no call that makes a directory's entries durable"
    if name in ("tmpfs", "ramfs"):
        return False, f"{name} lies in memory"
    return True, "files and the directories that name them are synced"
