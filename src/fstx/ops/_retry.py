"""Waiting for an obstacle that passes by itself, such as a virus scanner's open handle."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """Repeat a refused call, with pauses that double and differ between processes.

    Parameters
    ----------
    budget_s
        Seconds after which a refusal is final; no pause begins that would end later.
    sleep, monotonic
        The clock.
    jitter
        Numbers in [0, 1): how much of the second half of a pause is waited.
    first_s, longest_s
        The first pause and the longest.
    """

    budget_s: float
    sleep: Callable[[float], None]
    monotonic: Callable[[], float]
    jitter: Callable[[], float]
    first_s: float = 0.01
    longest_s: float = 0.5

    def run(self, call: Callable[[], T], passing: Callable[[OSError], bool]) -> T:
        """The result of `call`.

        An error that is not `passing` is raised at once, as it is. One that outlasted the budget is
        raised with ``errno`` EBUSY, so that "in use" and "forbidden" can be told apart.
        """
        deadline_s = self.monotonic() + self.budget_s
        pause_s = self.first_s
        while True:
            try:
                return call()
            except OSError as error:
                if not passing(error):
                    raise
                wait_s = pause_s * (0.5 + self.jitter() / 2)
                if self.monotonic() + wait_s > deadline_s:
                    error.errno = errno.EBUSY
                    raise
            self.sleep(wait_s)
            pause_s = min(pause_s * 2, self.longest_s)
