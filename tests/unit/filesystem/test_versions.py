"""Which version an instance reads."""

from __future__ import annotations

import pickle
from pathlib import Path

import fsspec
import pytest

import fstx
from fstx.errors import UsageError
from fstx.filesystem import TxFileSystem
from support.txplaces import commits, content, opened


def test_an_instance_reads_one_version(target: str) -> None:
    """Protects readers of many files from a mixture: one instance, one version; a new one, the newest."""
    writer, root = opened("tx::" + target)
    writer.pipe({f"{root}/a": b"1", f"{root}/b": b"1"})
    reader, _ = opened("tx::" + target)
    assert reader.cat_file(f"{root}/a") == b"1"
    writer.pipe({f"{root}/a": b"2", f"{root}/b": b"2"})
    assert reader.cat_file(f"{root}/b") == b"1"
    assert reader.info(f"{root}/b")["version"] == 1
    assert opened("tx::" + target)[0].cat_file(f"{root}/b") == b"2"
    assert writer.cat_file(f"{root}/b") == b"2"
    reader.invalidate_cache()
    assert reader.cat_file(f"{root}/b") == b"2"


def test_an_instance_moves_on_when_it_writes(target: str) -> None:
    """Protects read-after-write, and that a writer sees what others wrote before."""
    one, root = opened("tx::" + target)
    one.pipe_file(f"{root}/a", b"1")
    assert one.find(root) == [f"{root}/a"]
    two, _ = opened("tx::" + target)
    two.pipe_file(f"{root}/b", b"2")
    assert one.find(root) == [f"{root}/a"]
    one.pipe_file(f"{root}/c", b"3")
    assert one.find(root) == [f"{root}/{n}" for n in "abc"]


def test_an_open_file_keeps_its_content(target: str) -> None:
    """Protects a reader of one file from commits in the middle."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", b"1" * 100_000)
    with fs.open(f"{root}/a", "rb", block_size=10_000) as file:
        assert file.read(10) == b"1" * 10
        fs.pipe_file(f"{root}/a", b"2" * 100_000)
        assert file.read() == b"1" * 99_990


def test_versions_by_option(target: str) -> None:
    """Protects old versions: readable by number, never written to; a held one does not move."""
    fs, root = opened("tx::" + target)
    for n in range(1, 4):
        fs.pipe_file(f"{root}/a", b"%d" % n)
    old, _ = opened("tx::" + target, version=2)
    assert old.cat_file(f"{root}/a") == b"2"
    for call in (lambda: old.pipe_file(f"{root}/a", b""), lambda: old.rm(f"{root}/a")):
        with pytest.raises(UsageError, match="can't be written"):
            call()
    with pytest.raises(UsageError, match="can't be written"), old.transaction:
        pass
    held, _ = opened("tx::" + target, snapshot=True)
    assert held.cat_file(f"{root}/a") == b"3"
    fs.pipe_file(f"{root}/a", b"4")
    held.invalidate_cache()
    assert held.cat_file(f"{root}/a") == b"3"
    with fs.reading() as block:
        assert block.cat_file(f"{root}/a") == b"4"
        fs.pipe_file(f"{root}/a", b"5")
        assert block.cat_file(f"{root}/a") == b"4"
    with fs.reading(version=1) as block:
        assert block.cat_file(f"{root}/a") == b"1"
    with fs.reading(pin=True) as block:
        fs.pipe_file(f"{root}/a", b"6")
        assert block.cat_file(f"{root}/a") == b"5"
        plain, path = fsspec.core.url_to_fs(target)
        assert len(plain.find(f"{path}/.fstx/pin")) == 1
    assert not plain.find(f"{path}/.fstx/pin")
    with pytest.raises(FileNotFoundError, match="no version 99"):
        opened("tx::" + target, version=99)[0].ls(root)


def test_instances_are_not_shared(target: str) -> None:
    """Protects one user's version from another's calls; equal arguments still make equal instances."""
    one, _ = opened("tx::" + target)
    two, _ = opened("tx::" + target)
    assert one is not two
    assert one == two
    assert hash(one) == hash(two)


def test_pickles_read_the_same_version(target: str) -> None:
    """Protects workers of one reader: what they get reads what their sender read."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", b"1")
    reader, _ = opened("tx::" + target)
    unread = pickle.dumps(reader)
    assert reader.cat_file(f"{root}/a") == b"1"
    sent = pickle.dumps(reader)
    fs.pipe_file(f"{root}/a", b"2")
    assert pickle.loads(sent).cat_file(f"{root}/a") == b"1"
    assert pickle.loads(unread).cat_file(f"{root}/a") == b"2"
    with reader.open(f"{root}/a") as file:
        assert pickle.loads(pickle.dumps(file)).read() == b"1"


def test_json_makes_the_same_file_system(target: str) -> None:
    """Protects zarr, which makes its own instance through JSON, an asynchronous one."""
    import json

    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", b"1")
    made = json.loads(fs.to_json())
    made["asynchronous"] = True
    again = fsspec.AbstractFileSystem.from_json(json.dumps(made))
    assert isinstance(again, TxFileSystem)
    assert again.asynchronous
    assert fsspec.asyn.sync(fsspec.asyn.get_loop(), again._cat_file, f"{root}/a") == b"1"


def test_repr_tells_place_and_version_and_no_secret(target: str) -> None:
    """Protects logs: worth reading, without credentials."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", b"1")
    fs.ls(root)
    assert "version 1" in repr(fs)
    assert root in repr(fs)
    secret = fsspec.filesystem(
        "tx", target_protocol="memory", target_options={"secret": "hunter22"}, root="/x"
    )
    assert "hunter22" not in repr(secret)
    assert commits(target) == 1
    assert content(target) == {"a": b"1"}


def test_a_version_that_was_collected_is_no_empty_one(tmp_path: Path) -> None:
    """Protects from fill values in place of data: what a held version lost is an error, no absent path."""
    url = f"tx::{tmp_path}/ds"
    with fstx.begin(url) as tx:
        for i in range(3000):
            tx.stage(f"c/{i}", bytes([i % 251]) * 4000 if i < 3 else b"x")
    reader, root = fsspec.url_to_fs(url)
    assert len(reader.cat_file(f"{root}/c/0")) == 4000
    with fstx.begin(url, mode="replace") as tx:
        tx.stage("new", b"n")
    fstx.dataset(url).collect(keep=1, older_than_s=0, dry_run=False)
    with pytest.raises(fstx.StorageError, match="not whole any more"):
        reader.cat_file(f"{root}/c/1")
    reader.invalidate_cache()
    assert reader.cat_file(f"{root}/new") == b"n"
