"""Every writer on real object stores, plain and through ``tx::``, with several kinds of array: H, A33."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

import fstx
from integration.test_accept_matrix import GRID, KINDS, VALUES, WRITERS, _ordered, put, read
from support.emulators import Place
from support.fakes import ASKED, FakeDevice
from support.places import Target, logical
from support.trees import Tree


class RemoteTarget(Target):
    """A place on an object store, in one of the two views."""

    def __init__(self, view: str, place: Place, folder: Path) -> None:
        super().__init__("tx" if view == "tx" else "local", folder)
        self.view = view
        self.place = place
        self.base = place.url

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.place.options)

    def found(self) -> Tree:
        return logical(self.place.url, self.place.options)


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteTarget:
    view, store = request.param
    return RemoteTarget(view, request.getfixturevalue(store), tmp_path)


VIEWS, STORES = ("tx", "plain"), ("s3", "gcs", "azure")


def pairs(names: Iterable[str]) -> Any:
    """Parameters `name` and `target`: each name in each view, each name on each store, each view on each."""
    found = [
        pytest.param(name, (VIEWS[(i + j) % 2], store), id=f"{name}-{VIEWS[(i + j) % 2]}-{store}")
        for i, name in enumerate(names)
        for j, store in enumerate(STORES)
    ]
    return pytest.mark.parametrize(("name", "target"), found, indirect=["target"])


# Each writer in each view on each store, by turns from dask and from a device: each pair of two.
EACH = [
    pytest.param(
        name, ("dask", "device")[(i + j + k) % 2], (view, store), id=f"{name}-{view}-{store}"
    )
    for i, name in enumerate(WRITERS)
    for j, view in enumerate(VIEWS)
    for k, store in enumerate(STORES)
]


def replaced(target: RemoteTarget, name: str) -> dict[str, Any]:
    """How to overwrite: a plain Zarr can't be switched whole, so less must be required."""
    lower = target.view == "plain" and name.endswith(".zarr")
    return {"overwrite": True, **({"require": "RECOVERABLE"} if lower else {})}


def reference(name: str, folder: Path) -> Tree:
    """The files that a local write of the numpy array gives."""
    folder.mkdir()
    plain = Target("local", folder)
    put(plain, name, VALUES)
    return plain.found()


@pytest.mark.parametrize(("name", "kind", "target"), EACH, indirect=["target"])
def test_each_writer_on_each_store(
    name: str, kind: str, target: RemoteTarget, tmp_path: Path
) -> None:
    """H2, A27, A33, B15: the bytes of a local write, on that storage alone; replaced; nothing beside."""
    ASKED.clear()
    put(target, name, KINDS[kind](VALUES))
    first, wanted = target.found(), reference(name, tmp_path / "plain")
    if name == "s.zarr" and kind == "dask":  # chunks lie in a shard as they arrived (F18)
        first, wanted = _ordered(first), _ordered(wanted)
    assert first == wanted
    with pytest.raises(fstx.TargetExistsError):
        put(target, name, KINDS[kind](VALUES))
    put(target, name, KINDS[kind](VALUES + 1), keep_previous=False, **replaced(target, name))
    again = target.fetch(tmp_path / "second")
    assert np.array_equal(read(again, name), VALUES + 1)
    assert ASKED == []


@pairs(WRITERS)
def test_a_failing_chunk_leaves_nothing(name: str, target: RemoteTarget) -> None:
    """A4, A5, A7, A26: nothing of a first write, all of what was there, and a retry works."""

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
        put(target, name, failing, **replaced(target, name))
    assert target.found() == before


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Two processes for dask, kept: to import what they need takes seconds."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pairs(["o.vrt", "o.zarr", "s.zarr"])
def test_workers_in_other_processes_stage_there(
    name: str, target: RemoteTarget, processes: ProcessPoolExecutor
) -> None:
    """A6, E3: dask's processes stage to the store by themselves; what comes back is a receipt."""
    import dask

    array = da.from_array(VALUES, chunks=GRID)
    with dask.config.set(scheduler="processes", pool=processes):
        put(target, name, array)
    single = target.found()
    assert single
    assert not any(".fstx" in path.split("/") for path in single)


@pairs(["o.vrt", "o.zarr", "s.zarr"])
def test_streams(name: str, target: RemoteTarget, tmp_path: Path) -> None:
    """F24, H2: chunk by chunk, also into shards, with memory for one."""
    lengths = (8, 8) if name == "s.zarr" else (16, 16)
    options = {k: v for k, v in WRITERS[name].items() if k not in ("chunks", "tile_size")}
    with fstx.chunk_writer(
        target.url(name),
        shape=VALUES.shape,
        dtype=VALUES.dtype,
        chunks=lengths,
        storage_options=target.options,
        **options,
    ) as writer:
        for i in reversed(range(-(-40 // lengths[0]))):
            for j in range(48 // lengths[1]):
                rows = slice(i * lengths[0], (i + 1) * lengths[0])
                columns = slice(j * lengths[1], (j + 1) * lengths[1])
                writer.write_chunk((i, j), FakeDevice(VALUES[rows, columns]))
    assert writer.report.status == "written"
    assert np.array_equal(read(target.fetch(tmp_path / "copy"), name), VALUES)


@pairs(WRITERS)
def test_a_key_commits_once(name: str, target: RemoteTarget) -> None:
    """I5: written twice with one id, and asked for."""
    first = fstx.write(
        VALUES, target.url(name), id="run", storage_options=target.options, **WRITERS[name]
    )
    before = target.found()
    again = fstx.write(
        VALUES + 1, target.url(name), id="run", storage_options=target.options, **WRITERS[name]
    )
    assert first.paths
    assert again.reason == "committed before"
    assert target.found() == before
    assert fstx.outcome(target.url(name), "run", **target.options) == "committed"
