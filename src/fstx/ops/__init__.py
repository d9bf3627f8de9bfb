"""The calls on files and names that transactions by renaming need, one module per system.

`Ops` is the seam: `posix` (Linux and macOS), `windows`, `sftp` and `smb`, and in the tests a simulated
Windows.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class FileKind(enum.Enum):
    FILE = "file"
    TREE = "tree"  # a directory
    LINK = "link"  # a symbolic link, never followed
    ODD = "odd"  # socket, device, pipe


@dataclass(frozen=True, slots=True)
class Stat:
    """Identity and size of what lies at a path, links not followed.

    ``ino`` 0: the system tells no identity; contents are then told apart by size and time, and trees by
    where they lie.
    """

    kind: FileKind
    dev: int
    ino: int
    size_bytes: int
    mtime_ns: int
    mode: int


class LockHandle(Protocol):
    """A held lock; released at `release`, or by the kernel when the process dies."""

    def release(self) -> None:
        """Remove the lock file if it is still ours, then let go."""


class Ops(Protocol):
    """Every call raises OSError (``errno``, on Windows ``winerror``) and changes one thing or nothing.

    Calls that may meet a passing obstacle (a virus scanner on Windows) retry inside, within
    ``patience_s``; what comes out is final. A call whose answer was lost raises EIO or ETIMEDOUT: it may have
    taken effect. Paths are absolute and normal. An `Ops` pickles, and works in the process that it comes to.
    """

    name: str  # "linux", "macos", "posix", "windows", "sftp"
    place: str  # what makes a URL of a path when put before it; empty on local disks
    leased: bool  # a lock is lost by a holder that stalls for longer than its lease

    def resolve(self, path: str) -> str:
        """Absolute and normal; where the last part is a link, what it points to."""

    def open_new(self, path: str) -> BinaryIO:
        """Create exclusively, unbuffered, for reading and writing, mode 0666 less umask."""

    def open_again(self, path: str) -> BinaryIO:
        """An existing file, unbuffered, for reading and writing, at its beginning."""

    def open_read(self, path: str) -> BinaryIO:
        """An existing file, for reading."""

    def read_file(self, path: str, limit_bytes: int) -> bytes:
        """Whole content; OSError(EFBIG) if longer than the limit."""

    def sync_file(self, file: BinaryIO) -> None:
        """Contents durable, by the descriptor that wrote them."""

    def begin_sync(self, file: BinaryIO) -> None:
        """A hint that the contents will have to be durable soon. Promises nothing, never raises."""

    def sync_dir(self, path: str) -> None:
        """Directory entries durable; nothing where the system has no such call (Windows)."""

    def open_fs(self, path: str) -> int | None:
        """A descriptor for `sync_fs`, to be opened before the first write; None where not trusted."""

    def sync_fs(self, fd: int) -> None:
        """Everything on the file system durable."""

    def close_fs(self, fd: int) -> None: ...

    def mkdir(self, path: str) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...

    def share(self, path: str, like: str) -> None:
        """Make a directory as open as another is; nothing where that is the system's matter."""

    def may_write(self, path: str) -> bool:
        """False where entries of a directory certainly can't be changed."""

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        """Called only where files have no ``ino``."""

    def rename(self, src: str, dst: str) -> None:
        """Move; what happens to an existing `dst` is the system's (POSIX: file over file, directory
        over empty directory; Windows: always refused)."""

    def replace_file(self, src: str, dst: str) -> None:
        """Move a file over a file or to an absent name, in one step."""

    def rename_new(self, src: str, dst: str) -> None:
        """Move; FileExistsError if anything is at `dst`. OSError(ENOSYS) where this can't be one step."""

    def exchange(self, a: str, b: str) -> None:
        """Swap two existing entries in one step. OSError(ENOSYS) where there is no such call."""

    def link_new(self, src: str, dst: str) -> None:
        """Hard link; FileExistsError if anything is at `dst`."""

    def lstat(self, path: str) -> Stat | None:
        """None where nothing is."""

    def scandir(self, path: str) -> Iterator[tuple[str, FileKind]]: ...

    def lock(self, path: str, *, wait_s: float) -> LockHandle | None:
        """Create and lock a file for this process, not its forked children; None if held for `wait_s`.

        A lease takes besides as long as it takes to see whether its holder lives.
        """
