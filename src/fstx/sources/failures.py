"""The failures of one run, in the order of time: the first is raised, the others are kept."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from fstx.errors import TransactionError
from fstx.plan import Index

_MOST_NOTES = 16


class Failures:
    """Collects failures from any thread. `halted` is true from the first one on.

    Parameters
    ----------
    on_halt
        Called at the first failure, for flags that other processes look at.
    """

    def __init__(self, on_halt: Callable[[], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._seen: list[tuple[int, BaseException]] = []
        self._on_halt = on_halt
        self.halted = False

    def halt(self) -> None:
        """No new block may start. May be called often."""
        with self._lock:
            fresh, self.halted = not self.halted, True
        if fresh and self._on_halt is not None:
            self._on_halt()

    def record(
        self, error: BaseException, where: str | None = None, at_ns: int | None = None
    ) -> None:
        """Keep `error` and halt; `where` becomes a note, once."""
        if where is not None and where not in getattr(error, "__notes__", ()):
            error.add_note(where)
        with self._lock:
            if not any(known is error for _, known in self._seen):
                self._seen.append((time.time_ns() if at_ns is None else at_ns, error))
        self.halt()

    def knows(self, error: BaseException) -> bool:
        """Whether `error` itself was recorded."""
        with self._lock:
            return any(known is error for _, known in self._seen)

    def first(self, fallback: BaseException | None = None) -> BaseException | None:
        """The earliest failure, the others attached to it; `fallback` where none was recorded."""
        with self._lock:
            ordered = [error for _, error in sorted(self._seen, key=lambda seen: seen[0])]
        if not ordered:
            return fallback
        first, others = ordered[0], ordered[1:]
        attach_others(first, others)
        return first


def attach_others(first: BaseException, others: list[BaseException]) -> None:
    """Keep later failures with the first: in ``others`` of the library's errors, else as notes.

    Attaching the same failures again changes nothing.
    """
    if isinstance(first, TransactionError):
        known = {id(e) for e in (first, *first.others)}
        first.others = (*first.others, *(e for e in others if id(e) not in known))
        return
    notes = []
    for error in others[:_MOST_NOTES]:
        text = "".join(traceback.format_exception_only(error)).strip()
        notes.append(f"also failed: {text}")
    if len(others) > _MOST_NOTES:
        notes.append(f"and {len(others) - _MOST_NOTES} more failures")
    for note in notes:
        if note not in getattr(first, "__notes__", ()):
            first.add_note(note)


def writing(index: Index) -> str:
    """The note for a failure in writing one block."""
    return f"while writing block {index}"


def computing(index: Index) -> str:
    """The note for a failure in producing the values of one block."""
    return f"while computing block {index}"
