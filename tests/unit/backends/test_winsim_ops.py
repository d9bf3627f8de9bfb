"""The Windows calls of the local backend over a simulated Windows, on a clock of its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from fstx.ops import FileKind
from fstx.ops._retry import Patience
from fstx.ops._wincrt import extended, plain
from fstx.ops.windows import WindowsOps, name_problem
from support.winsim import Killed, SimDisk, windows_error


class Clock:
    """Time that passes only in `sleep`; ``at`` runs things when their time comes."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []
        self.at: list[tuple[float, Callable[[], Any]]] = []

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now_s += pause_s
        due = [item for item in self.at if item[0] <= self.now_s]
        self.at = [item for item in self.at if item not in due]
        for _, call in due:
            call()

    def monotonic(self) -> float:
        return self.now_s


class Machine:
    """A disk with files ``a``, ``b``, directory ``e`` with ``x`` inside, empty directory ``d``."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        for name in ("a", "b"):
            (root / name).write_text(name)
        (root / "e").mkdir()
        (root / "e/x").write_text("x")
        (root / "d").mkdir()
        self.disk = SimDisk(str(root), **options)
        self.clock = Clock()
        self.ops = self.process()

    def process(self, kill_at: int | None = None) -> WindowsOps:
        clock = self.clock
        return WindowsOps(
            self.disk.process(kill_at),
            sleep=clock.sleep,
            monotonic=clock.monotonic,
            jitter=lambda: 0.999,
        )

    def at(self, name: str) -> str:
        return str(self.root / name)

    def tree(self) -> dict[str, str | None]:
        return {
            str(p.relative_to(self.root)): p.read_text() if p.is_file() else None
            for p in sorted(self.root.rglob("*"))
        }


Boot: TypeAlias = Callable[..., Machine]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Starts the machine, with options; it is shut down after the test."""
    machines: list[Machine] = []

    def start(**options: Any) -> Machine:
        machines.append(Machine(tmp_path, **options))
        return machines[0]

    yield start
    for machine in machines:
        machine.disk.shut_down()


@pytest.fixture
def pc(boot: Boot) -> Machine:
    return boot()


# --- patience ------------------------------------------------------------------------------------


def test_pauses_double_to_a_cap_within_the_budget() -> None:
    """Retry policy: 10 ms doubling to 500 ms, 5 s in all, then EBUSY with the code kept."""
    clock = Clock()

    def refuse() -> None:
        raise windows_error(32, "f")

    patience = Patience(5.0, clock.sleep, clock.monotonic, lambda: 1.0)
    with pytest.raises(OSError, match="32") as caught:
        patience.run(refuse, lambda error: True)
    assert clock.pauses[:7] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5])
    assert set(clock.pauses[6:]) == {0.5}
    assert 4.0 < clock.now_s <= 5.0
    assert (caught.value.errno, caught.value.winerror) == (errno.EBUSY, 32)  # type: ignore[attr-defined]


def test_jitter_takes_up_to_half_of_a_pause() -> None:
    """Processes that met the same obstacle must not come back in step."""
    clock = Clock()
    with pytest.raises(OSError, match="WinError"):
        Patience(0.05, clock.sleep, clock.monotonic, lambda: 0.0).run(
            lambda: _raise(windows_error(5, "f")), lambda error: True
        )
    assert clock.pauses == pytest.approx([0.005, 0.01, 0.02])


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("code", [2, 3, 17, 87, 123, 183, 1, 64, 121])
def test_other_codes_are_final(pc: Machine, code: int) -> None:
    """Only 5, 32 and 33 are waited for; 64 and 121 not on a local disk."""
    pc.disk.script = [code]
    with pytest.raises(OSError, match=str(code)):
        pc.ops.rename_new(pc.at("a"), pc.at("n"))
    assert pc.clock.pauses == []


@pytest.mark.parametrize("code", [5, 32, 33])
def test_passing_codes_are_waited_for(pc: Machine, code: int) -> None:
    """A18/A23 on Windows: a passing obstacle does not fail a commit."""
    pc.disk.script = [code, code, 0]
    pc.ops.rename_new(pc.at("a"), pc.at("n"))
    assert len(pc.clock.pauses) == 2
    assert pc.tree()["n"] == "a"


@pytest.mark.parametrize("calls", range(1, 7))
def test_antivirus_lets_go_in_time(boot: Boot, calls: int) -> None:
    """A scanner that holds each new entry for 1 to 6 calls delays calls and fails none."""
    pc = boot(antivirus_calls=calls)
    pc.ops.mkdir(pc.at("t"))
    with pc.ops.open_new(pc.at("t/y")) as file:
        file.write(b"y")
        pc.ops.sync_file(file)
    pc.ops.rename_new(pc.at("t"), pc.at("u"))
    pc.ops.rename(pc.at("u"), pc.at("d"))
    pc.ops.replace_file(pc.at("d/y"), pc.at("b"))
    pc.ops.unlink(pc.at("b"))
    pc.ops.rmdir(pc.at("d"))
    assert pc.clock.pauses
    assert pc.tree() == {"a": "a", "e": None, "e/x": "x"}


@pytest.mark.parametrize(
    ("call", "held", "code"),
    [
        (lambda pc: pc.ops.rename(pc.at("e"), pc.at("n")), "e/x", 5),
        (lambda pc: pc.ops.rename(pc.at("e"), pc.at("n")), "e", 32),
        (lambda pc: pc.ops.rename_new(pc.at("a"), pc.at("n")), "a", 32),
        (lambda pc: pc.ops.replace_file(pc.at("a"), pc.at("b")), "b", 5),
        (lambda pc: pc.ops.replace_file(pc.at("a"), pc.at("b")), "a", 32),
        (lambda pc: pc.ops.unlink(pc.at("a")), "a", 32),
        (lambda pc: pc.ops.rmdir(pc.at("d")), "d", 32),
        (lambda pc: pc.ops.rename(pc.at("e"), pc.at("d")), "d", 32),
    ],
)
def test_permanent_reader(pc: Machine, call: Any, held: str, code: int) -> None:
    """A reader that stays makes the call fail as busy after the budget, and nothing is changed."""
    before = pc.tree()
    pc.disk.hold(pc.at(held))
    with pytest.raises(PermissionError) as caught:
        call(pc)
    assert (caught.value.errno, caught.value.winerror) == (errno.EBUSY, code)  # type: ignore[attr-defined]
    assert 4.0 < pc.clock.now_s <= 5.0
    assert pc.tree() == before


def test_reader_that_leaves(pc: Machine) -> None:
    """A file held for 0.4 s is waited for, not much longer than that."""
    handle = pc.disk.hold(pc.at("e/x"))
    pc.clock.at.append((0.4, lambda: pc.disk.let_go(handle)))
    pc.ops.rename(pc.at("e"), pc.at("n"))
    assert pc.tree()["n/x"] == "x"
    assert 0.4 <= pc.clock.now_s < 1.0


@pytest.mark.parametrize("call", ["open_read", "open_again"])
def test_directories_are_told_from_refusals(pc: Machine, call: str) -> None:
    """Reading a directory is "no such file" to callers, at once, and never "denied"."""
    with pytest.raises(IsADirectoryError):
        getattr(pc.ops, call)(pc.at("e"))
    assert pc.clock.pauses == []


# --- causes that stay ----------------------------------------------------------------------------


def test_read_only_target_is_refused_at_once(pc: Machine) -> None:
    """The read-only attribute does not pass: EACCES without a pause, the file intact."""
    os.chmod(pc.at("b"), 0o444)
    with pytest.raises(PermissionError) as caught:
        pc.ops.replace_file(pc.at("a"), pc.at("b"))
    assert caught.value.errno == errno.EACCES
    assert pc.clock.pauses == []
    assert (pc.tree()["a"], pc.tree()["b"]) == ("a", "b")


def test_unlink_takes_read_only_files(pc: Machine) -> None:
    """Displaced trees hold read-only files too; they must not stay in the trash for ever."""
    os.chmod(pc.at("a"), 0o444)
    pc.ops.unlink(pc.at("a"))
    assert "a" not in pc.tree()


def test_unlink_refused_leaves_the_attribute(pc: Machine) -> None:
    """A call that fails changes nothing, the cleared attribute included."""
    os.chmod(pc.at("a"), 0o444)
    pc.disk.hold(pc.at("a"))
    with pytest.raises(PermissionError):
        pc.ops.unlink(pc.at("a"))
    assert not os.stat(pc.at("a")).st_mode & 0o200


@pytest.mark.parametrize(("src", "dst"), [("e", "b"), ("a", "d"), ("e", "d")])
def test_replace_file_never_takes_a_directory(pc: Machine, src: str, dst: str) -> None:
    """os.replace of a directory over a file succeeds on Windows and destroys the file."""
    before = pc.tree()
    with pytest.raises(IsADirectoryError):
        pc.ops.replace_file(pc.at(src), pc.at(dst))
    assert pc.tree() == before


def test_unlink_of_a_directory(pc: Machine) -> None:
    """Refused at once, and never waited for."""
    with pytest.raises(IsADirectoryError):
        pc.ops.unlink(pc.at("d"))
    assert pc.clock.pauses == []


def test_rmdir_of_a_full_directory_is_final(pc: Machine) -> None:
    """145 is waited for only while the content is being deleted: this one is not."""
    with pytest.raises(OSError, match="145") as caught:
        pc.ops.rmdir(pc.at("e"))
    assert caught.value.errno == errno.ENOTEMPTY
    assert pc.clock.pauses == []


def test_rmdir_waits_for_pending_deletions(boot: Boot) -> None:
    """A deleted file keeps its name while a reader has it open (before Windows 10 1809)."""
    pc = boot(posix_delete=False)
    handle = pc.disk.hold(pc.at("e/x"), share="rwd")
    pc.ops.unlink(pc.at("e/x"))
    assert "e/x" in pc.tree()
    pc.clock.at.append((0.1, lambda: pc.disk.let_go(handle)))
    pc.ops.rmdir(pc.at("e"))
    assert "e" not in pc.tree()
    assert pc.clock.pauses


def test_new_file_waits_for_a_pending_deletion(boot: Boot) -> None:
    """The name of a file that is going is taken until its last reader closes."""
    pc = boot(posix_delete=False)
    handle = pc.disk.hold(pc.at("a"), share="rwd")
    pc.ops.unlink(pc.at("a"))
    pc.clock.at.append((0.1, lambda: pc.disk.let_go(handle)))
    with pc.ops.open_new(pc.at("a")) as file:
        file.write(b"new")
    assert pc.tree()["a"] == "new"


@pytest.mark.parametrize("call", ["open_new", "mkdir"])
def test_unwritable_parent_costs_no_wait(pc: Machine, call: str) -> None:
    """A denial where the name is free comes from the directory: final, so errors come at once."""
    pc.disk.script = [5]
    with pytest.raises(PermissionError) as caught:
        getattr(pc.ops, call)(pc.at("n"))
    assert caught.value.errno == errno.EACCES
    assert pc.clock.pauses == []


# --- trees ---------------------------------------------------------------------------------------


def test_rename_takes_an_empty_directory(pc: Machine) -> None:
    """A18: an empty target directory is accepted, where the system refuses any existing one."""
    pc.ops.rename(pc.at("e"), pc.at("d"))
    assert pc.tree() == {"a": "a", "b": "b", "d": None, "d/x": "x"}


def test_empty_directory_comes_back(pc: Machine) -> None:
    """A18: where the rename fails after all, the empty directory is there again."""
    before = pc.tree()
    pc.disk.hold(pc.at("e/x"))
    with pytest.raises(PermissionError):
        pc.ops.rename(pc.at("e"), pc.at("d"))
    assert pc.tree() == before


def test_rename_refuses_full_directories_and_files(pc: Machine) -> None:
    """Nothing but an empty directory is ever renamed over."""
    before = pc.tree()
    for src, dst in [("d", "e"), ("e", "a"), ("a", "b"), ("a", "d")]:
        with pytest.raises(FileExistsError):
            pc.ops.rename(pc.at(src), pc.at(dst))
    assert pc.tree() == before


def test_rename_new_refuses_an_empty_directory(pc: Machine) -> None:
    """First wins: rename_new refuses whatever is there, without a wait."""
    with pytest.raises(FileExistsError):
        pc.ops.rename_new(pc.at("e"), pc.at("d"))
    assert pc.clock.pauses == []


def test_kill_inside_the_empty_directory_case(pc: Machine) -> None:
    """A23: a kill between the two calls loses no content: the staged tree is where it was."""
    ops = pc.process(kill_at=2)
    with pytest.raises(Killed):
        ops.rename(pc.at("e"), pc.at("d"))
    assert pc.tree() == {"a": "a", "b": "b", "e": None, "e/x": "x"}


def test_case_change_of_an_empty_directory(pc: Machine) -> None:
    """One directory under another spelling is not "an empty directory in the way"."""
    pc.ops.rename(pc.at("d"), pc.at("D"))
    assert "D" in pc.tree()


# --- lost answers --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [64, 121])
def test_share_answers_late(boot: Boot, code: int) -> None:
    """On a network share a lost request is repeated."""
    pc = boot(remote=True)
    pc.disk.script = [code, code]
    pc.ops.rename_new(pc.at("a"), pc.at("n"))
    assert pc.tree()["n"] == "a"


@pytest.mark.parametrize("name", ["rename", "replace", "remove", "rmdir", "link"])
def test_share_loses_the_answer_of_a_done_call(boot: Boot, name: str) -> None:
    """A call that took effect is not reported as failed: settled by looking, not by repeating."""
    pc = boot(remote=True)
    crt: Any = pc.disk.process()
    done = getattr(crt, name)

    def lossy(*paths: str) -> None:
        done(*paths)
        raise windows_error(64, paths[0])

    setattr(crt, name, lossy)
    ops = WindowsOps(crt, sleep=pc.clock.sleep, monotonic=pc.clock.monotonic)
    calls: dict[str, Callable[[], None]] = {
        "rename": lambda: ops.rename_new(pc.at("a"), pc.at("n")),
        "replace": lambda: ops.replace_file(pc.at("a"), pc.at("b")),
        "remove": lambda: ops.unlink(pc.at("a")),
        "rmdir": lambda: ops.rmdir(pc.at("d")),
        "link": lambda: ops.link_new(pc.at("a"), pc.at("n")),
    }
    calls[name]()
    assert pc.clock.pauses == []


def test_share_that_is_gone(boot: Boot) -> None:
    """A share that stays away ends as an I/O error, never as "not supported"."""
    pc = boot(remote=True)
    pc.disk.script = [64] * 99
    with pytest.raises(OSError, match="64") as caught:
        pc.ops.rename_new(pc.at("a"), pc.at("n"))
    assert caught.value.errno == errno.EIO


# --- locks ---------------------------------------------------------------------------------------


def test_lock_excludes_and_dies_with_its_process(pc: Machine) -> None:
    """Liveness is a held lock: another process gets it only after the death of the holder."""
    crt = pc.disk.process()
    first = WindowsOps(crt, sleep=pc.clock.sleep, monotonic=pc.clock.monotonic)
    assert first.lock(pc.at("l"), wait_s=0) is not None
    assert pc.ops.lock(pc.at("l"), wait_s=0) is None
    assert pc.ops.lock(pc.at("l"), wait_s=0.3) is None
    assert 0.25 < pc.clock.now_s <= 0.31
    crt.die()
    held = pc.ops.lock(pc.at("l"), wait_s=0)
    assert held is not None
    held.release()
    held.release()  # a second release does nothing
    assert "l" not in pc.tree()


def test_lock_is_waited_for(pc: Machine) -> None:
    """A waiter gets the lock once the holder lets go, under one and the same name."""
    first = pc.process().lock(pc.at("l"), wait_s=0)
    assert first is not None
    pc.clock.at.append((0.2, first.release))
    second = pc.ops.lock(pc.at("l"), wait_s=5)
    assert second is not None
    assert pc.process().lock(pc.at("l"), wait_s=0) is None
    second.release()
    assert "l" not in pc.tree()


def test_release_leaves_the_file_to_its_next_holder(pc: Machine) -> None:
    """Deleting a lock file that another has locked would give two holders of one name."""
    first = pc.process().lock(pc.at("l"), wait_s=0)
    assert first is not None
    waiter = pc.disk.process()
    file = waiter.open(pc.at("l"), "a+b")
    file_lock = waiter.lock
    assert not file_lock(file.fileno())
    sim_let_go = pc.disk.let_go

    def let_go_and_hand_over(handle: Any) -> None:
        sim_let_go(handle)
        file_lock(file.fileno())

    pc.disk.let_go = let_go_and_hand_over  # type: ignore[method-assign]
    first.release()
    pc.disk.let_go = sim_let_go  # type: ignore[method-assign]
    assert "l" in pc.tree()
    assert pc.ops.lock(pc.at("l"), wait_s=0) is None
    assert pc.clock.pauses == []


def test_release_outlasts_the_antivirus(boot: Boot) -> None:
    """A scanner that looks at the lock file must not leave it behind."""
    pc = boot(antivirus_calls=4)
    held = pc.ops.lock(pc.at("l"), wait_s=0)
    assert held is not None
    held.release()
    assert "l" not in pc.tree()


def test_lock_in_a_forbidden_directory(pc: Machine) -> None:
    """ "May not" is not "is held": it is raised."""
    pc.disk.script = [5]
    with pytest.raises(PermissionError):
        pc.ops.lock(pc.at("l"), wait_s=1)


# --- looking, reading, names ---------------------------------------------------------------------


def test_looking(pc: Machine) -> None:
    """Identity by device and inode; links and junctions are never directories."""
    (pc.root / "s").symlink_to("e")
    found = pc.ops.lstat(pc.at("a"))
    real = os.lstat(pc.at("a"))
    assert found is not None
    assert (found.kind, found.dev, found.ino) == (FileKind.FILE, real.st_dev, real.st_ino)
    assert (found.size_bytes, found.mtime_ns) == (1, real.st_mtime_ns)
    assert pc.ops.lstat(pc.at("no")) is None
    assert pc.ops.lstat(pc.at("no/no")) is None
    assert dict(pc.ops.scandir(str(pc.root))) == {
        "a": FileKind.FILE,
        "b": FileKind.FILE,
        "d": FileKind.TREE,
        "e": FileKind.TREE,
        "s": FileKind.LINK,
    }


def test_read_file_and_its_limit(pc: Machine) -> None:
    """A record longer than allowed is refused unread (REC-4)."""
    assert pc.ops.read_file(pc.at("a"), 1) == b"a"
    with pytest.raises(OSError, match="longer") as caught:
        pc.ops.read_file(pc.at("a"), 0)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(FileNotFoundError):
        pc.ops.read_file(pc.at("no"), 1)
    assert pc.disk.handles == []


def test_reading_waits_for_an_exclusive_scanner(pc: Machine) -> None:
    """Recovery reads records that a scanner may hold at that moment."""
    handle = pc.disk.hold(pc.at("a"), share="")
    pc.clock.at.append((0.1, lambda: pc.disk.let_go(handle)))
    assert pc.ops.read_file(pc.at("a"), 9) == b"a"


def test_what_windows_has_not(pc: Machine) -> None:
    """Missing calls say so, or do nothing where the contract allows it."""
    with pytest.raises(OSError, match="exchange") as caught:
        pc.ops.exchange(pc.at("d"), pc.at("e"))
    assert caught.value.errno == errno.ENOSYS
    assert pc.ops.open_fs(pc.at("d")) is None
    pc.ops.sync_dir(pc.at("d"))
    pc.disk.script = [1]
    with pytest.raises(OSError, match="WinError 1") as caught:
        pc.ops.link_new(pc.at("a"), pc.at("n"))
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize(
    "name", ["a:b", "x?", "nul", "COM1.tif", "aux .txt", "dot.", "space ", "tab\t", "LPT²", "a*"]
)
def test_names_that_windows_cannot_hold(pc: Machine, name: str) -> None:
    """Long paths go round the system's own check; an unreadable file must not come out of that."""
    before = pc.tree()
    assert name_problem(name) is not None
    for call in (
        lambda: pc.ops.open_new(pc.at(name)),
        lambda: pc.ops.mkdir(pc.at(name)),
        lambda: pc.ops.rename_new(pc.at("a"), pc.at(name)),
        lambda: pc.ops.replace_file(pc.at("a"), pc.at(name)),
        lambda: pc.ops.link_new(pc.at("a"), pc.at(name)),
    ):
        with pytest.raises(OSError, match="name") as caught:
            call()
        assert caught.value.errno == errno.EINVAL
    assert pc.tree() == before


@pytest.mark.parametrize("name", ["console", "nulls.txt", ".fstx", "com0", "a.b", "tile_0_0.tif"])
def test_names_that_windows_can_hold(name: str) -> None:
    """Not more is refused than must be."""
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("path", "long"),
    [
        ("C:\\a\\b", "\\\\?\\C:\\a\\b"),
        ("\\\\host\\share\\a", "\\\\?\\UNC\\host\\share\\a"),
        ("\\\\?\\C:\\a", "\\\\?\\C:\\a"),
        ("\\\\.\\NUL", "\\\\.\\NUL"),
    ],
)
def test_long_form_of_paths(path: str, long: str) -> None:
    """A staging path is longer than its target's; 260 characters must not matter, nor show in URLs."""
    assert extended(path) == long
    assert plain(long) == path.removeprefix("\\\\?\\")
