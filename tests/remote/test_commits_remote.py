"""Commits on real object stores: lost answers, crowds, servers that lie."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fstx
from fstx.backends.manifest import Dataset, ManifestBackend, ManifestTransaction, dataset_of
from fstx.errors import CapabilityError, ConflictError, InDoubtError
from fstx.machines import manifest
from fstx.stores import Store
from fstx.stores.opening import open_store
from fstx_conformance.seams.proxy.control import Rule
from support.emulators import Place

BIG = bytes(range(256)) * 16

FAULTS: dict[str, Rule] = {
    "applied, then 503": Rule("status_after", code=503),
    "applied, then 500": Rule("status_after", code=500),
    "applied, then reset": Rule("reset_after"),
    "not applied, 503": Rule("status", code=503),
    "not applied, reset": Rule("reset_before"),
    "cut in the middle": Rule("reset_mid_request"),
    "409, nothing settled": Rule("status", code=409),
    "delayed": Rule("delay", wait_s=0.3),
    "answer delayed": Rule("delay_after", wait_s=0.3),
    "duplicated, first answer": Rule("duplicate", answer=0),
    "duplicated, second answer": Rule("duplicate", answer=1),
    "lost, and again later": Rule("zombie", wait_s=0.2),
}


def store_at(place: Place, name: str = "ds") -> Store:
    return open_store(f"{place.url}/{name}", **place.options).below(".fstx")


def begin(store: Store, **given: Any) -> ManifestTransaction:
    options = {"mode": "update", "durability": "data", "require": frozenset(), **given}
    return ManifestBackend(Dataset(store)).begin(**options)


def content(store: Store) -> dict[str, bytes]:
    dataset = Dataset(store)
    return {p: dataset.read(e) for p, e in dataset.view().items()}


def commits(store: Store) -> list[str]:
    log = Dataset(store).log
    heads = [log.read(seq) for seq in log.seqs()]
    return [h.record.txid for h in heads if h is not None and h.record is not None]


def test_a_dataset_on_each_server(remote_place: Place) -> None:
    """A33 and the rest of it: all that is written lies on that server and is read back whole."""
    store = store_at(remote_place)
    with begin(store) as tx:
        tx.stage("meta.json", b"{}")
        for i in range(40):
            tx.stage(f"c/{i}", bytes([i]) * 5000)
        with tx.open("large") as file:
            for i in range(5):
                file.write(bytes([i]) * (4 << 20))
    now = content(store_at(remote_place))
    assert len(now) == 42
    assert now["c/39"] == bytes([39]) * 5000
    assert len(now["large"]) == 20 << 20
    assert now["large"][:: 4 << 20] == bytes(range(5))
    with begin(store_at(remote_place)) as tx:
        tx.remove("c")
        tx.stage("meta.json", b"2")
    assert content(store_at(remote_place)).keys() == {"meta.json", "large"}


def test_rollback_leaves_no_object_and_no_upload(s3: Place) -> None:
    """Protects the bill: staged objects go, and no multipart upload stays open."""
    import fsspec

    store = store_at(s3)
    with pytest.raises(RuntimeError), begin(store) as tx:
        tx.stage("a", BIG)
        with tx.open("large") as file:
            file.write(bytes(20 << 20))
            raise RuntimeError
    assert list(store.list("data/")) == []
    fs = fsspec.filesystem("s3", **s3.options)
    bucket = s3.url.split("/")[2]
    assert not fs.call_s3("list_multipart_uploads", Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_lost_answer_is_no_error_and_no_second_commit(faulty_place: Place, fault: str) -> None:
    """The record's PUT is applied or not, answered or not: one commit, told as one."""
    store = store_at(faulty_place)
    with begin(store) as tx:
        tx.stage("old", b"0")
    rule = FAULTS[fault]
    rule.path, rule.times = r"log(/|%2F)0*2", 1
    rule.method = "PUT,POST"
    tx = begin(store)
    tx.stage("new", BIG)
    assert faulty_place.proxy is not None
    faulty_place.proxy.rules(rule)
    snapshot = tx.commit()
    faulty_place.proxy.clear()
    assert snapshot.version == 2
    assert content(store_at(faulty_place)) == {"old": b"0", "new": BIG}
    assert commits(store).count(tx.txid) == 1
    assert len(commits(store)) == 2


def test_a_store_that_goes_away_leaves_in_doubt_and_the_outcome_is_told_later(
    s3: Place, proxies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects from guessing: with the answer lost and the log unreadable nothing else is honest."""
    monkeypatch.setattr(manifest.Append, "__init__", _few_tries(manifest.Append.__init__))
    place = s3.through(proxies(s3.port))
    store = store_at(place)
    with begin(store) as tx:
        tx.stage("old", b"0")
    tx = begin(store)
    tx.stage("new", BIG)
    assert place.proxy is not None
    place.proxy.rules(
        Rule("status_after", code=503, method="PUT", path=r"log(/|%2F)"),
        Rule("reset_before", method="GET,HEAD", path=r"(log|boundary)"),
    )
    with pytest.raises(InDoubtError, match=r"ask fstx\.outcome"):
        tx.commit()
    place.proxy.clear()
    state = ManifestBackend(Dataset(store_at(place))).outcome(tx.id)
    assert state is fstx.OutcomeState.COMMITTED
    assert content(store_at(place)) == {"old": b"0", "new": BIG}


def _few_tries(init: Any) -> Any:
    def short(self: Any, head: int, tries: int = 3) -> None:
        init(self, head, tries)

    return short


def test_a_crowd_of_32_loses_nothing(remote_place: Place) -> None:
    """32 committers at once, disjoint paths: all land, each once, nothing is lost."""
    with begin(store_at(remote_place)) as tx:
        tx.stage("start", b"s")
    gate = threading.Barrier(32)
    versions: list[int | None] = []

    def one(i: int) -> None:
        tx = begin(store_at(remote_place))
        tx.stage(f"w/{i}", str(i).encode())
        gate.wait(60)
        versions.append(tx.commit().version)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(32)))
    assert sorted(v or 0 for v in versions) == list(range(2, 34))
    now = content(store_at(remote_place))
    assert now == {"start": b"s", **{f"w/{i}": str(i).encode() for i in range(32)}}


def test_of_a_crowd_on_one_path_one_wins(remote_place: Place) -> None:
    """Protects from lost updates: who did not see the winner is refused."""
    with begin(store_at(remote_place)) as tx:
        tx.stage("n", b"0")
    gate = threading.Barrier(8)

    def one(i: int) -> bool:
        tx = begin(store_at(remote_place))
        tx.stage("n", tx.read("n") + str(i).encode())
        gate.wait(60)
        try:
            tx.commit()
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(8))) == 1
    assert len(content(store_at(remote_place))["n"]) == 2


@pytest.mark.parametrize("liar", ["s3_strip", "s3_racy"])
def test_a_server_that_lies_is_refused_before_a_byte(
    liar: str, request: pytest.FixtureRequest
) -> None:
    """I1: put-if-absent that does not hold is found out at begin, with the reason and the way out."""
    place: Place = request.getfixturevalue(liar)
    with pytest.raises(CapabilityError, match="no transaction can be committed here"):
        fstx.begin(f"tx::{place.url}/ds", require=None, **place.options)
    assert list(open_store(f"{place.url}/ds", **place.options).list("")) == []


def test_requests_of_a_commit(s3: Place, proxies: Any) -> None:
    """At most 4 requests beside the data on an open dataset, 8 on one just opened, however many files."""
    place = s3.through(proxies(s3.port))
    assert place.proxy is not None
    store = store_at(place)
    dataset = Dataset(store)
    backend = ManifestBackend(dataset)
    given: Any = {"mode": "update", "durability": "data", "require": frozenset()}
    with backend.begin(**given) as tx:
        tx.stage("a", b"1")
    for files in (1, 100, 400):
        place.proxy.rules()
        with backend.begin(**given) as tx:
            for i in range(files):
                tx.stage(f"f{files}/{i}", b"x" * 3000)
        assert len(place.proxy.log()) - files <= 4 + (
            files > 100
        )  # more than a record holds: a pack
    place.proxy.rules()
    fresh = Dataset(store_at(place))
    fresh._proof = dataset.proof()
    with ManifestBackend(fresh).begin(**given) as tx:
        tx.stage("b", b"x" * 3000)
    assert len(place.proxy.log()) - 1 <= 8


def test_no_credential_shows(s3: Place) -> None:
    """Protects keys: not in records, reprs, errors."""
    secret = "hunter2-very-secret"
    options = {**s3.options, "secret": secret, "key": "AKIA-also-secret"}
    store = open_store(f"{s3.url}/ds", **options).below(".fstx")
    tx = begin(store)
    tx.stage("a", BIG)
    shown = [repr(tx), repr(tx.dataset), repr(store), tx.url, str(tx.guarantee), repr(tx.stager())]
    tx.commit()
    for info in store.list(""):
        shown.append(store.get(info.key).decode("latin1"))
    with pytest.raises(FileNotFoundError) as caught:
        store.get("nothing/here")
    shown.append(f"{caught.value!r}")
    assert not [text for text in shown if secret in text or "AKIA-also" in text]


def test_other_credentials_are_another_dataset_object(s3: Place) -> None:
    """Protects accounts: what one caller opened is not read with his credentials for another."""
    one = open_store(f"{s3.url}/ds", **s3.options).below(".fstx")
    same = open_store(f"{s3.url}/ds", **s3.options).below(".fstx")
    other = open_store(f"{s3.url}/ds", **{**s3.options, "key": "other"}).below(".fstx")
    assert dataset_of(one) is dataset_of(same)
    assert dataset_of(one) is not dataset_of(other)
    assert one.identity == other.identity
