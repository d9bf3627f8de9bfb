"""Subjects by URL: local files, memory, object stores, ``tx::`` on any of them, third parties' schemes."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable
from typing import Any

from fstx import registry, seams
from fstx.backends.local import LocalBackend, native_ops
from fstx.backends.manifest.dataset import Dataset
from fstx.errors import UsageError
from fstx.ops import Ops
from fstx.ops.posix import PosixOps
from fstx.protocol import Backend
from fstx.stores import Store, Tidies
from fstx.stores.opening import open_store
from fstx.types import Guarantee, Recovery
from fstx_conformance.injector import Injector
from fstx_conformance.seams.ops import FaultOps
from fstx_conformance.seams.store import FaultStore
from fstx_conformance.subjects.base import Room, Subject, Tree
from fstx_conformance.subjects.disks import LocalOnDisk, OnDisk
from fstx_conformance.subjects.listed import Contents, ListedStore

TARGET = "t"
FILE_SERVER_COST = 160.0
_COSTS = {
    **dict.fromkeys(("s3", "s3a", "az", "abfs", "abfss"), 80.0),
    **dict.fromkeys(("gs", "gcs"), 40.0),
    **dict.fromkeys(("sftp", "ssh", "smb"), FILE_SERVER_COST),
}
_PLAIN = 1.6  # a plain target takes so many times the requests of a dataset
_NEAR = 2.0  # up to this cost readers make every request that readers make
_CONTROL = ".fstx"


def subject_of(url: str, *, name: str = "", **options: Any) -> Subject:
    """The subject whose rooms lie below `url`.

    Parameters
    ----------
    url
        Any URL that `fstx.begin` takes: the suite works below a random prefix in it.
    name
        How reports call it; by default the scheme.
    **options
        Of the storage, as `fstx.begin` takes them.
    """
    scheme = registry.scheme_of(url)
    chained = url.startswith(("tx::", "tx://"))
    if scheme in ("file", "local"):
        return LocalSubject(url, name=name or "local", **options)
    if chained:
        return DatasetSubject(url, name=name or f"tx::{registry.scheme_of(url[4:])}", **options)
    if scheme == "memory":
        return MemorySubject(url, name=name or "memory", **options)
    if scheme in ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"):
        return PlainSubject(url, name=name or scheme, **options)
    if scheme == "sqlite":
        from fstx_conformance.subjects.sqlite import SqliteSubject

        return SqliteSubject(url, name=name or scheme, **options)
    from fstx_conformance.subjects.schemes import SchemeSubject

    return SchemeSubject(url, name=name or scheme, cost=_COSTS.get(scheme, 2.0), **options)


def layers(process: Injector | None) -> seams.Layers:
    if process is None:
        return seams.Layers()
    return seams.Layers(
        store=lambda store: FaultStore(store, process), ops=lambda ops: FaultOps(ops, process)
    )


# --- local files ------------------------------------------------------------------------------------


class LocalSubject(Subject):
    """Plain targets on a local file system."""

    seam = "ops"
    strategy = "rename, swap, redo"

    def __init__(
        self,
        url: str,
        *,
        name: str = "local",
        exchange: bool = True,
        **options: Any,
    ) -> None:
        path = url.removeprefix("file://").removeprefix("local://")
        self.name, self.url = name, url
        self._exchange, self._options = exchange, options
        self._made = not os.path.isdir(path)
        self._top = os.path.join(os.path.abspath(path), f"fstx-conformance-{secrets.token_hex(4)}")
        self._count = 0

    @property
    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def room(self) -> LocalRoom:
        self._count += 1
        folder = os.path.join(self._top, f"r{self._count}")
        os.makedirs(folder)
        return LocalRoom(folder, self._make, native_ops() if self._exchange else WithoutExchange())

    def _make(self, folder: str, ops: Ops) -> Backend:
        return LocalBackend([os.path.join(folder, TARGET)], joined=False, ops=ops, **self._options)

    def on_disk(self) -> OnDisk | None:
        def make(ops: Ops, path: str) -> Backend:
            return LocalBackend([path], joined=False, ops=ops, **self._options)

        return LocalOnDisk(make, exchange=self._exchange)

    def environment(self) -> dict[str, str]:
        os.makedirs(self._top, exist_ok=True)
        found = getattr(native_ops(), "fs_name", lambda _: "")(self._top)
        return {"file system": found or "not known to be local"}

    def close(self) -> None:
        shutil.rmtree(self._top, ignore_errors=True)
        if self._made:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self._top))


class WithoutExchange(PosixOps):
    """The calls of a place that can't exchange two names, as many network mounts."""

    def exchange(self, a: str, b: str) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), a)


class LocalRoom(Room):
    """A directory with the target ``t`` in it."""

    passive = True

    def __init__(self, folder: str, make: Callable[[str, Ops], Backend], ops: Ops) -> None:
        self.folder, self._make, self._plain = folder, make, ops
        self.url = self.target = os.path.join(folder, TARGET)
        self.root = folder  # of the paths that the calls get
        self._processes: dict[int, FaultOps] = {}

    def ops(self, process: Injector | None) -> Ops:
        """The calls of one process."""
        if process is None:
            return self._plain
        known = self._processes.get(id(process))
        if known is None:
            known = self._processes[id(process)] = FaultOps(self._plain, process, root=self.root)
        return known

    def open(self, process: Injector | None = None) -> Backend:
        return self._make(self.folder, self.ops(process))

    def lose_locks(self, process: Injector) -> None:
        known = self._processes.get(id(process))
        if known is not None:
            known.lose_locks()

    def read(self) -> Tree:
        return read_folder(self.target)

    def leftovers(self) -> list[str]:
        return leftovers_of(self.folder)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def leftovers_of(folder: str) -> list[str]:
    """What lies in a room's folder beside the target and the receipts that stay."""
    found = [name for name in os.listdir(folder) if name != TARGET]
    control = os.path.join(folder, _CONTROL)
    if os.path.isdir(control):
        below = [
            os.path.relpath(os.path.join(where, name), folder)
            for where, folders, files in os.walk(control)
            for name in [*files, *([] if folders or files else ["."])]
        ]
        # Receipts of ids that callers chose stay for good.
        found = [n for n in found if n != _CONTROL]
        found += [n for n in below if not n.startswith(os.path.join(_CONTROL, "done", "k-"))]
    return sorted(found)


def read_folder(path: str) -> Tree:
    """All files below a directory; empty directories do not count; one file is the path ``""``."""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            return {"": file.read()}
    found: Tree = {}
    for where, folders, files in os.walk(path):
        folders[:] = [f for f in folders if f != _CONTROL]
        for name in files:
            full = os.path.join(where, name)
            with open(full, "rb") as file:
                found[os.path.relpath(full, path).replace(os.sep, "/")] = file.read()
    return found


# --- memory -----------------------------------------------------------------------------------------


class MemorySubject(Subject):
    """Plain targets in the memory of this process."""

    strategy = "memory"
    processes = False

    def __init__(self, url: str, *, name: str = "memory", **options: Any) -> None:
        if options:
            raise UsageError(f"memory:// takes no options, got {', '.join(sorted(options))}")
        self.name, self.url = name, url
        self._top = f"{url.rstrip('/')}/fstx-conformance-{secrets.token_hex(4)}"
        self._count = 0

    def room(self) -> MemoryRoom:
        self._count += 1
        return MemoryRoom(f"{self._top}/r{self._count}")

    def close(self) -> None:
        store = open_store(self._top)
        store.delete([info.key for info in store.list("")])


class MemoryRoom(Room):
    """A prefix in memory."""

    passive = True

    def __init__(self, url: str) -> None:
        self._top = url
        self.url = f"{url}/{TARGET}"

    def open(self, process: Injector | None = None) -> Backend:
        return registry.backend([self.url], joined=False)

    def read(self) -> Tree:
        return read_store(open_store(self.url))

    def leftovers(self) -> list[str]:
        keys = [info.key for info in open_store(self._top).list("")]
        return [k for k in keys if not k.startswith(f"{TARGET}/")]

    def close(self) -> None:
        store = open_store(self._top)
        store.delete([info.key for info in store.list("")])


def read_store(store: Store) -> Tree:
    """All objects below a store's root but the library's own."""
    keys = [i.key for i in store.list("") if _CONTROL not in i.key.split("/")]
    return {key: store.get(key) for key in keys}


# --- datasets: tx:: on anything -----------------------------------------------------------------------


class DatasetSubject(Subject):
    """Datasets of the ``tx::`` view on any storage; read through a fresh `Dataset`."""

    seam = "store"
    strategy = "manifest"

    def __init__(self, url: str, *, name: str = "tx", cost: float = 0.0, **options: Any) -> None:
        self.name, self.url, self._options = name, url, options
        inner = url.split("::", 1)[1]
        self.processes = registry.scheme_of(inner) != "memory"
        self._top = f"{inner.rstrip('/')}/fstx-conformance-{secrets.token_hex(4)}"
        self.cost = cost or _COSTS.get(registry.scheme_of(inner), 1.0)
        self._count = 0
        self._promises: dict[Any, Guarantee] = {}

    @property
    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def room(self) -> DatasetRoom:
        self._count += 1
        room = DatasetRoom(f"{self._top}/r{self._count}", self._options, listed=self.cost > _NEAR)
        room.promises = self._promises if self.cost > _NEAR else None
        return room

    def on_disk(self) -> OnDisk | None:
        if registry.scheme_of(self._top) not in ("file", "local"):
            return None
        from fstx_conformance.subjects.datadisks import DatasetOnDisk

        return DatasetOnDisk(**self._options)

    def close(self) -> None:
        _clear(self._top, self._options)


class DatasetRoom(Room):
    """A dataset of its own."""

    passive = True

    def __init__(self, url: str, options: dict[str, Any], *, listed: bool = False) -> None:
        self._inner, self._options = url, options
        self.url = f"tx::{url}"
        self._contents: Contents | None = {} if listed else None

    def open(self, process: Injector | None = None) -> Backend:
        with seams.under(layers(process)):
            return registry.backend([self.url], joined=False, **self._options)

    def dataset(self) -> Dataset:
        """The dataset, known to nobody else in this process."""
        return Dataset(open_store(self._inner, **self._options).below(_CONTROL))

    def objects(self) -> Store:
        """All that lies there, to be read once; a later look needs another one."""
        store = open_store(self._inner, **self._options)
        return store if self._contents is None else ListedStore(store, self._contents)

    def read(self) -> Tree:
        return read_dataset(Dataset(self.objects().below(_CONTROL)))

    def recover(self, process: Injector | None = None) -> Recovery:
        backend: Any = self.open(process)
        found: Recovery = backend.recover(idle_s=0.0)
        return found

    def leftovers(self) -> list[str]:
        found = self.objects().below(_CONTROL)
        store = open_store(self._inner, **self._options).below(_CONTROL)
        return unreached(Dataset(found), found) + open_uploads(store)

    def close(self) -> None:
        _clear(self._inner, self._options)


def read_dataset(dataset: Dataset) -> Tree:
    """All files of the newest version; nothing where there is no dataset."""
    if not dataset.exists():
        return {}
    return {p: dataset.read(e) for p, e in dataset.view().items() if not e.directory}


def unreached(dataset: Dataset, store: Store) -> list[str]:
    """Staged objects that no version needs."""
    keys = [info.key for info in store.list("data/")]
    if not keys or not dataset.exists():
        return keys
    needed: set[str] = set()
    for version in range(1, dataset.refresh().head.seq + 1):
        with contextlib.suppress(FileNotFoundError):
            needed |= {entry.key for _, entry in dataset.view(version).items()}
    return [key for key in keys if key not in needed]


def open_uploads(store: Store) -> list[str]:
    """Uploads that were begun and neither completed nor aborted; they are aborted by this."""
    if not isinstance(store, Tidies):
        return []
    count = store.tidy(-60.0)
    return [f"{count} open uploads or temporary files"] if count else []


def _clear(url: str, options: dict[str, Any]) -> None:
    with contextlib.suppress(FileNotFoundError):
        store = open_store(url, **options)
        store.delete([info.key for info in store.list("")])
    if registry.scheme_of(url) in ("file", "local"):
        shutil.rmtree(url.removeprefix("file://").removeprefix("local://"), ignore_errors=True)


# --- plain targets of object stores -------------------------------------------------------------------


class PlainSubject(Subject):
    """Plain targets of an object store, readable with nothing of ours."""

    seam = "store"
    strategy = "plain"

    def __init__(self, url: str, *, name: str, **options: Any) -> None:
        self.name, self.url, self._options = name, url, options
        self._top = f"{url.rstrip('/')}/fstx-conformance-{secrets.token_hex(4)}"
        self.cost = _PLAIN * _COSTS[registry.scheme_of(url)]
        self._count = 0
        self._promises: dict[Any, Guarantee] = {}

    @property
    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def room(self) -> PlainRoom:
        self._count += 1
        room = PlainRoom(f"{self._top}/r{self._count}", self._options)
        room.promises = self._promises
        return room

    def close(self) -> None:
        _clear(self._top, self._options)


class PlainRoom(Room):
    """A prefix with the target ``t`` in it."""

    passive = True

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._top, self._options = url, options
        self.url = f"{url}/{TARGET}"
        self._contents: Contents = {}

    def objects(self) -> Store:
        """All that lies there, to be read once; a later look needs another one."""
        return ListedStore(open_store(self._top, **self._options), self._contents)

    def open(self, process: Injector | None = None) -> Backend:
        with seams.under(layers(process)):
            return registry.backend([self.url], joined=False, late_s=0.0, **self._options)

    def read(self) -> Tree:
        return read_store(self.objects().below(TARGET))

    def recover(self, process: Injector | None = None) -> Recovery:
        with seams.under(layers(process)):
            backend = registry.backend(
                [self.url], joined=False, late_s=0.0, lease_s=0.0, **self._options
            )
        return backend.recover()

    def leftovers(self) -> list[str]:
        objects = self.objects()
        found = []
        for info in objects.list(f"{_CONTROL}/data/"):
            if not info.key.endswith("/=gone"):  # tells workers of the dead; goes after a day
                found.append(info.key)
        found += [i.key for i in objects.list("") if i.key.split("/")[0] not in (TARGET, _CONTROL)]
        return found + open_uploads(open_store(self._top, **self._options))

    def close(self) -> None:
        _clear(self._top, self._options)
