"""Local files on a simulated Windows: its calls, their refusals and its sharing rules, on any system."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from fstx.ops.windows import WindowsOps
from fstx_conformance.seams.windows import SimDisk
from fstx_conformance.subjects.urls import LocalRoom, LocalSubject


class WindowsSubject(LocalSubject):
    """Plain targets on the disk of a simulated Windows, which is a directory of this machine.

    There is no simulated loss of power, as the disk is none that loses anything; and real other
    processes would not meet the sharing rules, so none are started.
    """

    processes = False

    def __init__(
        self, url: str, *, name: str = "local (simulated Windows)", **options: Any
    ) -> None:
        super().__init__(url, name=name, **options)
        self._clock = _Clock()

    def room(self) -> LocalRoom:
        self._count += 1
        folder = os.path.join(self._top, f"r{self._count}")
        os.makedirs(folder)
        machine = SimDisk(folder)
        ops = WindowsOps(
            machine.process(), sleep=self._clock.sleep, monotonic=self._clock.monotonic
        )
        return LocalRoom(folder, self._make, ops)

    def on_disk(self) -> None:
        """There is none."""

    def environment(self) -> dict[str, str]:
        return {"file system": "simulated Windows"}


class _Clock:
    """Pauses between tries are short, so that other threads get on; only they make it later."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._guard = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._guard:
            self._now_s += seconds
        time.sleep(seconds / 100)

    def monotonic(self) -> float:
        return self._now_s


__all__ = ["WindowsSubject"]
