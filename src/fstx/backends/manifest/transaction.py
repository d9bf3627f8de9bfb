"""A transaction on a dataset: objects under names of their own, then one record of the log."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any

from fstx.backends.base import BaseTransaction, wrap_storage_error
from fstx.backends.manifest import joining
from fstx.backends.manifest.commit import Commit
from fstx.backends.manifest.conflicts import Policy, Touched
from fstx.backends.manifest.dataset import Dataset, Version
from fstx.backends.manifest.joined import Gathered, gather
from fstx.backends.manifest.names import IDS, mark_of, new_txid, owner_of, split_attempt
from fstx.backends.manifest.overlay import Overlay
from fstx.backends.manifest.staging import HELD, Desk, ObjectStager
from fstx.errors import StateError, StorageError, TargetExistsError
from fstx.paths import check_path
from fstx.state.entries import Delta, Entry
from fstx.types import Buffer, Capability, Guarantee, Mode, Snapshot, StagedObject

_LINK = "link/"
_READ_BYTES = 8 << 20


class ManifestTransaction(BaseTransaction):
    """Changes of a dataset that land as one record of its log, or not at all.

    Entering it by ``with`` makes the running context belong to it: file systems ``tx::`` of the same dataset
    join by themselves. `url` names it for everyone else.

    Parameters
    ----------
    dataset, base
        The dataset, and the version that this began on.
    target
        The URL as the caller gave it, without ``tx::``.
    prefix
        Where the transaction's paths lie in the dataset; "" for its root.
    policy
        What happens when others committed meanwhile: ``"rebase"`` goes on where they touched nothing
        that this touched, ``"fail"`` never goes on, ``"last"`` always.
    """

    def __init__(
        self,
        dataset: Dataset,
        base: Version,
        *,
        target: str,
        prefix: str,
        guarantee: Guarantee,
        mode: Mode,
        require: frozenset[Capability],
        id: str | None,
        policy: Policy,
        roots: tuple[str, ...] | None = None,
        message: str = "",
        strip: str = "",
    ) -> None:
        self.txid = new_txid()
        super().__init__(
            txid=id or self.txid,
            url="tx::" + target,
            guarantee=guarantee,
            mode=mode,
            entry=None,
            roots=roots,
            require=require,
        )
        self.dataset = dataset
        self.base = base
        self.begun = base.version
        self.prefix = prefix
        self.policy: Policy = policy
        self.message = message
        self.mark = mark_of(id) if id is not None else ""
        self._target = target
        self._pid = os.getpid()
        self._desk = Desk(dataset.store, self.txid)
        self._stager = ObjectStager(dataset.store, self.txid, prefix, self._desk, strip=strip)
        self._entries: dict[str, Entry] = {}  # by path of the dataset
        self._links: dict[str, Entry] = {}
        self._touched: set[str] = set()
        self._trees: set[str] = set()
        self._dropped: set[str] = set()
        self._directories: dict[str, None] = {}
        self._context: list[Any] = []
        if mode != "update":
            self._trees.add(prefix)
        if self.mark and base.mark(self.mark) is not None:
            self._state = "committed"
        elif mode == "create" and next(iter(base.items(prefix)), None) is not None:
            raise TargetExistsError(
                f"{self._url} holds something; use overwrite or another mode",
                txid=self._id,
                outcome="aborted",
            )
        joining.register(self.txid, self)

    # --- who belongs to it -----------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether something may still be staged, in this process."""
        return self._state == "open" and os.getpid() == self._pid

    @property
    def url(self) -> str:
        """``tx://@ID::TARGET``: who writes there, from any thread, process or host, joins this transaction.

        From the first use on, everything that is staged lies in the storage where the others find it.
        """
        if not self._desk.shared and self.is_open:
            self._share()
        return f"tx://@{joining.reference(self.txid, self.begun)}::{self._target}"

    def _share(self) -> None:
        with self._lock:
            self.dataset.create()  # so that those who join find the root
            self._desk.shared = True
            for path, entry in list(self._entries.items()):
                data = self._desk.held(entry.key) if entry.key.startswith(HELD) else None
                if data is None:
                    continue
                logical = self._stager.logical(path)
                before = self._changes.staged[logical]
                self.adopt([self._stager.keep(logical, data, before.publisher)])
            self._settle()

    def current(self) -> contextlib.AbstractContextManager[None]:
        """A block in which the running context belongs to this transaction."""
        return joining.belonging(self.dataset.identity, self)

    def __enter__(self) -> ManifestTransaction:
        joining.enter(self.dataset.identity, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        joining.leave(self.dataset.identity, self)
        super().__exit__(kind, error, trace)

    def view(self) -> Overlay:
        """What this transaction's own readers see: its base with its changes over it."""
        return Overlay(self.base, self.delta)

    def delta(self) -> Delta:
        """The changes as they are now, by paths of the dataset."""
        removed = tuple(self._stager.tree(p) for p in self._changes.removed)
        if self._mode == "replace" and (self._changes.staged or self._directories):
            removed = (self.prefix, *removed)
        if not self._directories:
            return Delta(self._entries, removed)
        made = {d: Entry(0, directory=True) for d in self._directories if d not in self._entries}
        return Delta({**made, **self._entries}, removed)

    # --- beyond files: links and directories --------------------------------------------------------

    def link(self, path: str, entry: Entry) -> None:
        """Stage an existing entry of this dataset under another path; nothing is copied."""
        if entry.key.startswith(HELD):
            self.stage(path, self._content(entry, 0, None))
            return
        self._before_staging(path)
        key = f"{_LINK}{len(self._links)}"
        self._links[key] = entry
        self.adopt([StagedObject(path, key, entry.size_bytes, self.txid)])

    def make_directory(self, path: str) -> None:
        """An empty directory; it stays until it is removed, also when files come and go."""
        with self._lock:
            self._must_be_open()
            check_path(path)
            if self.view().get(self._full(path)) is None:
                self._directories[self._full(path)] = None

    # --- BaseTransaction's questions -------------------------------------------------------------

    def _area_id(self) -> str:
        return self.txid

    def _must_be_open(self) -> None:
        if os.getpid() != self._pid:
            raise StateError(
                f"transaction {self.id} belongs to process {self._pid}; in a forked child use tx.url or "
                "tx.stager()",
                txid=self.id,
            )
        super()._must_be_open()

    def stager(self) -> ObjectStager:
        """A handle that stages from any thread, or pickled from any process or host."""
        return self._stager

    def _full(self, path: str) -> str:
        return self._stager.full(path)

    def _adopted(self, receipt: StagedObject, displaced: StagedObject | None) -> None:
        self._entries[self._full(receipt.path)] = self._entry_of(receipt)
        if displaced is not None:
            self._forget(displaced.key)

    def _entry_of(self, receipt: StagedObject) -> Entry:
        key = receipt.key
        if key.startswith(_LINK):
            return self._links[key]
        if key.startswith(HELD):
            if not self._desk.has(key):
                raise StateError(f"the receipt of {receipt.path!r} was used already", txid=self._id)
            return Entry(receipt.size_bytes, key)
        attempt = split_attempt(key.rpartition("~")[2])
        if owner_of(key) != self.txid or attempt is None or attempt[1] == "rm":
            raise StateError(
                f"the receipt of {receipt.path!r} names no object of transaction {self.txid}: {key!r}",
                txid=self._id,
            )
        if key in self._dropped:
            raise StateError(f"the receipt of {receipt.path!r} was used already", txid=self._id)
        return Entry(receipt.size_bytes, key, checksum=attempt[1])

    def _drop(self, receipts: Iterable[StagedObject]) -> None:
        for receipt in receipts:
            full = self._full(receipt.path)
            entry = self._entries.get(full)
            if entry is not None and receipt.path not in self._changes.staged:
                del self._entries[full]
            self._forget(receipt.key)

    def _forget(self, key: str) -> None:
        if key.startswith(HELD):
            self._desk.drop(key)
        elif not key.startswith(_LINK):
            self._dropped.add(key)

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
                entry = self._entry_of(piece)
                for start in range(0, entry.size_bytes, _READ_BYTES):
                    stop = min(start + _READ_BYTES, entry.size_bytes)
                    file.write(self._content(entry, start, stop))
        return file.receipt

    def _content(self, entry: Entry, start: int, stop: int | None) -> bytes:
        if entry.key.startswith(HELD):
            data = self._desk.held(entry.key)
            if data is not None:
                return data[start:stop]
            entry = self.settled(entry)
        if owner_of(entry.key) == self.txid:
            self._settle()
        try:
            return self.dataset.read(entry, start, stop)
        except (FileNotFoundError, StorageError):
            raise
        except OSError as error:
            raise wrap_storage_error(error, f"reading {entry.key}", self._id) from error

    def settled(self, entry: Entry) -> Entry:
        """The entry as it is committed: a packed one with its place in the pack."""
        if not entry.key.startswith(HELD):
            return entry
        place = self._desk.packed(entry.key)
        if place is not None:
            return Entry(entry.size_bytes, place[0], offset=place[1])
        data = self._desk.held(entry.key)
        if data is None:
            raise StateError(f"the content of {entry.key} is gone", txid=self._id)
        return Entry(len(data), inline=data)

    def read_entry(self, entry: Entry, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of an entry of `view`."""
        return self._content(entry, start, stop)

    def _read_staged(self, receipt: StagedObject, start: int, stop: int | None) -> bytes:
        return self._content(self._entries[self._full(receipt.path)], start, stop)

    def _read_base(self, path: str, start: int, stop: int | None) -> bytes:
        entry = self.base.get(self._full(path))
        if entry is None or entry.directory:
            raise FileNotFoundError(f"{path!r} is not in {self._url}")
        return self.dataset.read(entry, start, stop)

    def _base_paths(self, prefix: str) -> Iterator[str]:
        where = self._stager.tree(prefix)
        for path, entry in self.base.items(where):
            if not entry.directory and path != self.prefix:
                yield self._stager.logical(path)

    def _exists_in_base(self, path: str) -> bool:
        full = self._stager.tree(path)
        return self.base.get(full) is not None or self.base.is_dir(full)

    def _touch(self, path: str) -> None:
        self._touched.add(self._full(path))

    def _touch_tree(self, path: str) -> None:
        self._trees.add(self._stager.tree(path))

    @property
    def directories(self) -> int:
        """How many empty directories it makes."""
        return sum(d not in self._entries for d in self._directories)

    @property
    def has_links(self) -> bool:
        """Whether it names objects that others staged."""
        return bool(self._links)

    # --- the end ----------------------------------------------------------------------------------

    def touched(self) -> Touched:
        """What the commit depends on."""
        return Touched(self._touched, self._trees)

    def _settle(self) -> None:
        try:
            self._desk.uploads.settle()
        except StorageError as error:
            self._failure = self._failure or error
            raise

    def _publish(self) -> Snapshot:
        started = time.time()
        try:
            if self._desk.shared:
                self._take(gather(self.dataset.store, self.txid, skip=self._dropped))
            if self._desk.held_bytes > Commit.INLINE_BYTES:
                self._desk.pack()
            own = self.delta()
            if not own and not self.mark:
                return self._nothing()
            self.dataset.create()
            puts = self._desk.settled(own.puts)
            if self.mark:
                puts[f"{IDS}{self.mark}"] = Entry(0, inline=b"")
        except BaseException:
            self._give_up()
            raise
        commit = Commit(self, Delta(puts, own.removed), started)
        return commit.run(settle=self._settle, discard=self._give_up, dropped=self._dropped)

    def _nothing(self) -> Snapshot:
        self._give_up()
        return Snapshot(
            self._id,
            (self._url,),
            "manifest",
            0,
            0,
            version=self.begun or None,
            reason="nothing was changed",
        )

    def _take(self, gathered: Gathered) -> None:
        """What others staged by URL counts as staged, the later of two for one path."""
        mine = {e.key.rpartition("~")[2]: p for p, e in self._entries.items()}
        newest = {path: attempt for attempt, path in mine.items() if split_attempt(attempt)}
        for path, attempt, entry in gathered.in_order():
            if newest.get(path, "") > attempt:
                continue
            logical = self._stager.logical(path)
            if entry is None:
                if self.view().get(path) is not None or self.view().is_dir(path):
                    self.remove(logical)
            elif self._entries.get(path) != entry:
                self.adopt([StagedObject(logical, entry.key, entry.size_bytes, self.txid)])

    def _give_up(self) -> None:
        self._desk.uploads.wait()
        self._desk = Desk(self.dataset.store, self.txid)
        store = self.dataset.store
        keys = [info.key for info in store.list(f"data/{self.txid}/")]
        if keys:
            store.delete(keys)
