"""Shards as a stream: order, threads, memory, failures, and the index against other implementations."""

from __future__ import annotations

import itertools
import json
import math
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

from fstx.errors import StorageError, UsageError
from fstx.layouts import zarr3
from fstx.layouts.chunks import codec_from_metadata
from fstx.layouts.shard_sink import ShardSink
from fstx.layouts.shards import MISSING, ShardFormat
from fstx.plan import ArraySpec
from fstx.types import StagedObject
from support.zarrdict import begin, clean_memory, published

SHAPE, CHUNKS, SHARDS = (20, 20), (2, 5), (8, 10)  # 3 x 2 shards of 4 x 2 chunks, the last cut


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    with clean_memory():
        yield


def planned(dtype: str = "i4", **options: Any) -> zarr3.ZarrPlan:
    spec = ArraySpec(SHAPE, np.dtype(dtype))
    return zarr3.plan("d.zarr", spec, chunks=CHUNKS, shards=SHARDS, **options)


def chunk_indices() -> list[tuple[int, ...]]:
    return list(itertools.product(range(10), range(4)))


def values() -> np.ndarray:
    return np.random.default_rng(3).integers(1, 100, SHAPE).astype("i4")


def chunk_of(array: np.ndarray, index: tuple[int, ...]) -> np.ndarray:
    y, x = index[0] * 2, index[1] * 5
    return array[y : y + 2, x : x + 5]


def write_all(sink: ShardSink, order: list[Any], array: np.ndarray) -> list[StagedObject]:
    return [r for i in order for r in sink.write_chunk(i, chunk_of(array, i))]


def reread() -> np.ndarray:
    """The published array by zarr-python."""
    make = zarr.core.buffer.cpu.Buffer.from_bytes
    stored = {p.removeprefix("d.zarr/"): make(data) for p, data in published().items()}
    return np.asarray(zarr.open_array(zarr.storage.MemoryStore(stored), mode="r")[...])


class Watched:
    """A stager that counts what is open, and fails on request."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.now = self.most = self.discarded = 0
        self.opened: list[str] = []
        self.fail_at: int | None = None
        self.written = 0

    def stage(self, path: str, data: Any, /, *, publisher: bool = False) -> StagedObject:
        return self.inner.stage(path, data, publisher=publisher)

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[Any]:
        self.opened.append(path)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            with self.inner.open(path, publisher=publisher) as file:
                write = file.write

                def counted(data: Any) -> int:
                    self.written += 1
                    if self.written == self.fail_at:
                        raise OSError(28, "No space left on device")
                    return write(data)

                file.write = counted
                yield file
        except BaseException:
            self.discarded += 1
            raise
        finally:
            self.now -= 1


def test_threads_in_any_order(tmp_path: Path) -> None:
    """F18: chunks of all shards from eight threads, shuffled, 20 times; every index is right."""
    array, plan = values(), planned()
    for seed in range(20):
        order = [divmod(n, 4) for n in np.random.default_rng(seed).permutation(40).tolist()]
        with begin("d.zarr", mode="replace") as tx:
            sink = plan.sink(tx.stager(), partial="error")
            assert isinstance(sink, ShardSink)
            with ThreadPoolExecutor(8) as pool:
                jobs = [pool.submit(sink.write_chunk, i, chunk_of(array, i)) for i in order]
                receipts = [r for job in jobs for r in job.result()]
            assert sink.close() == ()  # every shard was complete with its last chunk
            plan.finish(tx, receipts)
        assert len(published()) == 7
        np.testing.assert_array_equal(reread(), array)


def test_memory_is_a_chunk_not_a_shard(tmp_path: Path) -> None:
    """F17: a 64 MiB shard of 256 chunks grows memory by less than 8 MiB and writes its bytes once."""
    spec = ArraySpec((4096, 4096), np.dtype("f4"))
    plan = zarr3.plan("d.zarr", spec, chunks=256, shards=4096)
    file = open(tmp_path / "shard", "wb")  # noqa: SIM115 - closed by the stager's context below

    class DiskStager:
        @contextmanager
        def open(self, path: str) -> Iterator[Any]:
            with file:
                box = SimpleNamespace(write=file.write)
                yield box
                box.receipt = StagedObject(path, "k", file.tell(), "t")

    rng = np.random.default_rng(0)
    sink = plan.sink(DiskStager())  # type: ignore[arg-type]
    order = rng.permutation(256).tolist()
    noise = rng.integers(0, 255, (256, 256)).astype("f4")
    assert isinstance(sink, ShardSink)
    receipts: list[StagedObject] = []
    compressed = 0
    plan.codec.encode(noise)  # what is imported and set up once is not the shard's
    tracemalloc.start()
    try:
        for number in order:
            chunk = noise + np.float32(number)
            receipts += sink.write_chunk(divmod(number, 16), chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for number in order:
        compressed += len(plan.codec.encode(noise + np.float32(number)) or b"")
    assert peak < 8 << 20
    assert len(receipts) == 1
    assert compressed < receipts[0].size_bytes < compressed * 1.01
    assert (tmp_path / "shard").stat().st_size == receipts[0].size_bytes
    decoded = dict(plan.layout.format.decode((tmp_path / "shard").read_bytes()))
    assert len(decoded) == 256
    np.testing.assert_array_equal(decoded[(3, 7)], noise + np.float32(3 * 16 + 7))


def test_numpy_input_streams_without_a_slab() -> None:
    """F17: a whole shard given as a view is encoded chunk by chunk, also by the stateless write."""
    array = np.random.default_rng(0).integers(0, 9, (2048, 2048)).astype("f4")  # 16 MiB
    spec = ArraySpec(array.shape, array.dtype)
    plan = zarr3.plan("d.zarr", spec, chunks=128, shards=2048)

    class Null:
        @contextmanager
        def open(self, path: str) -> Iterator[Any]:
            sizes: list[int] = []
            box = SimpleNamespace(write=lambda data: sizes.append(len(data)))
            yield box
            box.receipt = StagedObject(path, "k", sum(sizes), "t")

    plan.codec.encode(array[:128, :128])
    for put in (plan.sink(Null()).write, lambda i, b: plan.write(Null(), i, b)):  # type: ignore
        tracemalloc.start()
        (receipt,) = put((0, 0), array)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert receipt.path == "d.zarr/c/0/0"
        assert peak < 2 << 20


def test_nothing_is_opened_without_values() -> None:
    """F9, F19: a shard of nothing but fill value, and a run without data, never touch storage."""
    plan = planned()
    with begin("d.zarr") as tx:
        stager = Watched(tx.stager())
        sink = plan.sink(stager, partial="fill")
        assert sink.close() == ()
        sink = plan.sink(stager, partial="fill")
        assert isinstance(sink, ShardSink)
        for index in chunk_indices():
            assert sink.write_chunk(index, np.zeros(CHUNKS, "i4")) == ()
        assert sink.close() == ()
        plan.finish(tx, [])
    assert stager.opened == []
    assert list(published()) == ["d.zarr/zarr.json"]
    assert not reread().any()


def test_missing_chunks() -> None:
    """F18: chunks that never came are fill value where asked for, and else an error that names them."""
    array, plan = values(), planned(fill_value=-1)
    with begin("d.zarr") as tx:
        sink = plan.sink(tx.stager(), partial="fill")
        assert isinstance(sink, ShardSink)
        receipts = list(sink.write_chunk((0, 1), chunk_of(array, (0, 1))))
        assert receipts == []
        receipts += sink.close()
        plan.finish(tx, receipts)
    expected = np.full(SHAPE, -1)
    expected[0:2, 5:10] = array[0:2, 5:10]
    np.testing.assert_array_equal(reread(), expected)
    assert len(published()) == 2
    with begin("e.zarr") as tx:
        stager = Watched(tx.stager())
        sink = plan.sink(stager, partial="error")
        assert isinstance(sink, ShardSink)
        sink.write_chunk((0, 1), chunk_of(array, (0, 1)))
        with pytest.raises(UsageError, match=r"d\.zarr/c/0/0 lacks 7 chunks"):
            sink.close()
        assert (stager.now, stager.discarded) == (0, 1)
        whole_shards = plan.sink(stager, partial="error")
        with pytest.raises(UsageError, match="6 shards got no chunk"):
            whole_shards.close()


def test_no_more_files_open_than_allowed() -> None:
    """F16: beyond the limit chunks are staged alone, and those shards are composed at the end."""
    array, plan = values(), planned()
    with begin("d.zarr") as tx:
        stager = Watched(tx.stager())
        sink = ShardSink(stager, plan.layout, max_open=1)
        receipts = [r for i in chunk_indices() for r in sink.write_chunk(i, chunk_of(array, i))]
        receipts += sink.close()
        assert stager.most == 1
        assert any("#" in r.path for r in receipts)
        plan.finish(tx, receipts)
        assert all("#" not in p for p in tx.paths())
    assert len(published()) == 7
    np.testing.assert_array_equal(reread(), array)


def test_bad_chunks_are_refused() -> None:
    """F14: chunks outside, of another shape or type, or given twice; the shard goes on without them."""
    array, plan = values(), planned()
    with begin("d.zarr") as tx:
        sink = plan.sink(tx.stager())
        assert isinstance(sink, ShardSink)
        sink.write_chunk((0, 0), chunk_of(array, (0, 0)))
        bad: list[tuple[tuple[int, ...], Any, str]] = [
            ((10, 0), chunk_of(array, (0, 0)), "outside"),
            ((-1, 0), chunk_of(array, (0, 0)), "outside"),
            ((0, 1), array[:2, :4], "shape"),
            ((0, 1), chunk_of(array, (0, 1)).astype("f4"), "float32"),
            ((0, 0), chunk_of(array, (0, 0)), "before"),
        ]
        for index, chunk, message in bad:
            with pytest.raises(UsageError, match=message):
                sink.write_chunk(index, chunk)
        receipts = [r for i in chunk_indices()[1:] for r in sink.write_chunk(i, chunk_of(array, i))]
        receipts += sink.close()
        with pytest.raises(UsageError, match="closed"):
            sink.write_chunk((0, 0), chunk_of(array, (0, 0)))
        plan.finish(tx, receipts)
    np.testing.assert_array_equal(reread(), array)
    with pytest.raises(UsageError, match="partial"):
        plan.sink(None, partial="maybe")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="write_chunk"):
        ShardSink(None, plan.layout).write((0, 0), array)  # type: ignore[arg-type]


def test_a_completed_shard_takes_no_chunk_again() -> None:
    """F18: a chunk repeated after its shard was complete is refused instead of replacing the shard."""
    array, plan = values(), planned()
    with begin("d.zarr") as tx:
        sink = plan.sink(tx.stager())
        assert isinstance(sink, ShardSink)
        inner = list(itertools.product(range(4), range(2)))
        done = [r for i in inner for r in sink.write_chunk(i, chunk_of(array, i))]
        assert [r.path for r in done] == ["d.zarr/c/0/0"]
        with pytest.raises(UsageError, match="before"):
            sink.write_chunk((0, 0), chunk_of(array, (0, 0)))
        sink.discard()


@pytest.mark.parametrize("fail_at", [1, 3, 9])
def test_a_failed_write_drops_the_shard(fail_at: int) -> None:
    """F11, F16, F23: the first failure is raised as it is, later chunks stop at once, nothing stays."""
    array, plan = values(), planned()
    with begin("d.zarr") as tx:
        stager = Watched(tx.stager())
        stager.fail_at = fail_at
        sink = plan.sink(stager, partial="fill")
        assert isinstance(sink, ShardSink)
        inner = list(itertools.product(range(4), range(2)))
        with pytest.raises(OSError, match="No space") as first:
            write_all(sink, inner, array)
        written = stager.written
        assert (stager.now, stager.discarded) == (0, 1)  # given up at once, not at the end
        with pytest.raises(StorageError, match="failed before") as later:
            sink.write_chunk((3, 1), chunk_of(array, (3, 1)))
        assert later.value.__cause__ is first.value
        with pytest.raises(StorageError, match="failed before"):
            sink.close()
        sink.discard()
        sink.discard()
        assert stager.written == written == fail_at
        assert stager.discarded == 1
        tx.rollback()
    assert published() == {}


def test_a_short_receipt_is_noticed() -> None:
    """F23: a stager that lost bytes of a shard does not pass for success."""
    plan = planned()

    class Liar:
        @contextmanager
        def open(self, path: str) -> Iterator[Any]:
            box = SimpleNamespace(write=len)
            yield box
            box.receipt = StagedObject(path, "k", 1, "t")

    with pytest.raises(StorageError, match="1 bytes staged"):
        plan.write(Liar(), (0, 0), np.ones((8, 20), "i4")[:, :10])  # type: ignore[arg-type]


def test_discard_survives_a_failing_stager() -> None:
    """A15: trouble in throwing bytes away never hides the failure that they are thrown away for."""

    class Broken:
        @contextmanager
        def open(self, path: str) -> Iterator[Any]:
            try:
                yield SimpleNamespace(write=len)
            finally:
                raise OSError("can't delete")

    sink = planned().sink(Broken(), partial="fill")  # type: ignore[arg-type]
    assert isinstance(sink, ShardSink)
    sink.write_chunk((0, 0), np.ones(CHUNKS, "i4"))
    sink.discard()
    with pytest.raises(UsageError, match="closed"):
        sink.write_chunk((0, 1), np.ones(CHUNKS, "i4"))


def test_compression_holds_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """E5, F18: two threads encode chunks of one shard at the same time."""
    plan = planned()
    meet = threading.Barrier(2, timeout=20)
    kind = type(plan.codec)
    encode = kind.encode
    monkeypatch.setattr(kind, "encode", lambda self, chunk: (meet.wait(), encode(self, chunk))[1])
    with begin("d.zarr") as tx:
        sink = plan.sink(tx.stager(), partial="fill")
        assert isinstance(sink, ShardSink)
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(sink.write_chunk, (0, x), np.ones(CHUNKS, "i4")) for x in (0, 1)]
            assert [job.result() for job in jobs] == [(), ()]
        assert len(sink.close()) == 1
        tx.rollback()


THEIRS = {
    "zstd": zarr.codecs.ZstdCodec(level=1),
    "gzip": zarr.codecs.GzipCodec(level=1),
    "blosc": zarr.codecs.BloscCodec(cname="lz4", clevel=3),
}


@pytest.mark.parametrize("codec", THEIRS)
@pytest.mark.parametrize("location", ["start", "end"])
def test_reads_shards_of_zarr_python(tmp_path: Path, codec: str, location: str) -> None:
    """F21: our decoder reads their shards, index checked, wherever the index lies."""
    array = values()
    array[0:2, 0:5] = 0
    made = zarr.create_array(
        tmp_path / "t.zarr",
        shape=SHAPE,
        dtype="i4",
        chunks=CHUNKS,
        shards={"shape": SHARDS, "index_location": location},  # type: ignore[arg-type]
        compressors=THEIRS[codec],
    )
    made[...] = array
    document = json.loads((tmp_path / "t.zarr/zarr.json").read_text())
    sharding = document["codecs"][0]["configuration"]
    read = codec_from_metadata(CHUNKS, document["data_type"], b"\0" * 4, sharding["codecs"])
    form = ShardFormat(read, (4, 2), sharding["index_location"])
    found = dict(form.decode((tmp_path / "t.zarr/c/0/0").read_bytes()))
    assert (0, 0) not in found
    assert len(found) == 7
    for inner, chunk in found.items():
        np.testing.assert_array_equal(chunk, chunk_of(array, inner))


def one_shard() -> tuple[ShardFormat, bytes]:
    plan = planned(compression="gzip")
    with begin("d.zarr") as tx:
        plan.finish(tx, plan.write(tx.stager(), (0, 0), values()[:8, :10]))
    return plan.layout.format, published()["d.zarr/c/0/0"]


def test_a_corrupt_index_is_named() -> None:
    """F21: any flipped bit of the index, a cut shard, an entry that points outside: a clear error."""
    form, shard = one_shard()
    assert len(dict(form.decode(shard))) == 8
    for position in range(len(shard) - form.index_bytes, len(shard)):
        broken = bytearray(shard)
        broken[position] ^= 4
        with pytest.raises(StorageError, match="checksum"):
            form.decode_index(bytes(broken))
    with pytest.raises(StorageError, match="can't hold an index"):
        form.decode_index(shard[-form.index_bytes + 1 :])
    index = form.decode_index(shard).copy()
    index[3] = (len(shard) - 1, 2)
    with pytest.raises(StorageError, match="in its index"):
        form.decode_index(shard[: -form.index_bytes] + form.encode_index(index))


def test_a_corrupt_chunk_is_named() -> None:
    """F21: bytes that don't decompress, or to another length, are an error and never values."""
    form, shard = one_shard()
    broken = b"\xff" * 8 + shard[8:]
    with pytest.raises(StorageError, match="corrupt chunk: gzip"):
        dict(form.decode(broken))
    index = form.decode_index(shard).copy()
    plain = planned(compression=None).layout.format
    with pytest.raises(StorageError, match="instead of 40"):
        dict(plain.decode(shard[: -form.index_bytes] + plain.encode_index(index)))


def test_codecs_that_are_not_known_are_named() -> None:
    """F21: what can't be read is refused by its name."""
    for name in ("transpose", "crc32c", "sharding_indexed"):
        with pytest.raises(UsageError, match=name):
            codec_from_metadata((2,), "i4", b"\0" * 4, [{"name": name}])
    big = {"name": "bytes", "configuration": {"endian": "big"}}
    with pytest.raises(UsageError, match="bytes"):
        codec_from_metadata((2,), "i4", b"\0" * 4, [big])


def test_empty_index_is_all_missing() -> None:
    """F19: an omitted chunk has the one offset and length that mean missing."""
    form = planned().layout.format
    assert form.index_bytes == 16 * math.prod((4, 2)) + 4
    assert (form.empty_index() == MISSING).all()
    assert (form.decode_index(form.encode_index(form.empty_index())) == MISSING).all()
