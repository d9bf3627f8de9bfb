r"""Paths beyond the 260 characters of Windows.

wine takes them in any form. So that they work on Windows too, every call with such a path must name it in
the form that has no limit, ``\\?\C:\...``; the tests look at what the calls are given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import fstx
from wine.suite.programs import Disk

LIMIT = 247  # a directory must leave room for a file of 12 characters
LOOKING = ("stat", "lstat", "access", "readlink")  # without audit events


class Calls:
    """Long paths that a call was given in the limited form."""

    def __init__(self) -> None:
        self.on = False
        self.seen = 0
        self.bad: list[tuple[str, str]] = []

    def note(self, call: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or not call.startswith(("open", "os.")):
            return
        for path in (a for a in arguments if isinstance(a, str) and len(a) > LIMIT):
            self.seen += 1
            if not path.startswith("\\\\?\\"):
                self.bad.append((call, path))


CALLS = Calls()
sys.addaudithook(CALLS.note)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """All calls of this process from here on."""

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def look(path: Any, *rest: Any, **named: Any) -> Any:
            CALLS.note(f"os.{name}", (path,))
            return call(path, *rest, **named)

        return look

    for name in LOOKING:
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    CALLS.seen, CALLS.bad, CALLS.on = 0, [], True
    yield CALLS
    CALLS.on = False


def deep(tmp_path: Path) -> Path:
    """A directory with a path of 200 characters."""
    left = 199 - len(str(tmp_path))
    assert left > 0
    place = tmp_path / ("d" * left)
    place.mkdir()
    return place


LONG = "/".join(["e" * 60] * 3)


def test_staging_is_longer_than_the_target(calls: Calls, tmp_path: Path) -> None:
    """A target within the limit is written, though its staging area lies beyond it."""
    place = deep(tmp_path)
    with fstx.begin(place / "t", mode="create") as tx:
        tx.stage("s/a", b"A")
        with tx.open("b") as file:
            file.write(b"B")
    with fstx.begin(place / "t", mode="update") as tx:
        tx.stage("s/a", b"C")
        assert tx.read("b") == b"B"
    assert calls.seen > 50
    assert calls.bad == []
    calls.on = False
    assert Disk(place).found() == {"t/s/a": b"C", "t/b": b"B"}


@pytest.mark.parametrize("mode", ["create", "update", "replace"])
def test_long_targets(mode: Any, calls: Calls, tmp_path: Path) -> None:
    """Files and targets beyond the limit, in each mode; also a rollback and a recovery of them."""
    place = deep(tmp_path) / ("g" * 60)
    if mode != "create":
        with fstx.begin(place / "t", mode="create") as tx:
            tx.stage(f"{LONG}/a", b"1")
    with pytest.raises(RuntimeError), fstx.begin(place / "t", mode=mode) as tx:
        tx.stage(f"{LONG}/a", b"2")
        raise RuntimeError
    with fstx.begin(place / "t", mode=mode) as tx:
        tx.stage(f"{LONG}/a", b"3")
    fstx.recover(place / "t")
    assert calls.seen > 50
    assert calls.bad == []
    calls.on = False
    assert (place / "t" / LONG / "a").read_bytes() == b"3"


def test_long_objects(calls: Calls, tmp_path: Path) -> None:
    """Objects of a dataset with versions beyond the limit."""
    url = f"tx::{deep(tmp_path).as_posix()}/t"
    for data in (b"1", b"x" * (5 << 20)):
        with fstx.begin(url) as tx:
            tx.stage(f"{LONG}/a", data)
    fs, path = fsspec.core.url_to_fs(url)
    assert fs.cat_file(f"{path}/{LONG}/a") == data
    fstx.dataset(url).collect(1, older_than_s=0, dry_run=False)
    assert calls.seen > 20
    assert calls.bad == []
