"""Commits that were killed or refused half-way, met by others: by living writers, by the next run."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fstx.backends.local import LocalBackend, probe, recovery
from fstx.backends.local.transaction import LocalTransaction
from fstx.errors import ConflictError, RecoveryError
from fstx.ops.posix import PosixOps
from fstx.types import OutcomeState
from support.killer import Killed, KillerOps
from support.trees import plant, tree, without_receipts

ANY: frozenset[Any] = frozenset()
OLD = {"t/keep": b"0", "t/f1": b"0", "t/f2": b"0", "t/f3": b"0"}
A = {"f1": b"A", "f2": b"A", "f3": b"A"}


@pytest.fixture(autouse=True)
def _process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process runs no finalizers."""
    monkeypatch.delattr(LocalTransaction, "__del__")
    monkeypatch.setattr(probe, "_seen", {})


def backend(root: Path, *names: str, ops: KillerOps | None = None) -> LocalBackend:
    given = names or ("t",)
    return LocalBackend(
        [str(root / n) for n in given], joined=len(given) > 1, ops=ops or KillerOps()
    )


def begin(root: Path, *names: str, mode: Any = "update", **how: Any) -> LocalTransaction:
    return backend(root, *names, ops=how.pop("ops", None)).begin(
        mode=mode, durability="none", require=ANY, **how
    )


def dies(root: Path, *names: str, write: dict[str, bytes], after: int = 1) -> None:
    """An update that is killed in its commit when `after` of its renames were made."""
    seen: list[str] = []

    def act(name: str, path: str) -> None:
        if name == "replace_file" and "/s/" in path and ".fstx" not in path.partition(" -> ")[2]:
            seen.append(path)
            if len(seen) > after:
                ops.kill_at = len(ops.calls)

    ops = KillerOps(act=act)
    tx = begin(root, *names, ops=ops)
    for path, data in write.items():
        tx.stage(path, data)
    with pytest.raises(Killed):
        tx.commit()
    assert len(seen) == after + 1


# --- the target went away ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["create", "replace", "update"])
@pytest.mark.parametrize("new", [False, True], ids=["absent", "made anew"])
def test_leftovers_never_appear_in_a_new_output(fast: Path, mode: Any, new: bool) -> None:
    """A23: what is left of a killed commit goes with the target that it was made for."""
    plant(fast, OLD)
    dies(fast, write=A)
    shutil.rmtree(fast / "t")
    if new:
        (fast / "spare").mkdir()  # so that the number of the old directory is not used again
        (fast / "t").mkdir()
        (fast / "spare").rmdir()
    with begin(fast, mode=mode) as tx:
        tx.stage("only", b"rerun")
    assert tree(fast) == {"t/only": b"rerun"}
    assert not backend(fast).recover()
    assert tree(fast) == {"t/only": b"rerun"}


def test_superseded_commit_is_reported_as_aborted(fast: Path) -> None:
    """A23: recovery of a commit whose target is gone drops it, says so, and makes nothing."""
    plant(fast, OLD)
    dies(fast, write=A)
    shutil.rmtree(fast / "t")
    (row,) = backend(fast).recover().settled
    assert row.state is OutcomeState.ABORTED
    assert "dropped" in row.detail
    assert tree(fast) == {}


def test_one_of_two_targets_gone_is_not_guessed_about(fast: Path) -> None:
    """A23: with one target of two gone there is no right answer; nothing is changed."""
    plant(fast, {"t/f1": b"0", "t/k": b"0", "u/f1": b"0", "u/k": b"0"})
    dies(fast, "t", "u", write={"t/f1": b"A", "u/f1": b"A"})
    shutil.rmtree(fast / "t")
    before = tree(fast)
    with pytest.raises(RecoveryError, match="removed or replaced"):
        backend(fast, "t", "u").recover()
    assert {k: v for k, v in before.items() if v}.items() <= tree(fast).items()
    assert not (fast / "t").exists()


class Lossy(KillerOps):
    """Calls of a server: a request for a move is lost on its way, and may arrive at any time."""

    leased = True
    late: tuple[str, str] | None = None

    def replace_file(self, src: str, dst: str) -> None:
        if self.late is None and "/s/" in src:
            self.late = src, dst
            raise OSError(errno.EIO, "no answer", src)
        super().replace_file(src, dst)


def test_a_request_that_comes_late_finds_nothing(fast: Path) -> None:
    """LEASE-7: what a lost move would do is judged when it can't happen any more."""
    plant(fast, OLD)
    ops = Lossy()
    tx = begin(fast, ops=ops)
    for path, data in A.items():
        tx.stage(path, data)
    assert tx.commit().pending
    assert ops.late is not None
    with pytest.raises(FileNotFoundError):
        os.replace(*ops.late)
    (row,) = backend(fast).recover().settled
    assert row.state is OutcomeState.COMMITTED
    assert tree(fast) == {**OLD, **{f"t/{k}": v for k, v in A.items()}}


class Linking(KillerOps):
    """A file system that can't refuse to replace: files are moved by a link and an unlink."""

    def rename_new(self, src: str, dst: str) -> None:
        raise OSError(errno.ENOSYS, "no such call", src)


def test_a_file_that_was_linked_is_published(fast: Path) -> None:
    """RENAME-5: killed between link and unlink, a file under both names was moved, and that is told."""
    seen: list[str] = []

    def act(name: str, path: str) -> None:
        if name == "unlink" and seen and path == seen[-1]:
            ops.kill_at = len(ops.calls)
        seen.append(path.partition(" -> ")[0] if name == "link_new" else "")

    ops = Linking(act=act)
    tx = LocalBackend([str(fast / "f")], joined=True, ops=ops).begin(
        mode="create", durability="data", require=frozenset()
    )
    tx.stage("f", b"new")
    with pytest.raises(Killed):
        tx.commit()
    assert (fast / "f").read_bytes() == b"new"
    found = LocalBackend([str(fast / "f")], joined=True, ops=PosixOps())
    assert found.outcome(tx.id) is OutcomeState.COMMITTED
    (row,) = found.recover().settled
    assert row.state is OutcomeState.COMMITTED
    assert tree(fast) == {"f": b"new"}


# --- a living writer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "path"), [("replace", "only"), ("update", "f2"), ("update", "other")]
)
def test_a_living_writer_does_not_build_on_an_unfinished_commit(
    fast: Path, mode: Any, path: str
) -> None:
    """A29, REDO-8: a decided commit is finished before another to the same target is made."""
    plant(fast, OLD)
    living = begin(fast, mode=mode)
    living.stage(path, b"B")
    dies(fast, write=A)
    with pytest.raises(ConflictError, match="settled first") as raised:
        living.commit()
    assert raised.value.retryable
    (row,) = backend(fast).recover().settled
    assert row.state is OutcomeState.COMMITTED
    assert tree(fast) == {**OLD, **{f"t/{k}": v for k, v in A.items()}}
    with begin(fast, mode=mode) as again:
        again.stage(path, b"B")
    assert tree(fast)[f"t/{path}"] == b"B"


def test_a_recoverer_at_work_does_not_let_others_build_on_it(fast: Path) -> None:
    """CTRL-8: a recoverer that holds the dead one's liveness lock and waits for the target's is no owner."""
    plant(fast, OLD)
    living = begin(fast)
    living.stage("f2", b"B")
    dies(fast, write=A)
    (txid,) = (p.stem for p in (fast / ".fstx").iterdir() if (p / "commit").exists())
    recoverer = PosixOps().lock(str(fast / ".fstx" / f"{txid}.alive"), wait_s=0)
    assert recoverer is not None
    with pytest.raises(ConflictError, match="settled first"):
        living.commit()
    recoverer.release()
    (row,) = backend(fast).recover().settled
    assert row.state is OutcomeState.COMMITTED
    assert tree(fast) == {**OLD, **{f"t/{k}": v for k, v in A.items()}}


def test_another_target_is_not_blocked(fast: Path) -> None:
    """A29: an unfinished commit stops those to the same target, nobody else."""
    plant(fast, {**OLD, "u/a": b"0"})
    living = begin(fast, "u")
    living.stage("a", b"B")
    dies(fast, write=A)
    living.commit()
    assert tree(fast)["u/a"] == b"B"
    assert backend(fast).recover().settled[0].state is OutcomeState.COMMITTED


def updater(root: Path, seed: int, end: float, report: Path) -> None:
    """A process that updates until it is killed; whatever it meets but conflicts it reports."""
    draw = random.Random(seed)
    while time.monotonic() < end:
        try:
            tx = begin(root)
            for name in draw.sample("abcdefgh", 4):
                tx.stage(name, b"%d" % seed)
            tx.commit()
        except ConflictError:
            continue
        except BaseException as error:  # noqa: BLE001 - the parent shows it
            report.write_text(repr(error))
            return


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_updaters_never_leave_what_nobody_can_settle(fast: Path) -> None:
    """A23, A29: updates of one tree by three processes under SIGKILL: each next one goes on."""
    root = fast / "root"
    plant(root, {f"t/{name}": b"0" for name in "abcdefgh"})
    end = time.monotonic() + 4
    draw, seeds, report = random.Random(7), itertools.count(1), fast / "report"
    running: list[int] = []
    kills = 0
    while time.monotonic() < end:
        while len(running) < 3:
            seed = next(seeds)
            pid = os.fork()
            if pid == 0:
                updater(root, seed, end, report)
                os._exit(0)
            running.append(pid)
        time.sleep(draw.uniform(0.02, 0.12))
        os.kill(running[0], signal.SIGKILL)
        os.waitpid(running.pop(0), 0)
        kills += 1
    for pid in running:
        os.waitpid(pid, 0)
    assert kills > 10
    assert not report.exists(), report.read_text()
    backend(root).recover()
    found = tree(root)
    assert set(found) == {f"t/{name}" for name in "abcdefgh"}
    assert set(found.values()) != {b"0"}


# --- keys ----------------------------------------------------------------------------------------


def test_a_pending_commit_keeps_its_key(fast: Path) -> None:
    """A24: as long as a keyed commit is unfinished its id begins nothing; once it can be, it is done."""
    plant(fast, OLD)

    def full(name: str, path: str) -> None:
        if name == "replace_file" and path.endswith("t/f2"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    tx = begin(fast, id="job", ops=KillerOps(act=full))
    for path, data in A.items():
        tx.stage(path, data)
    assert tx.commit().pending
    assert backend(fast).outcome("job") is OutcomeState.PENDING
    with pytest.raises(RecoveryError, match="committed to the same target") as raised:
        begin(fast, id="job", ops=KillerOps(act=full))
    assert raised.value.retryable
    assert begin(fast, id="job").committed
    assert without_receipts(tree(fast)) == {**OLD, **{f"t/{k}": v for k, v in A.items()}}


def test_an_empty_keyed_commit_killed_anywhere_blocks_nobody(fast: Path) -> None:
    """A24: a transaction that has an id and nothing in it, killed at any call, is settled."""
    for k in itertools.count(1):
        root = fast / str(k)
        plant(root, {"t/a": b"0"})
        probe._seen.clear()
        try:
            begin(root, id="job", ops=KillerOps(kill_at=k)).commit()
            break
        except Killed:
            backend(root).recover()
        assert not backend(root).recover(), k
        again = begin(root, id="job")
        if not again.committed:
            again.commit()
        with begin(root) as other:
            other.stage("a", b"1")
        assert without_receipts(tree(root)) == {"t/a": b"1"}, k
        assert backend(root).outcome("job") is OutcomeState.COMMITTED, k
    assert k > 15


# --- another host --------------------------------------------------------------------------------


class Share(KillerOps):
    """A file system of no known kind: other hosts may have it mounted, and locks may not reach them."""

    def fs_name(self, path: str) -> str:
        return ""


@pytest.mark.parametrize("shared", [True, False])
def test_a_writer_of_another_host_is_left_alone(
    fast: Path, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A23: where a lock need not reach its owner, `begin` does not give an owner up; `recover` does."""
    plant(fast, OLD)
    far = begin(fast, ops=Share() if shared else None)
    far.stage("f1", b"far")
    far._ops.die()  # type: ignore[attr-defined]
    monkeypatch.setattr(recovery, "boot_id", lambda: "another")
    monkeypatch.setattr(recovery.platform, "node", lambda: "elsewhere")
    with begin(fast, ops=Share() if shared else None) as tx:
        tx.stage("f2", b"B")
    assert (fast / ".fstx" / far._txid).exists() == shared
    found = backend(fast, ops=Share() if shared else None).recover()
    assert [s.state for s in found.settled] == [OutcomeState.ABORTED] * shared
    assert tree(fast) == {**OLD, "t/f2": b"B"}


# --- size ----------------------------------------------------------------------------------------


def calls_of_a_recovery(root: Path, n: int) -> int:
    """Python calls that recovery of `n` replaced and `n` removed files makes."""
    plant(root, {f"t/{kind}{i}": b"0" for kind in "fr" for i in range(n)})
    ops = KillerOps()

    def act(name: str, path: str) -> None:
        if name == "replace_file" and path.endswith("/f3"):
            ops.kill_at = len(ops.calls)

    ops.act = act
    tx = begin(root, ops=ops)
    for i in range(n):
        tx.stage(f"f{i}", b"1")
    for i in range(n):
        tx.remove(f"r{i}")
    with pytest.raises(Killed):
        tx.commit()
    count = 0

    def counts(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    again = backend(root)
    before = sys.getprofile()
    sys.setprofile(counts)
    try:
        again.recover()
    finally:
        sys.setprofile(before)
    assert tree(root) == {f"t/f{i}": b"1" for i in range(n)}
    return count


def test_recovery_takes_time_in_proportion(fast: Path) -> None:
    """A23: twice the items and removals, twice the work: what was written in an hour is settled soon."""
    few, many = calls_of_a_recovery(fast / "few", 150), calls_of_a_recovery(fast / "many", 600)
    assert many < 4.6 * few
