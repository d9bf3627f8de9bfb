"""A bound on the size of a cache: what was used least recently goes.

Nothing is counted in a file that all would have to write. Each process looks at the whole cache when it has
put a sixteenth of the bound since it looked last; a new process begins somewhere in that sixteenth, at
random, so that many short ones look as often as one long one.
"""

from __future__ import annotations

import os
import random
import threading

from fstx.caching.places import StorePlace

_PART = 16


class Room:
    """Makes room for what is about to be put.

    Parameters
    ----------
    place
        The entries.
    max_bytes
        Their size together, at most; passed by what is put between two looks: up to a sixteenth for each
        process that puts at the same time.
    """

    def __init__(self, place: StorePlace, max_bytes: int) -> None:
        self._place, self._max_bytes = place, max_bytes
        self._slack_bytes = max_bytes // _PART
        self._begin()

    def _begin(self) -> None:
        """As a new process, also one that was forked: it has its own place in the sixteenth."""
        self._pid = os.getpid()
        self._left_bytes = random.random() * self._slack_bytes
        self._lock = threading.Lock()

    def holds(self, size_bytes: int) -> bool:
        """Whether an entry of this size can be kept at all."""
        return size_bytes <= self._max_bytes - self._slack_bytes

    def make(self, size_bytes: int) -> None:
        """Before an entry of this size is put."""
        if self._pid != os.getpid():
            self._begin()
        self._left_bytes -= size_bytes
        if self._left_bytes < 0 and self._lock.acquire(blocking=False):
            try:
                self.trim(size_bytes)
                self._left_bytes = self._slack_bytes
            finally:
                self._lock.release()

    def trim(self, coming_bytes: int = 0) -> int:
        """Remove what was used least recently, until there is room; the number of entries removed."""
        self._place.tidy()
        uses = self._place.uses()
        total = sum(use.size_bytes for use in uses) + coming_bytes
        if total <= self._max_bytes - self._slack_bytes:
            return 0
        doomed = []
        for use in sorted(uses, key=lambda use: (use.used_s, use.name)):
            if total <= self._max_bytes - 2 * self._slack_bytes:
                break
            doomed.append(use.name)
            total -= use.size_bytes
        self._place.delete(doomed)
        return len(doomed)


__all__ = ["Room"]
