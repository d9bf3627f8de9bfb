"""Places that arrays are written to in tests: each kind of storage behind one name."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec

from fstx.ops.windows import WindowsOps
from support.killer import KillerOps
from support.trees import Tree, tree
from support.winsim import SimDisk

PLACES = ("memory", "local", "local without exchange", "simulated windows")


class Target:
    """A fresh directory of one kind of storage."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.base = f"memory://{uuid.uuid4().hex}" if kind == "memory" else str(folder)
        self._disk = SimDisk(str(folder)) if kind == "simulated windows" else None

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"

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
