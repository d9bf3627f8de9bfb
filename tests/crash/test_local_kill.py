"""A kill at every call that changes something, and a second kill at every call of the recovery."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fstx.backends.local import LocalBackend, probe
from fstx.backends.local.transaction import LocalTransaction
from fstx.ops import Ops
from fstx.types import Mode, OutcomeState
from support.killer import Killed, KillerOps
from support.trees import Tree, plant, tree, without_receipts


@dataclass(frozen=True)
class Scene:
    """A transaction, with what lies in the directory before and after it."""

    old: Tree
    new: Tree
    write: Tree
    remove: tuple[str, ...] = ()
    mode: Mode = "update"
    names: tuple[str, ...] = ("t",)
    joined: bool = False
    exchange: bool = True
    id: str | None = None
    durability: Any = "data"
    syncfs: bool = True

    def backend(self, root: Path, ops: Ops) -> LocalBackend:
        targets = [str(root / n) for n in self.names]
        return LocalBackend(targets, joined=self.joined, ops=ops, syncfs=self.syncfs)

    def run(self, root: Path, **faults: Any) -> tuple[LocalTransaction | None, KillerOps, bool]:
        """The transaction if it was begun, its calls, and whether it was killed."""
        ops = KillerOps(exchange=self.exchange, **faults)
        tx = None
        try:
            backend = self.backend(root, ops)
            tx = backend.begin(
                mode=self.mode, durability=self.durability, require=frozenset(), id=self.id
            )
            if not tx.committed:
                with tx:
                    for path, data in self.write.items():
                        tx.stage(path, data, publisher=path.endswith("index"))
                    for path in self.remove:
                        tx.remove(path)
        except Killed:
            return tx, ops, True
        return tx, ops, False

    def recover(self, root: Path, **faults: Any) -> bool:
        """True if it was killed."""
        try:
            self.backend(root, KillerOps(exchange=self.exchange, **faults)).recover()
        except Killed:
            return True
        return False


_OLD = {"t/a": b"1", "t/s/b": b"2", "t/r/x": b"3", "t/keep": b"4"}
SCENES = {
    "new tree": Scene(
        old={"other": b"o"},
        new={"other": b"o", "t/a": b"A", "t/s/b": b"B"},
        write={"a": b"A", "s/b": b"B"},
        mode="create",
    ),
    "empty target": Scene(
        old={"t/": b""}, new={"t/a": b"A", "t/index": b"B"}, write={"index": b"B", "a": b"A"}
    ),
    "several files": Scene(
        old=_OLD,
        new={"t/a": b"A", "t/s/b": b"B", "t/n/m/y": b"N", "t/keep": b"4", "t/index": b"I"},
        write={"index": b"I", "a": b"A", "s/b": b"B", "n/m/y": b"N"},
        remove=("r",),
    ),
    "several files, keyed, each synced": Scene(
        old=_OLD,
        new={**_OLD, "t/a": b"A", "t/s/b": b"B"},
        write={"a": b"A", "s/b": b"B"},
        id="job 7",
        syncfs=False,
    ),
    "tree by exchange": Scene(
        old=_OLD, new={"t/a": b"A", "t/z/b": b"B"}, write={"a": b"A", "z/b": b"B"}, mode="replace"
    ),
    "tree without exchange": Scene(
        old=_OLD,
        new={"t/a": b"A", "t/z/b": b"B"},
        write={"a": b"A", "z/b": b"B"},
        mode="replace",
        exchange=False,
    ),
    "tree without exchange beside an empty one": Scene(
        old={"t/a": b"1", "u/": b""},
        new={"t/b": b"B", "u/c": b"C"},
        write={"t/b": b"B", "u/c": b"C"},
        names=("t", "u"),
        joined=True,
        mode="replace",
    ),
    "one file": Scene(
        old={"f": b"1"}, new={"f": b"F"}, write={"f": b"F"}, names=("f",), joined=True
    ),
    "one file, not durable": Scene(
        old={"f": b"1"},
        new={"f": b"F"},
        write={"f": b"F"},
        names=("f",),
        joined=True,
        durability="none",
    ),
    "one new file, keyed": Scene(
        old={}, new={"f": b"F"}, write={"f": b"F"}, names=("f",), joined=True, id="k", mode="create"
    ),
    "removal alone": Scene(old=_OLD, new={"t/keep": b"4"}, write={}, remove=("a", "s", "r")),
    "two parents": Scene(
        old={"p/t/a": b"1", "p/other": b"o", "q/u": b"2", "q/other": b"o"},
        new={"p/t/a": b"A", "p/t/n": b"N", "p/other": b"o", "q/u": b"U", "q/other": b"o"},
        write={"t/a": b"A", "t/n": b"N", "u": b"U"},
        names=("p/t", "q/u"),
        joined=True,
    ),
    "two parents, one tree replaced": Scene(
        old={"p/t/a": b"1", "q/u": b"2"},
        new={"p/t/b": b"B", "q/u": b"U"},
        write={"t/b": b"B", "u": b"U"},
        names=("p/t", "q/u"),
        joined=True,
        mode="replace",
        id="both",
    ),
}


@pytest.fixture(autouse=True)
def _process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process runs no finalizers; what the place can do is asked for anew by each test."""
    monkeypatch.delattr(LocalTransaction, "__del__")
    monkeypatch.setattr(probe, "_seen", {})


@pytest.fixture(params=list(SCENES))
def scene(request: pytest.FixtureRequest) -> Scene:
    return SCENES[request.param]


def fresh(folder: Path, scene: Scene) -> Path:
    root = folder / "root"
    if root.exists():
        shutil.rmtree(root)
    root.mkdir()
    plant(root, scene.old)
    probe._seen.clear()  # each run asks anew, so that call k is the same call in each
    return root


def check_settled(scene: Scene, root: Path, before: OutcomeState, where: object) -> bool:
    """Wholly old or wholly new, nothing left; True if new."""
    found = tree(root)
    bare = without_receipts(found)
    assert bare in (scene.old, scene.new), (where, bare)
    new = bare == scene.new
    if before in (OutcomeState.COMMITTED, OutcomeState.PENDING):
        assert new, (where, before)
    if before is OutcomeState.ABORTED:
        assert not new, (where, before)
    assert (len(found) > len(bare)) == (new and scene.id is not None), (where, found)
    return new


def outcome(scene: Scene, root: Path, tx: LocalTransaction | None) -> OutcomeState:
    known = scene.id or (tx.id if tx is not None else None)
    if known is None:
        return OutcomeState.UNKNOWN
    return scene.backend(root, KillerOps(exchange=scene.exchange)).outcome(known)


def test_whole_run(scene: Scene, fast: Path) -> None:
    """The scenes do what they say without a kill (else the others would prove nothing)."""
    root = fresh(fast, scene)
    tx, ops, killed = scene.run(root)
    assert tx is not None
    assert not killed
    assert without_receipts(tree(root)) == scene.new
    assert len(ops.calls) > 15
    assert ops.held == set()
    assert ops.fds == set()
    assert all(f.closed for f in ops.files)


def test_kill_at_every_call(scene: Scene, fast: Path) -> None:
    """A23, I7: killed at any call, recovery brings old or new, whole, with nothing left; outcome agrees."""
    seen = set()
    for k in itertools.count(1):
        root = fresh(fast, scene)
        tx, ops, killed = scene.run(root, kill_at=k)
        if not killed:
            break
        where = (k, ops.calls[-1])
        before = outcome(scene, root, tx)
        assert before is not OutcomeState.ACTIVE, where
        assert not scene.recover(root)
        new = check_settled(scene, root, before, where)
        seen.add(new)
        if scene.id is not None:
            after = outcome(scene, root, tx)
            assert after is (OutcomeState.COMMITTED if new else OutcomeState.UNKNOWN), where
        assert not scene.backend(root, KillerOps()).recover(), where
    assert k > 25
    assert seen == {False, True}


def test_next_run_recovers_by_itself(scene: Scene, fast: Path) -> None:
    """A23, A24, I5: after a kill the next run settles and succeeds; a keyed one commits once in total."""
    for k in itertools.count(1):
        root = fresh(fast, scene)
        _, ops, killed = scene.run(root, kill_at=k)
        if not killed:
            break
        where = (k, ops.calls[-1])
        probe_root = tree(root)
        try:
            tx, _, again = scene.run(root)
        except FileExistsError:  # mode create, and the killed run had published
            assert scene.mode == "create", where
            assert scene.id is None, where
        except FileNotFoundError:  # the removals were made already
            assert scene.remove, where
        else:
            assert tx is not None
            assert not again
            if scene.id is not None:
                assert tx.committed
        assert without_receipts(tree(root)) == scene.new, (where, probe_root)


@pytest.mark.slow
def test_kill_of_every_recovery(scene: Scene, fast: Path) -> None:
    """A23: the recovery killed at any of its calls, and the one after it finishes."""
    for k in itertools.count(1):
        root = fresh(fast, scene)
        tx, ops, killed = scene.run(root, kill_at=k)
        if not killed:
            break
        before = outcome(scene, root, tx)
        # Each recovery dies one call later than the one before it: every prefix of a recovery is met,
        # from the state that all shorter ones left.
        for j in itertools.count(1):
            if not scene.recover(root, kill_at=j):
                break
        check_settled(scene, root, before, (k, j, ops.calls[-1]))


def test_interrupt_at_every_call(scene: Scene, fast: Path) -> None:
    """A25: Ctrl-C before any call leaves nothing, the state whole, and says which one it is."""
    for k in itertools.count(1):
        root = fresh(fast, scene)
        made: list[KillerOps] = []

        def interrupt(name: str, path: str, k: int = k, made: list[KillerOps] = made) -> None:
            if len(made[0].calls) == k:
                raise KeyboardInterrupt

        made.append(KillerOps(exchange=scene.exchange, act=interrupt))
        backend = scene.backend(root, made[0])
        said = False
        try:
            tx = backend.begin(mode=scene.mode, durability="data", require=frozenset(), id=scene.id)
            with tx:
                for path, data in scene.write.items():
                    tx.stage(path, data)
                for path in scene.remove:
                    tx.remove(path)
        except KeyboardInterrupt as error:
            said = "is committed" in "".join(getattr(error, "__notes__", ()))
        else:
            if len(made[0].calls) < k:
                break
            said = True
        found = without_receipts(tree(root))
        where = (k, made[0].calls[k - 1], found)
        lock_left = {f for f in found if f.endswith(".lock") or "/locks/" in f}
        if lock_left and made[0].calls[k - 1][0] in ("release", "lock"):
            assert not scene.recover(root), where
            found = without_receipts(tree(root))
        assert found in (scene.old, scene.new), where
        assert said == (found == scene.new), where
    assert k > 25
