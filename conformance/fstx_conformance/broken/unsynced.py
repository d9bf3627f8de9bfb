"""Calls of an operating system that sync too little or at the wrong time, for a backend to run on.

A backend on these is one that forgot the call. Level "power" must fail each.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

from fstx.paths import CONTROL_NAME


class _Layer:
    """All calls of `inner`, but for those that a subclass has."""

    is_layer = True

    def __init__(self, inner: Any) -> None:
        self.inner: Any = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _Over(_Layer):
    """All calls of an `fstx.ops.Ops`."""

    def open_fs(self, path: str) -> int | None:
        """Each file is synced by itself."""
        return None


class NoFileSync(_Over):
    """Contents are never synced."""

    def sync_file(self, file: BinaryIO) -> None:
        """Nothing."""


class NoStageSync(_Over):
    """Directories of the staging area are never synced."""

    def sync_dir(self, path: str) -> None:
        """Only outside the control directory."""
        if CONTROL_NAME not in path.split(os.sep):
            self.inner.sync_dir(path)


class NoTargetSync(_Over):
    """Directories of targets are never synced."""

    def sync_dir(self, path: str) -> None:
        """Only inside the control directory."""
        if CONTROL_NAME in path.split(os.sep):
            self.inner.sync_dir(path)


class SyncBeforeWrite(_Over):
    """Contents are synced when the file is made, not when it is written."""

    def open_new(self, path: str) -> BinaryIO:
        """Sync it while it is empty."""
        file: BinaryIO = self.inner.open_new(path)
        self.inner.sync_file(file)
        return file

    def sync_file(self, file: BinaryIO) -> None:
        """Nothing."""


class RecordBeforeData(_Over):
    """Staged contents are synced when all is done: after the record that speaks of them, and the moves."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._staged: set[int] = set()
        self._late: list[BinaryIO] = []

    def open_new(self, path: str) -> BinaryIO:
        """Remember what is staged."""
        file: BinaryIO = self.inner.open_new(path)
        if os.path.basename(os.path.dirname(path)) == "a":
            self._staged.add(file.fileno())
        return file

    def sync_file(self, file: BinaryIO) -> None:
        """Put off for what is staged."""
        if file.fileno() in self._staged:
            self._staged.discard(file.fileno())
            self._late.append(os.fdopen(os.dup(file.fileno()), "r+b", buffering=0))
        else:
            self.inner.sync_file(file)

    def rename(self, src: str, dst: str) -> None:
        """Sync what was put off, before the area goes."""
        if dst.endswith(".trash"):
            for file in self._late:
                with file:
                    self.inner.sync_file(file)
            self._late.clear()
        self.inner.rename(src, dst)


UNSYNCED: dict[str, type[_Over]] = {
    "no sync of files": NoFileSync,
    "no sync of the staging directories": NoStageSync,
    "no sync of the target's directories": NoTargetSync,
    "sync before the write": SyncBeforeWrite,
    "record before data": RecordBeforeData,
}
"""What is missing, and the calls that miss it."""


# --- local stores -----------------------------------------------------------------------------------------


class FilesUnsynced(_Layer):
    """Contents of objects are never synced."""

    def sync(self, fd: int) -> None:
        """Nothing."""


class FoldersUnsynced(_Layer):
    """Directories are never synced."""

    def sync_dir(self, path: str) -> int:
        """Nothing; the inode."""
        return os.stat(path).st_ino


class FilesSyncedFirst(_Layer):
    """Contents are synced when the file is made, not when it is written."""

    def create(self, path: str) -> int:
        """Sync it while it is empty."""
        fd: int = self.inner.create(path)
        self.inner.sync(fd)
        return fd

    def sync(self, fd: int) -> None:
        """Nothing."""


class RecordFirst(_Layer):
    """Staged objects are synced after the record that speaks of them."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._staged: set[int] = set()
        self._late: list[int] = []

    def create(self, path: str) -> int:
        """Remember what is staged."""
        fd: int = self.inner.create(path)
        self._staged.discard(fd)
        if f"{os.sep}data{os.sep}" in path:
            self._staged.add(fd)
        return fd

    def sync(self, fd: int) -> None:
        """Put off for what is staged."""
        if fd in self._staged:
            self._late.append(os.dup(fd))
        else:
            self.inner.sync(fd)

    def sync_dir(self, path: str) -> int:
        """After a record's directory, what was put off."""
        found: int = self.inner.sync_dir(path)
        if os.path.basename(path) == "log":
            for fd in self._late:
                self.inner.sync(fd)
                os.close(fd)
            self._late.clear()
        return found


FILES_UNSYNCED: dict[str, type[_Layer]] = {
    "no sync of files": FilesUnsynced,
    "no sync of directories": FoldersUnsynced,
    "sync before the write": FilesSyncedFirst,
    "record before data": RecordFirst,
}
"""What is missing, and the calls of a local store that miss it."""
