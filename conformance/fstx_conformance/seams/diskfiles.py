"""A local store on a simulated disk: the calls of `fstx.stores.files.Files`, done for real, and logged."""

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import Any

from fstx.backends.local import native_ops
from fstx.stores.files import Files
from fstx.stores.local import LocalStore
from fstx.types import Buffer
from fstx_conformance.seams.disk import Disk
from fstx_conformance.seams.disklog import Sync
from fstx_conformance.seams.diskops import DiskOps


class DiskFiles(Files):
    """The calls of one process on a simulated disk. Syncs are logged only."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._ops = DiskOps(disk, native_ops())
        self._open: set[int] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._ops,)

    def create(self, path: str) -> int:
        with self._ops.turn():
            fd = super().create(path)
            self._open.add(fd)
            self._disk.created("create", path, lambda: fd not in self._open)
            return fd

    def close(self, fd: int) -> None:
        with self._ops.turn():
            self._open.discard(fd)
            super().close(fd)
            self._disk.look_at_open_files()

    def sync(self, fd: int) -> None:
        with self._ops.turn():
            node = self._disk.node_of(os.fstat(fd), "")
            self._disk.synced(Sync("file", node), str(node))

    def sync_dir(self, path: str) -> int:
        self._ops.sync_dir(path)
        return os.stat(path).st_ino

    def mkdir(self, path: str) -> None:
        self._ops.mkdir(path)

    def rmdir(self, path: str) -> None:
        self._ops.rmdir(path)

    def unlink(self, path: str) -> None:
        self._ops.unlink(path)

    def link(self, src: str, dst: str) -> None:
        self._ops.link_new(src, dst)

    def rename(self, src: str, dst: str) -> None:
        self._ops.rename(src, dst)

    def rename_new(self, src: str, dst: str) -> None:
        self._ops.rename_new(src, dst)

    def replace(self, src: str, dst: str) -> None:
        self._ops.replace_file(src, dst)


class DiskStore(LocalStore):
    """A local store whose puts happen in order, so that a run is the same each time."""

    is_layer = True

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        done: Future[None] = Future()
        try:
            self.put(key, data, checksum=checksum)
        except Exception as error:  # noqa: BLE001 - the future tells it
            done.set_exception(error)
        else:
            done.set_result(None)
        return done


def _again(ops: DiskOps) -> DiskFiles:
    return DiskFiles(ops.disk)


__all__ = ["DiskFiles", "DiskStore"]
