"""Targets by path in a store that somebody brings: which dataset each lies in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx import seams
from fstx.backends.manifest import backend_over
from fstx.errors import PathError
from fstx.protocol import Backend
from fstx.stores import Info, Store
from fstx.stores.memory import MemoryStore
from fstx.stores.opening import open_store
from fstx.types import OutcomeState

ALL: dict[str, Any] = {"durability": "data", "require": frozenset()}


@pytest.fixture
def top() -> Iterator[Store]:
    """A store that is empty before and after."""
    store = open_store("memory://over")
    yield store
    store.delete([info.key for info in store.list("")])


def put(backend: Backend, path: str, **options: Any) -> None:
    """One transaction with one object."""
    with backend.begin(mode="update", **ALL, **options) as tx:
        tx.stage(path, path.encode())


def markers(store: Store) -> list[str]:
    """The roots of all datasets."""
    ends = "/.fstx/dataset.json"
    keys = [f"/{info.key}" for info in store.list("")]
    return [k.removesuffix(ends).strip("/") for k in keys if k.endswith(ends)]


def held(backend: Any) -> list[str]:
    """The paths of a dataset's newest version."""
    return [path for path, entry in backend.dataset.view().items() if not entry.directory]


def test_a_target_is_a_dataset_of_its_own(top: Store) -> None:
    """Protects neighbours: two targets beside each other share nothing."""
    for path in ("a/one", "/a/two/"):
        put(backend_over(top, [path]), "x")
    assert markers(top) == ["a/one", "a/two"]


def test_a_target_below_a_dataset_lies_in_it(top: Store) -> None:
    """Protects transactions over parts: inside of a dataset targets are paths of it, also several at once."""
    put(backend_over(top, ["a"]), "x")
    put(backend_over(top, ["a/b/c"]), "y")
    put(backend_over(top, ["a/b/d", "a/b/e"], joined=True), "d/z")
    put(backend_over(top, ["a/b/f.npy"], joined=True), "f.npy", entry="f.npy")
    assert markers(top) == ["a"]
    assert held(backend_over(top, ["a"])) == ["b/c/y", "b/d/z", "b/f.npy", "x"]


def test_a_file_gets_a_dataset_in_its_directory(top: Store) -> None:
    """Protects files: a file can't be a dataset; a tree is one, whichever call it is named in."""
    put(backend_over(top, ["a/f.npy"], joined=True), "f.npy", entry="f.npy")
    assert markers(top) == ["a"]
    put(backend_over(top, ["b/t.zarr"], joined=True), "t.zarr/zarr.json")
    assert markers(top) == ["a", "b/t.zarr"]
    assert held(backend_over(top, ["b/t.zarr"])) == ["zarr.json"]


def test_several_targets_get_one_in_the_directory_that_holds_them(top: Store) -> None:
    """Protects what is published together: one log, so one record."""
    put(backend_over(top, ["a/b", "a/c"], joined=True), "c/x")
    assert markers(top) == ["a"]


def test_the_root_of_the_store_can_be_a_target(top: Store) -> None:
    """Protects stores that are one dataset: begun and recovered by the store's own name."""
    put(backend_over(top, [""]), "x")
    assert markers(top) == [""]
    assert not backend_over(top, ["/"], joined=True).recover()


@pytest.mark.parametrize("entry", [None, "f"])
def test_what_a_dead_first_writer_staged_is_found(top: Store, entry: str | None) -> None:
    """Protects recovery: by the target's name alone, with no marker yet, whether it was a tree or a file."""
    tx = backend_over(top, ["a/f"], joined=True).begin(mode="update", **ALL, entry=entry)
    tx.stage("f" if entry else "f/x", bytes(1 << 20))
    staged = [info.key for info in top.list("") if "/data/" in info.key]
    assert len(staged) == 1
    del tx
    seams.end_of_process()
    store: Any = top
    store._fs.store[f"{store._root}/{staged[0]}"].modified = datetime(2001, 1, 1, tzinfo=UTC)
    backend = backend_over(top, ["a/f"], joined=True)
    assert [s.state for s in backend.recover().settled] == [OutcomeState.ABORTED]
    assert not [info for info in top.list("") if "/data/" in info.key]


def test_targets_that_can_not_be(top: Store) -> None:
    """Protects the library's own directory; calls that name no one place are refused before a write."""
    for paths in (["a/.fstx/x"], ["a/.FSTX"]):
        with pytest.raises(PathError, match="library's own"):
            backend_over(top, paths)
    with pytest.raises(PathError, match="beside each other"):
        backend_over(top, ["a/x", "b/y"], joined=True)
    with pytest.raises(PathError, match="different names"):
        backend_over(top, ["a/x", "a/x"], joined=True)
    assert list(top.list("")) == []


def test_a_layer_under_it_sees_the_calls(top: Store) -> None:
    """Protects tests with faults: what stands between backends and storage stands here, too."""
    calls: list[str] = []

    class Layer(MemoryStore):
        def info(self, key: str, /) -> Info | None:
            calls.append(key)
            return super().info(key)

    inner: Any = top
    with seams.under(seams.Layers(store=lambda store: Layer(inner._root, inner._fs))):
        backend_over(top, ["a"])
    assert calls == ["a/.fstx/dataset.json", ".fstx/dataset.json"]


def test_recover_by_the_name_of_a_tx_target_finds_a_dead_first_writer(tmp_path: Path) -> None:
    """Protects recovery through ``tx::``, too: `recover` names the target that `begin` was given."""
    url = f"tx::{tmp_path}/cube"
    tx = fstx.begin(url)
    tx.stage("x", bytes(1 << 20))
    assert tx.read("x", 0, 1) == b"\0"  # it is there now
    data = tmp_path / "cube" / ".fstx" / "data"
    staged = [path for path in data.rglob("*") if path.is_file()]
    assert len(staged) == 1
    del tx
    seams.end_of_process()
    os.utime(staged[0], (0, 0))
    assert [s.state for s in fstx.recover(url).settled] == [OutcomeState.ABORTED]
    assert not staged[0].exists()
