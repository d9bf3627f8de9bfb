"""Storage that refuses: an error at every call that changes something, once and for good."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import pytest

from fstx.backends.local import LocalBackend, probe
from fstx.errors import (
    CommitError,
    InDoubtError,
    StateError,
    StorageError,
    TransactionError,
)
from fstx.types import OutcomeState
from support.killer import KillerOps
from support.trees import Tree, plant, tree, without_receipts

OLD = {"t/a": b"1", "t/s/b": b"2", "t/r/x": b"3", "t/keep": b"4"}
CASES: dict[str, dict[str, Any]] = {
    "redo": {
        "write": {"a": b"A", "s/b": b"B", "n/m": b"N"},
        "remove": ("r",),
        "mode": "update",
        "new": {"t/a": b"A", "t/s/b": b"B", "t/n/m": b"N", "t/keep": b"4"},
    },
    "exchange": {
        "write": {"a": b"A", "s/b": b"B"},
        "mode": "replace",
        "new": {"t/a": b"A", "t/s/b": b"B"},
    },
    "swap": {
        "write": {"a": b"A", "s/b": b"B"},
        "mode": "replace",
        "new": {"t/a": b"A", "t/s/b": b"B"},
        "exchange": False,
    },
    "place": {
        "write": {"a": b"A"},
        "mode": "update",
        "new": {**OLD, "t/a": b"A"},
        "id": "job",
    },
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    return CASES[request.param]


def fresh(fast: Path, number: object) -> Path:
    root = fast / str(number)
    root.mkdir()
    plant(root, OLD)
    probe._seen.clear()
    return root


def run(case: dict[str, Any], root: Path, ops: KillerOps) -> Any:
    """The snapshot, or the error."""
    tx = None
    try:
        backend = LocalBackend([str(root / "t")], joined=False, ops=ops, syncfs=False)
        tx = backend.begin(
            mode=case["mode"], durability="data", require=frozenset(), id=case.get("id")
        )
        with tx:
            for path, data in case["write"].items():
                tx.stage(path, data)
            for path in case.get("remove", ()):
                tx.remove(path)
        return tx, tx.snapshot
    except TransactionError as error:
        return tx, error


def healthy(root: Path) -> LocalBackend:
    return LocalBackend([str(root / "t")], joined=False, ops=KillerOps())


def check(case: dict[str, Any], root: Path, ops: KillerOps, tx: Any, result: Any) -> str:
    """What the result promises is true; returns its kind."""
    where = (len(ops.calls), ops.fail_at, ops.calls[ops.fail_at - 1] if ops.fail_at else "", result)
    found = bare(root)
    known = case.get("id") or (tx.id if tx is not None else "none")
    if isinstance(result, InDoubtError):
        said = healthy(root).outcome(known)
        assert said is not OutcomeState.UNKNOWN, where
        healthy(root).recover()
        found = bare(root)
        expected = case["new"] if said in (OutcomeState.COMMITTED, OutcomeState.PENDING) else OLD
        assert found == expected, where
        return "in doubt"
    if isinstance(result, TransactionError):
        assert isinstance(result, StorageError | CommitError | StateError), where
        assert str(root) in str(result) or "staging" in str(result), where
        assert result.__cause__ is not None, where
        assert {k: v for k, v in found.items() if ".fstx" not in k} == OLD, where
        healthy(root).recover()
        assert bare(root) == OLD, where
        return "aborted"
    if result.pending:
        assert result.reason, where
        assert healthy(root).outcome(known) in (OutcomeState.COMMITTED, OutcomeState.PENDING)
        healthy(root).recover()
        assert bare(root) == case["new"], where
        return "pending"
    assert {k: v for k, v in found.items() if ".fstx" not in k} == case["new"], where
    healthy(root).recover()
    assert bare(root) == case["new"], where
    return "committed"


def bare(root: Path) -> Tree:
    return without_receipts(tree(root))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "for good"])
def test_error_at_every_call(case: dict[str, Any], number: int, sticky: bool, fast: Path) -> None:
    """A refused call ends in old, in new, or in what recovery finishes; and the result says which."""
    kinds: dict[str, int] = {}
    for k in itertools.count(1):
        root = fresh(fast, k)
        ops = KillerOps(fail_at=k, error=number, sticky=sticky, exchange=case.get("exchange", True))
        tx, result = run(case, root, ops)
        if not ops.failed:
            break
        kind = check(case, root, ops, tx, result)
        kinds[kind] = kinds.get(kind, 0) + 1
    assert k > 25
    assert kinds.get("aborted", 0) > 10, kinds
    assert kinds.get("committed", 0) > 2, kinds


def test_error_after_effect(case: dict[str, Any], fast: Path) -> None:
    """A rename that took place and was answered with EIO is judged by what lies where."""
    for k in itertools.count(1):
        root = fresh(fast, k)
        ops = KillerOps(fail_at=k, error=errno.EIO, after=True, exchange=case.get("exchange", True))
        tx, result = run(case, root, ops)
        if not ops.failed and len(ops.calls) < k:
            break
        if ops.failed:
            check(case, root, ops, tx, result)
    assert k > 25


def test_a_passing_trouble_leaves_nothing(case: dict[str, Any], fast: Path) -> None:
    """A4, A7: an aborted run cleans up by itself; only a committed one may leave trash to the next."""
    left = []
    for k in itertools.count(1):
        root = fresh(fast, k)
        ops = KillerOps(fail_at=k, exchange=case.get("exchange", True))
        _, result = run(case, root, ops)
        if not ops.failed:
            break
        if bare(root) not in (OLD, case["new"]):
            left.append((ops.calls[k - 1], result))
    assert 0 < len(left) < 20
    for call, result in left:
        if isinstance(result, TransactionError):
            assert isinstance(result, InDoubtError), call
        elif not result.pending:
            assert call[0] in ("rename", "sync_dir", "release", "lock", "rmdir"), call


def test_failed_sync_is_final(fast: Path) -> None:
    """H8: a failed fsync fails the transaction and is never tried again (the page may be gone)."""
    for syncfs in (True, False):
        root = fresh(fast, syncfs)
        trial = KillerOps()
        backend = LocalBackend([str(root / "t")], joined=False, ops=trial, syncfs=syncfs)
        with backend.begin(mode="update", durability="data", require=frozenset()) as tx:
            tx.stage("a", b"A")
        contents = [
            n for n, c in enumerate(trial.calls, 1) if c[0] == "sync_file" and "/a/" in c[1]
        ]
        assert len(contents) == 1
        ops = KillerOps(fail_at=contents[0], error=errno.EIO)
        again = LocalBackend([str(root / "t")], joined=False, ops=ops, syncfs=syncfs)
        tx = again.begin(mode="update", durability="data", require=frozenset())
        with pytest.raises((StorageError, CommitError)) as caught, tx:
            tx.stage("a", b"B")
        assert ops.failed
        assert isinstance(caught.value.__cause__, OSError)
        if isinstance(caught.value, StorageError):
            assert caught.value.errno == errno.EIO
        assert sum(c[0] == "sync_file" and "/a/" in c[1] for c in ops.calls) == 1
        assert bare(root) == {**OLD, "t/a": b"A"}
