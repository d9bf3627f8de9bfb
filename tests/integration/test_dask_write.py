"""Real layouts on a real disk: array kinds and schedulers, failures and retries, streams."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fstx.arrays import write
from fstx.front import begin
from fstx.layouts import zarr3
from fstx.plan import ArraySpec
from fstx.streaming import ChunkWriter, Stream, process_chunks, uniform_grid
from support import fakes

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

VALUES = np.random.default_rng(5).random((48, 40)).astype("f4")


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(params=["threads", "processes", "distributed"])
def scheduler(request: pytest.FixtureRequest) -> Iterator[str]:
    """A scheduler; for ``distributed`` a cluster of two processes, closed afterwards."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    if request.param == "distributed":
        distributed = pytest.importorskip("distributed")
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        )
        with cluster, distributed.Client(cluster):
            yield "distributed"
    else:
        yield request.param
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def _bad_chunk(block: Any, block_id: Any = None) -> Any:
    if block_id == (2, 1):
        raise ZeroDivisionError("bad chunk")
    return block


def test_a6_a7_failure_leaves_nothing_and_a_retry_works(scheduler: str, tmp_path: Path) -> None:
    """A6, A7, A10, E3, E9: under each scheduler nothing is left; the retry equals numpy's write."""
    array = da.from_array(VALUES, chunks=16)
    bad = array.map_blocks(_bad_chunk, dtype="f4", meta=np.empty((0, 0), "f4"))
    place = tmp_path / "out"
    place.mkdir()
    options: dict[str, Any] = {"scheduler": scheduler, "max_workers": 2, "durability": "none"}
    for name in ("a.zarr",) if scheduler == "processes" else ("a.zarr", "a.vrt"):
        with pytest.raises(ZeroDivisionError, match="bad chunk"):
            write(bad, place / name, **options)
        assert _tree(place) == {}
        write(array, place / name, **options)
        (tmp_path / "numpy").mkdir(exist_ok=True)
        extra: dict[str, Any] = {"tile_size": 16} if name == "a.vrt" else {"chunks": (16, 16)}
        write(VALUES, tmp_path / "numpy" / name, durability="none", **extra)
        assert _tree(place) == _tree(tmp_path / "numpy")
        for path in (place, tmp_path / "numpy"):
            for entry in sorted(path.rglob("*"), reverse=True):
                entry.unlink() if entry.is_file() else entry.rmdir()


def test_a27_every_array_kind_gives_the_same_bytes(tmp_path: Path) -> None:
    """A27, H2: numpy, device and dask of either are written to identical files."""
    chunked = da.from_array(VALUES, chunks=16)
    kinds = {
        "numpy": VALUES,
        "device": fakes.FakeDevice(VALUES),
        "dask": chunked,
        "dask-device": chunked.map_blocks(
            fakes.FakeDevice, dtype="f4", meta=np.empty((0, 0), "f4")
        ),
    }
    trees = []
    for kind, array in kinds.items():
        (tmp_path / kind).mkdir()
        write(array, tmp_path / kind / "b.zarr", chunks=(16, 16), durability="none")
        trees.append(_tree(tmp_path / kind))
    assert len(trees[0]) == 10
    assert trees.count(trees[0]) == 4


def _writer(folder: Path, shards: Any) -> ChunkWriter:
    """A stream into one zarr array, opened as the public function would."""
    grid = uniform_grid(VALUES.shape, (8, 8))
    spec = ArraySpec(VALUES.shape, VALUES.dtype, grid)
    plan = zarr3.plan("c.zarr", spec, chunks=(8, 8), shards=shards)

    def open_tx() -> Any:
        return begin([folder / "c.zarr"], mode="create", durability="none", require="ATOMIC_SET")

    shape = tuple(len(lengths) for lengths in plan.grid)
    return ChunkWriter(open_tx, Stream(spec, plan), grid_shape=shape)


@pytest.mark.parametrize("shards", [None, (16, 40)])
def test_f3_f4_f16_streamed_chunks_equal_one_write(shards: Any, tmp_path: Path) -> None:
    """F3, F4, F16, F23: streaming inner chunks one by one gives the bytes of the whole write."""
    for kind in ("streamed", "whole"):
        (tmp_path / kind).mkdir()
    indices = list(itertools.product(range(6), range(5)))

    def produce(index: Any) -> Any:
        i, j = index
        return VALUES[8 * i : 8 * i + 8, 8 * j : 8 * j + 8].copy()

    with _writer(tmp_path / "streamed", shards) as writer:
        process_chunks(produce, indices, write_chunk=writer.write_chunk, chunks_per_shard=30)
        assert not (tmp_path / "streamed" / "c.zarr").exists()
    assert writer.report.status == "written"
    write(VALUES, tmp_path / "whole" / "c.zarr", chunks=(8, 8), shards=shards, durability="none")
    assert _tree(tmp_path / "streamed") == _tree(tmp_path / "whole")


def test_f9_f11_streams_that_fail_or_have_no_data_leave_nothing(tmp_path: Path) -> None:
    """F9, F11: no chunk, or a missing one: the folder is as it was."""
    with _writer(tmp_path, (16, 40)) as writer:
        pass
    assert writer.report.status == "empty"
    writer = _writer(tmp_path, (16, 40))
    assert writer.write_chunk((0, 0), VALUES[:8, :8])
    report = writer.close()
    assert report.status == "failed"
    assert "1 of 30 chunks" in report.message
    assert list(tmp_path.iterdir()) == []
