"""Bad input to local transactions: a clear error before a byte is written, and nothing left."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx.backends.local import LocalBackend, probe
from fstx.errors import (
    CapabilityError,
    CommitError,
    ConflictError,
    PathError,
    StorageError,
    TargetExistsError,
    TransactionError,
    UsageError,
)
from support.killer import KillerOps
from support.trees import plant, tree


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory with content that must be there, and nothing else, at the end."""
    root = tmp_path / "root"
    old = {"t/a": b"1", "t/s/b": b"2", "file": b"f", "e/": b""}
    plant(root, old)
    yield root
    assert tree(root) == old


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("", PathError, "empty"),
        ("  ", PathError, "empty"),
        ("a\0b", PathError, "NUL"),
        ("file://", PathError, "names no path"),
        ("/", PathError, "root of a file system"),
        ("{root}/.fstx", PathError, "library's own"),
        ("{root}/t/.fstx/x", PathError, "library's own"),
        ("{root}/file", PathError, "is a file"),
        ("{root}/file/below", PathError, "not a directory"),
        ("{root}/file/below/it", PathError, "not a directory"),
        ("nosuch://bucket/x", CapabilityError, "no backend for nosuch"),
        (b"bytes", PathError, "must be|URL or a list"),
        (17, PathError, "URL or a list"),
        (None, PathError, "URL or a list"),
        ([], PathError, "list of targets is empty"),
        (["{root}/x", "{root}/x"], PathError, "differ"),
        (["{root}/x", "{root}/X"], PathError, "differ"),
        (["{root}/t", "{root}/t/new"], PathError, "lies in the target"),
        (["{root}/x", "memory://x"], PathError, "share a scheme"),
        ("{root}/" + "n" * 300, (PathError, StorageError), "n" * 20),
    ],
)
def test_bad_targets(place: Path, url: Any, kind: Any, says: str) -> None:
    """Issue, bad input: wrong URLs and targets are refused by name."""

    def fill(text: Any) -> Any:
        return text.replace("{root}", str(place)) if isinstance(text, str) else text

    given = [fill(u) for u in url] if isinstance(url, list) else fill(url)
    with pytest.raises(kind, match=says) as caught:
        fstx.begin(given)
    assert isinstance(caught.value, TransactionError)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/abs",
        "..",
        "../x",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        "a\0b",
        "a\\b",
        "a\nb",
        "C:/x",
        ".fstx/x",
        ".FSTX/x",
        "d/.fstx/x",
        "x" * 256,
        3,
        None,
    ],
)
@pytest.mark.parametrize("method", ["stage", "open", "remove", "read"])
def test_bad_paths(place: Path, path: Any, method: str) -> None:
    """PATH-1, PATH-4: refused by every method before anything is written."""
    with fstx.begin(place / "t") as tx:
        before = tree(place / ".fstx")
        with pytest.raises(PathError):
            if method == "stage":
                tx.stage(path, b"x")
            elif method == "open":
                with tx.open(path):
                    raise AssertionError("opened")
            elif method == "remove":
                tx.remove(path)
            else:
                tx.read(path)
        assert tree(place / ".fstx") == before


@pytest.mark.parametrize(
    ("first", "second"),
    [("x", "x/y"), ("x/y", "x"), ("n/x", "N/y"), ("x.tif", "X.TIF"), ("\u00e9", "e\u0301")],
)
def test_clashes_within_a_transaction(place: Path, first: str, second: str) -> None:
    """PATH-2, PATH-3: a file that is a directory as well, names that differ by case alone."""
    tx = fstx.begin(place / "t")
    tx.stage(first, b"1")
    with pytest.raises(PathError) as caught:
        tx.stage(second, b"2")
    assert repr(second.partition("/")[0])[1:-1] in str(caught.value)
    tx.rollback()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("s", "is a directory"),
        ("a/x", "is a file"),
        ("link/x", "symbolic link"),
        ("link", "symbolic link"),
        ("s/out/x", "symbolic link"),
    ],
)
def test_clashes_with_the_target(tmp_path: Path, path: str, says: str) -> None:
    """PATH-5: nothing is written through a link or over something of another kind; all rolled back."""
    plant(tmp_path, {"t/a": b"1", "t/s/b": b"2", "away/x": b"3"})
    (tmp_path / "t" / "link").symlink_to(tmp_path / "away")
    (tmp_path / "t" / "s" / "out").symlink_to("/")
    before = tree(tmp_path)
    with pytest.raises(PathError, match=says), fstx.begin(tmp_path / "t") as tx:
        tx.stage("fine", b"x")
        tx.stage(path, b"x")
    assert tree(tmp_path) == before


def test_links_are_not_read_through(tmp_path: Path) -> None:
    """PATH-5: reading through a link below the target is refused; removing a link removes the link."""
    plant(tmp_path, {"t/a": b"1", "away/x": b"3"})
    (tmp_path / "t" / "link").symlink_to(tmp_path / "away")
    with fstx.begin(tmp_path / "t") as tx:
        with pytest.raises(PathError, match="symbolic link"):
            tx.read("link/x")
        tx.remove("link")
    assert tree(tmp_path) == {"t/a": b"1", "away/x": b"3"}


def test_link_as_target_means_what_it_points_to(tmp_path: Path) -> None:
    """A link as the last part is resolved once, at begin; it stays a link."""
    plant(tmp_path, {"real/t/a": b"1"})
    (tmp_path / "t").symlink_to(tmp_path / "real" / "t")
    with fstx.begin(tmp_path / "t", mode="replace") as tx:
        tx.stage("b", b"2")
    assert tree(tmp_path / "real") == {"t/b": b"2"}
    assert (tmp_path / "t").is_symlink()


def test_link_under_a_target_put_in_between(tmp_path: Path) -> None:
    """PATH-5: a directory of the target swapped for a link before commit is a conflict or refused."""
    plant(tmp_path, {"t/s/b": b"1", "away/keep": b"k"})
    tx = fstx.begin(tmp_path / "t")
    tx.stage("s/b", b"2")
    (tmp_path / "t" / "s").rename(tmp_path / "moved")
    (tmp_path / "t" / "s").symlink_to(tmp_path / "away")
    with pytest.raises((PathError, CommitError)):
        tx.commit()
    assert tree(tmp_path / "away") == {"keep": b"k"}
    assert not (tmp_path / ".fstx").exists()


@pytest.mark.parametrize("mode", ["create", "replace", "update"])
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_parent_that_refuses(place: Path, mode: Any, number: int) -> None:
    """Issue, bad input: an unwritable parent is a StorageError with the errno and the place's name."""
    probe._seen.clear()
    ops = KillerOps(fail_at=1, error=number, sticky=True)
    backend = LocalBackend([str(place / "new" / "t")], joined=False, ops=ops)
    with pytest.raises(StorageError, match=str(place)) as caught:
        backend.begin(mode=mode, durability="data", require=frozenset())
    assert caught.value.errno == number
    assert isinstance(caught.value.__cause__, OSError)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts what is asked for; fails where a mount should be possible (root) and is not."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    made: list[Path] = []

    def mounted(name: str, *options: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", *options, str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode and "permission denied" in done.stderr.lower():
            pytest.skip("this container may not mount")
        assert done.returncode == 0, done.stderr
        made.append(folder)
        return folder

    yield mounted
    for folder in reversed(made):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_no_space_left(mount: Callable[..., Path]) -> None:
    """Issue, bad input: a full disk while staging: StorageError(ENOSPC), target as it was, nothing left."""
    root = mount("small", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    plant(root, {"t/a": b"1"})
    with pytest.raises(StorageError, match="No space left") as caught, fstx.begin(root / "t") as tx:
        tx.stage("small", b"x" * 1000)
        for n in range(100):
            tx.stage(f"big{n}", b"x" * 65536)
    assert caught.value.errno == errno.ENOSPC
    assert "big" in str(caught.value)
    assert tree(root) == {"t/a": b"1"}
    with fstx.begin(root / "t") as tx:
        tx.stage("small", b"x" * 1000)
    assert tree(root) == {"t/a": b"1", "t/small": b"x" * 1000}


def test_no_space_left_in_an_open_file(mount: Callable[..., Path]) -> None:
    """The same through `tx.open`, where the buffer is flushed when the block ends."""
    root = mount("small", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    with (
        pytest.raises((StorageError, OSError), match="No space left"),
        fstx.begin(root / "t") as tx,
        tx.open("big") as file,
    ):
        for _ in range(40):
            file.write(b"x" * 65536)
    assert tree(root) == {}


def test_read_only_mount(mount: Callable[..., Path], tmp_path: Path) -> None:
    """Issue, bad input: a read-only mount is refused at begin, naming the place."""
    root = mount("ro", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    plant(root, {"t/a": b"1"})
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    for mode in ("create", "replace", "update"):
        with pytest.raises(StorageError, match="Read-only") as caught:
            fstx.begin(root / "t" if mode != "create" else root / "new", mode=mode)  # type: ignore[arg-type]
        assert caught.value.errno == errno.EROFS
        assert str(root) in str(caught.value)
    assert not fstx.recover(root / "t")
    assert tree(root) == {"t/a": b"1"}


def test_target_on_another_mount(mount: Callable[..., Path], tmp_path: Path) -> None:
    """A20: a target that is a mount point of its own can't be renamed into: refused at begin."""
    plant(tmp_path, {"root/t/": b"", "root/other": b"o"})
    mount("root/t", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    plant(tmp_path / "root" / "t", {"a": b"1"})
    for mode in ("replace", "update"):
        with pytest.raises(CapabilityError, match="another mount"):
            fstx.begin(tmp_path / "root" / "t", mode=mode)  # type: ignore[arg-type]
    assert tree(tmp_path / "root") == {"t/a": b"1", "other": b"o"}


def test_bind_mount_of_the_same_device(mount: Callable[..., Path], tmp_path: Path) -> None:
    """A20: st_dev does not tell a bind mount; the probe does, before a byte is written."""
    plant(tmp_path, {"source/a": b"1", "root/t/": b""})
    mount("root/t", "--bind", str(tmp_path / "source"))
    assert os.stat(tmp_path / "root").st_dev == os.stat(tmp_path / "root" / "t").st_dev
    with pytest.raises(CapabilityError, match="another mount"):
        fstx.begin(tmp_path / "root" / "t")
    assert tree(tmp_path / "root") == {"t/a": b"1"}


def test_mount_below_the_target(mount: Callable[..., Path], tmp_path: Path) -> None:
    """A20: a mount further down shows at commit: refused, nothing published, nothing left."""
    plant(tmp_path, {"root/t/a": b"1", "root/t/m/": b""})
    mount("root/t/m", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    plant(tmp_path / "root" / "t" / "m", {"x": b"1"})
    with pytest.raises((CommitError, CapabilityError)), fstx.begin(tmp_path / "root" / "t") as tx:
        tx.stage("a", b"2")
        tx.stage("m/x", b"2")
    assert tree(tmp_path / "root") == {"t/a": b"1", "t/m/x": b"1"}


def test_targets_on_two_mounts(mount: Callable[..., Path], tmp_path: Path) -> None:
    """A20: targets whose parents lie on different mounts are refused at begin."""
    other = mount("other", "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    (tmp_path / "root").mkdir()
    with pytest.raises(CapabilityError, match="another mount"):
        fstx.begin([tmp_path / "root" / "t", other / "u"])
    assert tree(tmp_path / "root") == {}
    assert tree(other) == {}


def test_create_over_something(place: Path) -> None:
    """A19: refused before a byte is written; an empty directory counts as absent (A18)."""
    for name in ("t", "file"):
        with pytest.raises(TargetExistsError, match=name) as caught:
            fstx.begin([place / name], mode="create")
        assert isinstance(caught.value, FileExistsError)
    fstx.begin(place / "e", mode="create").rollback()


@pytest.mark.parametrize(
    "arguments",
    [
        {"mode": "append"},
        {"durability": "full"},
        {"require": "FASTER"},
        {"require": ["x"]},
        {"id": ""},
        {"id": 3},
        {"id": "a\nb"},
        {"entry": "../x"},
        {"entry": "/x"},
        {"nosuch": 1},
    ],
)
def test_bad_arguments(place: Path, arguments: dict[str, Any]) -> None:
    """A8: refused by name before anything is made."""
    with pytest.raises(UsageError):
        fstx.begin(place / "t", **arguments)


def test_require_is_refused_before_a_byte(place: Path) -> None:
    """I1: what is not promised is refused with the reason and the ways out."""
    with pytest.raises(CapabilityError, match=r"SNAPSHOTS.*one version.*Ways out"):
        fstx.begin(place / "new" / "t", require="SNAPSHOTS")
    with pytest.raises(CapabilityError, match="loss of power"):
        fstx.begin(place / "t", durability="none", require=["DURABLE"])
    with pytest.raises(CapabilityError, match="entry="):
        fstx.begin(place / "t", require="ATOMIC_SET")


def test_receipt_of_another(place: Path) -> None:
    """A receipt of another transaction, or a forged one, is refused."""
    from dataclasses import replace

    with fstx.begin(place / "t") as one, fstx.begin(place / "e") as two:
        foreign = two.stager().stage("x", b"x")
        with pytest.raises(UsageError, match="belongs to"):
            one.adopt([foreign])
        forged = replace(foreign, key="a/../owner.json")
        with pytest.raises(UsageError, match="key"):
            two.adopt([forged])
        lying = replace(foreign, size_bytes=2)
        with pytest.raises(StorageError, match="not there whole"):
            two.adopt([lying])
        two.rollback()


def test_conflict_is_no_storage_error(place: Path) -> None:
    """Errors pickle and keep what they carry."""
    import pickle

    with fstx.begin(place / "n", mode="create") as tx:
        with pytest.raises(ConflictError) as caught:
            fstx.begin(place / "n", mode="create")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.retryable, str(again)) == (True, str(caught.value))
        tx.rollback()
