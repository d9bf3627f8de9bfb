"""Three things that people use today, behind small adapters, for comparison.

fsspec's ``fs.transaction``, a temporary file and a replacement for each file, and zarr's `LocalStore`. None
of them claims what is tried here; they are judged as if they did, to show what one does not get.
The libraries run as they are; faults go in below them, at the calls of the operating system.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from io import BytesIO
from types import MappingProxyType
from typing import Any

from fstx.backends.given import as_buffers
from fstx.errors import CommitError, TargetExistsError
from fstx.types import (
    Capability,
    Durability,
    Guarantee,
    Mode,
    OutcomeState,
    Promise,
    Recovery,
    Snapshot,
    StagedObject,
)
from fstx_conformance.injector import Injector
from fstx_conformance.seams.oscalls import injected
from fstx_conformance.subjects.base import Room, Subject, Tree
from fstx_conformance.subjects.urls import TARGET, read_folder

_HOPED = (
    Capability.ATOMIC_OBJECT,
    Capability.ATOMIC_SET,
    Capability.NO_GAP,
    Capability.RECOVERABLE,
    Capability.CONFLICT_DETECTED,
)

_TEMPORARY = (".tmp", ".partial")  # names that their readers pass over


class Writer(ABC):
    """How one of them writes files and removes them."""

    title: str

    @abstractmethod
    def write(self, root: str, puts: Tree, removed: Sequence[str]) -> None:
        """Put files below `root` and remove others."""


class FsspecTransaction(Writer):
    """``with fs.transaction:`` of fsspec's local file system."""

    title = f"fsspec {version('fsspec')} fs.transaction"

    def write(self, root: str, puts: Tree, removed: Sequence[str]) -> None:
        from fsspec.implementations.local import LocalFileSystem

        fs = LocalFileSystem(auto_mkdir=True, skip_instance_cache=True)
        with fs.transaction:
            for path, data in puts.items():
                with fs.open(f"{root}/{path}", "wb") as file:
                    file.write(data)
        for path in removed:  # it covers open() only
            fs.rm(f"{root}/{path}", recursive=True)


class TempReplace(Writer):
    """A temporary file beside each target, then `os.replace`."""

    title = "temporary file + os.replace"

    def write(self, root: str, puts: Tree, removed: Sequence[str]) -> None:
        for path, data in puts.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            temporary = f"{full}.{secrets.token_hex(4)}.tmp"
            with open(temporary, "wb") as file:
                file.write(data)
            os.replace(temporary, full)
        for path in removed:
            full = os.path.join(root, path)
            if os.path.isdir(full):
                shutil.rmtree(full)
            else:
                os.unlink(full)


class ZarrLocalStore(Writer):
    """``set`` and ``delete`` of zarr's `LocalStore`."""

    @property
    def title(self) -> str:  # type: ignore[override]
        """With its version."""
        return f"zarr {version('zarr')} LocalStore"

    def write(self, root: str, puts: Tree, removed: Sequence[str]) -> None:
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import LocalStore

        async def work() -> None:
            store = await LocalStore.open(root)
            make = default_buffer_prototype().buffer.from_bytes
            for path, data in puts.items():
                await store.set(path, make(data))
            for path in removed:
                await store.delete_dir(path) if os.path.isdir(f"{root}/{path}") else (
                    await store.delete(path)
                )

        asyncio.run(work())


class AdaptedTransaction:
    """Collects what is staged; commit hands it to the writer."""

    def __init__(self, backend: AdaptedBackend, mode: Mode, guarantee: Guarantee) -> None:
        self._backend = backend
        self._mode = mode
        self.guarantee = guarantee
        self.id = secrets.token_hex(16)
        self.url = backend.root
        self.committed = False
        self._puts: Tree = {}
        self._removed: dict[str, None] = {}
        self._open = True

    def stage(self, path: str, data: Any, /, *, publisher: bool = False) -> StagedObject:
        """Keep it for the commit."""
        self._puts[path] = b"".join(bytes(b) for b in as_buffers(path, data))
        return StagedObject(path, path, len(self._puts[path]), self.id, publisher)

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[Any]:
        """A file in memory."""
        file = BytesIO()
        yield file
        self.stage(path, file.getvalue())

    def stager(self) -> AdaptedTransaction:
        """Itself: they know no workers."""
        return self

    def adopt(self, receipts: Iterable[StagedObject], /) -> None:
        """Nothing is left to do."""

    def remove(self, path: str, /) -> None:
        """Remove it at commit."""
        for staged in [p for p in self._puts if p == path or p.startswith(f"{path}/")]:
            del self._puts[staged]
        if os.path.lexists(os.path.join(self.url, path)):
            self._removed[path] = None

    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """What is staged, else what is there."""
        data = self._puts[path] if path in self._puts else read_folder(self.url)[path]
        return data[start:stop]

    def paths(self, prefix: str = "", /) -> Iterator[str]:
        """What will be there."""
        return iter(sorted({*read_folder(self.url), *self._puts} - set(self._removed)))

    def commit(self) -> Snapshot:
        """Write, with the means of the library."""
        removed = [p for p in self._removed if p not in self._puts]
        if self._mode == "replace":
            removed = [p for p in read_folder(self.url) if p not in self._puts]
        self._open = False
        try:
            self._backend.writer.write(self.url, self._puts, removed)
        except Exception as error:
            raise CommitError(f"{self.url}: {error}", txid=self.id, outcome="aborted") from error
        self.committed = True
        size = sum(map(len, self._puts.values()))
        return Snapshot(self.id, (self.url,), "adapted", len(self._puts), size)

    def rollback(self) -> None:
        """Forget it."""
        self._open = False

    def __enter__(self) -> AdaptedTransaction:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None and self._open:
            self.commit()


class AdaptedBackend:
    """A `Backend` in form; the promises are those that one might hope for."""

    def __init__(self, writer: Writer, root: str) -> None:
        self.writer, self.root = writer, root

    def guarantee(
        self, *, mode: Mode, durability: Durability, entry: str | None = None
    ) -> Guarantee:
        """What is hoped for; none of it is claimed."""
        rows = tuple(Promise(c, c in _HOPED, "hoped for, not claimed") for c in Capability)
        return Guarantee(self.root, self.writer.title, mode, durability, rows)

    def begin(
        self,
        *,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability],
        entry: str | None = None,
        id: str | None = None,
    ) -> AdaptedTransaction:
        """Look whether something is there, for mode ``create``."""
        if mode == "create" and read_folder(self.root):
            raise TargetExistsError(f"{self.root} holds something", outcome="aborted")
        return AdaptedTransaction(
            self, mode, self.guarantee(mode=mode, durability=durability, entry=entry)
        )

    def recover(self) -> Recovery:
        """There is no such thing."""
        return Recovery(self.root)

    def outcome(self, id: str, /) -> OutcomeState:
        """Nobody knows."""
        return OutcomeState.UNKNOWN


class ComparisonSubject(Subject):
    """One of the three, on a local directory."""

    seam = "files"
    strategy = "adapted"
    processes = False
    checks = False
    spared = MappingProxyType(
        {
            "semantics": "the adapter gives it the form of a transaction: not theirs to be judged",
            "isolation": "its system calls are replaced in this process, which two writers would share",
            "fencing": "nothing takes writers for dead",
            "power": "nothing is synced, so nothing is promised",
        }
    )

    def __init__(self, writer: Writer, folder: str) -> None:
        self._writer = writer
        self.name = writer.title
        self.url = folder
        self._top = os.path.join(
            os.path.abspath(folder), f"fstx-conformance-{secrets.token_hex(4)}"
        )
        self._count = 0

    def replay_line(self, schedule: str) -> str:
        return f"{self.name}: {schedule}"  # no URL names them

    def room(self) -> ComparisonRoom:
        self._count += 1
        folder = os.path.join(self._top, f"r{self._count}")
        os.makedirs(folder)
        return ComparisonRoom(self._writer, folder)

    def close(self) -> None:
        shutil.rmtree(self._top, ignore_errors=True)


class ComparisonRoom(Room):
    """A directory; a process with faults has them at its system calls."""

    def __init__(self, writer: Writer, folder: str) -> None:
        self._writer, self._folder = writer, folder
        self.url = os.path.join(folder, TARGET)

    def open(self, process: Injector | None = None) -> Any:
        return AdaptedBackend(_Injected(self._writer, process, self._folder), self.url)

    def read(self) -> Tree:
        found = read_folder(self.url)
        return {p: data for p, data in found.items() if not p.endswith(_TEMPORARY)}

    def leftovers(self) -> list[str]:
        found = [n for n in os.listdir(self._folder) if n not in (TARGET, "tmp")]
        scratch = os.path.join(self._folder, "tmp")
        found += [f"tmp/{n}" for n in os.listdir(scratch)] if os.path.isdir(scratch) else []
        return sorted(found + [p for p in read_folder(self.url) if p.endswith(_TEMPORARY)])

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class _Injected(Writer):
    """A writer whose system calls go through a process."""

    def __init__(self, inner: Writer, process: Injector | None, folder: str) -> None:
        self._inner, self._process, self._folder = inner, process, folder
        self.title = inner.title

    def write(self, root: str, puts: Tree, removed: Sequence[str]) -> None:
        where: AbstractContextManager[None] = nullcontext()
        if self._process is not None:
            where = injected(self._process, self._folder)
        with where:
            self._inner.write(root, puts, removed)


WRITERS: dict[str, type[Writer]] = {
    "fsspec-transaction": FsspecTransaction,
    "temp-replace": TempReplace,
    "zarr-localstore": ZarrLocalStore,
}

__all__ = ["WRITERS", "ComparisonSubject"]
