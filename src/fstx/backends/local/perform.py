"""Performs the effects of a machine on a local file system, and answers with events.

The only code that knows what an effect means in system calls. Exceptions become events here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fstx import seams
from fstx.backends.local.causes import event_of, reason_of
from fstx.backends.local.control import FENCED, REF, TRASH, Control, remove_tree
from fstx.backends.local.items import identity, is_empty_tree
from fstx.backends.local.journals import unsettled
from fstx.backends.local.looking import inspect
from fstx.backends.local.probe import leaves_mount
from fstx.backends.local.records import (
    LIMIT_BYTES,
    Entry,
    RecordBody,
    encode,
    seal,
)
from fstx.backends.local.staging import Keeper
from fstx.errors import ConflictError
from fstx.machines import vocabulary as v
from fstx.ops import FileKind, LockHandle

LOCK_WAIT_S = 60.0


class Replan(Exception):  # noqa: N818 - no error: control flow between Check and the transaction
    """A directory came or went since the items were made; nothing was recorded or moved yet.

    `performer` holds the locks, for the plan after this one.
    """

    def __init__(self, performer: Performer) -> None:
        super().__init__()
        self.performer = performer


@dataclass
class Performer:
    """One transaction's hands: its area, its targets, the locks it holds.

    ``cause`` keeps the first error that storage raised, for the exception that the caller gets.
    """

    control: Control
    others: tuple[Control, ...]
    txid: str
    area: str
    body: RecordBody
    alive: LockHandle | None
    keeper: Keeper | None = None
    made: list[str] = field(default_factory=list)  # directories below the area, parents first
    check: Callable[[], str | None] = lambda: (
        None
    )  # base check beyond the entries; returns a complaint
    receipt: dict[str, Any] = field(default_factory=dict)
    network: bool = False
    cause: OSError | None = None
    complaint: str = ""
    locks: list[LockHandle] = field(default_factory=list)
    locked: frozenset[tuple[str, str]] = frozenset()  # what `locks` lock, once that is all of it
    may_replan: bool = False
    claims: list[LockHandle] = field(default_factory=list)  # released before liveness is given up
    position: tuple[Any, v.Effect] | None = None  # of the machine that runs or was interrupted
    left: list[Exception] = field(default_factory=list)

    def run(self, machine: Any, first: tuple[Any, v.Effect]) -> v.Outcome:
        """Drive a machine to its outcome."""
        state, effect = first
        while True:
            self.position = state, effect
            event = self.perform(effect)
            state, after = machine.step(state, event)
            if isinstance(after, v.Committed | v.Aborted | v.InDoubt | v.Stuck):
                return after
            effect = after

    def settle(self, machine: Any) -> v.Outcome:
        """Bring an interrupted run to an outcome: by recovery, unless it had retired already.

        A retired area is being deleted, so it tells nothing any more; the machine's position does.
        """
        trash = self.control.area(self.txid, TRASH)
        if self.control.ops.lstat(self.area) is None and self.control.ops.lstat(trash) is not None:
            self.area = trash
        if self.position is None or not self.area.endswith(TRASH):
            return self.run(machine, machine.recover())
        state, effect = self.position
        if isinstance(effect, v.Retire):
            try:
                self._sync_dir(self.control.path)
                state, effect = machine.step(state, v.Done())
            except OSError as error:
                self.cause = self.cause or error
                outcome: v.Outcome = machine.step(state, v.Unknown())[1]
                return outcome
        return self.run(machine, (state, effect))

    def perform(self, effect: v.Effect) -> v.Event:
        """Carry out one effect; storage errors become events."""
        try:
            return self._dispatch(effect)
        except OSError as error:
            self.cause = self.cause or error
            if isinstance(effect, v.Move):
                event = event_of(error, network=self.network)
                if event == v.Unknown():
                    self._leave_the_late_behind()
                    return event
                return self._unless_gone(event)
            if isinstance(effect, v.SyncTargets | v.Inspect):
                return v.Unknown()
            return self._unless_gone(v.Refused(reason_of(error)))

    def _unless_gone(self, event: v.Event) -> v.Event:
        """Something is missing: we were fenced only if it is the area; else a stranger took a target."""
        if event == v.Refused("gone") and self.control.ops.lstat(self.area) is not None:
            return v.Refused("conflict")
        return event

    def _dispatch(self, effect: v.Effect) -> v.Event:
        match effect:
            case v.SyncData():
                if self.keeper is not None:
                    self.keeper.sync()
            case v.SyncArea():
                self._sync_area()
            case v.Lock():
                return self._lock()
            case v.Check():
                return self._check()
            case v.Record(kind):
                return self._record(kind)
            case v.Move(index, how):
                self._move(self.body.entries[index], index, how)
            case v.SyncTargets():
                self._sync_targets()
            case v.Inspect():
                return inspect(self)
            case v.Receipt():
                self._receipt()
            case v.Fence():
                self._fence()
            case v.Retire():
                return self._retire()
            case v.Clear():
                self._clear()
        return v.Done()

    # --- places --------------------------------------------------------------------------------

    @property
    def durable(self) -> bool:
        return self.body.durability == "data"

    def parent_of(self, entry: Entry) -> str:
        return entry.parent or self.control.parent

    def target(self, entry: Entry) -> str:
        path = os.path.join(self.parent_of(entry), entry.name)
        return os.path.join(path, *entry.rest.split("/")) if entry.rest else path

    def new(self, entry: Entry) -> str:
        path = os.path.join(self.area, "s", str(entry.root))
        return os.path.join(path, *entry.rest.split("/")) if entry.rest else path

    def old(self, index: int) -> str:
        return os.path.join(self.area, f"o{index}")

    # --- durability ----------------------------------------------------------------------------

    def _sync_dir(self, path: str) -> None:
        if self.durable:
            self.control.ops.sync_dir(path)

    def _sync_area(self) -> None:
        for path in reversed(self.made):
            self._sync_dir(path)
        for path in (os.path.join(self.area, "s"), self.area, self.control.path):
            self._sync_dir(path)
        for control in (self.control, *self.others):
            self._sync_dir(control.parent)  # the name .fstx itself
        for control in self.others:
            self._sync_dir(control.path)

    def _sync_targets(self) -> None:
        folders = {os.path.dirname(self.target(e)): None for e in self.body.entries}
        sources = {os.path.dirname(self.new(e)): None for e in self.body.entries}
        for path in folders:
            if not any(self._below(path, e) for e in self.body.entries):
                self._sync_dir(path)
        for path in (*sources, self.area):
            if self.control.ops.lstat(path) is not None:
                self._sync_dir(path)

    def _below(self, folder: str, entry: Entry) -> bool:
        """A directory that was removed can't be synced, and need not."""
        return entry.kind is v.Kind.REMOVE and self.control.ops.lstat(folder) is None

    # --- locks and checks ------------------------------------------------------------------------

    def _lock(self) -> v.Event:
        wanted = set()
        by_parent = {c.parent: c for c in (self.control, *self.others)}
        for entry in self.body.entries:
            control = by_parent[self.parent_of(entry)]
            wanted.add((control.parent, control.of_target(entry.name)))
        if wanted and wanted <= self.locked:
            return v.Done()  # held since the plan before this one
        self.release()  # an interrupted commit that settles itself may hold some already
        for parent, path in sorted(wanted):
            control = by_parent[parent]
            control.make_locks()
            handle = control.ops.lock(path, wait_s=LOCK_WAIT_S)
            if handle is None:
                self.complaint = (
                    f"another transaction has held the lock of a target in {parent} "
                    + (f"for {LOCK_WAIT_S:.0f} s")
                )
                return v.Refused("conflict")
            self.locks.append(handle)
        self.locked = frozenset(wanted)
        return v.Done()

    def _check(self) -> v.Event:
        ops = self.control.ops
        if ops.lstat(self.area) is None:
            self.complaint = "the staging area is gone"
            return v.Refused("gone")
        complaint = self._in_the_way() or self.check()
        if complaint:
            self.complaint = complaint
            return v.Refused("conflict")
        folders: dict[str, None] = {}
        going: set[str] = set()  # removed by an earlier entry, to make way for this one
        for entry in self.body.entries:
            target = self.target(entry)
            found = identity(ops.lstat(target))
            if found != entry.base and target not in going and not self.nothing_at(target, entry):
                if self.may_replan and entry.tree and self._is_tree(target):
                    raise Replan(self)  # a directory that was new: it can be entered instead
                self.complaint = (
                    f"{target} "
                    + ("was created" if entry.base is None else "was changed or removed")
                    + " by another writer"
                )
                return v.Refused("exists" if entry.base is None else "conflict")
            if entry.kind is v.Kind.PUBLISH and identity(ops.lstat(self.new(entry))) != entry.new:
                self.complaint = f"the staged content of {entry.logical} is gone"
                return v.Refused("gone")
            folders[os.path.dirname(target)] = None
            if entry.kind is v.Kind.REMOVE:
                going.add(target)
        for folder in folders:
            if self.may_replan and ops.lstat(folder) is None:
                raise Replan(self)  # a directory that was there: it can be published instead
            if not ops.may_write(folder):
                self.complaint = f"{folder} is not writable"
                return v.Refused("failed")
            if leaves_mount(self.control.ops, self.area, folder):
                # after the commit point this could never be finished
                self.complaint = f"{folder} is on another mount than {self.control.path}"
                return v.Refused("cross-device")
        self._tell_the_living()
        return v.Done()

    def _in_the_way(self) -> str | None:
        mine = {(self.parent_of(e), e.name) for e in self.body.entries}
        return unsettled((self.control, *self.others), self.txid, mine)

    def _tell_the_living(self) -> None:
        targets = {(self.parent_of(e), e.name) for e in self.body.entries}
        for control in (self.control, *self.others):
            names = [name for parent, name in targets if parent == control.parent]
            if names and len(control.transactions()) > 1:
                for name in names:
                    moved = any(not e.rest and e.name == name for e in self.body.entries)
                    control.bump(name, seams.token_hex(8), whole=moved)

    # --- records -------------------------------------------------------------------------------

    def _record(self, kind: v.RecordKind) -> v.Event:
        path = os.path.join(self.area, kind)
        line = encode(self.body)
        if len(line) > LIMIT_BYTES:
            self.complaint = (
                f"{len(self.body.entries)} files to replace one by one are too many for one record; "
                "write a new tree, or several transactions"
            )
            return v.Refused("failed")
        self._write(path + ".tmp", line)
        try:
            self.control.ops.rename(path + ".tmp", path)
            self._sync_dir(self.area)
        except OSError as error:
            self.cause = self.cause or error
            return v.Unknown()
        return v.Done()

    def _write(self, path: str, line: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.control.ops.unlink(path)
        with self.control.ops.open_new(path) as file:
            file.write(line)
            if self.durable:
                self.control.ops.sync_file(file)

    def _receipt(self) -> None:
        if not self.body.keyed:
            return
        ops = self.control.ops
        path = self.control.receipt(self.txid)
        missing = ops.lstat(self.control.done) is None
        self.control.make_done()
        if missing:
            self._sync_dir(self.control.path)
        elif ops.lstat(path) is not None:  # by the run that was interrupted before the area went
            self._sync_dir(self.control.done)
            return
        self._write(path + ".tmp", seal({"format": 1, "txid": self.txid, **self.receipt}))
        ops.replace_file(path + ".tmp", path)
        self._sync_dir(self.control.done)

    # --- renames -------------------------------------------------------------------------------

    def _move(self, entry: Entry, index: int, how: str) -> None:
        ops = self.control.ops
        new, target, old = self.new(entry), self.target(entry), self.old(index)
        if how == "exchange":
            ops.exchange(new, target)
        elif how == "aside":
            ops.rename(target, old)
        elif how == "restore":
            self._never_replacing(old, target)
        elif how == "place" and not entry.tree:
            ops.replace_file(new, target)
        elif how == "place":
            ops.rename(new, target)
        elif entry.tree and self._is_tree(target):
            ops.rename(new, target)  # onto an empty directory; refused on any other
        else:
            self._never_replacing(new, target)

    def _is_tree(self, path: str) -> bool:
        stat = self.control.ops.lstat(path)
        return stat is not None and stat.kind is FileKind.TREE

    def _never_replacing(self, src: str, dst: str) -> None:
        ops = self.control.ops
        try:
            ops.rename_new(src, dst)
            return
        except OSError as error:
            if reason_of(error) != "unsupported":
                raise
        if not self._is_tree(src) and self._linked(src, dst):
            return
        # Only the target's lock protects this one; a non-empty directory refuses by itself.
        if ops.lstat(dst) is not None:
            raise FileExistsError(f"{dst} exists")
        ops.rename(src, dst)

    def _linked(self, src: str, dst: str) -> bool:
        """Move a file by a hard link, which never replaces; False where there are none."""
        try:
            self.control.ops.link_new(src, dst)
        except FileExistsError:
            raise
        except OSError:
            return False
        self.control.ops.unlink(src)
        return True

    # --- looking -------------------------------------------------------------------------------

    def nothing_at(self, path: str, entry: Entry) -> bool:
        """An empty directory where a tree goes is as good as nothing: rename replaces it."""
        ops = self.control.ops
        if not entry.tree or entry.occupied:
            return False
        stat = ops.lstat(path)
        return stat is None or is_empty_tree(ops, path, stat)

    # --- the area ------------------------------------------------------------------------------

    def _fence(self) -> None:
        if self.area.endswith(FENCED) and not self.control.ops.leased:
            return
        # A recoverer may have stalled as well, until its lock was taken from it: it knows the other name.
        fenced = self.control.area(self.txid, "" if self.area.endswith(FENCED) else FENCED)
        self.control.ops.rename(self.area, fenced)
        self.area = fenced
        self.made = []  # where a record is, they were durable before it; their old paths are gone
        self._sync_dir(self.control.path)

    def _leave_the_late_behind(self) -> None:
        """Where a request may still be under way, the area gets its other name: a late one finds nothing.

        Storage that does not answer this one either is found by the look that follows.
        """
        if not self.control.ops.leased:
            return
        other = self.control.area(self.txid, "" if self.area.endswith(FENCED) else FENCED)
        with contextlib.suppress(OSError):
            if self.control.ops.lstat(self.area) is not None:
                try:
                    self.control.ops.rename(self.area, other)
                except OSError:
                    if self.control.ops.lstat(other) is None:
                        raise
                self.area = other
                self.made = []

    def _retire(self) -> v.Event:
        if self.keeper is not None:
            self.keeper.close()
        trash = self.control.area(self.txid, TRASH)
        if self.control.ops.lstat(trash) is not None:
            trash = self.control.area(self.txid + "-" + seams.token_hex(4), TRASH)
        self.control.ops.rename(self.area, trash)
        self.area = trash
        try:
            self._sync_dir(self.control.path)
        except OSError as error:
            self.cause = self.cause or error
            return v.Unknown()
        return v.Done()

    def _clear(self) -> None:
        self.release()
        for path in [self.control.area(self.txid, TRASH), self.area]:
            if path.endswith(TRASH):
                self.left += remove_tree(self.control.ops, path)
        if self.control.find_area(self.txid) is None:
            for control in self.others:
                with contextlib.suppress(OSError):
                    control.ops.unlink(control.area(self.txid, REF))
        self.depart()

    def release(self) -> None:
        """Let the targets' locks go."""
        while self.locks:
            self.locked = frozenset()
            with self._kept():
                self.locks[-1].release()  # popped when done: an interrupted release is made again
            self.locks.pop()

    def depart(self) -> None:
        """Give up liveness and leave the control directories."""
        self.release()
        while self.claims:
            with self._kept():
                self.claims[-1].release()
            self.claims.pop()
        if self.keeper is not None:
            with self._kept():
                self.keeper.close()
        if self.alive is not None:
            with self._kept():
                self.alive.release()
            self.alive = None
        for control in (self.control, *self.others):
            with self._kept():
                control.leave()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """What fails when all is decided stays for the next one who comes; it changes no outcome."""
        try:
            yield
        except (OSError, ConflictError) as error:
            self.left.append(error)
