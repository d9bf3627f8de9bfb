"""Joining a transaction by its URL from elsewhere: what is staged there is found by listing."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from fstx.backends.manifest.dataset import Dataset, Version
from fstx.backends.manifest.names import (
    DATA,
    joined_key,
    joined_prefix,
    removal_attempt,
    split_attempt,
)
from fstx.backends.manifest.overlay import Overlay
from fstx.backends.manifest.staging import ObjectStager, StagedWriter
from fstx.errors import PathError
from fstx.paths import check_path, is_below, parents
from fstx.state.entries import Delta, Entry, escape, unescape
from fstx.stores import Info, Store
from fstx.types import Data, StagedObject


@dataclass(frozen=True)
class Gathered:
    """Attempts that were found in the storage: path, name of the attempt, entry (None: a removal)."""

    found: tuple[tuple[str, str, Entry | None], ...]

    def in_order(self) -> Iterator[tuple[str, str, Entry | None]]:
        """Oldest first, by the names of the attempts."""
        yield from sorted(self.found, key=lambda row: row[1])

    def delta(self) -> Delta:
        """What they change together."""
        puts: dict[str, Entry] = {}
        removed: list[str] = []
        for path, _, entry in self.in_order():
            if entry is not None:
                puts[path] = entry
                continue
            removed.append(path)
            puts = {p: e for p, e in puts.items() if not is_below(p, path)}
        return Delta(puts, tuple(removed))


def gather(store: Store, txid: str, *, skip: Container[str] = ()) -> Gathered:
    """All that was staged by those who joined `txid` by its URL."""
    return _found(store.list(joined_prefix(txid)), skip)


def _found(infos: Iterator[Info], skip: Container[str]) -> Gathered:
    rows: list[tuple[str, str, Entry | None]] = []
    for info in infos:
        name, _, attempt = info.key.rpartition("/")[2].rpartition("~")
        path, split = unescape(name), split_attempt(attempt)
        if info.key in skip or split is None or path is None or escape(path) != name:
            continue
        try:
            check_path(path)
        except PathError:
            continue  # a stranger's object: no stager of ours makes such a name
        gone = split[1] == "rm"
        rows.append(
            (path, attempt, None if gone else Entry(info.size_bytes, info.key, checksum=split[1]))
        )
    return Gathered(tuple(rows))


class JoinedTransaction:
    """A transaction that another thread, process or host coordinates: stages into it, never commits.

    Parameters
    ----------
    dataset
        The dataset.
    txid, begun
        As its URL tells: its name, and the version that it began on.
    prefix
        Where paths lie in the dataset.
    """

    def __init__(self, dataset: Dataset, txid: str, begun: int, prefix: str = "") -> None:
        self.dataset = dataset
        self.txid = txid
        self.prefix = prefix
        self.is_open = True
        self._begun = begun
        self._base: Version | None = None
        self._stager = ObjectStager(dataset.store, txid, prefix, joined=True)

    def __repr__(self) -> str:
        return f"<joined transaction {self.txid[:12]} on {self.dataset.url}>"

    @property
    def base(self) -> Version:
        """The version that the transaction began on."""
        if self._base is None:
            self._base = self.dataset.view(self._begun)
        return self._base

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Put one whole object into the transaction."""
        self._fits(path)
        return self._stager.stage(path, data, publisher=publisher)

    def open(
        self, path: str, /, *, publisher: bool = False
    ) -> AbstractContextManager[StagedWriter]:
        """A writer of one object of the transaction."""
        self._fits(path)
        return self._stager.open(path, publisher=publisher)

    def link(self, path: str, entry: Entry) -> None:
        """Stage a copy of an entry."""
        self.stage(path, self.dataset.read(entry))

    def make_directory(self, path: str) -> None:
        """Nothing: a directory is there once something is in it."""
        check_path(path)

    def remove(self, path: str, /) -> None:
        """Remove a file or tree when the transaction commits."""
        full = self._stager.full(check_path(path))
        if not self.view().is_dir(full) and self.view().get(full) is None:
            raise FileNotFoundError(f"{path!r} is neither staged nor in {self.dataset.url}")
        with self._stager.failing(path):
            self.dataset.store.put(joined_key(self.txid, full, removal_attempt()), b"")

    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes as they would be after commit."""
        entry = self.view().get(self._stager.full(path))
        if entry is None:
            raise FileNotFoundError(f"{path!r} is not in {self.dataset.url}")
        return self.read_entry(entry, start, stop)

    def read_entry(self, entry: Entry, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of an entry of `view`."""
        return self.dataset.read(entry, start, stop)

    def view(self) -> JoinedView:
        """The base with all that lies staged now."""
        return JoinedView(self)

    def staged(self, path: str | None) -> Delta:
        """What lies staged, of one path (and removals above it) or of all, by listing."""
        store = self.dataset.store
        if path is None:
            return _found(store.list(f"{DATA}{self.txid}/"), ()).delta()
        rows = [
            row
            for prefix in (joined_prefix(self.txid), f"{DATA}{self.txid}/")
            for row in _found(store.list(f"{prefix}{escape(path)}~"), ()).found
        ]
        for above in parents(path) if rows else ():
            found = _found(store.list(f"{joined_prefix(self.txid)}{escape(above)}~"), ()).found
            rows += [row for row in found if row[2] is None]
        return Gathered(tuple(rows)).delta()

    def _fits(self, path: str) -> None:
        if unescape(escape(self._stager.full(check_path(path)))) is None:
            raise PathError(
                f"the path {path!r} is too long to be staged through a transaction's URL; stage it where the "
                "transaction was begun"
            )


class JoinedView(Overlay):
    """An overlay that lists anew at each question; a question about one path lists that path only."""

    def __init__(self, joined: JoinedTransaction) -> None:
        super().__init__(joined.base, lambda: joined.staged(None))
        self._joined = joined

    def get(self, path: str) -> Entry | None:
        delta = self._joined.staged(path)
        found = delta.puts.get(path)
        if found is not None:
            return found
        return super().get(path) if not delta.removed else None
