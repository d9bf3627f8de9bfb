"""The file system, by itself and under fstx."""

from __future__ import annotations

import subprocess
import sys

import fsspec
import numpy as np
import pytest

import fstx

CREATE = """
import sys, fsspec
fs = fsspec.filesystem("sqlitefs")
sys.stdin.readline()
try:
    fs.pipe_file(sys.argv[1], sys.argv[2].encode(), mode="create")
except FileExistsError:
    print("taken")
else:
    print("first")
"""


@pytest.fixture
def top(tmp_path):
    """The URL of a database that is not there yet."""
    return f"sqlitefs://{tmp_path}/deep/files.db"


def test_files_and_directories(top):
    """What is put is there, whole and by slices; directories are what lies below them."""
    fs, path = fsspec.url_to_fs(top)
    assert fs.find(path) == []
    fs.pipe_file(f"{path}/a/one", b"first")
    with fs.open(f"{path}/a/b/two", "wb") as file:
        file.write(b"second")
    fs.pipe_file(f"{path}/a-b", b"third")
    assert fs.ls(f"{path}/a", detail=False) == [f"{path}/a/b", f"{path}/a/one"]
    assert fs.ls(path, detail=False) == [f"{path}/a", f"{path}/a-b"]
    assert fs.find(path) == [f"{path}/a-b", f"{path}/a/b/two", f"{path}/a/one"]
    assert fs.isdir(f"{path}/a")
    assert fs.info(f"{path}/a/one")["size"] == 5
    assert fs.cat_file(f"{path}/a/one", 1, 3) == b"ir"
    fs.mv(f"{path}/a", f"{path}/c", recursive=True)
    assert fs.find(path) == [f"{path}/a-b", f"{path}/c/b/two", f"{path}/c/one"]
    fs.rm(f"{path}/c", recursive=True)
    assert fs.find(path) == [f"{path}/a-b"]
    assert not fs.exists(f"{path}/c")


def test_what_is_not_there(top, tmp_path):
    """Missing files, databases and paths outside of any database are told as such; reading makes nothing."""
    fs, path = fsspec.url_to_fs(top)
    for missing in (f"{path}/none", str(tmp_path)):
        with pytest.raises(FileNotFoundError):
            fs.cat_file(missing)
        assert not fs.exists(missing)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IsADirectoryError):
        fs.pipe_file(path, b"")


def test_a_write_that_breaks_off_leaves_no_file(top):
    """A file appears when its block ends well."""
    fs, path = fsspec.url_to_fs(top)
    with pytest.raises(ZeroDivisionError), fs.open(f"{path}/half", "wb") as file:
        file.write(b"ha")
        raise ZeroDivisionError
    assert not fs.exists(f"{path}/half")


def test_one_of_many_processes_creates_a_file(top):
    """Also where the database itself is not there before: all are released at once, one is first."""
    path = top.removeprefix("sqlitefs://")
    command = [sys.executable, "-c", CREATE, f"{path}/a"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([*command, str(n)], **pipes) for n in range(6)]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    assert sorted(told) == ["first"] + ["taken"] * 5
    assert fsspec.filesystem("sqlitefs").cat_file(f"{path}/a") == b"%d" % told.index("first")


def test_transactions_by_url(top):
    """The entry points are enough: fstx begins, promises, writes and recovers at such URLs."""
    with fstx.begin(f"{top}/cube") as tx:
        tx.stage("parts/a", b"one")
        tx.stage("parts/b", b"two")
    assert {"ATOMIC_SET", "DURABLE"} <= {str(p.capability) for p in tx.guarantee.promises if p.kept}
    with fsspec.open(f"tx::{top}/cube/parts/b") as file:
        assert file.read() == b"two"
    assert not fstx.recover(f"{top}/cube")
    fstx.write(np.arange(6), f"{top}/more/a.npy")
    fstx.write(np.arange(7), f"{top}/more/a.npy", overwrite=True)
    with fsspec.open(f"tx::{top}/more/a.npy") as file:
        assert len(np.load(file)) == 7
    with fstx.begin([f"{top}/both/a", f"{top}/both/b"]) as tx:
        tx.stage("a", b"1")
        tx.stage("b/c", b"2")
    assert fsspec.open(f"tx::{top}/both/b/c").open().read() == b"2"
    assert fstx.recover(f"{top}/both/a").settled == ()


def test_targets_that_can_not_be(top, tmp_path):
    """A URL without a database, two databases, and options that nobody knows are refused, naming them."""
    with pytest.raises(fstx.PathError, match="names no database"):
        fstx.begin(f"sqlitefs://{tmp_path}/cube")
    with pytest.raises(fstx.PathError, match="one database"):
        fstx.begin([f"{top}/a", f"sqlitefs://{tmp_path}/other.db/b"])
    with pytest.raises(fstx.UsageError, match="speed"):
        fstx.begin(f"{top}/a", speed=11)
