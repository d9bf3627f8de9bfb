"""The ``.npy`` layout: bytes as numpy writes them, from any memory layout, in slabs when chunked."""

from __future__ import annotations

import io
import itertools
import pickle
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fstx.errors import UsageError
from fstx.layouts import npy
from fstx.plan import ArraySpec
from support.zarrdict import begin, clean_memory, published, write


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    with clean_memory():
        yield


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


BASE = np.arange(6 * 10, dtype="f4").reshape(6, 10)
READ_ONLY = BASE.copy()
READ_ONLY.flags.writeable = False
ARRAYS = {
    "C order": BASE,
    "Fortran order": np.asfortranarray(BASE),
    "transposed": BASE.T,
    "scattered": BASE[::2, ::3],
    "reversed": BASE[::-1, ::-1],
    "broadcast": np.broadcast_to(np.float32(3), (4, 5)),
    "big-endian": BASE.astype(">f4"),
    "big-endian scattered": BASE.astype(">i8")[:, ::2],
    "read-only": READ_ONLY,
    "0-d": np.array(3.5),
    "empty": np.zeros((0, 4), "i2"),
    "empty inside": np.zeros((3, 0, 2), "c16"),
    "bool": BASE > 7,
    "datetime": np.array(["2020-01-01", "NaT"], "M8[s]"),
    "text": np.array(["a", "bcd"]),
    "structured": np.array([(1, 2.5)], [("a", "u1"), ("b", ">f8")]),
    "structured aligned": np.zeros(3, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    "3-d Fortran": np.asfortranarray(np.arange(24, dtype="u2").reshape(2, 3, 4)),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_whole_array_equals_numpys_own_file(array: np.ndarray) -> None:
    """H7: any memory order, byte order and emptiness gives the file that numpy would write."""
    plan = npy.plan("a.npy", ArraySpec(array.shape, array.dtype))
    write(plan, array)
    assert list(published()) == ["a.npy"]
    assert published()["a.npy"] == saved(array)


@pytest.mark.parametrize("name", [n for n in ARRAYS if ARRAYS[n].ndim])
def test_chunked_array_equals_numpys_own_file(name: str) -> None:
    """H7, C1: slabs that arrive in reverse are put together to the file numpy would write."""
    array = ARRAYS[name]
    grid = ((1,) * array.shape[0], *((n,) for n in array.shape[1:]))
    spec = ArraySpec(array.shape, array.dtype, grid)
    for slab_bytes in (0, npy.SLAB_BYTES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(npy, "SLAB_BYTES", slab_bytes)
            write(npy.plan("a.npy", spec), array, reverse=True)
        assert published()["a.npy"] == saved(np.ascontiguousarray(array))


def test_grid_is_full_rows_and_joins_thin_slabs() -> None:
    """A29: a chunked array is asked for in slabs of whole rows, thin ones joined up to the bound."""
    grid = ((10,) * 100, (500, 500))
    plan = npy.plan("a.npy", ArraySpec((1000, 1000), np.dtype("f8"), grid))
    assert plan.grid[1] == (1000,)
    assert sum(plan.grid[0]) == 1000
    assert max(plan.grid[0]) * 8000 <= npy.SLAB_BYTES
    assert len(plan.grid[0]) < 5
    big = npy.plan("a.npy", ArraySpec((4, 1 << 20), np.dtype("f8"), ((1,) * 4, (1 << 20,))))
    assert big.grid == ((1, 1, 1, 1), (1 << 20,))


def test_chunked_scalar() -> None:
    """H7: an array without axes has one block, chunked or not."""
    write(npy.plan("a.npy", ArraySpec((), np.dtype("f8"), ())), np.array(2.5))
    assert published()["a.npy"] == saved(np.array(2.5))


def test_numpy_input_is_not_copied() -> None:
    """A29: staging a contiguous array hands its memory over; a scattered one goes in pieces."""
    sizes: list[int] = []

    class File:
        receipt = None

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return None

        def write(self, data):
            sizes.append(memoryview(data).nbytes)
            return sizes[-1]

    class Stager:
        def stage(self, path, data):
            sizes.extend(memoryview(d).nbytes for d in data)

        def open(self, path):
            return File()

    array = np.zeros((4096, 2048))  # 64 MiB
    plan = npy.plan("a.npy", ArraySpec(array.shape, array.dtype))
    tracemalloc.start()
    plan.write(Stager(), (0, 0), array)
    contiguous = tracemalloc.get_traced_memory()[1]
    half = array[:, ::2]
    tracemalloc.reset_peak()
    npy.plan("a.npy", ArraySpec(half.shape, half.dtype)).write(Stager(), (0, 0), half)
    scattered = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert contiguous < 1 << 20
    assert scattered < 12 << 20
    assert sum(sizes) == array.nbytes + half.nbytes + 2 * 128


def test_repeated_slab_counts_once_and_a_lost_one_is_named() -> None:
    """E15: of a task that ran twice the later receipt counts; E16: a missing slab is not forgotten."""
    array = np.arange(6.0).reshape(3, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npy, "SLAB_BYTES", 0)
        plan = npy.plan("a.npy", ArraySpec((3, 2), array.dtype, ((1, 1, 1), (2,))))
    with begin("a.npy") as tx:
        stager = tx.stager()
        receipts = [r for i in (0, 1, 1, 2) for r in plan.write(stager, (i, 0), array[i : i + 1])]
        with pytest.raises(UsageError, match="slab 1 of 3"):
            plan.finish(tx, [receipts[0], receipts[3]])
        plan.finish(tx, receipts)
    assert published()["a.npy"] == saved(array)


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype(object),
        np.dtype([("a", object)]),
        np.dtype([("\u4e2d", "f4")]),
        np.dtype({"names": ["a", "b"], "formats": ["f8", "f8"], "offsets": [0, 4]}),
    ],
    ids=str,
)
def test_dtypes_that_the_format_cannot_hold_are_refused(dtype: np.dtype) -> None:
    """H3: refused by name when planning, before a byte is written."""
    with pytest.raises(UsageError, match="dtype"):
        npy.plan("a.npy", ArraySpec((2,), dtype))


def test_dtypes_that_lose_their_meaning_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """H3: an extension type whose description reads back as another type is refused."""
    monkeypatch.setattr(np.lib.format, "dtype_to_descr", lambda dtype: "|V4")
    with pytest.raises(UsageError, match="come back"):
        npy.plan("a.npy", ArraySpec((2,), np.dtype("f4")))


def test_bad_calls_are_refused() -> None:
    """Options, unknown chunk lengths, wrong blocks: named, before anything is staged."""
    spec = ArraySpec((4,), np.dtype("f4"))
    with pytest.raises(UsageError, match="'chunks'"):
        npy.plan("a.npy", spec, chunks=(2,))
    with pytest.raises(UsageError, match="compute"):
        npy.plan("a.npy", ArraySpec((4,), np.dtype("f4"), ((float("nan"),),)))  # type: ignore
    with begin("a.npy") as tx:
        with pytest.raises(UsageError, match="shape"):
            npy.plan("a.npy", spec).write(tx.stager(), (0,), np.zeros(3, "f4"))
        with pytest.raises(UsageError, match="float64"):
            npy.plan("a.npy", spec).write(tx.stager(), (0,), np.zeros(4))


def test_plan_is_plain_data() -> None:
    """The plan pickles, compares by value, and says what is published under which name."""
    plan = npy.plan("a.npy", ArraySpec((4,), np.dtype(">f4"), ((2, 2),)))
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert (plan.names, plan.entry, plan.overwrite_mode) == (("a.npy",), "a.npy", "update")
    assert plan.replacing(["a.npy"]) == (plan, ())


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple),
    dtype=st.sampled_from(["?", "i1", ">u2", "<f4", ">c8"]),
    data=st.data(),
)
def test_any_chunking_gives_the_same_bytes(shape: tuple, dtype: str, data: st.DataObject) -> None:
    """E9: the file does not depend on how the array was cut."""
    rng = np.random.default_rng(1)
    array = rng.integers(0, 2, shape).astype(dtype)
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[0]), max_size=3)))
    edges = [0, *cuts, shape[0]]
    lengths = tuple(b - a for a, b in itertools.pairwise(edges))
    plan = npy.plan("a.npy", ArraySpec(shape, array.dtype, (lengths, *((n,) for n in shape[1:]))))
    write(plan, array)
    assert published()["a.npy"] == saved(array)
