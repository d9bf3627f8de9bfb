"""Calls on files that do one thing wrong: of a file system, or of a backend that uses them so."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

from fstx.ops import FileKind
from fstx_conformance.broken.over import OverOps


class _Free:
    """A lock that anybody gets."""

    def __init__(self, ops: Any, path: str) -> None:
        self._ops, self._path = ops, path

    def release(self) -> None:
        """The file goes, as with a lock."""
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(self._path)

    def forget(self) -> None:
        """The file stays, as after a crash."""


class NoLocks(OverOps):
    """Locks are given to everybody."""

    def lock(self, path: str, *, wait_s: float) -> Any:
        """Held at once, by any number; the file is there as always."""
        with contextlib.suppress(FileExistsError), self.inner.open_new(path):
            pass
        return _Free(self.inner, path)


class TwoRenames(OverOps):
    """Two entries are exchanged by three renames, and that is called one step."""

    def exchange(self, a: str, b: str) -> None:
        """One name is absent in between."""
        aside = f"{a}.aside"
        self.inner.rename(a, aside)
        self.inner.rename(b, a)
        self.inner.rename(aside, b)


class CopyRename(OverOps):
    """A rename is a copy and a removal."""

    def rename(self, src: str, dst: str) -> None:
        """Piece by piece."""
        if self.inner.lstat(src) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), src)
        self._copy(src, dst)
        self._remove(src)

    def rename_new(self, src: str, dst: str) -> None:
        """Looked first, then piece by piece."""
        if self.inner.lstat(dst) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), dst)
        self.rename(src, dst)

    def replace_file(self, src: str, dst: str) -> None:
        """The old one goes first."""
        if self.inner.lstat(dst) is not None:
            self.inner.unlink(dst)
        self.rename(src, dst)

    def _copy(self, src: str, dst: str) -> None:
        if self.inner.lstat(src).kind is FileKind.FILE:
            with self.inner.open_new(dst) as file:
                file.write(self.inner.read_file(src, 1 << 30))
            return
        self.inner.mkdir(dst)
        for name, _ in list(self.inner.scandir(src)):
            self._copy(os.path.join(src, name), os.path.join(dst, name))

    def _remove(self, path: str) -> None:
        if self.inner.lstat(path).kind is FileKind.FILE:
            self.inner.unlink(path)
            return
        for name, _ in list(self.inner.scandir(path)):
            self._remove(os.path.join(path, name))
        self.inner.rmdir(path)


class UnlinkFirst(OverOps):
    """A file is replaced by removing the old one and moving the new one there."""

    def replace_file(self, src: str, dst: str) -> None:
        """The name is absent in between."""
        if self.inner.lstat(dst) is not None:
            self.inner.unlink(dst)
        self.inner.rename(src, dst)
