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
from fstx.backends.manifest.joined import gather
from fstx.backends.manifest.names import (
    DATA,
    IDS,
    mark_of,
    new_txid,
    owner_of,
    removal_attempt,
    split_attempt,
)
from fstx.backends.manifest.overlay import Overlay
from fstx.backends.manifest.staging import HELD, Desk, ObjectStager
from fstx.backends.manifest.taking import take
from fstx.errors import StateError, StorageError, TargetExistsError, TransactionError
from fstx.paths import check_path, is_below
from fstx.state.entries import Delta, Entry
from fstx.types import Buffer, Capability, Guarantee, Mode, Snapshot, StagedObject

_LINK = "link/"
_DIRECTORY = Entry(0, directory=True)
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
        self._removals: list[tuple[str, str]] = []  # since others may join: tree, when
        self._outer: Any = None
        if mode == "create":
            self._trees.update(self._targets())
        if self.mark and base.mark(self.mark) is not None:
            self._state = "committed"
        elif mode == "create" and any(True for t in self._targets() for _ in base.items(t)):
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
            try:
                self.dataset.create()  # so that those who join find the root
                self._desk.shared = True
                for path, entry in list(self._entries.items()):
                    if not entry.key.startswith(HELD):
                        continue
                    data = self._content(entry, 0, None)
                    logical = self._stager.logical(path)
                    before = self._changes.staged[logical]
                    self.adopt([self._stager.keep(logical, data, before.publisher)])
                self._settle()
            except StorageError as error:
                self._failure = self._failure or error
                raise

    def current(self) -> contextlib.AbstractContextManager[None]:
        """A block in which the running context belongs to this transaction."""
        return joining.belonging(self.dataset.identity, self)

    def __enter__(self) -> ManifestTransaction:
        self._outer = joining.current(self.dataset.identity)
        joining.enter(self.dataset.identity, self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        joining.leave(self.dataset.identity, self, self._outer)
        self._outer = None
        super().__exit__(kind, error, trace)

    def view(self) -> Overlay:
        """What this transaction's own readers see: its base with its changes over it."""
        return Overlay(self.base, self.delta)

    def delta(self) -> Delta:
        """The changes as they are now, by paths of the dataset."""
        removed = (*self._replaced(), *(self._stager.tree(p) for p in list(self._changes.removed)))
        made = list(self._directories)
        if not made:
            return Delta(self._entries, removed)
        entries = dict(self._entries)
        return Delta({**{d: _DIRECTORY for d in made if d not in entries}, **entries}, removed)

    def _targets(self) -> list[str]:
        """The trees that it is about: its place in the dataset, or the targets that lie there."""
        return [self.prefix] if self._roots is None else [self._stager.tree(r) for r in self._roots]

    def _replaced(self) -> list[str]:
        """Trees of which nothing stays but what is staged."""
        if self._mode != "replace":
            return []
        if self._roots is None:
            return [self.prefix] if self._changes.staged or self._directories else []
        made = list(self._directories)
        found = [r for r in self._roots if self._changes.holds(r)]
        trees = [self._stager.tree(r) for r in self._roots if r not in found]
        filled = [t for t in trees if any(not t or is_below(d, t) for d in made)]
        return [*map(self._stager.tree, found), *filled]

    # --- beyond files: links and directories --------------------------------------------------------

    def link(self, path: str, entry: Entry) -> None:
        """Stage an existing entry of this dataset under another path; nothing is copied."""
        if entry.key.startswith(HELD):
            self.stage(path, self._content(entry, 0, None))
            return
        self._before_staging(path)
        with self._lock:
            key = f"{_LINK}{len(self._links)}"
            self._links[key] = entry
        self.adopt([StagedObject(path, key, entry.size_bytes, self.txid)])

    def make_directory(self, path: str) -> None:
        """An empty directory; it stays until it is removed, also when files come and go."""
        with self._lock:
            self._must_be_open()
            full = self._full(check_path(path))
            if self._mode == "replace" or self.view().get(full) is None:
                self._directories[full] = None

    def remove(self, path: str, /) -> None:
        """Remove a file or a whole tree at commit; of what others staged by URL, what lies there now.

        Raises
        ------
        FileNotFoundError
            Neither staged here nor in the base.
        """
        with self._lock:
            self.drop_tree(path)
            if self._desk.shared:
                self._removals.append((self._stager.tree(path), removal_attempt()))

    def _is_empty(self) -> bool:
        return super()._is_empty() and not self._directories and not self._desk.shared

    def drop_tree(self, path: str) -> None:
        """As `remove`, but what others staged is left out of it."""
        self._must_be_open()
        full = self._stager.tree(check_path(path))
        made = [d for d in self._directories if is_below(d, full)]
        try:
            super().remove(path)
        except FileNotFoundError:
            if not made:
                raise
        for directory in made:
            del self._directories[directory]

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
        if displaced is not None and displaced.key != receipt.key:
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
        for where in [self._stager.tree(prefix)] if prefix else self._targets():
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
        made = {d for d in self._directories if d not in self._entries}
        return Touched(self._touched, self._trees.union(self._replaced()), made)

    def _settle(self) -> None:
        try:
            self._desk.uploads.settle()
        except StorageError as error:
            self._failure = self._failure or error
            raise

    def _publish(self) -> Snapshot:
        started = time.time()
        try:
            self._desk.close()
            if self._desk.shared:
                take(self, gather(self.dataset.store, self.txid, skip=self._dropped))
                if self._mode == "replace" and super()._is_empty() and not self._directories:
                    raise self._nothing_staged()
            if self._desk.held_bytes > Commit.INLINE_BYTES:
                self._desk.pack()
            own = self.delta()
            if not own and not self.mark:
                return self._nothing()
            self.dataset.create()
            puts = self._desk.settled(own.puts)
            if self.mark:
                puts[f"{IDS}{self.mark}"] = Entry(0, inline=b"")
        except BaseException as error:
            told = error
            if isinstance(error, OSError) and not isinstance(error, TransactionError):
                told = wrap_storage_error(error, f"committing to {self._url}", self._id)
            self.clear_away(told)
            if told is not error:
                raise told from error
            raise
        commit = Commit(self, Delta(puts, own.removed), started)
        return commit.run(settle=self._settle, dropped=self._dropped)

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

    def commit(self) -> Snapshot:
        """As `Transaction.commit`; over, it holds no content in memory and nothing is under way."""
        with self._lock:
            try:
                return super().commit()
            finally:
                if self._state != "open":
                    self._release()

    def _release(self) -> None:
        self._desk.release()
        self._entries, self._links, self._directories = {}, {}, {}

    def clear_away(self, error: BaseException, more: Iterable[str] = ()) -> None:
        """Give up what is staged, and `more` objects, because of `error`; a failure becomes a note of it."""
        try:
            self._give_up(more)
        except Exception as second:  # noqa: BLE001 - the first failure is the one to raise (A15)
            error.add_note(
                f"clearing away what transaction {self._id} staged failed as well: {second!r}"
            )

    def _give_up(self, more: Iterable[str] = ()) -> None:
        self._release()
        store = self.dataset.store
        with _clearing(self._id):
            keys = [*(info.key for info in store.list(f"{DATA}{self.txid}/")), *more]
            if keys:
                store.delete(keys)


@contextlib.contextmanager
def _clearing(id: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise wrap_storage_error(error, "removing what was staged", id) from error
