"""Every writer on every kind of storage with every kind of array: acceptance H."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import array_api_strict
import dask.array as da
import numpy as np
import pytest
import rasterio
import zarr

import fstx
from support.fakes import ASKED, MOVES, FakeDevice
from support.places import PLACES, Target
from support.trees import Tree

VALUES = np.random.default_rng(2).random((40, 48)).astype("f4")
GRID = (16, 16)

WRITERS: dict[str, dict[str, Any]] = {
    "o.vrt": {"tile_size": 16, "crs": "EPSG:4326", "transform": (0, 1, 0, 40, 0, -1)},
    "o.npy": {},
    "o.zarr": {"chunks": GRID},
    "s.zarr": {"chunks": (8, 8), "shards": (16, 48)},
}


def second_device(values: np.ndarray) -> Any:
    return array_api_strict.asarray(values, device=array_api_strict.Device("device1"))


class DeviceChunk(FakeDevice):
    """As device arrays that dask works with: pieces are joined on the device when chunks change."""

    def __array_function__(self, function: Any, _types: Any, args: Any, kwargs: Any) -> Any:
        assert function is np.concatenate
        pieces, *rest = args
        return DeviceChunk(function([piece._values for piece in pieces], *rest, **kwargs))


KINDS: dict[str, Any] = {
    "numpy": lambda values: values,
    "dask": lambda values: da.from_array(values, chunks=GRID),
    "device": FakeDevice,
    "second device of the standard": second_device,
    "dask of device": lambda values: da.from_array(values, chunks=GRID).map_blocks(
        DeviceChunk, dtype=values.dtype, meta=np.empty((0, 0), values.dtype)
    ),
}


def read(folder: Path, name: str) -> np.ndarray:
    if name.endswith(".vrt"):
        with rasterio.open(folder / name) as opened:
            return opened.read(1)
    if name.endswith(".npy"):
        return np.load(folder / name)
    return zarr.open_array(folder / name, mode="r")[:]


@pytest.fixture(params=PLACES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    (tmp_path / "place").mkdir()
    return Target(request.param, tmp_path / "place")


def _ordered(files: Tree) -> dict[str, Any]:
    """Shards as the set of their encoded inner chunks, by the index at their end; others as they are."""
    found: dict[str, Any] = {}
    for path, data in files.items():
        if "/c/" not in path:
            found[path] = data
            continue
        index = np.frombuffer(data[-(12 * 16 + 4) : -4], "<u8").reshape(12, 2)
        there = [(int(at), int(size)) for at, size in index if int(size) != 2**64 - 1]
        found[path] = [data[at : at + size] for at, size in there]
        assert sum(size for _, size in there) + 12 * 16 + 4 == len(data)
    return found


def put(target: Target, name: str, array: Any, **how: Any) -> Any:
    return fstx.write(
        array, target.url(name), storage_options=target.options, **{**WRITERS[name], **how}
    )


def reference(name: str, folder: Path) -> Tree:
    """The files that a local write of the numpy array gives."""
    folder.mkdir()
    plain = Target("local", folder)
    put(plain, name, VALUES)
    return plain.found()


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", list(WRITERS))
def test_each_writer_on_each_storage_with_each_array(
    name: str, kind: str, target: Target, tmp_path: Path
) -> None:
    """H2, H6, A27: written, read back equal, the same bytes everywhere; replaced; nothing beside."""
    ASKED.clear()
    snapshot = put(target, name, KINDS[kind](VALUES))
    first = target.found()
    wanted = reference(name, tmp_path / "plain")
    if name == "s.zarr" and kind.startswith("dask"):  # chunks lie in a shard as they arrived (F18)
        wanted, seen = _ordered(wanted), _ordered(first)
        assert seen == wanted
    else:
        assert first == wanted
    assert snapshot.paths == len(first)
    assert snapshot.size_bytes == sum(map(len, first.values()))
    assert np.array_equal(read(target.fetch(tmp_path / "copy"), name), VALUES)
    with pytest.raises(fstx.TargetExistsError):
        put(target, name, KINDS[kind](VALUES))
    assert target.found() == first
    put(target, name, KINDS[kind](VALUES + 1), overwrite=True, keep_previous=False)
    again = target.found()
    assert not any(".fstx" in path for path in again)
    assert np.array_equal(read(target.fetch(tmp_path / "second"), name), VALUES + 1)
    assert ASKED == []


@pytest.mark.parametrize("name", list(WRITERS))
def test_failure_on_each_storage(name: str, target: Target, tmp_path: Path) -> None:
    """H2, A4, A26: a chunk that fails leaves nothing of a first write and all of what was there."""

    def bad(block: np.ndarray, block_id: Any = None) -> np.ndarray:
        if block_id == (1, 1):
            raise ZeroDivisionError("chunk")
        return block

    meta = np.empty((0, 0), "f4")
    failing = da.from_array(VALUES, chunks=GRID).map_blocks(bad, dtype="f4", meta=meta)
    with pytest.raises(ZeroDivisionError, match="chunk"):
        put(target, name, failing)
    assert target.found() == {}
    put(target, name, VALUES)
    before = target.found()
    with pytest.raises(ZeroDivisionError, match="chunk"):
        put(target, name, failing, overwrite=True)
    assert target.found() == before


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_device_array_comes_block_by_block(name: str, tmp_path: Path) -> None:
    """A29, H4: a device array is copied once in all, a block at a time, never whole (.npy: in slabs)."""
    (tmp_path / "place").mkdir()
    MOVES.clear()
    big = np.zeros((128, 4096), "f4")
    put(Target("local", tmp_path / "place"), name, FakeDevice(big))
    sizes = [int(np.prod(shape)) for shape, _ in MOVES]
    assert sum(sizes) == big.size
    if name != "o.npy":
        assert max(sizes) < big.size // 2


@pytest.mark.parametrize("name", list(WRITERS))
def test_memory_layouts_of_chunks(name: str, tmp_path: Path) -> None:
    """H7: strided, Fortran, byte-swapped, read-only input is written with the bytes of plain input."""
    frozen = VALUES.copy()
    frozen.flags.writeable = False
    kinds = {
        "fortran": np.asfortranarray(VALUES),
        "strided": np.repeat(np.repeat(VALUES, 2, 0), 3, 1)[::2, ::3],
        "reversed": np.ascontiguousarray(VALUES[::-1, ::-1])[::-1, ::-1],
        "read-only": frozen,
    }
    if name != "o.npy":  # the format has a byte order of its own, and keeps the array's
        kinds["swapped"] = VALUES.astype(">f4")
    if name == "o.npy":
        del kinds["fortran"]  # kept as well: see test_npy
    wanted = reference(name, tmp_path / "plain")
    for kind, array in kinds.items():
        (tmp_path / kind).mkdir()
        place = Target("local", tmp_path / kind)
        put(place, name, array)
        assert place.found() == wanted, kind


def test_zero_size_is_written_or_refused(tmp_path: Path) -> None:
    """H7, B9: an array without elements: .npy and Zarr hold it; a raster of none is refused by name."""
    empty = np.empty((0, 7), "i2")
    fstx.write(empty, tmp_path / "e.npy")
    assert np.load(tmp_path / "e.npy").shape == (0, 7)
    fstx.write(empty, tmp_path / "e.zarr")
    assert zarr.open_array(tmp_path / "e.zarr", mode="r").shape == (0, 7)
    with pytest.raises(fstx.UsageError, match="0"):
        fstx.write(empty, tmp_path / "e.vrt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.npy", "e.zarr"]


@pytest.mark.parametrize("durability", ["data", "none"])
@pytest.mark.parametrize("name", list(WRITERS))
def test_what_is_synced(name: str, durability: str, tmp_path: Path) -> None:
    """H8: durable: each file's content before it is named, directories after; fast: no sync call, and
    the guarantee says so."""
    from support.killer import KillerOps

    ops = KillerOps()
    fstx.write(
        VALUES,
        tmp_path / name,
        durability=durability,
        storage_options={"ops": ops, "syncfs": False},
        **WRITERS[name],
    )
    calls = [call for call, _ in ops.calls]
    paths = {path for call, path in ops.calls if call == "sync_file"}
    staged = {path for call, path in ops.calls if call == "open_new" and "/a/" in path}
    kept = fstx.Capability.DURABLE in fstx.guarantee(tmp_path / name, durability=durability)
    assert kept == (durability == "data" and ops.fs_name(str(tmp_path)) != "tmpfs")
    if durability == "none":
        assert not [call for call in calls if call.startswith("sync")]
        return
    assert staged
    assert staged <= paths
    outside = [n for n, (c, p) in enumerate(ops.calls) if _publishes(c, p)]
    synced = [n for n, (c, p) in enumerate(ops.calls) if c == "sync_file" and p in staged]
    assert outside
    assert max(synced) < min(outside)
    after = [p for c, p in ops.calls[max(outside) :] if c == "sync_dir"]
    assert str(tmp_path) in after


def _publishes(call: str, path: str) -> bool:
    source, arrow, goal = path.partition(" -> ")
    return bool(arrow) and ".fstx" not in goal and "absent-" not in goal and "/s" in source


@pytest.mark.parametrize("name", ["o.vrt", "o.npy", "o.zarr", "s.zarr"])
def test_streams_on_each_storage(name: str, target: Target, tmp_path: Path) -> None:
    """H2, F24, A26: chunk by chunk on every storage, first and replacing; refused without overwrite."""
    lengths = (8, 48) if name == "o.npy" else (8, 8) if name == "s.zarr" else (16, 16)
    options = {k: v for k, v in WRITERS[name].items() if k not in ("chunks", "tile_size")}
    grid = [(i, j) for i in range(-(-40 // lengths[0])) for j in range(48 // lengths[1])]

    def stream(values: np.ndarray, **how: Any) -> str:
        with fstx.chunk_writer(
            target.url(name),
            shape=values.shape,
            dtype=values.dtype,
            chunks=lengths,
            storage_options=target.options,
            **{**options, **how},
        ) as writer:
            for i, j in reversed(grid):
                rows = slice(i * lengths[0], (i + 1) * lengths[0])
                columns = slice(j * lengths[1], (j + 1) * lengths[1])
                writer.write_chunk((i, j), FakeDevice(values[rows, columns]))
        return writer.report.status

    assert stream(VALUES) == "written"
    assert np.array_equal(read(target.fetch(tmp_path / "copy"), name), VALUES)
    before = target.found()
    with pytest.raises(fstx.TargetExistsError):
        stream(VALUES + 1)
    assert target.found() == before
    assert stream(VALUES + 1, overwrite=True) == "written"
    assert np.array_equal(read(target.fetch(tmp_path / "second"), name), VALUES + 1)
    assert not any(".fstx" in path for path in target.found())
