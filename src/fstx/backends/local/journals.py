"""Reading what transactions left in a control directory: records, refs, and whose they are.

Everything read here may have been written by anyone who can write there (rules PATH-5, REC-2 to REC-4).
"""

from __future__ import annotations

import os
from typing import Any

from fstx.backends.local.control import REF, Control
from fstx.backends.local.records import LIMIT_BYTES, Identity, RecordBody, decode, unseal
from fstx.errors import RecoveryError
from fstx.machines import vocabulary as v

_RECORDS: tuple[v.RecordKind, ...] = ("plan", "intent", "commit")


def same(found: Identity, known: Identity | None) -> bool:
    """Equal but for the device number, which a reboot may change."""
    return known is not None and found[1:] == known[1:]


def read_records(control: Control, area: str) -> dict[v.RecordKind, RecordBody]:
    """All valid records of an area.

    Raises
    ------
    RecoveryError
        A record is damaged, of a newer format, or too long; it is named and nothing was changed.
    """
    found: dict[v.RecordKind, RecordBody] = {}
    for kind in _RECORDS:
        path = os.path.join(area, kind)
        try:
            line = control.ops.read_file(path, LIMIT_BYTES)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RecoveryError(f"{path} can't be read: {error}") from error
        found[kind] = decode(line, path)
    return found


def home_of(control: Control, txid: str) -> Control | None:
    """The control directory that holds the area: this one, or the one that a ref names.

    Raises
    ------
    RecoveryError
        The ref is damaged or names no control directory.
    """
    path = control.area(txid, REF)
    if control.ops.lstat(path) is None:
        return control if control.ops.lstat(control.path) is not None else None
    try:
        named = read_ref(control, txid)
    except FileNotFoundError:
        return None  # its owner has finished meanwhile
    home = Control(os.path.dirname(named), control.ops)
    if home.path != named or not os.path.isabs(named):
        raise RecoveryError(f"{path} names {named!r}, which is no control directory")
    return home


def read_ref(control: Control, txid: str) -> str:
    """The control directory that a ref names; FileNotFoundError without a ref."""
    path = control.area(txid, REF)
    try:
        value = unseal(control.ops.read_file(path, 1 << 16), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecoveryError(f"{path} can't be read: {error}") from error
    named = value.get("control")
    if not isinstance(named, str) or value.get("txid") != txid:
        raise RecoveryError(f"{path} does not name a control directory of {txid}")
    return named


def unsettled(controls: tuple[Control, ...], own: str, mine: set[tuple[str, str]]) -> str | None:
    """A dead writer's decided but unfinished commit to one of the targets `mine`, as a complaint.

    Where locks are leases, also any transaction whose owner can't be seen to live: it may only have stalled,
    and its lock may have been taken from it, so its area has to be fenced before anything is built here.
    """
    for control in controls:
        for txid in control.transactions():
            home = home_of(control, txid) if txid != own else None
            if home is not None and home.ops.leased and _is_silent(home, txid, mine):
                return (
                    f"transaction {txid} has an owner that does not answer any more and has to be settled "
                    "first: the next begin does it, or fstx.recover"
                )
            if home is not None and mine & _decided(home, txid):
                return (
                    f"transaction {txid} was interrupted in its commit to the same target and has "
                    "to be settled first: the next begin does it, or fstx.recover"
                )
    return None


def _is_silent(home: Control, txid: str, mine: set[tuple[str, str]]) -> bool:
    """True for an unsettled transaction on one of `mine` whose owner does not renew its lock."""
    area = home.find_area(txid)
    if area is None:
        return False
    targets = owner_of(home, area).get("targets")
    if isinstance(targets, list) and not mine & {os.path.split(str(t)) for t in targets}:
        return False
    handle = home.try_alive(txid)
    if handle is None:
        return False
    try:
        return home.find_area(txid) is not None
    finally:
        handle.release()


def owner_of(control: Control, area: str) -> dict[str, Any]:
    """What the owner wrote about itself; empty where that can't be read."""
    path = os.path.join(area, "owner.json")
    try:
        return unseal(control.ops.read_file(path, LIMIT_BYTES), path)
    except (OSError, RecoveryError):
        return {}


def _decided(home: Control, txid: str) -> set[tuple[str, str]]:
    """Targets of a transaction that has a journal. Under the lock of one of them nobody is at work on it."""
    area = home.find_area(txid)
    if area is None:
        return set()
    try:
        journals = [home.ops.lstat(os.path.join(area, kind)) for kind in ("intent", "commit")]
    except PermissionError:
        return set()  # another user's, closed to us: begin has told, if its owner is dead
    if not any(journals):
        return set()
    # Whether its liveness lock is held says nothing here: a recoverer may hold it, and wait for our lock. An
    # owner that is at work on a target of ours would hold the target's lock, which we hold.
    try:
        records = read_records(home, area)
    except RecoveryError:
        return set()  # begin has told, if it concerns us
    return {(e.parent or home.parent, e.name) for body in records.values() for e in body.entries}
