"""Regions and appends into Zarr arrays that are there: one commit each, by many writers, read by zarr."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import fstx
from fstx.errors import CapabilityError, ConflictError, UsageError
from support.killer import Killed, KillerOps
from support.places import PLACES, Target
from support.regionjobs import write_rows
from support.txplaces import commits

VALUES = np.arange(32 * 24, dtype="f4").reshape(32, 24)
WAYS: dict[str, dict[str, Any]] = {
    "chunks": {"chunks": (4, 8)},
    "shards": {"chunks": (4, 4), "shards": (8, 12)},
}
TX = ("tx over memory", "tx over local")


def _read(target: Target, folder: Path) -> np.ndarray[Any, Any]:
    return np.asarray(zarr.open_array(target.fetch(folder) / "a.zarr", mode="r")[...])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", PLACES)
def test_a_region_and_an_append(kind: str, way: str, tmp_path: Path) -> None:
    """G2: a region lands whole and nothing else changes; an append lands with its new shape."""
    target = Target(kind, tmp_path / "place")
    target.folder.mkdir()
    url, options = target.url("a.zarr"), {"storage_options": target.options}
    fstx.write(VALUES, url, dimension_names=("y", "x"), **WAYS[way], **options)
    before = target.found()
    part = VALUES[8:16] * 2
    part[:, :12] = 0  # the fill value: its chunks become empty, the old ones must not stay
    done = fstx.write(part, url, region={"y": slice(8, 16)}, require="RECOVERABLE", **options)
    assert done.paths == (6 if way == "chunks" else 2)
    kept = {p for p, data in target.found().items() if before.get(p) == data}
    assert len(before) - len(kept) == done.paths
    done = fstx.write(VALUES[:10], url, append_dim="y", **options)
    wanted = np.concatenate([VALUES[:8], part, VALUES[16:], VALUES[:10]])
    np.testing.assert_array_equal(_read(target, tmp_path / "copy"), wanted)
    assert not [p for p in target.found() if "#" in p]


@pytest.mark.parametrize("kind", ["local", "memory", "tx over local"])
def test_nothing_is_computed_for_what_is_refused(kind: str, tmp_path: Path) -> None:
    """G2: a region that cuts chunks, a missing array, other layouts: refused, and the target is as it was."""
    da = pytest.importorskip("dask.array")
    target = Target(kind, tmp_path)
    url, options = target.url("a.zarr"), {"storage_options": target.options}

    def fail(block: Any) -> Any:
        raise AssertionError("computed")

    lazy = da.from_array(VALUES, chunks=(8, 24)).map_blocks(fail, meta=VALUES[:0])
    somewhere = {"region": (slice(0, 32), slice(0, 24)), "require": None}
    with pytest.raises(UsageError, match=r"holds no zarr\.json"):
        fstx.write(lazy, url, **somewhere, **options)
    assert target.found() == {}
    fstx.write(VALUES, url, chunks=(5, 8), **options)
    before = target.found()
    with pytest.raises(UsageError, match=r"aligned region around it is \[0:20, 0:24\]"):
        part = {"region": (slice(1, 17), slice(0, 24)), "require": None}
        fstx.write(lazy[:16], url, **part, **options)
    with pytest.raises(UsageError, match="ends inside of chunks"):
        fstx.write(lazy, url, append_dim=0, **options)
    for more, says in (
        ({"chunks": (8, 8)}, "chunks= is the existing array's"),
        ({"overwrite": True}, "replaces the whole array"),
        ({"append_dim": 0}, "pass one"),
        ({"layout": "npy"}, "writes into Zarr arrays"),
    ):
        with pytest.raises(UsageError, match=says):
            fstx.write(lazy, url, **{**somewhere, **more}, **options)
    if not kind.startswith("tx") and kind != "memory":
        with pytest.raises(CapabilityError, match="ATOMIC_SET"):
            fstx.write(lazy, url, region=somewhere["region"], **options)
    assert target.found() == before


@pytest.mark.parametrize("kind", ["local", "memory", "tx over local"])
def test_appends_at_once_conflict(kind: str, tmp_path: Path) -> None:
    """G2: of two appends that begin together one lands; the other is told, and lands when it is run again."""
    target = Target(kind, tmp_path)
    url, options = target.url("a.zarr"), {"storage_options": target.options}
    fstx.write(VALUES, url, **WAYS["chunks"], **options)
    both = threading.Barrier(2)

    def append(number: int) -> bool:
        def wait(done: int, total: int) -> None:
            if done == total:
                both.wait(30)  # both have staged; neither has committed

        more = np.full((4, 24), number, "f4")
        try:
            fstx.write(more, url, append_dim=0, progress=wait, **options)
        except ConflictError:
            fstx.write(more, url, append_dim=0, **options)
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(append, (1, 2))) == [False, True]
    found = _read(target, tmp_path / "copy")
    assert found.shape == (40, 24)
    assert sorted((found[32, 0], found[36, 0])) == [1, 2]


def test_disjoint_regions_of_processes_all_land(tmp_path: Path) -> None:
    """G2 and I9: processes that know nothing of each other write disjoint regions; none is lost."""
    count, targets = 30, [Target(kind, tmp_path / kind) for kind in ("local", "tx over local")]
    urls = [target.url("a.zarr") for target in targets]
    for url in urls:
        fstx.write(np.zeros((4 * count, 24), "f4"), url, chunks=(4, 8))
    shares = [list(range(n, count, 3)) for n in range(3)]
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        for url in urls:
            assert list(pool.map(write_rows, [url] * 3, [{}] * 3, shares)) == shares
    for target in targets:
        found = _read(target, tmp_path / f"copy of {target.kind}")
        np.testing.assert_array_equal(found[:, 0], np.repeat(np.arange(1, count + 1), 4))
    assert commits(urls[1].removeprefix("tx::")) == count + 1


# --- xarray through tx:: ---------------------------------------------------------------------------


def _days(first: int, count: int, value: float = 0.0) -> xr.Dataset:
    time = np.arange(first, first + count)
    data = np.broadcast_to(time[:, None] + value, (count, 6)).astype("f8")
    return xr.Dataset({"t2m": (("time", "x"), data)}, coords={"time": time})


def _create(url: str) -> None:
    with fstx.begin(url):
        coding = {"t2m": {"chunks": (4, 6)}, "time": {"chunks": (4,)}}
        _days(0, 8).to_zarr(url, consolidated=False, encoding=coding)


@pytest.mark.parametrize("kind", TX)
def test_xarray_regions_and_appends_are_one_commit_each(kind: str, tmp_path: Path) -> None:
    """G2: to_zarr(region=) and to_zarr(append_dim=) in a block are one commit, also of all variables."""
    url = Target(kind, tmp_path).url("cube.zarr")
    _create(url)
    with fstx.begin(url):
        _days(8, 3).to_zarr(url, append_dim="time", consolidated=False)
    with fstx.begin(url):  # the last chunk is not whole: read, written again, in the same commit
        _days(11, 2).to_zarr(url, append_dim="time", consolidated=False)
    fs = _filesystem(url)
    with fs.transaction:
        part = _days(4, 4, 100.0).drop_vars("time")
        part.to_zarr(url, region={"time": slice(4, 8)}, consolidated=False)
    assert commits(url.removeprefix("tx::")) == 4
    found = xr.open_zarr(url, consolidated=False)
    assert found["time"].values.tolist() == list(range(13))
    wanted = np.arange(13.0) + np.where((np.arange(13) >= 4) & (np.arange(13) < 8), 100, 0)
    np.testing.assert_array_equal(found["t2m"].values[:, 0], wanted)


@pytest.mark.parametrize("kind", ["local", "tx over local"])
def test_an_array_of_a_group_is_written_alone(kind: str, tmp_path: Path) -> None:
    """G2: a variable that xarray made is written into by name, lazily, and once for an id."""
    url = Target(kind, tmp_path).url("cube.zarr")
    if kind == "local":
        _days(0, 8).to_zarr(url, consolidated=False, encoding={"t2m": {"chunks": (4, 6)}})
    else:
        _create(url)
    how: dict[str, Any] = {"layout": "zarr", "require": "RECOVERABLE"}
    if kind != "local":  # there what remembers the id would lie in the group, and zarr warns of it
        how["id"] = "part"
    part = _days(4, 4, 100.0)["t2m"]
    where = {"time": slice(4, 8)}
    task = fstx.write(part, f"{url}/t2m", region=where, compute=False, **how)
    assert float(xr.open_zarr(url, consolidated=False)["t2m"][4, 0]) == 4
    assert task.compute().paths == 1
    assert float(xr.open_zarr(url, consolidated=False)["t2m"][4, 0]) == 104
    if "id" in how:
        again = fstx.write(part * 0, f"{url}/t2m", region=where, **how)
        assert again.reason == "committed before"
    found = xr.open_zarr(url, consolidated=False)["t2m"].values[:, 0]
    assert found.tolist() == [0, 1, 2, 3, 104, 105, 106, 107]
    with pytest.raises(UsageError, match="is a Zarr group"):
        fstx.write(part, url, region=where, **{**how, "id": None})


def _filesystem(url: str) -> Any:
    import fsspec

    return fsspec.core.url_to_fs(url)[0]


@pytest.mark.parametrize("kind", TX)
def test_unaligned_regions_conflict_and_never_corrupt(kind: str, tmp_path: Path) -> None:
    """G2: two writers that change parts of one chunk: the second is refused, and what it read is not lost."""
    url = Target(kind, tmp_path).url("cube.zarr")
    _create(url)

    def change(first: int, last: int) -> Any:
        tx = fstx.begin(url)
        with tx.current():
            part = _days(first, last - first, 100.0).drop_vars("time")
            part.to_zarr(url, region={"time": slice(first, last)}, consolidated=False)
        return tx

    one, two, three = change(0, 2), change(2, 4), change(4, 8)
    one.commit()
    three.commit()
    with pytest.raises(ConflictError, match="t2m"):
        two.commit()
    change(2, 4).commit()
    found = xr.open_zarr(url, consolidated=False)["t2m"].values[:, 0]
    np.testing.assert_array_equal(found, np.arange(8.0) + 100)


def test_an_append_that_is_killed_anywhere_is_old_or_new(tmp_path: Path) -> None:
    """G2: after a kill at every call plain readers of a local disk find the old array, or the new one."""
    old, more = np.arange(1, 5, dtype="i4"), np.arange(5, 8, dtype="i4")
    seen: set[int] = set()
    calls = 0
    while True:
        calls += 1
        url = tmp_path / f"{calls}" / "a.zarr"
        fstx.write(old, url, chunks=(4,), durability="none")
        ops = KillerOps(kill_at=calls)
        try:
            how: dict[str, Any] = {"durability": "none", "storage_options": {"ops": ops}}
            fstx.write(more, url, append_dim=0, max_workers=1, **how)
        except Killed:
            pass
        else:
            break
        for _ in range(2):
            found = np.asarray(zarr.open_array(url, mode="r")[...])
            assert found.tolist() == [*old, *more][: len(found)]
            assert len(found) in (4, 7)
            seen.add(len(found))
            fstx.recover(url)
        assert {p.name for p in url.parent.iterdir()} == {"a.zarr"}
    assert seen == {4, 7}
    assert calls > 10
