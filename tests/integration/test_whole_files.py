"""Files that a library writes by itself: HDF5, NetCDF, GDAL and SQLite through ``tx.local_path``."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import rasterio
import xarray as xr

import fstx
from fstx.backends import localpath
from fstx.errors import ConflictError, StorageError, UsageError
from support.killer import KillerOps
from support.places import PLACES, Target
from support.trees import tree

VALUES = np.arange(12.0)


@pytest.fixture(autouse=True)
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary files of this test alone; whatever is staged, none stays there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def _h5py(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["v"] = VALUES


def _netcdf(path: Path) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", len(VALUES))
        file.createVariable("v", "f8", ("x",))[:] = VALUES


def _xarray(path: Path) -> None:
    xr.Dataset({"v": ("x", VALUES)}).to_netcdf(path, engine="h5netcdf")


def _gdal(path: Path) -> None:
    profile = {"driver": "GTiff", "width": 4, "height": 3, "count": 1, "dtype": "float64"}
    profile |= {"transform": rasterio.Affine(1, 0, 0, 0, -1, 3)}
    with rasterio.open(path, "w", **profile) as file:
        file.write(VALUES.reshape(3, 4), 1)


def _sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (v REAL)")
    connection.executemany("INSERT INTO t VALUES (?)", [(v,) for v in VALUES.tolist()])
    connection.commit()
    connection.close()


def _values(path: Path) -> list[float]:
    if path.suffix == ".db":
        connection = sqlite3.connect(path)
        found = [v for (v,) in connection.execute("SELECT v FROM t ORDER BY v")]
        connection.close()
        return found
    if path.suffix == ".tif":
        with rasterio.open(path) as file:
            return list(file.read(1).ravel())
    with h5py.File(path) as file:
        return list(file["v"][:])


WRITERS: dict[str, Callable[[Path], None]] = {
    "h5py/a.h5": _h5py,
    "a.nc": _netcdf,
    "x.nc": _xarray,
    "t/a.tif": _gdal,
    "a.db": _sqlite,
}


@pytest.mark.parametrize("kind", PLACES)
def test_what_libraries_write_is_one_commit(kind: str, tmp_path: Path, rooms: Path) -> None:
    """Protects H9: HDF5, NetCDF, GDAL and SQLite files land with the rest, and nothing else does."""
    target = Target(kind, tmp_path / "place")
    target.folder.mkdir()
    with fstx.begin(target.url("out"), **target.options) as tx:
        for path, write in WRITERS.items():
            with tx.local_path(path) as local:
                assert isinstance(local, Path)
                assert local.name == path.rpartition("/")[2]
                write(local)
            assert not local.exists()
        tx.stage("index.json", b"{}")
        assert not any(p.startswith("out/") for p in target.found())
        assert len(tx.read("a.db")) > 4096
    found = target.fetch(tmp_path / "copy") / "out"
    assert sorted(tree(found)) == sorted([*WRITERS, "index.json"])
    for path in WRITERS:
        assert _values(found / path) == VALUES.tolist()
    assert not list(rooms.iterdir())


def test_on_local_disk_nothing_is_copied(tmp_path: Path) -> None:
    """The published file is the very inode that the library wrote, also after it renamed over the path."""
    seen: list[int] = []
    with fstx.begin(tmp_path / "out", mode="create") as tx:
        for name in ("a.bin", "b.bin"):
            with tx.local_path(name) as local:
                local.write_bytes(b"first")
                if name == "b.bin":
                    other = local.with_name("b.bin.part")
                    other.write_bytes(b"second")
                    other.replace(local)
                seen.append(local.stat().st_ino)
    assert [(tmp_path / "out" / n).stat().st_ino for n in ("a.bin", "b.bin")] == seen
    assert (tmp_path / "out/b.bin").read_bytes() == b"second"
    assert (tmp_path / "out/b.bin").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("kind", ["local", "memory", "tx over local"])
def test_an_update_begins_with_the_present_bytes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy is updated while readers keep the old file; one who changed it meanwhile is not overwritten."""
    monkeypatch.setattr(localpath, "_BLOCK_BYTES", 4096)  # an SQLite page: whole blocks, and an end
    target = Target(kind, tmp_path)
    with fstx.begin(target.url("out")) as tx, tx.local_path("a.db") as local:
        _sqlite(local)
    late = fstx.begin(target.url("out"))
    with late.local_path("a.db", copy=True) as again:
        assert _values(again) == VALUES.tolist()
    with fstx.begin(target.url("out")) as tx, tx.local_path("a.db", copy=True) as local:
        connection = sqlite3.connect(local)
        connection.execute("INSERT INTO t VALUES (99)")
        connection.commit()
        connection.close()
    assert _values(target.fetch(tmp_path / "copy") / "out/a.db") == [*VALUES.tolist(), 99.0]
    with pytest.raises(ConflictError):
        late.commit()
    with (
        pytest.raises(FileNotFoundError),
        fstx.begin(target.url("out")) as tx,
        tx.local_path("none.db", copy=True),
    ):
        pass


@pytest.mark.parametrize("kind", ["local", "memory", "tx over local"])
def test_the_target_may_be_the_file_itself(kind: str, tmp_path: Path) -> None:
    """A target that is one file is written and updated; names beside it are none of the transaction's."""
    target = Target(kind, tmp_path)
    with fstx.begin([target.url("a.nc")], entry="a.nc") as tx, tx.local_path("a.nc") as local:
        local.write_bytes(b"one")
    with (
        fstx.begin([target.url("a.nc")], entry="a.nc") as tx,
        tx.local_path("a.nc", copy=True, sidecars="stage") as local,
    ):
        local.write_bytes(local.read_bytes() + b", two")
    with fstx.begin([target.url("a.nc")], entry="a.nc") as tx:
        with tx.local_path("a.nc", copy=True) as local:
            assert local.read_bytes() == b"one, two"
        tx.rollback()


@pytest.mark.parametrize("kind", ["local", "memory", "tx over local"])
def test_an_exception_discards_the_file_alone(kind: str, tmp_path: Path, rooms: Path) -> None:
    """The block's exception comes out, the old file stays, and the transaction goes on without the file."""
    target = Target(kind, tmp_path)
    with fstx.begin(target.url("out")) as tx:
        tx.stage("a.nc", b"old")
    with fstx.begin(target.url("out")) as tx:
        with pytest.raises(ZeroDivisionError), tx.local_path("a.nc") as local:
            local.write_bytes(b"half")
            raise ZeroDivisionError
        assert tx.read("a.nc") == b"old"
        tx.stage("b", b"b")
    found = target.fetch(tmp_path / "copy") / "out"
    assert tree(found) == {"a.nc": b"old", "b": b"b"}
    assert not list(rooms.iterdir())


def _nothing(local: Path) -> None:
    return None


def _directory(local: Path) -> None:
    local.mkdir()


def _link(local: Path) -> None:
    local.symlink_to("/etc/hostname")


def _with_folder(local: Path) -> None:
    local.write_bytes(b"x")
    local.with_name("more").mkdir()


def _with_sidecar(local: Path) -> None:
    local.write_bytes(b"x")
    local.with_name("a.nc.aux.xml").write_bytes(b"<PAMDataset/>")


def _kept_open(local: Path) -> None:
    _open_files.append(h5py.File(local, "w"))


_open_files: list[Any] = []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (_nothing, "left nothing at"),
        (_directory, "something else than a file"),
        (_link, "something else than a file"),
        (_with_folder, "'more' was left beside it"),
        (_with_sidecar, r"'a\.nc\.aux\.xml' was left beside it.*sidecars='stage'"),
        (_kept_open, "still open for writing"),
    ],
)
def test_what_is_not_one_finished_file_is_refused(
    body: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    """Nothing is staged of a file that is not there, not whole, or not alone; the error names it."""
    if body is _kept_open and sys.platform != "linux":
        pytest.skip("only Linux tells who has a file open")
    with fstx.begin(tmp_path / "out") as tx:
        with pytest.raises(UsageError, match=says), tx.local_path("a.nc") as local:
            body(local)
        while _open_files:
            _open_files.pop().close()
        assert list(tx.paths()) == []
        with pytest.raises(UsageError, match="sidecars='all'"):
            tx.local_path("a.nc", sidecars="all").__enter__()
        tx.stage("b", b"b")
    assert tree(tmp_path / "out") == {"b": b"b"}


def test_a_database_that_is_still_open_is_refused(tmp_path: Path) -> None:
    """``with sqlite3.connect`` does not close: what is in its journal or log would be lost."""
    with fstx.begin(tmp_path / "out") as tx:
        with pytest.raises(UsageError, match=r"still open|left beside"), tx.local_path("a.db") as p:
            connection = sqlite3.connect(p)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE t (v REAL)")
            connection.commit()
        connection.close()
        tx.stage("b", b"b")


def test_sidecars_are_staged_or_dropped_by_option(tmp_path: Path) -> None:
    """A log that was left beside a database is staged with it, or left out; an empty one never matters."""

    def crashed(local: Path) -> None:
        """Leave a database and its log as a process that died does."""
        connection = sqlite3.connect(local.with_name("other.db"))
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (v REAL)")
        connection.execute("INSERT INTO t VALUES (5)")
        connection.commit()
        for end in ("", "-wal", "-shm"):
            copy = local.with_name(local.name + end)
            copy.write_bytes(local.with_name("other.db" + end).read_bytes())
        connection.close()
        local.with_name("other.db").unlink()
        local.with_name("empty.lock").touch()

    with fstx.begin(tmp_path / "out") as tx:
        with tx.local_path("d/a.db", sidecars="stage") as local:
            crashed(local)
        with tx.local_path("b.db", sidecars="drop") as local:
            crashed(local)
    assert sorted(tree(tmp_path / "out")) == ["b.db", "d/a.db", "d/a.db-wal"]
    with fstx.begin(tmp_path / "out") as tx:
        with (
            pytest.raises(UsageError, match=r"'d/a\.db-wal' holds changes"),
            tx.local_path("d/a.db", copy=True),
        ):
            pass
        with tx.local_path("d/a.db", copy=True, sidecars="stage") as local:
            assert _values(local) == [5.0]  # the log is taken in, and its file goes
            assert not local.with_name("a.db-wal").exists()
    assert sorted(tree(tmp_path / "out")) == ["b.db", "d/a.db"]
    assert _values(tmp_path / "out/d/a.db") == [5.0]


def test_sidecars_of_the_old_file_go_with_it(tmp_path: Path) -> None:
    """B16: what describes the replaced file is removed in the same commit, unless it is staged anew."""
    old = {"a.tif": b"1", "a.tif.aux.xml": b"2", "a.tif.ovr": b"3", "a.tif.txt": b"4"}
    old |= {"a.db": b"5", "a.db-journal": b"6"}
    with fstx.begin(tmp_path / "out") as tx:
        for path, data in old.items():
            tx.stage(path, data)
    with fstx.begin(tmp_path / "out") as tx:
        tx.stage("a.tif.ovr", b"new")
        with tx.local_path("a.tif") as local:
            local.write_bytes(b"new")
        with tx.local_path("a.db") as local:
            local.write_bytes(b"new")
    left = {"a.tif": b"new", "a.tif.ovr": b"new", "a.tif.txt": b"4", "a.db": b"new"}
    assert tree(tmp_path / "out") == left


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    """Storage that refuses the file is named, and only rollback is left."""
    ops = KillerOps()
    tx = fstx.begin(tmp_path / "out", ops=ops)
    with pytest.raises(StorageError, match=r"a\.nc"), tx.local_path("a.nc") as local:
        local.write_bytes(b"x")
        ops.fail_at, ops.sticky = len(ops.calls) + 1, True
    ops.fail_at = None
    tx.rollback()
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize("kind", ["local", "memory", "tx over local"])
def test_a_unit_of_a_job_keeps_such_a_file(kind: str, tmp_path: Path, rooms: Path) -> None:
    """H9: what a library wrote in a unit is kept with it, and published by the run that goes on."""
    target = Target(kind, tmp_path / "place")
    target.folder.mkdir()
    how: dict[str, Any] = {"resume": "if_possible", "fingerprint": {"n": 1}}
    with pytest.raises(ZeroDivisionError), fstx.begin(target.url("out"), **how) as tx:
        with tx.unit("one") as unit, unit.local_path("a.h5") as local:
            _h5py(local)
        raise ZeroDivisionError
    with fstx.begin(target.url("out"), **how) as tx:
        assert list(tx.remaining(["one"])) == []
        with tx.local_path("b.nc") as local:
            _netcdf(local)
    found = target.fetch(tmp_path / "copy") / "out"
    assert [_values(found / name) for name in ("a.h5", "b.nc")] == [VALUES.tolist()] * 2
    assert not list(rooms.iterdir())


CHILD = textwrap.dedent(
    """
    import os, signal, sqlite3, sys
    from contextlib import ExitStack
    import h5py, netCDF4
    import fstx

    with fstx.begin(sys.argv[1]) as tx, ExitStack() as stack:
        hdf, cdf, sql = (stack.enter_context(tx.local_path(p, copy=True)) for p in sys.argv[2:])
        hdf = h5py.File(hdf, "r+")
        hdf["v"][:] = 7
        hdf["more"] = [1.0] * 9999
        cdf = netCDF4.Dataset(cdf, "r+")
        cdf["v"][:] = 7
        cdf.sync()
        sql = sqlite3.connect(sql, isolation_level=None)
        sql.execute("BEGIN IMMEDIATE")
        sql.executemany("INSERT INTO t VALUES (?)", [(i,) for i in range(9999)])
        os.kill(os.getpid(), signal.SIGKILL)
    """
)


@pytest.mark.parametrize("place", ["", "tx::"])
def test_a_killed_write_leaves_the_old_files(place: str, tmp_path: Path, rooms: Path) -> None:
    """H10: SIGKILL in the middle of updates changes no byte, and what it left is cleared away later."""
    url = f"{place}{tmp_path}/out"
    before = {}
    with fstx.begin(url) as tx:
        for path, write in {"a.h5": _h5py, "a.nc": _netcdf, "a.db": _sqlite}.items():
            with tx.local_path(path) as local:
                write(local)
                before[path] = local.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, url, *before],
        env={**os.environ, "TMPDIR": str(rooms)},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with fstx.begin(url) as tx:
        assert {path: tx.read(path) for path in tx.paths()} == before
        with tx.local_path("next") as local:
            local.write_bytes(b"next")
    fstx.recover(url)
    assert not list(rooms.iterdir())
    if not place:
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "temporary"]
