"""Which sync comes when, seen by a recorder of the calls (H8, EFFECT-2, EFFECT-3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fstx.backends.local import LocalBackend, probe
from fstx.backends.local.staging import HELD_FILES
from fstx.types import Capability
from support.killer import KillerOps
from support.trees import plant, tree

Call = tuple[str, str]


@pytest.fixture(autouse=True)
def _ask_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_seen", {})


def calls_of(
    root: Path,
    write: dict[str, bytes],
    remove: tuple[str, ...] = (),
    *,
    syncfs: bool = True,
    durability: Any = "data",
    mode: Any = "update",
    id: str | None = None,
) -> list[Call]:
    """The changing calls from staging on, and paths relative to `root`."""
    ops = KillerOps()
    backend = LocalBackend([str(root / "t")], joined=False, ops=ops, syncfs=syncfs)
    with backend.begin(mode=mode, durability=durability, require=frozenset(), id=id) as tx:
        area = tx._area
        for path, data in write.items():
            tx.stage(path, data)
        for path in remove:
            tx.remove(path)
    return [(name, path.replace(area, "AREA").replace(str(root), "P")) for name, path in ops.calls]


def first(calls: list[Call], name: str, part: str) -> int:
    return next(i for i, (n, p) in enumerate(calls) if n == name and part in p)


def last(calls: list[Call], name: str, part: str) -> int:
    return len(calls) - 1 - first(calls[::-1], name, part)


def test_order_of_a_redo(tmp_path: Path) -> None:
    """H8: contents, directories bottom-up, record, renames, parents; each before the next."""
    plant(tmp_path, {"t/a": b"1", "t/d/e/x": b"2", "t/keep": b"3"})
    calls = calls_of(tmp_path, {"a": b"A", "d/e/y": b"Y", "n/m/k": b"K"}, ("d/e/x",))
    contents = last(calls, "sync_file", "/a/")
    assert contents < calls.index(("sync_dir", "AREA/s/0/n/m"))
    record = first(calls, "rename", "AREA/commit.tmp -> AREA/commit")
    before = calls[:record]
    # The directory that staged files were moved out of, after the last of them was.
    assert last(calls, "rename", "AREA/a/") < before.index(("sync_dir", "AREA/a"))
    for folder in (
        "AREA/s/0/n/m",
        "AREA/s/0/n",
        "AREA/s/0/d/e",
        "AREA/s/0",
        "AREA/s",
        "AREA",
        "P/.fstx",
        "P",
    ):
        assert ("sync_dir", folder) in before, folder
    positions = [
        before.index(("sync_dir", f))
        for f in ("AREA/s/0/n/m", "AREA/s/0/n", "AREA/s/0", "AREA/s", "AREA", "P/.fstx", "P")
    ]
    assert positions == sorted(positions)
    assert ("sync_file", "AREA/commit.tmp") in before
    move = min(first(calls, "replace_file", "-> P/t/a"), first(calls, "rename", "-> P/t/n"))
    assert record < calls.index(("sync_dir", "AREA"), record) < move
    done = last(calls, "rename", "AREA/o")
    retire = first(calls, "rename", ".trash")
    for folder in ("P/t", "P/t/d/e", "AREA"):
        assert ("sync_dir", folder) in calls[done:retire], folder
    assert ("sync_dir", "P/.fstx") in calls[retire:]
    assert "P/.fstx" not in tree(tmp_path)


def test_order_of_a_new_tree(tmp_path: Path) -> None:
    """RENAME-1, RENAME-8: the plan after the contents, the parent synced after the rename."""
    calls = calls_of(tmp_path, {"a": b"A", "s/b": b"B"}, mode="create", id="job")
    plan = first(calls, "rename", "AREA/plan.tmp")
    move = first(calls, "rename_new", "-> P/t")
    assert last(calls, "sync_file", "/a/") < plan < move
    receipt = first(calls, "replace_file", "done/")
    retire = first(calls, "rename", ".trash")
    assert ("sync_dir", "P") in calls[move:receipt]
    assert move < receipt < retire
    assert ("sync_dir", "P/.fstx/done") in calls[receipt:retire]


def test_fast_mode_syncs_nothing(tmp_path: Path) -> None:
    """H8: durability 'none' makes no sync call at all, from begin to the end, and says so."""
    plant(tmp_path, {"t/a": b"1"})
    for number, id in enumerate([None, "job"]):
        calls = calls_of(tmp_path, {"a": b"A", f"n{number}/b": b"B"}, durability="none", id=id)
        assert not [c for c in calls if c[0].startswith("sync")]
    ops = KillerOps()
    backend = LocalBackend(
        [str(tmp_path / "p" / "t"), str(tmp_path / "q" / "u")], joined=True, ops=ops
    )
    with backend.begin(mode="create", durability="none", require=frozenset()) as tx:
        tx.stage("t/a", b"A")
        tx.stage("u", b"U")
    assert not [c for c in ops.calls if c[0].startswith("sync")]
    promised = backend.guarantee(mode="update", durability="none")
    assert Capability.DURABLE not in promised
    assert "loss of power" in promised[Capability.DURABLE].reason


@pytest.mark.parametrize("extra", [0, 1])
def test_syncfs_from_thirty_two_files(extra: int, tmp_path: Path) -> None:
    """design.md 8: up to 31 files are synced one by one, from 32 on one syncfs covers all."""
    files = {f"f{n}": b"x" for n in range(HELD_FILES + extra)}
    calls = calls_of(tmp_path, files, mode="create")
    assert HELD_FILES + 1 == 32
    assert sum(c[0] == "sync_fs" for c in calls) == extra
    each = sum(c[0] == "sync_file" and "/a/" in c[1] for c in calls)
    assert each == (0 if extra else HELD_FILES)
    if extra:
        assert first(calls, "sync_fs", "") < first(calls, "rename", "plan.tmp")


def test_syncfs_forbidden(tmp_path: Path) -> None:
    """syncfs=False: each file is synced as it is written, before it is adopted."""
    files = {f"f{n}": b"x" for n in range(40)}
    calls = calls_of(tmp_path, files, mode="create", syncfs=False)
    assert not [c for c in calls if c[0] == "sync_fs"]
    assert sum(c[0] == "sync_file" and "/a/" in c[1] for c in calls) == 40
    for n, (name, path) in enumerate(calls):
        if name == "rename" and "/a/" in path:
            source = path.partition(" -> ")[0]
            assert ("sync_file", source) in calls[:n]


def test_worker_copy_syncs_what_it_writes(tmp_path: Path) -> None:
    """A pickled stager holds nothing until commit: it syncs as it writes, in durable mode alone."""
    import pickle

    for durability, expected in (("data", 1), ("none", 0)):
        ops = KillerOps()
        backend = LocalBackend([str(tmp_path / durability)], joined=False, ops=ops)
        with backend.begin(mode="create", durability=durability, require=frozenset()) as tx:
            stager = pickle.loads(pickle.dumps(tx.stager()))
            stager._ops = ops
            tx.adopt([stager.stage("a", b"A")])
        assert sum(c[0] == "sync_file" and "/a/" in c[1] for c in ops.calls) == expected
        assert (tmp_path / durability / "a").read_bytes() == b"A"
