"""What looks at all entries of a cache: their keys, and whether they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fstx.caching import keys
from fstx.caching.entries import CorruptError, key_of, unpack
from fstx.caching.keys import Key
from fstx.caching.places import StorePlace

_END_BYTES = 4096


@dataclass(frozen=True, slots=True)
class CacheCheck:
    """What `Cache.check` found.

    Parameters
    ----------
    entries, size_bytes
        How many entries there are, and their size.
    corrupt
        The places of damaged ones, each with what is wrong.
    """

    entries: int
    size_bytes: int
    corrupt: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all entries are what was put there."""
        return not self.corrupt


def check(place: StorePlace, *, remove: bool = False) -> CacheCheck:
    """Read all entries and compare their checksums and keys; damaged ones may be removed."""
    count, size_bytes, corrupt = 0, 0, {}
    for info in place.entries():
        try:
            raw = place.read(info.key, note=False, verify=True)
            unpack(raw.data, None, known=raw.known)
            if keys.name_of(_spelled(place, info.key, raw.data.size)) != info.key:
                raise CorruptError("it is another key's")
        except FileNotFoundError:
            continue  # removed meanwhile
        except CorruptError as error:
            corrupt[info.key] = str(error)
        count += 1
        size_bytes += info.size_bytes
    if remove:
        place.delete(corrupt)
    return CacheCheck(count, size_bytes, tuple((place.where(n), t) for n, t in corrupt.items()))


def keys_in(place: StorePlace) -> Iterator[Key]:
    """The keys of all entries that can be read."""
    for info in place.entries():
        try:
            yield keys.read(_spelled(place, info.key, info.size_bytes))
        except (FileNotFoundError, ValueError):
            continue  # removed meanwhile, or damaged: `check` tells


def _spelled(place: StorePlace, name: str, size_bytes: int) -> bytes:
    end = place.end_of(name, min(size_bytes, _END_BYTES))
    found = key_of(end, size_bytes)
    if isinstance(found, int):
        found = key_of(place.end_of(name, found), size_bytes)
    if isinstance(found, int):
        raise CorruptError("its length changed")
    return found


__all__ = ["CacheCheck", "check", "keys_in"]
