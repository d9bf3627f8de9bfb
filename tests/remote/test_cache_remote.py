"""The cache on real object stores."""

from __future__ import annotations

import json
import pickle
import threading
import time
from typing import Any

import numpy as np
import pytest

import fstx
from fstx.caching import CacheWarning, keys
from fstx.ops.processes import here
from fstx.stores.opening import open_store
from fstx_conformance.seams.proxy.control import FaultProxy, Rule
from support.cachejobs import holder
from support.emulators import Place

NAME = keys.name_of(keys.spell("a"))


def cache_of(place: Place, **options: Any) -> fstx.Cache:
    return fstx.cache(f"{place.url}/c", **options, **place.options)


def left(place: Place) -> list[str]:
    """All objects of the cache, without what only names its format."""
    return [i.key for i in open_store(f"{place.url}/c/v1", **place.options).list("")]


def test_values_on_each_store(remote_place: Place) -> None:
    """C1, C8: small and large values come and go as on local disk; entries are all that lies there."""
    cache = cache_of(remote_place)
    large = np.arange(1_200_000.0).reshape(1000, 1200)
    assert cache.get(("b", {"n": 1}), 7) == 7
    assert cache.put("a", b"one")
    assert not cache.put("a", b"two", if_absent=True)
    assert cache.put(("b", {"n": 1}), large)
    found: Any = cache.get_or_compute(("b", {"n": 1}), lambda: large + 1)
    np.testing.assert_array_equal(found, large)
    found[:] = 0  # one's own
    assert cache.put(("b", {"n": 1}), large.T)
    np.testing.assert_array_equal(cache.get(("b", {"n": 1})), large.T)
    assert sorted(map(repr, cache)) == ["'a'", "('b', {'n': 1})"]
    assert (len(cache), "a" in cache, "c" in cache, cache.check().ok) == (2, True, False, True)
    assert all(key.startswith("entries/") for key in left(remote_place))
    cache.remove("a")
    cache.clear()
    assert (cache.get("a"), left(remote_place)) == (None, [])
    assert remote_place.url.partition("://")[2] in repr(cache)


def test_many_compute_once(remote_place: Place) -> None:
    """C9: six that miss at once, each by a cache that came by pickle: one computes, no lease is left."""
    packed = pickle.dumps(cache_of(remote_place))
    gate, calls, found = threading.Barrier(6), [], []

    def compute() -> bytes:
        calls.append(1)
        return b"value"

    def work() -> None:
        own = pickle.loads(packed)
        gate.wait(60)
        found.append(own.get_or_compute("a", compute))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(calls), found) == (1, [b"value"] * 6)
    assert left(remote_place) == [f"entries/{NAME}"]


def test_damage_silence_and_the_bound(remote_place: Place) -> None:
    """C5, C6, C9 on each store: damage is computed again, a silent holder given up, and old entries go."""
    cache = cache_of(remote_place, lease_s=0.3)
    cache.put("a", b"one")
    store = open_store(f"{remote_place.url}/c/v1", **remote_place.options)
    whole = store.get(f"entries/{NAME}")
    store.put(f"entries/{NAME}", whole[:-5])
    record = {**here(), "host": "another", "nonce": "n", "beats": 0}
    store.put(f"leases/{NAME}-0", json.dumps(record).encode())
    with pytest.warns(CacheWarning, match="damaged"):
        assert cache.get_or_compute("a", lambda: b"two") == b"two"
    assert left(remote_place) == [f"entries/{NAME}"]
    bounded = cache_of(remote_place, max_bytes=5000)
    for number in range(4):
        bounded.put(number, b"x" * 1000)
    newest_s = max(use.used_s for use in bounded._place.uses())
    note = f"used/{keys.name_of(keys.spell(0))}"
    store.put(note, b"")
    while (found := store.info(note)) is None or (found.modified_s or 0) <= newest_s:
        time.sleep(0.05)  # times of servers are whole seconds
        store.put(note, b"")
    bounded.put("next", b"x" * 2500)
    assert (0 in bounded, 1 in bounded, "next" in bounded) == (True, False, True)
    assert bounded.check().size_bytes <= 5000


def test_a_hit_is_one_request(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
    """C13: as the server sees it."""
    cache = cache_of(s3_faulty)
    cache.put("a", np.arange(1000))
    fault_proxy.clear()
    assert cache.get("a") is not None
    assert cache.get_or_compute("a", lambda: b"") is not None
    log = fault_proxy.log()
    assert [(entry["method"], NAME in entry["path"]) for entry in log] == [("GET", True)] * 2


def test_lost_answers(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
    """C9: the answers to the lease and to the entry are lost: it is computed once all the same."""
    cache = cache_of(s3_faulty)
    calls = []

    def compute() -> bytes:
        calls.append(1)
        return b"value"

    fault_proxy.rules(
        Rule("reset_after", method="PUT", path="/leases/", times=1),
        Rule("reset_after", method="PUT", path="/entries/", times=1),
        Rule("reset_after", method="GET", path="/entries/", times=1),
        Rule("reset_after", method="PUT", path="/entries/", header="if-none-match", times=1),
    )
    assert cache.get_or_compute("a", compute) == b"value"
    assert cache.get_or_compute("a", compute) == b"value"
    assert len(calls) == 1
    cache.remove("a")
    assert cache.put("a", b"first", if_absent=True)
    assert not cache.put("a", b"second", if_absent=True)
    fault_proxy.clear()
    assert (cache.get("a"), left(s3_faulty)) == (b"first", [f"entries/{NAME}"])


def test_a_killed_leader_is_followed(s3: Place) -> None:
    """C9: a process of this host that died is seen at once, without waiting for its lease."""
    with holder(f"{s3.url}/c", 3600, **s3.options) as leader:
        assert left(s3) == [f"leases/{NAME}-0"]
        leader.kill()
        leader.wait(60)
        assert cache_of(s3, lease_s=3600).get_or_compute("a", lambda: b"mine") == b"mine"
    assert left(s3) == [f"entries/{NAME}"]


def test_over_a_file_server(sftp: Place) -> None:
    """C8, C9: over SFTP, through fsspec alone: computed once, kept whole, and no lease is left."""
    cache = cache_of(sftp, max_bytes=100_000)
    gate, calls, found = threading.Barrier(3), [], []

    def compute() -> bytes:
        calls.append(1)
        return b"value"

    def work() -> None:
        gate.wait(60)
        found.append(cache.get_or_compute("a", compute))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(calls), found) == (1, [b"value"] * 3)
    assert not cache.put("a", b"other", if_absent=True)
    assert (list(cache), cache.check().ok, cache.trim()) == (["a"], True, 0)
    assert left(sftp) == [f"entries/{NAME}"]
