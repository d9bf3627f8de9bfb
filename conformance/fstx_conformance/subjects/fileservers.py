"""File servers (SFTP, SMB) whose folder this machine also sees: readers are played by the folder."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from typing import Any

from fstx import registry, seams
from fstx.ops import Ops
from fstx.protocol import Backend
from fstx.types import Guarantee
from fstx_conformance.subjects.base import Subject, Tree
from fstx_conformance.subjects.urls import FILE_SERVER_COST, TARGET, LocalRoom


class FileServerSubject(Subject):
    """Targets on a file server.

    Parameters
    ----------
    url
        A directory on the server.
    folder
        The same directory as this machine sees it: what readers find is read there.
    login
        What a process does to be let in by itself, where what travels between processes holds no password.
    **options
        Of the server, as `fstx.begin` takes them.
    """

    seam = "ops"
    strategy = "rename, swap, redo"
    cost = FILE_SERVER_COST

    def __init__(
        self,
        url: str,
        folder: str,
        *,
        name: str,
        login: Callable[[], object] | None = None,
        **options: Any,
    ) -> None:
        self.name, self.url, self._options = name, url, options
        self.login = login
        if login is not None:
            login()
        self._top = f"fstx-conformance-{secrets.token_hex(4)}"
        self._folder = os.path.join(folder, self._top)
        self._count = 0
        self._promises: dict[Any, Guarantee] = {}
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
        room = FileServerRoom(url, folder, self._make(url), self._ops)
        room.promises = self._promises
        return room

    def _make(self, url: str) -> Callable[[str, Ops], Backend]:
        options = self._options
        return lambda folder, ops: registry.backend([url], joined=False, **{**options, "ops": ops})

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class FileServerRoom(LocalRoom):
    """A directory on the server, with one target; what readers find is read on this machine."""

    def __init__(
        self, url: str, folder: str, make: Callable[[str, Ops], Backend], ops: Ops
    ) -> None:
        super().__init__(folder, make, ops)
        self.url = url
        self.root = "/" + url.partition("://")[2].partition("/")[2].rpartition("/")[0]

    def lay(self, files: Tree, entry: str | None = None) -> None:
        for path, data in files.items():
            full = os.path.join(self.target, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as file:
                file.write(data)


__all__ = ["FileServerRoom", "FileServerSubject"]
