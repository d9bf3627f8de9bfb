"""Scenes: transactions that every backend can run, with what is there before and after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fstx.types import Mode
from fstx_conformance.subjects.base import Tree


@dataclass(frozen=True)
class Scene:
    """One transaction.

    ``index``: the path by which readers enter; what it lists, one path a line, must be there with what the
    tree of that generation holds. Without one the whole tree counts.
    """

    name: str
    old: Tree
    new: Tree
    work: Callable[[Any], object]
    mode: Mode = "update"
    index: str | None = None
    id: str | None = None
    profiles: frozenset[str] = frozenset({"quick", "standard", "exhaustive"})
    durability: str = "data"

    def begin(self) -> dict[str, Any]:
        """Arguments for `begin`."""
        return {"mode": self.mode, "entry": self.index, "id": self.id}

    def shown(self, tree: Tree) -> Tree | None:
        """What a reader who enters by the index finds; None: the index names what is not there."""
        if self.index is None:
            return tree
        if self.index not in tree:
            return {}
        paths = tree[self.index].decode().split()
        if any(path not in tree for path in paths):
            return None
        return {path: tree[path] for path in [self.index, *paths]}


def stage_all(files: Tree, *, publisher: str | None = None) -> Callable[[Any], object]:
    """Work that stages these files, in order."""

    def work(tx: Any) -> None:
        for path, data in files.items():
            tx.stage(path, data, publisher=path == publisher)

    return work


def text(name: str, size: int = 40) -> bytes:
    """A content that tells its name."""
    return (f"{name} " * (size // (len(name) + 1) + 1)).encode()[:size]


BIG = 5000  # larger than what stores keep inside records


def _old() -> Tree:
    return {
        "a": text("old a"),
        "b": text("old b", BIG),
        "gone/x": text("old x"),
        "gone/y": text("old y", BIG),
        "keep": text("kept"),
    }


def _update(tx: Any) -> None:
    tx.stage("a", text("new a"))
    tx.stage("b", text("new b", BIG))
    tx.stage("c/d", text("new d"))
    tx.remove("gone")


def _streamed(tx: Any) -> None:
    for name in ("s", "deep/t"):
        with tx.open(name) as file:
            for part in range(4):
                file.write(text(f"{name} {part}", BIG))


def _retaken(tx: Any) -> None:
    tx.stage("a", text("first try"))
    tx.remove("keep")
    tx.stage("a", text("second try"))


def tiles(generation: int, count: int = 4) -> Tree:
    """Tiles of a generation under names of their own, and the index that lists them."""
    parts = {f"g{generation}/{i}": text(f"tile {generation}.{i}", 200) for i in range(count)}
    return {**parts, "index": "\n".join(parts).encode()}


def _switch(tx: Any) -> None:
    stage_all(tiles(2))(tx)
    tx.remove("g1")


_NEW = {"a": text("new a"), "n/b": text("new b", BIG), "n/c": text("new c")}
_STREAM = {
    name: b"".join(text(f"{name} {part}", BIG) for part in range(4)) for name in ("s", "deep/t")
}

SCENES: dict[str, Scene] = {
    scene.name: scene
    for scene in (
        Scene("create", {}, _NEW, stage_all(_NEW), mode="create"),
        Scene(
            "update",
            _old(),
            {
                "a": text("new a"),
                "b": text("new b", BIG),
                "c/d": text("new d"),
                "keep": text("kept"),
            },
            _update,
        ),
        Scene("replace", _old(), _NEW, stage_all(_NEW), mode="replace"),
        Scene("index", tiles(1), tiles(2), _switch, index="index"),
        Scene("create index", {}, tiles(1), stage_all(tiles(1)), mode="create", index="index"),
        Scene(
            "keyed",
            _old(),
            {**_old(), "a": text("new a")},
            stage_all({"a": text("new a")}),
            id="job 7",
        ),
        Scene(
            "streamed",
            {"s": text("old s")},
            _STREAM,
            _streamed,
            profiles=frozenset({"standard", "exhaustive"}),
        ),
        Scene(
            "retaken",
            {"a": text("old a"), "keep": text("kept")},
            {"a": text("second try")},
            _retaken,
            profiles=frozenset({"standard", "exhaustive"}),
        ),
        Scene(
            "many",
            {},
            {f"d{i % 3}/f{i}": text(f"file {i}") for i in range(36)},
            stage_all({f"d{i % 3}/f{i}": text(f"file {i}") for i in range(36)}),
            mode="create",
            profiles=frozenset({"exhaustive"}),
        ),
    )
}

FRESH = {"fresh/z": text("fresh")}
"""What the next transaction adds, to show that the place works again."""

EMPTY: Tree = {}

__all__ = ["BIG", "EMPTY", "FRESH", "SCENES", "Scene", "stage_all", "text", "tiles"]
