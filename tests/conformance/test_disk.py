"""The simulated disk: known sequences of calls, and all that a loss of power may leave of them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fstx.backends.local import native_ops
from fstx.errors import UsageError
from fstx_conformance.schedule import parse
from fstx_conformance.seams.disk import Disk, Loss, Model, UnseenError
from fstx_conformance.seams.diskops import DiskOps
from fstx_conformance.subjects.disks import files_in

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the calls of POSIX")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk that holds two synced files and a directory."""
    root = tmp_path / "disk"
    (root / "d").mkdir(parents=True)
    (root / "a").write_bytes(b"aaaa")
    (root / "b").write_bytes(b"bbbb")
    return Disk(root)


@pytest.fixture
def ops(disk: Disk) -> DiskOps:
    return DiskOps(disk, native_ops())


def write(ops: DiskOps, name: str, data: bytes, *, sync: bool = False) -> None:
    with ops.open_new(os.path.join(ops.disk.root, name)) as file:
        file.write(data)
        if sync:
            ops.sync_file(file)


def at(disk: Disk, name: str) -> str:
    return os.path.join(disk.root, name)


def trees(disk: Disk, model: Model = "posix", upto: int | None = None) -> list[dict[str, bytes]]:
    """What may be found, each put on the disk and read from there; no two alike but for inodes."""
    disk.forget_open_files()
    found = []
    for state in disk.states(upto or len(disk.log), model, random.Random(0)):
        disk.boot(state)
        tree = files_in(disk.root)
        assert tree is not None
        if tree not in found:
            found.append(tree)
    return found


def same(found: list[dict[str, bytes]], expected: list[dict[str, bytes]]) -> bool:
    def key(tree: dict[str, bytes]) -> list[tuple[str, bytes]]:
        return sorted(tree.items())

    return sorted(found, key=key) == sorted(expected, key=key)


OLD = {"a": b"aaaa", "b": b"bbbb", "d/": b""}


def test_unsynced_new_file(disk: Disk, ops: DiskOps) -> None:
    """A file that was made and written: absent, empty, zeros, half, or there."""
    write(ops, "n", b"nnnn")
    expected = [OLD] + [OLD | {"n": n} for n in (b"", b"\0\0\0\0", b"nn", b"nnnn")]
    assert same(trees(disk), expected)


def test_synced_file_without_its_name(disk: Disk, ops: DiskOps) -> None:
    """A file's sync covers its content, not its name; on a journal of metadata it takes the name along."""
    write(ops, "n", b"nnnn", sync=True)
    assert same(trees(disk), [OLD, OLD | {"n": b"nnnn"}])


def test_synced_file_in_the_ordered_model(disk: Disk, ops: DiskOps) -> None:
    """A journal of metadata is written with every sync, so the name is there too."""
    write(ops, "n", b"nnnn", sync=True)
    assert same(trees(disk, "ordered"), [OLD | {"n": b"nnnn"}])


def test_synced_directory(disk: Disk, ops: DiskOps) -> None:
    """After the sync of the directory the name is there, and the content still is not."""
    write(ops, "n", b"nnnn")
    ops.sync_dir(disk.root)
    expected = [OLD | {"n": n} for n in (b"", b"\0\0\0\0", b"nn", b"nnnn")]
    assert same(trees(disk), expected)


def test_temporary_file_and_rename_without_sync(disk: Disk, ops: DiskOps) -> None:
    """The rename may come through without the content: an old file is gone for an empty one."""
    write(ops, "t", b"new!")
    ops.replace_file(at(disk, "t"), at(disk, "a"))
    for model in ("posix", "ordered"):
        assert OLD | {"a": b""} in trees(disk, model), model


def test_temporary_file_synced_and_renamed(disk: Disk, ops: DiskOps) -> None:
    """With the content synced first the file is old or new, whatever else lies there."""
    write(ops, "t", b"new!", sync=True)
    ops.replace_file(at(disk, "t"), at(disk, "a"))
    found = trees(disk)
    assert {tree["a"] for tree in found} == {b"aaaa", b"new!"}
    assert same(found, [OLD, OLD | {"t": b"new!"}, {**OLD, "a": b"new!"}])


def test_rename_between_directories(disk: Disk, ops: DiskOps) -> None:
    """A rename is one operation: durable when both directories are synced, one name at any time."""
    ops.rename(at(disk, "a"), at(disk, "d/a"))
    moved = {"b": b"bbbb", "d/a": b"aaaa"}
    assert same(trees(disk), [OLD, moved])


def test_rename_between_directories_half_synced(disk: Disk, ops: DiskOps) -> None:
    """Half of the directories synced is not enough in the posix model, and is in the ordered one."""
    ops.rename(at(disk, "a"), at(disk, "d/a"))
    ops.sync_dir(at(disk, "d"))
    moved = {"b": b"bbbb", "d/a": b"aaaa"}
    assert same(trees(disk, "posix"), [OLD, moved])
    disk.boot(disk.state(len(disk.log), Loss()))
    assert same(trees(disk, "ordered"), [moved])


def test_any_subset_or_a_suffix(disk: Disk, ops: DiskOps) -> None:
    """Three changes: eight subsets in the posix model, four prefixes in the ordered one."""
    for name in ("x", "y", "z"):
        ops.mkdir(at(disk, name))
    prefixes = [OLD | {f"{n}/": b"" for n in names} for names in ("", "x", "xy", "xyz")]
    assert same(trees(disk, "ordered"), prefixes)
    subsets = [
        OLD | {f"{n}/": b"" for n in names}
        for names in ("", "x", "y", "z", "xy", "xz", "yz", "xyz")
    ]
    assert same(trees(disk, "posix"), subsets)


def test_nothing_is_moved_that_is_not_there(disk: Disk, ops: DiskOps) -> None:
    """A rename of a file is lost with the operation that made the file's name."""
    write(ops, "n", b"n", sync=True)
    ops.rename(at(disk, "n"), at(disk, "m"))
    assert same(trees(disk), [OLD, OLD | {"n": b"n"}, OLD | {"m": b"n"}])


def test_what_a_durable_change_took_is_durable(disk: Disk, ops: DiskOps) -> None:
    """A durable rename makes the creation durable that it took its file from."""
    write(ops, "d/n", b"n", sync=True)
    ops.rename(at(disk, "d/n"), at(disk, "n"))
    ops.sync_dir(disk.root)
    ops.sync_dir(at(disk, "d"))
    assert same(trees(disk), [OLD | {"n": b"n"}])


def test_exchange_and_links(disk: Disk, ops: DiskOps) -> None:
    """An exchange is whole or not at all; a hard link shares its content after the loss too."""
    ops.exchange(at(disk, "a"), at(disk, "b"))
    assert same(trees(disk), [OLD, OLD | {"a": b"bbbb", "b": b"aaaa"}])
    again = disk.boot(disk.state(len(disk.log), Loss()))
    DiskOps(again, native_ops()).link_new(at(again, "a"), at(again, "l"))
    assert same(
        trees(again), [OLD | {"a": b"bbbb", "b": b"aaaa"} | x for x in ({}, {"l": b"bbbb"})]
    )
    linked = again.boot(again.state(len(again.log), Loss()))
    assert os.stat(at(linked, "l")).st_ino == os.stat(at(linked, "a")).st_ino


def test_sync_of_the_file_system(disk: Disk, ops: DiskOps) -> None:
    """After `sync_fs` nothing before it can be lost."""
    write(ops, "n", b"nnnn")
    ops.rename(at(disk, "n"), at(disk, "d/n"))
    fd = os.open(disk.root, os.O_RDONLY)
    ops.sync_fs(fd)
    os.close(fd)
    assert same(trees(disk), [{"a": b"aaaa", "b": b"bbbb", "d/n": b"nnnn"}])


def test_removed_directory_needs_no_sync(disk: Disk, ops: DiskOps) -> None:
    """What was moved out of a directory that is durably gone is durable."""
    write(ops, "d/n", b"n", sync=True)
    ops.sync_dir(at(disk, "d"))
    ops.rename(at(disk, "d/n"), at(disk, "n"))
    ops.rmdir(at(disk, "d"))
    ops.sync_dir(disk.root)
    assert same(trees(disk), [{"a": b"aaaa", "b": b"bbbb", "n": b"n"}])


def test_update_in_place(disk: Disk, ops: DiskOps) -> None:
    """A file that was written again: as it was, half new, zeros, or new."""
    with ops.open_again(at(disk, "a")) as file:
        file.write(b"AAAA")
    states = [b"aaaa", b"AAAA", b"AAaa", b"\0\0\0\0"]
    assert same(trees(disk), [OLD | {"a": a} for a in states])


def test_writes_past_the_file_object(disk: Disk, ops: DiskOps) -> None:
    """What is written by the descriptor alone is seen by the next call, in its order."""
    file = ops.open_new(at(disk, "n"))
    os.writev(file.fileno(), [b"one ", b"two"])
    ops.sync_file(file)
    os.write(file.fileno(), b" three")
    file.close()
    ops.sync_dir(disk.root)
    found = {tree["n"] for tree in trees(disk)}
    assert found == {b"one two", b"one two three", bytes(13)}


def test_locks_are_files(disk: Disk, ops: DiskOps) -> None:
    """A lock's file may outlive the loss of power, and nobody holds it then."""
    lock = ops.lock(at(disk, "l"), wait_s=0.0)
    assert lock is not None
    taken = len(disk.log)
    lock.release()
    assert same(trees(disk, upto=taken), [OLD, OLD | {"l": b""}])
    again = disk.boot(disk.state(taken, Loss()))
    other = DiskOps(again, native_ops()).lock(at(again, "l"), wait_s=0.0)
    assert other is not None
    other.release()


def test_inodes_outlive_the_loss(disk: Disk, ops: DiskOps) -> None:
    """A file is the same one after the loss: its number and time are kept, and no number comes twice."""
    write(ops, "n", b"n", sync=True)
    known = ops.lstat(at(disk, "n"))
    gone = ops.lstat(at(disk, "a"))
    ops.unlink(at(disk, "a"))
    booted = disk.boot(disk.state(len(disk.log), Loss()))
    calls = DiskOps(booted, native_ops())
    assert calls.lstat(at(booted, "n")) == known
    write(calls, "a", b"other")
    fresh = calls.lstat(at(booted, "a"))
    assert gone is not None
    assert fresh is not None
    assert fresh.ino != gone.ino


def test_second_loss(disk: Disk, ops: DiskOps) -> None:
    """What survived a loss of power is durable; what came after it can be lost in turn."""
    write(ops, "n", b"n", sync=True)
    booted = disk.boot(disk.state(len(disk.log), Loss()))
    calls = DiskOps(booted, native_ops())
    calls.rename(at(booted, "n"), at(booted, "m"))
    assert same(trees(booted), [OLD | {"n": b"n"}, OLD | {"m": b"n"}])


def test_links_and_empty_directories_come_back(tmp_path: Path) -> None:
    """Symbolic links that lay on the disk are put back as links."""
    root = tmp_path / "disk"
    (root / "e").mkdir(parents=True)
    (root / "l").symlink_to("e")
    disk = Disk(root)
    DiskOps(disk, native_ops()).mkdir(str(root / "n"))
    disk.boot(disk.state(len(disk.log), Loss(frozenset({1}))))
    assert os.readlink(root / "l") == "e"
    assert sorted(os.listdir(root)) == ["e", "l"]


def test_what_goes_round_the_seam_is_refused(disk: Disk, ops: DiskOps) -> None:
    """A file that was made behind the disk's back is an error, not a wrong verdict."""
    Path(at(disk, "x")).write_bytes(b"x")
    with pytest.raises(UnseenError, match="did not see"):
        ops.unlink(at(disk, "x"))


# --- names of losses --------------------------------------------------------------------------------------


def test_every_state_is_found_again_by_its_name(disk: Disk, ops: DiskOps) -> None:
    """A state's name, through the text of a schedule, gives the same state."""
    write(ops, "n", b"nnnn")
    ops.mkdir(at(disk, "m"))
    ops.rename(at(disk, "n"), at(disk, "m/n"))
    k = len(disk.log)
    states = list(disk.states(k, "posix", random.Random(0)))
    assert len(states) > 10
    assert len({str(s.loss) for s in states}) == len(states)
    for state in states:
        again = parse(f"seed=1; power#{k}={state.loss}").faults[0]
        assert again.nth == k
        assert disk.state(k, Loss.parse(again.action)).key == state.key


@pytest.mark.parametrize(
    "text", ["kept", "lost(3)", "lost(3,5-7)+torn(2)", "unwritten(1-4)+zero(9)"]
)
def test_names_of_losses(text: str) -> None:
    """A name is read and spelled alike, in a schedule too."""
    assert str(Loss.parse(text)) == text
    assert str(parse(f"recoverer: power#2={text}").faults[0]) == f"recoverer: power#2={text}"


@pytest.mark.parametrize("text", ["", "lost", "lost()", "gone(3)", "lost(3)torn(2)", "lost(a)"])
def test_bad_names_of_losses(text: str) -> None:
    """A name that says nothing is refused."""
    with pytest.raises(UsageError):
        Loss.parse(text)


def test_a_loss_of_what_is_not_loose(disk: Disk, ops: DiskOps) -> None:
    """A replay on another run than its own is refused, not silently another state."""
    ops.mkdir(at(disk, "x"))
    with pytest.raises(UsageError, match="number 7"):
        disk.state(1, Loss.parse("lost(7)"))


def test_many_loose_changes_are_sampled(disk: Disk, ops: DiskOps) -> None:
    """Of many changes: none lost, all lost, each one lost, each one kept, and draws that the seed gives."""
    names = [f"x{n:02}" for n in range(12)]
    for name in names:
        ops.mkdir(at(disk, name))

    def drawn(seed: int) -> list[str]:
        found = disk.states(len(disk.log), "posix", random.Random(seed), limit=30, draws=20)
        return [str(s.loss) for s in found]

    told = drawn(1)
    numbers = range(1, 13)
    rest = {n: Loss(frozenset(numbers) - {n}) for n in numbers}
    for expected in [
        "kept",
        "lost(1-12)",
        *(f"lost({n})" for n in numbers),
        *map(str, rest.values()),
    ]:
        assert expected in told
    assert len(told) > 30
    assert told == drawn(1)
    assert told != drawn(2)
