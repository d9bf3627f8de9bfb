"""Arrays at plain URLs of S3, GCS and Azure: written whole, read with nothing of ours."""

from __future__ import annotations

from typing import Any

import fsspec
import numpy as np
import pytest

import fstx
from fstx.errors import CapabilityError, TargetExistsError
from fstx.types import Capability
from support.emulators import Place

zarr = pytest.importorskip("zarr")

ARRAY = np.arange(90 * 70, dtype="float32").reshape(90, 70)
VRT = {"crs": "EPSG:4326", "transform": (0, 1, 0, 0, 0, -1), "chunks": (32, 32)}


def tree(place: Place) -> dict[str, bytes]:
    """All objects of the place but those of homes, by path below it."""
    fs, root = fsspec.url_to_fs(place.url, **place.options)
    fs.invalidate_cache()
    found = {path[len(root) + 1 :]: fs.cat_file(path) for path in fs.find(root)}
    return {path: data for path, data in found.items() if ".fstx" not in path.split("/")}


def read_zarr(place: Place, name: str) -> np.ndarray[Any, Any]:
    store = zarr.storage.FsspecStore.from_url(
        f"{place.url}/{name}", storage_options=dict(place.options), read_only=True
    )
    return np.asarray(zarr.open_array(store, mode="r")[...])


def test_zarr_is_read_by_zarr(remote_place: Place) -> None:
    """Protects A33 and G1: chunks and metadata lie on that storage, nothing else beside them."""
    url = f"{remote_place.url}/a.zarr"
    snapshot = fstx.write(ARRAY, url, chunks=(32, 32), storage_options=remote_place.options)
    assert not snapshot.pending
    np.testing.assert_array_equal(read_zarr(remote_place, "a.zarr"), ARRAY)
    assert {p.split("/")[0] for p in tree(remote_place)} == {"a.zarr"}
    assert (
        len(tree(remote_place)) == 10
    )  # 9 chunks and zarr.json; the block of zeros has others beside it


def test_shards_are_read_by_zarr(remote_place: Place) -> None:
    """Protects F16 and F23: one object for each shard."""
    url = f"{remote_place.url}/s.zarr"
    fstx.write(ARRAY, url, chunks=(16, 16), shards=(64, 64), storage_options=remote_place.options)
    found = tree(remote_place)
    assert len(found) == 5
    if (
        remote_place.kind == "azure"
    ):  # its file system can't read the end of an object, as zarr asks it to
        copy = {p.partition("/")[2]: zarr_bytes(data) for p, data in found.items()}
        array = np.asarray(zarr.open_array(zarr.storage.MemoryStore(copy), mode="r")[...])
    else:
        array = read_zarr(remote_place, "s.zarr")
    np.testing.assert_array_equal(array, ARRAY)


def zarr_bytes(data: bytes) -> Any:
    """As zarr's memory store holds it."""
    from zarr.core.buffer import default_buffer_prototype

    return default_buffer_prototype().buffer.from_bytes(data)


def test_an_existing_zarr_is_refused(remote_place: Place) -> None:
    """Protects A19: refused before a chunk is computed, and what is there stays."""
    url = f"{remote_place.url}/a.zarr"
    fstx.write(ARRAY, url, storage_options=remote_place.options)
    before = tree(remote_place)
    with pytest.raises(TargetExistsError):
        fstx.write(ARRAY + 1, url, storage_options=remote_place.options)
    with pytest.raises(CapabilityError, match=r"tx::.*another name.*RECOVERABLE"):
        fstx.write(ARRAY + 1, url, overwrite=True, storage_options=remote_place.options)
    assert tree(remote_place) == before


def test_a_zarr_is_replaced_in_place_on_request(remote_place: Place) -> None:
    """Protects design 3, in place: who asks for less gets it; stale chunks go."""
    url = f"{remote_place.url}/a.zarr"
    options = remote_place.options
    fstx.write(ARRAY, url, chunks=(16, 16), storage_options=options)
    fstx.write(
        ARRAY + 1,
        url,
        chunks=(64, 64),
        overwrite=True,
        require="RECOVERABLE",
        storage_options=options,
    )
    np.testing.assert_array_equal(read_zarr(remote_place, "a.zarr"), ARRAY + 1)
    assert len(tree(remote_place)) == 5


def test_overwrite_of_nothing_is_a_creation(remote_place: Place) -> None:
    """Protects `overwrite=True` of a job that runs the first time: nothing is in the way of the promise."""
    url = f"{remote_place.url}/a.zarr"
    fstx.write(ARRAY, url, overwrite=True, storage_options=remote_place.options)
    np.testing.assert_array_equal(read_zarr(remote_place, "a.zarr"), ARRAY)


def test_npy_is_composed_and_replaced(remote_place: Place) -> None:
    """Protects C1 on object stores: slabs become one object, replaced by one put."""
    da = pytest.importorskip("dask.array")
    url = f"{remote_place.url}/a.npy"
    options = remote_place.options
    fstx.write(da.from_array(ARRAY, chunks=(30, 70)), url, storage_options=options)
    assert list(tree(remote_place)) == ["a.npy"]
    fstx.write(ARRAY + 1, url, overwrite=True, storage_options=options)
    with fsspec.open(url, "rb", **options) as file:
        np.testing.assert_array_equal(np.load(file), ARRAY + 1)
    assert list(tree(remote_place)) == ["a.npy"]


def test_a_mosaic_and_its_replacement(remote_place: Place) -> None:
    """Protects A1 and A26: index and tiles only; the replacement has tiles of its own."""
    url = f"{remote_place.url}/dem.vrt"
    options = remote_place.options
    fstx.write(ARRAY, url, storage_options=options, **VRT)
    first = tree(remote_place)
    assert {p.partition("/")[0] for p in first} == {"dem.vrt", "dem_tiles"}
    assert len(first) == 10
    fstx.write(ARRAY + 1, url, overwrite=True, storage_options=options, **VRT)
    second = tree(remote_place)
    assert len(second) == 19  # those that the old index names stay until the next replacement
    assert b"dem_tiles/1/tile_00_00.tif" in second["dem.vrt"]
    fstx.write(ARRAY + 2, url, overwrite=True, keep_previous=False, storage_options=options, **VRT)
    assert len(tree(remote_place)) == 10


def test_dask_processes_stage_remotely(s3: Place) -> None:
    """Protects H2 and A6: workers in other processes put parts; what they sent back is adopted."""
    da = pytest.importorskip("dask.array")
    url = f"{s3.url}/a.zarr"
    array = da.from_array(ARRAY, chunks=(45, 35))
    fstx.write(array, url, storage_options=s3.options, scheduler="processes", max_workers=2)
    np.testing.assert_array_equal(read_zarr(s3, "a.zarr"), ARRAY)
    assert len(tree(s3)) == 5


def test_a_failing_block_leaves_nothing(remote_place: Place) -> None:
    """Protects A4 and A7: no index, no tile, nothing staged, and the same call works afterwards."""
    da = pytest.importorskip("dask.array")
    options = remote_place.options

    def broken(block: np.ndarray[Any, Any], block_info: Any = None) -> np.ndarray[Any, Any]:
        if block_info and block_info[0]["chunk-location"] == (1, 1):
            raise ValueError("no such block")
        return block

    array = da.from_array(ARRAY, chunks=(32, 32))
    for name, given in (
        ("dem.vrt", {k: v for k, v in VRT.items() if k != "chunks"}),
        ("a.zarr", {}),
    ):
        url = f"{remote_place.url}/{name}"
        with pytest.raises(ValueError, match="no such block"):
            fstx.write(
                array.map_blocks(broken, dtype=array.dtype), url, storage_options=options, **given
            )
        assert not tree(remote_place)
        assert not staged(remote_place)
        fstx.write(array, url, storage_options=options, **given)
        fs, root = fsspec.url_to_fs(remote_place.url, **options)
        fs.invalidate_cache()
        fs.rm(root, recursive=True)


def staged(place: Place) -> list[str]:
    """What lies staged in the home."""
    fs, root = fsspec.url_to_fs(place.url, **place.options)
    fs.invalidate_cache()
    return list(fs.find(f"{root}/.fstx/data"))


def test_what_is_promised(remote_place: Place) -> None:
    """Protects I1: the guarantee of each layout, with the reason for what is not promised."""
    options = remote_place.options
    new = fstx.guarantee(f"{remote_place.url}/a.zarr", **options)
    for capability in Capability:
        assert (capability in new) is (capability is not Capability.SNAPSHOTS), str(new)
    fstx.write(ARRAY, f"{remote_place.url}/a.zarr", storage_options=options)
    old = fstx.guarantee(f"{remote_place.url}/a.zarr", **options)
    assert Capability.ATOMIC_SET not in old
    assert "tx::" in old[Capability.ATOMIC_SET].reason
    assert Capability.ATOMIC_SET in fstx.guarantee(f"{remote_place.url}/a.vrt", **options)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # of Azure's client
def test_large_shards_go_straight_to_their_names(remote_place: Place) -> None:
    """Protects large shards from being moved twice: put in parts where they belong, before the commit."""
    rng = np.random.default_rng(1)
    array = rng.random((1800, 1200))  # 16.5 MiB in one shard, nothing compresses
    url = f"{remote_place.url}/a.zarr"
    options = remote_place.options
    seen: list[str] = []

    def check(tx: fstx.Transaction) -> None:
        seen.append(tx.url)

    with fstx.chunk_writer(
        url,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(600, 600),
        shards=(1800, 1200),
        check=check,
        storage_options=options,
    ) as writer:
        for i in range(3):
            for j in range(2):
                block = array[600 * i : 600 * i + 600, 600 * j : 600 * j + 600]
                writer.write_chunk((i, j), block)
        assert set(tree(remote_place)) == {"a.zarr/c/0/0"}
    assert writer.report.status == "written"
    assert seen
    found = tree(remote_place)
    assert set(found) == {"a.zarr/c/0/0", "a.zarr/zarr.json"}
    copy = {p.partition("/")[2]: zarr_bytes(data) for p, data in found.items()}
    read = zarr.open_array(zarr.storage.MemoryStore(copy), mode="r")[...]
    np.testing.assert_array_equal(read, array)
    with (
        pytest.raises(RuntimeError),
        fstx.begin(f"{remote_place.url}/x", mode="create", entry="e", **options) as tx,
    ):
        tx.stage("large", found["a.zarr/c/0/0"])
        raise RuntimeError
    assert set(tree(remote_place)) == set(found)
    assert not staged(remote_place)
