"""Settles what dead writers left: finds their areas, takes them over, and lets the machine decide.

A record may be hostile, so it is followed only inside the places that agree to it: the parent that the
control directory lies in, and parents whose own ``.ref`` names this control directory (PATH-5).
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, cast

from fstx import machines
from fstx.backends.local.control import REF, Control, remove_tree
from fstx.backends.local.perform import Performer, read_records
from fstx.backends.local.records import LIMIT_BYTES, Entry, RecordBody, unseal
from fstx.backends.ops import FileKind
from fstx.errors import RecoveryError
from fstx.machines import vocabulary as v
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
                except RecoveryError as error:
                    if self._only is None or self._concerns(control, txid):
                        trouble = trouble or error
                    continue
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
        if not records:
            others = self._parents_of(control, txid, area)
            performer = Performer(control, others, txid, area, _EMPTY, None)
            machine: Any = machines.discard()
        else:
            body = next(iter(records.values()))
            self._verify(control, txid, body)
            parents = {e.parent for e in body.entries if e.parent}
            others = tuple(Control(p, control.ops) for p in sorted(parents))
            performer = Performer(control, others, txid, area, body, None)
            performer.receipt = {"strategy": body.strategy}
            machine = machines.build(
                body.strategy,
                tuple(e.item for e in body.entries),
                how=cast(Any, body.how or "create"),
                strict=body.strict,
            )
        try:
            outcome = performer.run(machine, machine.recover())
        finally:
            performer.release()
        match outcome:
            case v.Committed(pending=False):
                return Settled(txid, control.parent, OutcomeState.COMMITTED, "finished")
            case v.Committed():
                return Settled(
                    txid, control.parent, OutcomeState.PENDING, f"storage refuses: {performer.cause}"
                )
            case v.Aborted():
                return Settled(txid, control.parent, OutcomeState.ABORTED, "staging removed")
        if not isinstance(outcome, v.Stuck):  # in doubt: another run settles it
            raise RecoveryError(
                f"transaction {txid} in {performer.area} could not be settled now "
                f"({performer.cause or performer.complaint or 'another process is at it'}); recover again",
                txid=txid,
                outcome="unknown",
                retryable=True,
            ) from performer.cause
        detail = outcome.detail
        raise RecoveryError(
            f"transaction {txid} in {performer.area} can't be settled: {detail}. Nothing was "
            "destroyed; look at the target, then move that directory away",
            txid=txid,
            outcome="unknown",
        ) from performer.cause

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
        path = control.area(txid, REF)
        if control.ops.lstat(path) is None:
            return control if control.ops.lstat(control.path) is not None else None
        try:
            named = _read_ref(control, txid)
        except FileNotFoundError:
            return None  # its owner has finished meanwhile
        home = Control(os.path.dirname(named), control.ops)
        if home.path != named or not os.path.isabs(named):
            raise RecoveryError(f"{path} names {named!r}, which is no control directory")
        if control.ops.lstat(home.path) is None:
            with contextlib.suppress(OSError):
                control.ops.unlink(path)
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
            return _read_ref(other, txid) == control.path
        except FileNotFoundError:
            return False

    @staticmethod
    def _no_links(control: Control, entry: Entry) -> None:
        place = os.path.join(entry.parent or control.parent, entry.name)
        for part in ("", *entry.rest.split("/")[:-1]) if entry.rest else ():
            place = os.path.join(place, part) if part else place
            stat = control.ops.lstat(place)
            if stat is not None and stat.kind is FileKind.LINK:
                raise RecoveryError(f"{place} is a symbolic link; a record is not followed through it")

    def _parents_of(self, control: Control, txid: str, area: str) -> tuple[Control, ...]:
        """Other parents that an undecided transaction left a ref in; those that agree, that is."""
        try:
            path = os.path.join(area, "owner.json")
            value = unseal(control.ops.read_file(path, LIMIT_BYTES), path)
        except (OSError, RecoveryError):
            return ()
        found = []
        for parent in value.get("parents", []):
            if isinstance(parent, str) and os.path.isabs(parent):
                with contextlib.suppress(OSError, RecoveryError):
                    other = Control(parent, control.ops)
                    if _read_ref(other, txid) == control.path:
                        found.append(other)
        return tuple(found)

    def _concerns(self, control: Control, txid: str) -> bool:
        area = control.find_area(txid)
        if area is None:
            return False
        try:
            path = os.path.join(area, "owner.json")
            targets = unseal(control.ops.read_file(path, LIMIT_BYTES), path)["targets"]
            return any(os.path.basename(t) in (self._only or ()) for t in targets)
        except (OSError, RecoveryError, KeyError, TypeError):
            return True


def _read_ref(control: Control, txid: str) -> str:
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


