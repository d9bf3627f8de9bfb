"""Where the entries of a cache lie: objects of a store.

    v1/entries/NAME     one entry
    v1/used/NAME        an empty object, younger than the last use that was noted
    v1/leases/NAME-N    who computes the entry (`fstx.caching.leases`)

A later format gets a folder of its own: two versions of the library share a place and not their entries.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fstx import seams
from fstx.caching.leases import LeaseTurns
from fstx.stores import Answer, Info, Store, Tidies
from fstx.types import Buffer

FORMAT = "v1"
NOTE_S = 600.0
"""Uses of one entry are noted once in this time."""

_ONE_IN = 16
_TRIES = 6
_PAUSE_S = 0.05
_STALE_S = 3600.0
_DEAD_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Use:
    """One entry as the bound on size sees it."""

    name: str
    size_bytes: int
    used_s: float


class Raw(NamedTuple):
    """The bytes of an entry, and their checksum without the tail, where it was computed on the way."""

    data: NDArray[np.uint8]
    known: str = ""


class Turn(Protocol):
    """The right to compute an entry, which one at a time has."""

    def release(self) -> None: ...


class Turns(Protocol):
    """Attempts of one caller to get the turn of one entry."""

    def take(self) -> Turn | None:
        """Without waiting; None while another has it."""

    def wait(self) -> None:
        """Until it is worth looking again."""


class StorePlace:
    """Entries in any store."""

    def __init__(self, store: Store) -> None:
        self.whole = store
        self.store = store.below(FORMAT)
        self._noted: dict[str, float] = {}

    @property
    def url(self) -> str:
        """Of the cache, without credentials."""
        return self.whole.url

    def where(self, name: str) -> str:
        """The entry's place, for messages."""
        return f"{self.store.url}/{_key(name)}"

    def read(self, name: str, *, note: bool, verify: bool) -> Raw:
        """The bytes of an entry, in one request.

        `note`: uses are to be noted, now and then. `verify`: the checksum is wanted, and may be given.
        """
        raw = np.frombuffer(self.store.get(_key(name)), np.uint8)
        if note:
            self._note(name)
        return Raw(raw)

    def _note(self, name: str) -> None:
        """Note a use by a request that nobody waits for: at random, as a look at the last one would be one
        more request for each hit."""
        if random.random() * _ONE_IN >= 1:
            return
        now_s = time.monotonic()
        if now_s - self._noted.get(name, -NOTE_S) >= NOTE_S:
            self._noted[name] = now_s
            self.store.start_put(f"used/{name}", b"")

    def end_of(self, name: str, size_bytes: int) -> bytes:
        """The last bytes of an entry."""
        return self.store.get(_key(name), -size_bytes)

    def write(self, name: str, pieces: Iterable[Buffer]) -> None:
        """Put an entry whole, whatever is there."""
        writer = self.store.open(_key(name))
        try:
            for piece in pieces:
                writer.write(piece)
            writer.close()
        except BaseException:
            writer.abort()
            raise

    def write_new(self, name: str, pieces: Sequence[Buffer]) -> bool:
        """Put an entry if there is none; False where there is one of other bytes.

        An equal one may be one's own, put by a request whose answer was lost.
        """
        data = b"".join(pieces)
        for _ in range(_TRIES):
            answer = self.store.put_new(_key(name), data)
            if answer is Answer.DONE:
                return True
            if answer is Answer.TAKEN:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile: another try
                    return self.store.get(_key(name)) == data
            seams.pause(_PAUSE_S)
        raise ConnectionError(
            f"{self.where(name)}: the store gave no clear answer, again and again"
        )

    def delete(self, names: Iterable[str]) -> None:
        """Afterwards none of these entries is there."""
        self.store.delete([key for name in names for key in (_key(name), f"used/{name}")])

    def info(self, name: str) -> Info | None:
        """One entry, or None."""
        return self.store.info(_key(name))

    def entries(self) -> Iterator[Info]:
        """All entries, by name; ``key`` is the name."""
        for info in self.store.list("entries/"):
            name = info.key.removeprefix("entries/")
            if is_name(name):
                yield Info(name, info.size_bytes, info.modified_s, info.token)

    def uses(self) -> list[Use]:
        """All entries with their last noted use."""
        noted = {i.key.removeprefix("used/"): i.modified_s or 0.0 for i in self.store.list("used/")}
        found = [
            Use(i.key, i.size_bytes, max(i.modified_s or 0.0, noted.pop(i.key, 0.0)))
            for i in self.entries()
        ]
        if noted:
            self.store.delete([f"used/{name}" for name in noted])  # of entries that are gone
        return found

    def tidy(self) -> None:
        """Take away what killed writers left unseen, and their leases."""
        with contextlib.suppress(PermissionError):
            if isinstance(self.store, Tidies):
                self.store.tidy(_STALE_S)
            before_s = time.time() - _DEAD_S  # a living holder's is never that old, by any clock
            leases = self.store.list("leases/")
            self.store.delete([i.key for i in leases if 0 < (i.modified_s or 0) < before_s])

    def turns(self, name: str, lease_s: float) -> Turns:
        """For one caller that wants to compute an entry."""
        return LeaseTurns(self.store, name, lease_s)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.whole,)


def is_name(name: str) -> bool:
    """Whether this is the name of an entry, not a stray file's."""
    return len(name) == 64 and set(name) <= _HEX


_HEX = frozenset("0123456789abcdef")


def _key(name: str) -> str:
    return f"entries/{name}"


__all__ = ["FORMAT", "NOTE_S", "Raw", "StorePlace", "Turn", "Turns", "Use", "is_name"]
