"""Acceptance H1, I1, I5 and bad input, for each writer and each storage."""

from __future__ import annotations

import ast
import errno
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fstx
from support.killer import KillerOps
from support.places import PLACES, Target
from support.trees import plant, tree, without_receipts

ROOT = Path(__file__).parents[2]
VALUES = np.arange(40 * 48, dtype="f4").reshape(40, 48)
WRITERS: dict[str, dict[str, Any]] = {
    "o.vrt": {"tile_size": 16, "transform": (0, 1, 0, 40, 0, -1)},
    "o.npy": {},
    "o.zarr": {"chunks": (16, 16)},
    "s.zarr": {"chunks": (8, 8), "shards": (16, 48)},
}
NAMES = pytest.mark.parametrize("name", list(WRITERS))


@pytest.fixture(params=PLACES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    (tmp_path / "place").mkdir()
    return Target(request.param, tmp_path / "place")


# --- writers know no storage ----------------------------------------------------------------------


def _imports(module: str) -> set[str]:
    """Every module that one of ours imports, in functions too; for type checkers alone doesn't count."""
    path = ROOT / "src" / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    parsed = ast.parse(file.read_text())
    for node in ast.walk(parsed):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _ours(name: str) -> bool:
    path = ROOT / "src" / Path(*name.split("."))
    return name != "fstx" and (path.is_dir() or path.with_suffix(".py").exists())


def test_writers_reach_no_storage() -> None:
    """H1: from the layouts, sources, driver, streams and the Zarr store no import leads to a backend, a
    file system or a way to move files; and none asks which backend or strategy it has."""
    folders = [p for f in ("layouts", "sources") for p in (ROOT / "src/fstx" / f).glob("*.py")]
    start = {"fstx." + f"{p.parent.name}.{p.stem}".removesuffix(".__init__") for p in folders}
    todo = start | {"fstx.writing", "fstx.streaming", "fstx.producing", "fstx.zarr_store"}
    seen: set[str] = set()
    outside: set[str] = set()
    while todo:
        module = todo.pop()
        seen.add(module)
        for name in _imports(module):
            if name.startswith("fstx") and _ours(name):
                todo |= {name} - seen
            else:
                outside.add(name.partition(".")[0])
    assert len(seen) > 25
    assert not [name for name in seen if name.startswith(("fstx.backends", "fstx.registry"))]
    assert outside.isdisjoint({"fsspec", "shutil", "tempfile", "pathlib", "s3fs", "obstore"})
    words = ("LocalBackend", "MemoryBackend", ".strategy ", ".strategy)", "strategy ==")
    for module in seen - {"fstx.select", "fstx.types"}:
        path = ROOT / "src" / Path(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert not [word for word in words if word in file.read_text()], module


def test_the_contract_is_checked_by_the_linter_too() -> None:
    """H1: import-linter's contracts name the layers and what layouts and sources may not import."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    by_id = {c["id"]: c for c in contracts["contracts"]}
    assert {"fstx.layouts", "fstx.sources"} <= set(by_id["parts"]["source_modules"])
    assert {"fstx.backends", "fsspec"} <= set(by_id["parts"]["forbidden_modules"])
    assert by_id["layers"]["layers"][0] == "fstx.cli"
    assert "lint_imports" in (ROOT / "noxfile.py").read_text()


# --- promises -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["create", "replace", "update"])
def test_what_is_not_promised_is_refused(mode: Any, target: Target) -> None:
    """I1: every capability is named with its reason; requiring one that is not kept is refused with that
    reason before a byte is written, and what is kept is granted."""
    url = target.url("t")
    promised = fstx.guarantee(url, mode=mode, **target.options)
    assert [p.capability for p in promised.promises] == list(fstx.Capability)
    assert all(p.reason for p in promised.promises)
    assert target.found() == {}
    for capability in fstx.Capability:
        if capability in promised:
            fstx.begin(url, mode=mode, require=capability, **target.options).rollback()
        else:
            with pytest.raises(fstx.CapabilityError, match=capability.value) as caught:
                fstx.begin(url, mode=mode, require=capability, **target.options)
            assert promised[capability].reason.split(";")[0][:20] in str(caught.value)
        assert target.found() == {}
    assert (fstx.Capability.SNAPSHOTS in promised) == target.kind.startswith("tx")


@NAMES
def test_a_key_commits_once(name: str, target: Target) -> None:
    """I5: written twice with one id, and asked for: committed once, the second call says so."""

    def put(values: np.ndarray) -> Any:
        return fstx.write(
            values, target.url(name), id="run", storage_options=target.options, **WRITERS[name]
        )

    first = put(VALUES)
    before = target.found()
    again = put(VALUES + 1)
    assert first.paths == len(without_receipts(before))
    assert (again.paths, again.reason) == (0, "committed before")
    assert target.found() == before
    assert fstx.outcome(target.url(name), "run", **target.options) == "committed"


# --- bad input ------------------------------------------------------------------------------------


@NAMES
@pytest.mark.parametrize("old", [False, True], ids=["first", "replacement"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_storage_that_gives_up(name: str, old: bool, number: int, tmp_path: Path) -> None:
    """A4, A7, H10: no space, no quota, read-only all of a sudden, in the middle of the data: StorageError
    with the system's reason as its cause, what was there stays, nothing is left, a retry works."""
    if old:
        fstx.write(VALUES * 0, tmp_path / name, **WRITERS[name])
    before = tree(tmp_path)
    made = 0

    def give_up(call: str, path: str) -> None:
        nonlocal made
        made += call == "open_new" and "/a/" in path
        if call == "open_new" and "/a/" in path and made >= min(2, limit):
            raise OSError(number, os.strerror(number), path)

    limit = 1 if name == "o.npy" else 2
    ops = KillerOps(act=give_up)
    with pytest.raises(fstx.StorageError, match=os.strerror(number)) as caught:
        fstx.write(
            VALUES, tmp_path / name, overwrite=old, storage_options={"ops": ops}, **WRITERS[name]
        )
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.errno == number
    assert tree(tmp_path) == before
    fstx.write(VALUES, tmp_path / name, overwrite=old, **WRITERS[name])


@NAMES
def test_a_parent_that_is_a_file(name: str, tmp_path: Path) -> None:
    """Bad input: below a file nothing can be written; the file is named and stays."""
    plant(tmp_path, {"file": b"mine"})
    with pytest.raises((fstx.UsageError, fstx.StorageError), match="file"):
        fstx.write(VALUES, tmp_path / "file" / name, **WRITERS[name])
    assert tree(tmp_path) == {"file": b"mine"}


@NAMES
@pytest.mark.parametrize("there", ["{}", "{}/mine"], ids=["file", "folder"])
def test_a_target_that_is_something_else(name: str, there: str, tmp_path: Path) -> None:
    """A19, bad input: a file or a full folder where the output would go is refused, and stays."""
    plant(tmp_path, {there.format(name): b"mine"})
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match=name):
        fstx.write(VALUES, tmp_path / name, **WRITERS[name])
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["o.vrt", "o.npy"])
def test_a_folder_is_not_overwritten_by_a_file(name: str, tmp_path: Path) -> None:
    """Bad input: overwrite=True replaces an output, not a folder of other things; the folder stays."""
    plant(tmp_path, {f"{name}/mine": b"keep"})
    with pytest.raises(fstx.TransactionError, match=name):
        fstx.write(VALUES, tmp_path / name, overwrite=True, **WRITERS[name])
    assert tree(tmp_path) == {f"{name}/mine": b"keep"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "..",
        "a/..",
        "a/.",
        "/",
        "x\x00.npy",
        "nosuch://b/o.npy",
        "o.unknown",
        7,
        b"o.npy",
        None,
    ],
)
def test_urls_that_cannot_be_targets(
    url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad input: refused by name as a UsageError, with nothing made in the current directory."""
    monkeypatch.chdir(tmp_path)
    layout = None if url == "o.unknown" else "npy"
    with pytest.raises(fstx.UsageError) as caught:
        fstx.write(VALUES, url, layout=layout)
    assert len(str(caught.value)) > 15
    assert tree(tmp_path) == {}


def test_what_was_removed_stays_removed(target: Target) -> None:
    """Protects from a file that comes back: removed, staged anew and removed again, it is gone."""
    with fstx.begin(target.url("t"), **target.options) as tx:
        tx.stage("a", b"old")
        tx.stage("b", b"kept")
    with fstx.begin(target.url("t"), **target.options) as tx:
        tx.remove("a")
        tx.stage("a", b"new")
        tx.remove("a")
        assert list(tx.paths()) == ["b"]
    assert target.found() == {"t/b": b"kept"}
