"""Datasets of the ``tx::`` view on a simulated disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fstx import registry, seams
from fstx.backends.manifest.dataset import Dataset
from fstx.paths import CONTROL_NAME
from fstx.stores.files import Files
from fstx.stores.local import LocalStore
from fstx_conformance.seams.disk import Disk
from fstx_conformance.seams.diskfiles import DiskFiles, DiskStore
from fstx_conformance.subjects.disks import OnDisk
from fstx_conformance.subjects.urls import unreached


class DatasetOnDisk(OnDisk):
    """Datasets over local files; read by a fresh `Dataset`.

    Parameters
    ----------
    over
        Put over the disk's calls: what a broken store leaves out.
    **options
        Of the storage.
    """

    def __init__(
        self, *, over: Callable[[Files], Files] = lambda files: files, **options: Any
    ) -> None:
        self._over = over
        self._options = options

    def open(self, disk: Disk, name: str) -> Any:
        def layer(store: Any) -> Any:
            files = self._over(DiskFiles(disk))
            return DiskStore(store._root, durable=store.durable, files=files)

        url = f"tx::file://{os.path.join(disk.root, name)}"
        with seams.under(seams.Layers(store=layer)):
            return registry.backend([url], joined=False, **self._options)

    def read(self, root: str, name: str) -> dict[str, bytes] | None:
        dataset = Dataset(_store(root, name))
        if not dataset.exists():
            return None
        entries = dataset.view().items()
        return {path: dataset.read(e) for path, e in entries if not e.directory} or None

    def left(self, root: str, targets: tuple[str, ...]) -> list[str]:
        found = [n for n in os.listdir(root) if n not in targets]
        for name in targets:  # temporary files go with age, not with recovery
            store = _store(root, name)
            found += [f"{name}: {key}" for key in unreached(Dataset(store), store)]
        return found

    def recover(self, backend: Any) -> None:
        backend.recover(idle_s=0.0)


def _store(root: str, name: str) -> LocalStore:
    return LocalStore(os.path.join(root, name, CONTROL_NAME))
