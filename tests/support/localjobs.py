"""Transactions of the local backend, each with the disk before and after it, for fault injection."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fstx.backends.local import LocalBackend
from fstx.types import Mode

Files = dict[str, bytes]


class Place:
    """A directory that targets lie in, and backends over its operating-system calls."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root

    def ops(self, **faults: Any) -> Any:
        """The calls of one process, with faults."""
        raise NotImplementedError

    def backend(self, *names: str, joined: bool = False, **faults: Any) -> LocalBackend:
        paths = [str(self.root / n) for n in names]
        return LocalBackend(paths, joined=joined, ops=self.ops(**faults))

    def put(self, files: Files) -> None:
        for name, data in files.items():
            path = self.root / name
            if name.endswith("/"):
                path.mkdir(parents=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def found(self) -> Files:
        """All that lies on the disk; a directory counts where it is empty or the library's own."""
        found: Files = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_file():
                found[name] = path.read_bytes()
            elif not any(path.iterdir()) or path.name == ".fstx":
                found[name + "/"] = b""
        return found


@dataclass(frozen=True)
class Job:
    """A transaction, with what lies on the disk before and after it."""

    old: Files
    new: Files
    write: Files
    remove: tuple[str, ...] = ()
    mode: Mode = "replace"
    names: tuple[str, ...] = ("t",)
    joined: bool = False
    also: tuple[Files, ...] = field(default=())  # other states that a kill may leave

    def run(self, place: Place, *, fail: bool = False, **faults: Any) -> Any:
        backend = place.backend(*self.names, joined=self.joined, **faults)
        with backend.begin(mode=self.mode, durability="data", require=frozenset()) as tx:
            for path, data in self.write.items():
                tx.stage(path, data)
            for path in self.remove:
                tx.remove(path)
            if fail:
                raise RuntimeError("stop")
        return tx

    def recover(self, place: Place, **faults: Any) -> Any:
        return place.backend(*self.names, joined=self.joined, **faults).recover()


JOBS = {
    "new tree": Job(
        old={"other": b"o"},
        new={"other": b"o", "t/a": b"A", "t/s/b": b"B"},
        write={"a": b"A", "s/b": b"B"},
        mode="create",
    ),
    "replaced tree": Job(
        old={"t/a": b"1", "t/s/c": b"2"},
        new={"t/a": b"A", "t/s/b": b"B"},
        write={"a": b"A", "s/b": b"B"},
    ),
    "empty target": Job(
        old={"t/": b""},
        new={"t/a": b"A"},
        write={"a": b"A"},
        mode="create",
        also=({},),  # between the removal of the empty directory and the rename
    ),
    "several files": Job(
        old={"t/a": b"1", "t/s/b": b"2", "t/r": b"3", "t/keep": b"4"},
        new={"t/a": b"A", "t/s/b": b"B", "t/n": b"N", "t/keep": b"4"},
        write={"a": b"A", "s/b": b"B", "n": b"N"},
        remove=("r",),
        mode="update",
    ),
    "one file": Job(old={"f": b"1"}, new={"f": b"F"}, write={"f": b"F"}, names=("f",), joined=True),
    "two targets": Job(
        old={"t/a": b"1", "u": b"2"},
        new={"t/a": b"A", "u": b"U"},
        write={"t/a": b"A", "u": b"U"},
        names=("t", "u"),
        joined=True,
    ),
}
