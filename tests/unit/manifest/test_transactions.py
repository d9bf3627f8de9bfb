"""Transactions on a dataset: over memory and local files, by themselves and against each other."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

import fstx
from fstx.backends.manifest import (
    Dataset,
    JoinedTransaction,
    ManifestBackend,
    ManifestTransaction,
    joining,
)
from fstx.backends.manifest.joining import parse_reference
from fstx.backends.manifest.staging import HELD_BYTES
from fstx.errors import ConflictError, FencedError, PathError, StateError, TargetExistsError
from fstx.state.entries import Entry
from fstx.stores import Store
from fstx.stores.opening import open_store

BIG = bytes(range(256)) * 16


@pytest.fixture(params=["memory", "local"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same place anew at each call."""
    url = f"memory://t-{uuid.uuid4().hex}" if request.param == "memory" else str(tmp_path / "ds")
    return lambda: open_store(url).below(".fstx")


def begin(store: Store, **given: object) -> ManifestTransaction:
    options = {"mode": "update", "durability": "data", "require": frozenset(), **given}
    policy = options.pop("policy", "rebase")
    prefix = options.pop("prefix", "")
    return ManifestBackend(Dataset(store), policy=policy, prefix=prefix).begin(**options)  # type: ignore[arg-type]


def content(store: Store, version: int | None = None) -> dict[str, bytes]:
    dataset = Dataset(store)
    return {p: dataset.read(e) for p, e in dataset.view(version).items() if not e.directory}


def test_a_commit_is_read_back_by_a_fresh_reader(make_store: Callable[[], Store]) -> None:
    """Protects the whole way: inline, packed, single and removed objects of several commits."""
    with begin(make_store()) as tx:
        tx.stage("a", b"small")
        tx.stage("d/b", BIG)
        with tx.open("d/c") as file:
            file.write(BIG)
            file.write(b"end")
        assert tx.read("d/c", -3) == b"end"
        assert list(tx.paths()) == ["a", "d/b", "d/c"]
    assert tx.snapshot is not None
    assert tx.snapshot.version == 1
    with begin(make_store()) as tx:
        for i in range(30):
            tx.stage(f"many/{i}", bytes([i]) * (HELD_BYTES // 2))
        tx.remove("d/b")
        tx.stage("a", b"other")
    now = content(make_store())
    assert now == {
        "a": b"other",
        "d/c": BIG + b"end",
        **{f"many/{i}": bytes([i]) * (HELD_BYTES // 2) for i in range(30)},
    }
    assert content(make_store(), 1) == {"a": b"small", "d/b": BIG, "d/c": BIG + b"end"}


def test_large_objects_are_written_in_parts(make_store: Callable[[], Store]) -> None:
    """Protects objects beyond one part: nothing lost between parts."""
    piece = bytes(3 << 20)
    with begin(make_store()) as tx, tx.open("big") as file:
        for i in range(7):
            file.write(bytes([i]) + piece)
    data = content(make_store())["big"]
    assert len(data) == 7 * (len(piece) + 1)
    assert [data[i * (len(piece) + 1)] for i in range(7)] == list(range(7))


def test_many_changes_go_through_the_tree(make_store: Callable[[], Store]) -> None:
    """Protects commits beyond a record's budget: they land whole, and small ones over them."""
    wanted = {}
    with begin(make_store()) as tx:
        for i in range(3000):
            tx.stage(f"c/{i}", str(i).encode())
            wanted[f"c/{i}"] = str(i).encode()
    for n in range(3):
        with begin(make_store()) as tx:
            for i in range(n, 3000, 7):
                tx.stage(f"c/{i}", b"x")
                wanted[f"c/{i}"] = b"x"
    with begin(make_store()) as tx:
        tx.remove("c/5")
        del wanted["c/5"]
    assert content(make_store()) == wanted


def test_disjoint_commits_rebase_and_others_conflict(make_store: Callable[[], Store]) -> None:
    """Protects both: nobody loses work, nobody overwrites what he did not see."""
    with begin(make_store()) as tx:
        tx.stage("a", b"0")
        tx.stage("b", b"0")
    one, two, three = begin(make_store()), begin(make_store()), begin(make_store())
    one.stage("a", b"1")
    two.stage("b", b"2")
    three.stage("a", b"3")
    assert one.commit().version == 2
    assert two.commit().version == 3
    with pytest.raises(ConflictError, match="'a' was changed"):
        three.commit()
    assert content(make_store()) == {"a": b"1", "b": b"2"}
    fail = begin(make_store(), policy="fail")
    fail.stage("c", b"c")
    with begin(make_store()) as tx:
        tx.stage("d", b"d")
    with pytest.raises(ConflictError, match="policy"):
        fail.commit()


def test_what_was_read_counts(make_store: Callable[[], Store]) -> None:
    """Protects read-modify-write: a commit whose reading is stale is refused."""
    with begin(make_store()) as tx:
        tx.stage("a", b"0")
    tx = begin(make_store())
    tx.stage("sum", tx.read("a"))
    with begin(make_store()) as other:
        other.stage("a", b"1")
    with pytest.raises(ConflictError):
        tx.commit()


def test_big_commits_meet_small_ones(make_store: Callable[[], Store]) -> None:
    """Protects the rebase of a commit that lies in the tree, in both directions."""
    with begin(make_store()) as tx:
        tx.stage("x/0", b"0")
    big, small = begin(make_store()), begin(make_store())
    for i in range(1500):
        big.stage(f"big/{i}", b"b")
    small.stage("x/1", b"1")
    small.commit()
    big.commit()
    after = begin(make_store())
    late = begin(make_store())
    late.stage("big/7", b"late")
    for i in range(1500):
        after.stage(f"big/{i}", b"c")
    after.commit()
    with pytest.raises(ConflictError):
        late.commit()
    now = content(make_store())
    assert len(now) == 1502
    assert now["big/7"] == b"c"
    assert now["x/1"] == b"1"


def test_modes(make_store: Callable[[], Store]) -> None:
    """Protects create (first writer wins) and replace (nothing of the old is left)."""
    one, two = begin(make_store(), mode="create"), begin(make_store(), mode="create")
    one.stage("a", b"1")
    two.stage("b", b"2")
    one.commit()
    with pytest.raises(TargetExistsError):
        two.commit()
    with pytest.raises(TargetExistsError):
        begin(make_store(), mode="create")
    with begin(make_store(), mode="replace") as tx:
        tx.stage("new", b"n")
    assert content(make_store()) == {"new": b"n"}
    with begin(make_store(), prefix="sub") as tx:
        tx.stage("in", b"i")
    with begin(make_store(), mode="replace", prefix="sub") as tx:
        tx.stage("other", b"o")
    assert content(make_store()) == {"new": b"n", "sub/other": b"o"}


def test_rollback_leaves_no_object(make_store: Callable[[], Store]) -> None:
    """Protects storage from the staged bytes of a transaction that did not commit."""
    with pytest.raises(RuntimeError), begin(make_store()) as tx:
        tx.stage("a", BIG)
        tx.stage("small", b"s")
        raise RuntimeError
    assert [i.key for i in make_store().list("data/")] == []
    assert content(make_store()) == {}


def test_a_chosen_id_commits_once(make_store: Callable[[], Store]) -> None:
    """I5: the second run learns that it is committed, also where both run at once."""
    one, two = begin(make_store(), id="job"), begin(make_store(), id="job")
    one.stage("a", b"1")
    two.stage("a", b"2" * 5000)
    one.commit()
    assert two.commit().reason == "committed before"
    again = begin(make_store(), id="job")
    assert again.committed
    assert content(make_store()) == {"a": b"1"}
    backend = ManifestBackend(Dataset(make_store()))
    assert backend.outcome("job") is fstx.OutcomeState.COMMITTED
    assert backend.outcome("other") is fstx.OutcomeState.UNKNOWN


def test_links_copy_nothing(make_store: Callable[[], Store]) -> None:
    """Protects cp and mv within a dataset: another path, the same object."""
    with begin(make_store()) as tx:
        tx.stage("a", BIG)
    with begin(make_store()) as tx:
        entry = tx.base.get("a")
        assert isinstance(entry, Entry)
        tx.link("b", entry)
        tx.remove("a")
        tx.make_directory("empty")
    assert content(make_store()) == {"b": BIG}
    assert len(list(make_store().list("data/"))) == 1
    assert Dataset(make_store()).view().is_dir("empty")


def test_compose_uses_its_pieces_up(make_store: Callable[[], Store]) -> None:
    """Protects formats that join what was staged: bytes in order, pieces gone."""
    with begin(make_store()) as tx:
        stager = tx.stager()
        pieces = [stager.stage(f"p{i}", bytes([65 + i]) * 3000) for i in range(3)]
        tx.compose("whole", [b"head", *pieces])
        with pytest.raises(StateError):
            tx.compose("again", [pieces[0]])
    assert content(make_store()) == {"whole": b"head" + b"A" * 3000 + b"B" * 3000 + b"C" * 3000}
    assert len(list(make_store().list("data/"))) == 1


def test_joining_by_url_from_elsewhere(make_store: Callable[[], Store]) -> None:
    """Protects workers that know the URL alone: they see what is staged, and it commits with the rest."""
    tx = begin(make_store())
    tx.stage("meta", b"early")
    tx.stage("gone", b"g")
    reference = tx.url.partition("@")[2].partition("::")[0]
    elsewhere = ManifestBackend(Dataset(make_store()))

    found = parse_reference(reference)
    assert found is not None
    worker = JoinedTransaction(elsewhere.dataset, *found)
    assert worker.read("meta") == b"early"
    worker.stage("part/0", BIG)
    worker.stage("meta", b"late")
    worker.remove("gone")
    assert dict(worker.view().items()).keys() == {"meta", "part/0"}
    tx.commit()
    assert content(make_store()) == {"meta": b"late", "part/0": BIG}


def test_nothing_staged_by_anyone_replaces_nothing(make_store: Callable[[], Store]) -> None:
    """A replacement for which nobody staged is refused, also when its URL had been given away."""
    with begin(make_store()) as tx:
        tx.stage("old", b"old")
    tx = begin(make_store(), mode="replace")
    assert "@" in tx.url
    with pytest.raises(StateError, match="nothing was staged"):
        tx.commit()
    assert not tx.committed
    assert content(make_store()) == {"old": b"old"}


def test_a_stager_that_travelled_stages_at_once(tmp_path: Path) -> None:
    """Protects workers in other processes: the receipt they send back is enough."""
    store = open_store(str(tmp_path / "ds")).below(".fstx")
    tx = begin(store)
    stager = pickle.loads(pickle.dumps(tx.stager()))
    receipt = pickle.loads(pickle.dumps(stager.stage("w", b"tiny")))
    stager.stage("w", b"not chosen")
    tx.adopt([receipt])
    tx.commit()
    assert content(store) == {"w": b"tiny"}


def test_the_context_belongs_to_what_was_entered(make_store: Callable[[], Store]) -> None:
    """Protects joining: within the block, and only in this context, begin on it again is refused."""
    backend = ManifestBackend(Dataset(make_store()))
    begun = {"mode": "update", "durability": "data", "require": frozenset()}
    with backend.begin(**begun) as tx:  # type: ignore[arg-type]
        tx.stage("a", b"1")
        with pytest.raises(StateError, match="open in this context"):
            backend.begin(**begun)  # type: ignore[arg-type]
    backend.begin(**begun).rollback()  # type: ignore[arg-type]


def test_bad_paths_are_refused(make_store: Callable[[], Store]) -> None:
    """Protects everything outside of the dataset from names that lead there."""
    tx = begin(make_store())
    for path in ("../x", "/x", "a/../b", ".fstx/log/1", "a//b", ""):
        with pytest.raises(PathError):
            tx.stage(path, b"")
    tx.rollback()


def test_a_first_writer_that_died_is_cleared_away(make_store: Callable[[], Store]) -> None:
    """Protects storage from a writer that was killed before anything was committed: recovery finds it."""
    tx = begin(make_store())
    tx.stage("a", BIG)
    tx._settle()
    joining._open.pop(tx.txid)  # as a process that is gone
    backend = ManifestBackend(Dataset(make_store()))
    (settled,) = backend.recover(idle_s=0).settled
    assert settled.state is fstx.OutcomeState.ABORTED
    assert list(make_store().list("data/")) == []
    with pytest.raises(FencedError):
        tx.commit()
