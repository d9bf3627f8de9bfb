"""A transaction on plain targets of an object store: decided by a record, then brought to its names."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence

from fstx.backends.base import BaseTransaction, note_other, storage_errors, wrap_storage_error
from fstx.backends.plain import owner
from fstx.backends.plain.base import Base
from fstx.backends.plain.claims import Ledger
from fstx.backends.plain.commit import Commit
from fstx.backends.plain.home import Home
from fstx.backends.plain.listings import forget_listings
from fstx.backends.plain.names import is_gone, is_notice, staged_prefix
from fstx.backends.plain.ops import stamp
from fstx.backends.plain.staging import HELD, PLACED, Desk, PlainStager, Rules, key_checksum
from fstx.backends.plain.sweep import sweep
from fstx.errors import StateError, StorageError
from fstx.types import Buffer, Capability, Guarantee, Mode, Snapshot, StagedObject

_READ_BYTES = 8 << 20


class PlainTransaction(BaseTransaction):
    """Changes of plain targets: all of them come, or none.

    Parameters
    ----------
    home
        Of the targets.
    txid
        Under which the claim was made.
    names
        The targets, all of them directly below the home's parent.
    base
        What was there when the claim was made.
    mark
        Under which a caller's id is remembered; "" without one.
    life
        What `owner.opened` gave: with it goes the sign that this lives.
    cleaned
        Dead transactions of which nothing is left; the next record forgets them.
    """

    def __init__(
        self,
        home: Home,
        *,
        txid: str,
        names: tuple[str, ...],
        joined: bool,
        base: Base,
        url: str,
        guarantee: Guarantee,
        mode: Mode,
        entry: str | None,
        require: frozenset[Capability],
        id: str | None,
        mark: str,
        life: object,
        cleaned: tuple[str, ...] = (),
    ) -> None:
        super().__init__(
            txid=id or txid,
            url=url,
            guarantee=guarantee,
            mode=mode,
            entry=entry,
            roots=names if joined else None,
            require=require,
        )
        self.txid = txid
        self.home = home
        self.names = names
        self.base = base
        self.mark = mark
        self.cleaned = cleaned
        self._life: object | None = life
        self._pid = os.getpid()
        self._prefix = "" if joined else names[0]
        self.touched: dict[str, str] = {}  # place -> stamp of what the commit depends on
        self.trees: dict[str, dict[str, str]] = {}
        self._desk = Desk(
            home.parent, home.store, txid, lambda place: base.get(place) is not None, self._look
        )
        self._dropped: set[str] = set()
        self._stager = PlainStager(
            home.parent, home.store, txid, self._prefix, self._rules(), self._desk
        )

    def _rules(self) -> Rules:
        if self._entry is None:
            return Rules(None)
        entry = self.place(self._entry)
        fresh = self._mode == "create"
        if not fresh and self.base.get(entry) is not None:
            # Names that the old entry implies must not be filled before it is replaced, unless the caller
            # said that parts are found through it alone.
            named = self._mode == "update" and Capability.ATOMIC_SET in self._require
            return Rules(entry, frozenset(self.names if named else ()), fresh=False)
        if self._mode == "replace":
            free = frozenset(n for n in self.names if not self.base.holds(n))
            return Rules(entry, free, fresh=True)
        return Rules(entry, frozenset(self.names), fresh=fresh)

    def _look(self) -> None:
        with self._lock, self._reading(""):
            self.base.all()

    @property
    def desk(self) -> Desk:
        """What is staged in this process."""
        return self._desk

    @property
    def entry_place(self) -> str:
        """Where the entry lies, relative to the parent; "" without one."""
        return "" if self._entry is None else self.place(self._entry)

    def place(self, path: str) -> str:
        """Where a path of this transaction lies, relative to the parent of the targets."""
        return f"{self._prefix}/{path}".rstrip("/") if self._prefix else path

    def path_of(self, place: str) -> str:
        """The other way round."""
        return place[len(self._prefix) + 1 :] if self._prefix else place

    # --- BaseTransaction's questions -------------------------------------------------------------

    def _area_id(self) -> str:
        return self.txid

    def _must_be_open(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(
                f"transaction {self.id} belongs to process {self._pid}; in a forked child use tx.stager()",
                txid=self.id,
            )
        super()._must_be_open()

    def stager(self) -> PlainStager:
        """A handle that stages from any thread, or pickled from any process or host."""
        return self._stager

    def _adopted(self, receipt: StagedObject, displaced: StagedObject | None) -> None:
        key = receipt.key
        if key.startswith(HELD):
            known = self._desk.held(key) is not None
        else:
            key_checksum(receipt, self.txid)
            known = key not in self._dropped
        if not known:
            raise StateError(f"the receipt of {receipt.path!r} was used already", txid=self._id)
        if displaced is not None:
            self._drop([displaced])

    def _drop(self, receipts: Iterable[StagedObject]) -> None:
        for receipt in receipts:
            if receipt.key.startswith(HELD):
                self._desk.drop(receipt.key)
            else:
                self._dropped.add(receipt.key)  # deleted at the end, with all that is not wanted

    def _concatenate(
        self, path: str, pieces: Sequence[Buffer | StagedObject], publisher: bool
    ) -> StagedObject:
        self._settle()
        with self._stager.open(path, publisher=publisher) as file:
            for piece in pieces:
                if not isinstance(piece, StagedObject):
                    file.write(piece)
                    continue
                if piece.key in self._dropped:
                    raise StateError(f"the piece {piece.path!r} was used up already", txid=self._id)
                for start in range(0, piece.size_bytes, _READ_BYTES):
                    stop = min(start + _READ_BYTES, piece.size_bytes)
                    file.write(self._read_staged(piece, start, stop))
        return file.receipt

    def _read_staged(self, receipt: StagedObject, start: int, stop: int | None) -> bytes:
        first, last, _ = slice(start, stop).indices(receipt.size_bytes)
        if receipt.key.startswith(HELD):
            held = self._desk.held(receipt.key)
            if held is None:
                raise StateError(f"the receipt of {receipt.path!r} was used already", txid=self._id)
            return held[first:last]
        if last <= first:
            return b""
        self._settle()
        with self._reading(receipt.path):
            if receipt.key.startswith(PLACED):
                return self.home.parent.get(self.place(receipt.path), first, last)
            return self.home.store.get(receipt.key, first, last)

    def _read_base(self, path: str, start: int, stop: int | None) -> bytes:
        place = self.place(path)
        with self._reading(path):
            info = self.base.get(place)
            if info is None:
                raise FileNotFoundError(f"{path!r} is not in {self._url}")
            first, last, _ = slice(start, stop).indices(info.size_bytes)
            return self.home.parent.get(place, first, last) if last > first else b""

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, StorageError):
            raise
        except OSError as error:
            raise wrap_storage_error(error, f"reading {path!r}", self._id) from error

    def _base_paths(self, prefix: str) -> Iterator[str]:
        with self._reading(prefix):
            found = self.base.below(self.place(prefix)) if prefix else self.base.all()
        for place in found:
            if place != self._prefix:
                yield self.path_of(place)

    def _exists_in_base(self, path: str) -> bool:
        with self._reading(path):
            return self.base.holds(self.place(path))

    def _touch(self, path: str) -> None:
        place = self.place(path)
        if place not in self.touched:
            with self._reading(path):
                self.touched[place] = stamp(self.base.get(place))

    def _touch_tree(self, path: str) -> None:
        place = self.place(path)
        with self._reading(path):
            found = self.base.below(place)
        self.trees[place] = {key: stamp(info) for key, info in found.items()}

    # --- the end ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        try:
            self._desk.settle()
        except StorageError as error:
            self._failure = self._failure or error
            raise

    def _publish(self) -> Snapshot:
        started = time.time()
        try:
            with storage_errors(f"committing to {self._url}", self._id):
                self._settle()
                self._desk.wait()
                commit = Commit(self, self._changes, started)
        except BaseException as error:
            self._abandon(error)
            raise
        try:
            return commit.run()
        finally:
            self._over()

    def _abandon(self, error: BaseException) -> None:
        try:
            self.give_up()
        except Exception as second:  # noqa: BLE001 - the first failure is the one to raise
            note_other(error, second)

    def _give_up(self) -> None:
        self.give_up()

    def give_up(self) -> None:
        """Nothing of this is left; the names are free. What can't be removed now, recovery removes."""
        try:
            with storage_errors(f"rolling back at {self._url}", self._id):
                self._desk.wait()
                self._remove_ours()
        finally:
            self._over()

    def _remove_ours(self) -> None:
        placer = self._desk.placer
        if self.txid not in self.home.refresh().claims:
            # Given up meanwhile: others may have put their own at these names.
            store = self.home.store
            left = [info.key for info in store.list(staged_prefix(self.txid))]
            store.delete([key for key in left if not is_notice(key) and not is_gone(key)])
            return
        swept = sweep(
            self.home.parent,
            self.home.store,
            self.txid,
            self.names,
            known=placer.parts,
            foreign=self.before(),
            keep_notices=bool(placer.doubtful),
            own_notices=placer.notices,
        )
        self._release(late=swept.left)
        self.home.tidy()

    def _release(self, *, late: bool) -> None:
        """The names are free; `late`: something may still arrive, and the next one removes it."""

        def change(ledger: Ledger) -> Ledger:
            ledger = ledger.swept(self.cleaned)
            if late:
                return ledger.give_up([self.txid], int(time.time()))
            return ledger.release(self.txid).swept([self.txid])

        self.home.service(
            "fence",
            self.txid,
            change,
            lambda ledger: "free" if self._is_known(ledger) else "moot",
            lambda ledger: not self._is_known(ledger),
        )

    def _is_known(self, ledger: Ledger) -> bool:
        return self.txid in ledger.claims or self.txid in ledger.dead

    def fence(self) -> None:
        """Nothing of this can land any more, if it did not land before."""
        self.home.service(
            "fence",
            self.txid,
            lambda ledger: ledger.give_up([self.txid], int(time.time())),
            lambda ledger: "free" if self.txid in ledger.claims else "moot",
            lambda ledger: self.txid not in ledger.claims,
        )

    def before(self) -> frozenset[str]:
        """Places that certainly held something before this began."""
        return self.base.known()

    def _over(self) -> None:
        owner.closed(self.txid)
        self._life = None
        forget_listings(self.home.parent.url)


__all__ = ["PlainTransaction"]
