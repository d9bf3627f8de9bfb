"""One dataset: the log under ``<root>/.fstx``, its newest state, and its versions."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from fstx import seams
from fstx.backends.base import wrap_storage_error
from fstx.backends.manifest.log import Appender, Head, Log, Since
from fstx.backends.manifest.names import MARKER, OTHER_MARKER, PIN
from fstx.backends.manifest.survey import alive
from fstx.errors import CapabilityError, RecoveryError, StorageError
from fstx.state.entries import Entry, matches
from fstx.state.records import Record
from fstx.state.sealing import seal, unseal
from fstx.state.tree import NodeCache
from fstx.state.view import View
from fstx.stores import Answer, Proof, Store

FORMAT = 1
_KNOWN = 64
_RECENT = 128


class Version(View):
    """A state of a dataset that never changes: paths to entries, at one version of the log."""

    def __init__(self, head: Head, store: Store, cache: NodeCache) -> None:
        super().__init__(head.state, store.get, cache)
        self.head = head

    @property
    def version(self) -> int:
        """Number of the newest record that it holds; 0: empty, nothing was committed yet."""
        return self.head.seq

    def __repr__(self) -> str:
        return f"<version {self.version}: {self.count} paths>"


class Dataset:
    """The dataset whose control directory `store` is rooted at. Thread-safe.

    Parameters
    ----------
    store
        Rooted at ``<root>/.fstx``.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.log = Log(store)
        self.cache = NodeCache()
        self._lock = threading.RLock()
        self._head: Head | None = None
        self._version: Version | None = None
        self._recent: dict[int, Record] = {}
        self._marked = False
        self._proof: Proof | None = None

    @property
    def url(self) -> str:
        """The root."""
        return self.store.url.rstrip("/").removesuffix("/.fstx")

    @property
    def identity(self) -> str:
        """Equal for two that are the same dataset."""
        return self.store.identity

    def __repr__(self) -> str:
        head = "not read yet" if self._head is None else f"at version {self._head.seq}"
        return f"<Dataset {self.url}, {head}>"

    # --- the marker ----------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the marker is there and is one of a dataset.

        Raises
        ------
        RecoveryError
            A marker that is damaged, of a newer format, or of the other view.
        """
        if self._marked:
            return True
        where = f"{self.store.url}/{MARKER}"
        try:
            data = self.store.get(MARKER)
        except FileNotFoundError:
            return False
        check_marker(data, where, "dataset")
        self._marked = True
        return True

    def create(self) -> None:
        """Put the marker; nothing happens where it is.

        Raises
        ------
        StorageError
            It can't be put.
        RecoveryError
            The place is the home of plain targets.
        """
        if self.exists():
            return
        if self.store.info(OTHER_MARKER) is not None:
            check_marker(
                self.store.get(OTHER_MARKER), f"{self.store.url}/{OTHER_MARKER}", "dataset"
            )
        for _ in range(5):
            answer = self.store.put_new(MARKER, marker("dataset", self.identity))
            if answer in (Answer.DONE, Answer.TAKEN) and self.exists():
                return
            if self.exists():
                return
        raise StorageError(f"{self.store.url}/{MARKER} can't be written", outcome="aborted")

    # --- reading ----------------------------------------------------------------------------------

    def refresh(self, *, sure: bool = False) -> Version:
        """The newest version, read from the storage.

        `sure`: also where the whole dataset was deleted, or made anew, behind this process's back.
        """
        with self._lock:
            if self._head is None:
                return self.advance(self.log.newest())
            forward = self.log.forward_surely if sure else self.log.forward
            head, since = forward(self._head)
            if sure and head.seq < self._head.seq:
                self._head = self._version = None
                self._recent.clear()
                self._marked = False
            self._remember(since)
            return self.advance(head)

    def current(self) -> Version:
        """The newest version that this process knows; read from the storage if it knows none."""
        with self._lock:
            return self._version or self.refresh()

    def advance(self, head: Head) -> Version:
        """Take note of a head that was read or written; an older one than is known changes nothing."""
        with self._lock:
            if self._head is None or head.seq > self._head.seq or self._version is None:
                self._head = head
                self._version = Version(head, self.store, self.cache)
            return self._version

    def note(self, appender: Appender) -> None:
        """Take note of what an append read and wrote."""
        with self._lock:
            self._remember(appender.since)
            landed = appender.landed
            if landed.record is not None:
                self._remember((landed.record,))
            self.advance(landed)

    def known_since(self, seq: int) -> tuple[Head, Since]:
        """The head that this process knows, and the records after `seq`; None where it forgot some."""
        with self._lock:
            head = self.current().head
            wanted = range(seq + 1, head.seq + 1)
            if not all(n in self._recent for n in wanted):
                return head, None
            return head, tuple(self._recent[n] for n in wanted)

    def _remember(self, records: Since) -> None:
        for record in records or ():
            self._recent[record.seq] = record
        while len(self._recent) > _RECENT:
            del self._recent[min(self._recent)]

    def view(self, version: int | None = None) -> Version:
        """One version, or the newest.

        Raises
        ------
        FileNotFoundError
            There is no such version, or not any more.
        """
        if version is None:
            return self.refresh()
        if version == 0:
            return Version(Head(), self.store, self.cache)
        head = self.log.read(version)
        newest = self.refresh().head
        retired = not alive(newest.state, version) and not self._pinned(version)
        if head is None or version > newest.seq or retired:
            raise FileNotFoundError(
                f"{self.url} has no version {version}; "
                f"there are {max(1, newest.state.oldest)} to {newest.seq}"
                if newest.seq
                else f"{self.url} has no version yet"
            )
        return Version(head, self.store, self.cache)

    def _pinned(self, version: int) -> bool:
        """Whether someone holds a version that was retired."""
        pins = self.store.list(f"{PIN}{version:020d}-")
        return next(iter(pins), None) is not None and version > self.log.boundary()

    def read(self, entry: Entry, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of an entry; a read of all of it compares the checksum.

        Raises
        ------
        FileNotFoundError
            The object is gone: its version was retired and collected.
        StorageError
            The bytes are not those that were committed.
        """
        first, last, _ = slice(start, stop).indices(entry.size_bytes)
        if entry.inline is not None:
            return entry.inline[first:last]
        if last <= first:
            return b""
        offset = entry.offset or 0
        whole = first == 0 and last == entry.size_bytes
        data = self.store.get(entry.key, offset + first, offset + last)
        if len(data) != last - first or (whole and not matches(data, entry.checksum)):
            raise StorageError(
                f"{self.store.url}/{entry.key} is damaged: its bytes are not those that were committed; "
                "restore an older version or write the path again"
            )
        return data

    # --- promises -------------------------------------------------------------------------------

    def proof(self) -> Proof:
        """What the storage is proven to do, probed once."""
        with self._lock:
            if self._proof is None:
                try:
                    self._proof = self.store.probe()
                except StorageError:
                    raise
                except OSError as error:
                    raise wrap_storage_error(error, f"finding out what {self.url} keeps") from error
            return self._proof

    def must_commit(self) -> None:
        """CapabilityError unless put-if-absent is proven here."""
        proof = self.proof()
        if not proof.put_new:
            raise CapabilityError(
                f"{self.url}: no transaction can be committed here: {proof.put_new_reason}. Use a storage "
                "that refuses to overwrite on request, or write without fstx, one writer at a time"
            )
        if not proof.consistent:
            raise CapabilityError(
                f"{self.url}: no transaction can be committed here: {proof.consistent_reason}"
            )


def marker(kind: str, identity: str) -> bytes:
    """The marker of a view: which one it is, so that the other refuses it."""
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return seal({"format": FORMAT, "kind": kind, "id": name})


def check_marker(data: bytes, where: str, kind: str) -> dict[str, Any]:
    """RecoveryError unless `data` is the marker of a `kind`."""
    found = unseal(data, where)
    if found.get("kind") != kind:
        other = "tx::" if found.get("kind") == "dataset" else "plain"
        raise RecoveryError(
            f"{where} says that this place is written in the {other} view; use that view, or another place"
        )
    return found


_datasets: OrderedDict[tuple[str, str], Dataset] = OrderedDict()
_datasets_lock = threading.Lock()


def dataset_of(store: Store) -> Dataset:
    """The dataset of a store; one object for one place, so that what was read of it is shared."""
    key = (store.identity, str(getattr(store, "token", "")))  # other credentials: another object
    with _datasets_lock:
        found = _datasets.get(key)
        if found is None:
            found = _datasets[key] = Dataset(store)
            while len(_datasets) > _KNOWN:
                _datasets.popitem(last=False)
        else:
            _datasets.move_to_end(key)
        return found


def forget() -> None:
    """Forget all datasets, as a process that has just begun."""
    with _datasets_lock:
        _datasets.clear()


seams.at_end_of_process(forget)


def _after_fork_in_child() -> None:
    global _datasets_lock
    _datasets_lock = threading.Lock()  # whoever held it, or a dataset's own, is not in this process
    _datasets.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def marked_above(store: Store, path: str) -> Iterator[str]:
    """`path` and its ancestors, nearest first, where a dataset's marker lies; "" is the store's root."""
    while True:
        below = f"{path}/.fstx/{MARKER}" if path else f".fstx/{MARKER}"
        try:
            found = store.info(below) is not None
        except PermissionError:
            found = False
        if found:
            yield path
        if not path:
            return
        path = path.rpartition("/")[0]


__all__ = ["Dataset", "Version", "check_marker", "dataset_of", "forget", "marked_above", "marker"]
