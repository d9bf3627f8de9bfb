"""Single calls outside of a transaction: each is a commit of its own."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import fsspec
import pytest

from fstx.errors import ConflictError, UsageError
from support.txplaces import commits, content, leftovers, opened


def test_each_call_is_one_commit(target: str, tmp_path: Path) -> None:
    """Protects the rule for bare calls, bulk ones too: one call, one commit."""
    fs, root = opened("tx::" + target)
    local = tmp_path / "tree"
    (local / "sub").mkdir(parents=True)
    (local / "one").write_bytes(b"1")
    (local / "sub" / "two").write_bytes(b"2")
    calls = [
        lambda: fs.pipe_file(f"{root}/a", b"a"),
        lambda: fs.pipe({f"{root}/b": b"b", f"{root}/c/d": b"d"}),
        lambda: fs.put(str(local), f"{root}/tree", recursive=True),
        lambda: fs.cp(f"{root}/tree", f"{root}/copy", recursive=True),
        lambda: fs.mv(f"{root}/copy", f"{root}/moved", recursive=True),
        lambda: fs.rm(f"{root}/moved", recursive=True),
        lambda: fs.rm([f"{root}/b", f"{root}/a"]),
        lambda: fs.touch(f"{root}/empty"),
        lambda: fs.mkdir(f"{root}/directory"),
    ]
    for n, call in enumerate(calls, 1):
        call()
        assert commits(target) == n
    assert content(target) == {"c/d": b"d", "tree/one": b"1", "tree/sub/two": b"2", "empty": b""}
    assert fs.isdir(f"{root}/directory")


def test_a_failed_bulk_call_changes_nothing(target: str) -> None:
    """Protects bulk calls: a missing name among many undoes all of them."""
    fs, root = opened("tx::" + target)
    fs.pipe({f"{root}/a": b"a", f"{root}/b": b"b"})
    with pytest.raises(FileNotFoundError):
        fs.rm([f"{root}/a", f"{root}/absent"])
    with pytest.raises(FileNotFoundError):
        fs.mv(f"{root}/absent", f"{root}/c")
    assert content(target) == {"a": b"a", "b": b"b"}
    assert commits(target) == 1


def test_copies_move_no_bytes(target: str) -> None:
    """Protects cp and mv: the new name leads to the object that is there."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", bytes(100_000))
    before = leftovers(target)
    fs.cp(f"{root}/a", f"{root}/b")
    fs.mv(f"{root}/a", f"{root}/c")
    assert leftovers(target) == before
    assert sorted(content(target)) == ["b", "c"]
    assert fs.ukey(f"{root}/b") != fs.ukey(f"{root}/c")  # names are part of it
    assert fs.info(f"{root}/b")["etag"] == fs.info(f"{root}/c")["etag"]


def test_ranges(target: str) -> None:
    """Protects partial reads: as slices of the content."""
    fs, root = opened("tx::" + target)
    data = bytes(range(256)) * 40
    fs.pipe_file(f"{root}/a", data)
    for start, end in [(None, None), (3, 9), (-5, None), (None, -7), (9, 3), (0, 10**6), (-20, -4)]:
        assert fs.cat_file(f"{root}/a", start, end) == data[start:end]
    found = fs.cat_ranges([f"{root}/a"] * 2, [0, -4], [4, None])
    assert found == [data[:4], data[-4:]]
    with pytest.raises(FileNotFoundError):
        fs.cat_file(f"{root}/b")
    with pytest.raises(IsADirectoryError):
        fs.cat_file(root)


def test_listing(target: str) -> None:
    """Protects listings: details as fsspec wants them, the control directory never shown."""
    fs, root = opened("tx::" + target)
    with pytest.raises(FileNotFoundError):
        fs.ls(root)
    fs.pipe({f"{root}/a": b"abc", f"{root}/d/e/f": b"f"})
    fs.mkdir(f"{root}/void")
    assert fs.ls(root, detail=False) == [f"{root}/a", f"{root}/d", f"{root}/void"]
    assert fs.find(root) == [f"{root}/a", f"{root}/d/e/f"]
    found = fs.find(root, withdirs=True, detail=True)
    directories = [n for n, i in found.items() if i["type"] == "directory"]
    assert directories == [root, f"{root}/d", f"{root}/d/e", f"{root}/void"]
    assert fs.find(root, maxdepth=1) == [f"{root}/a"]
    assert fs.find(root, maxdepth=2, withdirs=True) == [
        root, f"{root}/a", f"{root}/d", f"{root}/d/e", f"{root}/void",
    ]  # fmt: skip
    assert fs.glob(f"{root}/**") == fs.find(root, withdirs=True)
    assert fs.glob(f"{root}/d*/*/f") == [f"{root}/d/e/f"]
    assert fs.info(f"{root}/a")["size"] == 3
    assert fs.info(f"{root}/d") == {"name": f"{root}/d", "size": 0, "type": "directory"}
    assert fs.du(root) == 4
    assert not fs.exists(f"{root}/.fstx")
    with pytest.raises(FileNotFoundError):
        fs.pipe_file(f"{root}/.fstx/x", b"")


def test_directories(target: str) -> None:
    """Protects directories: made on purpose they stay when empty, and go only when they are."""
    fs, root = opened("tx::" + target)
    fs.makedirs(root)
    assert fs.isdir(root)
    assert commits(target) == 0  # the dataset itself, no version
    fs.makedirs(root, exist_ok=True)
    with pytest.raises(FileExistsError):
        fs.mkdir(root)
    fs.mkdir(f"{root}/d")
    with pytest.raises(FileExistsError):
        fs.mkdir(f"{root}/d")
    with pytest.raises(FileNotFoundError):
        fs.mkdir(f"{root}/x/y", create_parents=False)
    fs.pipe_file(f"{root}/d/a", b"")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(f"{root}/d")
    with pytest.raises(IsADirectoryError):
        fs.rm(f"{root}/d")
    with pytest.raises(IsADirectoryError):
        fs.pipe_file(f"{root}/d", b"")
    with pytest.raises(NotADirectoryError):
        fs.pipe_file(f"{root}/d/a/b", b"")
    with pytest.raises(NotADirectoryError):
        fs.makedirs(f"{root}/d/a/b", exist_ok=True)
    fs.rm(f"{root}/d/a")
    assert fs.isdir(f"{root}/d")
    fs.rmdir(f"{root}/d")
    assert not fs.exists(f"{root}/d")
    with pytest.raises(FileNotFoundError):
        fs.rmdir(f"{root}/d")


def test_removing_the_root_empties_it(target: str) -> None:
    """Protects older versions from ``rm -r`` of the whole: it is one more commit."""
    fs, root = opened("tx::" + target)
    fs.pipe({f"{root}/a": b"abc", f"{root}/d/e": b"f"})
    fs.rm(root, recursive=True)
    assert content(target) == {}
    old, _ = opened("tx::" + target, version=1)
    assert old.cat_file(f"{root}/a") == b"abc"


def test_files(target: str) -> None:
    """Protects open files: binary, text, append, exclusive, compressed, large."""
    fs, root = opened("tx::" + target)
    with fs.open(f"{root}/a", "wb") as file:
        assert file.write(b"abc") == 3
        assert file.tell() == 3
        assert not fs.exists(f"{root}/a")
    with fs.open(f"{root}/a", "ab") as file:
        assert file.tell() == 3
        file.write(b"def")
    with fs.open(f"{root}/a", "rb") as file:
        assert file.seek(2) == 2
        assert file.read() == b"cdef"
        assert file.details["size"] == 6
    with fs.open(f"{root}/t", "w", encoding="utf-8") as file:
        file.write("äö\n")
    with fs.open(f"{root}/t", "r", encoding="utf-8") as file:
        assert list(file) == ["äö\n"]
    with fs.open(f"{root}/t.gz", "wt", compression="infer") as file:
        file.write("text")
    with fs.open(f"{root}/t.gz", "rt", compression="infer") as file:
        assert file.read() == "text"
    big = bytes(range(256)) * (80 << 10)  # 20 MiB: in parts
    with fs.open(f"{root}/big", "wb") as file:
        file.write(big[: 9 << 20])
        file.write(big[9 << 20 :])
    assert fs.cat_file(f"{root}/big") == big
    with pytest.raises(UsageError, match="written whole"):
        fs.open(f"{root}/a", "r+b")
    with pytest.raises(FileExistsError):
        fs.open(f"{root}/a", "xb")
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{root}/a", b"", mode="create")
    with fs.open(f"{root}/x", "xb") as file:
        file.write(b"x")
    assert fs.cat_file(f"{root}/x") == b"x"


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("mode", ["wb", "wt", "xb", "ab"])
@pytest.mark.parametrize("by", ["instance", "fsspec.open"])
def test_an_exception_discards_the_file(
    target: str, mode: str, compression: str | None, by: str
) -> None:
    """Protects readers from halves: a block that raises publishes nothing, however the file is wrapped."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/other", b"1")
    name = f"{root}/a"
    if mode == "ab":
        fs.pipe_file(name, b"old")
    before = (content(target), commits(target), leftovers(target))
    file = (
        fs.open(name, mode, compression=compression)
        if by == "instance"
        else fsspec.open(f"tx::{target}/a", mode, compression=compression)
    )
    with pytest.raises(RuntimeError, match="in the block"), file as opened_file:
        opened_file.write("x" if mode == "wt" else b"x")
        raise RuntimeError("in the block")
    assert (content(target), commits(target), leftovers(target)) == before


def test_closing_while_another_error_is_handled_publishes(target: str) -> None:
    """Protects error reports: a file that is opened and closed in a handler is written."""
    fs, root = opened("tx::" + target)
    try:
        raise ValueError("before")
    except ValueError:
        with fs.open(f"{root}/report", "w") as file:
            file.write("it failed")
    file = fs.open(f"{root}/late", "wb")
    try:
        raise ValueError("while it is open")
    except ValueError:
        file.write(b"so what")
        file.close()
    assert content(target) == {"report": b"it failed", "late": b"so what"}


def test_a_dropped_file_is_discarded(target: str) -> None:
    """Protects from halves that the garbage collector would publish."""
    fs, root = opened("tx::" + target)
    file = fs.open(f"{root}/a", "wb")
    file.write(b"x")
    with pytest.warns(ResourceWarning, match="never closed"):
        file.__del__()
    del file
    assert content(target) == {}


def test_commit_of_one_file_by_hand(target: str) -> None:
    """Protects fsspec's per-file primitive: ``autocommit=False``, then commit or discard."""
    fs, root = opened("tx::" + target)
    for name in "ab":
        file = fs.open(f"{root}/{name}", "wb", autocommit=False)
        file.write(b"x")
        file.close()
        assert not fs.exists(f"{root}/{name}")
        file.commit() if name == "a" else file.discard()
    assert content(target) == {"a": b"x"}


def test_one_of_many_creates(target: str) -> None:
    """Protects exclusive creation: of several writers exactly one gets the name."""
    _, root = opened("tx::" + target)
    opened("tx::" + target)[0].pipe_file(f"{root}/first", b"")
    won: list[int] = []
    barrier = threading.Barrier(6)

    def create(n: int) -> None:
        fs, _ = opened("tx::" + target)
        with fs.open(f"{root}/a", "xb") as file:
            file.write(bytes([n]))
            barrier.wait()
        won.append(n)

    def attempt(n: int) -> None:
        with contextlib.suppress(FileExistsError):
            create(n)

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert content(target)["a"] == bytes(won)


def test_two_that_append_do_not_lose_each_other(target: str) -> None:
    """Protects appended data: the second of two learns that the file changed under it."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", b"0")
    first, second = fs.open(f"{root}/a", "ab"), fs.open(f"{root}/a", "ab")
    first.write(b"1")
    second.write(b"2")
    first.close()
    with pytest.raises(ConflictError):
        second.close()
    assert content(target) == {"a": b"01"}


def test_get_and_put(target: str, tmp_path: Path) -> None:
    """Protects transfers to and from the local disk."""
    fs, root = opened("tx::" + target)
    fs.pipe({f"{root}/a": b"abc", f"{root}/d/e": b"f"})
    fs.get(root, str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out" / "d" / "e").read_bytes() == b"f"
    fs.put_file(str(tmp_path / "out" / "a"), f"{root}/b")
    assert fs.cat_file(f"{root}/b") == b"abc"
    with pytest.raises(FileExistsError):
        fs.put_file(str(tmp_path / "out" / "a"), f"{root}/b", mode="create")
    assert fs.modified(f"{root}/b").year > 2000
    with pytest.raises(NotImplementedError):
        fs.sign(f"{root}/b")
