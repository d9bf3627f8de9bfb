"""Objects in a table of SQLite: a store as a third party writes one, and the subject that it makes.

``sqlite:///path/of/file.db`` names it. Right, durable and shared by processes, out of six calls: what the kit
finds wrong with it is wrong with the kit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from fstx.backends.manifest import ManifestBackend
from fstx.backends.manifest.dataset import Dataset
from fstx.stores import Answer, Info
from fstx.stores.keys import check_key, check_prefix
from fstx.stores.simple import SimpleStore
from fstx.types import Buffer
from fstx_conformance.subjects.base import Tree
from fstx_conformance.subjects.hooks import Hooks, HookSubject
from fstx_conformance.subjects.urls import unreached

_SCHEME = "sqlite://"
_WAIT_S = 30.0


class TableStore(SimpleStore):
    """Whole objects in the table ``objects`` of one file.

    Parameters
    ----------
    path
        The file; it is made with its first connection.
    """

    durable = True

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._mine = threading.local()
        with self._errors():
            self._table()

    def __reduce__(self) -> tuple[Any, ...]:
        return (TableStore, (self.path,))

    @property
    def url(self) -> str:
        """The file."""
        return f"{_SCHEME}{self.path}"

    def _table(self) -> sqlite3.Connection:
        """The connection of this thread of this process; each statement is a transaction."""
        made: tuple[int, sqlite3.Connection] | None = getattr(self._mine, "made", None)
        if made is None or made[0] != os.getpid():
            table = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
            table.execute("pragma synchronous = full")
            table.execute(
                "create table if not exists objects (key text primary key, data blob, put_s real)"
            )
            self._mine.made = made = (os.getpid(), table)
        return made[1]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(errno.EIO, f"{self.url}: {error}") from error

    def close(self) -> None:
        """Let the connection of this thread go."""
        made = getattr(self._mine, "made", None)
        if made is not None:
            made[1].close()
            self._mine.made = None

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """One statement, so one of any number inserts."""
        row = (check_key(key), data, time.time())
        try:
            done = self._table().execute("insert or ignore into objects values (?, ?, ?)", row)
        except sqlite3.OperationalError:
            return Answer.UNKNOWN  # a write of the file failed; nobody knows how far it came
        return Answer.DONE if done.rowcount else Answer.TAKEN

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        """One statement."""
        row = (check_key(key), bytes(data), time.time())
        with self._errors():
            self._table().execute("insert or replace into objects values (?, ?, ?)", row)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """The slice of what is there."""
        with self._errors():
            found = (
                self._table()
                .execute("select data from objects where key = ?", (check_key(key),))
                .fetchone()
            )
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{key}")
        data: bytes = found[0][start:stop]
        return data

    def list(self, prefix: str, /) -> Iterator[Info]:
        """By the order of the key's bytes."""
        check_prefix(prefix)
        with self._errors():
            rows = self._table().execute(
                "select key, length(data), put_s from objects "
                "where key >= ? and substr(key, 1, ?) = ? order by key",
                (prefix, len(prefix), prefix),
            )
            return iter([Info(*row) for row in rows.fetchall()])

    def delete(self, keys: Iterable[str], /) -> None:
        """One statement for each."""
        with self._errors():
            for key in list(keys):
                self._table().execute("delete from objects where key = ?", (check_key(key),))


class SqliteSubject(HookSubject):
    """Datasets in a file of SQLite, each below a name of its own; read by a fresh `Dataset`."""

    def __init__(self, url: str, *, name: str = "sqlite") -> None:
        self._file = TableStore(url.removeprefix(_SCHEME))
        hooks = Hooks(
            make=lambda place: ManifestBackend(self.store(place)),
            read=self._read,
            leftovers=self._left,
            remove=lambda place: self._clear(self.store(place)),
        )
        super().__init__(url, hooks, name=name, cost=1.5)

    def store(self, place: str) -> Any:
        """The store of one room, by its URL."""
        path = place.removeprefix(_SCHEME).removeprefix(self._file.path)
        return self._file.below(f"{path.strip('/')}/.fstx")

    def _read(self, place: str) -> Tree:
        dataset = Dataset(self.store(place))
        if not dataset.exists():
            return {}
        return {p: dataset.read(e) for p, e in dataset.view().items() if not e.directory}

    def _left(self, place: str) -> list[str]:
        store = self.store(place)
        return unreached(Dataset(store), store)

    @staticmethod
    def _clear(store: Any) -> None:
        store.delete([info.key for info in store.list("")])

    def close(self) -> None:
        """The table is empty; the file stays."""
        self._clear(self._file)
        self._file.close()


__all__ = ["SqliteSubject", "TableStore"]
