"""Single flight: of many who miss one entry, one computes it, and the others wait and read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fstx.caching.places import Turns
from fstx.errors import UsageError

T = TypeVar("T")


class Missing:
    """What a look finds where no entry is."""


MISSING = Missing()

_here = threading.local()


def fly(turns: Turns, look: Callable[[], T | Missing], compute: Callable[[], T]) -> T:
    """What `look` finds, or what `compute` gives: by this caller when it has the turn.

    A holder that fails lets go, and the next one computes: an error is each caller's own.
    """
    while True:
        turn = turns.take()
        if turn is not None:
            try:
                found = look()  # put since the last look, by one who had the turn before
                return compute() if isinstance(found, Missing) else found
            finally:
                turn.release()
        turns.wait()
        found = look()
        if not isinstance(found, Missing):
            return found


@contextmanager
def computing(where: str) -> Iterator[None]:
    """This thread computes the entry; it would wait for itself if it asked for it meanwhile."""
    names: set[str] = _here.__dict__.setdefault("names", set())
    if where in names:
        raise UsageError(f"the function for {where} asks for the entry that it computes")
    names.add(where)
    try:
        yield
    finally:
        names.discard(where)


__all__ = ["MISSING", "Missing", "computing", "fly"]
