"""Regions of Zarr arrays that are there: what is taken, what is refused, and the values that zarr reads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from fstx.errors import UsageError
from fstx.layouts import zarr3
from fstx.layouts.zarr_existing import fill_from_json, read_document
from fstx.layouts.zarr_metadata import fill_bytes, fill_json
from fstx.plan import ArraySpec
from fstx.writing import write_into
from support.dictstager import DictTransaction

SHAPE, CHUNKS, SHARDS = (20, 24), (4, 4), (8, 12)


def _made(**options: Any) -> tuple[DictTransaction, np.ndarray[Any, Any]]:
    """A transaction that holds an array, and its values."""
    values = np.arange(480, dtype="i4").reshape(SHAPE) + 1
    tx = DictTransaction()
    spec = ArraySpec(values.shape, values.dtype)
    write_into(tx, values, zarr3.plan("a", spec, **{"chunks": CHUNKS, **options}))
    return tx, values


def _into(tx: DictTransaction, values: Any, **where: Any) -> None:
    spec = ArraySpec(values.shape, values.dtype)
    write_into(tx, values, zarr3.plan_into("a", tx.read("a/zarr.json"), spec, **where))


def _found(tx: DictTransaction) -> np.ndarray[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        tx.dump(Path(folder))
        return np.asarray(zarr.open_array(f"{folder}/a", mode="r")[...])


@given(data=st.data(), shards=st.sampled_from([None, SHARDS]), workers=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_regions_and_appends_are_what_numpy_says(
    data: st.DataObject, shards: tuple[int, ...] | None, workers: int
) -> None:
    """G2: any sequence of aligned regions and appends reads back as numpy's, fill values included."""
    tx, wanted = _made(shards=shards)
    unit = shards or CHUNKS
    for _ in range(data.draw(st.integers(1, 4))):
        number = data.draw(st.sampled_from([0, 7]))  # all fill value: what was there has to go
        if data.draw(st.booleans()) and wanted.shape[0] % unit[0] == 0:
            more = np.full((data.draw(st.integers(1, 12)), wanted.shape[1]), number, "i4")
            _into(tx, more, append_dim=0)
            wanted = np.concatenate([wanted, more])
            continue
        region = []
        for n, u in zip(wanted.shape, unit, strict=True):
            ends = [*range(0, n, u), n]
            start = data.draw(st.integers(0, len(ends) - 2))
            region.append(
                slice(ends[start], ends[data.draw(st.integers(start + 1, len(ends) - 1))])
            )
        part = np.full_like(wanted[tuple(region)], number)
        if number:
            part += np.arange(part.size, dtype="i4").reshape(part.shape)
        _into(tx, part, region=tuple(region))
        wanted[tuple(region)] = part
    np.testing.assert_array_equal(_found(tx), wanted)


def test_only_the_region_is_written() -> None:
    """G2: a region's chunks are staged and nothing else, the document neither; an append stages it last."""
    tx, values = _made()
    before = dict(tx.adopted)
    tx.order.clear()
    _into(tx, values[4:12, :8] + 1, region=(slice(4, 12), slice(0, 8)))
    changed = {path for path in tx.adopted if tx.adopted[path] != before.get(path)}
    assert changed == {"a/c/1/0", "a/c/1/1", "a/c/2/0", "a/c/2/1"}
    assert tx.order == []  # all of it by its stager
    _into(tx, values[:8], append_dim=0)
    assert tx.order == ["a/zarr.json"]
    assert tx.adopted["a/zarr.json"].publisher


@pytest.mark.parametrize(
    ("where", "shape", "says"),
    [
        (
            {"region": (slice(3, 12), slice(None))},
            (9, 24),
            r"cuts chunks of \(4, 4\).*\[0:12, 0:24\]",
        ),
        ({"region": (slice(4, 10), slice(0, 24))}, (6, 24), r"aligned region .* \[4:12, 0:24\]"),
        (
            {"region": (slice(0, 8), slice(None))},
            (7, 24),
            r"\(7, 24\).*\[0:8, 0:24\] has \(8, 24\)",
        ),
        ({"region": (slice(0, 28), slice(None))}, (28, 24), "append_dim= appends"),
        ({"region": (slice(8, 8), slice(None))}, (0, 24), "8:8 of axis 0 is empty"),
        ({"region": (slice(0, 8, 2), slice(None))}, (4, 24), "no slice of whole numbers, step 1"),
        ({"region": (slice(0, 8.0), slice(None))}, (8, 24), "no slice of whole numbers"),
        ({"region": (slice(0, 8),)}, (8, 24), "1 slices for the 2 axes"),
        ({"region": "auto"}, (8, 24), "a slice for each axis"),
        ({"region": {"z": slice(0, 8)}}, (8, 24), r"dimensions \('y', 'x'\), not \['z'\]"),
        ({"append_dim": "z"}, (8, 24), r"dimensions \('y', 'x'\)"),
        ({"append_dim": 2}, (8, 24), "from 0 to 1"),
        ({"append_dim": -1}, (8, 24), "from 0 to 1"),
        ({"append_dim": True}, (8, 24), "from 0 to 1"),
        ({"append_dim": 0}, (24,), "2 axes, the array 1"),
        ({"append_dim": 0}, (4, 23), r"\(4, 23\), the region \[20:24, 0:24\] has \(4, 24\)"),
        ({"append_dim": "y"}, (0, 24), "empty along axis 0"),
        ({"append_dim": 0, "dims": ("x", "y")}, (4, 24), "transpose it"),
    ],
)
def test_what_does_not_fit_is_refused(where: Any, shape: tuple[int, ...], says: str) -> None:
    """G2: a region that cuts chunks, or an array that isn't the region's, is refused with the way out."""
    tx, _ = _made(dimension_names=("y", "x"))
    spec = ArraySpec(shape, np.dtype("i4"))
    with pytest.raises(UsageError, match=says):
        zarr3.plan_into("a", tx.read("a/zarr.json"), spec, **where)


def test_other_data_types_and_cut_shards_are_refused() -> None:
    """G2: values are never converted; a region aligned to chunks but not to shards is refused."""
    tx, _ = _made(shards=SHARDS)
    document = tx.read("a/zarr.json")
    with pytest.raises(UsageError, match="data type int32, the array float32"):
        zarr3.plan_into("a", document, ArraySpec((8, 24), np.dtype("f4")), append_dim=0)
    with pytest.raises(UsageError, match=r"cuts shards of \(8, 12\).*\[0:8, 0:24\]"):
        where = (slice(4, 8), slice(0, 24))
        zarr3.plan_into("a", document, ArraySpec((4, 24), np.dtype("i4")), region=where)
    with pytest.raises(UsageError, match="length 20 along axis 0, which ends inside of shards"):
        zarr3.plan_into("a", document, ArraySpec((4, 24), np.dtype("i4")), append_dim=0)


def test_regions_by_name_of_the_dimension() -> None:
    """A dict names some dimensions; the others are whole."""
    tx, wanted = _made(dimension_names=("y", "x"))
    part = wanted[:, 4:8] * 2
    _into(tx, part, region={"x": slice(4, 8)}, dims=("y", "x"))
    wanted[:, 4:8] = part
    np.testing.assert_array_equal(_found(tx), wanted)


def _zarr(**options: Any) -> dict[str, Any]:
    store: dict[str, Any] = {}
    zarr.create_array(zarr.storage.MemoryStore(store), shape=(8,), chunks=(4,), **options)
    found: dict[str, Any] = json.loads(store["zarr.json"].to_bytes())
    return found


CODECS = [
    {"compressors": None},
    {},
    {"compressors": [zarr.codecs.GzipCodec(level=1)]},
    {"compressors": [zarr.codecs.BloscCodec(cname="zstd", clevel=3)]},
    {"shards": (8,)},
]


@pytest.mark.parametrize("options", CODECS)
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_what_zarr_made_is_taken(options: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    """Arrays made by zarr with its usual codecs are written into, and zarr reads them back."""
    zarr.create_array(tmp_path / "a", shape=(8,), chunks=(4,), dtype=dtype, fill_value=3, **options)
    tx = DictTransaction()
    tx.stage("a/zarr.json", (tmp_path / "a/zarr.json").read_bytes())
    values = np.arange(8, dtype=dtype)
    _into(tx, values, region=slice(None))
    _into(tx, values, append_dim=0)
    np.testing.assert_array_equal(_found(tx), np.concatenate([values, values]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"zarr_format": 2}, "not of Zarr v3"),
        ({"node_type": "group"}, "is a Zarr group"),
        ({"data_type": "string"}, "data type 'string'"),
        ({"data_type": {"name": "numpy.datetime64"}}, "data type"),
        ({"chunk_grid": {"name": "rectangular"}}, "chunk grid 'rectangular'"),
        ({"chunk_key_encoding": {"name": "v2"}}, "chunk keys"),
        ({"codecs": [{"name": "transpose"}]}, "codec"),
        ({"codecs": [{"name": "bytes", "configuration": {"endian": "big"}}]}, "big"),
        ({"codecs": []}, "can't be understood"),
        ({"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, 7]}, "understood"),
        ({"new": {"name": "x"}}, "'new'"),
        ({"storage_transformers": [{"name": "x"}]}, "storage_transformers"),
        ({"shape": [-1]}, "can't be understood"),
        ({"shape": [8, 8]}, "different numbers of axes"),
        ({"shape": None}, "can't be understood"),
        ({"fill_value": "one"}, "can't be understood"),
        ({"fill_value": 2**70}, "can't be understood"),
        ({"dimension_names": ["a", "b"]}, "different numbers of axes"),
    ],
)
def test_documents_that_are_not_written_are_refused(change: dict[str, Any], says: str) -> None:
    """What can't be written bit for bit is refused by name, and damaged documents as such."""
    document = {**_zarr(dtype="i4"), **change}
    with pytest.raises(UsageError, match=says):
        read_document("a", json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"zarr_format": 3}'])
def test_damaged_documents_are_refused(data: bytes) -> None:
    """A document that is no document is refused with its name, whatever is in it."""
    with pytest.raises(UsageError, match=r"a/zarr\.json"):
        read_document("a", data)


def test_extensions_that_need_not_be_understood_stay() -> None:
    """What the document says besides is kept when the array grows."""
    document = {**_zarr(dtype="i4"), "note": {"must_understand": False, "by": "x"}}
    grown = json.loads(read_document("a", json.dumps(document).encode()).grown((12,)))
    assert grown == {**document, "shape": [12]}


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("bool", True),
        ("int8", -3),
        ("uint64", 2**64 - 1),
        ("float16", 1.5),
        ("float32", np.nan),
        ("float64", -np.inf),
        ("float32", np.array([0x7FC00001], "u4").view("f4")[0]),
        ("complex64", 1 - 2j),
        ("complex128", complex(np.nan, np.inf)),
    ],
)
def test_fill_values_are_read_bit_for_bit(dtype: str, value: Any) -> None:
    """The fill value that ``zarr.json`` spells is the one that was written, NaNs with their bits."""
    kind = np.dtype(dtype)
    fill = fill_bytes(value, kind)
    spelled = json.loads(json.dumps(fill_json(fill, kind)))
    assert fill_from_json(spelled, kind) == fill
