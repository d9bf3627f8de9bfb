"""Datasets in a store that somebody brings for a scheme of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fstx import seams
from fstx.backends.base import storage_errors
from fstx.backends.manifest.backend import ManifestBackend
from fstx.backends.manifest.conflicts import Policy
from fstx.backends.manifest.dataset import Dataset, marked_above
from fstx.backends.manifest.resolve import dataset_at
from fstx.backends.manifest.several import OneTarget, names_in
from fstx.errors import PathError
from fstx.paths import CONTROL_NAME
from fstx.protocol import Backend
from fstx.stores import Store


def backend_over(
    store: Store, paths: Sequence[str], *, joined: bool = False, policy: Policy = "rebase"
) -> Backend:
    """The backend of targets in a store: what an entry point of ``fstx.backends`` returns.

    A target lies in the nearest dataset at or above its path. Where there is none it becomes one itself; a
    file, and several targets, get one in the directory that holds them.

    Parameters
    ----------
    store
        The whole storage; paths are below its root.
    paths
        Of the targets, as the URLs name them.
    joined
        As the entry point is told: paths of the transaction begin with the targets' last names.
    policy
        As for `ManifestBackend`.

    Raises
    ------
    PathError
        A path that can't be a target, or joined targets that don't lie beside each other.
    """
    top: Store = seams.around_store(store)
    places = [path.strip("/") for path in paths]
    for place in places:
        if CONTROL_NAME in place.casefold().split("/"):
            raise PathError(f"{place!r} lies in {CONTROL_NAME}/, which is the library's own")
    if not joined or places == [""]:
        dataset, prefix, _ = _nearest(top, places[0])
        return ManifestBackend(
            dataset, prefix=prefix, policy=policy, target=_target(top, places[0])
        )
    parent, names = names_in(places)
    if len(places) == 1:
        return _OneOf(top, places[0], names[0], policy)
    dataset, prefix, _ = _nearest(top, parent)
    return ManifestBackend(dataset, prefix=prefix, roots=names, policy=policy)


def _target(top: Store, path: str) -> str:
    return f"{top.url.rstrip('/')}/{path}".rstrip("/")


def _nearest(top: Store, path: str) -> tuple[Dataset, str, bool]:
    with storage_errors(f"looking for a dataset at or above {_target(top, path)} failed"):
        for marked in marked_above(top, path):
            return dataset_at(top, marked), path[len(marked) :].strip("/"), True
    return dataset_at(top, path), "", False


class _OneOf(OneTarget):
    """One target in a store, a file or a tree: a file's dataset is that of its directory."""

    def __init__(self, top: Store, path: str, name: str, policy: Policy) -> None:
        super().__init__(path, name, None, {}, policy)
        self._top = top

    def __repr__(self) -> str:
        return f"<target {_target(self._top, self._url)}>"

    def _find(self, path: str) -> tuple[Dataset, str, bool]:
        return _nearest(self._top, path)

    def _plain(self) -> Any:
        dataset, prefix, _ = self._find(self._parent)
        return ManifestBackend(dataset, prefix=prefix, roots=(self._name,), policy=self._policy)


__all__ = ["backend_over"]
