"""Subjects of third parties' schemes: whatever a package registered."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fstx import registry, seams
from fstx.backends.manifest.dataset import Dataset
from fstx.errors import UsageError
from fstx.ops import Ops
from fstx.protocol import Backend
from fstx.types import Recovery
from fstx_conformance.injector import Injector
from fstx_conformance.seams.ops import FaultOps
from fstx_conformance.seams.store import FaultStore
from fstx_conformance.subjects.base import Room, Seam, Subject, Tree
from fstx_conformance.subjects.disks import OnDisk, SchemeOnDisk
from fstx_conformance.subjects.urls import TARGET, read_dataset, unreached


class SchemeSubject(Subject):
    """A scheme that a package registered. What seam its storage goes through is found out.

    What readers find is read through fsspec where that knows the scheme and the backend writes plain
    objects; else through the dataset of a `ManifestBackend`; else through a transaction that is given up.
    """

    strategy = "of its own"

    def __init__(self, url: str, *, name: str, cost: float = 2.0, **options: Any) -> None:
        self.name, self.url, self._options, self.cost = name, url, options, cost
        self._top = f"{url.rstrip('/')}/fstx-conformance-{secrets.token_hex(4)}"
        self._count = 0
        self.seam = self._find_seam()
        found = self._open(f"{self._top}/seam").guarantee(mode="create", durability="data")
        self.strategy = found.strategy or self.strategy

    @property
    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def _find_seam(self) -> Seam:
        with looking() as used:
            self._versioned = versioned(self._open, [f"{self._top}/seam", f"{self._top}/other"])
        return used[0] if used else "none"

    def _open(self, url: str) -> Backend:
        return registry.backend([url], joined=False, **self._options)

    def on_disk(self) -> OnDisk | None:
        scheme, slashes, path = self.url.partition("://")
        if self.seam != "ops" or not slashes or not path.startswith("/"):
            return None
        return SchemeOnDisk(scheme, self._options)

    def room(self) -> SchemeRoom:
        self._count += 1
        url = f"{self._top}/r{self._count}/{TARGET}"
        return SchemeRoom(url, self._options, versioned=self._versioned)


@contextmanager
def looking() -> Iterator[list[Seam]]:
    """The seams that backends which are opened within the block go through."""
    used: list[Seam] = []

    def seen(kind: Seam) -> Callable[[Any], Any]:
        def layer(inner: Any) -> Any:
            used.append(kind)
            return inner

        return layer

    with seams.under(seams.Layers(store=seen("store"), ops=seen("ops"))):
        yield used


def versioned(make: Callable[[str], Backend], urls: Sequence[str]) -> bool:
    """Whether a third party's targets are datasets.

    Raises
    ------
    UsageError
        Two targets lie in one dataset: the rooms would not be apart, and what is cleared away would be more
        than the suite made.
    """
    datasets = [getattr(make(url), "dataset", None) for url in urls]
    found = [d for d in datasets if isinstance(d, Dataset)]
    if len({d.identity for d in found}) < len(found):
        raise UsageError(
            f"{' and '.join(urls)} lie in one dataset, {found[0].url}; each target needs one of its own. "
            "Name a place outside of any dataset, or let `make` look at the URL that it is given"
        )
    return bool(found)


class SchemeRoom(Room):
    """A target of a third party's scheme.

    Attributes
    ----------
    dataset
        Where targets are datasets: gives that of the room, known to nobody else in this process.
    """

    dataset: Callable[[], Dataset]

    def __init__(self, url: str, options: dict[str, Any], *, versioned: bool) -> None:
        self.url, self._options = url, options
        self._ops: dict[int, list[FaultOps]] = {}
        if versioned:
            self.dataset = lambda: Dataset(self._dataset().store)

    def make(self) -> Backend:
        """The backend, with nothing under it."""
        return registry.backend([self.url], joined=False, **self._options)

    def open(self, process: Injector | None = None) -> Backend:
        if process is None:
            return self.make()
        known = self._ops.setdefault(id(process), [])

        def over(ops: Ops) -> FaultOps:
            known.append(FaultOps(ops, process))
            return known[-1]

        under = seams.Layers(store=lambda store: FaultStore(store, process), ops=over)
        with seams.under(under):
            return self.make()

    def lose_locks(self, process: Injector) -> None:
        for ops in self._ops.get(id(process), ()):
            ops.lose_locks()

    def _dataset(self) -> Any:
        return getattr(self.open(), "dataset", None)

    def read(self) -> Tree:
        known = self._dataset()
        if isinstance(known, Dataset):
            return read_dataset(Dataset(known.store))
        tx = self.begin()
        try:
            return {path: tx.read(path) for path in tx.paths()}
        finally:
            tx.rollback()

    def recover(self, process: Injector | None = None) -> Recovery:
        backend: Any = self.open(process)
        if isinstance(getattr(backend, "dataset", None), Dataset):
            found: Recovery = backend.recover(idle_s=0.0)
            return found
        plain: Recovery = backend.recover()
        return plain

    def leftovers(self) -> list[str]:
        known = self._dataset()
        if isinstance(known, Dataset):
            return unreached(Dataset(known.store), known.store)
        return []

    def close(self) -> None:
        known = self._dataset()
        if isinstance(known, Dataset):
            known.store.delete([info.key for info in known.store.list("")])


__all__ = ["SchemeRoom", "SchemeSubject", "looking", "versioned"]
