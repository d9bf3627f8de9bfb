"""The calls of `fstx.ops.Ops` on a simulated disk: done for real, and logged."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from fstx.ops import FileKind, LockHandle, Ops, Stat
from fstx_conformance.seams.disk import Disk
from fstx_conformance.seams.disklog import Change, Sync

_DEVICE = 1
_disks: weakref.WeakValueDictionary[int, Disk] = weakref.WeakValueDictionary()


class _Lock:
    """A lock whose file is on the disk."""

    def __init__(self, ops: DiskOps, inner: LockHandle, path: str) -> None:
        self._ops = ops
        self._inner = inner
        self._path = path

    def release(self) -> None:
        """Let go; if that removed the file, the disk knows."""
        self._ops._gone(self._path, self._inner.release)

    def forget(self) -> None:
        """Let go as the kernel does for a dead process: the file stays."""
        forget: Any = getattr(self._inner, "forget", self._inner.release)
        forget()


class DiskOps:
    """The calls of one process on a simulated disk. What lies off the disk is passed through.

    Syncs are logged only: the real directory need not outlive anything. A copy that came by pickle finds
    its disk again in the same process only.
    """

    is_layer = True

    def __init__(self, disk: Disk, inner: Ops, *, exchange: bool = True) -> None:
        self.disk = disk
        self.inner = inner
        self.has_exchange = exchange
        self.name = inner.name
        self.place = inner.place
        self.leased = inner.leased

    def __repr__(self) -> str:
        return f"<DiskOps of {self.disk!r}>"

    def fs_name(self, path: str) -> str:
        """The file system that is simulated."""
        return self.disk.fs_name

    def __reduce__(self) -> tuple[Any, ...]:
        _disks[id(self.disk)] = self.disk
        return _again, (id(self.disk), self.inner)

    def resolve(self, path: str) -> str:
        return self.inner.resolve(path)

    # --- contents -----------------------------------------------------------------------------------

    def open_new(self, path: str) -> BinaryIO:
        with self.turn():
            file = self.inner.open_new(path)
            self.disk.created("create", path, lambda: file.closed)
            return file

    def open_again(self, path: str) -> BinaryIO:
        with self.turn():
            file = self.inner.open_again(path)
            self.disk.opened(path, lambda: file.closed)
            return file

    def open_read(self, path: str) -> BinaryIO:
        return self.inner.open_read(path)

    def read_file(self, path: str, limit_bytes: int) -> bytes:
        return self.inner.read_file(path, limit_bytes)

    def sync_file(self, file: BinaryIO) -> None:
        with self.turn():
            node = self.disk.node_of(os.fstat(file.fileno()), "")
            if node is None:
                self.inner.sync_file(file)
                return
            self.disk.take(node, file.fileno())
            self.disk.synced(Sync("file", node), str(node))

    def begin_sync(self, file: BinaryIO) -> None:
        self.inner.begin_sync(file)

    def sync_dir(self, path: str) -> None:
        with self.turn():
            node = self.disk.node(path) if os.path.isdir(path) else None
            if node is None:
                self.inner.sync_dir(path)
                return
            self.disk.synced(Sync("dir", node), path)

    def open_fs(self, path: str) -> int | None:
        return self.inner.open_fs(path)

    def sync_fs(self, fd: int) -> None:
        with self.turn():
            self.disk.synced(Sync("all"), "")

    def close_fs(self, fd: int) -> None:
        self.inner.close_fs(fd)

    # --- names --------------------------------------------------------------------------------------

    def mkdir(self, path: str) -> None:
        with self.turn():
            self.inner.mkdir(path)
            slot = self.disk.slot(path)
            if slot is not None:
                node = self.disk.new_node(path)
                self.disk.change("mkdir", Change("mkdir", ((slot, node),)), path)

    def rmdir(self, path: str) -> None:
        self._gone(path, lambda: self.inner.rmdir(path))

    def unlink(self, path: str) -> None:
        self._gone(path, lambda: self.inner.unlink(path))

    def share(self, path: str, like: str) -> None:
        self.inner.share(
            path, like
        )  # modes outlive a loss of power or not: nothing here depends on it

    def may_write(self, path: str) -> bool:
        return self.inner.may_write(path)

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        self.inner.set_mtime(path, mtime_ns)

    def rename(self, src: str, dst: str) -> None:
        self._move("rename", self.inner.rename, src, dst)

    def replace_file(self, src: str, dst: str) -> None:
        self._move("replace_file", self.inner.replace_file, src, dst)

    def rename_new(self, src: str, dst: str) -> None:
        self._move("rename_new", self.inner.rename_new, src, dst)

    def exchange(self, a: str, b: str) -> None:
        if not self.has_exchange:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), a)
        with self.turn():
            first, second = self.disk.named(a), self.disk.named(b)
            self.inner.exchange(a, b)
            if first is not None and second is not None:
                writes = ((first[0], second[1]), (second[0], first[1]))
                change = Change("exchange", writes, (first[0], second[0]))
                self.disk.change("exchange", change, f"{a} <-> {b}")

    def link_new(self, src: str, dst: str) -> None:
        with self.turn():
            source = self.disk.named(src)
            self.inner.link_new(src, dst)
            slot = self.disk.slot(dst)
            if source is not None and slot is not None:
                change = Change("link_new", ((slot, source[1]),))
                self.disk.change("link_new", change, f"{src} -> {dst}")

    def lstat(self, path: str) -> Stat | None:
        found = self.inner.lstat(path)
        if found is None:
            return None
        node = self.disk.node(path, follow=False)
        return found if node is None else replace(found, dev=_DEVICE, ino=node)

    def scandir(self, path: str) -> Iterator[tuple[str, FileKind]]:
        return self.inner.scandir(path)

    # --- locks --------------------------------------------------------------------------------------

    def lock(self, path: str, *, wait_s: float) -> LockHandle | None:
        handle = self.inner.lock(
            path, wait_s=wait_s
        )  # outside the turn: another thread may hold it
        if handle is None:
            return None
        with self.turn():
            if not self.disk.knows(path):
                self.disk.created("lock", path)
        return _Lock(self, handle, path)

    # --- how ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One call at a time, after what was written before it."""
        with self.disk.guard:
            self.disk.look_at_open_files()
            yield

    def _gone(self, path: str, call: Callable[[], None]) -> None:
        """A call that removes a name, if it does."""
        with self.turn():
            named = self.disk.named(path)
            tree = os.path.isdir(path) and not os.path.islink(path)
            call()
            if named is not None and not os.path.lexists(path):
                slot, node = named
                how = "rmdir" if tree else "unlink"
                change = Change(how, ((slot, None),), (slot,), gone=node if tree else None)
                self.disk.change(how, change, path)

    def _move(self, call: str, how: Callable[[str, str], None], src: str, dst: str) -> None:
        with self.turn():
            source, over = self.disk.named(src), self.disk.named(dst)
            tree = over is not None and os.path.isdir(dst) and not os.path.islink(dst)
            how(src, dst)
            to = self.disk.slot(dst)
            if source is None or to is None or os.path.lexists(src):
                return  # off the disk; or two names of one file, which rename leaves as they are
            slot, node = source
            gone = over[1] if tree and over is not None else None
            change = Change(call, ((slot, None), (to, node)), (slot,), gone=gone)
            self.disk.change(call, change, f"{src} -> {dst}")


def _again(number: int, inner: Ops) -> DiskOps:
    disk = _disks.get(number)
    if disk is None:
        raise TypeError("the calls of a simulated disk stay in its process")
    return DiskOps(disk, inner)
