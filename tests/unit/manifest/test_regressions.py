"""What once went wrong with datasets, and sweeps of faults over a commit."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from fstx.backends.manifest import Dataset, ManifestBackend, ManifestTransaction
from fstx.backends.manifest.fencing import fence
from fstx.backends.manifest.joined import JoinedTransaction
from fstx.backends.manifest.log import Appender
from fstx.backends.manifest.names import joined_key, removal_attempt
from fstx.backends.manifest.uploads import Uploads
from fstx.errors import (
    ConflictError,
    FencedError,
    InDoubtError,
    PathError,
    StateError,
    StorageError,
)
from fstx.machines import manifest as m
from fstx.state.tree import Tree
from fstx.stores import Store
from fstx.stores.opening import open_store
from fstx.types import StagedObject
from support.faultystore import FaultyStore

BIG = bytes(range(256)) * 16
MANY = 1200  # paths: more than a record holds


@pytest.fixture
def store() -> Store:
    """The control directory of a new dataset in memory."""
    return open_store(f"memory://r-{uuid.uuid4().hex}").below(".fstx")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fstx.backends.manifest.log.random.uniform", lambda low, high: 0.0)


def begin(store: Store | Dataset, **given: Any) -> ManifestTransaction:
    options: dict[str, Any] = {
        "mode": "update",
        "durability": "data",
        "require": frozenset(),
        **given,
    }
    policy, prefix = options.pop("policy", "rebase"), options.pop("prefix", "")
    roots, strip = options.pop("roots", None), options.pop("strip", "")
    dataset = store if isinstance(store, Dataset) else Dataset(store)
    backend = ManifestBackend(dataset, policy=policy, prefix=prefix, roots=roots, strip=strip)
    return backend.begin(**options)


def put(store: Store, **contents: bytes) -> None:
    with begin(store) as tx:
        for path, data in contents.items():
            tx.stage(path.replace("__", "/"), data)


def content(store: Store, version: int | None = None) -> dict[str, bytes]:
    dataset = Dataset(store)
    return {p: dataset.read(e) for p, e in dataset.view(version).items() if not e.directory}


def objects(store: Store) -> list[str]:
    return [i.key for p in ("data/", "node/") for i in store.list(p)]


# --- data that a landed commit needs --------------------


def test_what_was_linked_outlives_its_first_name(store: Store) -> None:
    """Protects a move of what was staged just before: its object is not deleted with the old name."""
    with begin(store) as tx:
        tx.stage("a", BIG)
        entry = tx.view().get("a")
        assert entry is not None
        tx.link("b", entry)
        tx.remove("a")
        tx.stage("c", BIG[::-1])
        other = tx.view().get("c")
        assert other is not None
        tx.link("d", other)
        tx.stage("c", BIG)
    assert content(store) == {"b": BIG, "c": BIG, "d": BIG[::-1]}


def test_a_receipt_that_comes_again_with_another_rank(store: Store) -> None:
    """Protects an object that is adopted twice, the second time as a publisher."""
    with begin(store) as tx:
        for path, data in (("big", BIG), ("small", b"s")):
            found = tx.stage(path, data)
            tx.adopt([StagedObject(path, found.key, found.size_bytes, found.txid, True)])
    assert content(store) == {"big": BIG, "small": b"s"}


def test_a_cold_fence_sees_what_landed(store: Store) -> None:
    """Protects committed transactions from being told fenced by a process that reads the log anew."""
    txids = []
    for i in range(3):
        with begin(store) as tx:
            tx.stage(f"p{i}", BIG)
        txids.append(tx.txid)
    assert fence(Dataset(store), [txids[1]]) == m.Landed(2)
    assert len(Dataset(store).log.seqs()) == 3


def test_an_interrupt_after_others_went_on(store: Store) -> None:
    """Protects a commit that landed unheard, with later commits over it, when Ctrl-C comes at its look."""
    put(store, base=b"0")
    done: list[int] = []

    def act(name: str, key: str, number: int) -> None:
        if done and name == "list" and key == "boundary/":
            put(store, other=b"1")
            done.clear()
            raise KeyboardInterrupt

    faulty = FaultyStore(store, act=act)
    tx = begin(faulty)
    tx.stage("mine", BIG)
    landing = faulty.put_new

    def put_new(key: str, data: bytes, /) -> Any:
        answer = landing(key, data)
        if key.startswith("log/"):
            done.append(1)
        return answer

    faulty.put_new = put_new  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        tx.commit()
    assert tx.committed
    assert content(store) == {"base": b"0", "mine": BIG, "other": b"1"}


def test_a_look_remembers_that_it_found_its_own(store: Store) -> None:
    """Protects an append whose own record was seen by a look that was not evaluated any more (H7)."""
    put(store, a=b"1")
    dataset = Dataset(store)
    head = dataset.refresh().head
    with begin(store) as tx:
        tx.stage("b", BIG)
    appender = Appender(dataset.log, head, tx.txid, lambda h, s: None, lambda h, s: "free")  # type: ignore[arg-type, return-value]
    appender.tried = 2
    assert appender._look() == m.Seen(2, 2, "free")
    put(store, c=b"1")
    assert appender._look() == m.Seen(3, 2, "free")


# --- the outcome that is told --------------------

FAULTS = ["error", "unknown", "unknown-after", "interrupt", "interrupt-after"]


def _sweep(
    store_of: Callable[[], Store],
    fault: Any,
    *,
    prepare: Callable[[ManifestTransaction], None],
    beside: Callable[[Store], None] | None,
    times: int = 1,
) -> None:
    at = 0
    while True:
        at += 1
        store = store_of()
        put(store, base=b"0", **{f"d__{i}": BIG for i in range(3)})
        raced: list[int] = []

        def act(
            name: str, key: str, number: int, store: Store = store, raced: list[int] = raced
        ) -> None:
            if beside is not None and name == "put_new" and key.startswith("log/") and not raced:
                raced.append(1)
                beside(store)

        faulty = FaultyStore(store, act=act)
        tx = begin(faulty)
        prepare(tx)
        before = content(store)
        faulty.at, faulty.fault, faulty.times = faulty.calls + at, fault, times
        told = ""
        error: BaseException | None = None
        try:
            tx.commit()
            told = "committed"
        except BaseException as found:  # noqa: BLE001 - a sweep
            error = found
            told = {"committed": "committed", "rolled back": "aborted", "in doubt": "unknown"}[
                tx._state
            ]
        finally:
            faulty.at = 0
        landed = any(
            Dataset(store).log.read(s).record.txid == tx.txid  # type: ignore[union-attr]
            for s in Dataset(store).log.seqs()
        )
        now = content(store)
        expected = KeyboardInterrupt | StorageError | ConflictError | InDoubtError | None
        assert isinstance(error, expected), repr(error)
        assert told == "unknown" or not isinstance(error, InDoubtError)
        where = (fault, at, told, repr(error), getattr(error, "__notes__", ()))
        assert told == "unknown" or (told == "committed") == landed, where
        if told == "committed":
            assert "mine" in now, where
        elif told == "aborted":
            assert "mine" not in now, where
            assert now.items() >= {i for i in before.items() if i[0] != "d/1"}, where
            left = [k for k in objects(store) if tx.txid in k]
            notes = " ".join(getattr(error, "__notes__", ()))
            assert not left or "staged" in notes or times > 1, (where, left)
        if faulty.calls < at:
            return
        if faulty.calls - at > 500 or at > 60:
            return


def _few(tx: ManifestTransaction) -> None:
    tx.stage("mine", BIG)
    tx.stage("small", b"s")


def _crowd(tx: ManifestTransaction) -> None:
    _few(tx)
    for i in range(MANY):
        tx.stage(f"many/{i}", b"x")


def _drop_one(store: Store) -> None:
    with begin(store) as tx:
        tx.remove("d/1")
        tx.stage("other", b"o")


def _clash(store: Store) -> None:
    put(store, mine=b"theirs-" + BIG)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("beside", [None, _drop_one], ids=["alone", "beside"])
@pytest.mark.parametrize(
    ("prepare", "times"), [(_few, 1), (_few, 3), (_crowd, 1)], ids=["few", "few-3", "crowd"]
)
def test_what_is_told_is_what_happened(fault: str, beside: Any, prepare: Any, times: int) -> None:
    """Protects the outcome that is told, at each request of a commit that goes wrong."""

    def store_of() -> Store:
        return open_store(f"memory://r-{uuid.uuid4().hex}").below(".fstx")

    _sweep(store_of, fault, prepare=prepare, beside=beside, times=times)


@pytest.mark.parametrize("prepare", [_few, _crowd], ids=["few", "crowd"])
def test_a_conflict_leaves_nothing(store: Store, prepare: Any) -> None:
    """Protects the storage from tree nodes and objects of a commit that lost."""
    put(store, mine=b"0")
    raced: list[int] = []

    def act(name: str, key: str, number: int) -> None:
        if name == "put_new" and key.startswith("log/") and not raced:
            raced.append(1)
            put(store, mine=b"theirs")

    tx = begin(FaultyStore(store, act=act))
    prepare(tx)
    with pytest.raises(ConflictError):
        tx.commit()
    assert [k for k in objects(store) if tx.txid in k] == []


def test_a_failing_cleanup_hides_no_conflict(store: Store) -> None:
    """Protects the first failure: that clearing away fails too is a note of it."""
    put(store, a=b"0")
    faulty = FaultyStore(store)
    tx = begin(faulty)
    tx.stage("a", BIG)
    put(store, a=b"1")

    def act(name: str, key: str, number: int) -> None:
        if name == "delete":
            raise ConnectionError("gone away")

    faulty.act = act
    with pytest.raises(ConflictError) as caught:
        tx.commit()
    assert "gone away" in " ".join(caught.value.__notes__)
    faulty.act = lambda name, key, number: None


def test_an_interrupt_after_the_record_is_a_commit(store: Store) -> None:
    """Protects the state of a transaction whose last clearing away was interrupted."""

    def act(name: str, key: str, number: int) -> None:
        if name == "delete":
            raise KeyboardInterrupt

    faulty = FaultyStore(store)
    tx = begin(faulty)
    tx.stage("a", BIG)
    tx.stage("a", BIG[::-1])
    faulty.act = act
    with pytest.raises(KeyboardInterrupt):
        tx.commit()
    assert tx.committed
    assert tx.snapshot is not None
    assert tx.snapshot.version == 1


def test_a_second_interrupt_leaves_it_in_doubt(store: Store) -> None:
    """Protects the outcome told when Ctrl-C comes again while the first one finds out."""
    seen: list[int] = []

    def act(name: str, key: str, number: int) -> None:
        if name == "put_new" and key.startswith("log/"):
            seen.append(number)
            store.put_new(key, data[0])
            raise KeyboardInterrupt
        if seen:
            raise KeyboardInterrupt

    faulty = FaultyStore(store)
    tx = begin(faulty)
    tx.stage("a", BIG)
    data: list[bytes] = []
    whole = faulty.put_new

    def put_new(key: str, what: bytes, /) -> Any:
        data[:] = [what]
        return whole(key, what)

    faulty.put_new = put_new  # type: ignore[method-assign]
    faulty.act = act
    with pytest.raises(KeyboardInterrupt):
        tx.commit()
    assert tx._state == "in doubt"
    assert content(store) == {"a": BIG}


# --- rebasing --------------------


def test_the_last_of_two_big_commits_wins(store: Store) -> None:
    """Protects policy "last" for commits that go through the tree: they land over what came between."""
    put(store, d__x=b"0", e__y=b"0")
    raced: list[int] = []

    def act(name: str, key: str, number: int) -> None:
        if name == "put_new" and key.startswith("log/") and not raced:
            raced.append(1)
            put(store, many__7=b"theirs", d__new=b"theirs", free=b"theirs")

    tx = begin(FaultyStore(store, act=act), policy="last")
    tx.remove("d")
    for i in range(MANY):
        tx.stage(f"many/{i}", b"mine")
    tx.commit()
    now = content(store)
    assert now["many/7"] == b"mine"
    assert "d/new" not in now
    assert now["free"] == b"theirs"


def test_a_directory_does_not_overwrite_a_file(store: Store) -> None:
    """Protects a file of another commit from an empty directory that was made at its path."""
    put(store, a=b"0")
    tx, other = begin(store), begin(store)
    tx.make_directory("d")
    tx.stage("b", b"1")
    other.stage("d", b"file")
    other.commit()
    with pytest.raises(ConflictError):
        tx.commit()
    assert content(store) == {"a": b"0", "d": b"file"}


def test_two_may_make_one_directory(store: Store) -> None:
    """Protects commits that both make sure of a directory: that is no conflict."""
    put(store, a=b"0")
    tx, other = begin(store), begin(store)
    for each, name in ((tx, "x"), (other, "y")):
        each.make_directory("d")
        each.stage(f"d/{name}", b"1")
    other.commit()
    tx.commit()
    assert set(content(store)) == {"a", "d/x", "d/y"}


def test_restored_versions_count_as_changes(store: Store) -> None:
    """Protects a restored version from a commit that began before it and touched the same path."""
    from fstx.backends.manifest.restore import restore

    put(store, a=b"0")
    put(store, a=b"1")
    dataset = Dataset(store)
    tx = begin(dataset)
    tx.stage("a", b"2")
    restore(dataset, 1, message="")
    with pytest.raises(ConflictError):
        tx.commit()
    assert content(store) == {"a": b"0"}


# --- directories, replacement, several targets --------------------


def test_a_removed_directory_does_not_come_back(store: Store) -> None:
    """Protects a removal of a directory that this transaction had made."""
    with begin(store) as tx:
        tx.make_directory("d")
        tx.make_directory("d/e")
        tx.stage("a", b"1")
        tx.remove("d")
        assert not tx.view().is_dir("d")
    assert not Dataset(store).view().is_dir("d")
    with begin(store) as tx:
        tx.make_directory("only")
        tx.remove("only")
    assert content(store) == {"a": b"1"}


def test_a_replacement_keeps_the_directories_it_made(store: Store) -> None:
    """Protects an empty directory of a replacement that the old version had as well."""
    with begin(store) as tx:
        tx.make_directory("d")
        tx.stage("old", b"1")
    with begin(store, mode="replace") as tx:
        tx.make_directory("d")
        tx.stage("new", b"1")
    assert Dataset(store).view().is_dir("d")
    assert content(store) == {"new": b"1"}


def test_replacing_some_targets_leaves_their_neighbours(store: Store) -> None:
    """Protects what lies beside the targets of a list when those are replaced."""
    put(store, p__a__x=b"0", p__b__x=b"0", p__c__x=b"0", p__f=b"0")
    with begin(store, mode="replace", prefix="p", roots=("a", "b")) as tx:
        tx.stage("a/y", b"1")
        assert list(tx.paths()) == ["a/y", "b/x"]
    assert content(store) == {"p/a/y": b"1", "p/b/x": b"0", "p/c/x": b"0", "p/f": b"0"}
    other = begin(store)
    with begin(store, mode="create", prefix="p", roots=("n",)) as tx:
        tx.stage("n", b"1")
        other.stage("p/c/x", b"2")
        other.commit()
    assert content(store)["p/n"] == b"1"


# --- joining --------------------


def joined(tx: ManifestTransaction, store: Store) -> JoinedTransaction:
    assert tx.url
    return JoinedTransaction(Dataset(store), tx.txid, tx.begun)


def test_a_joined_removal_spares_what_came_later(store: Store) -> None:
    """Protects what the coordinator staged below a tree after another had removed it."""
    put(store, d__old=b"0")
    tx = begin(store)
    other = joined(tx, store)
    tx.stage("d/before", b"1")
    other.remove("d")
    tx.stage("d/after", b"1")
    tx.commit()
    assert content(store) == {"d/after": b"1"}


def test_what_others_staged_before_a_removal_stays_removed(store: Store) -> None:
    """Protects a removal by the coordinator from what others had staged there before."""
    put(store, d__old=b"0", e=b"0")
    tx = begin(store)
    other = joined(tx, store)
    other.stage("d/x", b"1")
    other.stage("e", b"1")
    tx.remove("d")
    tx.remove("e")
    other.stage("e", b"2")
    tx.commit()
    assert content(store) == {"e": b"2"}


def test_what_was_not_adopted_is_not_committed(store: Store) -> None:
    """Protects the set of paths from attempts that the coordinator staged and never adopted."""
    tx = begin(store)
    assert tx.url
    tx.stager().stage("never", BIG)
    tx.stage("a", b"1")
    tx.commit()
    assert content(store) == {"a": b"1"}


def test_others_see_packed_objects(store: Store) -> None:
    """Protects small objects that were packed before the URL was asked for."""
    tx = begin(store)
    tx.stage("a", b"1")
    tx._desk.pack()
    other = joined(tx, store)
    assert other.read("a") == b"1"
    assert [p for p, _ in other.view().items()] == ["a"]
    tx.commit()
    assert content(store) == {"a": b"1"}


def test_joined_readers_see_the_removal_of_a_tree(store: Store) -> None:
    """Protects a joined reader from a file that was staged before its tree was removed."""
    tx = begin(store)
    other = joined(tx, store)
    other.stage("d/x", b"1")
    other.remove("d")
    assert other.view().get("d/x") is None
    tx.rollback()


def test_paths_from_outside_are_refused(store: Store) -> None:
    """Protects the dataset from attempts outside of the transaction's place in it."""
    tx = begin(store, prefix="sub")
    other = joined(tx, store)
    other.stage("elsewhere", b"1")
    with pytest.raises(PathError, match="elsewhere"):
        tx.commit()
    assert content(store) == {}


def test_joined_removals_in_a_replacement(store: Store) -> None:
    """Protects a replacement whose joined writers remove what it replaces anyhow."""
    put(store, a=b"0")
    tx = begin(store, mode="replace")
    other = joined(tx, store)
    other.remove("a")
    other.stage("b", b"1")
    tx.commit()
    assert content(store) == {"b": b"1"}


def test_strange_names_among_attempts(store: Store) -> None:
    """Protects a commit from objects that a stranger put beside its attempts."""
    tx = begin(store)
    assert tx.url
    for path in (".fstx/id/k-" + "0" * 32, "..", "a/../b", "/x", "a\\b", "\udcff", "x\x00"):
        store.put(joined_key(tx.txid, path, removal_attempt()[:-3] + "--"), b"1")
    store.put(f"data/{tx.txid}/+/nothing", b"1")
    store.put(f"data/{tx.txid}/+/a~b~c", b"1")
    tx.stage("a", b"1")
    tx.commit()
    assert {p for p, _ in Dataset(store).view().items() if p != "\udcff"} == {"a"}


def test_nested_contexts_return_to_the_outer_one(store: Store) -> None:
    """Protects calls after an inner block: they belong to the outer transaction again."""
    from fstx.backends.manifest import joining

    outer, inner = begin(store), begin(store)
    with outer:
        with inner:
            assert joining.current(inner.dataset.identity) is inner
        assert joining.current(outer.dataset.identity) is outer
        outer.rollback()


# --- uploads, threads, memory --------------------


class Slow:
    """A store whose uploads end when they are told to."""

    def __init__(self) -> None:
        self.futures: list[Future[None]] = []

    def start_put(self, key: str, data: Any, /, *, checksum: str = "") -> Future[None]:
        self.futures.append(Future())
        return self.futures[-1]


def test_a_failed_upload_is_raised_when_nothing_is_under_way() -> None:
    """Protects what a raise promises: no upload is still running."""
    slow = Slow()
    uploads = Uploads(slow, "t")  # type: ignore[arg-type]
    uploads.put("a", b"1", "")
    uploads.put("b", b"1", "")
    slow.futures[0].set_exception(OSError("first"))
    threading.Timer(0.05, lambda: slow.futures[1].set_exception(OSError("second"))).start()
    with pytest.raises(StorageError, match="first") as caught:
        uploads.put("c", b"1", "")
    assert slow.futures[1].done()
    assert [str(e) for e in caught.value.others] == ["second"]


def test_a_cancelled_upload_is_a_failure() -> None:
    """Protects a commit from an object that was never put since its upload was cancelled."""
    slow = Slow()
    uploads = Uploads(slow, "t")  # type: ignore[arg-type]
    uploads.put("a", b"1", "")
    slow.futures[0].cancel()
    slow.futures[0].set_running_or_notify_cancel()
    with pytest.raises(StorageError):
        uploads.settle()


def test_nothing_is_staged_after_the_end(store: Store) -> None:
    """Protects a finished transaction from stagers that other threads still use."""
    tx = begin(store)
    stager = tx.stager()
    with pytest.raises(StateError), stager.open("late") as file:
        file.write(BIG)
        tx.rollback()
        with pytest.raises(StateError):
            stager.stage("later", BIG)
    assert objects(store) == []


def test_a_rollback_aborts_open_parts(store: Store) -> None:
    """Protects the storage from uploads in parts that a thread left open at the rollback."""
    aborted: list[str] = []

    class Watching(FaultyStore):
        def open(self, key: str, /) -> Any:
            writer = super().open(key)
            plain = writer.abort

            def abort() -> None:
                aborted.append(key)
                plain()

            writer.abort = abort  # type: ignore[method-assign]
            return writer

    tx = begin(Watching(store))
    block = tx.open("big")
    file = block.__enter__()
    file.write(bytes(9 << 20))
    tx.rollback()
    assert len(aborted) == 1
    with pytest.raises(StateError):
        block.__exit__(None, None, None)
    assert objects(store) == []


def test_a_failing_end_of_parts_is_cleared_away(store: Store) -> None:
    """Protects the storage from an upload in parts whose last part failed."""
    aborted: list[str] = []

    class Failing(FaultyStore):
        def open(self, key: str, /) -> Any:
            class Writer:
                def write(self, data: Any, /) -> None: ...

                def close(self) -> None:
                    raise ConnectionError("no")

                def abort(self) -> None:
                    aborted.append(key)

            return Writer()

    tx = begin(Failing(store))
    with pytest.raises(StorageError), tx.open("big") as file:
        file.write(bytes(9 << 20))
    assert len(aborted) == 1
    tx.rollback()


def test_nothing_is_held_after_the_end(store: Store) -> None:
    """Protects memory: a transaction that is over holds no content."""
    tx = begin(store)
    for i in range(100):
        tx.stage(f"{i}", bytes(1000))
    tx.commit()
    assert tx._desk.held_bytes == 0
    assert not tx._entries
    assert tx._stager._desk is None or tx._stager._desk.held_bytes == 0
    tx = begin(store)
    tx.stage("x", b"1")
    tx.rollback()
    assert tx._stager._desk is None or tx._stager._desk.held_bytes == 0


def test_threads_share_one_transaction(store: Store) -> None:
    """Protects contents: links, small and large objects of many threads, packed meanwhile."""
    put(store, **{f"s__{i}": bytes([i]) * 10 for i in range(20)})
    tx = begin(store)
    base = dict(tx.base.items())
    errors: list[BaseException] = []
    wanted: dict[str, bytes] = {f"s/{i}": bytes([i]) * 10 for i in range(20)}
    stop = threading.Event()

    def work(n: int) -> None:
        try:
            for i in range(60):
                tx.stage(f"t{n}/{i}", bytes([n, i]) * 50)
                tx.link(f"l{n}/{i}", base[f"s/{i % 20}"])
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    def look() -> Iterator[None]:
        while not stop.is_set():
            tx._desk.pack()
            tx.view().get("t0/1")
            tx.delta()
            yield

    for n in range(4):
        for i in range(60):
            wanted[f"t{n}/{i}"] = bytes([n, i]) * 50
            wanted[f"l{n}/{i}"] = bytes([i % 20]) * 10
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    looker = threading.Thread(target=lambda: [None for _ in look()])
    looker.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    looker.join()
    assert errors == []
    tx.commit()
    assert content(store) == wanted


def test_failed_tree_nodes_leave_no_upload(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects what a raise promises where one of several packs of nodes fails."""
    slow: list[Future[None]] = []

    class Nodes(FaultyStore):
        def start_put(self, key: str, data: Any, /, *, checksum: str = "") -> Future[None]:
            if not key.startswith("node/"):
                return super().start_put(key, data, checksum=checksum)
            slow.append(Future())
            if len(slow) == 1:
                threading.Timer(0.02, slow[0].set_exception, [ConnectionError("no")]).start()
            else:
                threading.Timer(0.1, slow[-1].set_result, [None]).start()
            return slow[-1]

    grown = Tree.updated

    def updated(self: Tree, delta: Any, new_key: Any) -> Any:
        root, packs = grown(self, delta, new_key)
        return root, {**packs, new_key(): b"more"}

    monkeypatch.setattr(Tree, "updated", updated)
    tx = begin(Nodes(store))
    _crowd(tx)
    with pytest.raises(StorageError):
        tx.commit()
    assert len(slow) >= 2
    assert all(f.done() for f in slow)
    assert objects(store) == []


# --- what happens around a commit ---------------------------------------------


def test_a_dataset_that_was_deleted_begins_anew(store: Store) -> None:
    """Protects a dataset that is made again where one was deleted: nothing of the old one is believed."""
    dataset = Dataset(store)
    for _ in range(2):
        for path in ("a", "b"):
            with begin(dataset) as tx:
                tx.stage(path, BIG)
        assert Dataset(store).exists()
        assert Dataset(store).log.seqs() == [1, 2]
        store.delete([info.key for info in store.list("")])
    with begin(dataset) as tx:
        tx.stage("c", b"1")
    assert content(store) == {"c": b"1"}


def test_reading_on_across_a_hundred(store: Store) -> None:
    """Protects the head that a beginning finds, at numbers that end their row of names, and after others."""
    dataset = Dataset(store)
    for n in range(98, 103):
        while dataset.refresh().version < n:
            with begin(store) as tx:
                tx.stage("a", str(n).encode())
        assert dataset.refresh(sure=True).version == n
        assert Dataset(store).view().version == n
    old = Dataset(store)
    old.advance(old.log.read(98))  # type: ignore[arg-type]
    assert old.refresh(sure=True).version == 102
    dataset.log.raise_boundary(101)
    store.delete([f"log/{n:020d}" for n in range(1, 102)])
    old = Dataset(store)
    old.advance(dataset.log.read(102))  # type: ignore[arg-type]
    assert old.refresh(sure=True).version == 102


def test_nodes_that_are_collected_meanwhile(store: Store) -> None:
    """Protects a commit whose base was collected while it built its record: it looks again."""
    put(store, **{f"d__{i}": b"1" for i in range(MANY)})
    node = next(iter(store.list("node/"))).key
    tx = begin(store)
    tx.stage("mine", BIG)
    for i in range(MANY):
        tx.stage(f"many/{i}", b"2")
    tx.dataset.cache.__init__()  # type: ignore[misc]
    raced: list[int] = []

    def act(name: str, key: str, number: int) -> None:
        if name == "get" and key == node and not raced:
            raced.append(1)
            put(store, other=b"1")
            raise FileNotFoundError(key)

    tx.dataset.store = tx.dataset.log.store = FaultyStore(store, act=act)
    tx.commit()
    assert raced
    assert content(store).items() >= {("mine", BIG), ("other", b"1"), ("d/7", b"1")}


def test_a_fence_after_truncation(store: Store) -> None:
    """Protects what landed from a fence that finds its record truncated, or even forgotten."""
    txids = []
    for i in range(4):
        with begin(store) as tx:
            tx.stage(f"p{i}", BIG)
        txids.append(tx.txid)
    log = Dataset(store).log
    log.raise_boundary(3)
    store.delete(["log/" + f"{n:020d}" for n in (1, 2, 3)])
    assert fence(Dataset(store), [txids[1]]) == m.Landed(2)
    assert fence(Dataset(store), ["0" * 32]).reason == "gone"  # type: ignore[union-attr]
    with pytest.raises(FencedError):
        _fenced(store)


def _fenced(store: Store) -> None:
    tx = begin(store)
    tx.stage("late", BIG)
    fence(Dataset(store), [tx.txid], tx.begun)
    try:
        tx.commit()
    finally:
        assert not [k for k in objects(store) if tx.txid in k]


def test_runs_with_one_id_that_overlap(store: Store) -> None:
    """Protects an id from landing twice: the second run learns of the first and leaves nothing."""
    first, second = (begin(store, id="job") for _ in range(2))
    for tx in (first, second):
        tx.stage("a", BIG + tx.txid.encode())
        tx.stage("b", BIG)
    first.commit()
    found = second.commit()
    assert second.committed
    assert found.reason == "committed before"
    assert content(store)["a"] == BIG + first.txid.encode()
    assert not [k for k in objects(store) if second.txid in k]
