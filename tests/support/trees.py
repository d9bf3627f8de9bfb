"""Directory trees as dictionaries, for comparison in tests."""

from __future__ import annotations

import os
from pathlib import Path

Tree = dict[str, bytes]


def plant(root: Path, files: Tree) -> None:
    """Write files below `root`; a name that ends in ``/`` is an empty directory."""
    for name, data in files.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def tree(root: Path) -> Tree:
    """All that lies below `root`: contents of files, empty directories with ``/`` behind, links."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        place = Path(folder)
        rest = place.relative_to(root).as_posix() if place != root else ""
        if rest and not folders and not files:
            found[rest + "/"] = b""
        for name in files:
            path = place / name
            key = f"{rest}/{name}" if rest else name
            found[key] = (
                b"-> " + os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            )
        for name in folders:
            if (place / name).is_symlink():
                key = f"{rest}/{name}" if rest else name
                found[key] = b"-> " + os.readlink(place / name).encode()
    return found


def without_receipts(found: Tree) -> Tree:
    """Without the receipts that keyed transactions leave for good."""
    return {k: v for k, v in found.items() if "/.fstx/done/k-" not in "/" + k}
