"""Plain targets over memory and local stores: claims, modes, ids, markers, strangers, hostile records."""

from __future__ import annotations

import pickle
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fstx.backends.manifest.dataset import Dataset
from fstx.backends.plain import PlainBackend, PlainTransaction, owner, settle
from fstx.backends.plain.claims import Claim, Ledger
from fstx.backends.plain.home import Home
from fstx.backends.plain.ops import Op, decode, encode, pack, unpack
from fstx.backends.plain.owner import Owner
from fstx.backends.plain.placing import Part, notice, read_notice
from fstx.errors import (
    CapabilityError,
    ConflictError,
    FencedError,
    PathError,
    RecoveryError,
    StateError,
    StorageError,
    TargetExistsError,
)
from fstx.state.view import State
from fstx.stores import Proof, Store
from fstx.stores.local import LocalStore
from fstx.stores.memory import MemoryStore
from fstx.types import Capability, OutcomeState
from support.plainfaults import backend, content, control, died

SET = frozenset({Capability.ATOMIC_SET})


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore(f"b-{uuid.uuid4().hex}")
    return LocalStore(tmp_path / "bucket")


def begin(store: Store, names: str = "t", **given: Any) -> PlainTransaction:
    made: dict[str, Any] = {k: given.pop(k) for k in ("joined", "lease_s", "late_s") if k in given}
    options = {"mode": "update", "durability": "data", "require": frozenset(), **given}
    return backend(store, names.split(), **made).begin(**options)


def test_parts_lie_at_their_names_before_the_entry_is_there(store: Store) -> None:
    """Protects A2 and A3 as object stores keep them: the entry comes last, parts are put once."""
    with begin(store, mode="create", entry="index") as tx:
        tx.stage("tiles/0", b"0" * 5000)
        tx.stage("index", b"see tiles/0")
        assert tx.read("tiles/0", 0, 2) == b"00"
        assert list(content(store)) == ["t/tiles/0"]
        assert list(tx.paths()) == ["index", "tiles/0"]
    assert content(store) == {"t/index": b"see tiles/0", "t/tiles/0": b"0" * 5000}
    assert control(store) == {"home.json", "log"}


def test_without_an_entry_nothing_is_seen_before_the_commit(store: Store) -> None:
    """Protects readers who enter anywhere: everything is staged in the home."""
    with begin(store, mode="create") as tx:
        tx.stage("a", b"1" * 5000)
        tx.stage("b", b"2")
        assert not content(store)
    assert content(store) == {"t/a": b"1" * 5000, "t/b": b"2"}


def test_large_objects_are_copied_forward(store: Store) -> None:
    """Protects objects beyond one put, as parts and as publishers."""
    large = bytes(range(256)) * (70 << 10)  # 17.5 MiB
    for n in range(2):
        with begin(store, mode="update", entry="index") as tx:
            tx.stage("part", large[n:])
            with tx.open("index") as file:
                file.write(large[: 9 << 20])
                file.write(large[(9 << 20) + n :])
        assert store.get("t/part") == large[n:]
        assert store.get("t/index") == large[: 9 << 20] + large[(9 << 20) + n :]


def test_many_small_steps_lie_beside_the_record(store: Store) -> None:
    """Protects records from growing: steps of a large commit have an object of their own, and it goes."""
    with begin(store) as tx:
        for i in range(300):
            tx.stage(f"d/{i:03d}", bytes([i % 256]) * 200)
    assert len(content(store)) == 300
    assert all(i.size_bytes < 32 << 10 for i in store.list(".fstx/log/"))
    assert control(store) == {"home.json", "log"}


def test_an_existing_part_is_refused_where_readers_enter_by_the_entry(store: Store) -> None:
    """Protects ATOMIC_SET: old and new parts under one name could be read together."""
    with begin(store, entry="index", mode="create") as tx:
        tx.stage("a", b"1")
        tx.stage("index", b"1")
    with begin(store, entry="index", require=SET) as tx:
        with pytest.raises(PathError, match="new names"):
            tx.stage("a", b"2")
        tx.stage("b", b"2")
        tx.stage("index", b"2")
    assert content(store) == {"t/a": b"1", "t/b": b"2", "t/index": b"2"}


def test_replacement_in_place_must_be_asked_for(store: Store) -> None:
    """Protects design 3: refused before a byte is written, with the ways out; done on request."""
    with begin(store, entry="zarr.json", mode="create") as tx:
        tx.stage("c/0", b"1" * 3000)
        tx.stage("c/1", b"1" * 3000)
        tx.stage("zarr.json", b"1")
    before = content(store)
    with pytest.raises(CapabilityError, match=r"tx::.*RECOVERABLE"):
        begin(store, mode="replace", entry="zarr.json", require=SET)
    assert content(store) == before
    with begin(store, mode="replace", entry="zarr.json") as tx:
        tx.stage("c/0", b"2" * 3000)
        tx.stage("c/7", b"2" * 3000)
        assert content(store) == before  # names that the old entry implies are not filled early
        tx.stage("zarr.json", b"2")
    assert content(store) == {"t/c/0": b"2" * 3000, "t/c/7": b"2" * 3000, "t/zarr.json": b"2"}


def test_create_needs_free_names(store: Store) -> None:
    """Protects A19: an occupied target is refused and nothing is written, not even a home."""
    store.put("t/x", b"theirs")
    with pytest.raises(TargetExistsError):
        begin(store, mode="create")
    assert not control(store)
    store.put("tt", b"a name that begins alike")
    store.delete(["t/x"])
    with begin(store, mode="create") as tx:
        tx.stage("a", b"1")


def test_two_writers_of_one_name(store: Store) -> None:
    """Protects A21 and A22: the second is told at begin; other names go their way."""
    with begin(store, "dem.vrt dem_tiles", joined=True) as tx:
        tx.stage("dem_tiles/0", b"1")
        with pytest.raises(ConflictError, match="holds"):
            begin(store, "dem_tiles")
        with begin(store, "other") as second:
            second.stage("a", b"1")
    begin(store, "dem_tiles").rollback()


def test_threads_race_for_one_name(store: Store) -> None:
    """Protects the claim: of many that begin at once one holds the name at a time, and all get through."""
    held: list[int] = []
    failures: list[BaseException] = []

    def work(n: int) -> None:
        for _ in range(200):
            try:
                tx = begin(store, mode="update")
            except ConflictError:
                threading.Event().wait(0.01)
                continue
            except BaseException as error:  # noqa: BLE001 - looked at below
                failures.append(error)
                return
            held.append(n)
            if len(held) > 1:
                failures.append(AssertionError(f"{held} hold one name"))
            tx.stage(f"by/{n}", b"x")
            held.remove(n)
            tx.commit()
            return
        failures.append(AssertionError(f"{n} never got the name"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(content(store)) == 6


def test_a_forgotten_transaction_does_not_hold_its_name(store: Store) -> None:
    """Protects a program that drops a transaction without ending it."""
    tx = begin(store, mode="create", entry="e")
    tx.stage("a", b"1" * 5000)
    tx.desk.settle()
    del tx
    import gc

    gc.collect()
    with begin(store, mode="create", entry="e") as tx:
        assert not content(store)
        tx.stage("e", b"2")


def _from_elsewhere(home: Home, when_s: int) -> str:
    txid = uuid.uuid4().hex
    claim = Claim(("t",), Owner("elsewhere", "b", 1), when_s, "update")
    home.service(
        "claim",
        txid,
        lambda ledger: ledger.claim(txid, claim),
        lambda ledger: "free" if txid not in ledger.claims else "moot",
        lambda ledger: txid in ledger.claims,
    )
    return txid


def test_a_writer_on_another_host_is_waited_for(store: Store) -> None:
    """Protects living writers elsewhere: given up after the lease, or when the caller says so."""
    import time

    begin(store).rollback()
    home = Home(store)
    _from_elsewhere(home, int(time.time()))
    with pytest.raises(ConflictError, match=r"lease_s=0"):
        begin(store)
    listed = backend(store, ["t"]).recover()
    assert [s.state for s in listed.settled] == [OutcomeState.ACTIVE]
    report = backend(store, ["t"], lease_s=0).recover()
    assert [s.state for s in report.settled] == [OutcomeState.ABORTED]
    begin(store).rollback()
    _from_elsewhere(home, int(time.time()) - 7200)
    begin(store).rollback()


def test_an_id_commits_once(store: Store) -> None:
    """Protects I5: the second run with an id learns that it is done; for other targets it is another job."""
    for n in range(3):
        tx = begin(store, id="nightly")
        assert tx.committed is (n > 0)
        if not tx.committed:
            tx.stage("a", b"1")
            with pytest.raises(ConflictError):
                begin(store, id="nightly")
            tx.commit()
    assert not begin(store, "other", id="nightly").committed
    assert backend(store, ["t"]).outcome("nightly") is OutcomeState.COMMITTED
    assert backend(store, ["t"]).outcome("never") is OutcomeState.UNKNOWN


def test_outcomes(store: Store) -> None:
    """Protects `outcome` by ``tx.id``: living, committed, given up."""
    tx = begin(store)
    assert backend(store, ["t"]).outcome(tx.id) is OutcomeState.ACTIVE
    tx.stage("a", b"1")
    tx.commit()
    assert backend(store, ["t"]).outcome(tx.id) is OutcomeState.COMMITTED
    tx = begin(store)
    died()
    assert backend(store, ["t"]).outcome(tx.id) is OutcomeState.ABORTED


def test_the_log_stays_small(store: Store) -> None:
    """Protects the home from growing: where nothing is under way, old records go."""
    for n in range(30):
        with begin(store) as tx:
            tx.stage("a", bytes([n]))
    assert len(list(store.list(".fstx/"))) < 40
    with begin(store, id="x") as tx:
        tx.stage("a", b"x")
    backend(store, ["t"]).recover()
    assert len(list(store.list(".fstx/log/"))) == 1
    assert begin(store, id="x").committed


def test_each_view_refuses_the_other(store: Store) -> None:
    """Protects data from two logs that know nothing of each other."""
    begin(store).rollback()
    with pytest.raises(RecoveryError, match="plain view"):
        Dataset(store.below(".fstx")).create()
    Dataset(store.below("cube/.fstx")).create()
    with pytest.raises(RecoveryError, match="tx::"):
        begin(store, "cube")
    inner = PlainBackend(
        store.below("cube"),
        ["x"],
        joined=False,
        above=(store, "cube"),
        home=Home(store.below("cube")),
    )
    with pytest.raises(RecoveryError, match="tx::"):
        inner.begin(mode="update", durability="data", require=frozenset())
    store.put(".fstx/home.json", store.get("cube/.fstx/dataset.json"))
    with pytest.raises(RecoveryError, match="tx::"):
        begin(store)


def test_a_change_by_another_program_is_a_conflict(store: Store) -> None:
    """Protects CONFLICT_DETECTED against programs that know nothing of claims."""
    for path in ("t/a", "t/b", "t/d/x"):
        store.put(path, b"1")
    tx = begin(store)
    assert tx.read("a") == b"1"
    tx.stage("b", b"2")
    store.put("t/a", b"changed")
    with pytest.raises(ConflictError, match="t/a"):
        tx.commit()
    tx = begin(store)
    tx.remove("d")
    store.put("t/d/new", b"theirs")
    with pytest.raises(ConflictError, match="t/d"):
        tx.commit()
    tx = begin(store, mode="replace")
    tx.stage("z", b"2")
    store.put("t/new", b"theirs")
    with pytest.raises(ConflictError, match="t/new"):
        tx.commit()
    assert content(store) == {
        "t/a": b"changed",
        "t/b": b"1",
        "t/d/x": b"1",
        "t/d/new": b"theirs",
        "t/new": b"theirs",
    }


def test_a_stranger_after_the_record_stops_recovery(store: Store) -> None:
    """Protects what others wrote in between: told by name, never overwritten, and there is a way out."""
    from fstx.backends.plain.claims import Decided

    begin(store).rollback()
    home = Home(store)
    txid = uuid.uuid4().hex
    ops = (Op("part", "t/a", "", 1, inline=b"n"), Op("publisher", "t/b", "", 1, inline=b"n"))
    home.service(
        "commit",
        txid,
        lambda ledger: ledger.decide(txid, Decided(("t",), 1, "", "", ops)),
        lambda ledger: "free",
        lambda ledger: txid in ledger.decided,
    )
    store.put("t/a", b"theirs")
    for call in (backend(store, ["t"]).recover, lambda: begin(store)):
        with pytest.raises(RecoveryError, match="t/a was written by another program"):
            call()
    assert content(store) == {"t/a": b"theirs"}
    store.delete(["t/a"])
    backend(store, ["t"]).recover()
    assert content(store) == {"t/a": b"n", "t/b": b"n"}


def test_receipts_of_others_are_refused(store: Store) -> None:
    """Protects I10: a receipt can't make a commit publish or delete an object that is not its own."""
    tx = begin(store)
    receipt = tx.stager().stage("a", b"1" * 5000)
    for key in ("data/../../t/x~1", f"data/{'0' * 32}/a~{'0' * 22}--", "held/99", "placed/x"):
        with pytest.raises(StateError):
            tx.adopt([replace(receipt, key=key)])
    with pytest.raises(StateError):
        tx.adopt([replace(receipt, txid="0" * 32)])
    tx.adopt([replace(receipt, size_bytes=4)])
    tx.desk.drop(receipt.key)
    tx.rollback()


def test_a_receipt_without_its_bytes_is_an_error(store: Store) -> None:
    """Protects the commit from objects that workers did not put, or others deleted."""
    tx = begin(store)
    tx.stage("a", b"1" * 5000)
    tx.desk.settle()
    store.delete([i.key for i in store.list(".fstx/data/")])
    with pytest.raises(StorageError, match="not there"):
        tx.commit()
    assert not content(store)


def test_stagers_pickle_and_put_parts(tmp_path: Path) -> None:
    """Protects REMOTE_STAGING: parts from other processes, retries and failed attempts with them."""
    store = LocalStore(tmp_path / "bucket")
    tx = begin(store, mode="create", entry="e")
    away = pickle.loads(pickle.dumps(tx.stager()))
    first = away.stage("a", b"1" * 5000)
    again = away.stage("a", b"1" * 5000)
    other = away.stage("b", b"2" * 5000)
    later = away.stage("b", b"3" * 5000)  # a retry with other bytes: staged in the home
    away.stage("never-adopted", b"4" * 5000)
    tx.adopt([first, again, other, later])
    tx.stage("e", b"e")
    tx.commit()
    assert content(store) == {"t/a": b"1" * 5000, "t/b": b"3" * 5000, "t/e": b"e"}
    assert control(store) == {"home.json", "log"}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_late_workers_leave_nothing(end: str, tmp_path: Path) -> None:
    """Protects plain names: a rollback takes what workers put, and those that go on put nothing more."""
    store = LocalStore(tmp_path / "bucket")
    tx = begin(store, entry="e")
    away = pickle.loads(pickle.dumps(tx.stager()))
    tx.adopt([away.stage("a", b"1" * 5000)])
    tx.stage("e", b"e")
    getattr(tx, end)()
    kept = {"t/a": b"1" * 5000, "t/e": b"e"} if end == "commit" else {}
    assert content(store) == kept
    for name in ("b", "c"):
        with pytest.raises(FencedError, match="is over"):
            away.stage(name, b"9" * 5000)
    away.stage("e", b"9" * 5000)  # not at a plain name, so only staged
    PlainBackend(store, ["t"], joined=False).recover()
    assert content(store) == kept
    assert [info.key for info in store.list(".fstx/data/")] == [f".fstx/data/{tx.txid}/=gone"]


def test_a_worker_without_coordinator_puts_nothing_more(tmp_path: Path) -> None:
    """Protects FENCED: a worker that outlived its coordinator is stopped, whoever holds the name now."""
    store = LocalStore(tmp_path / "bucket")
    tx = begin(store, mode="create", entry="e")
    away = pickle.loads(pickle.dumps(tx.stager()))
    away.stage("a", b"1" * 5000)
    died()
    with begin(store, mode="create", entry="e") as second:
        assert not content(store)
        with pytest.raises(Exception, match="given up"):
            away.stage("b", b"1" * 5000)
        second.stage("a", b"2" * 5000)
        second.stage("e", b"e")
    tx.rollback()
    assert content(store) == {"t/a": b"2" * 5000, "t/e": b"e"}


def test_what_was_there_never_counts_as_ours(store: Store) -> None:
    """Protects old parts from rollback and recovery, also where the same bytes are staged again."""
    for path in ("t/a", "t/e"):
        store.put(path, b"1" * 5000)
    before = content(store)
    for dead in (False, True):
        tx = begin(store, entry="e", require=frozenset())
        tx.stage("a", b"1" * 5000)
        tx.stage("b", b"2" * 5000)
        tx.desk.settle()
        if dead:
            died()
            backend(store, ["t"]).recover()
        else:
            tx.rollback()
        assert content(store) == before


def test_pieces_are_composed(store: Store) -> None:
    """Protects npy and shards from pieces: staged in the home, never at a plain name."""
    with begin(store, "a.npy", joined=True, mode="create", entry="a.npy") as tx:
        pieces = [tx.stager().stage(f"a.npy#{i}", bytes([i]) * 5000) for i in range(3)]
        assert not content(store)
        tx.compose("a.npy", [b"head", *pieces])
    assert content(store) == {"a.npy": b"head" + b"".join(bytes([i]) * 5000 for i in range(3))}
    assert control(store) == {"home.json", "log"}


def test_a_file_is_no_directory(store: Store) -> None:
    """Protects readers on file systems: a name is a file or a directory."""
    store.put("t/a", b"1")
    with pytest.raises(PathError, match="file and a directory"), begin(store) as tx:
        tx.stage("a/b", b"1")
    with begin(store) as tx:
        tx.remove("a")
        tx.stage("b/c", b"1")
    assert content(store) == {"t/b/c": b"1"}


def test_nothing_is_promised_without_put_if_absent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects honesty: where conditions are ignored nothing begins, and the reason is told."""
    monkeypatch.setattr(
        type(store), "probe", lambda self: Proof(put_new=False, put_new_reason="it overwrites")
    )
    with pytest.raises(CapabilityError, match="it overwrites"):
        begin(store)
    assert not control(store)
    promised = backend(store, ["t"]).guarantee(mode="update", durability="data")
    assert not promised.capabilities


@pytest.mark.parametrize(
    "row",
    [
        ["part", "../x", "", 1, "", "", "YQ=="],
        ["part", "other/x", "", 1, "", "", "YQ=="],
        ["part", ".fstx/home.json", "", 1, "", "", "YQ=="],
        ["part", "t/x", "", 2, "", "", "YQ=="],
        ["part", "t/x", "", 1, "", "data/" + "1" * 32 + "/a~b", None],
        ["part", "t/x", "", -1, "", "", "YQ=="],
        ["part", "t/x", "", 1 << 60, "", "data/" + "0" * 32 + "/a", None],
        ["part", "t/x", "", 1, "", "", None],
        ["link", "t/x", "", 1, "", "", "YQ=="],
        ["part", "t/x", "", 1, "", "", "!!"],
        ["part", "t/x", None, 1, "", "", "YQ=="],
        "part",
        [],
    ],
)
def test_hostile_steps_are_refused(row: Any) -> None:
    """Protects I10: no step leaves its targets, and a damaged one is a clear error."""
    with pytest.raises(RecoveryError, match="where"):
        decode([row], "0" * 32, ["t"], "where")


@pytest.mark.parametrize(
    "extra",
    [
        {"claims": []},
        {"claims": {"x": {}}},
        {"claims": {"0" * 32: {"names": ["../a"]}}},
        {"claims": {"0" * 32: {"names": ["a"], "owner": ["h"]}}},
        {"open": {"0" * 32: {"names": ["a/b"], "ops": []}}},
        {"open": {"0" * 32: {"names": ["a"], "when": 1, "at": ["data/x", 1, "d"]}}},
        {"dead": {"0" * 32: [["a"]]}},
        {"done": ["x"]},
        {"done": "x"},
        [],
    ],
)
def test_hostile_ledgers_are_refused(extra: Any) -> None:
    """Protects I10: what a record carries is checked, and the record is named."""
    with pytest.raises(RecoveryError, match="log/7"):
        Ledger.of(State(extra={"plain": extra}), "s3://b/log/7")


def test_what_is_written_is_read_back() -> None:
    """Protects the format: ledgers, steps and notices survive a round trip."""
    txid, other = "0" * 32, "1" * 32
    ops = (
        Op("part", "t/a", "etag", 3, "c00000000", f"data/{txid}/a~x"),
        Op("publisher", "t/b", "", 2, inline=b"\x00\xff"),
        Op("remove", "t/c", "etag"),
    )
    assert decode(encode(ops), txid, ["t"], "here") == ops
    assert unpack(pack(ops), txid, ["t"], "here") == ops
    from fstx.backends.plain.claims import Dead, Decided

    ledger = Ledger(
        claims={txid: Claim(("a",), Owner("h", "b", 7, "9"), 5, "create", "k-1")},
        decided={txid: Decided(("t",), 5, "t/b", "", ops)},
        dead={other: Dead(("t",), 5)},
        finished=(other,),
    )
    assert Ledger.of(ledger.into(State()), "here") == ledger
    from fstx.backends.plain.compare import Content

    parts = [Part("t/a", Content(3, "c00000000", "m"))]
    assert read_notice(notice(parts), ["t"], "here") == parts
    with pytest.raises(RecoveryError):
        read_notice(notice(parts), ["u"], "here")


def test_a_process_is_known_by_more_than_its_number() -> None:
    """Protects claims from a number that another process has now, and from other hosts."""
    here = Owner.here()
    sign = owner.opened("x")
    assert here.life("x") == "living"
    del sign
    assert here.life("x") == "dead"
    assert replace(here, host="far").life("x") == "elsewhere"
    assert replace(here, boot="other").life("x") == "dead"
    assert replace(here, boot=here.boot.partition("/")[0] + "/pid:[1]").life("x") == "elsewhere"
    assert replace(here, pid=1, started="0").life("x") in ("dead", "elsewhere")
    assert settle.LEASE_S == 3600


def test_targets_that_can_t_be_told_apart_are_refused(store: Store) -> None:
    """Protects PATH-3 for names of targets."""
    with pytest.raises(PathError):
        PlainBackend(store, ["a", "A"], joined=True)
    with pytest.raises(PathError):
        PlainBackend(store, [".fstx"], joined=True)
