"""The Zarr store over a transaction: zarr's own store tests, and zarr, xarray and dask through it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.buffer.cpu import Buffer
from zarr.core.sync import sync
from zarr.testing.store import StoreTests

from fstx.backends.memory import MemoryBackend, MemoryTransaction
from fstx.errors import StateError, UsageError
from fstx.zarr_store import TransactionStore
from support.zarrdict import PLACE, begin, clean_memory, published

PROTOTYPE = default_buffer_prototype()


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    with clean_memory():
        yield


def _synchronous(test: Callable[..., Any]) -> Callable[..., None]:
    """The same test without an asyncio plugin."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class TestZarrsOwn(StoreTests):  # type: ignore[type-arg]
    """G5: zarr's test suite for stores, whole, over a transaction."""

    store_cls = TransactionStore
    buffer_cls = Buffer

    @pytest.fixture(params=["", "dem.zarr", "deep/dem.zarr"])
    def store_kwargs(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        backend = MemoryBackend([f"{PLACE}/suite"], joined=False)
        tx = backend.begin(mode="update", durability="none", require=frozenset())
        return {"tx": tx, "root": request.param}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> TransactionStore:
        return sync(TransactionStore.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> TransactionStore:
        return TransactionStore(**store_kwargs)

    async def set(self, store: TransactionStore, key: str, value: Any) -> None:
        store._tx.stage(f"{store._root}/{key}".lstrip("/"), value.to_bytes())

    async def get(self, store: TransactionStore, key: str) -> Any:
        return self.buffer_cls.from_bytes(store._tx.read(f"{store._root}/{key}".lstrip("/")))

    def test_store_repr(self, store: TransactionStore) -> None:
        where = f"memory://{PLACE}/suite" + (f"/{store._root}" if store._root else "")
        assert repr(store) == f"TransactionStore('{where}', transaction {store._tx.id})"

    def test_store_supports_writes(self, store: TransactionStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: TransactionStore) -> None:
        assert store.supports_listing

    async def test_serializable_store(self, store: TransactionStore) -> None:
        with pytest.raises(UsageError, match="thread scheduler"):
            pickle.dumps(store)


for _name, _test in inspect.getmembers(StoreTests, inspect.iscoroutinefunction):
    if _name.startswith("test_"):
        _mine = TestZarrsOwn.__dict__.get(_name, _test)
        setattr(TestZarrsOwn, _name, _synchronous(_mine))


def open_store(
    name: str = "dem.zarr", **options: Any
) -> tuple[MemoryTransaction, TransactionStore]:
    tx = begin(name, **options)
    return tx, TransactionStore(tx, name)


def publish(**content: bytes) -> None:
    with begin("dem.zarr") as tx:
        for key, value in content.items():
            tx.stage(f"dem.zarr/{key.replace('__', '/')}", value)


def test_the_suite_above_is_really_run() -> None:
    """G5: every coroutine test of zarr's suite was turned into a plain one."""
    names = [n for n in dir(TestZarrsOwn) if n.startswith("test_")]
    assert len(names) > 35
    assert not any(inspect.iscoroutinefunction(getattr(TestZarrsOwn, n)) for n in names)


def test_nothing_is_seen_before_commit() -> None:
    """G1, I2: an array, its metadata included, appears at commit and not before; rollback leaves none."""
    array = np.arange(24.0).reshape(4, 6)
    for end in ("rollback", "commit"):
        tx, store = open_store()
        made = zarr.create_array(store, shape=array.shape, dtype="f8", chunks=(2, 3))
        made[...] = array
        made.attrs["units"] = "m"
        np.testing.assert_array_equal(made[...], array)
        assert published() == {}
        getattr(tx, end)()
    assert sorted(published()) == ["dem.zarr/c/" + c for c in ("0/0", "0/1", "1/0", "1/1")] + [
        "dem.zarr/zarr.json"
    ]
    _, again = open_store()
    found = zarr.open_array(again, mode="r")
    assert found.attrs["units"] == "m"
    np.testing.assert_array_equal(found[...], array)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_documents_are_publishers(zarr_format: Any) -> None:
    """G1: metadata documents of both formats are published after the chunks that they lead to."""
    tx, store = open_store()
    group = zarr.create_group(store, zarr_format=zarr_format)
    made = group.create_array("a", shape=(4,), dtype="i4", chunks=(2,))
    made[...] = 1
    group.attrs["x"] = 1
    ranks = {path: receipt.publisher for path, receipt in tx._changes.staged.items()}
    documents = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
    assert len(ranks) > 3
    assert ranks == {path: path.rpartition("/")[2] in documents for path in ranks}
    tx.rollback()


def test_replace_sees_nothing_of_the_old_tree() -> None:
    """G3, A26: while the whole tree is replaced, its old keys are neither listed nor read."""
    publish(**{"zarr.json": b"{}", "c__9": b"old"})
    tx, store = open_store(mode="replace")
    store.set_sync("c/0", Buffer.from_bytes(b"new"))
    assert store.get_sync("c/9") is None
    assert sync(_collect(store.list())) == ["c/0"]
    tx.commit()
    assert published() == {"dem.zarr/c/0": b"new"}


async def _collect(keys: Any) -> list[str]:
    return [key async for key in keys]


def test_listings_and_removals_over_the_base() -> None:
    """G3: listings hold base and staged keys less the removed, and no other name, also by prefix."""
    publish(
        **{"zarr.json": b"{}", "a__zarr.json": b"{}", "a__c__0": b"0", "a__c__1": b"1", "ab": b"2"}
    )
    tx, store = open_store()
    store.set_sync("a/c/2", Buffer.from_bytes(b"2"))
    store.delete_sync("a/c/0")
    store.delete_sync("a/c/7")  # not there: nothing happens
    store.delete_sync("a/c")  # no key, but the directory of some: nothing happens
    assert sync(_collect(store.list())) == ["a/c/1", "a/c/2", "a/zarr.json", "ab", "zarr.json"]
    assert sync(_collect(store.list_prefix("a"))) == ["a/c/1", "a/c/2", "a/zarr.json", "ab"]
    assert sync(_collect(store.list_prefix("a/c/"))) == ["a/c/1", "a/c/2"]
    assert sync(_collect(store.list_dir(""))) == ["a", "ab", "zarr.json"]
    assert sync(_collect(store.list_dir("a"))) == ["c", "zarr.json"]
    assert sync(_collect(store.list_dir("a/"))) == ["c", "zarr.json"]
    assert store.get_sync("a") is None
    assert not sync(store.exists("a/c"))
    assert sync(store.exists("a/c/1"))
    sync(store.delete_dir("ab"))  # a key, no directory: stays
    sync(store.delete_dir("a"))
    assert sync(_collect(store.list())) == ["ab", "zarr.json"]
    assert len(published()) == 5
    tx.commit()
    assert sorted(published()) == ["dem.zarr/ab", "dem.zarr/zarr.json"]


def test_clear_then_write_again() -> None:
    """A26: overwriting an array in place removes what is not written again."""
    publish(**{"zarr.json": b"{}", "c__0": b"0", "c__1": b"1"})
    tx, store = open_store()
    sync(store.clear())
    assert sync(_collect(store.list())) == []
    store.set_sync("c/1", Buffer.from_bytes(b"new"))
    tx.commit()
    assert published() == {"dem.zarr/c/1": b"new"}


RANGES: list[tuple[Any, bytes]] = [
    (None, b"0123456789"),
    (RangeByteRequest(2, 5), b"234"),
    (RangeByteRequest(8, 20), b"89"),
    (OffsetByteRequest(7), b"789"),
    (SuffixByteRequest(3), b"789"),
    (SuffixByteRequest(30), b"0123456789"),
    (SuffixByteRequest(0), b""),
]


@pytest.mark.parametrize(("wanted", "expected"), RANGES, ids=str)
def test_byte_ranges(wanted: Any, expected: bytes) -> None:
    """G5: ranges of staged and of published values, by the async and the sync face alike."""
    publish(base=b"0123456789")
    _, store = open_store()
    store.set_sync("staged", Buffer.from_bytes(b"0123456789"))
    for key in ("base", "staged"):
        for got in (
            sync(store.get(key, PROTOTYPE, wanted)),
            store.get_sync(key, byte_range=wanted),
            sync(store.get_partial_values(PROTOTYPE, [(key, wanted)]))[0],
        ):
            assert got is not None
            assert got.to_bytes() == expected
    with pytest.raises(ValueError, match="Unexpected byte_range"):
        store.get_sync("base", byte_range=(1, 2))  # type: ignore[arg-type]


def test_buffers_of_any_memory() -> None:
    """H7: values whose buffers are not plain bytes arrive as their bytes."""
    _, store = open_store()
    value = Buffer.from_array_like(np.arange(4, dtype="u1"))
    store.set_sync("k", value)
    store.set_sync("part", value[1:3])
    store.set_sync("empty", value[:0])
    assert [store._tx.read(f"dem.zarr/{k}") for k in ("k", "part", "empty")] == [
        b"\0\1\2\3",
        b"\1\2",
        b"",
    ]
    with pytest.raises(TypeError, match="bytes"):
        store.set_sync("k", b"raw")  # type: ignore[arg-type]


def test_read_only() -> None:
    """A read-only store refuses each change and its writable twin is over the same transaction."""
    tx, store = open_store()
    frozen = store.with_read_only(True)
    assert frozen.read_only
    assert frozen != store
    assert frozen.with_read_only(False) == store
    value = Buffer.from_bytes(b"x")
    calls: list[Callable[[], Any]] = [
        lambda: frozen.set_sync("k", value),
        lambda: frozen.delete_sync("k"),
        lambda: sync(frozen.set("k", value)),
        lambda: sync(frozen.set_if_not_exists("k", value)),
        lambda: sync(frozen.delete("k")),
        lambda: sync(frozen.delete_dir("k")),
        lambda: sync(frozen.clear()),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="read-only"):
            call()
    assert list(tx.paths()) == []


def test_a_finished_transaction_is_refused() -> None:
    """The store says what is wrong after commit, and does not pretend that keys are missing."""
    tx, store = open_store()
    tx.commit()
    with pytest.raises(StateError, match="committed"):
        store.get_sync("zarr.json")
    with pytest.raises(StateError, match="committed"):
        store.set_sync("zarr.json", Buffer.from_bytes(b"{}"))


def test_sync_face_is_offered() -> None:
    """G5: all three synchronous methods are there, so that zarr's fused pipeline takes them."""
    from zarr.abc import store as abc

    _, store = open_store()
    for protocol in ("SupportsGetSync", "SupportsSetSync", "SupportsDeleteSync"):
        assert isinstance(store, getattr(abc, protocol))
    decides = getattr(abc, "_store_supports_sync_io", None)
    assert decides is None or decides(store)


FUSED = "zarr.core.codec_pipeline.FusedCodecPipeline"


@pytest.mark.skipif(
    not hasattr(zarr.core.codec_pipeline, "FusedCodecPipeline"), reason="came with zarr 3.4"
)
@pytest.mark.parametrize("shards", [None, (4, 6)])
def test_fused_pipeline_uses_the_sync_face(monkeypatch: pytest.MonkeyPatch, shards: Any) -> None:
    """G5: with zarr's synchronous pipeline no chunk takes the way over the event loop."""
    array = np.arange(48.0).reshape(8, 6)

    async def refuse(self: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"{key} went through the async face")

    tx, store = open_store()
    with zarr.config.set({"codec_pipeline.path": FUSED}):
        made = zarr.create_array(store, shape=(8, 6), dtype="f8", chunks=(2, 3), shards=shards)
        for name in ("get", "set", "delete"):
            monkeypatch.setattr(TransactionStore, name, refuse)
        made[...] = array
        made[0:2, 0:3] = 0
        found = made[...]
    array[0:2, 0:3] = 0
    np.testing.assert_array_equal(found, array)
    tx.commit()
    assert len(published()) == (3 if shards else 8)  # the zeroed chunk is gone again


class Portable(MemoryTransaction):
    """Stands for a transaction that pickles: by its name."""

    def __reduce__(self) -> Any:
        return (_found_again, (self.id,))


_PORTABLE: dict[str, Any] = {}


def _found_again(txid: str) -> Any:
    return _PORTABLE[txid]


def test_pickles_where_its_transaction_does() -> None:
    """I2: the store goes to another process if the transaction does, with root and mode."""
    backend = MemoryBackend([f"{PLACE}/p"], joined=False)
    guarantee = backend.guarantee(mode="update", durability="none")
    tx = Portable(backend, guarantee, "update", None, None, frozenset())
    _PORTABLE[tx.id] = tx
    store = TransactionStore(tx, "dem.zarr", read_only=True)
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read_only


def dataset() -> xr.Dataset:
    values = np.random.default_rng(0).normal(size=(2, 40, 30))
    return xr.Dataset(
        {"dem": (("t", "y", "x"), values), "mask": (("y", "x"), values[0] > 0)},
        coords={"y": np.arange(40.0), "x": np.arange(30.0)},
        attrs={"title": "Höhe"},
    )


def xarray_reads(store: Store) -> xr.Dataset:
    return xr.open_zarr(store, consolidated=False).load()


@pytest.mark.parametrize("chunks", [None, {"y": 16, "x": 15}], ids=["numpy", "dask"])
@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_xarray_writes_all_or_nothing(chunks: Any, consolidated: bool) -> None:
    """I2, G1: `to_zarr` inside a transaction, also from dask's threads, is one commit."""
    made = dataset()
    tx, store = open_store("cube.zarr")
    source = made.chunk(chunks) if chunks else made
    with dask.config.set(scheduler="threads"):
        source.to_zarr(store, zarr_format=3, consolidated=consolidated)
    assert published() == {}
    xr.testing.assert_identical(xarray_reads(store), made)
    tx.commit()
    _, again = open_store("cube.zarr")
    xr.testing.assert_identical(xarray_reads(again), made)


def test_xarray_appends_in_one_commit() -> None:
    """G1, A26: an append changes nothing for readers until it is whole."""
    made = dataset()
    tx, store = open_store("cube.zarr")
    made.to_zarr(store, zarr_format=3, consolidated=False)
    tx.commit()
    before = published()
    tx, store = open_store("cube.zarr")
    made.to_zarr(store, append_dim="t", zarr_format=3, consolidated=False)
    assert published() == before
    tx.commit()
    _, again = open_store("cube.zarr")
    expected = xr.concat([made, made], "t", data_vars="minimal")
    xr.testing.assert_equal(xarray_reads(again), expected)


def test_xarray_failure_publishes_nothing() -> None:
    """A10: a chunk that fails to compute inside the block leaves the target as it was."""

    def fail(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and block_info[0]["chunk-location"] == (2, 1):
            raise RuntimeError("chunk (2, 1) can't be computed")
        return block

    bad = da.ones((8, 8), chunks=2).map_blocks(fail, dtype="f8")
    tx, store = open_store("cube.zarr")

    def body() -> None:
        with tx, dask.config.set(scheduler="threads"):
            xr.Dataset({"a": (("y", "x"), bad)}).to_zarr(store, zarr_format=3, consolidated=False)

    with pytest.raises(RuntimeError, match="can't be computed"):
        body()
    assert published() == {}


@pytest.mark.parametrize("way", ["to_zarr", "store"])
def test_dask_writes_with_threads(way: str) -> None:
    """E3, I2: `da.to_zarr` and `da.store` from threads are one commit."""
    source = da.arange(600, chunks=50).reshape(20, 30).rechunk((5, 10))
    tx, store = open_store()
    with dask.config.set(scheduler="threads"):
        target = zarr.create_array(store, shape=(20, 30), dtype=source.dtype, chunks=(5, 10))
        if way == "to_zarr":
            source.to_zarr(target)
        else:
            da.store(source, target, lock=False)
    assert published() == {}
    tx.commit()
    assert len(published()) == 13
    _, again = open_store()
    with dask.config.set(scheduler="threads"):
        np.testing.assert_array_equal(
            da.from_zarr(zarr.open_array(again, mode="r")).compute(),
            np.arange(600).reshape(20, 30),
        )


def test_process_schedulers_are_told_the_way_out() -> None:
    """E3: where the store can't follow, the error says so and names what works."""
    _, store = open_store()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(UsageError, match=r"tx\.stager\(\)") as caught:
            pickle.dumps(store, protocol)
        assert isinstance(caught.value.__cause__, TypeError)
