"""How a file gets its name on a file system that has no conditional put."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any, Protocol

from fstx.stores import Answer
from fstx.stores.keys import temp_name

# Their fsspec clients look first and write then, or ignore the mode: two winners were seen of each.
_LOOK_FIRST = frozenset({"ftp", "smb", "sftp", "ssh", "webdav", "http", "https", "hdfs", "webhdfs"})


class Names(Protocol):
    """One way to put a file; raises what the client raises."""

    whole: bool  # an object appears whole
    reason: str
    untrusted: str  # why put-if-absent is refused without a try

    def put_new(self, path: str, data: bytes) -> Answer: ...
    def put(self, path: str, data: bytes) -> None: ...
    def put_file(self, path: str, file: Any) -> None: ...

    def remove_empty(self, path: str) -> bool:
        """Remove a directory if it is empty; False where that is not safe to try."""


class InPlace:
    """Files are written where they are read."""

    whole = False
    reason = "files are written in place: a reader can meet a part"

    def __init__(self, fs: Any, protocol: str) -> None:
        self._fs = fs
        self.untrusted = (
            f"the fsspec client of {protocol}:// looks for the file first and writes then"
            if protocol in _LOOK_FIRST
            else ""
        )

    def put_new(self, path: str, data: bytes) -> Answer:
        if self.untrusted:
            raise NotImplementedError(self.untrusted)
        self._fs.pipe_file(path, data, mode="create")
        return Answer.DONE

    def put(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(path, data)

    def put_file(self, path: str, file: Any) -> None:
        with self._fs.open(path, "wb") as target:
            shutil.copyfileobj(file, target, 1 << 20)

    def remove_empty(self, path: str) -> bool:
        return False  # over WebDAV it takes all that lies below along


class Sftp:
    """A temporary file in the same directory takes its name by one of SFTP's two renames."""

    whole = True
    reason = "a file takes its name when it is whole (posix-rename)"
    untrusted = ""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def put_new(self, path: str, data: bytes) -> Answer:
        with self._written(path, data) as temp:
            try:
                self._rename(temp, path, replace=False)
            except Exception:
                # Servers say "failure" for everything: what is there decides.
                if not self._exists(temp):
                    return Answer.UNKNOWN  # moved by a call that failed: probably ours
                if self._exists(path):
                    return Answer.TAKEN
                raise
        return Answer.DONE

    def put(self, path: str, data: bytes) -> None:
        with self._written(path, data) as temp:
            self._rename(temp, path, replace=True)

    def put_file(self, path: str, file: Any) -> None:
        with self._written(path, None) as temp:
            with self._fs.open(temp, "wb") as target:
                shutil.copyfileobj(file, target, 1 << 20)
            self._rename(temp, path, replace=True)

    @contextlib.contextmanager
    def _written(self, path: str, data: bytes | None) -> Iterator[str]:
        temp = f"{path.rpartition('/')[0]}/{temp_name()}"
        try:
            if data is not None:
                with self._fs.open(temp, "wb") as file:
                    file.write(data)
            yield temp
        finally:
            with contextlib.suppress(Exception):
                if self._exists(temp):
                    self._fs.rm_file(temp)

    def _exists(self, path: str) -> bool:
        try:
            self._fs.info(path)
        except FileNotFoundError:
            return False
        return True

    def _rename(self, source: str, target: str, *, replace: bool) -> None:
        raise NotImplementedError

    def remove_empty(self, path: str) -> bool:
        raise NotImplementedError


class SshfsNames(Sftp):
    """Through sshfs's channels (asyncssh)."""

    def _rename(self, source: str, target: str, *, replace: bool) -> None:
        from fsspec.asyn import sync

        async def rename() -> None:
            async with self._fs._pool.get() as channel:
                await (channel.posix_rename if replace else channel.rename)(source, target)

        sync(self._fs.loop, rename)

    def remove_empty(self, path: str) -> bool:
        from fsspec.asyn import sync

        async def remove() -> None:  # sshfs's own rmdir does nothing when it is called from outside
            async with self._fs._pool.get() as channel:
                await channel.rmdir(path)

        sync(self._fs.loop, remove)
        return True


class ParamikoNames(Sftp):
    """Through fsspec's own SFTP client (paramiko)."""

    def _rename(self, source: str, target: str, *, replace: bool) -> None:
        (self._fs.ftp.posix_rename if replace else self._fs.ftp.rename)(source, target)

    def remove_empty(self, path: str) -> bool:
        self._fs.ftp.rmdir(path)
        return True


def names_of(fs: Any) -> Names | None:
    """The renames of `fs`, where it is an SFTP client."""
    if hasattr(fs, "_pool") and type(fs).__name__ == "SSHFileSystem":
        return SshfsNames(fs)
    if hasattr(fs, "ftp") and hasattr(fs.ftp, "posix_rename"):
        return ParamikoNames(fs)
    return None


__all__ = ["InPlace", "Names", "names_of"]
