"""One sync at a time, beside the work of its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Syncing:
    """What is written goes to the disk while the next thing is done. Not locked: one caller at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def begin(self, sync: Callable[[], None]) -> None:
        """Call `sync` in a thread of its own, once the one before has ended; raises what that raised."""
        self.end()
        thread = threading.Thread(target=self._run, args=(sync,), name="fstx sync")
        try:
            thread.start()
        except RuntimeError:  # no thread can be started: then the caller waits
            sync()
        else:
            self._thread = thread

    def _run(self, sync: Callable[[], None]) -> None:
        try:
            sync()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self._error = error

    def end(self) -> None:
        """Wait until it has ended; raise what it raised, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


__all__ = ["Syncing"]
