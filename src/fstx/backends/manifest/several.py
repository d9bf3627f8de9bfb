"""``tx::`` targets that were given as a list: where their dataset is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fstx.backends.manifest.backend import ManifestBackend
from fstx.backends.manifest.dataset import Dataset
from fstx.backends.manifest.resolve import TxUrl, find
from fstx.errors import PathError
from fstx.protocol import Backend, Transaction
from fstx.types import Capability, Durability, Guarantee, Mode, OutcomeState, Recovery

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_several(
    parts: Sequence[TxUrl], own: dict[str, Any], storage: dict[str, Any], policy: Any
) -> Backend:
    """The backend of targets whose paths begin with their last names.

    One target is its own dataset, unless one lies above it; several lie in the dataset above them or in one
    that is made at their common parent.
    """
    urls = [f"{p.target}/{p.inner}" if p.inner else p.target for p in parts]
    parent, names = names_in(urls)
    root = own.get("root") or (parts[0].target if parts[0].rooted else None)
    if len(urls) == 1:
        return OneTarget(urls[0], names[0], root, storage, policy)
    dataset, prefix, _ = find(parent, storage, root=root)
    return ManifestBackend(dataset, prefix=prefix, roots=names, policy=policy)


def names_in(urls: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The place that all targets lie in, and their last names."""
    split = [u.rstrip("/").rpartition("/") for u in urls]
    names = tuple(name for _, _, name in split)
    if len({parent for parent, _, _ in split}) > 1:
        raise PathError(
            f"targets of one transaction in a dataset lie beside each other; got {', '.join(urls)}. "
            "Begin on the dataset above them"
        )
    if len(set(names)) != len(names):
        raise PathError(f"targets of one transaction need different names, got {list(names)}")
    return split[0][0], names


class OneTarget:
    """One target that may be a file or a tree: which, is told by its entry.

    A file with no dataset above it is a plain object, written whole: no log, no marker.
    """

    tells_who_lives = False

    def __init__(
        self, url: str, name: str, root: str | None, storage: dict[str, Any], policy: Any
    ) -> None:
        self._url = url
        self._name = name
        self._root = root
        self._storage = storage
        self._policy = policy

    def __repr__(self) -> str:
        return f"<target tx::{self._url}>"

    def _backend(self, entry: str | None) -> Backend:
        if entry != self._name:
            dataset, prefix, _ = self._find(self._url)
            return ManifestBackend(
                dataset, prefix=prefix, roots=(self._name,), policy=self._policy, strip=self._name
            )
        dataset, prefix, marked = self._find(self._parent)
        if marked or self._root is not None:
            return ManifestBackend(dataset, prefix=prefix, roots=(self._name,), policy=self._policy)
        return self._plain()

    def guarantee(
        self, *, mode: Mode, durability: Durability, entry: str | None = None
    ) -> Guarantee:
        """What is promised here."""
        return self._backend(entry).guarantee(mode=mode, durability=durability, entry=entry)

    def begin(
        self,
        *,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability],
        entry: str | None = None,
        id: str | None = None,
    ) -> Transaction:
        """Begin on the dataset, or on the plain object."""
        return self._backend(entry).begin(
            mode=mode, durability=durability, require=require, entry=entry, id=id
        )

    def depots(self, entry: str | None = None, /) -> Any:
        """Where unfinished jobs of this target are kept."""
        found: Any = self._backend(entry)
        return found.depots(entry)

    def recover(self) -> Recovery:
        """Settle what dead writers left, whether it was to be a dataset or a plain object."""
        found = self._backend(None)
        assert isinstance(found, ManifestBackend)
        report = found.recover()  # also of a first writer, who left no marker
        return report if found.dataset.exists() else self._plain().recover()

    def outcome(self, id: str, /) -> OutcomeState:
        """What became of a transaction, whether it was to be a dataset or a plain object."""
        found = self._backend(None).outcome(id)
        return found if found is not OutcomeState.UNKNOWN else self._plain().outcome(id)

    @property
    def _parent(self) -> str:
        return self._url.rpartition("/")[0]

    def _find(self, url: str) -> tuple[Dataset, str, bool]:
        return find(url, self._storage, root=self._root)

    def _plain(self) -> Backend:
        return plain_backend([self._url], self._storage)


def plain_backend(urls: Sequence[str], storage: dict[str, Any]) -> Backend:
    """The backend of the same targets in the plain view."""
    found = _SCHEME.match(urls[0])
    scheme = found[1].lower() if found else "file"
    module = {"file": "local", "local": "local", "memory": "memory"}.get(scheme, "plain")
    made: Backend = import_module(f"fstx.backends.{module}").open_backend(
        urls, joined=True, **storage
    )
    return made
