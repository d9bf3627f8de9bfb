"""The memory store."""

from __future__ import annotations

import pickle
import threading
import uuid

import fsspec
import pytest

from fstx.errors import PathError
from fstx.stores import Answer, Store
from fstx.stores.memory import MemoryStore
from fstx.stores.opening import open_store, store_of


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(f"memory://t-{uuid.uuid4().hex}")


def test_it_is_a_store(store: MemoryStore) -> None:
    """Protects the protocol: the class has every primitive."""
    assert isinstance(store, Store)


def test_objects_come_and_go(store: MemoryStore) -> None:
    """Protects the primitives one by one, and that fsspec's readers see the same objects."""
    assert store.put_new("log/1", b"one") is Answer.DONE
    assert store.put_new("log/1", b"two") is Answer.TAKEN
    assert store.get("log/1") == b"one"
    store.put("log/1", memoryview(b"three"))
    assert (store.get("log/1", 1, 3), store.get("log/1", -2)) == (b"hr", b"ee")
    assert store.get("log/1", 3, 99) == b"ee"
    fs = fsspec.filesystem("memory")
    assert fs.cat_file(f"{store.url}/log/1") == b"three"
    store.start_put("b", b"").result()
    assert [(i.key, i.size_bytes) for i in store.list("")] == [("b", 0), ("log/1", 5)]
    assert [i.key for i in store.list("lo")] == ["log/1"]
    assert store.below("log").get("1") == b"three"
    store.delete(["b", "absent", "log/1"])
    assert list(store.list("")) == []
    assert store.info("b") is None
    with pytest.raises(FileNotFoundError):
        store.get("b")


def test_a_writer_publishes_at_close_or_never(store: MemoryStore) -> None:
    """Protects readers from half an object."""
    writer = store.open("big")
    writer.write(b"ab")
    assert store.info("big") is None
    writer.write(bytearray(b"cd"))
    writer.close()
    assert store.get("big") == b"abcd"
    writer = store.open("gone")
    writer.write(b"x")
    writer.abort()
    writer.abort()
    assert store.info("gone") is None


def test_a_condition_holds_for_one_of_many(store: MemoryStore) -> None:
    """Protects compare-and-swap and put-if-absent from two winners."""
    answers: list[Answer] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        answers.append(store.put_new("k", b"%d" % number))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers.count(Answer.DONE) == 1
    info = store.info("k")
    assert info is not None
    assert store.replace_if("k", b"new", info.token) is Answer.DONE
    assert store.replace_if("k", b"late", info.token) is Answer.TAKEN
    assert store.replace_if("k", b"late", None) is Answer.TAKEN
    assert store.get("k") == b"new"


def test_bad_keys_are_refused(store: MemoryStore) -> None:
    """Protects what lies outside of the root."""
    for key in (
        "",
        "/a",
        "a//b",
        "../a",
        "a/..",
        "a/",
        "a\\b",
        "a\nb",
        ".fstx-" + "0" * 32 + ".tmp",
    ):
        with pytest.raises(PathError):
            store.put_new(key, b"")


def test_urls_and_pickles() -> None:
    """Protects that a store of a URL, of an instance and out of a pickle reach the same objects."""
    root = uuid.uuid4().hex
    one = open_store(f"memory://{root}/x")
    two = store_of(fsspec.filesystem("memory"), f"/{root}/x")
    three = pickle.loads(pickle.dumps(one))
    assert one.identity == two.identity == three.identity
    assert one.url == f"memory://{root}/x"
    one.put("a", b"1")
    assert three.get("a") == b"1"
    proof = one.probe()
    assert proof.put_new
    assert not proof.shared
    assert not proof.durable
