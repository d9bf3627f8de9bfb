"""Places that arrays are written to in tests: each kind of storage behind one name."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec

from fstx.backends.manifest import Dataset
from fstx.ops.windows import WindowsOps
from fstx.stores.opening import open_store
from support.killer import KillerOps
from support.trees import Tree, tree
from support.winsim import SimDisk

PLACES = (
    "memory",
    "local",
    "local without exchange",
    "simulated windows",
    "tx over memory",
    "tx over local",
)


def logical(url: str, options: dict[str, Any]) -> Tree:
    """What readers through ``tx::`` find: plain objects, and the newest version of each dataset."""
    store = open_store(url, **options)
    keys = [info.key for info in store.list("")]
    found = {k: store.get(k) for k in keys if ".fstx" not in k.split("/")}
    for key in keys:
        root, marker, _ = f"/{key}".rpartition("/.fstx/dataset.json")
        if not marker:
            continue
        dataset = Dataset(store.below(f"{root}/.fstx".strip("/")))
        for path, entry in dataset.view().items():
            found[f"{root}/{path}".strip("/")] = dataset.read(entry)
    return found


class Target:
    """A fresh directory of one kind of storage."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        in_memory = kind in ("memory", "tx over memory")
        self.base = f"memory://{uuid.uuid4().hex}" if in_memory else str(folder)
        self._disk = SimDisk(str(folder)) if kind == "simulated windows" else None

    def url(self, name: str) -> str:
        return f"{'tx::' if self.kind.startswith('tx') else ''}{self.base}/{name}"

    @property
    def options(self) -> dict[str, Any]:
        """Storage options: a new process over the same disk each time."""
        if self.kind == "local without exchange":
            return {"ops": KillerOps(exchange=False)}
        if self._disk is not None:
            process = self._disk.process()
            return {"ops": WindowsOps(process, sleep=lambda _s: None, jitter=lambda: 0.5)}
        return {}

    def found(self) -> Tree:
        """All files that lie there, the library's own too."""
        if self.kind.startswith("tx"):
            return logical(self.base, {})
        if self.kind != "memory":
            return tree(self.folder)
        root = "/" + self.base.removeprefix("memory://") + "/"
        fs = fsspec.filesystem("memory")
        return {p.removeprefix(root): fs.cat_file(p) for p in fs.find(root)}

    def fetch(self, into: Path) -> Path:
        """A folder of this system with the same files, for readers of files."""
        for name, data in self.found().items():
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return into
