"""A cache of arrays and bytes in a directory or below a prefix, shared by any number of processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar, overload

from numpy.typing import NDArray

from fstx.caching import keys
from fstx.caching.entries import CorruptError, Value, normal, pack, unpack
from fstx.caching.flight import MISSING, Missing, computing, fly
from fstx.caching.keys import Key
from fstx.caching.places import StorePlace
from fstx.caching.room import Room
from fstx.caching.upkeep import CacheCheck, check, keys_in
from fstx.errors import UsageError
from fstx.stores import Store
from fstx.types import Buffer

Verify = Literal["always", "never"]

LEASE_S = 30.0

_V = TypeVar("_V", bound=NDArray[Any] | bytes)
_D = TypeVar("_D")


class CacheWarning(UserWarning):
    """An entry was damaged, or a computed value could not be kept. What the call returned is right."""


class Cache:
    """Values by key, in any storage; made by `fstx.cache`.

    Any number of threads, processes and hosts may use one place at the same time. Readers take no lock.
    It pickles; credentials travel as with the storage's file system.

    Parameters
    ----------
    store
        Where the entries lie.
    max_bytes
        Bound on the size of all entries together; None for none.
    verify
        ``"always"`` or ``"never"``.
    lease_s
        How long one that computes may give no sign of life.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_bytes: int | None = None,
        verify: Verify = "always",
        lease_s: float = LEASE_S,
    ) -> None:
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 1):
            raise UsageError(f"max_bytes={max_bytes!r}: a whole number of bytes from 1, or None")
        if verify not in ("always", "never"):
            raise UsageError(f"verify={verify!r}: 'always' or 'never'")
        if isinstance(lease_s, bool) or not isinstance(lease_s, int | float) or not lease_s > 0:
            raise UsageError(f"lease_s={lease_s!r}: a number of seconds above 0")
        self._options: dict[str, Any] = {
            "max_bytes": max_bytes,
            "verify": verify,
            "lease_s": lease_s,
        }
        self._verify, self._lease_s = verify == "always", float(lease_s)
        self._store = store
        self._place = _place_of(store)
        self._room = None if max_bytes is None else Room(self._place, max_bytes)
        self._warned: set[str] = set()

    @property
    def url(self) -> str:
        """The place, without credentials."""
        return self._place.url

    @property
    def max_bytes(self) -> int | None:
        """The bound on the size of all entries."""
        bound: int | None = self._options["max_bytes"]
        return bound

    def __repr__(self) -> str:
        bound = "" if self.max_bytes is None else f" max_bytes={self.max_bytes}"
        return f"<Cache {self.url}{bound}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self._store, self._options)

    # --- values --------------------------------------------------------------------------------

    @overload
    def get(self, key: Key) -> Value | None: ...
    @overload
    def get(self, key: Key, default: _D) -> Value | _D: ...
    def get(self, key: Key, default: Any = None) -> Any:
        """The value of `key`, or `default`. Each call gives an array of its own, which may be changed.

        A damaged entry counts as missing, with one `CacheWarning`.

        Raises
        ------
        PermissionError, ConnectionError, TimeoutError
            The entry can't be read now; it is kept.
        """
        spelled = keys.spell(key)
        found = self._look(keys.name_of(spelled), spelled)
        return default if isinstance(found, Missing) else found

    def put(self, key: Key, value: Value, *, if_absent: bool = False) -> bool:
        """Keep `value` under `key`; readers find the old value or the new one, whole.

        Parameters
        ----------
        key
            None, numbers, texts, bytes, and tuples and dictionaries of these: all that the value depends on.
        value
            A numpy array without Python objects, or bytes.
        if_absent
            Keep a value that is there already, if it is whole.

        Returns
        -------
        bool
            False where `if_absent` kept another value.
        """
        spelled = keys.spell(key)
        kept = normal(value)
        return self._put(keys.name_of(spelled), spelled, kept, if_absent=if_absent)

    def get_or_compute(self, key: Key, fn: Callable[[], _V]) -> _V:
        """The value of `key`; where there is none, what `fn` returns, kept for all.

        Of all threads, processes and hosts that miss a key one calls its `fn` while the others wait, and
        read then. When it dies or fails, the next one calls its own.

        Parameters
        ----------
        key
            As for `put`.
        fn
            Called without arguments. What it raises is raised here, and nothing is kept.
        """
        spelled = keys.spell(key)
        name = keys.name_of(spelled)
        found: Any = self._look(name, spelled)
        if not isinstance(found, Missing):
            return found  # type: ignore[no-any-return]
        with computing(self._place.where(name)):
            value: Any = fly(
                self._place.turns(name, self._lease_s),
                lambda: self._look(name, spelled),
                lambda: self._compute(name, spelled, fn),
            )
        return value  # type: ignore[no-any-return]

    def remove(self, key: Key) -> None:
        """Afterwards `key` has no value."""
        self._place.delete([keys.name_of(keys.spell(key))])

    def clear(self) -> None:
        """Remove all entries."""
        self._place.delete([info.key for info in self._place.entries()])

    def __contains__(self, key: Key) -> bool:
        return self._place.info(keys.name_of(keys.spell(key))) is not None

    def __len__(self) -> int:
        return sum(1 for _ in self._place.entries())

    def __bool__(self) -> bool:
        return True  # also when it is empty: asking must not list the storage

    def __iter__(self) -> Iterator[Key]:
        return self.keys()

    def keys(self) -> Iterator[Key]:
        """The keys of all entries, in no order that means something; one request for each."""
        return keys_in(self._place)

    # --- upkeep --------------------------------------------------------------------------------

    def check(self, *, remove: bool = False) -> CacheCheck:
        """Read all entries and compare their checksums.

        Parameters
        ----------
        remove
            Remove damaged entries.
        """
        return check(self._place, remove=remove)

    def trim(self) -> int:
        """Remove now what `max_bytes` has no room for, least recently used first; how many went."""
        self._place.tidy()
        return 0 if self._room is None else self._room.trim()

    # --- inside --------------------------------------------------------------------------------

    def _look(self, name: str, spelled: bytes) -> Value | Missing:
        try:
            raw = self._place.read(name, note=self._room is not None, verify=self._verify)
            return unpack(raw.data, spelled, verify=self._verify, known=raw.known)
        except FileNotFoundError:
            return MISSING
        except CorruptError as error:
            self._warn(name, f"is damaged and counts as missing: {error}")
            return MISSING

    def _put(self, name: str, spelled: bytes, value: Value, *, if_absent: bool) -> bool:
        pieces = pack(value, spelled)
        self._make_room(pieces)
        if if_absent:
            if self._place.write_new(name, pieces):
                return True
            if not isinstance(self._look(name, spelled), Missing):
                return False
        self._place.write(name, pieces)
        self._warned.discard(name)
        return True

    def _make_room(self, pieces: list[Buffer]) -> None:
        if self._room is None:
            return
        size_bytes = sum(memoryview(piece).nbytes for piece in pieces)
        if not self._room.holds(size_bytes):
            raise UsageError(
                f"an entry of {size_bytes} bytes is too large for {self!r}; raise max_bytes"
            )
        self._room.make(size_bytes)

    def _compute(self, name: str, spelled: bytes, fn: Callable[[], Any]) -> Value:
        value = normal(fn())
        try:
            self._put(name, spelled, value, if_absent=False)
        except PermissionError:
            raise
        except (OSError, UsageError) as error:  # the work is done: it is not lost with the storage
            self._warned.discard(name)
            self._warn(name, f"could not be kept: {error}")
        return value

    def _warn(self, name: str, text: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(f"{self._place.where(name)} {text}", CacheWarning, stacklevel=4)


def _place_of(store: Store) -> StorePlace:
    from fstx.stores.local import LocalStore

    if isinstance(store, LocalStore):
        from fstx.caching.local import LocalPlace

        return LocalPlace(store)
    return StorePlace(store)


def _make(store: Store, options: dict[str, Any]) -> Cache:
    return Cache(store, **options)


__all__ = ["LEASE_S", "Cache", "CacheWarning", "Verify"]
