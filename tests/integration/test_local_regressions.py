"""Transactions on local directories: what once went wrong, and must not again."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fstx
from fstx import changes, machines
from fstx.backends.local import open_backend, perform
from fstx.backends.local.perform import Performer
from fstx.errors import (
    CommitError,
    ConflictError,
    PathError,
    StateError,
    StorageError,
    TargetExistsError,
    UsageError,
)
from fstx.ops import Stat
from fstx.ops.posix import PosixOps
from fstx.types import OutcomeState
from support.killer import KillerOps
from support.trees import plant, tree, without_receipts

X = "a" * 32
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def forked(job: Callable[[], Any]) -> Callable[[], Any]:
    """Run in a forked child; the result is what calling the answer gives (an exception as its text)."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            found: Any = job()
        except BaseException as error:  # noqa: BLE001 - for the parent
            found = repr(error)
        with open(writing, "wb") as file:
            pickle.dump(found, file)
        os._exit(0)
    os.close(writing)

    def answer() -> Any:
        with open(reading, "rb") as file:
            found = pickle.load(file)
        os.waitpid(pid, 0)
        return found

    return answer


# --- links in the control directory --------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "locks", "done", X, f"{X}.fenced", f"{X}.trash", f"{X}.alive", f"{X}.ref", "probe-1"],
)
def test_links_in_the_control_directory_lead_nowhere(tmp_path: Path, name: str) -> None:
    """PATH-5: whatever link lies in a control directory, nothing is made or deleted behind it."""
    root, victim = tmp_path / "p", tmp_path / "victim"
    plant(
        victim,
        {"precious": b"p", "sub/x": b"q", "a.tmp": b"", "locks/l": b"", "a/b": b"", "s/c": b""},
    )
    before = tree(victim)
    root.mkdir()
    if name:
        (root / ".fstx").mkdir()
    if name.startswith(X) and not name.endswith(".alive"):
        (root / ".fstx" / f"{X}.alive").touch()
    (root / ".fstx" / name).symlink_to(victim)
    for use in (
        lambda: _write(root / "t", "x", id="key"),
        lambda: fstx.recover(root / "t"),
        lambda: _write(root / "t", "y"),
    ):
        try:
            use()
        except fstx.TransactionError as error:
            assert ".fstx" in str(error)  # noqa: PT017 - it may be refused; then it says where
        assert tree(victim) == before


@pytest.mark.parametrize("name", ["locks", "done"])
def test_folder_that_becomes_a_link_meanwhile(tmp_path: Path, name: str) -> None:
    """PATH-5: the same for a folder that is exchanged for a link while a transaction is open."""
    root, victim = tmp_path / "p", tmp_path / "victim"
    victim.mkdir()
    tx = fstx.begin(root / "t", id="key")
    tx.stage("x", b"1")
    place = root / ".fstx" / name
    shutil.rmtree(place, ignore_errors=True)
    place.symlink_to(victim)
    if name == "locks":
        with pytest.raises(CommitError):
            tx.commit()
    else:
        assert tx.commit().pending  # published; its receipt can't be written yet
        place.unlink()
        assert fstx.recover(root / "t").settled[0].state is OutcomeState.COMMITTED
    assert tree(victim) == {}


def test_a_dangling_lock_of_a_stranger_does_not_block(tmp_path: Path) -> None:
    """REC-7: a name that can't be locked is no reason to refuse others."""
    (tmp_path / ".fstx").mkdir()
    (tmp_path / ".fstx" / f"{X}.alive").symlink_to("/nonexistent")
    _write(tmp_path / "t", "x")
    assert tree(tmp_path)["t/x"] == b"1"


@pytest.mark.parametrize("name", [".fstx", "locks"])
def test_a_folder_that_goes_between_two_looks(tmp_path: Path, name: str) -> None:
    """CTRL-3: the last user of a control directory may leave at any moment; who comes makes it anew."""

    class Leaving(PosixOps):
        times = 0

        def mkdir(self, path: str) -> None:
            if os.path.basename(path) == name and self.times < 3:
                self.times += 1
                raise FileExistsError(path)
            super().mkdir(path)

    ops = Leaving()
    backend = open_backend([str(tmp_path / "t")], ops=ops)
    with backend.begin(mode="update", durability="none", require=frozenset()) as tx:
        tx.stage("x", b"1")
    assert ops.times == 3
    assert tree(tmp_path) == {"t/x": b"1"}


def _write(target: Path, path: str, **how: Any) -> None:
    with fstx.begin(target, **how) as tx:
        tx.stage(path, b"1")


@pytest.mark.parametrize("id", ["../foo", "../../foo", "/", "a/b"])
def test_outcome_of_an_odd_id_touches_nothing(tmp_path: Path, id: str) -> None:
    """A24: an id is a key, never a path."""
    plant(tmp_path, {"p/.fstx/": b"", "p/foo/": b"", "p/foo.alive": b"user", "foo/x": b"user"})
    before = tree(tmp_path)
    assert fstx.outcome(tmp_path / "p" / "t", id) is OutcomeState.UNKNOWN
    assert tree(tmp_path) == before


# --- nothing of others is displaced --------------------------------------------------------------


@pytest.mark.parametrize("mode", ["create", "replace"])
@pytest.mark.parametrize("kind", ["file", "directory", "transaction"])
@pytest.mark.parametrize("joined", [False, True])
def test_what_appeared_meanwhile_stays(tmp_path: Path, mode: Any, kind: str, joined: bool) -> None:
    """A27: a target that was absent at begin is never replaced, whoever made it since."""
    target = tmp_path / "t"
    tx = fstx.begin([target] if joined else target, mode=mode)
    tx.stage("t" if joined and kind == "file" else "t/x" if joined else "x", b"mine")
    if kind == "file":
        target.write_bytes(b"theirs")
    elif kind == "directory":
        plant(tmp_path, {"t/theirs": b"theirs"})
    else:
        _write(target, "theirs")
    before = tree(target) if target.is_dir() else target.read_bytes()
    with pytest.raises(TargetExistsError if mode == "create" else ConflictError, match="created"):
        tx.commit()
    assert (tree(target) if target.is_dir() else target.read_bytes()) == before
    assert os.listdir(tmp_path) == ["t"]


class Watching(PosixOps):
    """Does something once, right after the k-th look at one path."""

    def __init__(self, path: Path, k: int, act: Callable[[], None]) -> None:
        super().__init__()
        self.path, self.k, self.act, self.looks = str(path), k, act, 0

    def lstat(self, path: str) -> Stat | None:
        found = super().lstat(path)
        if path == self.path:
            self.looks += 1
            if self.looks == self.k:
                self.act()
        return found


@pytest.mark.parametrize("full", [False, True])
def test_a_commit_that_succeeds_has_published(tmp_path: Path, full: bool) -> None:
    """I1: the target appears at any moment of a commit: both contents are there, or it is refused."""
    ways = set()
    for k in range(1, 40):
        root = tmp_path / str(k)
        root.mkdir()

        def appears(root: Path = root) -> None:
            plant(root, {"t/theirs" if full else "t/": b"1"})

        ops = Watching(root / "t", -1, appears)
        backend = open_backend([str(root / "t")], ops=ops)
        tx = backend.begin(mode="update", durability="none", require=frozenset())
        tx.stage("x", b"mine")
        ops.k, ops.looks = k, 0
        try:
            tx.commit()
            assert (root / "t" / "x").read_bytes() == b"mine"
            ways.add("published")
        except ConflictError:
            assert not (root / "t" / "x").exists()
            ways.add("refused")
        if ops.looks < k:
            break
        if full:
            assert (root / "t" / "theirs").exists()
    assert k > 2
    assert "published" in ways


@pytest.mark.parametrize("kind", ["file", "tree"])
def test_removal_of_what_another_removed(tmp_path: Path, kind: str) -> None:
    """A29: a removal that finds nothing to remove any more is a conflict, not a success."""
    path = "a" if kind == "file" else "d"
    plant(tmp_path, {"t/a": b"1", "t/d/b": b"1", "t/keep": b"1"})
    tx = fstx.begin(tmp_path / "t")
    tx.remove(path)
    with fstx.begin(tmp_path / "t") as other:
        other.remove(path)
    with pytest.raises(ConflictError):
        tx.commit()


def test_removal_of_a_directory_minds_what_came_into_it(tmp_path: Path) -> None:
    """A29: what another transaction put into a directory does not go with it."""
    plant(tmp_path, {"t/d/a": b"1", "t/e": b"1"})
    tx = fstx.begin(tmp_path / "t")
    tx.remove("d")
    _write(tmp_path / "t", "d/new")
    with pytest.raises(ConflictError, match="holds"):
        tx.commit()
    assert tree(tmp_path) == {"t/d/a": b"1", "t/d/new": b"1", "t/e": b"1"}


def test_removal_through_a_link_is_refused(tmp_path: Path) -> None:
    """PATH-5: a removal does not leave its target by a link."""
    plant(tmp_path, {"outside/victim": b"v", "t/x": b"1"})
    (tmp_path / "t" / "link").symlink_to("../outside")
    with fstx.begin(tmp_path / "t") as tx, pytest.raises(PathError, match="symbolic link"):
        tx.remove("link/victim")
    assert (tmp_path / "outside" / "victim").read_bytes() == b"v"


def test_file_in_place_of_a_directory(tmp_path: Path) -> None:
    """A13: a directory is not replaced by a file unless it was removed; the message names both."""
    plant(tmp_path, {"t/a": b"1"})
    tx = fstx.begin([tmp_path / "t"], mode="replace")
    tx.stage("t", b"file")
    with pytest.raises(PathError, match="'t' is staged as a file"):
        tx.commit()
    assert tree(tmp_path) == {"t/a": b"1"}


# --- keys ----------------------------------------------------------------------------------------


def test_a_key_names_one_job(tmp_path: Path) -> None:
    """A24: an id that committed elsewhere is refused, not taken for this job's success."""
    fstx.write(np.zeros(4), tmp_path / "a.npy", id="run")
    with pytest.raises(UsageError, match=r"other targets \(a.npy\)"):
        fstx.write(np.ones(4), tmp_path / "b.npy", id="run")
    assert not (tmp_path / "b.npy").exists()


def test_a_key_tells_parents_apart(tmp_path: Path) -> None:
    """A24: the same names in another directory are another job."""
    for name in "ABC":
        (tmp_path / name).mkdir()
    for other in "BC":
        targets = [tmp_path / "A" / "x", tmp_path / other / "y"]
        if other == "C":
            with pytest.raises(UsageError, match=r"\.\./B/y"):
                fstx.begin(targets, id="run")
            continue
        with fstx.begin(targets, id="run") as tx:
            tx.stage("x", b"1")
            tx.stage("y", b"1")


def test_order_of_targets_does_not_matter_to_a_key(tmp_path: Path) -> None:
    """A24: the receipt is found whichever target is named first."""
    plant(tmp_path, {"A/": b"", "B/": b""})
    targets = [tmp_path / "A" / "x", tmp_path / "B" / "y"]
    with fstx.begin(targets, id="run") as tx:
        tx.stage("x", b"1")
        tx.stage("y", b"1")
    assert fstx.begin(targets[::-1], id="run").committed
    assert fstx.outcome(targets[::-1], "run") is OutcomeState.COMMITTED


# --- order and promises --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["create", "replace"])
def test_the_entry_comes_last_of_several_targets(
    tmp_path: Path, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A19: readers that enter by the index find what it names."""
    targets = [tmp_path / "index.json", tmp_path / "tiles"]
    if mode == "replace":
        plant(tmp_path, {"index.json": b"0", "tiles/0": b"0"})
    moves: list[tuple[str, str]] = []
    plain = Performer._move

    def watched(self: Performer, entry: Any, index: int, how: str) -> None:
        moves.append((entry.logical, how))
        plain(self, entry, index, how)

    monkeypatch.setattr(Performer, "_move", watched)
    with fstx.begin(targets, mode=mode, entry="index.json", require="ATOMIC_SET") as tx:
        tx.stage("index.json", b"1")
        tx.stage("tiles/0", b"1")
    arrived = [name for name, how in moves if how != "aside"]
    assert arrived == ["tiles", "index.json"]


@pytest.mark.parametrize("gone", ["tiles/0", "tiles"])
def test_an_existing_part_gets_no_new_content(tmp_path: Path, gone: str) -> None:
    """A19: with an entry, parts have new names; removing the old one first is no way around it."""
    plant(tmp_path, {"index.json": b"0", "tiles/0": b"0"})
    targets = [tmp_path / "index.json", tmp_path / "tiles"]
    tx = fstx.begin(targets, entry="index.json", require="ATOMIC_SET")
    tx.remove(gone)
    with pytest.raises(PathError, match="parts need new names"):
        tx.stage("tiles/0", b"1")
    tx.rollback()


def test_a_file_removed_and_staged_is_never_absent(tmp_path: Path) -> None:
    """A18: it is replaced in one step."""
    plant(tmp_path, {"t/a": b"0", "t/b": b"0"})
    ops = KillerOps()
    seen: list[bool] = []
    ops.act = lambda name, path: seen.append((tmp_path / "t" / "a").exists())
    tx = open_backend([str(tmp_path / "t")], ops=ops).begin(
        mode="update", durability="none", require=frozenset()
    )
    tx.remove("a")
    tx.stage("a", b"1")
    tx.stage("b", b"1")
    tx.commit()
    assert all(seen)
    assert tree(tmp_path) == {"t/a": b"1", "t/b": b"1"}


def test_a_promise_that_got_weaker_is_not_broken(tmp_path: Path) -> None:
    """A17: the target was absent at begin and is not at commit: what was required can't be kept."""
    tx = fstx.begin(tmp_path / "t", require="ATOMIC_SET")
    tx.stage("x", b"1")
    tx.stage("y", b"1")
    _write(tmp_path / "t", "theirs")
    with pytest.raises(ConflictError, match="ATOMIC_SET"):
        tx.commit()
    assert tree(tmp_path) == {"t/theirs": b"1"}


def test_a_record_that_nobody_could_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REC-4: recovery refuses long records, so a commit that needs one is refused before it is decided."""
    plant(tmp_path, {"t/a": b"0", "t/b": b"0"})
    monkeypatch.setattr(perform, "LIMIT_BYTES", 300)
    ops = KillerOps()
    tx = open_backend([str(tmp_path / "t")], ops=ops).begin(
        mode="update", durability="none", require=frozenset()
    )
    tx.stage("a", b"1")
    tx.stage("b", b"1")
    with pytest.raises(CommitError, match="too many for one record"):
        tx.commit()
    assert not [c for c in ops.calls if c[1].endswith(("commit.tmp", "/commit"))]
    assert tree(tmp_path) == {"t/a": b"0", "t/b": b"0"}


def test_many_removals_take_time_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """A30: each removal is compared with what could contain it, not with all others."""
    counted = 0
    plain = changes.is_below

    def is_below(path: str, ancestor: str) -> bool:
        nonlocal counted
        counted += 1
        return plain(path, ancestor)

    monkeypatch.setattr(changes, "is_below", is_below)
    found = changes.Changes()
    for i in range(2000):
        found.remove(f"d/{i}")
    assert len(found.removed) == 2000
    assert counted < 20000


# --- other processes and users -------------------------------------------------------------------


@FORKS
def test_a_forked_child_stages_under_names_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A20, A22: children and parent don't take each other's names, and the child syncs what it wrote."""
    synced: list[str] = []
    plain = PosixOps.sync_file

    def sync_file(self: PosixOps, file: Any) -> None:
        synced.append(str(file.name))
        plain(self, file)

    tx = fstx.begin(tmp_path / "t")
    stager = tx.stager()
    monkeypatch.setattr(PosixOps, "sync_file", sync_file)
    answers = [
        forked(lambda k=k: (stager.stage(f"c{k}", b"%d" % k), len(synced))) for k in range(2)
    ]
    own = stager.stage("p", b"p")
    assert synced == []  # the parent's is held until commit
    found = [answer() for answer in answers]
    assert [count for _, count in found] == [1, 1]
    receipts = [own, *(receipt for receipt, _ in found)]
    assert len({r.key for r in receipts}) == 3
    tx.adopt(receipts)
    tx.commit()
    assert tree(tmp_path) == {"t/c0": b"0", "t/c1": b"1", "t/p": b"p"}


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that any user can reach."""
    folder = tempfile.mkdtemp(prefix="fstx-users-")
    os.chmod(folder, 0o755)
    yield Path(folder)
    shutil.rmtree(folder)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)


def as_user(uid: int, umask: int, job: Callable[[], Any]) -> Callable[[], Any]:
    def switched() -> Any:
        os.setgroups([])
        os.setgid(5000)
        os.setuid(uid)
        os.umask(umask)
        return job()

    return forked(switched)


@FORKS
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="switches users")
@pytest.mark.parametrize("mode", [0o2775, 0o1777], ids=oct)
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_two_users_in_one_directory(shared: Path, mode: int, umask: int) -> None:
    """A11: users that may write to a directory don't lock each other out of it, alive or dead.

    What a dead user closed to others (umask 077) can't be judged, so it is named and nothing is built on it.
    """
    place = shared / "p"
    place.mkdir()
    os.chown(place, 0, 5000)
    place.chmod(mode)
    _write(shared / "warm", "x")  # imports what a user could not read

    def first() -> str:
        tx = fstx.begin(place / "a")
        tx.stage("x", b"1")
        (place / "begun").touch()
        wait_for(place / "go")
        tx.commit()
        return "done"

    def second(name: str) -> str:
        _write(place / name, "x")
        return "done"

    def dies() -> str:
        tx = fstx.begin(place / "c")
        tx.stage("x", b"1")
        with open("/dev/null"):
            os.kill(os.getpid(), 9)
        return "not reached"

    answer = as_user(6000, umask, first)
    wait_for(place / "begun")
    assert as_user(6001, umask, lambda: second("b"))() == "done"
    (place / "go").touch()
    assert answer() == "done"
    with pytest.raises(EOFError):
        as_user(6000, umask, dies)()
    after = as_user(6001, umask, lambda: second("d"))()
    found = {k for k in tree(place) if ".fstx" not in k} - {"begun", "go"}
    if umask == 0o077:
        assert "plan can't be read: [Errno 13] Permission denied" in after
        assert found == {"a/x", "b/x"}
    else:
        assert after == "done"
        assert found == {"a/x", "b/x", "d/x"}


# --- staging that fails, and odd ends --------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors")
def test_a_refused_begin_keeps_nothing_open(tmp_path: Path) -> None:
    """A16: an argument that is refused costs no descriptor and leaves nothing."""
    gc.collect()  # what earlier tests dropped is not counted
    before = descriptors()
    for _ in range(5):
        with pytest.raises(PathError):
            fstx.begin(tmp_path / "t", entry="../x")
    gc.collect()
    assert descriptors() == before
    assert tree(tmp_path) == {}


def test_a_refused_begin_takes_its_parents_away(tmp_path: Path) -> None:
    """A16: directories that were made for a transaction that could not begin go again."""
    plant(tmp_path, {f".fstx/{X}/plan": b"garbage\n", "t/a": b"1"})
    before = tree(tmp_path)
    with pytest.raises(fstx.RecoveryError):
        fstx.begin([tmp_path / "t", tmp_path / "new" / "dir" / "u"])
    assert tree(tmp_path) == before


def test_a_dropped_transaction_is_rolled_back_though_warnings_are_errors(tmp_path: Path) -> None:
    """A15: the warning comes after the work."""
    code = (
        "import sys, fstx; tx = fstx.begin(sys.argv[1]); tx.stage('x', b'1'); del tx; "
        "import os; print(os.listdir(os.path.dirname(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "t")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=True,
    )
    assert done.stdout == "[]\n"
    assert "dropped without commit" in done.stderr


@pytest.mark.parametrize("where", ["build", "entries"])
def test_interrupt_before_the_first_step_of_a_commit(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A25: Ctrl-C while a commit is planned gives everything up."""
    tx = fstx.begin(tmp_path / "t")
    tx.stage("x", b"1")

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((machines, where) if where == "build" else (tx._items, where)), interrupt)
        with pytest.raises(KeyboardInterrupt):
            tx.commit()
    assert tree(tmp_path) == {}
    with pytest.raises(StateError, match="rolled back"):
        tx.stage("y", b"1")


@pytest.mark.parametrize("harm", ["truncated", "missing"])
def test_pieces_that_are_not_there_whole(tmp_path: Path, harm: str) -> None:
    """A14: what is composed is whole or refused."""
    tx = fstx.begin(tmp_path / "t")
    piece = tx.stager().stage("big", b"x" * 1000)
    place = tx._source(piece)  # type: ignore[attr-defined]
    if harm == "missing":
        os.unlink(place)
    else:
        os.truncate(place, 500)
    with pytest.raises(StorageError if harm == "truncated" else StateError, match="'big'"):
        tx.compose("whole", [b"head", piece])
    tx.rollback()
    assert tree(tmp_path) == {}


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files of this process can't grow beyond 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("swallowed", [False, True])
def test_write_errors_of_an_open_object(tmp_path: Path, swallowed: bool, small_files: None) -> None:
    """A14: a failed write is a StorageError, also when the library that writes hides it."""
    tx = fstx.begin(tmp_path / "t")
    with pytest.raises(StorageError, match="staging 'x' failed"), tx.open("x") as file:
        if swallowed:
            file.write(b"1" * 99_000)
            file.write(b"2" * 5_000)
            try:
                file.close()  # type: ignore[attr-defined]
            except OSError as error:
                assert isinstance(error, StorageError)  # noqa: PT017 - and it goes no further
        else:
            for _ in range(100):
                file.write(b"1" * 10_000)
    with pytest.raises(StateError, match="staging failed before"):
        tx.commit()
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["#a", "d/#x", "a#b", "%41"])
def test_names_with_marks_of_urls(tmp_path: Path, name: str) -> None:
    """PATH-1: a path is a path, whatever it would mean in a URL."""
    _write(tmp_path / "t", name)
    assert tree(tmp_path) == {f"t/{name}": b"1"}


def test_a_lone_surrogate_is_no_name(tmp_path: Path) -> None:
    """A13: what no file name can hold is refused as a path."""
    with fstx.begin(tmp_path / "t") as tx, pytest.raises(PathError, match="no text"):
        tx.stage("\ud800", b"1")


def test_a_very_deep_tree_is_replaced(tmp_path: Path) -> None:
    """A30: the depth of what goes is not limited by the depth of calls."""
    here = os.getcwd()
    try:
        (tmp_path / "t").mkdir()
        os.chdir(tmp_path / "t")
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _write(tmp_path / "t", "x", mode="replace")
    assert without_receipts(tree(tmp_path)) == {"t/x": b"1"}
