"""File servers (SFTP, SMB) whose folder this machine also sees: readers are played by the folder."""

from __future__ import annotations

import os
import secrets
import shutil
from typing import Any

from fstx import registry, seams
from fstx.ops import Ops
from fstx.protocol import Backend
from fstx_conformance.injector import Injector
from fstx_conformance.seams.ops import FaultOps
from fstx_conformance.subjects.base import Room, Subject, Tree
from fstx_conformance.subjects.urls import TARGET, leftovers_of, read_folder


class FileServerSubject(Subject):
    """Targets on a file server.

    Parameters
    ----------
    url
        A directory on the server.
    folder
        The same directory as this machine sees it: what readers find is read there.
    **options
        Of the server, as `fstx.begin` takes them.
    """

    seam = "ops"
    strategy = "rename, swap, redo"
    cost = 12.0

    def __init__(self, url: str, folder: str, *, name: str, **options: Any) -> None:
        self.name, self.url, self._options = name, url, options
        self._top = f"fstx-conformance-{secrets.token_hex(4)}"
        self._folder = os.path.join(folder, self._top)
        self._count = 0
        self._ops = self._connected()

    @property
    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def _connected(self) -> Ops:
        """The calls of one connection, which all processes of the run share."""
        found: list[Ops] = []

        def seen(ops: Any) -> Any:
            found.append(ops)
            return ops

        with seams.under(seams.Layers(ops=seen)):
            registry.backend([f"{self.url}/probe"], joined=False, **self._options)
        return found[0]

    def room(self) -> FileServerRoom:
        self._count += 1
        name = f"r{self._count}"
        folder = os.path.join(self._folder, name)
        os.makedirs(folder)
        url = f"{self.url.rstrip('/')}/{self._top}/{name}/{TARGET}"
        return FileServerRoom(url, folder, self._ops, self._options)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class FileServerRoom(Room):
    """A directory on the server, with one target."""

    def __init__(self, url: str, folder: str, ops: Ops, options: dict[str, Any]) -> None:
        self.url, self.folder = url, folder
        self._ops, self._options = ops, options
        self._root = "/" + url.partition("://")[2].partition("/")[2].rpartition("/")[0]
        self._processes: dict[int, FaultOps] = {}

    def ops(self, process: Injector | None) -> Ops:
        """The calls of one process."""
        if process is None:
            return self._ops
        known = self._processes.get(id(process))
        if known is None:
            known = self._processes[id(process)] = FaultOps(self._ops, process, root=self._root)
        return known

    def open(self, process: Injector | None = None) -> Backend:
        backend: Backend = registry.backend(
            [self.url], joined=False, **{**self._options, "ops": self.ops(process)}
        )
        return backend

    def lose_locks(self, process: Injector) -> None:
        known = self._processes.get(id(process))
        if known is not None:
            known.lose_locks()

    def read(self) -> Tree:
        return read_folder(os.path.join(self.folder, TARGET))

    def leftovers(self) -> list[str]:
        return leftovers_of(self.folder)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


__all__ = ["FileServerRoom", "FileServerSubject"]
