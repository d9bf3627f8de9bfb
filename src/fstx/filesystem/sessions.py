"""Which version an instance reads, and into which transaction it writes.

An instance carries no transaction. It holds the version of a dataset that it first read, so that one reader
sees one version; it moves on when it writes, after a transaction, and when its caches are invalidated.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from fstx.backends.manifest import joining
from fstx.backends.manifest.backend import join as join_by_reference
from fstx.backends.manifest.backend import promises
from fstx.backends.manifest.dataset import Dataset, Version
from fstx.backends.manifest.transaction import ManifestTransaction
from fstx.errors import ConflictError, StateError, TargetExistsError, UsageError
from fstx.filesystem.notices import note_own_commit
from fstx.filesystem.places import Place, Places
from fstx.filesystem.steady import Steady, steady
from fstx.state.entries import Entry

Read = Callable[[Entry, int, "int | None"], bytes]

COVERED: ContextVar[frozenset[str]] = ContextVar("fstx_covered", default=frozenset())
"""Targets with a running ``fs.transaction``: nothing of them may be written beside it."""

_turns: WeakKeyDictionary[Dataset, threading.Lock] = WeakKeyDictionary()
_turns_lock = threading.Lock()
_contact: WeakKeyDictionary[Dataset, float] = (
    WeakKeyDictionary()
)  # when its log was last read or written

RECENT_S = 10.0
"""A base may be so old for a write that overwrites anyway: far from what counts as a dead writer."""


@dataclass(frozen=True)
class Seen:
    """What a reader sees of a dataset: a version, or the changes of a transaction over one."""

    view: Any
    read: Read
    version: int | None
    present: bool  # whether the dataset is there at all


class Session:
    """The state of one instance: the versions that it reads.

    Parameters
    ----------
    places
        Where names lie.
    reference
        Of the transaction that a URL joins; "" for none.
    version
        Read this version only.
    hold
        Read the version that is newest at the first read, for good.
    """

    def __init__(
        self, places: Places, *, reference: str = "", version: int | None = None, hold: bool = False
    ) -> None:
        self.places = places
        self.reference = reference
        self.version = version
        self.read_only = version is not None or hold
        self._hold = hold
        self._lock = threading.Lock()
        self._versions: dict[str, Any] = {}  # dataset's root -> the version that is read
        self._joined: dict[str, Any] = {}
        self._born = dict(joining._CURRENT.get())  # made in a transaction's block: part of it
        self._met: dict[str, WeakSet[Any]] = {}  # transactions that this instance was used in
        places.running = self._identities

    # --- reading ----------------------------------------------------------------------------------

    def seen(self, place: Place) -> Seen:
        """What this instance reads of the place's dataset now."""
        dataset = place.dataset
        assert dataset is not None
        if not self.read_only and (tx := self.transaction(place)) is not None:
            self.moved(place)
            what = f"the base of a transaction on {dataset.url}"
            return Seen(Steady(tx.view(), what), steady(tx.read_entry, what), None, True)
        view = self._held(dataset, place.root)
        what = f"version {view.version} of {dataset.url}"
        there = view.version > 0 or dataset.exists()
        return Seen(Steady(view, what), steady(dataset.read, what), view.version, there)

    def _held(self, dataset: Dataset, root: str) -> Any:
        with self._lock:
            held = self._versions.get(root)
            if isinstance(held, int):  # as it came out of a pickle
                held = self._versions[root] = dataset.view(held)
            if held is None:
                held = _newest(dataset) if self.version is None else dataset.view(self.version)
                self._versions[root] = held
            return held

    def moved(self, place: Place) -> None:
        """The next read of the place's dataset takes its newest version."""
        if not self.read_only:
            with self._lock:
                self._versions.pop(place.root, None)

    def forget(self) -> None:
        """The next reads take newest versions; held ones stay."""
        self.places.forget()
        if not self.read_only:
            with self._lock:
                self._versions.clear()

    def versions(self) -> dict[str, int]:
        """The versions that are read now, by the roots of their datasets."""
        with self._lock:
            return {r: v if isinstance(v, int) else v.version for r, v in self._versions.items()}

    def take(self, versions: dict[str, int]) -> None:
        """Read these versions, as another instance did."""
        self._versions.update(versions)

    # --- writing ----------------------------------------------------------------------------------

    def transaction(self, place: Place, *, writing: bool = False) -> Any | None:
        """The transaction that the running code, or this instance's URL, belongs to; None: there is none.

        Raises
        ------
        StateError
            The URL names a transaction of this process that is over; or something is to be written by code
            that was started inside of a block and outlives it.
        """
        dataset = place.dataset
        assert dataset is not None
        if not self.reference:
            return self._running(dataset.identity, writing)
        found = self._joined.get(place.root)
        if found is None:
            found = self._joined[place.root] = join_by_reference(dataset, self.reference)
        if not found.is_open:
            raise StateError(
                f"transaction {self.reference} is over; begin a new one, or use the URL without it",
                txid=found.txid,
            )
        return found

    def _identities(self) -> set[str]:
        return {*joining._CURRENT.get(), *self._born, *self._met}

    def _running(self, identity: str, writing: bool) -> Any | None:
        current = joining._CURRENT.get().get(identity)
        if current is not None:
            if current.is_open:
                with self._lock:
                    self._met.setdefault(identity, WeakSet()).add(current)
                return current
            if (
                writing
            ):  # a late task of a block that failed, or a forked child: no commit of its own
                raise StateError(
                    f"this code was started inside of transaction {current.id}, which is over or belongs to "
                    "another process (there tx.url joins it)",
                    txid=current.id,
                )
            return None
        born = self._born.get(identity)
        if born is not None and born.is_open:
            return born
        if not self._met or not isinstance(threading.current_thread(), threading._DummyThread):
            return None
        # A thread of a native library (pyarrow's) has no context at all, but works for one that has.
        with self._lock:
            running = [tx for tx in self._met.get(identity, ()) if tx.is_open]
        if len(running) > 1:
            raise StateError(
                "this thread was not made by Python, so it is not known which of several open transactions "
                "it works for; use a file system of its own for each, made inside of its block"
            )
        return running[0] if running else None

    def writable(self) -> None:
        """UsageError where this instance only reads."""
        if self.read_only:
            what = "its first version" if self.version is None else f"version {self.version}"
            raise UsageError(f"this file system holds {what} and can't be written to")

    def must_not_be_covered(self, name: str) -> None:
        """UsageError where `name` would escape a running ``fs.transaction``."""
        if self.places.target.token in COVERED.get():
            raise UsageError(
                f"{name} lies outside of the dataset of the running fs.transaction, which would not cover "
                "it; write it before or after the block"
            )

    @contextmanager
    def change(
        self, place: Place, *, policy: str = "last", many: bool = False, fresh: bool = True
    ) -> Iterator[Any]:
        """The transaction to write into: the one that is running, else one for this block.

        Parameters
        ----------
        policy
            Of a transaction for this block: ``"last"`` overwrites what others committed meanwhile.
        many
            The block writes more than one path.
        fresh
            False: what is there does not matter, so a version that was just read or written will do as base.
        """
        self.writable()
        dataset = place.dataset
        assert dataset is not None
        running = self.transaction(place, writing=True)
        if running is not None:
            self.moved(place)
            yield running
            return
        self.must_not_be_covered(place.name)
        if not many:
            note_own_commit(place.real, self.places.target.url(place.root))
        tx = self.begin(place, policy, fresh=fresh)
        try:
            yield tx
        except BaseException as error:
            give_up(tx, error)
            raise
        self.commit(place, tx)

    @contextmanager
    def creating(self, place: Place) -> Iterator[Any]:
        """As `change`, for a path that must be new: of several writers one gets it."""
        try:
            with self.change(place, policy="rebase") as tx:
                if tx.view().get(place.path) is not None:
                    raise FileExistsError(17, "there is something at this path", place.name)
                yield tx
        except ConflictError as error:
            raise TargetExistsError(
                f"{place.name} was written by another writer meanwhile", outcome="aborted"
            ) from error

    def begin(self, place: Place, policy: str, *, fresh: bool = True) -> ManifestTransaction:
        """A transaction on the whole dataset; nothing lies in the storage before something is staged."""
        dataset = place.dataset
        assert dataset is not None
        dataset.must_commit()
        url = self.places.target.url(place.root)
        return ManifestTransaction(
            dataset,
            _newest(dataset) if fresh or _idle_s(dataset) > RECENT_S else dataset.current(),
            target=url,
            prefix="",
            guarantee=promises(f"tx::{url}", dataset.proof(), "update", "data"),
            mode="update",
            require=frozenset(),
            id=None,
            policy="last" if policy == "last" else "rebase",
        )

    def commit(self, place: Place, tx: ManifestTransaction) -> None:
        """Commit, unless nothing was changed. Commits of one process take turns."""
        try:
            if not tx.delta():
                tx.rollback()
                return
            assert place.dataset is not None
            with _turn(place.dataset):
                place.dataset.create()
                tx.commit()
            self.places.created(place.root)
            _contact[place.dataset] = time.monotonic()
        finally:
            self.moved(place)
        if not self.read_only:
            with self._lock:  # it holds what was just committed; no request is needed to know it
                self._versions[place.root] = place.dataset.current()


def _newest(dataset: Dataset) -> Version:
    found = dataset.refresh()
    _contact[dataset] = time.monotonic()
    return found


def _idle_s(dataset: Dataset) -> float:
    return time.monotonic() - _contact.get(dataset, float("-inf"))


def _turn(dataset: Dataset) -> threading.Lock:
    with _turns_lock:
        return _turns.setdefault(dataset, threading.Lock())


def give_up(tx: Any, error: BaseException) -> None:
    """Roll back because of `error`, which stays the one that is told."""
    try:
        if tx.is_open:
            tx.rollback()
    except Exception as second:  # noqa: BLE001 - the first error is the one to raise
        error.add_note(f"rolling back transaction {tx.txid} failed as well: {second!r}")


__all__ = ["COVERED", "Read", "Seen", "Session", "give_up"]
