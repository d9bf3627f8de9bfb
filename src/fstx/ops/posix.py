"""POSIX calls, with what Linux and macOS add: exchange, no-replace, syncfs, full sync.

Facts: rename(2), flock(2), fsync(2), syncfs(2) of the Linux manual; ``renamex_np`` and ``F_FULLFSYNC`` of
Apple's manual. The macOS branch is written from those pages and has not been run.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import stat
import sys
import time
import weakref
from collections.abc import Iterator
from typing import BinaryIO

from fstx.ops import FileKind, Stat

_RENAME_NOREPLACE = 1  # linux/fs.h
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2  # sys/stdio.h of macOS
_RENAME_EXCL = 4
_F_FULLFSYNC = 51  # sys/fcntl.h of macOS
_AT_FDCWD = -100
_SYNC_FILE_RANGE_WRITE = 2

# Magic numbers of statfs(2). syncfs reports write-back errors since Linux 5.8 on these.
_LOCAL_MAGIC = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x794C7630: "overlay",
    0xF2F52010: "f2fs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x2FC12FC1: "zfs",
}
_SYNCFS_TRUSTED = frozenset({"ext4", "xfs", "btrfs", "overlay", "f2fs", "tmpfs", "ramfs"})

_held: weakref.WeakSet[FlockHandle] = weakref.WeakSet()


class FlockHandle:
    """A lock held by this process through an open file description of its own."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd: int | None = fd
        self._path = path
        _held.add(self)

    def release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        _held.discard(self)
        # Unlinked only while held and only if the name still means our file: a waiter that got another
        # inode compares likewise, so two holders of one name can't arise.
        try:
            with contextlib.suppress(OSError):
                if os.stat(self._path, follow_symlinks=False).st_ino == os.fstat(fd).st_ino:
                    os.unlink(self._path)
        finally:
            os.close(fd)

    def forget(self) -> None:
        """In a forked child: close our copy, which would keep the lock held after the owner died."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __repr__(self) -> str:
        return f"<lock {self._path} {'held' if self._fd is not None else 'released'}>"


def _after_fork_in_child() -> None:
    for handle in list(_held):
        handle.forget()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class PosixOps:
    """`Ops` for Linux, macOS and, with fewer abilities, any POSIX system."""

    place = ""
    leased = False

    def __init__(self) -> None:
        self.name = {"linux": "linux", "darwin": "macos"}.get(sys.platform, "posix")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._write_back = getattr(self._libc, "sync_file_range", None)
        if self._write_back is not None:
            self._write_back.argtypes = (
                ctypes.c_int,
                ctypes.c_int64,
                ctypes.c_int64,
                ctypes.c_uint,
            )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()

    def resolve(self, path: str) -> str:
        return os.path.realpath(path)

    # --- contents -----------------------------------------------------------------------------

    def open_again(self, path: str) -> BinaryIO:
        return open(path, "r+b", buffering=0)

    def open_read(self, path: str) -> BinaryIO:
        return open(path, "rb", buffering=0)

    def open_new(self, path: str) -> BinaryIO:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        return open(fd, "r+b", buffering=0)

    def read_file(self, path: str, limit_bytes: int) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb", buffering=0) as file:
            if os.fstat(fd).st_size > limit_bytes:
                raise OSError(errno.EFBIG, f"longer than {limit_bytes} bytes", path)
            return file.readall()

    def sync_file(self, file: BinaryIO) -> None:
        self._sync_fd(file.fileno())

    def begin_sync(self, file: BinaryIO) -> None:
        if self._write_back is not None:
            # The disk works while the next object is made: sync_file_range(2), of which only the start
            # is wanted; it promises nothing, and the sync at commit does.
            self._write_back(file.fileno(), 0, 0, _SYNC_FILE_RANGE_WRITE)

    def _sync_fd(self, fd: int) -> None:
        if self.name == "macos":
            # fsync there hands data to the drive only; volumes without the call refuse it.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, _F_FULLFSYNC)
                return
        os.fsync(fd)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._sync_fd(fd)
        finally:
            os.close(fd)

    def open_fs(self, path: str) -> int | None:
        if self.name != "linux" or not hasattr(self._libc, "syncfs"):
            return None
        if self.fs_name(path) not in _SYNCFS_TRUSTED or _kernel() < (5, 8):
            return None
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync_fs(self, fd: int) -> None:
        if self._libc.syncfs(fd) != 0:
            raise _last_error("syncfs")

    def close_fs(self, fd: int) -> None:
        os.close(fd)

    def fs_name(self, path: str) -> str:
        """Name of a local file system that is known by its magic number, else ``""``."""
        if self.name != "linux":
            return ""
        buffer = ctypes.create_string_buffer(256)
        if self._libc.statfs(os.fsencode(path), buffer) != 0:
            return ""
        magic = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
        return _LOCAL_MAGIC.get(magic, "")

    # --- names ---------------------------------------------------------------------------------

    def mkdir(self, path: str) -> None:
        os.mkdir(path, 0o777)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def share(self, path: str, like: str) -> None:
        os.chmod(path, os.stat(like).st_mode & 0o7777)

    def may_write(self, path: str) -> bool:
        return os.access(path, os.W_OK | os.X_OK)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def rename(self, src: str, dst: str) -> None:
        os.rename(src, dst)

    def replace_file(self, src: str, dst: str) -> None:
        os.replace(src, dst)

    def rename_new(self, src: str, dst: str) -> None:
        if self.name == "linux":
            self._renameat2(src, dst, _RENAME_NOREPLACE)
        elif self.name == "macos":
            self._renamex(src, dst, _RENAME_EXCL)
        else:
            raise OSError(errno.ENOSYS, "no rename without replacement here", src)

    def exchange(self, a: str, b: str) -> None:
        if self.name == "linux":
            self._renameat2(a, b, _RENAME_EXCHANGE)
        elif self.name == "macos":
            self._renamex(a, b, _RENAME_SWAP)
        else:
            raise OSError(errno.ENOSYS, "no exchange here", a)

    def _renameat2(self, src: str, dst: str, flags: int) -> None:
        if not hasattr(self._libc, "renameat2"):
            raise OSError(errno.ENOSYS, "the C library has no renameat2", src)
        done = self._libc.renameat2(
            ctypes.c_int(_AT_FDCWD),
            os.fsencode(src),
            ctypes.c_int(_AT_FDCWD),
            os.fsencode(dst),
            ctypes.c_uint(flags),
        )
        if done != 0:
            raise _last_error(src, dst)

    def _renamex(self, src: str, dst: str, flags: int) -> None:
        if not hasattr(self._libc, "renamex_np"):
            raise OSError(errno.ENOSYS, "the C library has no renamex_np", src)
        if self._libc.renamex_np(os.fsencode(src), os.fsencode(dst), ctypes.c_uint(flags)) != 0:
            raise _last_error(src, dst)

    def link_new(self, src: str, dst: str) -> None:
        os.link(src, dst, follow_symlinks=False)

    def lstat(self, path: str) -> Stat | None:
        try:
            st = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stat(_kind(st.st_mode), st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_mode)

    def file_sizes(self, path: str) -> Iterator[tuple[str, int]]:
        """Names and lengths of the files in a directory: as `scandir` and `lstat`, at a third of the cost."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # short ways to the entries
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        st = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISREG(st.st_mode):
                        yield entry.name, st.st_size
        finally:
            os.close(fd)

    def scandir(self, path: str) -> Iterator[tuple[str, FileKind]]:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield entry.name, FileKind.LINK
                elif entry.is_dir(follow_symlinks=False):
                    yield entry.name, FileKind.TREE
                elif entry.is_file(follow_symlinks=False):
                    yield entry.name, FileKind.FILE
                else:
                    yield entry.name, FileKind.ODD

    # --- locks ---------------------------------------------------------------------------------

    def lock(self, path: str, *, wait_s: float) -> FlockHandle | None:
        deadline = time.monotonic() + wait_s
        pause_s = 0.001
        while True:
            fd = _open_lock(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same_file(path, fd):
                    return FlockHandle(fd, path)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    return None
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, 0.05)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # held by another, or unlinked between open and lock: look again


def _open_lock(path: str) -> int:
    """Open a lock file, also another user's: reading is enough for flock(2), but on NFS it wants writing."""
    flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, os.O_RDWR | flags, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | flags, 0o666)
    st = os.fstat(fd)
    wanted = st.st_mode | (os.stat(os.path.dirname(path)).st_mode & 0o666)
    if wanted != st.st_mode and st.st_uid == os.geteuid():
        os.fchmod(fd, stat.S_IMODE(wanted))  # as open as its directory, whatever the umask
    return fd


def _same_file(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _kind(mode: int) -> FileKind:
    if stat.S_ISREG(mode):
        return FileKind.FILE
    if stat.S_ISDIR(mode):
        return FileKind.TREE
    return FileKind.LINK if stat.S_ISLNK(mode) else FileKind.ODD


def _last_error(first: str, second: str | None = None) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), first, None, second)


def _kernel() -> tuple[int, int]:
    major, _, rest = platform.release().partition(".")
    minor = "".join(c for c in rest.partition(".")[0] if c.isdigit())
    return (int(major), int(minor or 0)) if major.isdigit() else (0, 0)
