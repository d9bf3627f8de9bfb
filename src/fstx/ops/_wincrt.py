"""The Windows calls themselves, one function each, nothing decided here.

`Crt` is the seam under `fstx.ops.windows`: `NativeCrt` is the system, the tests put a
simulation in its place. As in CPython, `Crt.open` and `Crt.fsync` raise with ``errno`` alone and
the other calls with ``winerror``.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO, Protocol

LOCK_AT = 1 << 62  # a byte that no content reaches: locks on Windows also forbid reading


class StatLike(Protocol):
    """What is used of `os.stat_result`."""

    @property
    def st_mode(self) -> int: ...
    @property
    def st_dev(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...


class Crt(Protocol):
    """The low-level calls; `os` as it is on Windows."""

    def open(self, path: str, mode: str) -> BinaryIO:
        """As ``io.FileIO(path, mode)``: shares reading and writing, not deleting."""

    def open_shared(self, path: str) -> BinaryIO:
        """For reading, while others may also rename or delete the file."""

    def fsync(self, fd: int, /) -> None: ...
    def lock(self, fd: int, /) -> bool:
        """Lock the byte `LOCK_AT` for this handle; False if another handle has it."""

    def rename(self, src: str, dst: str) -> None: ...
    def replace(self, src: str, dst: str) -> None: ...
    def link(self, src: str, dst: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def mkdir(self, path: str) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def lstat(self, path: str) -> StatLike: ...
    def scandir(self, path: str) -> Iterator[tuple[str, StatLike]]:
        """Names with links not followed. No handle stays open between items."""

    def is_remote(self, path: str) -> bool:
        """True on a network share."""


def extended(path: str) -> str:
    """The form of an absolute, normal path that may be longer than 260 characters."""
    if path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    if path.startswith("\\\\"):
        return "\\\\?\\UNC\\" + path[2:]
    if path[1:3] == ":\\":
        return "\\\\?\\" + path
    return path


def plain(path: str) -> str:
    """What `extended` was made of: as other programs and people write it."""
    if path.startswith("\\\\?\\UNC\\"):
        return "\\\\" + path[8:]
    return path.removeprefix("\\\\?\\")


def _long(path: str) -> str:
    return extended(os.path.abspath(path)) if os.path.isabs(path) else path


class NativeCrt:
    """Windows; constructing it elsewhere raises OSError. Run under wine 8, not yet on Windows."""

    def __init__(self) -> None:
        if sys.platform != "win32":
            raise OSError(f"Windows calls are not available on {sys.platform}")

    def open(self, path: str, mode: str) -> BinaryIO:
        return io.FileIO(_long(path), mode)

    def fsync(self, fd: int, /) -> None:
        os.fsync(fd)

    def rename(self, src: str, dst: str) -> None:
        os.rename(_long(src), _long(dst))

    def replace(self, src: str, dst: str) -> None:
        os.replace(_long(src), _long(dst))

    def link(self, src: str, dst: str) -> None:
        os.link(_long(src), _long(dst))

    def remove(self, path: str) -> None:
        os.remove(_long(path))

    def rmdir(self, path: str) -> None:
        os.rmdir(_long(path))

    def mkdir(self, path: str) -> None:
        os.mkdir(_long(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(_long(path), mode)

    def lstat(self, path: str) -> StatLike:
        return os.lstat(_long(path))

    def scandir(self, path: str) -> Iterator[tuple[str, StatLike]]:
        with os.scandir(_long(path)) as entries:
            found: list[tuple[str, StatLike]] = [
                (e.name, e.stat(follow_symlinks=False)) for e in entries
            ]
        return iter(found)

    if sys.platform == "win32":

        def open_shared(self, path: str) -> BinaryIO:
            import ctypes
            import msvcrt
            from ctypes import wintypes

            create = ctypes.WinDLL("kernel32", use_last_error=True).CreateFileW
            create.restype = wintypes.HANDLE
            create.argtypes = [
                wintypes.LPCWSTR,
                wintypes.DWORD,
                wintypes.DWORD,
                wintypes.LPVOID,
                wintypes.DWORD,
                wintypes.DWORD,
                wintypes.HANDLE,
            ]
            generic_read, share_all, open_existing, normal = 0x80000000, 7, 3, 0x80
            handle = create(_long(path), generic_read, share_all, None, open_existing, normal, None)
            if handle is None or handle == wintypes.HANDLE(-1).value:
                error = ctypes.WinError(ctypes.get_last_error())
                error.filename = path
                raise error
            fd = msvcrt.open_osfhandle(handle, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)
            return io.FileIO(fd, "rb")

        def lock(self, fd: int, /) -> bool:
            import ctypes
            import msvcrt
            from ctypes import wintypes

            class Overlapped(ctypes.Structure):
                _fields_ = [
                    ("Internal", ctypes.c_void_p),
                    ("InternalHigh", ctypes.c_void_p),
                    ("Offset", wintypes.DWORD),
                    ("OffsetHigh", wintypes.DWORD),
                    ("hEvent", wintypes.HANDLE),
                ]

            take = ctypes.WinDLL("kernel32", use_last_error=True).LockFileEx
            take.restype = wintypes.BOOL
            take.argtypes = [
                wintypes.HANDLE,
                wintypes.DWORD,
                wintypes.DWORD,
                wintypes.DWORD,
                wintypes.DWORD,
                ctypes.POINTER(Overlapped),
            ]
            where = Overlapped(Offset=LOCK_AT & 0xFFFFFFFF, OffsetHigh=LOCK_AT >> 32)
            exclusive_at_once = 3
            if take(msvcrt.get_osfhandle(fd), exclusive_at_once, 0, 1, 0, ctypes.byref(where)):
                return True
            code = ctypes.get_last_error()
            lock_violation, io_pending = 33, 997
            if code in (lock_violation, io_pending):
                return False
            raise ctypes.WinError(code)

        def is_remote(self, path: str) -> bool:
            import ctypes

            full = os.path.abspath(path)
            drive = os.path.splitdrive(full)[0]
            if drive.startswith("\\\\"):
                return not drive.startswith(("\\\\?\\", "\\\\.\\")) or "UNC" in drive
            remote = 4
            return int(ctypes.WinDLL("kernel32").GetDriveTypeW(drive + "\\")) == remote

    else:  # never reached: the constructor refuses

        def open_shared(self, path: str) -> BinaryIO:
            raise NotImplementedError

        def lock(self, fd: int, /) -> bool:
            raise NotImplementedError

        def is_remote(self, path: str) -> bool:
            raise NotImplementedError
