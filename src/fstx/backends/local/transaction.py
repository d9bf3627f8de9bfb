"""A transaction on a local file system."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from fstx import machines
from fstx.backends.base import wrap_storage_error
from fstx.backends.local.adopting import AdoptsFiles
from fstx.backends.local.control import Control, names_from
from fstx.backends.local.items import (
    Itemizer,
    Target,
    contents,
    identity,
    is_free,
    is_weak,
    no_links,
    roots_of,
    walk,
)
from fstx.backends.local.perform import Performer, Replan
from fstx.backends.local.records import Entry, Identity, RecordBody
from fstx.backends.local.staging import Keeper, LocalStager, copy_file, read_range, write_all
from fstx.backends.local.verdicts import commit_error, what_is_lost
from fstx.errors import (
    CommitError,
    InDoubtError,
    PathError,
    StateError,
    StorageError,
    TransactionError,
)
from fstx.machines import vocabulary as v
from fstx.ops import FileKind, LockHandle
from fstx.ops.windows import name_problem
from fstx.select import Abilities, strategy_at_commit
from fstx.types import Buffer, Capability, Guarantee, Mode, Snapshot, StagedObject

_PLANS = 3  # one more than cooperating writers can make necessary: locks are held from the first on


class LocalTransaction(AdoptsFiles):
    """Staged beside its targets, on their file system; published by rename, swap or redo."""

    def __init__(
        self,
        *,
        control: Control,
        others: tuple[Control, ...],
        targets: tuple[Target, ...],
        joined: bool,
        area: str,
        txid: str,
        caller_id: str | None,
        alive: LockHandle,
        claims: list[LockHandle],
        abilities: Abilities,
        guarantee: Guarantee,
        mode: Mode,
        entry: str | None,
        require: frozenset[Capability],
        created: Sequence[str],
        keeper: Keeper,
    ) -> None:
        super().__init__(
            txid=caller_id or txid,
            url=guarantee.url,
            guarantee=guarantee,
            mode=mode,
            entry=entry,
            roots=tuple(t.name for t in targets) if joined else None,
            require=require,
        )
        self._control = control
        self._ops = control.ops
        self._others = others
        self._targets = targets
        self._area = area
        self._txid = txid
        self._caller_id = caller_id
        self._alive = alive
        self._claims = claims
        self._abilities = abilities
        self._created = list(created)
        self._keeper = keeper
        self._pid = os.getpid()
        self._items = Itemizer(self._ops, targets, mode, area, joined)
        durable = guarantee.durability == "data"
        self._stager = LocalStager(self._ops, area, txid, durable=durable, keeper=keeper)
        self._made: dict[str, None] = {}
        self._touched: dict[str, Identity | None] = {}
        self._trees: dict[str, frozenset[tuple[str, Identity]]] = {}  # removed directories
        self._moved: set[str] = set()

    def _area_id(self) -> str:
        return self._txid

    def _allowed(self, path: str, *, removing: bool = False) -> None:
        super()._allowed(path, removing=removing)
        if self._ops.name == "windows":
            for part in path.split("/"):
                if problem := name_problem(part):
                    raise PathError(f"{path!r}: Windows can't hold a name that {problem}")

    def _must_be_open(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(
                f"transaction {self.id} belongs to process {self._pid}; a forked child may use "
                "tx.stager(), not the transaction",
                txid=self.id,
            )
        super()._must_be_open()

    # --- staging -------------------------------------------------------------------------------

    def stager(self) -> LocalStager:
        """A handle that stages from any thread, or pickled from any process of this file system."""
        return self._stager

    def _adopted(self, receipt: StagedObject, displaced: StagedObject | None) -> None:
        source = self._source(receipt)
        if receipt.key in self._moved:
            raise StateError(f"the receipt of {receipt.path!r} was used already", txid=self.id)
        stat = self._ops.lstat(source)
        if stat is None or stat.kind is not FileKind.FILE or stat.size_bytes != receipt.size_bytes:
            if self._ops.lstat(self._area) is None:
                raise self._given_up()
            raise StorageError(
                f"the staged bytes of {receipt.path!r} are not there whole "
                f"({receipt.size_bytes} bytes expected, {stat.size_bytes if stat else 'none'} found)",
                txid=self.id,
            )
        destination = self._items.staged_path(receipt.path)
        try:
            self._make_folder(os.path.dirname(destination))
            if displaced is not None:
                self._ops.replace_file(source, destination)
            else:
                self._ops.rename(source, destination)
        except FileNotFoundError as error:  # it was there: all of it is gone
            self._failure = self._failure or error
            raise self._given_up() from error
        except OSError as error:
            self._failure = self._failure or error
            raise wrap_storage_error(error, f"staging {receipt.path!r} failed", self.id) from error
        self._moved.add(receipt.key)

    def _source(self, receipt: StagedObject) -> str:
        folder, _, name = receipt.key.partition("/")
        if folder != "a" or not name or "/" in name or name in (".", "..") or "\\" in name:
            raise PathError(f"the receipt of {receipt.path!r} has the key {receipt.key!r}")
        return os.path.join(self._area, "a", name)

    def _make_folder(self, folder: str) -> None:
        if folder in self._made or folder == os.path.join(self._area, "s"):
            return
        self._make_folder(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            self._ops.mkdir(folder)
        self._made[folder] = None

    def _drop(self, receipts: Iterable[StagedObject]) -> None:
        for receipt in receipts:
            if receipt.key not in self._moved:
                with contextlib.suppress(OSError):
                    self._ops.unlink(self._source(receipt))
                continue
            path = self._items.staged_path(receipt.path)
            with contextlib.suppress(OSError):
                self._ops.unlink(path)
            folder = os.path.dirname(path)
            while folder in self._made:
                try:
                    self._ops.rmdir(folder)
                except OSError:
                    break  # something else is staged there
                del self._made[folder]
                folder = os.path.dirname(folder)

    def _concatenate(
        self, path: str, pieces: Sequence[Buffer | StagedObject], publisher: bool
    ) -> StagedObject:
        with self._stager.open(path, publisher=publisher) as file:
            raw: Any = file.raw
            for piece in pieces:
                if isinstance(piece, StagedObject):
                    try:
                        source = self._ops.open_read(self._source(piece))
                    except FileNotFoundError as error:
                        raise StateError(
                            f"the piece {piece.path!r} was used up already", txid=self.id
                        ) from error
                    with source:
                        if copy_file(source, raw) != piece.size_bytes:
                            raise StorageError(
                                f"the piece {piece.path!r} is not there whole", txid=self.id
                            )
                else:
                    write_all(raw, [piece])
        return file.receipt

    # --- the view after commit --------------------------------------------------------------------

    def _read_staged(self, receipt: StagedObject, start: int, stop: int | None) -> bytes:
        return read_range(self._ops, self._items.staged_path(receipt.path), start, stop)

    def _read_base(self, path: str, start: int, stop: int | None) -> bytes:
        self._no_links(path)
        try:
            return read_range(self._ops, self._items.target_path(path), start, stop)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(f"{path!r} is not in {self.url}") from error
        except OSError as error:  # file servers have one word for many failures
            found = self._ops.lstat(self._items.target_path(path))
            if found is None or found.kind is not FileKind.TREE:
                raise
            raise FileNotFoundError(f"{path!r} is a directory in {self.url}") from error

    def _no_links(self, path: str) -> None:
        i, rest = self._items.split(path)
        no_links(self._ops, self._targets[i].path, rest, itself=True)

    def _base_paths(self, prefix: str) -> Iterable[str]:
        for target in self._targets:
            logical = target.name if self._roots is not None else ""
            yield from walk(self._ops, target.path, logical, prefix)

    def _exists_in_base(self, path: str) -> bool:
        i, _ = self._items.split(path)
        if self._targets[i].base is None:
            return False
        return self._ops.lstat(self._items.target_path(path)) is not None

    def _touch(self, path: str) -> None:
        if path in self._touched or self._mode != "update":
            return
        i, rest = self._items.split(path)
        if not self._targets[i].empty:
            no_links(self._ops, self._targets[i].path, rest)
        # What was empty at begin had nothing at any path, whatever has come since.
        self._touched[path] = (
            None
            if self._targets[i].empty
            else identity(self._ops.lstat(self._items.target_path(path)))
        )

    # --- the end -------------------------------------------------------------------------------

    def _publish(self) -> Snapshot:
        held: Performer | None = None
        for left in reversed(range(_PLANS)):
            try:
                return self._publish_as_planned(
                    held, may_replan=left > 0 and self._mode == "update"
                )
            except Replan as again:
                held = again.performer
        raise AssertionError("the last plan is final")

    def _publish_as_planned(self, held: Performer | None, *, may_replan: bool) -> Snapshot:
        """Make items of what is staged, and commit them. `held`: holds the locks of a plan before."""
        performer: Performer | None = None
        try:
            performer, machine, snapshot = self._planned(held)
            if performer is not None:
                performer.may_replan = may_replan
                outcome = performer.run(machine, machine.start())
        except Replan:
            raise
        except BaseException as error:
            if performer is not None:
                settled = self._settle(performer, machine, error, snapshot)
                if not isinstance(error, Exception):
                    raise
                return self._concluded(settled, error, snapshot)
            if held is not None:
                held.release()
            self._give_up()
            if isinstance(error, OSError) and not isinstance(error, TransactionError):
                doing = f"transaction {self.id} was not published to {self.url}: planning its commit failed"
                raise wrap_storage_error(error, doing, self.id) from error
            raise
        if performer is None:
            if held is not None:
                held.release()
            self._give_up()
            return snapshot
        return self._conclude(outcome, performer, snapshot)

    def _planned(self, held: Performer | None) -> tuple[Performer | None, Any, Snapshot]:
        """Hands and machine of this commit, and what it will have published; no hands for nothing."""
        entries = self._items.entries(self._changes)
        if not entries and (self._caller_id is None or self._changes):
            complaint = self._base_changed()
            if not complaint and self._changes.staged:
                complaint = "the target came and went while it was published"
            if complaint:
                raise self._error("conflict", complaint)
            return None, None, Snapshot(self.id, (), "none", 0, 0, reason="nothing was staged")
        strategy, how = strategy_at_commit([e.item for e in entries], self._abilities)
        if weaker := what_is_lost(strategy, entries, self._entry, self._require):
            raise self._error("conflict", f"what came to {self.url} since begin {weaker}")
        machine = machines.build(
            strategy, tuple(e.item for e in entries), how=cast(Any, how or "create"), strict=True
        )
        changed = {(e.parent, e.name) for e in entries}
        urls = tuple(
            self._ops.place + t.path for t in self._targets if (t.parent, t.name) in changed
        )
        count, size_bytes = len(self._changes.staged), self._changes.size_bytes
        performer = self._performer(entries, strategy, how)
        if held is not None:
            performer.locks, performer.locked = held.locks, held.locked
        return performer, machine, Snapshot(self.id, urls, strategy, count, size_bytes)

    def _performer(self, entries: tuple[Entry, ...], strategy: str, how: str) -> Performer:
        own = self._control.parent
        stored = tuple(replace(e, parent="") if e.parent == own else e for e in entries)
        body = RecordBody(
            txid=self._txid,
            strategy=strategy,
            how=how,
            strict=True,
            keyed=self._caller_id is not None,
            durability=self._guarantee.durability,
            entries=stored,
            roots=roots_of(self._ops, self._targets, stored, own),
        )
        return Performer(
            control=self._control,
            others=self._others,
            txid=self._txid,
            area=self._area,
            body=body,
            alive=self._alive,
            keeper=self._keeper,
            made=self._folders(),
            check=self._base_changed,
            claims=self._claims,
            receipt={
                "id": self._caller_id,
                "strategy": strategy,
                "targets": names_from(self._control.parent, [t.path for t in self._targets]),
                "paths": len(self._changes.staged),
                "size_bytes": self._changes.size_bytes,
            },
            network=self._abilities.network,
        )

    def _folders(self) -> list[str]:
        """Directories of the area whose entries have to be durable, parents first.

        Also the one that staged files were moved out of: a rename may be lost until both are.
        """
        left = [os.path.join(self._area, "a")] if self._moved else []
        return left + sorted(self._made)

    def _touch_tree(self, path: str) -> None:
        """All that a directory holds is depended upon when it goes: nobody's new file goes with it."""
        self._touch(path)
        before = self._touched.get(path)
        if before is not None and before[2:] == (0, 0):
            self._trees[path] = contents(self._ops, self._items.target_path(path))

    def _base_changed(self) -> str | None:
        by_parent = {c.parent: c for c in (self._control, *self._others)}
        for target in self._targets:
            now = identity(self._ops.lstat(target.path))
            # What was empty, and a file of an update, is compared by the paths that were touched.
            whole = self._mode == "replace" or (
                not target.empty and target.base is not None and target.base[2:] == (0, 0)
            )
            if self._mode != "create" and target.base is not None and whole and now != target.base:
                return f"{target.path} was replaced by another writer"
            if self._mode == "replace" and target.empty and not is_free(self._ops, target):
                return f"{target.path} was created by another writer"
            control = by_parent[target.parent]
            whole = self._mode == "update" and is_weak(identity(self._ops.lstat(target.parent)))
            if (self._mode == "replace" or whole) and control.generation(
                target.name, whole=whole
            ) != target.generation:
                return f"{target.path} was changed by another transaction"
        absent = {i for i, t in enumerate(self._targets) if self._ops.lstat(t.path) is None}
        for path, before in self._touched.items():
            if before is None and absent and self._items.split(path)[0] in absent:
                continue
            place = self._items.target_path(path)
            if identity(self._ops.lstat(place)) != before:
                return f"{place} was changed by another writer"
        for path, held in self._trees.items():
            place = self._items.target_path(path)
            if path in self._changes.removed and contents(self._ops, place) != held:
                return f"what {place} holds was changed by another writer"
        return None

    def _conclude(self, outcome: v.Outcome, performer: Performer, snapshot: Snapshot) -> Snapshot:
        because = performer.complaint or (str(performer.cause) if performer.cause else "")
        match outcome:
            case v.Committed(pending=True):
                self._release(performer)
                return replace(snapshot, pending=True, reason=because)
            case v.Committed():
                self._release(performer)
                self._remove_created()  # of a target that nothing was staged for
                return snapshot
            case v.Aborted(reason):
                self._release(performer)
                self._remove_created()
                raise self._error(reason, because) from performer.cause
        self._release(performer)
        raise self._doubt(because) from performer.cause

    def _concluded(
        self, settled: v.Outcome | None, error: Exception, snapshot: Snapshot
    ) -> Snapshot:
        """After a failure that no machine was told of, such as a journal that can't be read back."""
        match settled:
            case v.Committed(pending):
                return replace(snapshot, pending=pending, reason=str(error))
            case v.Aborted():
                raise self._error("failed", str(error)) from error
        raise self._doubt(str(error)) from error

    def _doubt(self, because: str) -> InDoubtError:
        return InDoubtError(
            f"storage did not confirm the commit of transaction {self.id} to {self.url} ({because}); "
            "don't retry: ask fstx.outcome(url, id), or settle it with fstx.recover(url)",
            txid=self.id,
            outcome="unknown",
        )

    def _error(self, reason: v.Reason, because: str) -> CommitError:
        return commit_error(reason, because, mode=self._mode, txid=self.id, url=self.url)

    def _settle(
        self, performer: Performer, machine: Any, interrupt: BaseException, snapshot: Snapshot
    ) -> v.Outcome | None:
        """Ctrl-C inside commit: decide now, by the way of recovery, and say which way it went."""
        try:
            outcome = performer.settle(machine)
        except BaseException as second:  # noqa: BLE001 - the interrupt is the one to raise
            self._release(performer)
            interrupt.add_note(
                f"transaction {self.id} could not be settled ({second!r}); fstx.recover will"
            )
            return None
        if isinstance(outcome, v.Committed):
            self._state = "committed"
            self._snapshot = snapshot
            interrupt.add_note(f"transaction {self.id} is committed")
        elif isinstance(outcome, v.Aborted):
            interrupt.add_note(f"transaction {self.id} was rolled back")
            self._remove_created()
        else:
            interrupt.add_note(f"transaction {self.id} is not settled yet; fstx.recover settles it")
        self._release(performer)
        return outcome

    def _give_up(self) -> None:
        performer = self._performer((), "rename", "create")
        machine = machines.discard()
        try:
            performer.run(machine, machine.rollback())
        finally:
            self._release(performer)
            self._remove_created()

    def _release(self, performer: Performer) -> None:
        if performer.alive is not None:
            performer.depart()

    def _remove_created(self) -> None:
        """Parents that were made for this transaction go with it, if they are empty."""
        while self._created:
            with contextlib.suppress(OSError):
                self._ops.rmdir(self._created.pop())

    def __del__(self) -> None:
        if getattr(self, "_state", "") != "open" or getattr(self, "_pid", 0) != os.getpid():
            return
        self.rollback()  # first: a warning may be an error
        warnings.warn(
            f"transaction {self.id} on {self.url} was dropped without commit or rollback; "
            "it is rolled back",
            ResourceWarning,
            stacklevel=2,
        )
