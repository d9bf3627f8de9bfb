"""Places for tests of ``tx::``: a fresh target in memory or on disk, and looks at what lies in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from fstx.filesystem import TxFileSystem

if "tx" not in fsspec.available_protocols():  # not installed with its entry point
    fsspec.register_implementation("tx", TxFileSystem)

KINDS = ("memory", "file")


def fresh(kind: str, folder: Path) -> str:
    """The URL of a target that is not there yet."""
    if kind == "memory":
        return f"memory://t-{uuid.uuid4().hex}/ds"
    return (folder / "ds").as_uri()


def drop(url: str) -> None:
    """Forget what a test left in memory."""
    if url.startswith("memory://"):
        top = "/" + url.removeprefix("memory://").partition("/")[0]
        for name in [n for n in list(MemoryFileSystem.store) if n.startswith(top + "/")]:
            del MemoryFileSystem.store[name]
        MemoryFileSystem.pseudo_dirs[:] = [
            d for d in MemoryFileSystem.pseudo_dirs if d != top and not d.startswith(top + "/")
        ]


def targets(kind: str, folder: Path) -> Iterator[str]:
    """For a fixture: a target, dropped afterwards."""
    url = fresh(kind, folder)
    yield url
    drop(url)


def opened(url: str, **options: Any) -> tuple[Any, str]:
    """File system and path of a ``tx`` URL."""
    fs, path = fsspec.core.url_to_fs(url, **options)
    return fs, path


def commits(url: str) -> int:
    """The newest version of a target's dataset: how many commits it has had."""
    fs, path = opened("tx::" + url)
    place = fs._session.places.at(path)
    return 0 if place.dataset is None else int(place.dataset.refresh().version)


def content(url: str) -> dict[str, bytes]:
    """All files of a target's dataset, by path."""
    fs, path = opened("tx::" + url)
    if not fs.isdir(path):
        return {}
    return {name[len(path) :].strip("/"): fs.cat_file(name) for name in fs.find(path)}


def leftovers(url: str) -> list[str]:
    """Objects that are staged, or left behind, in the target's control directory."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    found = fs.find(f"{path}/.fstx/data") if fs.isdir(f"{path}/.fstx/data") else []
    return sorted(found)
