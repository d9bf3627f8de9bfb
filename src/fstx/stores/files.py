"""The calls by which a local store changes something, apart from it: where a layer can stand.

What a store only reads it reads by `os` itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

_CREATE = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_F_FULLFSYNC = 51  # sys/fcntl.h of macOS


class Files:
    """The operating system's calls. Each raises OSError and changes one thing or nothing."""

    def create(self, path: str) -> int:
        """A descriptor of a new file."""
        return os.open(path, _CREATE, 0o666)

    def write(self, fd: int, data: memoryview) -> int:
        """Append; the bytes written."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """What was written through `fd` is durable."""
        if sys.platform == "darwin":
            import fcntl

            # fsync there hands data to the drive only; volumes without the call refuse it.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, _F_FULLFSYNC)
                return
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def sync_dir(self, path: str) -> int:
        """The entries of a directory are durable; its inode."""
        fd = os.open(path, _DIRECTORY)
        try:
            self.sync(fd)
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    def mkdir(self, path: str) -> None:
        os.mkdir(path)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def link(self, src: str, dst: str) -> None:
        """A second name; FileExistsError where something is."""
        os.link(src, dst, follow_symlinks=False)

    def rename(self, src: str, dst: str) -> None:
        """Move; refused on Windows where something is."""
        os.rename(src, dst)

    def rename_new(self, src: str, dst: str) -> None:
        """Move; FileExistsError where something is. POSIX."""
        from fstx.ops.posix import PosixOps

        PosixOps().rename_new(src, dst)

    def replace(self, src: str, dst: str) -> None:
        """Move a file over another, or to a free name."""
        os.replace(src, dst)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def make_all(files: Files, path: str) -> None:
    """A directory and all that lead to it, as `os.makedirs` makes them."""
    missing = [path]
    above = os.path.dirname(path)
    while not os.path.exists(above) and os.path.dirname(above) != above:
        missing.append(above)
        above = os.path.dirname(above)
    for folder in reversed(missing):
        try:
            files.mkdir(folder)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise


__all__ = ["Files", "make_all"]
