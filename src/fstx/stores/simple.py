"""A `Store` out of five calls: what a third party writes for a storage of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from fstx.stores import Answer, Info, Proof
from fstx.stores.keys import check_key
from fstx.types import Buffer

_THREADS = 8

_proofs: dict[tuple[type, str], Proof] = {}


class SimpleStore(ABC):
    """Fill in `url`, `put_new`, `put`, `get`, `list` and `delete`; the rest follows from them.

    `put_new` must be atomic: of any number of concurrent callers for one key one is answered DONE. The probe
    tries that before the first transaction, and refuses a store that fails.
    """

    durable: bool = False
    """Whether what was put survives loss of power."""

    shared: bool = True
    """Whether other processes reach the same objects."""

    _pool: ThreadPoolExecutor | None = None
    _lock = threading.Lock()

    @property
    @abstractmethod
    def url(self) -> str:
        """The root, without credentials."""

    @abstractmethod
    def put_new(self, key: str, data: bytes, /) -> Answer:
        """Put if absent, the whole content at once."""

    @abstractmethod
    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        """Put, whatever is there."""

    @abstractmethod
    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of an object, as a slice of them; FileNotFoundError where there is none."""

    @abstractmethod
    def list(self, prefix: str, /) -> Iterator[Info]:
        """Every object whose key begins with `prefix`, sorted."""

    @abstractmethod
    def delete(self, keys: Iterable[str], /) -> None:
        """Afterwards none of them is there."""

    @property
    def identity(self) -> str:
        """Equal for two stores that reach the same objects: here, of the same URL."""
        return self.url

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def info(self, key: str, /) -> Info | None:
        """One object, or None; by listing."""
        return next((info for info in self.list(key) if info.key == key), None)

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        """As `put`, in a thread."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fstx-store")
        return self._pool.submit(lambda: self.put(key, data, checksum=checksum))

    def open(self, key: str, /) -> Whole:
        """A writer that keeps everything until `close`."""
        return Whole(lambda data: self.put(key, data))

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        """Not offered; `probe` says so."""
        raise PermissionError(f"{self.url} does not replace on condition")

    @property
    def _place(self) -> tuple[type, str]:
        """What a proof is about: a kind of store, and the objects that it reaches."""
        return type(self), self.identity

    def probe(self) -> Proof:
        """Tried out at the first call in this process: one at a time, then by 16 at once."""
        from fstx.stores.probe import examine

        with self._lock:
            known = _proofs.get(self._place)
            if known is None:
                found = examine(self)
                known = _proofs[self._place] = Proof(
                    put_new=found.put_new.kept,
                    put_new_reason=found.put_new.text,
                    consistent=found.consistent.kept,
                    consistent_reason=found.consistent.text,
                    durable=self.durable,
                    durable_reason="the store says so"
                    if self.durable
                    else "the store does not say so",
                    shared=self.shared,
                    notes=tuple(found.notes),
                )
            return known

    def below(self, path: str, /) -> Below:
        """The store rooted at `path` below this one's root."""
        return Below(self, path)


class Whole:
    """A writer that puts one object at `close`."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._pieces: list[bytes] = []

    def write(self, data: Buffer, /) -> None:
        """Append."""
        self._pieces.append(bytes(data))

    def close(self) -> None:
        """The object is there afterwards."""
        self._put(b"".join(self._pieces))

    def abort(self) -> None:
        """Nothing is there afterwards."""
        self._pieces.clear()


class Below(SimpleStore):
    """A part of another `SimpleStore`, as a store of its own. Keys that may not be are refused."""

    def __init__(self, whole: SimpleStore, path: str) -> None:
        self._whole = whole
        self._top = path.strip("/") + "/"
        self.durable, self.shared = whole.durable, whole.shared

    def __reduce__(self) -> tuple[Any, ...]:
        return (Below, (self._whole, self._top))

    @property
    def url(self) -> str:
        return f"{self._whole.url.rstrip('/')}/{self._top.rstrip('/')}"

    @property
    def _place(self) -> tuple[type, str]:
        return self._whole._place

    def put_new(self, key: str, data: bytes, /) -> Answer:
        return self._whole.put_new(self._top + check_key(key), data)

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        self._whole.put(self._top + check_key(key), data, checksum=checksum)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        return self._whole.get(self._top + check_key(key), start, stop)

    def list(self, prefix: str, /) -> Iterator[Info]:
        cut = len(self._top)
        for info in self._whole.list(self._top + prefix):
            yield Info(info.key[cut:], info.size_bytes, info.modified_s, info.token)

    def delete(self, keys: Iterable[str], /) -> None:
        self._whole.delete([self._top + key for key in keys])
