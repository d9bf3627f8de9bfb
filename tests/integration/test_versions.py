"""Versions of a dataset: log, snapshots, restore, pins, collection and verification."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fstx.backends.manifest import (
    Dataset,
    ManifestBackend,
    ManifestTransaction,
    building,
    collect,
    restore,
)
from fstx.backends.manifest.dataset import forget
from fstx.backends.manifest.history import VersionedDataset
from fstx.backends.manifest.names import DATA, LOG, NODE, PIN, boundary_key, log_key, seq_of
from fstx.backends.manifest.pins import Holder, pins_of
from fstx.backends.manifest.survey import kept_of
from fstx.errors import ConflictError, FencedError, PathError, RecoveryError, UsageError
from fstx.state import growing
from fstx.state.entries import Delta, Entry
from fstx.state.records import decode, encode
from fstx.stores import Store
from fstx.stores.opening import open_store
from fstx.versions import dataset
from support.dyingstore import Died, DyingStore

BIG = bytes(range(256)) * 10  # is not held back, so that it is an object of its own
Make = Callable[[], Store]


@pytest.fixture(params=["memory", "local"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a dataset may lie, on each kind of storage that needs no server."""
    yield f"memory://v-{uuid.uuid4().hex}" if request.param == "memory" else str(tmp_path / "ds")
    forget()


@pytest.fixture
def memory() -> str:
    return f"memory://v-{uuid.uuid4().hex}"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees and truncation with few paths and records."""
    monkeypatch.setattr(building, "BUDGET_BYTES", 600)
    monkeypatch.setattr(restore, "BUDGET_BYTES", 600)
    monkeypatch.setattr(growing, "LEAF_BYTES", 400)
    monkeypatch.setattr(collect, "SPARE", 2)


def store_at(url: str) -> Store:
    return open_store(url).below(".fstx")


def begin(store: Store, **given: Any) -> ManifestTransaction:
    options = {"mode": "update", "durability": "data", "require": frozenset(), **given}
    policy = options.pop("policy", "rebase")
    return ManifestBackend(Dataset(store), policy=policy).begin(**options)


def put(url: str, files: dict[str, bytes], *gone: str, message: str = "") -> int:
    """One commit; its version."""
    with begin(store_at(url)) as tx:
        tx.message = message
        for path in gone:
            tx.remove(path)
        for path, data in files.items():
            tx.stage(path, data)
    assert tx.snapshot is not None
    assert tx.snapshot.version is not None
    return tx.snapshot.version


def at(url: str) -> VersionedDataset:
    """The handle of a process of its own."""
    return VersionedDataset(Dataset(store_at(url)))


def content(handle: VersionedDataset, version: int | None = None) -> dict[str, bytes]:
    snapshot = handle.snapshot(version)
    return {path: snapshot.read(path) for path in snapshot.paths()}


def objects(url: str, *prefixes: str) -> set[str]:
    store = store_at(url)
    return {i.key for p in prefixes or (DATA, NODE) for i in store.list(p)}


def needed(url: str, *versions: int | None) -> set[str]:
    """Data objects that versions need, by asking them for all their entries."""
    found = set()
    for version in versions:
        found |= {e.key for _, e in at(url).snapshot(version).items() if e.key}
    return found


# --- log and snapshots --------------------------------------------------------------------------------


def test_log_tells_what_was_committed(url: str) -> None:
    """Protects the log: newest first, with messages, sizes and numbers; readable as text."""
    for i in range(3):
        put(url, {"a": bytes([i]) * 3000, f"b{i}": b"x"}, message=f"run {i}")
    handle = at(url)
    log = handle.log()
    assert [row.version for row in log] == [3, 2, 1]
    assert [row.message for row in log] == ["run 2", "run 1", "run 0"]
    assert [(row.paths, row.size_bytes) for row in log] == [(2, 3001)] * 3
    assert all(abs(row.when_s - time.time()) < 100 and row.txid and row.writer for row in log)
    assert "run 2" in str(log)
    assert "3.0 kB" in str(log)
    assert handle.log(1) == log[:1]
    assert handle.version == 3
    assert "version 3" in repr(handle)


def test_texts_of_others_stay_on_their_line(memory: str) -> None:
    """Protects terminals: line ends and escapes of a message are not printed."""
    put(memory, {"a": b"1"}, message="one\n\x1b[31mtwo")
    text = str(at(memory).log())
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text


def test_snapshots_read_their_version(url: str) -> None:
    """Protects snapshots: each version reads as it was, also pickled; absent ones are told."""
    wanted = {}
    for i in range(4):
        put(url, {"a": bytes([i]) * 3000, f"d/{i}": b"x"})
        wanted[i + 1] = {"a": bytes([i]) * 3000, **{f"d/{j}": b"x" for j in range(i + 1)}}
    handle = dataset("tx::" + url)
    for version, files in wanted.items():
        assert content(handle, version) == files
    snapshot = handle.snapshot(2)
    assert snapshot.version == 2
    assert list(snapshot.paths("d")) == ["d/0", "d/1"]
    assert snapshot.read("a", 1, 3) == b"\1\1"
    assert "a" in snapshot
    assert "d/3" not in snapshot
    assert [name for name, _ in snapshot.children()] == ["a", "d"]
    assert pickle.loads(pickle.dumps(snapshot)).read("a") == b"\1" * 3000
    with pytest.raises(FileNotFoundError, match="'d/3' is not in version 2"):
        snapshot.read("d/3")
    with pytest.raises(FileNotFoundError, match="no version 9"):
        handle.snapshot(9)
    below = dataset(f"tx::{url}/d")
    assert list(below.snapshot(1).paths()) == ["0"]
    assert below.snapshot(1).read("0") == b"x"


def test_fsspec_reads_a_snapshot(url: str) -> None:
    """Protects other code: URL and options of a snapshot open that version through fsspec."""
    import fsspec

    put(url, {"a": b"1"})
    put(url, {"a": b"2"})
    snapshot = dataset("tx::" + url).snapshot(1)
    with fsspec.open(f"{snapshot.url}/a", **snapshot.storage_options) as file:
        assert file.read() == b"1"


def test_no_dataset_is_told(url: str) -> None:
    """Protects against an empty answer for a mistyped place."""
    with pytest.raises(PathError, match="no dataset at or above"):
        dataset("tx::" + url)


# --- restore ----------------------------------------------------------------------------------------------


def test_restore_is_a_commit(url: str, small: None) -> None:
    """Protects restore: the old tree is the newest version, nothing is copied, no version goes."""
    many = {f"p/{i:03}": bytes([i]) * 300 for i in range(100)}
    put(url, {**many, "a": BIG})
    put(url, {"a": b"other", "new": BIG}, "p")
    before = objects(url, DATA)
    told = at(url).restore(1)
    assert told.version == 3
    assert content(at(url)) == {**many, "a": BIG}
    assert content(at(url), 2) == {"a": b"other", "new": BIG}
    assert objects(url, DATA) == before
    log = at(url).log()
    assert [row.kind for row in log] == ["restore", "commit", "commit"]
    assert log[0].message == "restored version 1"
    assert at(url).restore(0, message="empty").version == 4
    assert content(at(url)) == {}
    put(url, {"a": b"again"})
    assert content(at(url)) == {"a": b"again"}
    assert at(url).verify(data=True).ok


def test_restore_keeps_ids(url: str) -> None:
    """Protects retried jobs: an id that was committed stays so when an older version comes back."""
    put(url, {"a": b"1"})
    with begin(store_at(url), id="job") as tx:
        tx.stage("a", b"2")
    at(url).restore(1)
    again = begin(store_at(url), id="job")
    assert again.committed
    assert content(at(url)) == {"a": b"1"}


def test_restore_fails_on_a_commit_meanwhile(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects others' commits: what nobody looked at is not undone."""
    put(url, {"a": b"1"})
    put(url, {"a": b"2"})
    handle = at(url)
    view = handle._dataset.view

    def slow(version: int | None = None) -> Any:
        put(url, {"b": b"late"})
        return view(version)

    monkeypatch.setattr(handle._dataset, "view", slow)
    with pytest.raises(ConflictError, match="committed meanwhile"):
        handle.restore(1)
    assert content(at(url)) == {"a": b"2", "b": b"late"}


def test_writers_see_a_restore(url: str) -> None:
    """Protects both ways: a writer on the same path conflicts with a restore, one beside it does not."""
    put(url, {"a": b"1", "b": b"1"})
    put(url, {"a": b"2"})
    one, two = begin(store_at(url)), begin(store_at(url))
    one.stage("a", b"3")
    two.stage("b", b"3")
    at(url).restore(1)
    with pytest.raises(ConflictError):
        one.commit()
    two.commit()
    assert content(at(url)) == {"a": b"1", "b": b"3"}


# --- collection -------------------------------------------------------------------------------------------


def history(url: str, count: int = 6) -> dict[int, dict[str, bytes]]:
    """Commits that replace, add and remove; what each version holds."""
    wanted: dict[int, dict[str, bytes]] = {}
    now: dict[str, bytes] = {}
    for i in range(count):
        files = {"a": bytes([i]) * 3000, f"d/{i}": bytes([i]) * 2500, f"s/{i}": b"small"}
        files |= {f"m/{j}": bytes([i, j]) * 1200 for j in range(i % 3)}
        gone = [f"d/{i - 2}"] if i >= 2 else []
        version = put(url, files, *gone)
        now = {p: c for p, c in now.items() if p not in gone} | files
        wanted[version] = now
    return wanted


def test_a_plan_changes_nothing(url: str, small: None) -> None:
    """Protects the default: a dry run tells what would go, and writes nothing at all."""
    history(url)
    before = {key: store_at(url).get(key) for key in objects(url, "")}
    plan = at(url).collect(keep=2)
    assert plan.dry_run
    assert plan.kept == (5, 6)
    assert plan.retired == (1, 2, 3, 4)
    assert plan.data
    assert plan.size_bytes > 0
    assert "would remove" in str(plan)
    assert {key: store_at(url).get(key) for key in objects(url, "")} == before


def test_what_is_kept_reads_and_the_rest_is_gone(url: str, small: None) -> None:
    """Protects collection: a version is readable iff it is kept; nothing else is left."""
    wanted = history(url)
    plan = at(url).collect(keep=2)
    done = at(url).collect(keep=2, dry_run=False)
    assert (set(done.data), done.retired, done.kept) == (set(plan.data), plan.retired, plan.kept)
    handle = at(url)
    for version, files in wanted.items():
        if version in done.kept:
            assert content(handle, version) == files
        else:
            with pytest.raises(FileNotFoundError, match=f"no version {version}"):
                handle.snapshot(version)
    assert objects(url, DATA) == needed(url, 5, 6)
    assert handle.verify(data=True).ok
    assert [row.version for row in handle.log()] == [6, 5]
    assert [row.retired for row in handle.log(retired=True)][:2] == [False, False]
    again = at(url).collect(keep=2, dry_run=False)
    assert (again.retired, again.data, again.nodes) == ((), (), ())


def test_what_one_tree_hides_another_shows(url: str, small: None) -> None:
    """Protects shared leaves: a path that is replaced in one kept version is needed by another."""
    many = {f"p/{i:02}": bytes([i]) * 2500 for i in range(60)}
    put(url, many)
    put(url, {"p/05": b"other"})  # a small change over the first tree
    at(url).restore(1)
    newest = put(url, {f"z/{i:02}": bytes([i]) * 300 for i in range(60)})  # a tree of its own
    states = [Dataset(store_at(url)).view(v).head.state for v in (1, 2, 3, newest)]
    assert states[0].root == states[1].root == states[2].root != states[3].root
    at(url).collect(keep=[2], dry_run=False)
    now = at(url)
    assert now.verify(data=True).ok
    assert now.snapshot(newest).read("p/05") == many["p/05"]
    assert now.snapshot(2).read("p/05") == b"other"
    assert objects(url, DATA) == needed(url, 2, newest)
    at(url).collect(keep=1, dry_run=False)
    assert content(at(url))["p/05"] == many["p/05"]


def test_kept_by_number_and_by_time(url: str, small: None) -> None:
    """Protects the choice: single old versions stay beside the newest; a time keeps what was then."""
    wanted = history(url)
    done = at(url).collect(keep=[2, 4], dry_run=False)
    assert done.kept == (2, 4, 6)
    handle = at(url)
    for version in (2, 4, 6):
        assert content(handle, version) == wanted[version]
    for version in (1, 3, 5):
        with pytest.raises(FileNotFoundError):
            handle.snapshot(version)
    assert objects(url, DATA) == needed(url, 2, 4, 6)
    latest = put(url, {"z": BIG})
    assert at(url).collect(keep=timedelta(hours=1)).retired == ()
    done = at(url).collect(keep=timedelta(0), dry_run=False)
    assert done.kept[-1] == latest
    assert content(at(url)) == {**wanted[6], "z": BIG}
    assert at(url).verify(data=True).ok


def test_retired_stays_retired(url: str) -> None:
    """Protects readers' checks: a later collection that would keep more brings nothing back."""
    history(url)
    at(url).collect(keep=2, dry_run=False)
    done = at(url).collect(keep=5, dry_run=False)
    assert done.kept == (5, 6)
    state = Dataset(store_at(url)).refresh().head.state
    assert (state.oldest, kept_of(state)) == (5, frozenset())
    with pytest.raises(UsageError, match="no such version"):
        at(url).collect(keep=[3])


def test_versions_before_a_gap_stay_when_all_are_kept(memory: str) -> None:
    """Protects single old versions from a later collection that keeps as many as there are."""
    wanted = history(memory)
    at(memory).collect(keep=[2, 5], dry_run=False)
    put(memory, {"z": b"z"})
    for keep in (4, 3):
        done = at(memory).collect(keep=keep, dry_run=False)
        assert len(done.kept) == keep
    assert done.kept == (5, 6, 8)
    assert content(at(memory), 5) == wanted[5]


@pytest.mark.parametrize("keep", [0, -1, True, timedelta(-1), [99], ["a"], 1.5])
def test_odd_keeps_are_refused(keep: Any, memory: str) -> None:
    """Protects against a misread policy: nothing is collected."""
    put(memory, {"a": b"1"})
    with pytest.raises(UsageError, match="keep="):
        at(memory).collect(keep=keep, dry_run=False)


def test_log_becomes_short(url: str, small: None) -> None:
    """Protects opening: records that no kept version needs go, and writers go on."""
    for i in range(12):
        put(url, {"a": bytes([i]) * 3000})
    at(url).collect(keep=1, dry_run=False)
    seqs = sorted(seq_of(k) or 0 for k in objects(url, LOG))
    assert len(seqs) <= 4
    assert put(url, {"b": b"2"}) == seqs[-1] + 1
    assert content(at(url)) == {"a": bytes([11]) * 3000, "b": b"2"}
    at(url).collect(keep=1, dry_run=False)
    assert len(objects(url, "boundary/")) == 1
    assert at(url).verify(data=True).ok


def test_a_late_record_below_the_boundary_counts_nowhere(url: str, small: None) -> None:
    """Protects data of its writer: a sleeper's record at a truncated place is no commit."""
    for i in range(8):
        put(url, {"a": bytes([i]) * 3000})
    asleep = abandoned(url, "late")
    first = decode(store_at(url).get(log_key(1)), 1, "1")
    at(url).collect(keep=1, dry_run=False)
    staged = {k for k in objects(url) if asleep.txid in k}
    assert staged
    # its request of long ago arrives where the record was deleted
    record = encode(replace(first, txid=asleep.txid, nonce=asleep.txid))
    store_at(url).put(log_key(1), record)
    assert ManifestBackend(Dataset(store_at(url))).outcome(asleep.txid) == "unknown"
    assert at(url).collect(keep=1, dry_run=False).waiting.keys() == {asleep.txid}
    assert staged <= objects(url)
    assert log_key(1) not in objects(url, LOG)
    asleep.commit()
    assert content(at(url))["late"] == BIG
    assert at(url).verify(data=True).ok


# --- writers ------------------------------------------------------------------------------------------------


def abandoned(url: str, *paths: str) -> ManifestTransaction:
    """A writer of another process that is not heard of any more."""
    from fstx.backends.manifest import joining

    tx = begin(store_at(url))
    for path in paths:
        tx.stage(path, BIG)
    tx._settle()
    joining._open.pop(tx.txid)
    return tx


def test_dead_writers_are_given_up(url: str) -> None:
    """Protects the storage: what a dead writer staged goes; what lives, by all signs, stays."""
    put(url, {"a": BIG})
    dead = abandoned(url, "x", "y")
    plan = at(url).collect()
    assert not plan
    assert set(plan.waiting) == {dead.txid}
    assert not at(url).collect(dry_run=False)
    done = at(url).collect(older_than_s=0, dry_run=False)
    assert set(done.fenced) == {dead.txid}
    assert len(done.data) == 2
    assert objects(url, DATA) == needed(url, None)


def test_committed_long_ago_is_not_dead(
    url: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects outcomes: a forgotten record of objects that a version needed is no dead writer."""
    from fstx.backends.manifest import log

    monkeypatch.setattr(log, "_REMEMBERED", 1)
    put(url, {"a": BIG, "b": BIG})
    for i in range(10):
        put(url, {"n": bytes([i]) * 3000})
    assert not at(url).collect(keep=5, older_than_s=0, dry_run=False).fenced
    assert log_key(1) not in objects(url, LOG)
    put(url, {"a": b"new", "b": b"new"})
    done = at(url).collect(keep=1, older_than_s=0, dry_run=False)
    assert not done.fenced
    assert objects(url, DATA) == needed(url, None)


def test_a_writer_that_was_stopped_learns_it(url: str) -> None:
    """Protects I6: a writer that goes on after it was given up publishes nothing, and is told."""
    put(url, {"a": b"1"})
    asleep = abandoned(url, "x")
    asleep.stage("more", BIG)
    at(url).collect(older_than_s=0, dry_run=False)
    with pytest.raises(FencedError, match="given up"):
        asleep.commit()
    assert content(at(url)) == {"a": b"1"}
    at(url).collect(older_than_s=0, dry_run=False)
    assert objects(url, DATA) == needed(url, None)
    assert at(url).verify(data=True).ok


def test_recover_gives_up_dead_writers_only(url: str) -> None:
    """Protects `recover`: dead writers are given up and cleaned away, living ones are listed."""
    import fstx

    put(url, {"a": BIG})
    assert not fstx.recover(f"tx::{url}")
    dead = abandoned(url, "x", "y")
    living = begin(store_at(url))
    living.stage("z", BIG)
    living._settle()
    backend = ManifestBackend(Dataset(store_at(url)))
    told = backend.recover()
    assert {s.txid: str(s.state) for s in told.settled} == {
        dead.txid: "active",
        living.txid: "active",
    }
    told = backend.recover(idle_s=0)
    assert {s.txid: str(s.state) for s in told.settled} == {
        dead.txid: "aborted",
        living.txid: "active",
    }
    assert "2 staged objects removed" in str(told)
    assert backend.outcome(dead.txid) == "aborted"
    living.commit()
    assert backend.outcome(living.txid) == "committed"
    assert not backend.recover(idle_s=0)


def test_copies_of_a_retired_version_conflict(url: str) -> None:
    """Protects against dangling names: what a copy names may be collected with its version."""
    put(url, {"a": BIG})
    asleep = begin(store_at(url))
    entry = asleep.base.get("a")
    assert entry is not None
    asleep.link("copy", entry)
    put(url, {"a": b"other"})
    put(url, {"a": b"another"})
    at(url).collect(keep=1, dry_run=False)
    with pytest.raises(ConflictError, match="retired"):
        asleep.commit()
    assert at(url).verify(data=True).ok


def test_long_writers_go_on_beside_collections(url: str, small: None) -> None:
    """Protects long jobs: others' commits and collections don't stop one that touched other paths."""
    put(url, {"a": BIG})
    long = begin(store_at(url))
    long.stage("mine", BIG)
    for i in range(3):
        put(url, {"a": bytes([i]) * 3000})
        at(url).collect(keep=2, dry_run=False)
    long.commit()
    assert content(at(url)) == {"a": b"\2" * 3000, "mine": BIG}
    put(url, {f"m/{j}": b"first" * 60 for j in range(40)})
    far = begin(store_at(url))
    far.stage("far", BIG)
    for i in range(12):
        put(url, {"a": bytes([i]) * 3000, **{f"m/{j}": bytes([i]) * 300 for j in range(40)}})
        at(url).collect(keep=1, dry_run=False)
    with pytest.raises(ConflictError, match="was collected"):
        far.commit()
    assert at(url).verify(data=True).ok


def test_many_tombstones_become_a_floor(
    memory: str, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the size of records: old fences are replaced by one number, which voids as much."""
    monkeypatch.setattr(collect, "_FENCES", 3)
    monkeypatch.setattr(collect, "_FLOOR_S", 0.0)
    monkeypatch.setattr(collect, "_EPOCH_S", 0.0)
    put(memory, {"a": b"1"})
    first = abandoned(memory, "x")
    for i in range(6):
        abandoned(memory, f"x{i}")
        at(memory).collect(older_than_s=0, dry_run=False)
        put(memory, {"a": bytes([i])})
    state = Dataset(store_at(memory)).refresh().head.state
    assert len(state.fenced) <= 4
    assert state.floor > 0
    with pytest.raises(FencedError):
        first.commit()
    put(memory, {"a": b"end"})
    assert content(at(memory)) == {"a": b"end"}


# --- pins ---------------------------------------------------------------------------------------------------


def test_a_pinned_snapshot_outlives_commits_and_collections(url: str, small: None) -> None:
    """I4: protects readers: 50 commits and a collection go by, and the pinned version reads on."""
    first = {f"p/{i}": bytes([i]) * 2500 for i in range(20)}
    put(url, first)
    with at(url).snapshot() as held:
        for i in range(50):
            put(url, {f"p/{i % 20}": bytes([i]) * 2600, "n": bytes([i])})
            if i == 25:
                at(url).collect(keep=1, older_than_s=0, dry_run=False)
        done = at(url).collect(keep=1, older_than_s=0, dry_run=False)
        assert [pin.version for pin in done.pins] == [1]
        assert {path: held.read(path) for path in held.paths()} == first
        other = pickle.loads(pickle.dumps(held))
        assert other.read("p/3") == first["p/3"]
        assert content(at(url), 1) == first
    assert objects(url, PIN) == set()
    at(url).collect(keep=1, dry_run=False)
    assert objects(url, DATA) == needed(url, None)
    with pytest.raises(FileNotFoundError, match=r"version 1 of .* was retired"):
        [held.read(path) for path in first]
    assert at(url).verify(data=True).ok


def test_pin_and_unpin(url: str) -> None:
    """Protects pins without a block: they hold, are listed, and can't be had for what is retired."""
    put(url, {"a": BIG})
    put(url, {"a": b"2"})
    handle = at(url)
    pin = handle.pin(1, ttl_s=100)
    assert [p.version for p in handle.pins()] == [1]
    handle.collect(keep=1, dry_run=False)
    assert content(handle, 1) == {"a": BIG}
    with pytest.raises(FileNotFoundError, match="retired"):
        handle.pin(1)
    assert [p.version for p in handle.pins()] == [1]
    handle.unpin(pin)
    handle.collect(keep=1, dry_run=False)
    with pytest.raises(FileNotFoundError):
        handle.snapshot(1)
    with pytest.raises(FileNotFoundError, match="no version 9"):
        handle.pin(9)
    assert objects(url, PIN) == set()


def test_a_pin_that_comes_too_late_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the order: retired between opening and pinning, the reader is told, and leaves no pin."""
    put(url, {"a": BIG})
    put(url, {"a": b"2"})
    late = at(url).snapshot(1)
    at(url).collect(keep=1, dry_run=False)
    with pytest.raises(FileNotFoundError, match=r"version 1 of .* was retired"):
        late.__enter__()
    assert objects(url, PIN) == set()


def test_pins_expire_and_are_renewed(url: str) -> None:
    """Protects storage from dead readers, and living ones from expiry."""
    put(url, {"a": BIG})
    put(url, {"a": b"2"})
    handle = at(url)
    handle.pin(1, ttl_s=0.01)
    holder = Holder(handle._dataset, 1, 0.6)
    time.sleep(1.2)
    done = handle.collect(keep=1, dry_run=False)
    assert [pin.version for pin in done.pins] == [1]
    assert len(list(pins_of(handle._dataset))) == 1
    assert content(handle, 1) == {"a": BIG}
    holder.release()
    assert holder.lost is None
    assert objects(url, PIN) == set()


def test_a_reader_that_slept_too_long_is_told(url: str) -> None:
    """Protects a stopped reader: its pin expired, its version went, and it says so instead of guessing."""
    put(url, {"a": BIG})
    put(url, {"a": b"2"})
    handle = at(url)
    with handle.snapshot(1, ttl_s=30) as held:
        holder = held._holders[0]
        handle._dataset.store.delete([holder.pin.key])  # as a collector does with an expired one
        at(url).collect(keep=1, dry_run=False)
        holder._renewed -= 100
        holder._once()
        assert holder.lost is not None
        with pytest.raises(FileNotFoundError, match="retired"):
            held.read("a")
    assert objects(url, PIN) == set()


def test_pins_need_write_access(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects readers without write access: the error says what they can rely on."""
    put(memory, {"a": b"1"})
    handle = at(memory)

    def refused(*given: Any, **more: Any) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr(handle._dataset.store, "put", refused)
    with pytest.raises(PermissionError) as caught:
        handle.pin(1)
    assert "write access" in "".join(caught.value.__notes__)


def test_references_go_with_their_version(url: str) -> None:
    """Protects plain readers: a document is there as long as its version is kept, and no longer."""
    import fsspec

    put(url, {"a": b"1" * 3000, "d/b": b"small"})
    put(url, {"a": b"2"})
    handle = dataset("tx::" + url)
    first, second = handle.reference(1), handle.reference()
    below = dataset(f"tx::{url}/d").reference(1)
    fs = fsspec.filesystem("reference", fo=first, remote_protocol=first.partition(":")[0])
    assert fs.cat("a") == b"1" * 3000
    assert fs.cat("d/b") == b"small"
    handle.collect(keep=2, dry_run=False)
    assert len(objects(url, "refs/")) == 3
    handle.collect(keep=1, dry_run=False)
    assert objects(url, "refs/") == {"refs/" + second.rpartition("/")[2]}
    assert below.rpartition("/")[2] != first.rpartition("/")[2]


# --- interruption and company -------------------------------------------------------------------------------


def test_collection_dies_at_every_call(memory: str, small: None) -> None:
    """Protects against kills: whatever call was the last, what is kept stays and the next run finishes."""
    k = 0
    while True:
        k += 1
        place = f"{memory}-{k}"
        wanted = history(place, 5)
        abandoned(place, "x", "y")
        handle = at(place)
        pin = handle.pin(2)
        dying = DyingStore(store_at(place), die_at=k)
        try:
            VersionedDataset(Dataset(dying)).collect(keep=2, older_than_s=0, dry_run=False)
        except Died:
            pass
        else:
            break
        for version in (2, 4, 5):
            assert content(at(place), version) == wanted[version], k
        assert at(place).verify(data=True).ok, k
        at(place).collect(keep=2, older_than_s=0, dry_run=False)
        assert objects(place, DATA) == needed(place, 2, 4, 5), k
        handle.unpin(pin)
        at(place).collect(keep=1, older_than_s=0, dry_run=False)
        assert objects(place, DATA) == needed(place, None), k
        assert content(at(place)) == wanted[5]
        assert at(place).verify(data=True).ok, k
    assert k > 20


def test_commits_and_pins_at_every_call_of_a_collection(memory: str, small: None) -> None:
    """Protects company: a commit, a pin, a restore or another collection between any two calls."""
    for other in ("commit", "pin", "restore", "collect", "unfinished"):
        k, calls = 1, 1
        while k <= calls:
            calls = _meet(f"{memory}-{other}-{k}", other, k)
            k += 1
        assert k > 20


def _meet(place: str, other: str, k: int) -> int:
    """Let `other` happen before the k-th call of a collection; the number of its calls."""
    wanted = history(place, 5)
    held: list[Any] = []

    def act(name: str, number: int) -> None:
        if number != k:
            return
        if other == "commit":
            put(place, {"n": BIG, "d/4": b"new"})
        elif other == "collect":
            at(place).collect(keep=1, older_than_s=0, dry_run=False)
        elif other == "unfinished":
            held.append(abandoned(place, "z"))
        else:
            with contextlib.suppress(FileNotFoundError):
                held.append(at(place).pin(3) if other == "pin" else at(place).restore(3))

    store = DyingStore(store_at(place), act=act)
    VersionedDataset(Dataset(store)).collect(keep=2, older_than_s=3600, dry_run=False)
    handle = at(place)
    if other == "commit":
        assert content(handle) == {**wanted[5], "n": BIG, "d/4": b"new"}, k
    elif held and other == "unfinished":
        held[0].commit()
        assert content(handle) == {**wanted[5], "z": BIG}, k
    elif held:
        assert content(handle, held[0].version) == wanted[3], (other, k)
    else:
        assert content(handle) == wanted[5], k
    told = handle.verify(data=True)
    assert told.ok, (other, k, str(told))
    return store.calls


@pytest.mark.parametrize("work", ["restore", "pin", "copy", "read"])
def test_a_collection_at_every_call_of_others(work: str, memory: str, small: None) -> None:
    """Protects them: a collection between any two of their calls, and they get all or a clear refusal."""
    k, calls, refused = 1, 1, 0
    while k <= calls:
        place = f"{memory}-{k}"
        wanted = history(place, 5)

        def act(name: str, number: int, place: str = place, k: int = k) -> None:
            if number == k:
                put(place, {"a": b"new" * 1000}) if work == "copy" else None
                at(place).collect(keep=1, dry_run=False)

        store = DyingStore(store_at(place), act=act)
        found = None
        try:
            found = _work(work, store)
        except (FileNotFoundError, ConflictError) as error:
            refused += 1
            told = str(error)
        else:
            told = "retired"
        assert "retired" in told or "there are" in told
        handle = at(place)
        if work == "restore" and found is not None:
            assert content(handle, found.version) == wanted[3], k
        elif work == "pin" and found is not None:
            assert content(handle, 3) == wanted[3], k
        elif work == "copy" and found is not None:
            assert content(handle)["copy"] in (wanted[5]["a"], b"new" * 1000), k
        elif work == "read" and found is not None:
            assert found == wanted[3]
        handle.collect(keep=1, dry_run=False)
        report = handle.verify(data=True)
        assert report.ok, (k, str(report))
        calls = store.calls
        k += 1
    assert refused


def _work(work: str, store: Any) -> Any:
    handle = VersionedDataset(Dataset(store))
    if work == "restore":
        return handle.restore(3)
    if work == "pin":
        return handle.pin(3)
    if work == "read":
        with handle.snapshot(3) as held:
            return {path: held.read(path) for path in held.paths()}
    with begin(store) as tx:
        tx.link("copy", tx.base.get("a"))
    return tx.snapshot


def test_collections_beside_living_writers_and_readers(url: str, small: None) -> None:
    """Protects the whole: writers, pinned readers, two collectors at once; nothing acknowledged is lost."""
    put(url, {"base": BIG})
    until = time.monotonic() + 4
    acknowledged: list[str] = []
    failures: list[BaseException] = []

    def guard(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while time.monotonic() < until:
                    work()
            except BaseException as error:  # noqa: BLE001 - told to the test
                failures.append(error)

        return run

    def writer(name: str) -> Callable[[], None]:
        count = iter(range(10**6))

        def work() -> None:
            n = next(count)
            put(
                url,
                {f"{name}/{n}": BIG + bytes([n % 250]), f"{name}/last": bytes([n % 250]) * 3000},
            )
            acknowledged.append(f"{name}/{n}")

        return work

    def reader() -> None:
        try:
            with at(url).snapshot() as held:
                for path in list(held.paths()):
                    held.read(path)
        except FileNotFoundError as error:
            if "retired" not in str(error):
                raise

    def collector() -> None:
        at(url).collect(keep=1, older_than_s=3600, dry_run=False)

    works = [writer("w"), writer("v"), reader, reader, collector, collector]
    threads = [threading.Thread(target=guard(work)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [e for e in failures if not isinstance(e, ConflictError)]
    found = content(at(url))
    assert set(acknowledged) <= set(found)
    at(url).collect(keep=1, older_than_s=0, dry_run=False)
    assert at(url).verify(data=True).ok
    assert objects(url, DATA) == needed(url, None)


# --- verification -------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(memory: str, small: None) -> str:
    """A dataset with trees, small changes and objects, to be damaged."""
    put(memory, {f"p/{i:03}": bytes([i]) * 2500 for i in range(60)})
    for i in range(3):
        put(memory, {f"q/{i}": bytes([i]) * 2500, "s": b"small"})
    assert at(memory).verify(data=True).ok
    return memory


def test_verify_counts_what_it_checked(damaged: str) -> None:
    """Protects against a check of nothing."""
    told = at(damaged).verify(data=True)
    assert told
    assert told.versions == (1, 2, 3, 4)
    assert told.records == 4
    assert told.nodes > 3
    assert told.objects == 63
    assert told.size_bytes == 63 * 2500
    assert "all as it was committed" in str(told)
    assert at(damaged).verify(2).versions == (2,)


def test_verify_names_missing_cut_and_changed_objects(damaged: str) -> None:
    """Protects data: each kind of damage is reported by key, with a path that needs it."""
    store = store_at(damaged)
    gone, cut, changed = sorted(objects(damaged, DATA))[:3]
    data = store.get(changed)
    store.delete([gone])
    store.put(cut, store.get(cut)[:-1])
    store.put(changed, bytes([data[0] ^ 1]) + data[1:])
    told = at(damaged).verify()
    assert {p.key: p.what for p in told.problems} == {
        gone: "is missing",
        cut: "has 2499 bytes, not 2500",
    }
    assert all(p.needed_by[:2] in ("p/", "q/") for p in told.problems)
    told = at(damaged).verify(data=True)
    assert {p.key for p in told.problems} == {gone, cut, changed}
    assert "checksum" in str(told)
    assert not told


def test_verify_names_damaged_nodes(damaged: str) -> None:
    """Protects the tree: nodes that are missing or changed are reported by key, others still checked."""
    store = store_at(damaged)
    key = sorted(objects(damaged, NODE))[0]
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
    told = at(damaged).verify()
    assert {p.key for p in told.problems} == {key}
    assert "bytes are not those" in str(told)
    store.delete([key])
    told = at(damaged).verify()
    assert {p.key for p in told.problems} == {key}
    with pytest.raises(RecoveryError, match="nothing was removed"):
        at(damaged).collect(keep=1, dry_run=False)


def test_verify_names_damaged_records(damaged: str) -> None:
    """Protects the log: records that are changed, missing, exchanged or not of this chain, and the marker."""
    store = store_at(damaged)
    whole = {n: store.get(log_key(n)) for n in range(1, 5)}
    store.put(log_key(2), whole[2][:-9] + b"\n")
    assert {p.key for p in at(damaged).verify().problems} == {log_key(2)}
    store.put(log_key(2), whole[3])
    assert "says that it is record 3" in str(at(damaged).verify())
    store.delete([log_key(2)])
    assert {p.what for p in at(damaged).verify().problems} == {"is missing"}
    store.put(log_key(2), whole[2])
    other = f"{damaged}-other"
    put(other, {"a": b"1"})
    put(other, {"a": b"2"})
    store.put(log_key(2), store_at(other).get(log_key(2)))
    told = {p.key: p.what for p in at(damaged).verify().problems}
    assert "does not follow" in told[log_key(2)]
    store.put(log_key(2), whole[2])
    assert at(damaged).verify().ok
    store.put("dataset.json", b"{}")
    assert {p.key for p in at(damaged).verify().problems} == {"dataset.json"}


def test_verify_sees_a_state_that_does_not_follow(damaged: str) -> None:
    """Protects against a record whose state is not the one before it with its changes."""
    store = store_at(damaged)
    last = decode(store.get(log_key(4)), 4, "4")
    tail = last.state.tail.then(Delta({"forged": Entry(1, inline=b"x")}))
    store.put(log_key(4), encode(replace(last, state=replace(last.state, tail=tail))))
    assert {p.key for p in at(damaged).verify().problems} == {log_key(4)}
    store.put(log_key(4), encode(replace(last, state=replace(last.state, oldest=4))))
    assert "what is retired" in str(at(damaged).verify())


def test_verify_beside_a_collection_reports_no_damage(memory: str, small: None) -> None:
    """Protects trust in reports: what a collection removes meanwhile is no problem."""
    for k in range(1, 60, 4):
        place = f"{memory}-{k}"
        history(place, 5)

        def act(name: str, number: int, place: str = place, k: int = k) -> None:
            if number == k:
                at(place).collect(keep=1, dry_run=False)

        told = VersionedDataset(Dataset(DyingStore(store_at(place), act=act))).verify(data=True)
        assert told.ok, (k, str(told))


def test_boundary_markers_are_for_records_that_went(url: str, small: None) -> None:
    """Protects truncation: the boundary lies below all that is kept or pinned."""
    history(url, 9)
    pin = at(url).pin(4)
    at(url).collect(keep=1, dry_run=False)
    assert boundary_key(3) in objects(url, "boundary/")
    at(url).unpin(pin)
    at(url).collect(keep=1, dry_run=False)
    assert boundary_key(3) not in objects(url, "boundary/")
