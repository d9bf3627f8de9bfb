"""What a resumable job does with the files of its depot: names, syncs, and what was damaged meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx.backends.local.depot import SYNC_EVERY, SYNCED_AFTER
from fstx.resuming import ResumableTransaction
from fstx.resuming.units import Unit, decode_units, encode_unit
from support.killer import SystemOps
from support.trees import tree


def _begin(place: Path, **options: Any) -> ResumableTransaction:
    given: dict[str, Any] = {"resume": "if_possible", "fingerprint": 1, **options}
    made = fstx.begin(str(place / "out"), **given)
    assert isinstance(made, ResumableTransaction)
    return made


def _do(tx: ResumableTransaction, *numbers: int) -> None:
    for n in numbers:
        with tx.unit(n) as unit:
            unit.stage(f"p/{n}", bytes([n % 256]) * 10)


def _depot(place: Path) -> Path:
    (depot,) = (place / ".fstx" / "jobs").iterdir()
    return depot


class NoLinks(SystemOps):
    """A file system without links."""

    def link_new(self, src: str, dst: str) -> None:
        raise OSError(errno.EPERM, "no links here")


@pytest.mark.parametrize("durability", ["none", "data"])
@pytest.mark.parametrize("links", [True, False])
def test_objects_are_published_by_links_or_copies(
    links: bool, durability: str, tmp_path: Path
) -> None:
    """RESUME-6: what units wrote is published whole, by a further name of the file where there are links."""
    options = {"ops": SystemOps() if links else NoLinks(), "durability": durability}
    with _begin(tmp_path, **options) as tx:
        tx.stage("p/7", b"staged first, then written by a unit")
        _do(tx, *range(40))
        with tx.unit("top") as unit:
            unit.stage("top", b"t")
        files = {os.stat(f).st_ino for f in (_depot(tmp_path) / "a").iterdir()}
    want = {f"out/p/{n}": bytes([n]) * 10 for n in range(40)} | {"out/top": b"t"}
    assert tree(tmp_path) == want
    published = {os.stat(f).st_ino for f in (tmp_path / "out" / "p").iterdir()}
    # the one that was staged before is replaced by a copy
    assert len(files & published) == (39 if links else 0)


@pytest.mark.parametrize("count", [3, 40])
def test_what_units_wrote_is_durable_at_the_commit(count: int, tmp_path: Path) -> None:
    """D13: few files are synced each by itself, many by one sync of the file system that comes after them."""
    calls: list[int | str] = []

    class Noting(SystemOps):
        def sync_file(self, file: Any) -> None:
            calls.append(os.fstat(file.fileno()).st_ino)
            super().sync_file(file)

        def sync_fs(self, fd: int) -> None:
            calls.append("all")
            super().sync_fs(fd)

        def link_new(self, src: str, dst: str) -> None:
            calls.append("link")
            super().link_new(src, dst)

    with _begin(tmp_path, ops=Noting(), durability="data") as tx:
        _do(tx, *range(count))
    published = {os.stat(f).st_ino for f in (tmp_path / "out" / "p").iterdir()}
    after = calls[len(calls) - calls[::-1].index("link") :]
    assert calls.count("link") == len(published) == count
    assert published <= set(calls) or "all" in after


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_an_object_that_is_not_whole_stops_the_commit(damage: str, tmp_path: Path) -> None:
    """RESUME-6: the commit takes all units or none, and the way out that its error names works."""
    tx = _begin(tmp_path)
    _do(tx, 1, 2, 3)
    key = tx.done["2"].objects[0].object.key
    if damage == "gone":
        (_depot(tmp_path) / key).unlink()
    else:
        os.truncate(_depot(tmp_path) / key, 3)
    with pytest.raises(fstx.ResumeError, match="if_possible") as caught:
        tx.commit()
    assert "'p/2'" in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.warns(RuntimeWarning, match="1 units"):
        again = _begin(tmp_path)
    with again:
        assert set(again.done) == {"1", "3"}
        _do(again, 2)
    assert tree(tmp_path) == {f"out/p/{n}": bytes([n]) * 10 for n in (1, 2, 3)}


def test_a_failure_while_taking_over_leaves_the_units(tmp_path: Path) -> None:
    """RESUME-6: storage that fails in the middle of it changes nothing; the next run needs no unit again."""

    class Failing(SystemOps):
        def lstat(self, path: str) -> Any:
            if path.endswith("-2") and ".fstx" in path:
                raise OSError(errno.EIO, "the disk")
            return super().lstat(path)

    tx = _begin(tmp_path, ops=Failing())
    _do(tx, 1, 2, 3)
    with pytest.raises(fstx.StorageError):
        tx.commit()
    assert not (tmp_path / "out").exists()
    again = _begin(tmp_path)
    assert set(again.done) == {"1", "2", "3"}
    again.commit()
    assert tree(tmp_path) == {f"out/p/{n}": bytes([n]) * 10 for n in (1, 2, 3)}


def test_of_two_records_the_later_counts(tmp_path: Path) -> None:
    """RESUME-2: also where the first one's object is there, and where the later one's is not."""
    tx = _begin(tmp_path)
    _do(tx, 1, 2)
    with tx.unit("new") as unit:
        unit.stage("p/new", b"later")
    tx.suspend()
    log = _depot(tmp_path) / "units.log"
    one, two, new = decode_units(log.read_bytes().splitlines(keepends=True), tx._token)
    later = [Unit("1", new.objects), Unit("2", two.objects), Unit("2", two.objects), one]
    log.write_bytes(b"".join(map(encode_unit, [one, two, *later[:3]])))
    tx = _begin(tmp_path)
    assert {id: [k.object.path for k in u.objects] for id, u in tx.done.items()} == {
        "1": ["p/new"],
        "2": ["p/2"],
    }
    assert not (_depot(tmp_path) / one.objects[0].object.key).exists()
    _do(tx, 7)
    tx.suspend()
    log.write_bytes(log.read_bytes() + encode_unit(one))  # whose object is gone
    with pytest.warns(RuntimeWarning, match="the first: 1"):
        tx = _begin(tmp_path)
    assert set(tx.done) == {"2", "7"}
    tx.rollback()


class Waiting(SystemOps):
    """Its syncs wait for a word, and may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.error: OSError | None = None

    def sync_fs(self, fd: int) -> None:
        os.fstat(fd)  # it is open
        self.begun.release()
        assert self.go.acquire(timeout=60)
        if self.error is not None:
            raise self.error


@pytest.fixture
def ops(tmp_path: Path) -> Waiting:
    """Where syncfs is trusted: on Linux, and on a file system that has it."""
    made = Waiting()
    if sys.platform != "linux" or made.fs_name(str(tmp_path)) in ("", "zfs"):
        pytest.skip("syncfs is not trusted here")
    return made


def test_work_goes_on_while_units_are_synced(ops: Waiting, tmp_path: Path) -> None:
    """The 256 that `unit` promises: a sync begins after 192 units, and the 256th waits until it has ended."""
    tx = _begin(tmp_path, ops=ops, durability="none")
    last = SYNC_EVERY + SYNCED_AFTER - 1
    assert last == 255
    _do(tx, *range(SYNC_EVERY - 1))
    assert not ops.begun.acquire(blocking=False)
    _do(tx, SYNC_EVERY - 1)
    assert ops.begun.acquire(timeout=60)
    _do(tx, *range(SYNC_EVERY, last))  # while it waits
    held = threading.Thread(target=_do, args=(tx, last))
    held.start()
    held.join(0.05)
    assert held.is_alive()
    ops.go.release()
    held.join()
    _do(tx, *range(last + 1, 2 * SYNC_EVERY - 1))
    assert not ops.begun.acquire(blocking=False)
    _do(tx, 2 * SYNC_EVERY - 1)
    assert ops.begun.acquire(timeout=60)
    ops.go.release()
    tx.suspend()
    again = _begin(tmp_path)
    assert len(again.done) == 2 * SYNC_EVERY
    again.rollback()


def test_syncfs_can_be_forbidden(tmp_path: Path) -> None:
    """``syncfs=False`` holds for jobs as well: only the file of their records is synced."""
    calls: list[str] = []

    class Noting(SystemOps):
        def sync_fs(self, fd: int) -> None:
            calls.append("all")

        def sync_file(self, file: Any) -> None:
            calls.append("file")
            super().sync_file(file)

    tx = _begin(tmp_path, ops=Noting(), syncfs=False, durability="none")
    calls.clear()
    for n in range(2 * SYNC_EVERY):
        with tx.unit(n):
            pass
    assert calls == ["file"] * 2
    tx.rollback()


def test_a_sync_that_fails_is_told(ops: Waiting, tmp_path: Path) -> None:
    """A sync's error is raised by the unit that waits for it, not swallowed by a thread."""
    ops.error = OSError(errno.EIO, "the disk lost it")
    tx = _begin(tmp_path, ops=ops, durability="none")
    ops.go.release()
    with pytest.raises(fstx.StorageError, match="the disk lost it"):
        _do(tx, *range(300))
    assert len(tx.done) == SYNC_EVERY + SYNCED_AFTER - 1
    tx.rollback()


def test_a_discarded_job_is_told_at_its_commit(tmp_path: Path) -> None:
    """RESUME-7: whoever drops a job that runs makes it fail, and nothing is published."""
    tx = _begin(tmp_path)
    _do(tx, 1, 2)
    shutil.rmtree(_depot(tmp_path))
    with pytest.raises(fstx.FencedError):
        tx.commit()
    assert not (tmp_path / "out").exists()


def test_syncs_go_on_after_one_that_failed(tmp_path: Path) -> None:
    """The bound of 256 units holds again after a sync that failed."""
    calls: list[bool] = []
    fail = [False]

    class FailingOnce(SystemOps):
        def sync_file(self, file: Any) -> None:
            calls.append(fail[0])
            if fail[0]:
                fail[0] = False
                raise OSError(errno.ENOSPC, "full for a moment")
            super().sync_file(file)

    tx = _begin(tmp_path, ops=FailingOnce(), syncfs=False, durability="none")
    calls.clear()
    fail[0] = True
    with pytest.raises(fstx.StorageError, match="full for a moment"):
        _do(tx, *range(SYNC_EVERY))
    _do(tx, *range(SYNC_EVERY - 1, 3 * SYNC_EVERY))
    assert calls == [True, False, False]
    tx.rollback()


def test_what_a_failed_sync_may_have_lost_is_compared(ops: Waiting, tmp_path: Path) -> None:
    """RESUME-3: after a sync that failed, also at the end, lengths prove nothing any more."""
    ops.error = OSError(errno.EIO, "the disk lost it")
    tx = _begin(tmp_path, ops=ops, durability="none")
    ops.go.release()
    _do(tx, *range(SYNC_EVERY))
    tx.suspend()
    lost = next(f for f in (_depot(tmp_path) / "a").iterdir() if f.read_bytes() == bytes([7]) * 10)
    lost.write_bytes(bytes(10))
    with pytest.warns(RuntimeWarning, match="7"):
        again = _begin(tmp_path)
    assert set(again.done) == {str(n) for n in range(SYNC_EVERY) if n != 7}
    again.rollback()


def test_without_a_thread_for_it_the_unit_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be started a job goes on, and its commit tells what is true."""
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "fstx sync":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with _begin(tmp_path, durability="none") as tx:
        _do(tx, *range(SYNC_EVERY + 1))
    assert len(tree(tmp_path)) == SYNC_EVERY + 1
    assert fstx.jobs(str(tmp_path / "out")) == []


def test_a_unit_that_failed_begins_anew(tmp_path: Path) -> None:
    """What the failed block staged is not part of the unit when its block is entered again."""
    with _begin(tmp_path) as tx:
        unit = tx.unit("u")
        with pytest.raises(ZeroDivisionError), unit:
            unit.stage("a", b"a")
            raise ZeroDivisionError
        with unit:
            unit.stage("b", b"b")
    assert tree(tmp_path) == {"out/b": b"b"}


def test_an_object_that_goes_while_it_is_taken_is_named(tmp_path: Path) -> None:
    """A file that vanishes between the look and the link is missing; nobody was fenced."""

    class Vanishing(SystemOps):
        def link_new(self, src: str, dst: str) -> None:
            if os.path.basename(os.path.dirname(src)) == "a" and "jobs" in src:
                os.unlink(src)
            super().link_new(src, dst)

    tx = _begin(tmp_path, ops=Vanishing())
    _do(tx, 1)
    with pytest.raises(fstx.ResumeError, match="p/1"):
        tx.commit()
    assert not (tmp_path / "out").exists()
