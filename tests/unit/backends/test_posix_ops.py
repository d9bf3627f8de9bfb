"""The POSIX calls against the real kernel, and the macOS branch by what it asks of the C library."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fstx.ops import FileKind
from fstx.ops.posix import PosixOps


@pytest.fixture
def ops() -> PosixOps:
    return PosixOps()


def test_open_new_is_exclusive(ops: PosixOps, tmp_path: Path) -> None:
    """Never an existing file, never through a link, unbuffered, readable and writable."""
    path = str(tmp_path / "a")
    with ops.open_new(path) as file:
        file.write(b"x")
        assert Path(path).read_bytes() == b"x"
        file.seek(0)
        assert file.read() == b"x"
        assert not os.get_inheritable(file.fileno())
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            ops.open_new(str(tmp_path / name))


def test_rename_new(ops: PosixOps, tmp_path: Path) -> None:
    """Refused by anything at the destination, an empty directory included."""
    for name in ("file", "src"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("file", "empty", "dangling"):
        with pytest.raises(FileExistsError) as caught:
            ops.rename_new(str(tmp_path / "src"), str(tmp_path / name))
        assert caught.value.filename == str(tmp_path / "src")
    ops.rename_new(str(tmp_path / "src"), str(tmp_path / "new"))
    assert (tmp_path / "new").read_bytes() == b"src"
    with pytest.raises(FileNotFoundError):
        ops.rename_new(str(tmp_path / "src"), str(tmp_path / "newer"))


def test_exchange(ops: PosixOps, tmp_path: Path) -> None:
    """Two entries of any kind change places; both must exist."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"x")
    (tmp_path / "f").write_bytes(b"f")
    ops.exchange(str(tmp_path / "d"), str(tmp_path / "f"))
    assert (tmp_path / "f" / "x").read_bytes() == b"x"
    assert (tmp_path / "d").read_bytes() == b"f"
    with pytest.raises(FileNotFoundError):
        ops.exchange(str(tmp_path / "d"), str(tmp_path / "none"))


def test_lstat_and_scandir(ops: PosixOps, tmp_path: Path) -> None:
    """Kinds without following links; None where nothing is, also below a file."""
    (tmp_path / "f").write_bytes(b"123")
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d")
    os.mkfifo(tmp_path / "p")
    kinds = {"f": FileKind.FILE, "d": FileKind.TREE, "l": FileKind.LINK, "p": FileKind.ODD}
    assert dict(ops.scandir(str(tmp_path))) == kinds
    for name, kind in kinds.items():
        stat = ops.lstat(str(tmp_path / name))
        assert stat is not None
        assert stat.kind is kind
    stat = ops.lstat(str(tmp_path / "f"))
    assert stat is not None
    assert (stat.size_bytes, stat.ino) == (3, os.stat(tmp_path / "f").st_ino)
    assert ops.lstat(str(tmp_path / "none")) is None
    assert ops.lstat(str(tmp_path / "f" / "below")) is None


def test_read_file(ops: PosixOps, tmp_path: Path) -> None:
    """Whole, within a limit, never through a link."""
    (tmp_path / "f").write_bytes(b"12345")
    (tmp_path / "l").symlink_to("f")
    assert ops.read_file(str(tmp_path / "f"), 5) == b"12345"
    with pytest.raises(OSError) as caught:
        ops.read_file(str(tmp_path / "f"), 4)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(OSError) as caught:
        ops.read_file(str(tmp_path / "l"), 5)
    assert caught.value.errno == errno.ELOOP


def test_lock_excludes(ops: PosixOps, tmp_path: Path) -> None:
    """One holder; a waiter gets it when it is let go; the file goes with the holder."""
    path = str(tmp_path / "lock")
    first = ops.lock(path, wait_s=0.0)
    assert first is not None
    assert ops.lock(path, wait_s=0.0) is None
    start = time.monotonic()
    assert ops.lock(path, wait_s=0.05) is None
    assert 0.04 < time.monotonic() - start < 10
    got: list[Any] = []
    waiter = threading.Thread(target=lambda: got.append(ops.lock(path, wait_s=10.0)))
    waiter.start()
    time.sleep(0.02)
    first.release()
    first.release()
    waiter.join()
    assert got[0] is not None
    assert os.path.exists(path)
    got[0].release()
    assert not os.path.exists(path)


def test_lock_never_unlinks_anothers_file(ops: PosixOps, tmp_path: Path) -> None:
    """A holder whose name was taken over removes nothing, so that two holders of one name can't arise."""
    path = tmp_path / "lock"
    first = ops.lock(str(path), wait_s=0.0)
    path.unlink()
    second = ops.lock(str(path), wait_s=0.0)
    assert first is not None
    assert second is not None
    first.release()
    assert path.exists()
    assert ops.lock(str(path), wait_s=0.0) is None
    second.release()


def test_lock_under_contention(ops: PosixOps, tmp_path: Path) -> None:
    """Many threads, create and unlink on each turn: never two inside at once."""
    inside, worst, turns = [0], [0], [0]

    def work() -> None:
        for _ in range(40):
            lock = ops.lock(str(tmp_path / "lock"), wait_s=30.0)
            assert lock is not None
            inside[0] += 1
            worst[0] = max(worst[0], inside[0])
            turns[0] += 1
            time.sleep(0)
            inside[0] -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (worst[0], turns[0]) == (1, 240)
    assert os.listdir(tmp_path) == []


def test_lock_is_not_followed_through_a_link(ops: PosixOps, tmp_path: Path) -> None:
    """PATH-5: a lock file that is a link is refused."""
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        ops.lock(str(tmp_path / "lock"), wait_s=0.0)
    assert not (tmp_path / "victim").exists()


def test_syncs(ops: PosixOps, tmp_path: Path) -> None:
    """They take what they are for, and report what is not there."""
    with ops.open_new(str(tmp_path / "f")) as file:
        ops.sync_file(file)
    ops.sync_dir(str(tmp_path))
    with pytest.raises(NotADirectoryError):
        ops.sync_dir(str(tmp_path / "f"))
    if ops.name == "linux":
        assert isinstance(ops.fs_name(str(tmp_path)), str)
        assert ops.fs_name("/proc") == ""
        assert ops.open_fs("/proc") is None
        with pytest.raises(OSError) as caught:
            ops.sync_fs(-1)
        assert caught.value.errno == errno.EBADF


class _Libc:
    """A C library that notes what it was asked and answers 0."""

    def __init__(self, missing: bool = False) -> None:
        self.asked: list[tuple[Any, ...]] = []
        if not missing:
            self.renamex_np = lambda *a: self.asked.append(a) or 0


def test_macos_calls(ops: PosixOps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The macOS branch (not run on macOS): renamex_np with EXCL and SWAP, F_FULLFSYNC before fsync."""
    libc = _Libc()
    ops.name, ops._libc = "macos", libc  # type: ignore[assignment]
    ops.rename_new("a", "b")
    ops.exchange("a", "b")
    assert [(a, b, flag.value) for a, b, flag in libc.asked] == [(b"a", b"b", 4), (b"a", b"b", 2)]
    assert ops.open_fs(str(tmp_path)) is None
    asked: list[Any] = []

    def refuse(fd: int, command: int) -> None:
        asked.append(command)
        raise OSError(errno.ENOTSUP, "no")

    monkeypatch.setattr("fcntl.fcntl", refuse)
    monkeypatch.setattr("os.fsync", lambda fd: asked.append("fsync"))
    ops.sync_dir(str(tmp_path))
    assert asked == [51, "fsync"]
    monkeypatch.setattr("fcntl.fcntl", lambda fd, command: asked.append(command))
    ops.sync_dir(str(tmp_path))
    assert asked == [51, "fsync", 51]


@pytest.mark.parametrize("name", ["linux", "macos", "posix"])
def test_missing_calls_are_enosys(ops: PosixOps, name: str) -> None:
    """A C library without the calls: ENOSYS, which the backend understands as another way to go."""
    ops.name, ops._libc = name, _Libc(missing=True)  # type: ignore[assignment]
    for call in (ops.rename_new, ops.exchange):
        with pytest.raises(OSError) as caught:
            call("a", "b")
        assert caught.value.errno == errno.ENOSYS
