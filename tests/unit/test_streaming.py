"""The write_chunk seam: lazily opened, nothing kept, failures reported whole."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fstx.errors import StorageError, UsageError
from fstx.plan import ArraySpec
from fstx.sources import open_source
from fstx.streaming import ChunkWriter, Stream, process_chunks
from fstx.writing import write_into
from support import fakes
from support.sourcetx import BlockPlan, DictTx, FailAt, Gauge

VALUES = np.arange(64, dtype="f4").reshape(8, 8)
SPEC = ArraySpec(VALUES.shape, VALUES.dtype)
GRID = ((4, 4), (4, 4))
INDICES = list(itertools.product(range(2), range(2)))


def _plan(hook: Any = None, **options: Any) -> BlockPlan:
    return BlockPlan(SPEC, GRID, hook, **options)


def _chunk(index: tuple[int, int]) -> Any:
    i, j = index
    return VALUES[4 * i : 4 * i + 4, 4 * j : 4 * j + 4]


class Opener:
    """Opens one dictionary transaction and counts how often it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.tx, self.calls, self.error = DictTx(), 0, error

    def __call__(self) -> Any:
        self.calls += 1
        time.sleep(0.001)
        if self.error is not None:
            raise self.error
        return self.tx


def _writer(opener: Callable[[], Any], hook: Any = None, **options: Any) -> ChunkWriter:
    return ChunkWriter(opener, Stream(SPEC, _plan(hook)), grid_shape=(2, 2), **options)


def test_f1_chunks_in_any_order_from_many_threads() -> None:
    """F1, F9: any order, any thread; the transaction is opened once; committed at the end."""
    opener = Opener()
    with _writer(opener) as writer, ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda i: writer.write_chunk(i, _chunk(i)), INDICES[::-1]))
        assert writer.report.status == "open"
    assert done == [True] * 4
    assert opener.calls == 1
    assert opener.tx.state == "committed"
    assert np.array_equal(_plan().read(opener.tx.content()), VALUES)
    assert (writer.report.status, writer.report.written, writer.report.expected) == (
        "written",
        4,
        4,
    )
    assert writer.report.snapshot is not None
    assert writer.report.size_bytes == VALUES.nbytes


@pytest.mark.parametrize("workers", [1, 3])
def test_f2_no_chunk_outlives_its_turn(workers: int) -> None:
    """F2: live chunks never exceed the producing threads, counted with weak references."""
    alive: set[int] = set()
    peak: list[int] = []
    numbers, lock = itertools.count(), threading.Lock()
    grid = ((4,) * 40,)
    spec = ArraySpec((160,), np.dtype("f8"))
    stream = Stream(spec, BlockPlan(spec, grid, lambda *_: time.sleep(0.0005)))

    def produce(_index: Any) -> Any:
        chunk = np.zeros(4)
        with lock:
            number = next(numbers)
            alive.add(number)
            weakref.finalize(chunk, alive.discard, number)
            peak.append(len(alive))
        return chunk

    with ChunkWriter(Opener(), stream, grid_shape=(40,)) as writer:
        parts = [[(i,) for i in range(start, 40, workers)] for start in range(workers)]
        with ThreadPoolExecutor(workers) as pool:
            returned = list(
                pool.map(
                    lambda part: process_chunks(
                        produce, part, write_chunk=writer.write_chunk, chunks_per_shard=len(part)
                    ),
                    parts,
                )
            )
    assert len(peak) == 40
    assert max(peak) <= workers
    assert not alive
    assert returned == [{}] * workers


def test_f3_f4_bytes_equal_the_other_ways() -> None:
    """F3, F4: streamed, accumulated then written, and written as one array: the same objects."""
    whole = DictTx()
    write_into(whole, open_source(VALUES), _plan())
    streamed, gathered, single = Opener(), Opener(), Opener()
    with _writer(streamed) as writer:
        process_chunks(_chunk, INDICES, write_chunk=writer.write_chunk, chunks_per_shard=4)
    kept: dict[Any, Any] = {}
    assert process_chunks(_chunk, INDICES, accumulate=kept, chunks_per_shard=4) == {}
    with _writer(gathered) as writer:
        for index, chunk in kept.items():
            writer.write_chunk(index, chunk)
    with _writer(single) as writer:
        for index in INDICES:
            ((key, chunk),) = process_chunks(_chunk, [index]).items()
            writer.write_chunk(key, chunk)
    expected = whole.content()
    for opener in (streamed, gathered, single):
        assert opener.tx.content() == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"write_chunk": print, "accumulate": {}, "chunks_per_shard": 4}, "two sinks"),
        ({"write_chunk": print, "ragged_out": {}, "chunks_per_shard": 4}, "ragged_out"),
        ({"chunks_per_shard": 4}, "needs a sink"),
        ({"accumulate": {}, "chunks_per_shard": 3}, "4 different chunks"),
        ({"accumulate": {}, "chunks_per_shard": 0}, "at least 1"),
    ],
)
def test_f5_f6_f7_f14_rules_before_any_chunk(options: Any, words: str) -> None:
    """F5, F6, F7, F14: contradicting sinks and counts are ValueErrors; nothing is produced."""
    made: list[Any] = []
    with pytest.raises(ValueError, match=words):
        process_chunks(made.append, INDICES, **options)
    assert made == []


def test_f8_ragged_extras_are_kept_only_when_asked() -> None:
    """F8, F20: streamed extras go with the chunk; kept ones go to ragged_out."""
    sent: list[Any] = []
    kept: dict[Any, Any] = {}
    ragged: dict[Any, Any] = {}

    def produce(index: Any) -> Any:
        return index[0], {"ids": [1] * index[1]}

    pair = [(0, 0), (0, 1)]
    streamed = process_chunks(
        produce, pair, write_chunk=lambda *a: sent.append(a), chunks_per_shard=2
    )
    assert streamed == {}
    assert sent == [((0, 0), 0, {"ids": []}), ((0, 1), 0, {"ids": [1]})]
    process_chunks(produce, pair, accumulate=kept, ragged_out=ragged, chunks_per_shard=2)
    assert kept == {(0, 0): 0, (0, 1): 0}
    assert ragged == {(0, 0): {"ids": []}, (0, 1): {"ids": [1]}}


def test_f9_no_data_never_touches_storage() -> None:
    """F9, F13: without a chunk nothing is opened; the report says so and has no seconds."""
    opener = Opener()
    with _writer(opener) as writer:
        pass
    assert opener.calls == 0
    report = writer.report
    assert (report.status, report.write_s, report.message) == ("empty", None, "")


@pytest.mark.parametrize("where", ["open", "template"])
def test_f10_f12_missing_template_is_reported(where: str) -> None:
    """F10, F12: opening or the template fails: tried once, later chunks skip, text survives."""
    opener = Opener(FileNotFoundError("no template here") if where == "open" else None)
    asked: list[Any] = []

    def template(tx: Any) -> Any:
        asked.append(tx)
        raise FileNotFoundError("no template here")

    plan: Any = _plan() if where == "open" else template
    writer = ChunkWriter(opener, Stream(SPEC, plan), grid_shape=(2, 2))
    results = [writer.write_chunk(i, _chunk(i)) for i in INDICES]
    report = writer.close()
    assert results == [False] * 4
    assert (opener.calls, len(asked)) == (1, int(where == "template"))
    assert (report.status, report.written, report.skipped) == ("failed", 0, 3)
    assert report.message == ("FileNotFoundError: no template here (while writing block (0, 0))")
    assert report.write_s is None
    assert opener.tx.state == ("active" if where == "open" else "rolled back")


def test_f11_second_chunk_fails() -> None:
    """F10, F11, F13: chunk 1 is discarded with the transaction, chunk 3 is never written."""
    opener, gauge = Opener(), Gauge()
    fail = FailAt(((0, 1),))

    def hook(index: Any, block: Any) -> None:
        with gauge:
            fail(index, block)

    with pytest.raises(OSError, match="no space"), _writer(opener, hook) as writer:
        results = [writer.write_chunk(i, _chunk(i)) for i in INDICES]
    assert results == [True, False, False, False]
    assert gauge.calls == 2
    assert opener.tx.state == "rolled back"
    report = writer.report
    assert (report.status, report.written, report.skipped) == ("failed", 1, 2)
    assert report.write_s is None
    assert "while writing block (0, 1)" in report.message


def test_f13_seconds_are_of_writing_alone() -> None:
    """F13: write_s sums the chunk writes of all threads and leaves computing out."""
    with _writer(Opener(), lambda *_: time.sleep(0.02)) as writer:
        for index in INDICES:
            time.sleep(0.03)
            writer.write_chunk(index, _chunk(index))
    assert writer.report.write_s is not None
    assert 0.08 <= writer.report.write_s < 0.2


def test_f14_every_chunk_once() -> None:
    """F14: indices outside the grid or seen before are refused; missing ones fail the stream."""
    opener = Opener()
    writer = _writer(opener)
    for index in ((2, 0), (0,), (-1, 0)):
        with pytest.raises(UsageError, match="outside the grid"):
            writer.write_chunk(index, VALUES)
    assert opener.calls == 0
    writer.write_chunk((0, 0), _chunk((0, 0)))
    with pytest.raises(UsageError, match="written before"):
        writer.write_chunk((0, 0), _chunk((0, 0)))
    report = writer.close()
    assert report.status == "failed"
    assert "1 of 4 chunks" in report.message
    assert opener.tx.state == "rolled back"
    assert writer.close() is report
    with pytest.raises(UsageError, match="closed"):
        writer.write_chunk((0, 1), _chunk((0, 1)))


def test_f14_partial_streams_commit_what_came() -> None:
    """F14: partial=True leaves chunks out that never came."""
    opener = Opener()
    with _writer(opener, partial=True) as writer:
        writer.write_chunk((1, 1), _chunk((1, 1)))
    assert sorted(opener.tx.content()) == ["out/1.1", "out/index"]


def test_wrong_shape_is_a_failure_of_the_stream() -> None:
    """A chunk of another shape than its block is not written and fails the stream."""
    with pytest.raises(UsageError, match="announced"), _writer(Opener()) as writer:
        assert writer.write_chunk((0, 0), VALUES) is False


def test_f20_companions_share_the_transaction() -> None:
    """F20: companion arrays are written with each chunk; all names or none."""
    opener = Opener()
    counts = Stream(ArraySpec((4, 4), np.dtype("i2")), None)  # type: ignore[arg-type]
    plan = BlockPlan(counts.spec, ((2, 2), (2, 2)), name="count")
    writer = ChunkWriter(
        opener,
        Stream(SPEC, _plan()),
        grid_shape=(2, 2),
        companions={"count": Stream(counts.spec, lambda _tx: plan)},
    )
    with writer:
        with pytest.raises(UsageError, match="companions are"):
            writer.write_chunk((0, 0), _chunk((0, 0)))
        for n, index in enumerate(INDICES):
            block = fakes.FakeDevice(np.full((2, 2), n, "i2"))
            writer.write_chunk(index, _chunk(index), {"count": block})
    content = opener.tx.content()
    assert np.array_equal(_plan().read(content), VALUES)
    assert np.array_equal(plan.read(content), np.repeat(np.repeat([[0, 1], [2, 3]], 2, 0), 2, 1))


def test_exception_in_the_body_rolls_back_and_is_raised() -> None:
    """A15, A25: the body's own exception leaves the block; everything staged is discarded."""
    opener = Opener()
    with pytest.raises(KeyboardInterrupt), _writer(opener) as writer:
        writer.write_chunk((0, 0), _chunk((0, 0)))
        raise KeyboardInterrupt
    assert opener.tx.state == "rolled back"
    assert writer.report.status == "failed"


def test_a11_close_waits_for_running_chunks() -> None:
    """A11: leaving the block with an error waits until no chunk is being written any more."""
    opener, gauge, begun = Opener(), Gauge(), threading.Event()

    def hook(*_: Any) -> None:
        with gauge:
            begun.set()
            time.sleep(0.05)

    writer = _writer(opener, hook)
    thread = threading.Thread(target=writer.write_chunk, args=((0, 0), _chunk((0, 0))))
    with pytest.raises(RuntimeError, match="body"), writer:
        thread.start()
        assert begun.wait(30)
        raise RuntimeError("body")
    assert gauge.now == 0
    thread.join()
    assert opener.tx.adopted == {}


def test_a12_first_failure_by_time_and_the_others() -> None:
    """A12, A14: two chunks fail at once: the earlier is raised, the later is kept."""
    barrier = threading.Barrier(2)

    def hook(index: Any, _block: Any) -> None:
        barrier.wait(30)
        time.sleep(0.3 * index[1])
        raise StorageError(f"chunk {index[1]}")

    writer = _writer(Opener(), hook)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: writer.write_chunk(i, _chunk(i)), INDICES[:2]))
    error = writer.close().error
    assert isinstance(error, StorageError)
    assert str(error) == "chunk 0"
    assert [str(e) for e in error.others] == ["chunk 1"]
