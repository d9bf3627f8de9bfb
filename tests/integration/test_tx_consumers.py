"""What others do with ``tx::`` URLs: xarray, zarr, dask, pandas, pyarrow, UPath, and fsspec's own layers."""

from __future__ import annotations

import contextvars
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import fstx
from support.txplaces import KINDS, commits, content, leftovers, opened, targets

xr = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")
da = pytest.importorskip("dask.array")


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a target that is not there yet."""
    yield from targets(request.param, tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A target that other processes reach."""
    yield from targets("file", tmp_path)


def _cube(value: float = 1.0, n: int = 32) -> Any:
    data = np.full((n, n), value) + np.arange(n)
    return xr.Dataset({"a": (("y", "x"), data)}, coords={"x": np.arange(n)})


def _lazy(value: float = 1.0, n: int = 32) -> Any:
    return _cube(value, n).chunk({"y": 8, "x": 8})


# --- xarray and zarr ------------------------------------------------------------------------------


def test_xarray_writes_one_commit_and_reads_one_version(target: str) -> None:
    """Protects the example of the design: to_zarr in a block is one commit, open_zarr holds one version."""
    url = "tx::" + target
    with fstx.begin(url):
        _lazy(1.0).to_zarr(url, consolidated=False)
    assert commits(target) == 1
    reader = xr.open_zarr(url, consolidated=False, chunks={})
    first = float(reader["a"][0, 0].compute())
    with fstx.begin(url):
        _lazy(5.0).to_zarr(url, mode="w", consolidated=False)
    assert commits(target) == 2
    assert first == 1.0
    assert float(reader["a"].compute()[-1, -1]) == 32.0  # still version 1
    assert float(xr.open_zarr(url, consolidated=False)["a"][0, 0]) == 5.0


def test_appending_and_regions(target: str) -> None:
    """Protects xarray's other ways to write: append_dim and region, each one commit."""
    url = "tx::" + target
    with fstx.begin(url):
        _lazy().to_zarr(url, consolidated=False)
    with fstx.begin(url):
        _lazy(2.0).to_zarr(url, append_dim="y", consolidated=False)
    with fstx.begin(url):
        part = _cube(9.0).isel(y=slice(0, 8)).drop_vars("x")
        part.to_zarr(url, region={"y": slice(0, 8), "x": slice(0, 32)}, consolidated=False)
    assert commits(target) == 3
    found = xr.open_zarr(url, consolidated=False)["a"].values
    assert found.shape == (64, 32)
    assert (found[0, 0], found[8, 0], found[-1, 0]) == (9.0, 1.0, 2.0)


def test_consolidated_metadata(target: str) -> None:
    """Protects stores with consolidated metadata, which xarray reads back while it writes."""
    url = "tx::" + target
    with fstx.begin(url), pytest.warns(UserWarning, match="Consolidated metadata"):
        _cube().to_zarr(url, consolidated=True)
    assert commits(target) == 1
    assert float(xr.open_zarr(url, consolidated=True)["a"][0, 1]) == 2.0


def test_zarr_creates_and_opens(target: str) -> None:
    """Protects plain zarr: groups, arrays, shards, deletion, listing."""
    url = "tx::" + target
    with fstx.begin(url):
        group = zarr.create_group(url)
        array = group.create_array("a", shape=(64, 64), chunks=(8, 8), shards=(32, 32), dtype="f4")
        array[:] = 1
        group.create_array("gone", data=np.arange(4))
        assert array[0, 0] == 1
        array[3:5, 3:5] = 7  # read, changed and written in the transaction
        del group["gone"]
    assert commits(target) == 1
    again = zarr.open_group(url, mode="r")
    assert list(again.array_keys()) == ["a"]
    assert again["a"][2:6, 4].tolist() == [1, 7, 7, 1]
    with pytest.raises(FileNotFoundError):
        zarr.open_group(url + "-absent", mode="r")


@pytest.mark.filterwarnings("ignore::fstx.filesystem.EachCallCommitsWarning")
def test_zarr_outside_of_a_block_reads_what_it_wrote(target: str) -> None:
    """Protects the unguarded way: many commits, but every write is there."""
    fs, root = opened("tx::" + target)
    store = zarr.storage.FsspecStore.from_mapper(fs.get_mapper(root))
    array = zarr.create_array(store, shape=(32,), chunks=(4,), dtype="i4", overwrite=True)
    array[:] = np.arange(32)
    array[5] = 50
    assert zarr.open_array("tx::" + target, mode="r")[4:7].tolist() == [4, 50, 6]
    assert commits(target) > 8


def test_an_exception_leaves_no_trace(target: str) -> None:
    """Protects the old cube: a to_zarr that fails in the middle changes nothing and leaves nothing staged."""
    url = "tx::" + target
    with fstx.begin(url):
        _lazy().to_zarr(url, consolidated=False)
    before, staged = content(target), leftovers(target)

    def fail(block: Any) -> Any:
        if block.sum() > 0:
            raise RuntimeError("in a chunk")
        return block

    broken = _lazy(3.0)
    broken["a"].data = broken["a"].data.map_blocks(fail, dtype="f8", meta=np.empty((0, 0)))
    with pytest.raises(RuntimeError, match="in a chunk"), fstx.begin(url):
        broken.to_zarr(url, mode="w", consolidated=False)
    assert content(target) == before
    assert leftovers(target) == staged
    assert commits(target) == 1


# --- dask: threads, processes, distributed --------------------------------------------------------


def test_dask_arrays_and_bags(target: str) -> None:
    """Protects dask's own writers in threads: to_zarr, store, to_textfiles in one commit."""
    import dask
    import dask.bag as db

    url = "tx::" + target
    x = da.ones((32, 32), chunks=(8, 8))
    with fstx.begin(url), dask.config.set(scheduler="threads"):
        x.to_zarr(url + "/one")
        goal = zarr.create_array(url + "/two", shape=(32, 32), chunks=(8, 8), dtype="f8")
        da.store(x * 2, goal, lock=False)
        db.from_sequence("abcd", npartitions=2).to_textfiles(url + "/log-*.txt")
    assert commits(target) == 1
    assert float(da.from_zarr(url + "/one").sum()) == 1024
    assert float(da.from_zarr(url + "/two").sum()) == 2048
    assert db.read_text(url + "/log-*.txt").count().compute(scheduler="threads") == 4


def test_two_threads_make_two_commits(target: str) -> None:
    """Protects concurrent jobs on one dataset: each has its own transaction, exactly one commit for each."""
    url = "tx::" + target
    with fstx.begin(url) as tx:
        tx.stage("first", b"")
    barrier = threading.Barrier(2)

    def job(n: int) -> None:
        with fstx.begin(url):
            barrier.wait()
            _lazy(float(n)).to_zarr(f"{url}/cube{n}", consolidated=False)
            barrier.wait()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(job, n) for n in (1, 2)]:
            future.result()
    assert commits(target) == 3
    for n in (1, 2):
        assert float(xr.open_zarr(f"{url}/cube{n}", consolidated=False)["a"][0, 0]) == n


def test_two_threads_in_one_transaction_make_one_commit(target: str) -> None:
    """I2: one job of several threads: with its context, or by `tx.url`, both write into one commit."""
    url = "tx::" + target
    with fstx.begin(url) as tx:
        context = contextvars.copy_context()
        jobs = [
            threading.Thread(
                target=context.run,
                args=(lambda: _lazy(1.0).to_zarr(f"{url}/one", consolidated=False),),
            ),
            threading.Thread(
                target=contextvars.Context().run,
                args=(lambda: _lazy(2.0).to_zarr(f"{tx.url}/two", consolidated=False),),
            ),
        ]
        for thread in jobs:
            thread.start()
        for thread in jobs:
            thread.join()
    assert commits(target) == 1
    for n, name in ((1, "one"), (2, "two")):
        assert float(xr.open_zarr(f"{url}/{name}", consolidated=False)["a"][0, 0]) == n


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Two processes for dask, kept: to import what they need takes seconds."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("how", ["url", "context"])
def test_dask_processes_join(disk: str, how: str, processes: ProcessPoolExecutor) -> None:
    """Protects jobs over processes: what is sent away inside a block still goes into its one commit."""
    import dask
    import dask.bag as db

    url = "tx::" + disk
    with fstx.begin(url) as tx, dask.config.set(scheduler="processes", pool=processes):
        goal = tx.url if how == "url" else url
        _lazy().to_zarr(goal + "/cube", consolidated=False)
        db.from_sequence("abcd", npartitions=2).to_textfiles(goal + "/log-*.txt")
    assert commits(disk) == 1
    assert float(xr.open_zarr(url + "/cube", consolidated=False)["a"].sum()) == float(
        _cube()["a"].sum()
    )
    assert db.read_text(url + "/log-*.txt").count().compute(scheduler="sync") == 4


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A cluster of two processes, kept, with a client that is nobody's default yet."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as c,
        distributed.Client(c, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("how", ["url", "context"])
def test_distributed_workers_join(disk: str, how: str, client: Any) -> None:
    """I2: protects jobs on a cluster: workers in other processes write into the transaction by its URL."""
    import dask

    url = "tx::" + disk
    with dask.config.set(scheduler=client), fstx.begin(url) as tx:
        goal = tx.url if how == "url" else url
        _lazy().to_zarr(goal + "/cube", consolidated=False)
    loaded = client.run(lambda: "fstx.filesystem" in __import__("sys").modules)
    assert any(loaded.values()), "the workers wrote nothing"
    assert commits(disk) == 1
    assert float(xr.open_zarr(url + "/cube", consolidated=False)["a"].sum()) == float(
        _cube()["a"].sum()
    )


# --- tables -------------------------------------------------------------------------------------


def test_pandas(target: str) -> None:
    """Protects tables: parquet and csv, below a dataset and as single files."""
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"a": [1, 2, 3], "b": list("xyz")})
    url = "tx::" + target
    with fstx.begin(url):
        table.to_parquet(url + "/t.parquet")
        table.to_csv(url + "/t.csv.gz", index=False)
        table.to_parquet(url + "/parts", partition_cols=["b"])
    assert commits(target) == 1
    assert pd.read_parquet(url + "/t.parquet").equals(table)
    assert pd.read_csv(url + "/t.csv.gz").equals(table)
    assert sorted(pd.read_parquet(url + "/parts")["a"]) == [1, 2, 3]
    table.to_csv(url + "-alone.csv", index=False)
    assert pd.read_csv(url + "-alone.csv").equals(table)
    assert not opened(target)[0].exists(opened(target)[1] + "-alone.csv/.fstx")


def test_pyarrow(target: str) -> None:
    """Protects pyarrow, which wraps the instance: writing a dataset, listing and reading it."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    fs, root = opened("tx::" + target)
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", "x"]})
    with fs.transaction:
        pq.write_table(table, f"{root}/t.parquet", filesystem=fs)
        pq.write_to_dataset(table, f"{root}/parts", partition_cols=["b"], filesystem=fs)
    assert commits(target) == 1
    assert pq.read_table(f"{root}/t.parquet", filesystem=fs).equals(table)
    found = ds.dataset(f"{root}/parts", filesystem=fs, partitioning="hive").to_table()
    assert sorted(found["a"].to_pylist()) == [1, 2, 3]


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_dask_tables(target: str) -> None:
    """Protects dask's parquet: parts and metadata in one commit."""
    dd = pytest.importorskip("dask.dataframe")
    pd = pytest.importorskip("pandas")
    url = "tx::" + target
    table = dd.from_pandas(pd.DataFrame({"a": range(20)}), npartitions=4)
    with fstx.begin(url):
        table.to_parquet(url + "/t", write_metadata_file=True)
    assert commits(target) == 1
    assert int(dd.read_parquet(url + "/t")["a"].sum().compute()) == 190


# --- fsspec's own layers and paths --------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:UPath 'tx' filesystem not explicitly implemented")
def test_upath(target: str) -> None:
    """Protects path objects: join, write, read, list, parent."""
    upath = pytest.importorskip("upath")
    top = upath.UPath("tx::" + target)
    (top / "d").mkdir(parents=True)
    (top / "d" / "a.txt").write_text("a")
    (top / "d" / "a.txt").parent.joinpath("b.bin").write_bytes(b"b")
    assert (top / "d" / "a.txt").read_text() == "a"
    assert sorted(p.name for p in (top / "d").iterdir()) == ["a.txt", "b.bin"]
    assert (top / "d" / "b.bin").stat().st_size == 1
    assert upath.UPath(str(top / "d" / "a.txt")).read_text() == "a"
    (top / "d" / "a.txt").unlink()
    assert content(target) == {"d/b.bin": b"b"}


def test_below_simplecache(target: str, tmp_path: Path) -> None:
    """Protects local caches over a dataset: reads are cached by content, writes go through."""
    fs, root = opened("tx::" + target)
    fs.pipe_file(f"{root}/a", b"one")
    options = {"simplecache": {"cache_storage": str(tmp_path / "cache")}}
    with fsspec.open(f"simplecache::tx::{target}/a", **options) as file:
        assert file.read() == b"one"
    with fsspec.open(f"simplecache::tx::{target}/b", "wb", **options) as file:
        file.write(b"two")
    assert content(target) == {"a": b"one", "b": b"two"}
    check = {"filecache": {"cache_storage": str(tmp_path / "c2"), "check_files": True}}
    for data in (b"1", b"22"):
        fs.pipe_file(f"{root}/a", data)
        opened(f"filecache::tx::{target}/a", **check)[
            0
        ].invalidate_cache()  # fsspec keeps the layer
        with fsspec.open(f"filecache::tx::{target}/a", **check) as file:
            assert file.read() == data


def test_with_dir(target: str) -> None:
    """Protects directory layers on both sides of ``tx``."""
    from fsspec.implementations.dirfs import DirFileSystem

    fs, root = opened("tx::" + target)
    over = DirFileSystem(root, fs=fs)
    with fs.transaction:
        over.pipe_file("d/a", b"1")
        over.mv("d/a", "d/b")
    assert content(target) == {"d/b": b"1"}
    assert commits(target) == 1
    chained, _ = opened("dir::tx::" + target)
    assert chained.cat_file("d/b") == b"1"
    plain, path = opened(target)
    below = DirFileSystem(path + "-below", fs=plain)
    under = fsspec.filesystem("tx", fs=below, root="ds")
    under.pipe_file("ds/x", b"1")
    assert under.find("ds") == ["ds/x"]
    assert content(target + "-below/ds") == {"x": b"1"}


def test_mappers(target: str) -> None:
    """Protects mappings: the mutable view of a dataset, in and out of a transaction."""
    mapper = fsspec.get_mapper("tx::" + target, create=True)
    with mapper.fs.transaction:
        mapper["a/b"] = b"1"
        mapper.setitems({"c": b"2", "d": b"3"})
        del mapper["d"]
        assert dict(mapper) == {"a/b": b"1", "c": b"2"}
    assert commits(target) == 1
    assert sorted(fsspec.get_mapper("tx::" + target)) == ["a/b", "c"]
    with pytest.raises(KeyError):
        mapper["absent"]


@pytest.mark.skipif(sys.platform == "win32", reason="paths of this test are POSIX")
def test_plain_paths_by_option(disk: str) -> None:
    """Protects ``fsspec.filesystem("tx", target_protocol=..., root=...)`` for code without URLs."""
    folder = disk.removeprefix("file://")
    fs = fsspec.filesystem(
        "tx", target_protocol="file", root=folder, target_options={"auto_mkdir": False}
    )
    with fs.transaction:
        fs.pipe({f"{folder}/a": b"1", f"{folder}/b": b"2"})
    assert commits(disk) == 1
