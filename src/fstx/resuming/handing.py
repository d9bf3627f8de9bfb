"""The commit takes finished units over from their depot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fstx.depot import Depot
from fstx.protocol import Transaction
from fstx.resuming.checking import missing
from fstx.resuming.ledger import Ledger
from fstx.types import StagedObject

_THREADS = 8


def hand_over(units: Ledger, depot: Depot, inner: Transaction) -> None:
    """Stage and adopt all that units wrote; it stays in the depot, too.

    Raises
    ------
    ResumeError
        An object is not there whole.
    FencedError
        The whole depot is gone.
    """
    if not units:
        return
    kept = units.objects()

    def give(one: StagedObject) -> StagedObject:
        try:
            return depot.give(inner, one)
        except FileNotFoundError as error:
            raise missing(one.path, depot, inner.id) from error

    if depot.quick:
        if not _at_once(kept, depot, inner):
            inner.adopt(map(give, kept))
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        inner.adopt(list(pool.map(give, kept)))


def _at_once(kept: Iterable[StagedObject], depot: Depot, inner: Transaction) -> bool:
    """Where both sides are of one file system; False where they are not."""
    give_all: Callable[[Any, Any], bool] | None = getattr(depot, "give_all", None)
    last = ""

    def noted() -> Iterator[StagedObject]:
        nonlocal last
        for one in kept:
            last = one.path
            yield one

    try:
        return give_all is not None and give_all(inner, noted())
    except FileNotFoundError as error:
        raise missing(last, depot, inner.id) from error


__all__ = ["hand_over"]
