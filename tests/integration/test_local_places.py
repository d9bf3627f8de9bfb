"""Where local transactions live: modes, inner control directories, parents, several targets, ids."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx.backends.local import LocalBackend, probe
from fstx.backends.local.transaction import LocalTransaction
from fstx.errors import StateError
from fstx.types import Capability, OutcomeState
from support.killer import Killed, KillerOps
from support.trees import plant, tree


@pytest.fixture
def umask() -> Iterator[Any]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("mask", "file", "folder"),
    [(0o022, 0o644, 0o755), (0o002, 0o664, 0o775), (0o077, 0o600, 0o700)],
)
def test_modes_follow_umask(tmp_path: Path, umask: Any, mask: int, file: int, folder: int) -> None:
    """A34: new files and directories get what umask gives, however they were staged."""
    umask(mask)
    with fstx.begin(tmp_path / "new" / "t") as tx:
        tx.stage("a", b"A")
        with tx.open("d/e/b") as out:
            out.write(b"B")
        tx.adopt([tx.stager().stage("c", b"C")])
    with fstx.begin([tmp_path / "new" / "f"]) as tx:
        tx.stage("f", b"F")
    new = tmp_path / "new"
    assert {mode(new / p) for p in ("t/a", "t/c", "t/d/e/b", "f")} == {file}
    assert {mode(new / p) for p in (".", "t", "t/d", "t/d/e")} == {folder}


def test_group_of_a_shared_parent(tmp_path: Path, umask: Any) -> None:
    """A34: below a setgid directory new content belongs to its group, directories pass that on."""
    shared = tmp_path / "shared"
    shared.mkdir()
    try:
        os.chown(shared, -1, 12345)
    except PermissionError:
        os.chown(shared, -1, os.getgroups()[-1])
    shared.chmod(0o2775)
    umask(0o002)
    with fstx.begin(shared / "t") as tx:
        tx.stage("d/a", b"A")
        control = (shared / ".fstx").stat()
        assert (control.st_gid, stat.S_IMODE(control.st_mode)) == (shared.stat().st_gid, 0o2775)
    for path in ("t", "t/d", "t/d/a"):
        assert (shared / path).stat().st_gid == shared.stat().st_gid, path
    assert mode(shared / "t" / "d") == 0o2775


def killed(root: Path, names: list[str], write: dict[str, bytes], at: str, **options: Any) -> str:
    """Kill a transaction at the first call whose name and path contain `at`; its id."""
    probe._seen.clear()
    stopped: list[KillerOps] = []

    def act(name: str, path: str) -> None:
        if at in f"{name} {path}":
            stopped[0].die()
            raise Killed(path)

    stopped.append(KillerOps(act=act))
    joined = options.pop("joined", False)
    backend = LocalBackend([str(root / n) for n in names], joined=joined, ops=stopped[0])
    arguments = {"mode": "update", "durability": "data", "require": frozenset(), **options}
    tx = backend.begin(**arguments)
    with pytest.raises(Killed), tx:
        for path, data in write.items():
            tx.stage(path, data)
    return tx.id


@pytest.fixture
def mortal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process runs no finalizers."""
    monkeypatch.delattr(LocalTransaction, "__del__")


@pytest.mark.usefixtures("mortal")
def test_recover_settles_at_and_in_a_directory(tmp_path: Path) -> None:
    """recover("out"): what was interrupted beside out and what was interrupted in it; outcome as well."""
    plant(tmp_path, {"out/u/a": b"1"})
    beside = killed(tmp_path, ["out"], {"x": b"X", "y/z": b"Z"}, "commit.tmp -> ")
    decided = killed(tmp_path, ["out/u"], {"a": b"A", "b": b"B"}, "replace_file")
    for txid, state in [
        (decided, OutcomeState.PENDING),
        (beside, OutcomeState.ABORTED),
    ]:
        assert fstx.outcome(tmp_path / "out", txid) is state
    report = fstx.recover(tmp_path / "out")
    assert {s.txid: s.state for s in report.settled} == {
        decided: OutcomeState.COMMITTED,
        beside: OutcomeState.ABORTED,
    }
    assert tree(tmp_path) == {"out/u/a": b"A", "out/u/b": b"B"}
    assert not fstx.recover(tmp_path / "out")


@pytest.mark.usefixtures("mortal")
def test_begin_settles_what_was_interrupted_inside(tmp_path: Path) -> None:
    """A24: a new writer of a directory first settles writers that died in it."""
    plant(tmp_path, {"out/u/a": b"1"})
    killed(tmp_path, ["out/u"], {"a": b"A", "b": b"B"}, "replace_file")
    with fstx.begin(tmp_path / "out") as tx:
        assert tx.read("u/a") == b"A"
        assert list(tx.paths()) == ["u/a", "u/b"]
    assert tree(tmp_path) == {"out/u/a": b"A", "out/u/b": b"B"}


@pytest.mark.usefixtures("mortal")
@pytest.mark.parametrize("asked", ["p/t", "q/u", "q/other"])
def test_any_parent_leads_to_recovery(tmp_path: Path, asked: str) -> None:
    """I7: recovery started at any of the parents settles the whole, and leaves nothing in either."""
    plant(tmp_path, {"p/t/a": b"1", "q/u": b"2"})
    txid = killed(tmp_path, ["p/t", "q/u"], {"t/a": b"A", "u": b"U"}, "replace_file", joined=True)
    assert fstx.outcome(tmp_path / asked, txid) is OutcomeState.PENDING
    report = fstx.recover(tmp_path / asked)
    assert [(s.txid, s.state) for s in report.settled] == [(txid, OutcomeState.COMMITTED)]
    assert tree(tmp_path) == {"p/t/a": b"A", "q/u": b"U"}


def test_staging_of_others_is_not_listed(tmp_path: Path) -> None:
    """Nothing staged is seen through another transaction: control directories are no content."""
    plant(tmp_path, {"out/u/a": b"1"})
    with fstx.begin(tmp_path / "out" / "u") as inner, fstx.begin(tmp_path / "out") as outer:
        inner.stage("secret", b"s")
        assert list(outer.paths()) == ["u/a"]


def test_parents_are_made_and_unmade(tmp_path: Path) -> None:
    """A4: missing parents come with the transaction and go with it."""
    for end in ("rollback", "raise", "guarantee", "refused"):
        target = tmp_path / "a" / "b" / "t"
        if end == "guarantee":
            fstx.guarantee(target)
        elif end == "refused":
            with pytest.raises(fstx.CapabilityError):
                fstx.begin(target, require="SNAPSHOTS")
        elif end == "rollback":
            tx = fstx.begin(target)
            tx.stage("x", b"x")
            tx.rollback()
        else:
            with pytest.raises(RuntimeError, match="stop"), fstx.begin(target) as tx:
                tx.stage("x", b"x")
                raise RuntimeError("stop")
        assert os.listdir(tmp_path) == [], end
    with fstx.begin(target) as tx:
        tx.stage("x", b"x")
    assert tree(tmp_path) == {"a/b/t/x": b"x"}


def test_a_transaction_with_nothing_in_it(tmp_path: Path) -> None:
    """Nothing staged: nothing changes, nothing is left; a replacement by nothing is refused."""
    plant(tmp_path, {"t/a": b"1"})
    with (
        pytest.raises(fstx.StateError, match="nothing was staged"),
        fstx.begin(tmp_path / "t", mode="replace", id="r"),
    ):
        pass
    for number, kind in enumerate(("update", "create")):
        target = tmp_path / ("t" if kind != "create" else "n")
        with fstx.begin(target, mode=kind, id=f"id{number}" if number else None) as tx:  # type: ignore[arg-type]
            pass
        assert tx.snapshot is not None
        assert tx.snapshot.paths == 0
        assert kind != "update" or "nothing" in tx.snapshot.reason
    assert {k: v for k, v in tree(tmp_path).items() if "/done/" not in k} == {"t/a": b"1"}


def test_an_id_tells_later_runs(tmp_path: Path) -> None:
    """I5: the second run learns that it is committed; staging then is refused with the way out."""
    for run in range(3):
        with fstx.begin(tmp_path / "t", id="job", mode="create") as tx:
            assert tx.committed == (run > 0)  # type: ignore[attr-defined]
            if not tx.committed:  # type: ignore[attr-defined]
                tx.stage("a", b"A")
            else:
                with pytest.raises(StateError, match=r"test tx\.committed first"):
                    tx.stage("a", b"B")
        assert fstx.outcome(tmp_path / "t", "job") is OutcomeState.COMMITTED
    assert (tmp_path / "t" / "a").read_bytes() == b"A"
    assert fstx.outcome(tmp_path / "t", "another") is OutcomeState.UNKNOWN


def test_an_id_of_an_aborted_run_begins_anew(tmp_path: Path) -> None:
    """I5: a rolled-back run is forgotten: the id may be used again."""
    with pytest.raises(RuntimeError), fstx.begin(tmp_path / "t", id="job") as tx:
        assert fstx.outcome(tmp_path / "t", "job") is OutcomeState.ACTIVE
        raise RuntimeError
    with fstx.begin(tmp_path / "t", id="job") as tx:
        tx.stage("a", b"A")
    assert (tmp_path / "t" / "a").read_bytes() == b"A"


def test_removals(tmp_path: Path) -> None:
    """Removed files and trees go at commit and not before; what is staged beneath comes instead."""
    plant(tmp_path, {"t/a": b"1", "t/d/x": b"2", "t/d/y": b"3", "t/k": b"4", "t/e/z": b"5"})
    with fstx.begin(tmp_path / "t") as tx:
        tx.remove("d")
        tx.stage("d", b"now a file")
        tx.remove("a")
        tx.stage("a/b", b"now a tree")
        tx.remove("e")
        tx.stage("e/new", b"N")
        tx.stage("gone", b"")
        tx.remove("gone")
        with pytest.raises(FileNotFoundError, match="never"):
            tx.remove("never")
        assert list(tx.paths()) == ["a/b", "d", "e/new", "k"]
        assert tx.read("d") == b"now a file"
        assert len(tree(tmp_path / "t")) == 5
    assert tree(tmp_path) == {
        "t/d": b"now a file", "t/a/b": b"now a tree", "t/k": b"4", "t/e/new": b"N",
    }  # fmt: skip


def test_file_targets(tmp_path: Path) -> None:
    """A list of targets: a new file, a replaced file, a tree, a removed file, in one commit."""
    plant(tmp_path, {"old": b"1", "gone": b"2", "tree/a": b"3"})
    names = ["new", "old", "gone", "tree"]
    with fstx.begin([tmp_path / n for n in names]) as tx:
        tx.stage("new", b"N")
        tx.stage("old", b"O")
        tx.remove("gone")
        tx.stage("tree/b", b"B")
        with pytest.raises(fstx.PathError, match="none of the targets"):
            tx.stage("other", b"x")
    assert tree(tmp_path) == {"new": b"N", "old": b"O", "tree/a": b"3", "tree/b": b"B"}


def test_guarantee_leaves_nothing_and_names_everything(tmp_path: Path) -> None:
    """I1: every capability with its reason; asking changes nothing on disk."""
    plant(tmp_path, {"t/a": b"1"})
    for kind in ("create", "replace", "update"):
        promised = fstx.guarantee(tmp_path / "t", mode=kind)  # type: ignore[arg-type]
        assert {p.capability for p in promised.promises} == set(Capability)
        assert all(p.reason for p in promised.promises)
        assert tree(tmp_path) == {"t/a": b"1"}
    exchange = fstx.guarantee(tmp_path / "t", mode="replace")
    assert {"ATOMIC_SET", "NO_GAP", "DURABLE", "CONFLICT_DETECTED"} <= exchange.capabilities
    backend = LocalBackend([str(tmp_path / "t")], joined=False, ops=KillerOps(exchange=False))
    probe._seen.clear()
    without = backend.guarantee(mode="replace", durability="data")
    probe._seen.clear()
    assert (without.strategy, "NO_GAP" in without) == ("swap", False)


@pytest.mark.parametrize("form", ["str", "Path", "file://", "local://", "relative", "~"])
def test_spellings_of_a_target(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain paths, paths of pathlib, file URLs, relative paths and homes mean the same place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    url: Any = {
        "str": str(tmp_path / "t"), "Path": tmp_path / "t", "file://": f"file://{tmp_path}/t",
        "local://": f"local://{tmp_path}/t", "relative": "t", "~": "~/t",
    }[form]  # fmt: skip
    with fstx.begin(url) as tx:
        tx.stage("a", b"A")
    assert tree(tmp_path) == {"t/a": b"A"}


def test_upath(tmp_path: Path) -> None:
    """UPath, local and memory, is a URL like any other."""
    upath = pytest.importorskip("upath")
    with fstx.begin(upath.UPath(tmp_path / "t")) as tx:
        tx.stage("a", b"A")
    assert tree(tmp_path) == {"t/a": b"A"}
