"""Who holds a claim, and whether that process still lives."""

from __future__ import annotations

import os
import platform
import sys
import threading
from dataclasses import dataclass
from typing import Literal
from weakref import WeakValueDictionary

from fstx import seams
from fstx.ops.processes import boot_id, namespace, stat_of

Life = Literal["living", "dead", "elsewhere"]

_open: WeakValueDictionary[str, Sign] = WeakValueDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, named so that another one can't be taken for it.

    ``boot`` names the start of the machine and the namespace of process numbers, ``started`` the
    start of the process; "" where that can't be known.
    """

    host: str
    boot: str
    pid: int
    started: str = ""

    @staticmethod
    def here() -> Owner:
        """This process."""
        return Owner(platform.node(), _boot(), os.getpid(), _started(os.getpid()))

    def life(self, txid: str) -> Life:
        """Whether the owner of `txid` lives; ``elsewhere``: it ran on another host, nobody can know."""
        if self.host != platform.node():
            return "elsewhere"
        if self.boot != _boot():
            # Another namespace of this kernel has processes that can't be seen from here.
            same_kernel = self.boot.partition("/")[0] == _boot().partition("/")[0]
            return "elsewhere" if same_kernel else "dead"
        if self.pid == os.getpid():
            with _lock:
                return "living" if txid in _open else "dead"
        if sys.platform == "win32":
            return "elsewhere"
        return _life_of(self.pid, self.started)


class Sign:
    """Held by an open transaction; when it is gone, so is the transaction."""


def opened(txid: str) -> Sign:
    """This process works on `txid`, for as long as it holds what this returns."""
    sign = Sign()
    with _lock:
        _open[txid] = sign
    return sign


def closed(txid: str) -> None:
    """This process is done with `txid`."""
    with _lock:
        _open.pop(txid, None)


seams.at_end_of_process(_open.clear)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _life_of(pid: int, started: str) -> Life:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "dead"
    except PermissionError:
        pass  # another user's process: it is there
    now = _started(pid)
    return "dead" if started and now and now != started else "living"


def _boot() -> str:
    space = namespace()
    return f"{boot_id()}/{space}" if space else boot_id()


def _started(pid: int) -> str:
    """When a process began, in ticks since the machine's start; "" where the system does not say."""
    found = stat_of(pid)
    return "" if found is None else found[1]


__all__ = ["Life", "Owner", "closed", "opened"]
