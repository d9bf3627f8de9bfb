"""The Zarr v3 layout: what zarr-python and tensorstore read back, the block grid, and refusals."""

from __future__ import annotations

import importlib.util
import itertools
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from fstx.errors import UsageError
from fstx.layouts import zarr3
from fstx.layouts.chunks import DTYPES
from fstx.plan import ArraySpec, block_slices
from support.zarrdict import begin, blocks, clean_memory, export, published, write

TENSORSTORE = (
    importlib.util.find_spec("tensorstore") is not None
)  # a second reader, where installed
PIPELINES = ["zarr.core.codec_pipeline.BatchedCodecPipeline"]
if tuple(int(part) for part in zarr.__version__.split(".")[:2]) >= (3, 4):
    PIPELINES.append("zarr.core.codec_pipeline.FusedCodecPipeline")


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    with clean_memory():
        yield


def spec_of(array: np.ndarray, grid: Any = None) -> ArraySpec:
    return ArraySpec(array.shape, array.dtype, grid)


def read_back(folder: Path, name: str = "d.zarr") -> list[np.ndarray]:
    """The array as every reader at hand finds it."""
    export(folder)
    found = []
    for pipeline in PIPELINES:
        with zarr.config.set({"codec_pipeline.path": pipeline}):
            found.append(zarr.open_array(folder / name, mode="r")[...])
    if TENSORSTORE:
        import tensorstore

        store = {"driver": "file", "path": str(folder / name)}
        opened = tensorstore.open({"driver": "zarr3", "kvstore": store}).result()
        found.append(opened.read().result())
    return found


def terrain(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    values = np.cumsum(rng.normal(size=shape), axis=-1) * 10
    if np.dtype(dtype).kind == "c":
        return (values + 1j * values[::-1]).astype(dtype)
    return (values > 0) if dtype == "bool" else values.astype(np.int64).astype(dtype)


CODECS: list[tuple[str | None, int | None]] = [
    ("zstd", None),
    ("zstd", 9),
    ("gzip", 2),
    ("blosc", None),
    (None, None),
]


@pytest.mark.parametrize("shards", [None, (8, 12)], ids=["chunks", "shards"])
@pytest.mark.parametrize(("compression", "level"), CODECS, ids=str)
def test_codecs_read_back(
    tmp_path: Path, shards: Any, compression: str | None, level: int | None
) -> None:
    """F21, F24: chunks and shards of every codec, with cut edges, read equal elsewhere."""
    array = terrain((19, 26), "f4")
    plan = zarr3.plan(
        "d.zarr", spec_of(array), chunks=(4, 6), shards=shards, compression=compression, level=level
    )
    write(plan, array)
    for found in read_back(tmp_path):
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_dtypes_read_back(tmp_path: Path, dtype: str) -> None:
    """H7: each data type, also from big-endian memory, comes back with its values and its type."""
    array = terrain((7, 9), dtype)
    for order, shards in [("<", None), (">", (6, 6))]:
        given_array = array.astype(array.dtype.newbyteorder(order))
        options = {"compression": "blosc" if shards is None else "zstd"}
        plan = zarr3.plan("d.zarr", spec_of(given_array), chunks=3, shards=shards, **options)
        write(plan, given_array)
        for found in read_back(tmp_path / order.replace("<", "l").replace(">", "b")):
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    ],
    ids=["Fortran", "negative strides", "strided", "read-only"],
)
def test_memory_layouts(tmp_path: Path, make: Any) -> None:
    """H7: how the array lies in memory makes no difference to a byte of the output."""
    array = terrain((10, 10), "i2")
    stored = []
    for values in (array, make(array)):
        for shards in (None, 8):
            write(zarr3.plan(f"{shards}.zarr", spec_of(values), chunks=4, shards=shards), values)
        stored.append(published())
    assert stored[0] == stored[1]


FILLS: list[tuple[str, Any]] = [
    ("f4", float("nan")),
    ("f8", float("-inf")),
    ("f4", -0.0),
    ("f4", 0.1),
    ("f2", 1.5),
    ("i8", -(2**63)),
    ("u8", 2**64 - 1),
    ("bool", True),
    ("c8", complex(float("nan"), 2)),
    ("f4", np.frombuffer(b"\x01\x00\xc0\x7f", "<f4")[0]),  # a NaN with a payload
]


@pytest.mark.parametrize(("dtype", "fill"), FILLS, ids=str)
@pytest.mark.parametrize("shards", [None, 4])
def test_fill_values_bit_for_bit(tmp_path: Path, dtype: str, fill: Any, shards: Any) -> None:
    """F19: chunks of nothing but the fill value are not stored, and read as its very bits."""
    array = np.full((8, 4), fill, dtype)
    array[0, 0] = 1 if dtype != "bool" else False
    plan = zarr3.plan("d.zarr", spec_of(array), chunks=2, shards=shards, fill_value=fill)
    write(plan, array)
    chunk = "d.zarr/c/0/0"
    assert sorted(published()) == [chunk, "d.zarr/zarr.json"]
    for found in read_back(tmp_path):
        assert found.tobytes() == array.tobytes()


def test_minus_zero_and_other_nans_are_stored(tmp_path: Path) -> None:
    """F19: a chunk that equals the fill value in value but not in its bits is kept."""
    array = np.full((4,), -0.0)
    write(zarr3.plan("z.zarr", spec_of(array), chunks=4, fill_value=0.0), array)
    payload = np.full(4, np.frombuffer(b"\x01\x00\xc0\x7f", "<f4")[0])
    write(zarr3.plan("n.zarr", spec_of(payload), chunks=4, fill_value=np.nan), payload)
    assert {"z.zarr/c/0", "n.zarr/c/0"} <= set(published())
    export(tmp_path)
    assert np.signbit(zarr.open_array(tmp_path / "z.zarr", mode="r")[...]).all()


def test_attributes_and_dimension_names(tmp_path: Path) -> None:
    """The document carries what the caller gave, and zarr-python finds it."""
    array = terrain((4, 6), "f8")
    attributes = {"units": "m", "list": [1, 2.5, None], "ünïcode": "Höhe"}
    plan = zarr3.plan("d.zarr", spec_of(array), attributes=attributes, dimension_names=("y", None))
    write(plan, array)
    read_back(tmp_path)
    found = zarr.open_array(tmp_path / "d.zarr", mode="r")
    assert dict(found.attrs) == attributes
    assert tuple(found.metadata.dimension_names) == ("y", None)
    assert (
        zarr3.plan("d.zarr", spec_of(array), attributes=attributes, dimension_names=("y", None))
        == plan
    )


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)])
def test_odd_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """H7: no axes, no elements, one element."""
    array = np.ones(shape, "f4")
    write(zarr3.plan("d.zarr", spec_of(array)), array)
    if shape and all(shape):
        write(zarr3.plan("s.zarr", spec_of(array), chunks=2, shards=4), array)
    elif shape:
        write(zarr3.plan("s.zarr", spec_of(array), chunks=2, shards=4), array)
        assert [p for p in published() if "/c/" in p] == []
    for found in read_back(tmp_path):
        np.testing.assert_array_equal(found, array)


def test_metadata_is_staged_last_and_as_publisher() -> None:
    """G1, G6: nothing of the document exists before `finish`; it is the one publisher, staged last."""
    array = terrain((8, 8), "f4")
    plan = zarr3.plan("d.zarr", spec_of(array), chunks=4)
    with begin("d.zarr", mode=plan.overwrite_mode) as tx:
        sink = plan.sink(tx.stager())
        receipts = [r for i, b in blocks(plan, array) for r in sink.write(i, b)]
        receipts += sink.close()
        assert not any(r.publisher for r in receipts)
        assert published() == {}
        assert list(tx.paths()) == []
        plan.finish(tx, receipts)
        last = tx._changes.staged["d.zarr/zarr.json"]
        assert last.publisher
        assert published() == {}
    assert len(published()) == 5


def test_writing_twice_gives_identical_bytes() -> None:
    """B15, E9: no time, no chance; pieces composed in other processes don't depend on their order."""
    array = terrain((16, 16), "f4")
    for shards in (None, 16):
        plan = zarr3.plan("d.zarr", spec_of(array, ((8, 8), (4, 4, 4, 4))), chunks=4, shards=shards)
        write(plan, array, stateless=True)
        first = published()
        write(plan, array, stateless=True, reverse=True)
        assert published() == first


@pytest.mark.parametrize("stateless", [False, True], ids=["sink", "stateless"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "grid",
    [((8, 8, 3), (6, 6, 6, 2)), ((4,) * 4 + (3,), (20,)), ((19,), (6, 12, 2)), ((8, 11), (12, 8))],
    ids=str,
)
def test_blocks_of_any_aligned_grid(
    tmp_path: Path, stateless: bool, reverse: bool, grid: Any
) -> None:
    """F16, F18, F22: blocks smaller and larger than shards, by threads' sink or by processes."""
    array = terrain((19, 20), "i4")
    array[8:12, 6:12] = 0  # an inner chunk of nothing but fill value
    plan = zarr3.plan("d.zarr", spec_of(array, grid), chunks=(4, 6), shards=(8, 12))
    assert plan.grid == grid
    write(plan, array, stateless=stateless, reverse=reverse)
    assert sum("/c/" in path for path in published()) == 6
    for found in read_back(tmp_path):
        np.testing.assert_array_equal(found, array)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_grid_never_splits_a_chunk(data: st.DataObject) -> None:
    """F22: whatever the array's own chunks, no chunk belongs to two blocks, and all is covered."""
    ndim = data.draw(st.integers(1, 2))
    chunks = tuple(data.draw(st.integers(1, 5)) for _ in range(ndim))
    shards = data.draw(st.sampled_from([None, tuple(c * 2 for c in chunks)]))
    grid = tuple(
        tuple(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))) for _ in range(ndim)
    )
    shape = tuple(sum(lengths) for lengths in grid)
    plan = zarr3.plan(
        "d.zarr", ArraySpec(shape, np.dtype("u2"), grid), chunks=chunks, shards=shards
    )
    assert tuple(sum(lengths) for lengths in plan.grid) == shape
    for lengths, chunk in zip(plan.grid, chunks, strict=True):
        assert all(end % chunk == 0 for end in itertools.accumulate(lengths[:-1]))
    array = np.arange(1, 1 + int(np.prod(shape)), dtype="u2").reshape(shape)
    stateless = data.draw(st.booleans())
    with clean_memory():
        write(plan, array, stateless=stateless)
        names = [p for p in published() if "/c/" in p]
        outer = shards or chunks
        expected = int(np.prod([-(-n // o) for n, o in zip(shape, outer, strict=True)]))
        assert len(names) == expected
        store = zarr.storage.MemoryStore(
            {
                path.removeprefix("d.zarr/"): zarr.core.buffer.cpu.Buffer.from_bytes(content)
                for path, content in published().items()
            }
        )
        np.testing.assert_array_equal(zarr.open_array(store, mode="r")[...], array)


def test_grid_of_an_unchunked_array_is_its_shards() -> None:
    """F17: numpy input is cut into shards, which are views; without shards into chunks."""
    array = np.zeros((20, 10), "f4")
    assert zarr3.plan("d", spec_of(array), chunks=(4, 5), shards=(8, 10)).grid == ((8, 8, 4), (10,))
    assert zarr3.plan("d", spec_of(array), chunks=(8, 5)).grid == ((8, 8, 4), (5, 5))


def test_unaligned_chunks_are_rechunked_to_similar_blocks() -> None:
    """F22: the plan asks for blocks on chunk borders of about the source's own size."""
    spec = ArraySpec((100, 100), np.dtype("f4"), ((30, 30, 30, 10), (50, 50)))
    assert zarr3.plan("d", spec, chunks=(16, 25)).grid == ((32, 32, 32, 4), (50, 50))
    assert zarr3.plan("d", spec, chunks=(2, 25), shards=(16, 50)).grid == (
        (30, 30, 30, 10),
        (50, 50),
    )
    assert zarr3.plan("d", spec, chunks=(4, 25), shards=(16, 50)).grid == (
        (32, 32, 32, 4),
        (50, 50),
    )


def test_rechunked_blocks_are_whole_shards_where_they_reach() -> None:
    """F16: blocks as large as a shard end on shard borders, so that a block streams its shards."""
    spec = ArraySpec((100,), np.dtype("f4"), ((44, 44, 12),))
    assert zarr3.plan("d", spec, chunks=8, shards=32).grid == ((32, 32, 32, 4),)
    assert zarr3.plan("d", spec, chunks=8, shards=64).grid == ((48, 48, 4),)


def test_default_chunks() -> None:
    """Without `chunks`: the array's own where regular, else at most 1 MiB, within given shards."""
    regular = ArraySpec((10, 7), np.dtype("f4"), ((4, 4, 2), (7,)))
    assert zarr3.plan("d", regular).codec.shape == (4, 7)
    for grid in (((2, 4, 4), (7,)), ((4, 6), (7,)), None):
        spec = ArraySpec((10, 7), np.dtype("f4"), grid)
        assert zarr3.plan("d", spec).codec.shape == (10, 7)
    large = zarr3.plan("d", ArraySpec((5000, 3000), np.dtype("f8"))).codec.shape
    assert np.prod(large) * 8 <= zarr3.CHUNK_BYTES
    spec = ArraySpec((5000, 3000), np.dtype("f8"))
    inner = zarr3.plan("d", spec, shards=(2048, 1536)).codec.shape
    assert (2048 % inner[0], 1536 % inner[1]) == (0, 0)
    assert np.prod(inner) * 8 <= zarr3.CHUNK_BYTES


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"crs": 4326}, "'crs'"),
    ({"chunks": (4, 4, 4)}, "chunks"),
    ({"chunks": (0, 4)}, "chunks"),
    ({"chunks": 2.5}, "chunks"),
    ({"chunks": (True, 4)}, "chunks"),
    ({"chunks": (4, 4), "shards": (8, 6)}, "shards"),
    ({"shards": "auto"}, "shards"),
    ({"compression": "lzma"}, "lzma"),
    ({"compression": 3}, "compression"),
    ({"compression": ["zstd"]}, "compression"),
    ({"level": 23}, "level"),
    ({"compression": "gzip", "level": 10}, "level"),
    ({"level": True}, "level"),
    ({"compression": None, "level": 3}, "level"),
    ({"fill_value": "x"}, "fill_value"),
    ({"fill_value": 1e300}, "fill_value"),
    ({"fill_value": [0, 0]}, "fill_value"),
    ({"attributes": [1]}, "attributes"),
    ({"attributes": {"a": np.float32(1)}}, "attributes"),
    ({"attributes": {"a": float("nan")}}, "attributes"),
    ({"dimension_names": ("y",)}, "dimension_names"),
    ({"dimension_names": "yx"}, "dimension_names"),
    ({"dimension_names": (1, 2)}, "dimension_names"),
]


@pytest.mark.parametrize(("options", "named"), REFUSED, ids=lambda v: str(v)[:40])
def test_bad_options_are_refused(options: dict[str, Any], named: str) -> None:
    """Each bad option is named when planning, before any work."""
    with pytest.raises(UsageError, match=named):
        zarr3.plan("d.zarr", ArraySpec((8, 8), np.dtype("f4")), **options)


@pytest.mark.parametrize(
    ("dtype", "fill"), [("i2", 1.5), ("u1", -1), ("u1", 256), ("i4", True), ("?", 1), ("f4", 1j)]
)
def test_fill_values_of_another_type_are_refused(dtype: str, fill: Any) -> None:
    """A fill value that the data type can't hold is refused, not wrapped."""
    with pytest.raises(UsageError, match="fill_value"):
        zarr3.plan("d.zarr", ArraySpec((8,), np.dtype(dtype)), fill_value=fill)


@pytest.mark.parametrize("dtype", ["O", "U4", "S3", "M8[s]", "m8[s]", "f4,i2", "V3"])
def test_dtypes_are_refused_by_name(dtype: str) -> None:
    """H3: what Zarr v3 readers don't agree upon is refused when planning."""
    with pytest.raises(UsageError, match="dtype"):
        zarr3.plan("d.zarr", ArraySpec((8,), np.dtype(dtype)))


def test_other_bad_calls_are_refused() -> None:
    """Unknown chunk lengths, shards without axes, huge chunks, blocks of another shape or type."""
    nan = float("nan")
    with pytest.raises(UsageError, match="compute"):
        zarr3.plan("d", ArraySpec((8,), np.dtype("f4"), ((nan, nan),)))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="shards"):
        zarr3.plan("d", ArraySpec((), np.dtype("f4")), shards=())
    with pytest.raises(UsageError, match="2 GiB"):
        zarr3.plan("d", ArraySpec((2**16, 2**15), np.dtype("f4")), chunks=-1)
    plan = zarr3.plan("d", ArraySpec((8,), np.dtype("f4")), chunks=4)
    with begin("d") as tx:
        with pytest.raises(UsageError, match="shape"):
            plan.write(tx.stager(), (0,), np.zeros(3, "f4"))
        with pytest.raises(UsageError, match="float64"):
            plan.write(tx.stager(), (0,), np.zeros(4))


def test_plan_is_plain_data() -> None:
    """The plan pickles, compares by value, and its document is JSON of a known shape."""
    spec = ArraySpec((20, 10), np.dtype(">f4"), ((10, 10), (10,)))
    plan = zarr3.plan("d.zarr", spec, chunks=(5, 5), shards=(10, 10), fill_value=np.nan)
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert (plan.names, plan.entry, plan.overwrite_mode) == (("d.zarr",), None, "replace")
    assert plan.replacing(["d.zarr"]) == (plan, ())
    document = json.loads(plan.metadata)
    assert document["fill_value"] == "NaN"
    assert document["chunk_grid"]["configuration"]["chunk_shape"] == [10, 10]
    assert document["codecs"][0]["configuration"]["chunk_shape"] == [5, 5]
    assert [c["name"] for c in document["codecs"]] == ["sharding_indexed"]


def test_block_slices_agree_with_the_plan() -> None:
    """The regions of the grid's blocks tile the array once."""
    array = np.zeros((19, 20), "u1")
    plan = zarr3.plan("d", spec_of(array), chunks=4, shards=8)
    for index, _ in blocks(plan, array):
        array[block_slices(plan.grid, index)] += 1
    assert (array == 1).all()
