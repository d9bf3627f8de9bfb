"""What lies below a room's backend: its store or calls on files, all that is there, strangers' writes.

None where the kit knows no way: what a third party keeps is its own matter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fstx.backends.local import LocalBackend
from fstx.backends.manifest.dataset import Dataset
from fstx.ops import Ops
from fstx.paths import CONTROL_NAME
from fstx.stores import Store
from fstx.stores.opening import open_store
from fstx_conformance.subjects.base import Room, Tree
from fstx_conformance.subjects.schemes import SchemeRoom
from fstx_conformance.subjects.urls import (
    TARGET,
    DatasetRoom,
    LocalRoom,
    MemoryRoom,
    PlainRoom,
)


def dataset_of(room: Room) -> Dataset | None:
    """The dataset of a room, known to nobody else in this process."""
    if isinstance(room, DatasetRoom):
        return room.dataset()
    if isinstance(room, SchemeRoom):
        known = getattr(room.open(), "dataset", None)
        if isinstance(known, Dataset):
            return Dataset(known.store)
    return None


def store_of(room: Room) -> Store | None:
    """A store of the room in which nothing of its target lies; what is put there goes with the room."""
    if isinstance(room, DatasetRoom):
        return room.dataset().store
    if isinstance(room, PlainRoom):
        return open_store(room._top, **room._options)
    dataset = dataset_of(room)
    return None if dataset is None else dataset.store


def ops_of(room: Room) -> tuple[Ops, str] | None:
    """The calls on files that a room's backend makes, and an existing directory for them."""
    if isinstance(room, LocalRoom):
        return room.ops(None), room.root
    if isinstance(room, SchemeRoom):
        backend: Any = room.open()
        if isinstance(backend, LocalBackend):
            return backend._ops, os.path.dirname(backend._paths[0])
    return None


def listing(room: Room) -> Tree | None:
    """All that is in a room, by name relative to its target's directory: content, control, strangers."""
    if isinstance(room, LocalRoom):
        return _files(room.folder)
    if isinstance(room, MemoryRoom):
        return _objects(open_store(room._top))
    if isinstance(room, PlainRoom):
        return _objects(room.objects())
    if isinstance(room, DatasetRoom):
        found = _objects(room.objects())
        return {f"{TARGET}/{name}": data for name, data in found.items()}
    dataset = dataset_of(room)
    if dataset is None:
        return None
    found = _objects(dataset.store)
    return {f"{TARGET}/{CONTROL_NAME}/{name}": data for name, data in found.items()}


def _objects(store: Store) -> Tree:
    return {info.key: store.get(info.key) for info in store.list("")}


def _files(folder: str) -> Tree:
    found: Tree = {}
    for where, folders, names in os.walk(folder):
        rest = os.path.relpath(where, folder).replace(os.sep, "/")
        prefix = "" if rest == "." else f"{rest}/"
        found.update({f"{prefix}{name}/": b"" for name in folders})
        for name in names:
            with open(os.path.join(where, name), "rb") as file:
                found[prefix + name] = file.read()
    return found


def stranger(room: Room) -> Callable[[str, bytes], None] | None:
    """A program that knows nothing of fstx: it writes a file by its name beside or in the target."""
    if isinstance(room, LocalRoom):
        folder = room.folder

        def write(name: str, data: bytes) -> None:
            path = os.path.join(folder, *name.split("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)

        return write
    if isinstance(room, MemoryRoom):
        store = open_store(room._top)
    elif isinstance(room, PlainRoom):
        store = open_store(room._top, **room._options)
    else:
        return None
    return lambda name, data: store.put(name, data)


def holder(room: Room) -> Callable[[], Tree] | None:
    """A reader that holds the version that is now the newest; each call reads all of it."""
    dataset = dataset_of(room)
    if dataset is None:
        return None
    view = dataset.view()
    return lambda: {p: dataset.read(e) for p, e in view.items() if not e.directory}


def versions(room: Room) -> list[Tree] | None:
    """Every version that a fresh reader can read, oldest first."""
    dataset = dataset_of(room)
    if dataset is None:
        return None
    found = []
    for number in range(1, dataset.refresh().head.seq + 1):
        try:
            view = dataset.view(number)
        except FileNotFoundError:
            continue
        found.append({p: dataset.read(e) for p, e in view.items() if not e.directory})
    return found


__all__ = ["dataset_of", "holder", "listing", "ops_of", "store_of", "stranger", "versions"]
