"""One SQLite file as a table of objects: keys and bytes."""

from __future__ import annotations

import atexit
import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

SUFFIXES = (".db", ".sqlite")
TABLE = "create table if not exists objects (key text primary key, data blob, modified_s real)"
LAST = "\U0010ffff"  # no character: no key goes on with it


def split(url: str) -> tuple[str, str]:
    """The database file of a URL or path, and the key in it: the file's name ends in .db or .sqlite.

    ``sqlitefs:///data/cubes.db/2026/a.npy`` is ``/data/cubes.db`` and ``2026/a.npy``.
    """
    parts = [part for part in url.removeprefix("sqlitefs://").split("/") if part]
    for number, part in enumerate(parts, 1):
        if part.endswith(SUFFIXES):
            return "/" + "/".join(parts[:number]), "/".join(parts[number:])
    raise ValueError(f"{url} names no database: a part of it must end in {' or '.join(SUFFIXES)}")


class Database:
    """The objects of one file. Made with its directory at the first write. Thread-safe; pickles.

    Raises OSError only: TimeoutError where others hold the file for too long.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def add(self, key: str, data: bytes) -> bool:
        """Put an object where none is; False where one is."""
        row = (key, data, time.time())
        with self._connection(create=True) as connection:
            done = connection.execute("insert or ignore into objects values (?, ?, ?)", row)
            return done.rowcount == 1

    def put(self, key: str, data: bytes) -> None:
        """Put an object, whatever is there."""
        row = (key, data, time.time())
        with self._connection(create=True) as connection:
            connection.execute("insert or replace into objects values (?, ?, ?)", row)

    def get(self, key: str) -> bytes:
        """The bytes of an object; FileNotFoundError where there is none."""
        with self._connection() as connection:
            found = connection.execute("select data from objects where key = ?", (key,)).fetchone()
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", f"{self.path}/{key}")
        return bytes(found[0])

    def find(self, prefix: str) -> list[tuple[str, int, float]]:
        """Key, size and time of the objects whose keys begin with `prefix`, sorted."""
        query = (
            "select key, length(data), modified_s from objects "
            "where key >= ? and key < ? order by key"
        )
        try:
            with self._connection() as connection:
                return connection.execute(query, (prefix, prefix + LAST)).fetchall()
        except FileNotFoundError:
            return []

    def remove(self, keys: Iterable[str]) -> None:
        """None of the objects is there afterwards."""
        try:
            with self._connection() as connection:
                connection.executemany("delete from objects where key = ?", [(k,) for k in keys])
        except FileNotFoundError:
            return

    @contextmanager
    def _connection(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """This process's connection to the file, for one thread at a time."""
        if create and not os.path.exists(self.path):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with open(self.path, "ab"):
                pass
        there = os.stat(self.path)
        try:
            with _lock:
                yield _connected(self.path, (os.getpid(), there.st_dev, there.st_ino))
        except sqlite3.Error as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            number = errno.ETIMEDOUT if busy else errno.EIO
            raise OSError(number, str(error), self.path) from error


_lock = threading.RLock()
_connections: dict[tuple[int, int, int], sqlite3.Connection] = {}


def _connected(path: str, file: tuple[int, int, int]) -> sqlite3.Connection:
    """A connection is kept: to open one costs more than a put. None outlives a fork."""
    if file not in _connections:
        connection = sqlite3.connect(path, 30, isolation_level=None, check_same_thread=False)
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")  # with this journal: each commit is synced
        connection.execute(TABLE)
        _connections[file] = connection
    return _connections[file]


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # who held it is not in this process


@atexit.register
def _close() -> None:
    """What was committed moves from the journal into the file, where nobody else has it open."""
    for (process, _, _), connection in _connections.items():
        if process == os.getpid():
            connection.close()


os.register_at_fork(after_in_child=_after_fork)
