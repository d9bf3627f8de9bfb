"""The memory backend as oracle: the same calls on memory and on disk end alike (A33, design.md 3)."""

from __future__ import annotations

import gc
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fstx
from fstx.errors import TransactionError
from fstx.types import OutcomeState
from support.trees import Tree, plant, tree


@dataclass
class Place:
    """A directory somewhere, and what lies in it."""

    base: str

    def url(self, name: str) -> str:
        return f"{self.base}/{name}"

    def put(self, files: Tree) -> None:
        if not self.base.startswith("memory://"):
            plant(Path(self.base), files)
            return
        fs = fsspec.filesystem("memory")
        for name, data in files.items():
            fs.pipe_file(self.url(name), data)

    def found(self) -> Tree:
        if not self.base.startswith("memory://"):
            found = tree(Path(self.base))
            # directories that were emptied stay, which memory has no word for
            return {
                k: v for k, v in found.items() if "/.fstx/done/" not in "/" + k and k[-1] != "/"
            }
        store = fsspec.filesystem("memory").store
        root = self.base.removeprefix("memory:/") + "/"
        return {k.removeprefix(root): f.getvalue() for k, f in store.items() if k.startswith(root)}


@pytest.fixture
def memory() -> Iterator[Place]:
    fs = fsspec.filesystem("memory")
    yield Place(f"memory://{uuid.uuid4().hex}")
    fs.store.clear()


@pytest.fixture(params=["memory", "local"])
def place(request: pytest.FixtureRequest, tmp_path: Path, memory: Place) -> Place:
    return memory if request.param == "memory" else Place(str(tmp_path))


OLD = {"t/a": b"1", "t/d/x": b"2", "t/d/y": b"3", "other": b"o"}


def test_life(place: Place) -> None:
    """Staged content is seen by its transaction alone until commit; then by all, once."""
    place.put(OLD)
    with fstx.begin(place.url("t")) as tx:
        tx.stage("a", b"A")
        tx.stage("n/m", [b"N", bytearray(b"M")])
        with tx.open("d/z") as file:
            file.write(memoryview(b"Z"))
        tx.remove("d/x")
        assert tx.read("a") == b"A"
        assert tx.read("d/y") == b"3"
        assert list(tx.paths()) == ["a", "d/y", "d/z", "n/m"]
        assert list(tx.paths("d")) == ["d/y", "d/z"]
        with pytest.raises(FileNotFoundError):
            tx.read("d/x")
        assert place.found() == place.found() | OLD
    assert tx.snapshot is not None
    assert (tx.snapshot.paths, tx.snapshot.size_bytes, tx.snapshot.pending) == (3, 4, False)
    assert tx.commit() == tx.snapshot
    assert place.found() == {
        "t/a": b"A", "t/n/m": b"NM", "t/d/z": b"Z", "t/d/y": b"3", "other": b"o",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (2, None), (2, 5), (-3, None), (-3, -1), (5, 2), (0, 99), (99, None)],
)
def test_ranges(place: Place, start: int, stop: int | None) -> None:
    """read takes ranges as slices do, of staged content and of the base."""
    data = b"0123456789"
    place.put({"t/base": data})
    with fstx.begin(place.url("t")) as tx:
        tx.stage("staged", data)
        for path in ("base", "staged"):
            assert tx.read(path, start, stop) == data[start:stop]


def test_rollback(place: Place) -> None:
    """A4: an exception in the body rolls back, reaches the caller, and leaves nothing."""
    place.put(OLD)
    with pytest.raises(KeyError, match="mine"), fstx.begin(place.url("t")) as tx:
        tx.stage("a", b"A")
        tx.remove("d")
        raise KeyError("mine")
    assert place.found() == OLD
    tx.rollback()
    for call in (tx.commit, lambda: tx.stage("a", b""), lambda: list(tx.paths())):
        with pytest.raises(fstx.StateError, match="rolled back"):
            call()


def test_open_that_raises_discards(place: Place) -> None:
    """An exception inside tx.open discards that object alone; the transaction goes on."""
    with fstx.begin(place.url("t")) as tx:
        tx.stage("kept", b"K")
        with pytest.raises(ZeroDivisionError), tx.open("lost") as file:
            file.write(b"half")
            raise ZeroDivisionError
        with pytest.raises(fstx.StateError, match="receipt"):
            _ = file.receipt
        assert list(tx.paths()) == ["kept"]
    assert place.found() == {"t/kept": b"K"}


def test_open_file_is_a_file(place: Place) -> None:
    """What tx.open gives can be written, told, sought, read; closing it early is no loss."""
    with fstx.begin(place.url("t")) as tx:
        with tx.open("a") as file:
            file.write(b"0123456789")
            assert file.tell() == 10
            file.seek(2)  # type: ignore[attr-defined]
            file.write(b"xx")
            file.seek(0)  # type: ignore[attr-defined]
            assert file.read() == b"01xx456789"  # type: ignore[attr-defined]
        assert file.receipt.size_bytes == 10
        with tx.open("closed") as file:
            file.write(b"abc")
            file.close()  # type: ignore[attr-defined]
        assert file.receipt.size_bytes == 3
    assert place.found() == {"t/a": b"01xx456789", "t/closed": b"abc"}


def test_receipts(place: Place) -> None:
    """Only adopted receipts count; of two the later wins; the same one twice is one."""
    with fstx.begin(place.url("t")) as tx:
        stager = tx.stager()
        one, two = stager.stage("a", b"one"), stager.stage("a", b"two")
        stager.stage("never", b"x")
        tx.adopt([one, two])
        tx.adopt([two])
        assert tx.read("a") == b"two"
        with stager.open("b") as file:
            file.write(b"B")
        tx.adopt(r for r in [file.receipt])
    assert place.found() == {"t/a": b"two", "t/b": b"B"}


def test_compose(place: Place) -> None:
    """Buffers and staged pieces become one object; the pieces are used up."""
    with fstx.begin(place.url("t")) as tx:
        stager = tx.stager()
        pieces = [
            b"<",
            stager.stage("a#1", b"one"),
            memoryview(b"|"),
            stager.stage("a#2", b"two"),
            b"",
        ]
        done = tx.compose("a", pieces)
        assert done.size_bytes == 8
        with pytest.raises(fstx.StateError, match="used up"):
            tx.compose("again", [pieces[1]])
        assert list(tx.paths()) == ["a"]
        assert tx.read("a") == b"<one|two"
        tx.compose("empty", [])
    assert place.found() == {"t/a": b"<one|two", "t/empty": b""}


def test_modes(place: Place) -> None:
    """create, replace, update, as design.md 2 says."""
    place.put(OLD)
    with pytest.raises(fstx.TargetExistsError):
        fstx.begin(place.url("t"), mode="create")
    with fstx.begin(place.url("t"), mode="replace") as tx:
        tx.stage("z", b"Z")
        assert list(tx.paths()) == ["z"]
        with pytest.raises(FileNotFoundError):
            tx.read("a")
    assert place.found() == {"t/z": b"Z", "other": b"o"}
    with fstx.begin(place.url("n"), mode="create") as tx:
        with pytest.raises(fstx.ConflictError):
            fstx.begin(place.url("n"), mode="create")
        tx.stage("a", b"A")
    assert place.found() == {"t/z": b"Z", "other": b"o", "n/a": b"A"}


def test_several_targets(place: Place) -> None:
    """A list: files and trees, paths begin with their names."""
    place.put({"f": b"1", "t/a": b"2"})
    with fstx.begin([place.url("f"), place.url("t"), place.url("g")]) as tx:
        tx.stage("f", b"F")
        tx.stage("t/b", b"B")
        tx.stage("g", b"G")
        assert list(tx.paths()) == ["f", "g", "t/a", "t/b"]
        with pytest.raises(fstx.PathError):
            tx.stage("h", b"")
    assert place.found() == {"f": b"F", "t/a": b"2", "t/b": b"B", "g": b"G"}


@pytest.mark.parametrize("kind", ["stage", "remove", "read"])
def test_conflicts(place: Place, kind: str) -> None:
    """CONFLICT_DETECTED: a touched path that changed meanwhile."""
    place.put(OLD)
    one = fstx.begin(place.url("t"))
    if kind == "stage":
        one.stage("a", b"mine")
    elif kind == "remove":
        one.remove("a")
    else:
        one.read("a")
        one.stage("b", b"derived")
    with fstx.begin(place.url("t")) as two:
        two.stage("a", b"theirs")
    with pytest.raises(fstx.ConflictError):
        one.commit()
    assert place.found() == {**OLD, "t/a": b"theirs"}


@pytest.mark.parametrize("empty", [True, False])
def test_conflict_on_a_new_path(place: Place, empty: bool) -> None:
    """CONFLICT_DETECTED: two writers of one new path, in a new and in an old tree."""
    old = {} if empty else OLD
    place.put(old)
    one = fstx.begin(place.url("t"))
    one.stage("new", b"mine")
    with fstx.begin(place.url("t")) as two:
        two.stage("new", b"theirs")
    with pytest.raises(fstx.ConflictError):
        one.commit()
    assert place.found() == {**old, "t/new": b"theirs"}


@pytest.mark.parametrize(("path", "other"), [("d", "d/x"), ("a/b", "a")])
def test_kinds_clash_with_the_base(place: Place, path: str, other: str) -> None:
    """A file where the base has a tree, and the reverse: refused, rolled back."""
    place.put(OLD)
    with pytest.raises(fstx.PathError), fstx.begin(place.url("t")) as tx:
        tx.stage(path, b"x")
    assert place.found() == OLD
    assert "t/" + other in place.found()


def test_ids(place: Place) -> None:
    """I5: an id commits once; active, committed and unknown are told apart."""
    url = place.url("t")
    assert fstx.outcome(url, "job") is OutcomeState.UNKNOWN
    with fstx.begin(url, id="job") as tx:
        assert fstx.outcome(url, "job") is OutcomeState.ACTIVE
        with pytest.raises(fstx.ConflictError, match="active"):
            fstx.begin(url, id="job")
        tx.stage("a", b"A")
    assert fstx.outcome(url, "job") is OutcomeState.COMMITTED
    with fstx.begin(url, id="job") as again:
        assert again.committed  # type: ignore[attr-defined]
    assert place.found() == {"t/a": b"A"}


def test_ids_of_aborted_runs(place: Place) -> None:
    """I5: a run that was rolled back or dropped frees its id."""
    url = place.url("t")
    fstx.begin(url, id="job").rollback()
    tx: Any = fstx.begin(url, id="job", mode="create")
    if place.base.startswith("memory"):
        del tx
    else:
        with pytest.warns(ResourceWarning, match="without commit"):
            del tx
    gc.collect()
    with fstx.begin(url, id="job", mode="create") as tx:
        assert not tx.committed
        tx.stage("a", b"A")
    assert place.found() == {"t/a": b"A"}


def test_entry_comes_last(place: Place) -> None:
    """Parts of an entry need new names when ATOMIC_SET is required; the entry may be replaced."""
    place.put({"t/i": b"0", "t/p1": b"1"})
    with fstx.begin(place.url("t"), entry="i", require="ATOMIC_SET") as tx:
        tx.stage("p2", b"2")
        with pytest.raises(fstx.PathError, match="new names"):
            tx.stage("p1", b"x")
        assert tx.stage("i", b"1").publisher
    assert place.found() == {"t/i": b"1", "t/p1": b"1", "t/p2": b"2"}


def test_threads(place: Place) -> None:
    """Many threads may stage at once."""
    with fstx.begin(place.url("t"), durability="none") as tx:
        threads = [
            threading.Thread(target=lambda n=n: [tx.stage(f"{n}/{m}", b"x") for m in range(20)])
            for n in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(place.found()) == 120


def test_not_for_pickling(place: Place) -> None:
    """A transaction stays with its coordinator."""
    import pickle

    with fstx.begin(place.url("t")) as tx, pytest.raises(TypeError, match="coordinator"):
        pickle.dumps(tx)


# --- the oracle -----------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "d", "d/x", "d/y", "d/e/z", "n/a", "a/q"])
CALLS = st.lists(
    st.tuples(st.sampled_from(["stage", "remove", "read", "paths", "compose"]), NAMES), max_size=8
)
BASES = st.sampled_from([{}, {"t/a": b"1"}, OLD, {"t/d/e/z": b"9", "t/a/q": b"8", "t/b": b"7"}])


def play(place: Place, base: Tree, mode: Any, calls: list[tuple[str, str]]) -> list[object]:
    """What each call answered, and what is there at the end."""
    said: list[object] = []

    def ask(call: Callable[[], object]) -> None:
        try:
            said.append(call())
        except (TransactionError, FileNotFoundError) as error:
            kind = type(error)
            said.append(FileNotFoundError if issubclass(kind, FileNotFoundError) else kind)

    place.put(base)
    try:
        tx = fstx.begin(place.url("t"), mode=mode, durability="none")
    except TransactionError as error:
        return [type(error), place.found()]
    for number, (verb, path) in enumerate(calls):
        data = f"{number}".encode()
        match verb:
            case "stage":
                ask(lambda: tx.stage(path, data).path)  # noqa: B023
            case "compose":
                ask(lambda: tx.compose(path, [data, b"!"]).size_bytes)  # noqa: B023
            case "remove":
                ask(lambda: tx.remove(path))  # noqa: B023
            case "read":
                ask(lambda: tx.read(path))  # noqa: B023
            case _:
                ask(lambda: list(tx.paths(path)))  # noqa: B023
    ask(lambda: tx.commit().paths)
    said.append(place.found())
    return said


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(base=BASES, mode=st.sampled_from(["create", "replace", "update"]), calls=CALLS)
def test_local_agrees_with_memory(tmp_path: Path, base: Tree, mode: Any, calls: Any) -> None:
    """Any calls in any order: disk and memory give the same answers and end in the same state."""
    token = uuid.uuid4().hex
    local = Place(str(tmp_path / token))
    (tmp_path / token).mkdir()
    memory = Place(f"memory://{token}")
    on_disk, in_memory = play(local, base, mode, calls), play(memory, base, mode, calls)
    assert on_disk == in_memory


@pytest.mark.parametrize("path", ["#a", "d/#x", "a#1"])
def test_a_name_with_a_hash_is_a_name(path: str) -> None:
    """Protects names that look like those of scratch objects: staged, read back and published."""
    url = f"memory://hash-{uuid.uuid4().hex}"
    with fstx.begin(url) as tx:
        tx.stage(path, b"1")
        assert tx.read(path) == b"1"
    with fstx.begin(url, mode="replace") as tx:
        assert list(tx.paths()) == [path]
        tx.stage("other", b"")
