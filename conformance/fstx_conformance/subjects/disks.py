"""Storage on a simulated disk: backends whose every change the disk sees, and readers that bypass them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from fstx import registry, seams
from fstx.backends.local import LocalBackend, native_ops
from fstx.ops import Ops
from fstx.paths import CONTROL_NAME
from fstx_conformance.seams.disk import Disk
from fstx_conformance.seams.diskops import DiskOps


class OnDisk(ABC):
    """One kind of storage that can lie on a simulated disk, in the disk's root."""

    @abstractmethod
    def open(self, disk: Disk, name: str) -> Any:
        """A backend of a new process, for the target `name`."""

    @abstractmethod
    def read(self, root: str, name: str) -> dict[str, bytes] | None:
        """What readers find at a target, the backend being bypassed; None where nothing is."""

    @abstractmethod
    def left(self, root: str, targets: tuple[str, ...]) -> list[str]:
        """What lies beside the targets and does not stay for good, nobody being alive."""

    def recover(self, backend: Any) -> None:
        """Settle what the processes left that ran before the power went."""
        backend.recover()


class LocalOnDisk(OnDisk):
    """Plain targets of `LocalBackend`, or of another backend over `fstx.ops.Ops`.

    Parameters
    ----------
    make
        Backend of these calls, for the target at this path.
    over
        Put over the disk's calls: faults, or what a broken backend leaves out.
    exchange
        False: the disk's file system can't exchange two names.
    """

    def __init__(
        self,
        make: Callable[[Ops, str], Any] | None = None,
        *,
        over: Callable[[Ops], Any] = lambda ops: ops,
        exchange: bool = True,
    ) -> None:
        self._make = make or _local
        self._over = over
        self._exchange = exchange

    def open(self, disk: Disk, name: str) -> Any:
        ops = self._over(DiskOps(disk, native_ops(), exchange=self._exchange))
        return self._make(ops, os.path.join(disk.root, name))

    def read(self, root: str, name: str) -> dict[str, bytes] | None:
        return files_in(os.path.join(root, name))

    def left(self, root: str, targets: tuple[str, ...]) -> list[str]:
        return _left(root, targets)


class SchemeOnDisk(OnDisk):
    """A scheme of a third party's whose backend goes through `fstx.ops.Ops`, and whose URLs end in a path.

    Its layout is its own, so what is there is read through a transaction that is given up.
    """

    def __init__(self, scheme: str, options: dict[str, Any]) -> None:
        self._scheme = scheme
        self._options = options
        self._disk: Disk | None = None

    def open(self, disk: Disk, name: str) -> Any:
        self._disk = disk
        url = f"{self._scheme}://{disk.root}/{name}"
        with seams.under(seams.Layers(ops=lambda ops: DiskOps(disk, ops))):
            return registry.backend([url], joined=False, **self._options)

    def read(self, root: str, name: str) -> dict[str, bytes] | None:
        assert self._disk is not None
        backend = self.open(self._disk, name)
        tx = backend.begin(mode="update", durability="data", require=frozenset())
        try:
            return {path: tx.read(path) for path in tx.paths()} or None
        finally:
            tx.rollback()

    def left(self, root: str, targets: tuple[str, ...]) -> list[str]:
        return []


def _local(ops: Ops, path: str) -> LocalBackend:
    return LocalBackend([path], joined=False, ops=ops)


def files_in(path: str) -> dict[str, bytes] | None:
    """Contents of all files below `path`, empty directories with a slash behind; None where nothing is."""
    if not os.path.lexists(path):
        return None
    found: dict[str, bytes] = {}
    for folder, folders, names in os.walk(path):
        rest = os.path.relpath(folder, path).replace(os.sep, "/")
        prefix = "" if rest == "." else rest + "/"
        if prefix and not folders and not names:
            found[prefix] = b""
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[prefix + name] = file.read()
    return found


def _left(root: str, targets: tuple[str, ...]) -> list[str]:
    """What lies beside the targets and is no receipt."""
    found = []
    for folder, folders, names in os.walk(root):
        if folder == root:
            folders[:] = [f for f in folders if f not in targets]
        rest = os.path.relpath(folder, root)
        if rest == os.path.join(CONTROL_NAME, "done"):
            names = [n for n in names if not n.endswith(".json")]
        elif not folders and not names:
            found.append(rest)
        found += [os.path.join(rest, n) for n in names]
    return sorted(f for f in found if f != ".")
