"""What a commit needs of storage: about six primitives over whole objects.

A third party implements `Store` and gets transactions, versions and recovery from
``fstx.backends.manifest.ManifestBackend(store)``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fstx.types import Buffer, Capability


class Answer(enum.Enum):
    """What a store said to a conditional request. A certain refusal is raised as OSError instead."""

    DONE = "done"  # it landed
    TAKEN = "taken"  # an object is there; it may be one's own, from a request whose answer was lost
    BUSY = "busy"  # nothing settled: the same request may be made again
    UNKNOWN = "unknown"  # it may or may not have landed, or may land later


@dataclass(frozen=True, slots=True)
class Info:
    """One object as a listing or a look tells it. ``token`` changes with the content, where known."""

    key: str
    size_bytes: int
    modified_s: float | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a store: promises kept or not, each with its reason and what proved it."""

    promises: tuple[tuple[Capability, bool, str, str], ...] = ()
    put_new: bool = False  # put-if-absent, also with concurrent writers
    put_new_reason: str = ""
    consistent: bool = False  # list- and read-after-write
    consistent_reason: str = ""
    replace_if: bool = False
    durable: bool = False
    durable_reason: str = ""
    shared: bool = True  # other processes reach the same objects
    notes: tuple[str, ...] = ()


class StoreWriter(Protocol):
    """Writes one large object piece by piece; it appears whole at `close`, or never."""

    def write(self, data: Buffer, /) -> None: ...
    def close(self) -> None:
        """The object is there afterwards, whole."""

    def abort(self) -> None:
        """Nothing is there afterwards, also no open upload. Never raises."""


@runtime_checkable
class Store(Protocol):
    """Whole objects under keys relative to one root. Thread-safe; pickles, with the caller's storage options.

    Keys are ``/``-separated and relative. Nothing is cached. Errors are OSError: FileNotFoundError where
    there is no such object, PermissionError, ConnectionError or TimeoutError where it can't be
    reached, each naming the URL and never a credential.
    """

    @property
    def url(self) -> str:
        """The root, with its scheme and without credentials."""

    @property
    def identity(self) -> str:
        """Equal for two stores that reach the same objects."""

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """Put if absent, the whole content at once. OSError: it certainly did not and will not land."""

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        """Put, unconditionally; durable afterwards where DURABLE is promised.

        `checksum` as `fstx.state.entries.checksum` gives it; checked by whoever can.
        """

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        """As `put`, without waiting. `data` must not change until the future is done."""

    def open(self, key: str, /) -> StoreWriter:
        """A writer of one large object."""

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes `start` to `stop`; negative `start` counts from the end (then `stop` is None)."""

    def list(self, prefix: str, /) -> Iterator[Info]:
        """Every object whose key begins with `prefix`, sorted by key."""

    def info(self, key: str, /) -> Info | None:
        """One object, or None."""

    def delete(self, keys: Iterable[str], /) -> None:
        """Afterwards none of them is there; absent ones are fine."""

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        """Put if the object still has `token` (None: if absent). Only where the proof says so.

        TAKEN: it has another token now, or is gone.
        """

    def probe(self) -> Proof:
        """What this store is proven to do; once per endpoint and root, leaves nothing behind."""

    def below(self, path: str, /) -> Store:
        """The store rooted at `path` below this one's root."""


@runtime_checkable
class Tidies(Protocol):
    """What a store may offer besides: to clear away what its killed writers left unseen."""

    def tidy(self, older_than_s: float) -> int:
        """Temporary files and open uploads older than that are gone; returns how many there were."""


Fetch = Callable[[str, int, int | None], bytes]
"""`Store.get` as the state tree needs it: key, start, stop."""

__all__ = ["Answer", "Fetch", "Info", "Proof", "Store", "StoreWriter", "Tidies"]
