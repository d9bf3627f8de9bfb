"""Which of many points are tried where not all can be: some that matter, and the others spread evenly."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Sample:
    """How much of what a case could try it tried.

    A *point* is a call at which something happens; a *sweep* is one kind of work under one kind of fault.
    Points are counted of the sweeps that were made.
    """

    tried: int = 0
    points: int = 0
    sweeps: int = 0
    of: int = 0

    def add(self, tried: int, points: int) -> None:
        """One sweep was made."""
        self.tried += tried
        self.points += max(tried, points)
        self.sweeps += 1

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return self.tried == self.points and self.sweeps >= self.of

    def __str__(self) -> str:
        if self.whole:
            return f"all {self.points} points"
        told = f"{self.tried} of {self.points} points"
        return f"{told}, in {self.sweeps} of {self.of} sweeps" if self.sweeps < self.of else told


def pick(points: int, many: int, musts: Iterable[int], chance: random.Random) -> list[int]:
    """At most `many` of the numbers 1 to `points`: `musts` in their order first, others spread evenly."""
    if many >= points:
        return list(range(1, points + 1))
    chosen = list(dict.fromkeys(k for k in musts if 0 < k <= points))[:many]
    others = [k for k in range(1, points + 1) if k not in chosen]
    left = many - len(chosen)
    start = chance.random()
    chosen += [others[int((n + start) * len(others) / left)] for n in range(left)]
    return sorted(chosen)


def musts(ends: Sequence[int], moments: Sequence[int], turn: int) -> list[int]:
    """Ends of a sweep and the moments that matter in it by turns, from one sweep to the next others first."""
    both = (moments, ends) if turn % 2 == 0 else (ends, moments)
    found = [k for pair in zip_longest(*both) for k in pair if k is not None]
    return found if turn % 4 < 2 else found[::-1]


def divided(sweeps: Sequence[T], trials: int, least: int, chance: random.Random) -> list[T]:
    """The sweeps that so many trials allow, each taking at least `least`; drawn where not all can be made."""
    most = max(1, trials // least)
    if len(sweeps) <= most:
        return list(sweeps)
    drawn = set(chance.sample(range(len(sweeps)), most))
    return [sweep for i, sweep in enumerate(sweeps) if i in drawn]


__all__ = ["Sample", "divided", "musts", "pick"]
