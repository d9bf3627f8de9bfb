"""An open file on an SFTP server, and what its answers mean."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from fstx.ops import FileKind

if TYPE_CHECKING:
    from fstx.ops.sftp import SftpOps

T = TypeVar("T")

BLOCK_BYTES = 4 << 20  # asyncssh cuts it into requests that are under way together


class SftpFile(io.RawIOBase):
    """A file on the server, by a handle; of use only as long as its connection."""

    buffer_bytes = 1 << 20

    def __init__(self, ops: SftpOps, client: Any, file: Any, path: str) -> None:
        self.name = path
        self._ops, self._client, self._file = ops, client, file
        self._at = 0

    def _call(self, do: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._ops.call(lambda _: do(), self.name, client=self._client)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return self.readall()
        data = bytes(self._call(lambda: self._file.read(min(size, BLOCK_BYTES), self._at)))
        self._at += len(data)
        return data

    def readall(self) -> bytes:
        blocks = []
        while block := self.read(BLOCK_BYTES):
            blocks.append(block)
        return b"".join(blocks)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), BLOCK_BYTES):
            block = bytes(view[start : start + BLOCK_BYTES])
            self._call(lambda block=block: self._file.write(block, self._at))  # type: ignore[misc]
            self._at += len(block)
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += int(self._call(self._file.stat).size or 0)
        if offset < 0:
            raise OSError(errno.EINVAL, "before the beginning", self.name)
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None, /) -> int:
        size = self._at if size is None else size
        self._call(lambda: self._file.truncate(size))
        return size

    def sync(self) -> None:
        """Contents durable, where the server has a call for it."""
        try:
            self._call(self._file.fsync)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._call(self._file.close)
        finally:
            super().close()

    def __del__(self) -> None:
        # Not by a request: the collector may run in the thread that would have to answer it.
        with contextlib.suppress(Exception):
            io.RawIOBase.close(self)


def kind_of(attrs: Any) -> FileKind:
    mode = attrs.permissions
    if mode is not None and stat.S_IFMT(mode):
        if stat.S_ISDIR(mode):
            return FileKind.TREE
        if stat.S_ISLNK(mode):
            return FileKind.LINK
        return FileKind.FILE if stat.S_ISREG(mode) else FileKind.ODD
    regular, tree, link = 1, 2, 3  # FILEXFER_TYPE of later drafts
    return {regular: FileKind.FILE, tree: FileKind.TREE, link: FileKind.LINK}.get(
        attrs.type, FileKind.ODD
    )


def translated(error: Any, path: str) -> OSError:
    """From a status code to errno; EPERM where the server did not say why."""
    import asyncssh

    for kind, number in (
        (asyncssh.SFTPNoSuchFile, errno.ENOENT),
        (asyncssh.SFTPNoSuchPath, errno.ENOENT),
        (asyncssh.SFTPPermissionDenied, errno.EACCES),
        (asyncssh.SFTPFileAlreadyExists, errno.EEXIST),
        (asyncssh.SFTPDirNotEmpty, errno.ENOTEMPTY),
        (asyncssh.SFTPNotADirectory, errno.ENOTDIR),
        (asyncssh.SFTPFileIsADirectory, errno.EISDIR),
        (asyncssh.SFTPNoSpaceOnFilesystem, errno.ENOSPC),
        (asyncssh.SFTPQuotaExceeded, errno.EDQUOT),
        (asyncssh.SFTPWriteProtect, errno.EROFS),
        (asyncssh.SFTPOpUnsupported, errno.ENOSYS),
        (asyncssh.SFTPInvalidFilename, errno.ENAMETOOLONG),
        (asyncssh.SFTPBadMessage, errno.ENAMETOOLONG),  # so says OpenSSH
        (asyncssh.SFTPLinkLoop, errno.ELOOP),
    ):
        if isinstance(error, kind):
            return OSError(number, f"{os.strerror(number)} ({error.reason})", path)
    return OSError(errno.EPERM, f"the server refused: {error.reason or 'no reason given'}", path)
