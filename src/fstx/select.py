"""Choose the strategy, and say what it keeps: pure, from what a probe found.

One table for `guarantee`, for `begin` and for the choice at commit, so that they can't disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fstx.machines.vocabulary import Item, Kind
from fstx.types import Capability, Durability, Guarantee, Mode, Promise


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a local place was seen to do. ``*_proof`` says how it was seen."""

    system: str
    fs_name: str
    exchange: bool
    create: bool  # rename that never replaces
    locks: bool
    sync_dirs: bool
    sync_fs: bool
    fold_case: bool
    leased: bool = False  # a lock is lost by a holder that stalls for longer than its lease
    refused: str = ""  # why nothing can be promised here

    @property
    def network(self) -> bool:
        """True where the file system isn't known to be local to this kernel."""
        return self.system == "linux" and not self.fs_name


def strategy_at_begin(mode: Mode, occupied: int, targets: int, abilities: Abilities) -> str:
    """The strategy a transaction will need at most. `occupied`: targets that hold something."""
    if mode == "update" and occupied:
        return "redo" if abilities.system != "windows" else "swap"
    if targets > 1:
        if mode == "replace" and occupied:
            return "swap"
        return "redo" if abilities.system != "windows" else "swap"
    if mode == "replace" and occupied:
        return "rename" if abilities.exchange else "swap"
    return "rename"


def strategy_at_commit(items: Iterable[Item], abilities: Abilities) -> tuple[str, str]:
    """The strategy for these items, and for `rename` how: ``create``, ``place`` or ``exchange``."""
    listed = tuple(items)
    if len(listed) == 1 and listed[0].kind is Kind.PUBLISH:
        item = listed[0]
        if not item.occupied:
            return "rename", "create"
        if not item.tree:
            return "rename", "place"
        return ("rename", "exchange") if abilities.exchange else ("swap", "")
    replaced_tree = any(i.kind is Kind.PUBLISH and i.tree and i.occupied for i in listed)
    if abilities.system == "windows" or replaced_tree:
        return "swap", ""
    return "redo", ""


def _durable(durability: Durability, abilities: Abilities) -> tuple[bool, str, str]:
    """Whether what is committed survives a loss of power, why, and what proves it."""
    if durability != "data":
        return False, "durability='none': a kill is survived, loss of power is not", ""
    if abilities.fs_name in _IN_MEMORY:
        return False, f"{abilities.fs_name} lies in memory", ""
    if not abilities.sync_dirs:
        return False, f"{_speaks(abilities)} has no call that syncs a directory", ""
    synced = "syncfs" if abilities.sync_fs else "fsync"
    return True, "files, directories and parents are synced", synced


def guarantee(
    url: str,
    *,
    mode: Mode,
    durability: Durability,
    entry: str | None,
    occupied: int,
    targets: int,
    abilities: Abilities,
) -> Guarantee:
    """What is promised at a local place."""
    strategy = strategy_at_begin(mode, occupied, targets, abilities)
    one_switch = strategy == "rename"
    swap_one = strategy == "swap" and targets == 1 and mode != "update"
    windows = abilities.system == "windows"
    if one_switch:
        atomic_set = (
            True,
            "one rename switches the whole tree",
            _switch_proof(mode, occupied, abilities),
        )
    elif swap_one:
        atomic_set = (True, "one rename brings the whole tree, after a moment of absence", "")
    elif entry is not None:
        atomic_set = (True, f"readers enter by {entry!r}, replaced last; parts have new names", "")
    else:
        atomic_set = (
            False,
            "several renames in place: readers may meet old and new files until they are done; "
            "name an entry=, or write a new tree",
            "",
        )
    rows = [
        (Capability.ATOMIC_OBJECT, True, "every file arrives by rename", "rename(2)"),
        (Capability.ATOMIC_SET, *atomic_set),
        (
            Capability.NO_GAP,
            strategy != "swap",
            "nothing is absent in between"
            if strategy != "swap"
            else "old content is moved aside before the new arrives",
            "",
        ),
        (Capability.DURABLE, *_durable(durability, abilities)),
        (Capability.RECOVERABLE, True, f"fstx.recover settles by the {strategy} journal", ""),
        (
            Capability.CONFLICT_DETECTED,
            abilities.locks,
            "locks don't exclude each other here"
            if not abilities.locks
            else f"base compared under the target's lock; a holder that {_LOSES[windows]} is fenced first"
            if abilities.leased
            else "base identity compared under the target's lock",
            "probe: two descriptions exclude each other" if abilities.locks else "probe",
        ),
        (Capability.FENCED, True, "recovery renames the staging area away first", ""),
        (
            Capability.REMOTE_STAGING,
            True,
            "any process that sees this file system may stage"
            if not abilities.leased
            else "any process that can log in by itself may stage: a password does not travel",
            "",
        ),
        (Capability.SNAPSHOTS, False, "plain paths hold one version", ""),
    ]
    notes = _notes(mode, strategy, abilities, windows)
    promises = tuple(Promise(c, kept, why, proof if kept else "") for c, kept, why, proof in rows)
    return Guarantee(url, strategy, mode, durability, promises, notes)


_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_LOSES = {False: "stalls for longer than its lease", True: "loses its connection"}


def _speaks(abilities: Abilities) -> str:
    if not abilities.leased:
        return "this system"
    return {"sftp": "SFTP", "windows": "SMB"}.get(abilities.system, "the storage")


def _switch_proof(mode: Mode, occupied: int, abilities: Abilities) -> str:
    if mode == "replace" and occupied:
        return "probe: exchange of two directories"
    return "probe: rename that never replaces" if abilities.create else "rename under the lock"


def _notes(mode: Mode, strategy: str, abilities: Abilities, windows: bool) -> tuple[str, ...]:
    notes = []
    if strategy == "rename" and mode == "replace":
        notes.append("a reader that resolves each path anew may read old files, then new ones")
    if strategy == "redo":
        notes.append("a path that is removed and staged anew at once is absent for a moment")
    if abilities.network:
        notes.append("the file system is not known to be local: locks may not reach other hosts")
    if abilities.system == "macos":
        notes.append("the macOS calls were written from Apple's manual and have not been run")
    if abilities.system == "sftp":
        notes.append(
            "SFTP tells no identity of files: a plain writer is noticed by size and time in seconds alone"
        )
    if windows:
        notes.append("open handles make a replacement fail cleanly with TargetBusyError")
    if abilities.fold_case:
        notes.append("names that differ by case only are one name here")
    return tuple(notes)
