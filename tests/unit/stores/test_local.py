"""The local store: files that appear whole, under one name or not at all."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fstx.stores import Answer, Store
from fstx.stores import local as module
from fstx.stores.local import LocalStore
from fstx.stores.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


def _files(store: LocalStore) -> list[str]:
    return sorted(p.name for p in Path(store._root).rglob("*") if p.is_file())


def test_it_is_a_store(store: LocalStore) -> None:
    """Protects the protocol: the class has every primitive."""
    assert isinstance(store, Store)


def test_objects_come_and_go(store: LocalStore) -> None:
    """Protects the primitives one by one; nothing temporary stays."""
    assert list(store.list("")) == []
    assert store.put_new("log/1", b"one") is Answer.DONE
    assert store.put_new("log/1", b"two") is Answer.TAKEN
    assert store.get("log/1") == b"one"
    store.put("log/1", memoryview(b"three"))
    assert (store.get("log/1", 1, 3), store.get("log/1", -2)) == (b"hr", b"ee")
    store.start_put("b", b"").result()
    assert [(i.key, i.size_bytes) for i in store.list("")] == [("b", 0), ("log/1", 5)]
    assert store.info("log") is None
    assert store.info("log/1/2") is None
    assert store.below("log").get("1") == b"three"
    assert _files(store) == ["1", "b"]
    store.delete(["b", "absent", "log/1", "log/1/2"])
    assert list(store.list("")) == []
    for key in ("b", "log"):
        with pytest.raises(FileNotFoundError):
            store.get(key)


def test_a_directory_is_no_object_to_delete(store: LocalStore) -> None:
    """The name of a directory is an absent key: deleting it is no error and touches nothing below."""
    store.put("log/1", b"x")
    store.delete(["log", "log/1/2"])
    assert store.get("log/1") == b"x"


def test_listings_are_sorted_by_key(store: LocalStore) -> None:
    """Protects callers that take the last key for the greatest: '.' and '-' sort before '/'."""
    keys = ["a/b", "a.b", "a-b", "a/c/d", "a0", "ä", "z/é"]
    for key in keys:
        store.put(key, b"x")
    assert [i.key for i in store.list("")] == sorted(keys)
    assert [i.key for i in store.list("a/")] == ["a/b", "a/c/d"]
    assert [i.key for i in store.list("a")] == sorted(k for k in keys if k[0] == "a")
    assert [i.key for i in store.list("a/c")] == ["a/c/d"]
    assert list(store.list("nothing/here")) == []


def test_a_writer_publishes_at_close_or_never(store: LocalStore) -> None:
    """Protects readers from half a file, and the directory from what was given up."""
    writer = store.open("d/big")
    writer.write(b"ab")
    assert list(store.list("")) == []
    writer.write(bytearray(b"cd"))
    writer.close()
    assert store.get("d/big") == b"abcd"
    writer = store.open("d/gone")
    writer.write(b"x")
    writer.abort()
    writer.abort()
    assert _files(store) == ["big"]


_RACER = """
import sys
from fstx.stores.local import LocalStore
store = LocalStore(sys.argv[1])
name = sys.argv[2]
sys.stdin.readline()
for n in range(60):
    print(n, store.put_new(f"log/{n:04}", (name * 5000).encode()).name)
"""


def test_four_processes_race_for_each_name(store: LocalStore) -> None:
    """Protects put-if-absent between processes: one winner of each name, whose content is there."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, store._root, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abcd"
    ]
    time.sleep(0.3)
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    winners: dict[str, list[str]] = {}
    for name, racer in zip("abcd", racers, strict=True):
        for line in racer.communicate(timeout=120)[0].splitlines():
            number, answer = line.split()
            assert answer in ("DONE", "TAKEN")
            if answer == "DONE":
                winners.setdefault(number, []).append(name)
    assert len(winners) == 60
    for number, names in winners.items():
        assert len(names) == 1
        assert store.get(f"log/{int(number):04}") == (names[0] * 5000).encode()
    assert all(not n.endswith(".tmp") for n in _files(store))


_WRITER = """
import sys
from fstx.stores.local import LocalStore
store = LocalStore(sys.argv[1])
data = bytes(range(256)) * 40000
print("on", flush=True)
while True:
    store.put("k", data)
    writer = store.open("w"); writer.write(data); writer.write(data); writer.close()
    store.delete(["n"]); store.put_new("n", data)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_writer_leaves_no_part(store: LocalStore) -> None:
    """Protects readers and listings from what a killed process was writing; `tidy` takes it away."""
    data = bytes(range(256)) * 40000
    for pause_s in (0.02, 0.05, 0.11):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, store._root], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause_s)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        for info in store.list(""):
            assert info.size_bytes == len(data) * (2 if info.key == "w" else 1)
            assert store.get(info.key, 0, len(data)) == data
    store.tidy(3600)
    store.tidy(-1)
    assert not [n for n in _files(store) if n.endswith(".tmp")]


@pytest.mark.skipif(os.name == "nt", reason="there a rename takes the name")
def test_a_lost_answer_of_link_is_looked_up(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects network mounts: a link that failed and took place is ours, one that did not is not."""
    link = os.link

    def lost(*args: str, **options: bool) -> None:
        link(*args, **options)
        raise FileExistsError(errno.EEXIST, "made by the first of two sends")

    def other(src: str, dst: str, **options: bool) -> None:
        Path(dst).write_bytes(b"other")
        raise OSError(errno.EIO, "no answer")

    def full(*args: str, **options: bool) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", lost)
    assert store.put_new("a", b"mine") is Answer.DONE
    monkeypatch.setattr(os, "link", other)
    assert store.put_new("b", b"mine") is Answer.TAKEN
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="full"):
        store.put_new("c", b"mine")
    assert _files(store) == ["a", "b"]


def test_what_can_not_land_is_refused(store: LocalStore) -> None:
    """Protects from questions without an answer: a name too long, a directory in the way."""
    store.put("log/1", b"")
    for key in ("log", "log/1/2", "x" * 300):
        with pytest.raises(OSError, match=r"log|xxx"):
            store.put_new(key, b"")
        with pytest.raises(OSError, match=r"log|xxx"):
            store.put(key, b"")
    assert _files(store) == ["1"]


def test_without_hard_links_a_rename_decides(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects file systems without hard links (exFAT, some mounts)."""

    def none(*args: str, **options: bool) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", none)
    assert store.put_new("a", b"mine") is Answer.DONE
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    assert store.put_new("a", b"late") is Answer.TAKEN
    assert store.get("a") == b"mine"
    assert _files(store) == ["a"]


def test_windows_rename_refuses(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the Windows way: a rename that refuses a taken name, of which the answer may be lost."""
    rename = os.rename

    def refusing(src: str, dst: str) -> None:
        if os.path.lexists(dst):
            raise FileExistsError(errno.EEXIST, "taken")
        rename(src, dst)

    monkeypatch.setattr(module, "_WINDOWS", True)
    monkeypatch.setattr(os, "rename", refusing)
    assert store.put_new("a", b"mine") is Answer.DONE
    monkeypatch.setattr(os.path, "lexists", lambda path: path.endswith("a"))
    assert store.put_new("a", b"late") is Answer.TAKEN

    def lost(src: str, dst: str) -> None:
        rename(src, dst)
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(os, "rename", lost)
    assert store.put_new("b", b"mine") is Answer.UNKNOWN


def test_a_directory_that_goes_is_made_again(store: LocalStore) -> None:
    """Protects a put from one who deletes the last file of its directory."""
    store.put("data/t/a", b"1")
    LocalStore(store._root).delete(["data/t/a"])
    assert not os.path.exists(os.path.join(store._root, "data", "t"))
    store.put("data/t/b", b"2")
    assert store.put_new("data/t/c", b"3") is Answer.DONE
    assert [i.key for i in store.list("")] == ["data/t/b", "data/t/c"]


@pytest.mark.skipif(os.name == "nt", reason="directories can't be synced there")
def test_names_are_synced_before_it_is_done(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects durability: file, directory and every directory above that was made; or nothing."""
    synced: list[str] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", noting)
    store.put_new("a/b/k", b"x")
    root = os.path.realpath(store._root)
    assert {root, os.path.dirname(root), f"{root}/a", f"{root}/a/b"} <= set(synced)
    assert synced[-1] == f"{root}/a/b"
    assert any(s.endswith(".tmp") for s in synced)
    synced.clear()
    LocalStore(store._root, durable=False).put("a/c/k", b"x")
    assert synced == []


def test_one_sync_serves_all_who_wait(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the rate of many small files: directory syncs are shared between threads."""
    counts = {"dir": 0, "file": 0}
    fsync = os.fsync

    def slow(fd: int) -> None:
        kind = "dir" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        counts[kind] += 1
        if kind == "dir":
            time.sleep(0.01)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    futures = [store.start_put(f"data/t/{n}", b"x") for n in range(64)]
    for future in futures:
        future.result()
    assert counts["file"] == 64
    assert counts["dir"] < 48
    assert len(list(store.list("data/"))) == 64


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_files_have_the_mode_that_the_umask_gives(store: LocalStore) -> None:
    """Protects readers of other accounts: no private temporary mode stays on a published file."""
    before = os.umask(0o027)
    try:
        store.put("a", b"")
        store.put_new("b", b"")
        writer = store.open("c")
        writer.close()
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(os.stat(os.path.join(store._root, n)).st_mode) for n in "abc"}
    assert modes == {0o640}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_on(store: LocalStore) -> None:
    """Protects multiprocessing: locks and threads of the parent don't matter in a child."""
    store.start_put("before", b"1").result()
    pid = os.fork()
    if pid == 0:
        try:
            store.start_put("child", b"2").result(20)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.get("child") == b"2"


def test_urls_pickles_and_proof(tmp_path: Path) -> None:
    """Protects addresses: path, URL and pickle reach the same files; the proof says what is kept."""
    one = open_store(str(tmp_path / "r"))
    two = open_store(f"file://{(tmp_path / 'r').as_posix()}", durable=False)
    three = pickle.loads(pickle.dumps(one))
    assert one.identity == two.identity == three.identity
    proof = one.probe()
    assert proof.put_new
    assert proof.put_new_reason
    assert not two.probe().durable
    assert list(tmp_path.iterdir()) == []
