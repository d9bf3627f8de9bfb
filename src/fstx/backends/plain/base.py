"""What lies at the plain names of the targets, as far as a transaction has looked."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from fstx.paths import CONTROL_NAME, is_below
from fstx.stores import Info, Store

_LOOKS = 24


def first_below(parent: Store, name: str) -> Info | None:
    """The target `name` itself or something in it; None where it is free."""
    found = parent.info(name)
    if found is not None:
        return found
    return next(visible(parent.list(f"{name}/")), None)


def occupied(parent: Store, names: tuple[str, ...]) -> list[str]:
    """Those of `names` that hold something."""
    if len(names) == 1:
        return [n for n in names if first_below(parent, n) is not None]
    with ThreadPoolExecutor(min(8, len(names))) as pool:
        found = list(pool.map(lambda n: first_below(parent, n), names))
    return [n for n, info in zip(names, found, strict=True) if info is not None]


def contents(parent: Store, names: tuple[str, ...]) -> dict[str, Info]:
    """All objects of the targets by key, now."""

    def of(name: str) -> list[Info]:
        own = parent.info(name)
        return ([] if own is None else [own]) + list(visible(parent.list(f"{name}/")))

    if len(names) == 1:
        return {i.key: i for i in of(names[0])}
    with ThreadPoolExecutor(min(8, len(names))) as pool:
        return {info.key: info for found in pool.map(of, names) for info in found}


def visible(infos: Iterator[Info]) -> Iterator[Info]:
    """Without what lies in homes."""
    return (info for info in infos if CONTROL_NAME not in info.key.split("/"))


class Base:
    """What was there before; looked at when asked, then kept.

    A few paths are looked at one by one, many by listing the targets.
    """

    def __init__(self, parent: Store, names: tuple[str, ...], *, empty: bool = False) -> None:
        self._parent = parent
        self._names = names
        self._all: dict[str, Info] | None = {} if empty else None
        self._looked: dict[str, Info | None] = {}
        self._sorted: list[str] | None = None

    def all(self) -> dict[str, Info]:
        """Everything, by key."""
        if self._all is None:
            self._all = contents(self._parent, self._names)
            # What was seen first stays: the commit depends on it.
            for key, info in self._looked.items():
                self._all.pop(key, None)
                if info is not None:
                    self._all[key] = info
        return self._all

    def get(self, key: str) -> Info | None:
        """One object, or None."""
        if self._all is not None:
            return self._all.get(key)
        if key not in self._looked:
            if len(self._looked) >= _LOOKS:
                return self.all().get(key)
            self._looked[key] = self._parent.info(key)
        return self._looked[key]

    def below(self, key: str) -> dict[str, Info]:
        """`key` and what lies below it."""
        found = self.all()
        own = {key: found[key]} if key in found else {}
        start = bisect_left(self._keys(), f"{key}/")
        for other in self._keys()[start:]:
            if not is_below(other, key):
                break
            own[other] = found[other]
        return own

    def holds(self, key: str) -> bool:
        """Whether something is at `key` or below it."""
        if self._all is None and self.get(key) is not None:
            return True
        if key in self.all():
            return True
        keys = self._keys()
        at = bisect_left(keys, f"{key}/")
        return at < len(keys) and is_below(keys[at], key)

    def known(self) -> frozenset[str]:
        """Keys that were there, as far as they were looked at."""
        looked = (k for k, i in self._looked.items() if i is not None)
        return frozenset([*(self._all or ()), *looked])

    def _keys(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self.all())
        return self._sorted


__all__ = ["Base", "contents", "first_below", "occupied", "visible"]
