"""One transaction over targets on different storages: all old or all new, from a kill anywhere (I7)."""

from __future__ import annotations

import itertools
import pickle
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest

import fstx
from fstx.stores.opening import open_store
from support.killer import Killed, KillerOps
from support.places import logical
from support.trees import Tree, plant, tree

# a process that was killed runs no finalizer, but the one that plays it does
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

WRITE = {"data/a": b"A", "data/s/b": b"BB", "ds/x": b"X", "index.json": b"{new}"}
OLD: Tree = {"l/data/old": b"o", "l/data/a": b"before", "m/index.json": b"{old}"}
NEW: Tree = {**OLD, "l/data/a": b"A", "l/data/s/b": b"BB", "m/index.json": b"{new}"}
del NEW["l/data/old"]


def _urls(root: Path) -> list[str]:
    return [str(root / "l" / "data"), f"tx::{root}/t/ds", str(root / "m" / "index.json")]


def _run(root: Path, **faults: Any) -> tuple[fstx.TransactionAcross | None, KillerOps, bool]:
    ops = KillerOps(**faults)
    tx = None
    try:
        options: Mapping[str, Any] = {"file": {"ops": ops}}
        with fstx.begin_across(_urls(root), entry="index.json", storage_options=options) as tx:
            for path, data in WRITE.items():
                tx.stage(path, data)
            tx.remove("data/old")
    except Killed:
        return tx, ops, True
    return tx, ops, False


def _plain(root: Path) -> Tree:
    """What plain readers find."""
    return {p: v for p, v in tree(root).items() if ".fstx" not in p and not p.startswith("t/")}


def _dataset(root: Path) -> Tree:
    return logical(str(root / "t"), {}) if (root / "t").exists() else {}


def _leftovers(root: Path) -> list[str]:
    left = [p for p in tree(root) if ".fstx" in p and not p.startswith("t/ds/.fstx")]
    jobs = [p for p in tree(root) if p.startswith("t/ds/.fstx/jobs/") and not p.endswith("/")]
    return [p for p in left + jobs if "/done/" not in p and not p.endswith("/.fstx/")]


def test_all_targets_come(tmp_path: Path) -> None:
    """I7: local directory, versioned dataset, memory and an index: one commit, and nothing is left."""
    memory = f"memory://{uuid.uuid4().hex}/mem"
    plant(tmp_path, OLD)
    with fstx.begin_across([memory, *_urls(tmp_path)], entry="index.json") as tx:
        tx.stage("mem/z", [b"Z", b"ZZ"])
        for path, data in WRITE.items():
            tx.stage(path, data)
        tx.remove("data/old")
        assert sorted(tx.paths()) == sorted([*WRITE, "mem/z"])
        assert tx.read("data/s/b", 1) == b"B"
        assert _plain(tmp_path) == OLD
    assert tx.committed
    assert tx.urls[-1].endswith("index.json")
    assert _plain(tmp_path) == NEW
    assert _dataset(tmp_path) == {"ds/x": b"X"}
    assert fsspec.filesystem("memory").cat_file(memory + "/z") == b"ZZZ"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l", "m", "t"]
    assert _leftovers(tmp_path) == []
    assert [p.name for p in (tmp_path / "l").iterdir()] == ["data"]


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    """A failure before the decision: all targets are as they were, nothing is kept."""
    plant(tmp_path, OLD)
    with (
        pytest.raises(RuntimeError),
        fstx.begin_across(_urls(tmp_path), entry="index.json") as tx,
    ):
        for path, data in WRITE.items():
            tx.stage(path, data)
        raise RuntimeError
    assert _plain(tmp_path) == OLD
    assert _dataset(tmp_path) == {}
    assert _leftovers(tmp_path) == []
    assert not fstx.recover_across(_urls(tmp_path))


def test_a_kill_at_every_call(tmp_path: Path) -> None:
    """I7: killed at every ninth call of its system, and recovered: all targets are old, or all are new."""
    seen = set()
    for k in itertools.count(1, 9):
        root = tmp_path / str(k)
        plant(root, OLD)
        tx, _, killed = _run(root, kill_at=k)
        fstx.recover_across(_urls(root), idle_s=0)
        new = _plain(root) == NEW
        assert _plain(root) == (NEW if new else OLD), k
        assert _dataset(root) == ({"ds/x": b"X"} if new else {}), k
        assert _leftovers(root) == [], k
        if tx is not None and tx.committed:
            assert new, k
        seen.add(new)
        assert not fstx.recover_across(_urls(root), idle_s=0), k
        shutil.rmtree(root)
        if not killed:
            break
    assert seen == {False, True}
    assert k > 60


def test_a_kill_in_recovery(tmp_path: Path) -> None:
    """I7: a second kill, in recovery of a decided transaction, changes nothing of how it ends."""
    plant(tmp_path / "count", OLD)
    _, ops, _ = _run(tmp_path / "count")
    decided = next(n for n, (name, path) in enumerate(ops.calls, 1) if path.endswith("decision"))
    for k in itertools.count(1, 11):
        root = tmp_path / str(k)
        plant(root, OLD)
        _run(root, kill_at=decided + 4)
        ended = True
        try:
            options = {"file": {"ops": KillerOps(kill_at=k)}}
            fstx.recover_across(_urls(root), idle_s=0, storage_options=options)
        except Killed:
            ended = False
        fstx.recover_across(_urls(root), idle_s=0)
        assert _plain(root) == NEW, k
        assert _dataset(root) == {"ds/x": b"X"}, k
        assert _leftovers(root) == [], k
        shutil.rmtree(root)
        if ended:
            assert k > 10
            return


def test_a_coordinator_that_was_given_up_is_fenced(tmp_path: Path) -> None:
    """FENCED: who was taken for dead learns so at commit, and publishes nothing."""
    urls = [f"memory://{uuid.uuid4().hex}/mem", f"tx::{tmp_path}/t/ds"]
    tx = fstx.begin_across(urls)
    tx.stage("ds/x", b"X")
    with pytest.raises(fstx.ConflictError, match="under way"):
        fstx.begin_across(urls)
    (found,) = fstx.recover_across(urls).settled
    assert found.state is fstx.OutcomeState.ACTIVE
    (found,) = fstx.recover_across(urls, idle_s=0).settled
    assert found.state is fstx.OutcomeState.ABORTED
    with pytest.raises(fstx.FencedError, match="given up for dead"):
        tx.commit()
    assert _dataset(tmp_path) == {}


def test_an_abort_counts_before_anything_went(tmp_path: Path) -> None:
    """ACROSS-1: who finds its abort decided publishes nothing, also if whoever decided it died then."""
    plant(tmp_path, OLD)
    tx = fstx.begin_across(_urls(tmp_path), entry="index.json")
    for path, data in WRITE.items():
        tx.stage(path, data)
    home = tx._order[-1].job
    assert home is not None
    assert home.depot.decide(b"abort\n") == b"abort\n"
    with pytest.raises(fstx.FencedError):
        tx.commit()
    assert _plain(tmp_path) == OLD
    assert _dataset(tmp_path) == {}
    assert _leftovers(tmp_path) == []


def test_a_living_coordinator_is_left_alone(tmp_path: Path) -> None:
    """A coordinator on local disk is seen to live, however long it takes."""
    plant(tmp_path, OLD)
    with fstx.begin_across(_urls(tmp_path), entry="index.json") as tx:
        tx.stage("data/a", b"A")
        (found,) = fstx.recover_across(_urls(tmp_path), idle_s=0).settled
        assert (found.txid, found.state) == (tx.id, fstx.OutcomeState.ACTIVE)
    assert (tmp_path / "l" / "data" / "a").read_bytes() == b"A"


def test_decided_is_published_in_spite_of_others(tmp_path: Path) -> None:
    """A target that others changed after the decision is published all the same, by commit itself."""
    plant(tmp_path, OLD)
    with fstx.begin_across(_urls(tmp_path), entry="index.json", mode="replace") as tx:
        tx.stage("data/a", b"A")
        tx.stage("index.json", b"{new}")
        time.sleep(0.01)
        shutil.rmtree(tmp_path / "l" / "data")
        plant(tmp_path, {"l/data/theirs": b"t"})
    assert tx.committed
    assert _plain(tmp_path) == {"l/data/a": b"A", "m/index.json": b"{new}"}


def test_a_storage_that_refuses_is_pending(tmp_path: Path) -> None:
    """After the decision no refusal raises: the snapshot says what is missing, and recovery brings it."""
    plant(tmp_path, OLD)
    ops = KillerOps()
    options = {"file": {"ops": ops}}
    tx = fstx.begin_across(_urls(tmp_path), entry="index.json", storage_options=options)
    for path, data in WRITE.items():
        tx.stage(path, data)

    def act(_name: str, path: str) -> None:
        if "/l/" in path and "/jobs/" not in path:
            raise OSError(28, "No space left on device", path)

    ops.act = act  # the decision is on another target: only publishing meets the full disk
    done = tx.commit()
    assert done.pending
    assert "No space left" in done.reason
    assert tx.commit() is done
    (found,) = fstx.recover_across(_urls(tmp_path), idle_s=0).settled
    assert found.state is fstx.OutcomeState.COMMITTED
    assert _plain(tmp_path) == {**NEW, "l/data/old": b"o"}


def test_bad_calls_are_refused(tmp_path: Path) -> None:
    """Bad input is refused before anything is written, and the message says what to do."""
    a, b = str(tmp_path / "a"), f"tx::{tmp_path}/b"
    for bad, words in (
        ([a], "two targets"),
        (a, "two targets"),
        ([a, f"memory://x/{Path(a).name}"], "last name"),
    ):
        with pytest.raises(fstx.PathError, match=words):
            fstx.begin_across(bad)
    with pytest.raises(fstx.PathError, match="in none of the targets"):
        fstx.begin_across([a, b], entry="c/x")
    with pytest.raises(fstx.PathError, match="no target has that scheme"):
        fstx.begin_across([a, b], storage_options={"s3": {}})
    tx = fstx.begin_across([a, b])
    with pytest.raises(fstx.PathError, match="begin with one of"):
        tx.stage("c/x", b"")
    tx.stage("a/x", b"")
    with pytest.raises(fstx.PathError, match="staged already"):
        tx.stage("a/x", b"")
    with pytest.raises(FileNotFoundError):
        tx.remove("a/nothing")
    with pytest.raises(TypeError):
        pickle.dumps(tx)
    with pytest.raises(fstx.RecoveryError, match="name all of its targets"):
        fstx.recover_across([a, f"memory://{uuid.uuid4().hex}/other"])
    tx.rollback()
    with pytest.raises(fstx.StateError, match="rolled back"):
        tx.stage("a/y", b"")
    assert not (tmp_path / "a").exists()


def test_what_is_promised_is_said(tmp_path: Path) -> None:
    """The guarantee says what readers may see in between, and promises no more than its weakest target."""
    plant(tmp_path, OLD)
    with fstx.begin_across(_urls(tmp_path)) as tx:
        promised = tx.guarantee
        tx.stage("data/a", b"A")
    assert fstx.Capability.RECOVERABLE in promised
    assert fstx.Capability.ATOMIC_SET not in promised
    assert "old and new" in promised[fstx.Capability.ATOMIC_SET].reason
    assert fstx.Capability.CONFLICT_DETECTED not in promised
    assert open_store(str(tmp_path / "l")).get("data/a") == b"A"
