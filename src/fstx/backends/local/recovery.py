"""Settles what dead writers left: finds their areas, takes them over, and lets the machine decide.

A record may be hostile, so it is followed only inside the places that agree to it: the parent that the
control directory lies in, and parents whose own ``.ref`` names this control directory (PATH-5).
"""

from __future__ import annotations

import contextlib
import os
import platform
from typing import Any, cast

from fstx import machines
from fstx.backends.local.control import REF, Control, names_from, remove_tree
from fstx.backends.local.items import first_link, identity
from fstx.backends.local.journals import home_of, owner_of, read_records, read_ref, same
from fstx.backends.local.perform import Performer
from fstx.backends.local.records import Entry, RecordBody
from fstx.errors import RecoveryError
from fstx.machines import vocabulary as v
from fstx.ops.processes import boot_id
from fstx.types import OutcomeState, Recovery, Settled

_EMPTY = RecordBody("", "rename", "create", True, False, "data", ())


class Recoverer:
    """Recovery of all dead transactions in some control directories.

    ``only``: names of targets; an area that can't be settled is an error only if it touches one of
    them (for `begin`, which a neighbour's trouble must not block).
    """

    def __init__(self, controls: tuple[Control, ...], only: set[str] | None = None) -> None:
        self._controls = controls
        self._only = only

    def recover(self, url: str) -> Recovery:
        """Settle everything; the first trouble is raised after all others were settled."""
        settled: list[Settled] = []
        removed: list[str] = []
        trouble: RecoveryError | None = None
        for control in self._controls:
            if control.ops.lstat(control.path) is None:
                continue
            for txid in control.transactions():
                try:
                    found = self._one(control, txid, removed)
                except (RecoveryError, OSError) as error:
                    if self._only is None or self._concerns(control, txid):
                        trouble = trouble or _as_recovery_error(error, control, txid)
                    continue
                if found is not None and self._is_in_the_way(control, found):
                    trouble = trouble or RecoveryError(
                        f"transaction {txid} is committed to the same target and can't be finished: "
                        f"{found.detail}. Make that possible and run again",
                        txid=txid,
                        outcome="pending",
                        retryable=True,
                    )
                if found is not None and not any(s.txid == txid for s in settled):
                    settled.append(found)
            control.leave()
        if trouble is not None:
            raise trouble
        return Recovery(url, tuple(settled), tuple(removed))

    def outcome(self, txid: str) -> OutcomeState:
        """What became of `txid`, without settling anything."""
        for control in self._controls:
            if control.ops.lstat(control.receipt(txid)) is not None:
                return OutcomeState.COMMITTED
            home = self._home(control, txid)
            if home is None:
                continue
            area = home.find_area(txid)
            if area is not None:
                return self._judge(home, txid, area)
        return OutcomeState.UNKNOWN

    def _judge(self, control: Control, txid: str, area: str) -> OutcomeState:
        records = read_records(control, area)
        handle = control.try_alive(txid)
        if handle is None:
            return OutcomeState.PENDING if "commit" in records else OutcomeState.ACTIVE
        handle.release()
        if "commit" in records:
            return OutcomeState.PENDING
        body = records.get("plan")
        if body is None:
            return OutcomeState.ABORTED
        self._verify(control, txid, body)
        performer = Performer(control, (), txid, area, body, None)
        found = performer.perform(v.Inspect())
        if isinstance(found, v.Found) and found.items:
            published = (
                found.items[0].new is v.Who.BASE
                if body.how == "exchange"
                else found.items[0].new is v.Who.NONE
            )
            return OutcomeState.COMMITTED if published else OutcomeState.ABORTED
        return OutcomeState.ABORTED

    # --- one transaction ---------------------------------------------------------------------------

    def _one(self, control: Control, txid: str, removed: list[str]) -> Settled | None:
        home = self._home(control, txid)
        if home is None:
            return None
        try:
            handle = home.try_alive(txid)
        except FileNotFoundError:
            return None  # its control directory went away with its last user
        if handle is None:
            return Settled(txid, home.parent, OutcomeState.ACTIVE, "its owner is alive")
        try:
            area = home.find_area(txid)
            if area is not None and self._only is not None and _may_live_elsewhere(home, area):
                return Settled(
                    txid,
                    home.parent,
                    OutcomeState.ACTIVE,
                    "its owner was on another host, where it may live: fstx.recover settles it if told to",
                )
            if area is not None:
                return self._settle(home, txid, area)
            self._sweep(home, control, txid, removed)
            return None
        finally:
            handle.release()
            if home is not control:
                home.leave()

    def _settle(self, control: Control, txid: str, area: str) -> Settled:
        records = read_records(control, area)
        body = next(iter(records.values()), _EMPTY)
        detail = "staging removed"
        if records:
            self._verify(control, txid, body)
            parents = {e.parent for e in body.entries if e.parent}
            others = tuple(Control(p, control.ops) for p in sorted(parents))
        else:
            others = self._parents_of(control, txid, area)
        performer = Performer(control, others, txid, area, body, None)
        performer.receipt = {"strategy": body.strategy, "targets": _targets_of(control, area)}
        machine: Any = machines.discard()
        first = machine.recover
        if records and self._superseded(control, area, records):
            detail = "its target was removed or replaced since: what was left of it is dropped"
            first = machine.rollback
        elif records:
            machine = machines.build(
                body.strategy,
                tuple(e.item for e in body.entries),
                how=cast(Any, body.how or "create"),
                strict=body.strict,
            )
            first = machine.recover
        try:
            outcome = performer.run(machine, first())
        finally:
            performer.release()
        match outcome:
            case v.Committed(pending=False):
                return Settled(txid, control.parent, OutcomeState.COMMITTED, "finished")
            case v.Committed():
                return Settled(
                    txid,
                    control.parent,
                    OutcomeState.PENDING,
                    f"storage refuses: {performer.cause}",
                )
            case v.Aborted():
                return Settled(txid, control.parent, OutcomeState.ABORTED, detail)
        if not isinstance(outcome, v.Stuck):  # in doubt: another run settles it
            raise RecoveryError(
                f"transaction {txid} in {performer.area} could not be settled now "
                f"({performer.cause or performer.complaint or 'another process is at it'}); recover again",
                txid=txid,
                outcome="unknown",
                retryable=True,
            ) from performer.cause
        raise RecoveryError(
            f"transaction {txid} in {performer.area} can't be settled: {outcome.detail}. Nothing was "
            "destroyed; look at the target, then move that directory away",
            txid=txid,
            outcome="unknown",
        ) from performer.cause

    @staticmethod
    def _superseded(control: Control, area: str, records: dict[v.RecordKind, RecordBody]) -> bool:
        """True when the targets that its items lie in are gone: nothing may appear in their successors."""
        body = next(iter(records.values()))
        gone = set()
        for root in body.roots:
            now = identity(
                control.ops.lstat(os.path.join(root.parent or control.parent, root.name))
            )
            if now is None or not same(now, root.base):
                gone.add((root.parent, root.name))
        if not gone:
            return False
        aside = "commit" not in records and any(
            control.ops.lstat(os.path.join(area, f"o{i}")) for i in range(len(body.entries))
        )
        if not aside and all((e.parent, e.name) in gone for e in body.entries):
            return True
        names = ", ".join(sorted(name for _, name in gone))
        why = (
            "but old files that it had set aside are still in its area"
            if aside
            else "while its other targets are there"
        )
        raise RecoveryError(
            f"transaction {body.txid} was interrupted in its commit, and {names} was removed or replaced "
            f"since, {why}. Nothing was changed; look at them, then move {area} away",
            txid=body.txid,
            outcome="unknown",
        )

    def _sweep(self, home: Control, control: Control, txid: str, removed: list[str]) -> None:
        """Trash, and refs of a transaction that is over."""
        trash = home.trash_of(txid)
        if trash:
            with contextlib.suppress(OSError):
                # its rename may not be durable: after a loss of power half of an area would be back
                home.ops.sync_dir(home.path)
                removed += [path for path in trash if not remove_tree(home.ops, path)]
        with contextlib.suppress(OSError):
            control.ops.unlink(control.area(txid, REF))

    # --- whom to believe ---------------------------------------------------------------------------

    def _home(self, control: Control, txid: str) -> Control | None:
        """The control directory that holds the area: this one, or the one that a ref names."""
        home = home_of(control, txid)
        if home is not None and home is not control and control.ops.lstat(home.path) is None:
            with contextlib.suppress(OSError):
                control.ops.unlink(control.area(txid, REF))
            return None
        return home

    def _verify(self, control: Control, txid: str, body: RecordBody) -> None:
        if body.txid != txid:
            raise RecoveryError(f"the record of {txid} in {control.path} is of {body.txid}")
        for entry in body.entries:
            if entry.parent:
                other = Control(entry.parent, control.ops)
                if not self._agrees(other, txid, control):
                    raise RecoveryError(
                        f"the record of {txid} in {control.path} names {entry.parent}, which does "
                        "not agree: nothing there was touched"
                    )
            self._no_links(control, entry)

    @staticmethod
    def _agrees(other: Control, txid: str, control: Control) -> bool:
        try:
            return read_ref(other, txid) == control.path
        except FileNotFoundError:
            return False

    @staticmethod
    def _no_links(control: Control, entry: Entry) -> None:
        parts = [entry.name, *entry.rest.split("/")[:-1]] if entry.rest else []
        link = first_link(control.ops, entry.parent or control.parent, parts)
        if link is not None:
            raise RecoveryError(f"{link} is a symbolic link; a record is not followed through it")

    def _parents_of(self, control: Control, txid: str, area: str) -> tuple[Control, ...]:
        """Other parents that an undecided transaction left a ref in; those that agree, that is."""
        found = []
        for parent in owner_of(control, area).get("parents", []):
            if isinstance(parent, str) and os.path.isabs(parent):
                with contextlib.suppress(OSError, RecoveryError):
                    other = Control(parent, control.ops)
                    if read_ref(other, txid) == control.path:
                        found.append(other)
        return tuple(found)

    def _is_in_the_way(self, control: Control, found: Settled) -> bool:
        """A commit to one of our targets that is still to be finished: nothing may be built on it."""
        pending = found.state is OutcomeState.PENDING and self._only is not None
        return pending and self._concerns(control, found.txid)

    def _concerns(self, control: Control, txid: str) -> bool:
        area = control.find_area(txid)
        if area is None:
            return False
        targets = _targets_of(control, area)
        return targets is None or any(os.path.basename(t) in (self._only or ()) for t in targets)


def _as_recovery_error(error: Exception, control: Control, txid: str) -> RecoveryError:
    if isinstance(error, RecoveryError):
        return error
    made = RecoveryError(
        f"what transaction {txid} left in {control.path} can't be settled: {error}", txid=txid
    )
    made.__cause__ = error
    return made


def _may_live_elsewhere(control: Control, area: str) -> bool:
    """True on a file system that other hosts may share, where a lock need not reach its owner."""
    fs_name = getattr(control.ops, "fs_name", None)
    if control.ops.name != "linux" or fs_name is None or fs_name(control.path):
        return False
    owner = owner_of(control, area)
    if not owner:
        return False
    return owner.get("boot") != boot_id() and owner.get("host") != platform.node()


def _targets_of(control: Control, area: str) -> list[str] | None:
    """Targets as a receipt names them; None where the owner doesn't tell."""
    targets = owner_of(control, area).get("targets")
    if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
        return None
    return names_from(control.parent, targets)
