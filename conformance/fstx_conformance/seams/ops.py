"""Faults at the calls of the operating system: a layer over any `fstx.ops.Ops`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

from fstx.ops import FileKind, LockHandle, Ops, Stat
from fstx_conformance.injector import Call, Injector

_ERROR = errno.EIO


class FaultOps:
    """One process over `inner`; calls that change something can fail, tear, be lost or kill it.

    Parameters
    ----------
    inner
        The calls that are made.
    injector
        The process.
    error
        The errno of what goes wrong.
    root
        Keys in schedules are relative to it, so that they mean the same elsewhere.
    """

    is_layer = True

    def __init__(
        self,
        inner: Ops,
        injector: Injector,
        *,
        error: int = _ERROR,
        root: str = "",
    ) -> None:
        self.inner = inner
        self.injector = injector
        self.error = error
        self.root = root
        self.name = inner.name
        self.locks: set[_Lock] = set()
        self._files: list[Any] = []
        self._taken: list[LockHandle] = []
        self._fds: set[int] = set()
        injector.on_death.append(self.end)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)  # what a system has besides: names of file systems, moves

    def __repr__(self) -> str:
        return f"FaultOps({self.inner!r}, {self.injector.agent})"

    def end(self) -> None:
        """What the kernel does at the end of a process: descriptors and locks go."""
        self.lose_locks()
        for handle in self._taken:
            _let_go(handle)
        for file in self._files:
            file.close()
        for fd in self._fds:
            self.inner.close_fs(fd)
        self._fds.clear()

    def lose_locks(self) -> None:
        """As a network file system does with the locks of a client that it gave up; files stay."""
        for lock in list(self.locks):
            lock.lose()
        self.locks.clear()

    def _call(
        self,
        op: str,
        path: str,
        perform: Callable[[], Any],
        *,
        torn: Callable[[], Any] | None = None,
        changing: bool = True,
    ) -> Any:
        def error() -> OSError:
            return OSError(self.error, os.strerror(self.error), path)

        def ambiguous() -> Any:
            raise error()

        return self.injector.call(
            Call(op, self._key(path), perform, changing, ambiguous, error, torn, None)
        )

    def _key(self, path: str) -> str:
        return path.replace(f"{self.root}/", "").replace(self.root, ".") if self.root else path

    # --- contents -----------------------------------------------------------------------------------

    def open_new(self, path: str) -> BinaryIO:
        def perform() -> Any:
            file = self.inner.open_new(path)
            self._files.append(file)
            return file

        return cast("BinaryIO", _File(self, self._call("open_new", path, perform), path))

    def open_again(self, path: str) -> BinaryIO:
        return cast("BinaryIO", _File(self, self._opened(self.inner.open_again, path), path))

    def open_read(self, path: str) -> BinaryIO:
        file: BinaryIO = self._opened(self.inner.open_read, path)
        return file

    def _opened(self, call: Callable[[str], Any], path: str) -> Any:
        """A file that is there: no point of a schedule, and closed with the process."""
        self.injector.live()
        file = call(path)
        self._files = [f for f in self._files if not f.closed]
        self._files.append(file)
        return file

    def read_file(self, path: str, limit_bytes: int) -> bytes:
        data: bytes = self._call(
            "read_file", path, lambda: self.inner.read_file(path, limit_bytes), changing=False
        )
        return data

    def sync_file(self, file: BinaryIO) -> None:
        opened: Any = file
        path = opened._path if isinstance(opened, _File) else ""
        self._call("sync_file", path, lambda: self.inner.sync_file(_raw(file)))

    def begin_sync(self, file: BinaryIO) -> None:
        self.injector.live()
        self.inner.begin_sync(_raw(file))

    def sync_dir(self, path: str) -> None:
        self._call("sync_dir", path, lambda: self.inner.sync_dir(path))

    def open_fs(self, path: str) -> int | None:
        self.injector.live()
        fd = self.inner.open_fs(path)
        if fd is not None:
            self._fds.add(fd)
        return fd

    def sync_fs(self, fd: int) -> None:
        self._call("sync_fs", "", lambda: self.inner.sync_fs(fd))

    def close_fs(self, fd: int) -> None:
        self.injector.live()
        self._fds.discard(fd)
        self.inner.close_fs(fd)

    # --- names --------------------------------------------------------------------------------------

    def mkdir(self, path: str) -> None:
        self._call("mkdir", path, lambda: self.inner.mkdir(path))

    def rmdir(self, path: str) -> None:
        self._call("rmdir", path, lambda: self.inner.rmdir(path))

    def unlink(self, path: str) -> None:
        self._call("unlink", path, lambda: self.inner.unlink(path))

    def rename(self, src: str, dst: str) -> None:
        self._call("rename", _two(src, dst), lambda: self.inner.rename(src, dst))

    def replace_file(self, src: str, dst: str) -> None:
        self._call("replace_file", _two(src, dst), lambda: self.inner.replace_file(src, dst))

    def rename_new(self, src: str, dst: str) -> None:
        self._call("rename_new", _two(src, dst), lambda: self.inner.rename_new(src, dst))

    def exchange(self, a: str, b: str) -> None:
        self._call("exchange", _two(a, b), lambda: self.inner.exchange(a, b))

    def link_new(self, src: str, dst: str) -> None:
        self._call("link_new", _two(src, dst), lambda: self.inner.link_new(src, dst))

    # --- looking ------------------------------------------------------------------------------------

    def lstat(self, path: str) -> Stat | None:
        found: Stat | None = self._call(
            "lstat", path, lambda: self.inner.lstat(path), changing=False
        )
        return found

    def scandir(self, path: str) -> Iterator[tuple[str, FileKind]]:
        # Sorted, so that a schedule means the same on another file system.
        found: list[tuple[str, FileKind]] = self._call(
            "scandir", path, lambda: sorted(self.inner.scandir(path)), changing=False
        )
        return iter(found)

    # --- locks --------------------------------------------------------------------------------------

    def lock(self, path: str, *, wait_s: float) -> LockHandle | None:
        def perform() -> Any:
            handle = self.inner.lock(path, wait_s=min(wait_s, self.injector.patience_s))
            if handle is not None:
                self._taken.append(
                    handle
                )  # also one whose answer is lost: it goes with the process
            return handle

        inner = self._call("lock", path, perform)
        while inner is None and wait_s and self.injector.blocked():
            inner = perform()
        if inner is None:
            return None
        self._taken.remove(inner)
        lock = _Lock(self, inner, path)
        self.locks.add(lock)
        return lock


class _Lock:
    def __init__(self, ops: FaultOps, inner: LockHandle, path: str) -> None:
        self._ops, self._inner, self._path = ops, inner, path

    def release(self) -> None:
        """Let go; a lock that was lost stays lost."""
        if self not in self._ops.locks:
            return
        try:
            self._ops._call("release", self._path, self._inner.release)
        except (OSError, KeyboardInterrupt):
            self.lose()  # the file could not be removed; the lock is let go in any case
            self._ops.locks.discard(self)
            raise
        self._ops.locks.discard(self)

    def lose(self) -> None:
        """Held no more, without a change of the file; what only `release` can let go is released."""
        _let_go(self._inner)


def _let_go(handle: LockHandle) -> None:
    getattr(handle, "forget", handle.release)()


class _File:
    """A new file whose writes are counted and can tear."""

    def __init__(self, ops: FaultOps, file: Any, path: str) -> None:
        self._ops, self._file, self._path = ops, file, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        written: int = self._ops._call(
            "write",
            self._path,
            lambda: self._file.write(view),
            torn=lambda: self._file.write(view[: len(view) // 2]),
        )
        return written


def _raw(file: Any) -> Any:
    """What the calls below opened; files of theirs may have a file in them, too."""
    return file._file if isinstance(file, _File) else file


def _two(a: str, b: str) -> str:
    return f"{a} {b}"


__all__ = ["FaultOps"]
