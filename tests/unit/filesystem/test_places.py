"""Where the dataset of a name is."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from fstx.errors import PathError, UsageError
from support.txplaces import commits, content, opened


def test_the_given_path_becomes_the_root(target: str) -> None:
    """Protects the rule: without a dataset above, TARGET is the root once something is written below it."""
    fs, root = opened("tx::" + target)
    assert not fs.exists(root)
    fs.pipe_file(f"{root}/d/a", b"1")
    plain, _ = fsspec.core.url_to_fs(target)
    assert plain.exists(f"{root}/.fstx/dataset.json")
    assert not plain.exists(f"{root}/d/a")


def test_the_nearest_dataset_above_is_found(target: str) -> None:
    """Protects names below a dataset: they are part of it, as files of a repository are."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", b"1")
    below, path = opened(f"tx::{target}/x/y")
    below.pipe_file(path, b"2")
    below.pipe_file(f"{path}.z", b"3")
    assert content(target) == {"a": b"1", "x/y": b"2", "x/y.z": b"3"}
    assert commits(target) == 3
    assert fsspec.open(f"tx::{target}/x/y").open().read() == b"2"


def test_root_by_option(target: str) -> None:
    """Protects the explicit choice: a root may be named above the given path, also with plain files in it."""
    plain, root = fsspec.core.url_to_fs(target)
    plain.makedirs(root, exist_ok=True)
    plain.pipe_file(f"{root}/plain", b"p")
    fs, path = opened(f"tx::{target}/x", root=root)
    fs.pipe_file(path, b"1")
    assert content(target) == {"x": b"1"}
    protocol = "memory" if target.startswith("memory") else "file"
    same = fsspec.filesystem("tx", target_protocol=protocol, root=root)
    assert same.cat_file(f"{root}/x") == b"1"


def test_root_and_inner_path_apart(target: str) -> None:
    """Protects ``tx://INNER::TARGET``: TARGET is the root, names lie in it, whatever lies above."""
    fs, path = opened(f"tx://x/y::{target}")
    assert path == "x/y"
    fs.pipe_file(path, b"1")
    assert fs.find("") == ["x/y"]
    assert fs.ls("x", detail=False) == ["x/y"]
    assert fs.glob("x/*") == ["x/y"]
    assert fs.exists("")
    with fs.transaction:
        fs.cp("x/y", "z")
    assert content(target) == {"x/y": b"1", "z": b"1"}
    assert fsspec.open(f"tx://x/y::{target}").open().read() == b"1"


def test_a_place_with_plain_files_is_not_taken(target: str) -> None:
    """Protects plain data from being hidden by a dataset that nobody asked for."""
    plain, root = fsspec.core.url_to_fs(target)
    plain.makedirs(root, exist_ok=True)
    plain.pipe_file(f"{root}/old", b"p")
    fs, _ = opened("tx::" + target)
    assert fs.cat_file(f"{root}/old") == b"p"  # no dataset: read as it is
    with pytest.raises(UsageError, match="holds plain objects"):
        fs.pipe_file(f"{root}/new", b"1")
    with pytest.raises(UsageError, match="holds plain objects"), fs.transaction:
        pass
    assert [n.rpartition("/")[2] for n in plain.ls(root, detail=False)] == ["old"]


@pytest.mark.parametrize("mode", ["wb", "xb", "ab"])
def test_the_target_itself_is_one_plain_object(target: str, mode: str) -> None:
    """Protects single files: written atomically at their own name, with no log beside them."""
    plain, path = fsspec.core.url_to_fs(target)
    url = f"tx::{target}.bin"
    with pytest.raises(RuntimeError), fsspec.open(url, mode) as file:
        file.write(b"half")
        raise RuntimeError
    assert not plain.exists(path + ".bin")
    with fsspec.open(url, mode) as file:
        file.write(b"abc")
    assert plain.cat_file(path + ".bin") == b"abc"
    beside = [n.rpartition("/")[2] for n in plain.find(path.rpartition("/")[0])]
    assert beside == ["ds.bin"]
    with fsspec.open(url) as file:
        assert file.read() == b"abc"
    fs, name = opened(url)
    if mode == "xb":
        with pytest.raises(FileExistsError):
            fs.pipe_file(name, b"", mode="create")
    with fs.open(name, "ab") as file:
        file.write(b"d")
    assert fs.cat_file(name) == b"abcd"
    fs.cp_file(name, name + "2")
    fs.mv(name + "2", name + "3")
    assert plain.cat_file(name + "3") == b"abcd"
    fs.rm(name)
    assert not plain.exists(name)


def test_names_outside_of_datasets_are_read_as_they_are(tmp_path: Path) -> None:
    """Protects browsing from above: plain files and datasets side by side, control directories unseen."""
    (tmp_path / "plain.txt").write_bytes(b"p")
    fs = fsspec.filesystem("tx", target_protocol="file")
    opened(f"tx::file://{tmp_path}/ds")[0].pipe_file(f"{tmp_path}/ds/a", b"1")
    assert fs.ls(str(tmp_path), detail=False) == [f"{tmp_path}/ds", f"{tmp_path}/plain.txt"]
    assert fs.ls(f"{tmp_path}/ds", detail=False) == [f"{tmp_path}/ds/a"]
    fs.cp(f"{tmp_path}/plain.txt", f"{tmp_path}/ds/b")
    fs.cp(f"{tmp_path}/ds/a", f"{tmp_path}/out.txt")
    assert (tmp_path / "out.txt").read_bytes() == b"1"
    assert fs.cat_file(f"{tmp_path}/ds/b") == b"p"
    with pytest.raises(UsageError, match="outside of any dataset"):
        fs.rm(str(tmp_path), recursive=True)


def test_the_root_is_no_file(target: str) -> None:
    """Protects the root of a dataset from being written as if it were a file."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", b"1")
    with pytest.raises(PathError, match="root of a dataset"):
        fs.pipe_file(root, b"1")


def test_copies_between_datasets(target: str) -> None:
    """Protects copies across datasets of one target: bytes move, one commit there."""
    fs, root = opened("tx::" + target)
    fs.pipe({f"{root}/a": b"1", f"{root}/d/b": b"2"})
    other, top = opened(f"tx::{target}-2")
    other.pipe_file(f"{top}/x", b"")
    fs.cp(root, f"{top}/copy", recursive=True)
    assert content(target + "-2") == {"x": b"", "copy/a": b"1", "copy/d/b": b"2"}
    assert commits(target + "-2") == 2


def test_a_single_file_is_put_in_place(target: str, tmp_path: Path) -> None:
    """Protects ``put`` and ``cp`` of one file to TARGET itself: a plain object, also over an old one."""
    (tmp_path / "local").write_bytes(b"l")
    plain, path = fsspec.core.url_to_fs(target)
    for _ in range(2):
        fs, name = opened("tx::" + target)
        fs.put(str(tmp_path / "local"), name)
        assert plain.cat_file(path) == b"l"
    fs.cp(name, name + ".copy")
    assert plain.cat_file(path + ".copy") == b"l"


def test_existing_directories_are_directories(tmp_path: Path) -> None:
    """Protects empty directories that are there: made again by ``exist_ok``, then a dataset's root."""
    fs, root = opened(f"tx::file://{tmp_path}/d")
    (tmp_path / "d").mkdir()
    fs.makedirs(root, exist_ok=True)
    with pytest.raises(FileExistsError):
        fs.mkdir(root)
    fs.pipe_file(f"{root}/a", b"1")
    assert content(f"file://{tmp_path}/d") == {"a": b"1"}
