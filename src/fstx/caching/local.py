"""Where the entries of a cache lie: files of a local or mounted file system.

A hit is one open and one read of one file; above 4 MiB it is read in pieces. Its last use is the file's
modification time, set anew when it is older than ten minutes. The turn to compute is a lock that the system
frees when its holder dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from fstx import seams
from fstx.backends.local import native_ops
from fstx.caching.entries import TAIL_BYTES, CorruptError, room_for
from fstx.caching.leases import BEATS, Beat
from fstx.caching.places import NOTE_S, Raw, StorePlace, Use
from fstx.ops import LockHandle, Ops
from fstx.ops._wincrt import plain
from fstx.state.entries import checksum
from fstx.stores.local import LocalStore, open_read

_WINDOWS = sys.platform == "win32"
_DAMAGED = frozenset({errno.EIO, getattr(errno, "ESTALE", errno.EIO)})
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_LARGE_BYTES = 4 << 20
_PIECE_BYTES = 1 << 19
_PAUSE_S = 0.001
_LONGEST_S = 0.05
_STALE_S = 3600.0


_Read: TypeAlias = Callable[[Any], int]


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
            return _fill(file.fileno(), file.readinto, verify)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _fill(fd, lambda into: os.readv(fd, [into]), verify)
    finally:
        os.close(fd)


def _fill(fd: int, read: _Read, verify: bool) -> tuple[Raw, os.stat_result]:
    """In one read; a large entry in pieces, each summed while the processor has it at hand."""
    st = os.fstat(fd)
    raw, done, known = room_for(st.st_size), 0, ""

    def pieces(end: int, size: int) -> Iterator[Any]:
        nonlocal done
        while done < end and (count := read(raw[done : min(done + size, end)])):
            done += count
            yield raw[done - count : done]

    if verify and st.st_size > _LARGE_BYTES:
        known = checksum(pieces(st.st_size - TAIL_BYTES, _PIECE_BYTES))
    for _ in pieces(st.st_size, st.st_size):
        pass
    return Raw(raw[:done], known), st


__all__ = ["LocalPlace", "LockTurns"]
