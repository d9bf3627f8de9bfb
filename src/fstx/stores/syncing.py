"""Directories of a local store: made once, synced together for all who wait; and its worker threads."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec

from fstx.stores.files import Files, make_all

P = ParamSpec("P")

_THREADS = 8


@dataclass(slots=True)
class _Turn:
    """Who waits for one directory: tickets asked for, tickets served, a sync under way."""

    asked: int = 0
    served: int = 0
    running: bool = False
    waiting: int = 0


class Directories:
    """Makes directories durably, and syncs them; one sync serves all threads that wait for it."""

    def __init__(self, root: str, *, durable: bool, files: Files) -> None:
        self._root = root
        self._files = files
        self._durable = durable and sys.platform != "win32"
        self._known: dict[str, int] = {}
        self._turns: dict[str, _Turn] = {}
        self._change = threading.Condition()
        self._pid = os.getpid()

    def make(self, path: str) -> None:
        """`path` is there, and so are, durably, the names that lead to it from above the root."""
        self._after_fork()
        if path in self._known:
            return
        above = self._root
        while not os.path.isdir(above) and os.path.dirname(above) != above:
            above = os.path.dirname(above)
        make_all(self._files, path)
        # Also those that were there: whoever made them may not have come to the sync.
        top = min(above, os.path.dirname(self._root), key=len)
        place = path
        while len(place) > len(top):
            place = os.path.dirname(place)
            with contextlib.suppress(PermissionError):  # above the root it need not be ours
                self.sync(place)
        self._known[path] = os.stat(path).st_ino

    def forget(self, path: str) -> bool:
        """`path` is not there any more; False where that was known."""
        return self._known.pop(path, None) is not None

    def sync(self, path: str) -> None:
        """The entries of `path` as they are now are durable."""
        if not self._durable:
            return
        self._after_fork()
        with self._change:
            turn = self._turns.setdefault(path, _Turn())
            turn.asked += 1
            ticket = turn.asked
            turn.waiting += 1
            while turn.running and turn.served < ticket:
                self._change.wait()
            if turn.served >= ticket:
                self._leave(path, turn)
                return
            turn.running = True
            upto = turn.asked
        served = turn.served
        try:
            self._sync_dir(path)
            served = upto
        finally:
            with self._change:
                turn.running = False
                turn.served = served
                self._leave(path, turn)
                self._change.notify_all()

    def _leave(self, path: str, turn: _Turn) -> None:
        turn.waiting -= 1
        if not turn.waiting:
            self._turns.pop(path, None)

    def _sync_dir(self, path: str) -> None:
        try:
            inode = self._files.sync_dir(path)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
            return  # a file system without such a call; the probe says so
        if self._known.get(path) not in (None, inode):
            # Removed and made again by others, who may not have synced its name.
            self.forget(path)
            self.make(path)

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            # Threads of the parent that held the lock are not here to let it go.
            self._change = threading.Condition()
            self._turns = {}
            self._pid = os.getpid()


class Workers:
    """A few threads, started at the first use and anew after a fork."""

    def __init__(self, count: int = _THREADS) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0
        self._lock = threading.Lock()

    def submit(self, call: Callable[P, None], /, *args: P.args, **kwargs: P.kwargs) -> Future[None]:
        """Run `call` soon; the future tells how it went."""
        if self._pid != os.getpid():
            self._lock = threading.Lock()
            with self._lock:
                self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="fstx-store")
                self._pid = os.getpid()
        pool = self._pool
        assert pool is not None
        return pool.submit(call, *args, **kwargs)


__all__ = ["Directories", "Workers"]
