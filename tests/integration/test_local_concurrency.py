"""Local transactions side by side: threads and processes, one target and one control directory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx.errors import CommitError, ConflictError, FencedError, TargetExistsError
from support.trees import plant, tree

SPAWN = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(4, mp_context=SPAWN) as made:
        yield made


def test_second_creator_is_told_at_begin(tmp_path: Path) -> None:
    """A21, A22: first wins; the second learns it before any work, and again after the first is done."""
    with fstx.begin(tmp_path / "t", mode="create") as first:
        with pytest.raises(ConflictError, match="creating"):
            fstx.begin(tmp_path / "t", mode="create")
        first.stage("a", b"1")
    with pytest.raises(TargetExistsError):
        fstx.begin(tmp_path / "t", mode="create")
    assert tree(tmp_path) == {"t/a": b"1"}


def _create(job: tuple[str, int]) -> str:
    target, number = job
    try:
        with fstx.begin(target, mode="create", durability="none") as tx:
            for n in range(5):
                tx.stage(f"f{n}", str(number).encode())
    except (ConflictError, TargetExistsError) as error:
        return type(error).__name__
    return "won"


def one_winner(run: Callable[..., Any], tmp_path: Path, rounds: int) -> None:
    for n in range(rounds):
        target = tmp_path / f"t{n}"
        results = list(run(_create, [(str(target), k) for k in range(8)]))
        assert results.count("won") == 1, results
        assert len(set(tree(target).values())) == 1
        assert len(tree(target)) == 5
    assert sorted(os.listdir(tmp_path)) == sorted(f"t{n}" for n in range(rounds))


def test_one_creator_of_many_threads_wins(tmp_path: Path) -> None:
    """A21: exactly one of eight threads; what stands belongs together."""
    with ThreadPoolExecutor(8) as threads:
        one_winner(threads.map, tmp_path, 10)


def test_one_creator_of_many_processes_wins(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """A21: the same with processes."""
    one_winner(pool.map, tmp_path, 10)


def test_disjoint_updates_both_land(tmp_path: Path) -> None:
    """Updates of different paths, one inside the other, are no conflict."""
    plant(tmp_path, {"t/a": b"1", "t/b": b"2", "t/d/x": b"3"})
    with fstx.begin(tmp_path / "t") as one:
        one.stage("a", b"A")
        one.stage("d/n1", b"N")
        with fstx.begin(tmp_path / "t") as two:
            two.stage("b", b"B")
            two.stage("d/n2", b"N")
    assert tree(tmp_path) == {
        "t/a": b"A", "t/b": b"B", "t/d/x": b"3", "t/d/n1": b"N", "t/d/n2": b"N",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "write", "other", "new"),
    [
        ({}, "d/a", "stage d/b", {"t/d/a": b"1", "t/d/b": b"2"}),
        ({"t/": b""}, "a", "stage b", {"t/a": b"1", "t/b": b"2"}),
        ({"t/k": b"k"}, "d/e/a", "stage d/b", {"t/k": b"k", "t/d/e/a": b"1", "t/d/b": b"2"}),
        ({"t/k": b"k", "t/d/x": b"x"}, "d/a", "remove d", {"t/k": b"k", "t/d/a": b"1"}),
        ({"t/k": b"k", "t/d/": b""}, "d/a", "remove d", {"t/k": b"k", "t/d/a": b"1"}),
    ],
)
def test_directories_that_come_and_go(
    tmp_path: Path, old: Any, write: str, other: str, new: Any
) -> None:
    """I9: what another makes or removes of the directories around disjoint paths is no conflict."""
    plant(tmp_path, old)
    one = fstx.begin(tmp_path / "t")
    one.stage(write, b"1")

    class Barrier:
        """The other commits after the items of the first were made, just before its locks."""

        def __call__(self, effect: Any) -> Any:
            if type(effect).__name__ == "Lock" and not self.done:
                self.done = True
                with fstx.begin(tmp_path / "t") as two:
                    verb, _, path = other.partition(" ")
                    two.stage(path, b"2") if verb == "stage" else two.remove(path)
            return real(self.performer, effect)

        done = False
        performer: Any = None

    from fstx.backends.local.perform import Performer

    barrier, real = Barrier(), Performer.perform
    with pytest.MonkeyPatch.context() as patch:

        def perform(performer: Any, effect: Any) -> Any:
            if performer.txid != one._txid:  # type: ignore[attr-defined]
                return real(performer, effect)
            barrier.performer = performer
            return barrier(effect)

        patch.setattr(Performer, "perform", perform)
        one.commit()
    assert barrier.done
    assert tree(tmp_path) == new


@pytest.mark.parametrize("old", [{"t/a": b"1", "t/k": b"k"}, {"t/k": b"k"}, {"t/": b""}, {}])
def test_updates_of_one_path_conflict(tmp_path: Path, old: dict[str, bytes]) -> None:
    """CONFLICT_DETECTED: of two updates of one path the later fails, also where nothing was at begin."""
    plant(tmp_path, old)
    one = fstx.begin(tmp_path / "t")
    one.stage("a", b"one")
    with fstx.begin(tmp_path / "t") as two:
        two.stage("a", b"two!")
    with pytest.raises(ConflictError, match="another writer") as caught:
        one.commit()
    assert caught.value.outcome == "aborted"
    assert caught.value.retryable
    kept = {k: v for k, v in old.items() if v}
    assert tree(tmp_path) == {**kept, "t/a": b"two!"}


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [("remove", "stage"), ("stage", "remove"), ("remove", "remove"), ("read", "stage")],
)
def test_other_conflicts(tmp_path: Path, mine: str, theirs: str) -> None:
    """CONFLICT_DETECTED: removals and reads count as well as writes."""
    plant(tmp_path, {"t/a": b"1", "t/k": b"k"})

    def act(tx: Any, what: str) -> None:
        if what == "stage":
            tx.stage("a", b"new")
        elif what == "remove":
            tx.remove("a")
        else:
            assert tx.read("a") == b"1"
            tx.stage("b", b"derived")

    one = fstx.begin(tmp_path / "t")
    act(one, mine)
    with fstx.begin(tmp_path / "t") as two:
        act(two, theirs)
    between = tree(tmp_path / "t")
    with pytest.raises(ConflictError):
        one.commit()
    assert tree(tmp_path) == {"t/" + k: v for k, v in between.items()}


@pytest.mark.parametrize("other", ["update", "replace", "plain"])
def test_replacement_of_a_changed_tree_conflicts(tmp_path: Path, other: str) -> None:
    """CONFLICT_DETECTED: a replacement notices commits of others in between, and a replaced tree."""
    plant(tmp_path, {"t/a": b"1", "t/k": b"k"})
    one = fstx.begin(tmp_path / "t", mode="replace")
    one.stage("b", b"B")
    if other == "plain":
        (tmp_path / "t").rename(tmp_path / "old")
        plant(tmp_path, {"t/x": b"x"})
    else:
        with fstx.begin(tmp_path / "t", mode=other) as two:  # type: ignore[arg-type]
            two.stage("a", b"two")
    between = tree(tmp_path / "t")
    with pytest.raises(ConflictError):
        one.commit()
    assert tree(tmp_path / "t") == between
    assert not (tmp_path / ".fstx").exists()


def test_generation_starts_anew(tmp_path: Path) -> None:
    """A replacement that begins after others committed is no conflict, and leaves nothing."""
    plant(tmp_path, {"t/a": b"1"})
    with fstx.begin(tmp_path / "other") as long:
        with fstx.begin(tmp_path / "t") as two:
            two.stage("a", b"two")
        with fstx.begin(tmp_path / "t", mode="replace") as three:
            three.stage("b", b"B")
        assert tree(tmp_path / "t") == {"b": b"B"}
        long.stage("x", b"x")
    assert tree(tmp_path) == {"t/b": b"B", "other/x": b"x"}


def test_tree_replaced_under_an_update(tmp_path: Path) -> None:
    """CONFLICT_DETECTED: an update of a tree that was replaced meanwhile does not write into the new one."""
    plant(tmp_path, {"t/a": b"1", "t/k": b"k"})
    one = fstx.begin(tmp_path / "t")
    one.stage("n", b"N")
    with fstx.begin(tmp_path / "t", mode="replace") as two:
        two.stage("z", b"Z")
    with pytest.raises(ConflictError, match="replaced"):
        one.commit()
    assert tree(tmp_path) == {"t/z": b"Z"}


def test_fenced_writer_cannot_publish(tmp_path: Path) -> None:
    """FENCED: a writer whose area was taken away learns it at stage, adopt or commit."""
    for step in ("stage", "adopt", "commit"):
        tx = fstx.begin(tmp_path / "t")
        receipt = tx.stager().stage("x", b"x")
        area = next(p for p in (tmp_path / ".fstx").iterdir() if len(p.name) == 32)
        if step == "commit":
            tx.adopt([receipt])
        area.rename(area.with_name(area.name + ".fenced"))
        with pytest.raises(FencedError):
            if step == "stage":
                tx.stage("y", b"y")
            elif step == "adopt":
                tx.adopt([receipt])
            else:
                tx.commit()
        if step != "commit":
            tx.rollback()
        assert [s.state.value for s in fstx.recover(tmp_path / "t").settled] == ["aborted"]
        assert tree(tmp_path) == {}


def _update(job: tuple[str, int]) -> int:
    target, number = job
    for n in range(10):
        with fstx.begin(target, durability="none") as tx:
            tx.stage(f"w{number}/f{n}", b"x" * number)
            tx.stage(f"shared-{number}-{n}", b"y")
    return number


def test_many_updaters_of_one_tree(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """I9 (local part): eight writers, ten updates each of files of their own, all land, nothing is left."""
    assert sorted(pool.map(_update, [(str(tmp_path / "t"), k) for k in range(8)])) == list(range(8))
    found = tree(tmp_path)
    assert len(found) == 8 * 10 * 2
    assert all(k.startswith("t/") for k in found)


def _short(job: tuple[str, int]) -> int:
    root, number = job
    for n in range(40):
        with fstx.begin(os.path.join(root, f"t{number}"), durability="none") as tx:
            tx.stage(f"f{n}", b"x")
    return number


def test_begin_and_leave_races(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """Many short transactions in one directory: no spurious error, and `.fstx` is gone at the end."""
    assert len(list(pool.map(_short, [(str(tmp_path), k) for k in range(4)]))) == 4
    assert sorted(os.listdir(tmp_path)) == [f"t{k}" for k in range(4)]
    assert len(tree(tmp_path)) == 160


def _keyed(job: tuple[str, int]) -> str:
    target, number = job
    try:
        with fstx.begin(target, id="the job", durability="none") as tx:
            if tx.committed:  # type: ignore[attr-defined]
                return "was committed"
            tx.stage("a", str(number).encode())
    except CommitError as error:
        return "active" if "active" in str(error) else str(error)
    return "committed"


def test_one_key_commits_once(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    """I5: eight runs with one id in four processes commit once in total; later ones are told so."""
    results = list(pool.map(_keyed, [(str(tmp_path / "t"), k) for k in range(8)]))
    assert results.count("committed") == 1, results
    assert set(results) <= {"committed", "was committed", "active"}
    assert _keyed((str(tmp_path / "t"), 99)) == "was committed"
    assert tree(tmp_path / "t") == {"a": str(results.index("committed")).encode()}
    assert fstx.outcome(tmp_path / "t", "the job") is fstx.OutcomeState.COMMITTED


def test_threads_stage_at_once(tmp_path: Path) -> None:
    """One transaction, many threads: every object lands, nested directories included."""
    with fstx.begin(tmp_path / "t", durability="none") as tx, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: tx.stage(f"d{n % 7}/e{n % 5}/f{n}", b"%d" % n), range(300)))
    assert tree(tmp_path) == {f"t/d{n % 7}/e{n % 5}/f{n}": b"%d" % n for n in range(300)}


def test_readers_of_an_exchange_never_miss(tmp_path: Path) -> None:
    """NO_GAP, ATOMIC_SET: a reader of a replaced tree finds old or new at any moment, never nothing."""
    plant(tmp_path, {"t/a": b"0", "t/b": b"0"})
    stop = threading.Event()
    trouble: list[object] = []
    looks = 0

    def look() -> None:
        nonlocal looks
        while not stop.is_set():
            try:
                fd = os.open(tmp_path / "t", os.O_RDONLY)
                try:
                    one, two = (
                        os.read(h := os.open(n, os.O_RDONLY, dir_fd=fd), 9) + (os.close(h) or b"")
                        for n in ("a", "b")
                    )
                finally:
                    os.close(fd)
                if one != two:
                    trouble.append((one, two))
                looks += 1
            except FileNotFoundError as error:
                # the tree that was open may be deleted already; the name itself must not be missing
                if error.filename not in ("a", "b"):
                    trouble.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for n in range(60):
        with fstx.begin(tmp_path / "t", mode="replace", durability="none") as tx:
            tx.stage("a", b"%d" % n)
            tx.stage("b", b"%d" % n)
    stop.set()
    reader.join()
    assert trouble == []
    assert looks > 20


def test_replacement_waits_for_a_commit_in_progress(tmp_path: Path) -> None:
    """CTRL-5: a replacement that begins while another commits looks after it, so that nothing is lost."""
    from fstx.backends.local.perform import Performer

    plant(tmp_path, {"t/a": b"1", "t/b": b"2"})
    real = Performer.perform
    begun: list[Any] = []

    def begin_replacement() -> None:
        begun.append(fstx.begin(tmp_path / "t", mode="replace"))

    second = threading.Thread(target=begin_replacement)

    def perform(performer: Any, effect: Any) -> Any:
        if type(effect).__name__ == "Move" and second.ident is None:
            second.start()
            second.join(0.3)
            assert second.is_alive()
            assert begun == []
        return real(performer, effect)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Performer, "perform", perform)
        with fstx.begin(tmp_path / "t") as first:
            first.stage("a", b"first")
            first.stage("b", b"first")
    second.join(30)
    begun[0].stage("c", b"second")
    begun[0].commit()
    assert tree(tmp_path) == {"t/c": b"second"}


def test_a_ref_keeps_the_other_control_directory(tmp_path: Path) -> None:
    """CTRL-3: a transaction of two parents lives in both: whoever leaves the other one takes no lock away."""
    with fstx.begin([tmp_path / "p" / "t", tmp_path / "q" / "u"], mode="create") as tx:
        tx.stage("u", b"U")
        with fstx.begin(tmp_path / "q" / "other") as short:
            short.stage("x", b"x")
        assert list((tmp_path / "q" / ".fstx" / "locks").glob("*.claim"))
        with pytest.raises(ConflictError, match="creating"):
            fstx.begin([tmp_path / "q" / "u"], mode="create")
    assert tree(tmp_path) == {"q/u": b"U", "q/other/x": b"x"}
