"""Objects in the process's memory, where fsspec's ``memory://`` readers find them."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from fstx.stores import Answer, Info, Proof
from fstx.stores.keys import below, check_key, check_prefix, span
from fstx.types import Buffer, Capability

_SOURCE = "one dictionary operation under the interpreter's lock"
_lock = threading.Lock()
_numbers = itertools.count(1)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # whoever held it is not in this process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class MemoryStore:
    """A `Store` over ``MemoryFileSystem.store``: one dictionary, shared by the threads of this process.

    Parameters
    ----------
    root
        Path of the root, with or without ``memory://``.
    fs
        The file system whose dictionary is used; fsspec's own one for all when left out.
    """

    def __init__(self, root: str = "", fs: Any = None) -> None:
        self._fs = MemoryFileSystem() if fs is None else fs
        self._root = "/" + root.removeprefix("memory://").strip("/")
        if self._root == "/":
            self._root = ""

    @property
    def url(self) -> str:
        return f"memory:/{self._root or '/'}"

    @property
    def identity(self) -> str:
        return f"memory:{os.getpid()}:{id(self._fs.store)}:{self._root}"

    def __repr__(self) -> str:
        return f"<MemoryStore {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._fs.store is not MemoryFileSystem.store:
            raise TypeError("a memory store over a dictionary of its own can't leave its process")
        return (MemoryStore, (self._root,))

    def put_new(self, key: str, data: bytes, /) -> Answer:
        path = self._path(key)
        mine = self._file(path, data)
        return Answer.DONE if self._fs.store.setdefault(path, mine) is mine else Answer.TAKEN

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        path = self._path(key)
        mine = self._file(path, data)
        with _lock:
            self._fs.store[path] = mine

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        done: Future[None] = Future()
        try:
            self.put(key, data, checksum=checksum)
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 - the future carries it
            done.set_exception(error)
        return done

    def open(self, key: str, /) -> MemoryWriter:
        self._path(key)
        return MemoryWriter(self, key)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        file = self._fs.store.get(self._path(key))
        if file is None:
            raise FileNotFoundError(2, "no such object", f"{self.url}/{key}")
        content: bytes = file.getvalue()
        first, last = span(len(content), start, stop)
        return content if last - first == len(content) else content[first:last]

    def list(self, prefix: str, /) -> Iterator[Info]:
        check_prefix(prefix)
        top = f"{self._root}/"
        start = top + prefix
        for path in sorted(p for p in list(self._fs.store) if p.startswith(start)):
            if (file := self._fs.store.get(path)) is not None:
                yield _info(path[len(top) :], file)

    def info(self, key: str, /) -> Info | None:
        file = self._fs.store.get(self._path(key))
        return None if file is None else _info(key, file)

    def delete(self, keys: Iterable[str], /) -> None:
        paths = [self._path(key) for key in keys]
        with _lock:
            for path in paths:
                self._fs.store.pop(path, None)

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        if token is None:
            return self.put_new(key, data)
        path = self._path(key)
        mine = self._file(path, data)
        with _lock:
            file = self._fs.store.get(path)
            if file is None or _token(file) != token:
                return Answer.TAKEN
            self._fs.store[path] = mine
        return Answer.DONE

    def probe(self) -> Proof:
        return Proof(
            promises=(
                (Capability.ATOMIC_OBJECT, True, "objects enter the dictionary whole", _SOURCE),
                (Capability.DURABLE, False, "memory does not outlive the process", ""),
                (Capability.REMOTE_STAGING, False, "other processes don't see this memory", ""),
            ),
            put_new=True,
            put_new_reason=_SOURCE,
            consistent=True,
            consistent_reason="one dictionary",
            replace_if=True,
            durable=False,
            durable_reason="memory does not outlive the process",
            shared=False,
        )

    def below(self, path: str, /) -> MemoryStore:
        return MemoryStore(below(self._root, check_key(path)), self._fs)

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _file(self, path: str, data: Buffer) -> MemoryFile:
        return MemoryFile(self._fs, path, bytes(data))


class MemoryWriter:
    """Collects one object; it enters the dictionary at `close`."""

    def __init__(self, store: MemoryStore, key: str) -> None:
        self._store, self._key = store, key
        self._pieces: list[bytes] | None = []

    def write(self, data: Buffer, /) -> None:
        if self._pieces is None:
            raise ValueError(f"the writer of {self._key} is closed")
        self._pieces.append(bytes(data))

    def close(self) -> None:
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            self._store.put(self._key, b"".join(pieces))

    def abort(self) -> None:
        self._pieces = None


def _info(key: str, file: MemoryFile) -> Info:
    return Info(key, file.getbuffer().nbytes, file.modified.timestamp(), _token(file))


def _token(file: MemoryFile) -> str:
    # Others may append to a live file: its length belongs to what is compared.
    number = file.__dict__.setdefault("_fstx_number", next(_numbers))
    return f"{number}-{file.getbuffer().nbytes}"


__all__ = ["MemoryStore", "MemoryWriter"]
