"""Where the entries of a cache lie: files of a local or mounted file system.

A hit is one open and one read of one file; above 4 MiB it is read in pieces (`fstx.caching.reading`). Its
last use is the file's modification time, set anew when it is older than ten minutes. The turn to compute is a
lock that the system frees when its holder dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from fstx import seams
from fstx.backends.local import native_ops
from fstx.caching.entries import CorruptError
from fstx.caching.leases import BEATS, Beat
from fstx.caching.places import NOTE_S, Raw, StorePlace, Use
from fstx.caching.reading import LARGE_BYTES, ReadAt, read_summed, read_whole
from fstx.ops import LockHandle, Ops
from fstx.ops._wincrt import plain
from fstx.stores.local import LocalStore, open_read

_WINDOWS = sys.platform == "win32"
_ANYWHERE = hasattr(os, "preadv")  # not on Windows, nor on macOS before 11
_DAMAGED = frozenset({errno.EIO, getattr(errno, "ESTALE", errno.EIO)})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_PAUSE_S = 0.001
_LONGEST_S = 0.05
_STALE_S = 3600.0


class LocalPlace(StorePlace):
    """Entries as files."""

    store: LocalStore

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self._entries = os.path.dirname(self.store.path_of("entries/x"))
        self._locks = os.path.dirname(plain(self.store.path_of("locks/x")))
        self._ops: Ops = seams.around_ops(native_ops())

    def where(self, name: str) -> str:
        return plain(self.store.path_of(f"entries/{name}"))

    def read(self, name: str, *, note: bool, verify: bool) -> Raw:
        path = os.path.join(self._entries, name)
        try:
            raw, st = _read(path, verify)
        except IsADirectoryError:
            raise FileNotFoundError(errno.ENOENT, "a directory, not an entry", path) from None
        except OSError as error:
            if error.errno in _DAMAGED:  # the disk, or a file server, has lost a part of it
                raise CorruptError(f"it can't be read: {error.strerror}") from error
            raise
        if note and time.time() - st.st_mtime > NOTE_S:
            with contextlib.suppress(OSError):  # another's file, or a place that is only read
                os.utime(path)
        return raw

    def uses(self) -> list[Use]:
        return [Use(i.key, i.size_bytes, i.modified_s or 0.0) for i in self.entries()]

    def tidy(self) -> None:
        super().tidy()
        before_s = time.time() - _STALE_S
        with contextlib.suppress(OSError), os.scandir(self._locks) as found:
            for entry in found:
                if entry.stat(follow_symlinks=False).st_mtime < before_s:
                    left = self._ops.lock(entry.path, wait_s=0)
                    if left is not None:
                        left.release()

    def turns(self, name: str, lease_s: float) -> Any:
        return LockTurns(self._ops, self.store, name, lease_s, super().turns)


class Held:
    """A lock with a sign of life: the time of its file."""

    def __init__(self, handle: LockHandle, path: str, lease_s: float) -> None:
        self._handle = handle
        try:
            self._beat = Beat(lambda: os.utime(path), lease_s / BEATS)
        except BaseException:
            handle.release()
            raise

    def release(self) -> None:
        """Let go; the file of the lock is removed."""
        try:
            self._beat.stop()
        finally:
            self._handle.release()


class LockTurns:
    """Attempts of one caller to get the lock of one entry; records instead where locks are refused."""

    def __init__(
        self,
        ops: Ops,
        store: LocalStore,
        name: str,
        lease_s: float,
        without_locks: Any,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._ops, self._name, self._lease_s = ops, name, lease_s
        self._path = plain(store.path_of(f"locks/{name}"))
        self._without_locks = without_locks
        self._instead: Any = None
        self._pause_s = _PAUSE_S
        self._seen: tuple[int, int] | None = None
        self._since_s = 0.0

    def take(self) -> Any:
        """The turn, if nobody has it."""
        if self._instead is not None:
            return self._instead.take()
        try:
            try:
                handle = self._ops.lock(self._path, wait_s=0)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                handle = self._ops.lock(self._path, wait_s=0)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._instead = self._without_locks(self._name, self._lease_s)
            return self._instead.take()
        return None if handle is None else Held(handle, self._path, self._lease_s)

    def wait(self) -> None:
        """A moment. A holder that gave no sign of life for the whole lease loses the lock's name."""
        if self._instead is not None:
            self._instead.wait()
            return
        seams.pause(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _LONGEST_S)
        with contextlib.suppress(OSError):
            st = os.lstat(self._path)
            seen, now_s = (st.st_ino, st.st_mtime_ns), self._monotonic()
            if seen != self._seen:
                self._seen, self._since_s = seen, now_s
            elif now_s - self._since_s >= self._lease_s:
                os.unlink(self._path)


def _read(path: str, verify: bool) -> tuple[Raw, os.stat_result]:
    """The content, and what the system tells of the open file."""
    if _WINDOWS:
        with open_read(path) as file:
            st = os.fstat(file.fileno())
            return _content(lambda into, _: file.readinto(into), st.st_size, verify), st
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        st = os.fstat(fd)
        if _ANYWHERE:
            return _content(lambda into, at: os.preadv(fd, [into], at), st.st_size, verify), st
        return _content(lambda into, _: os.readv(fd, [into]), st.st_size, verify), st
    finally:
        os.close(fd)


def _content(read_at: ReadAt, size_bytes: int, verify: bool) -> Raw:
    """In one read, or a large entry in pieces."""
    if verify and size_bytes > LARGE_BYTES:
        return read_summed(read_at, size_bytes, helped=_ANYWHERE)
    return read_whole(read_at, size_bytes)


__all__ = ["LocalPlace", "LockTurns"]
