"""Readers with nothing of ours, and writers that are killed, on a real S3 server."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import fstx
from fstx.errors import ConflictError, FencedError
from fstx.stores import probe
from fstx.types import OutcomeState
from fstx_conformance.seams.proxy.control import FaultProxy, Rule
from support.emulators import Place
from support.forking import Forks

TESTS = Path(__file__).parents[1]
VRT: dict[str, Any] = {
    "crs": "EPSG:4326",
    "transform": (0, 1, 0, 0, 0, -1),
    "chunks": (32, 32),
}


def full(value: float) -> np.ndarray[Any, Any]:
    return np.full((64, 64), value, "float32")


def gdal(place: Place) -> dict[str, str]:
    """The environment in which GDAL finds the server."""
    client = place.options.get("client_kwargs", {})
    endpoint = place.options.get("endpoint_url") or client["endpoint_url"]
    return {
        "AWS_S3_ENDPOINT": endpoint.partition("://")[2],
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": place.options["key"],
        "AWS_SECRET_ACCESS_KEY": place.options["secret"],
        "AWS_REGION": "us-east-1",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
        "CPL_VSIL_CURL_NON_CACHED": "/vsis3/",
        "VSI_CACHE": "FALSE",
    }


def vsi(url: str) -> str:
    return url.replace("s3://", "/vsis3/")


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "support.plainjobs", *arguments],
        cwd=TESTS,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_gdal_never_reads_a_mixture(s3: Place) -> None:
    """Protects A26 and A33 for /vsis3: a mosaic is replaced again and again under a reader in a loop."""
    pytest.importorskip("rasterio")
    url = f"{s3.url}/dem.vrt"
    fstx.write(full(1), url, storage_options=s3.options, **VRT)
    reader = start("read", vsi(url), "6", **gdal(s3))
    value = 1
    while reader.poll() is None and value < 200:
        value += 1
        fstx.write(full(value), url, overwrite=True, storage_options=s3.options, **VRT)
    out, err = reader.communicate(timeout=60)
    assert reader.returncode == 0, err
    seen = json.loads(out)
    assert len(seen) > 2, f"the reader saw {seen}, {value} were written"
    assert "-1.0" not in seen


def test_what_gdal_reads_is_what_was_written(s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects B through GDAL on S3: values, place, projection, nodata of a mosaic of irregular tiles."""
    rasterio = pytest.importorskip("rasterio")
    da = pytest.importorskip("dask.array")
    for name, text in gdal(s3).items():
        monkeypatch.setenv(name, text)
    array = np.arange(50 * 40, dtype="int16").reshape(50, 40)
    fstx.write(
        da.from_array(array, chunks=((20, 30), (25, 15))),
        f"{s3.url}/dem.vrt",
        storage_options=s3.options,
        crs="EPSG:32633",
        transform=(500000, 10, 0, 5000000, 0, -10),
        nodata=-9,
    )
    with rasterio.open(vsi(f"{s3.url}/dem.vrt")) as found:
        np.testing.assert_array_equal(found.read(1), array)
        assert found.crs.to_epsg() == 32633
        assert tuple(found.transform)[:6] == (10, 0, 500000, 0, -10, 5000000)
        assert found.nodata == -9


def _look(place: Place, name: str) -> tuple[set[float], list[str]]:
    """Values that a plain reader finds, and what lies there beside the home."""
    fs, root = fsspec.url_to_fs(place.url, **place.options)
    fs.invalidate_cache()
    files = [p for p in fs.find(root) if "/.fstx/" not in p]
    if name.endswith(".zarr"):
        zarr = pytest.importorskip("zarr")
        store = zarr.storage.FsspecStore.from_url(
            f"{place.url}/{name}", storage_options=dict(place.options), read_only=True
        )
        if not any(p.endswith(f"{name}/zarr.json") for p in files):
            return set(), files
        return set(np.unique(zarr.open_array(store, mode="r")[...]).tolist()), files
    if not any(p.endswith(name) for p in files):
        return set(), files
    import tifffile

    text = fs.cat_file(f"{root}/{name}").decode()
    tiles = [p for p in files if p[len(root) + 1 :] in text]
    values: set[float] = set()
    for tile in tiles:
        with fs.open(tile) as file:
            values |= set(np.unique(tifffile.imread(file)).tolist())
    assert len(tiles) == 4
    return values, files


@pytest.fixture(scope="module")
def writers() -> Iterator[Forks]:
    """Processes that write, and kill themselves."""
    code = """
import base64, pickle
import numpy, s3fs, tifffile, zarr
import fstx.arrays, fstx.backends.plain, fstx.layouts.vrt, fstx.layouts.zarr3
from fstx.stores import link, probe
from support.plainjobs import write

def run(proofs, *arguments):
    probe._found.update(pickle.loads(base64.b64decode(proofs)))  # else most requests are the probe's
    write(*arguments)
"""
    with Forks(code) as forks:
        yield forks


# Of some 64 requests, and 70: in the looks at first, then beside those that change something.
KILLS = [("dem.vrt", at) for at in (5, 24, 39, 55, 58, 59, 62)]
KILLS += [("a.zarr", at) for at in (5, 17, 28, 34, 38, 39, 42)]


@pytest.mark.parametrize(("name", "at"), KILLS)
def test_a_killed_process_is_settled_by_the_next_writer(
    s3: Place, writers: Forks, name: str, at: int
) -> None:
    """Protects A23 and A24: SIGKILL at a request; readers find all old or all new, and a retry works."""
    url = f"{s3.url}/{name}"
    require = "ATOMIC_SET" if name == "dem.vrt" else "RECOVERABLE"
    given = {"fill_value": -5.0, "chunks": (32, 32)} if name == "a.zarr" else VRT
    fstx.write(full(1), url, storage_options=s3.options, **given)
    options = json.dumps({**s3.options, "require": require})
    proofs = base64.b64encode(pickle.dumps(probe._found)).decode()
    writer = writers.run(proofs, url, options, "2", str(at))
    assert writer.returncode == -9, (writer.stdout, writer.stderr)
    if name == "dem.vrt":
        assert _look(s3, name)[0] in ({1.0}, {2.0})  # before anybody recovered
    fstx.recover(url, **s3.options)
    assert _look(s3, name)[0] in ({1.0}, {2.0})
    fstx.write(full(3), url, overwrite=True, require=require, storage_options=s3.options, **given)
    assert _look(s3, name)[0] == {3.0}


def test_a_lost_answer_is_no_failure(s3_faulty: Place, s3: Place, fault_proxy: FaultProxy) -> None:
    """Protects 5.3: puts that landed although the answer was lost, of parts, the record and the entry."""
    for n, path in enumerate(("/log/", "/dem_tiles/", "dem.vrt"), start=1):
        fault_proxy.clear()
        fault_proxy.rules(Rule("reset_after", method="PUT", path=path, times=1))
        url = f"{s3_faulty.url}/dem.vrt"
        fstx.write(full(n), url, overwrite=True, storage_options=s3_faulty.options, **VRT)
        assert _look(s3, "dem.vrt")[0] == {float(n)}
    fault_proxy.clear()


def test_answers_lost_all_the_time(s3_lossy: Place, s3: Place) -> None:
    """Protects the same with three answers in ten lost: what is told is what is there."""
    url = f"{s3_lossy.url}/a.zarr"
    told = 0
    for n in range(1, 4):
        try:
            fstx.write(
                full(n),
                url,
                overwrite=True,
                require="RECOVERABLE",
                chunks=(32, 32),
                storage_options=s3_lossy.options,
            )
            told = n
        except fstx.StorageError:
            pass  # enough answers lost in a row: given up, and nothing of it is there
        fstx.recover(f"{s3.url}/a.zarr", **s3.options)
        assert _look(s3, "a.zarr")[0] == ({float(told)} if told else set())


def test_the_second_writer_is_told_at_once(remote_place: Place) -> None:
    """Protects A21 and A22: two writers of one target, and the loser finds out before it works."""
    url = f"{remote_place.url}/scene"
    with fstx.begin(url, **remote_place.options) as tx:
        tx.stage("a", b"1")
        with pytest.raises(ConflictError, match="holds"):
            fstx.begin(url, **remote_place.options)
        with fstx.begin(f"{remote_place.url}/other", **remote_place.options) as beside:
            beside.stage("b", b"2")
    with fstx.begin(url, **remote_place.options) as tx:
        assert tx.read("a") == b"1"
        tx.stage("a", b"2")


def test_a_stranger_in_the_way_is_a_conflict(remote_place: Place) -> None:
    """Protects what other programs write: it is neither overwritten nor removed."""
    fs, root = fsspec.url_to_fs(remote_place.url, **remote_place.options)
    with (
        pytest.raises(fstx.CommitError),
        fstx.begin(
            f"{remote_place.url}/scene", mode="create", entry="index", **remote_place.options
        ) as tx,
    ):
        tx.stage("tiles/0", b"ours" * 1000)
        fs.pipe_file(f"{root}/scene/stranger", b"theirs")
        tx.stage("index", b"x")
    fs.invalidate_cache()
    assert [p[len(root) + 1 :] for p in fs.find(f"{root}/scene")] == ["scene/stranger"]


def test_a_writer_that_was_given_up_learns_it(s3: Place) -> None:
    """Protects FENCED: a writer that others took for dead can't publish afterwards."""
    from fstx.backends.plain import owner

    url = f"{s3.url}/scene"
    tx = fstx.begin(url, mode="create", entry="index", **s3.options)
    tx.stage("tiles/0", b"old" * 1000)
    owner.closed(tx.txid)  # type: ignore[attr-defined]
    fstx.recover(url, **s3.options)
    with fstx.begin(url, mode="create", entry="index", **s3.options) as second:
        second.stage("index", b"second")
    tx.stage("index", b"first")
    with pytest.raises(FencedError):
        tx.commit()
    with fsspec.open(f"{url}/index", **s3.options) as file:
        assert file.read() == b"second"
    assert fstx.outcome(url, second.id, **s3.options) is OutcomeState.COMMITTED


def test_a_server_that_lies_is_refused(s3_strip: Place) -> None:
    """Protects honesty: a server that ignores conditions gets no transaction, and nothing is written."""
    with pytest.raises(fstx.CapabilityError, match="no transaction can be committed"):
        fstx.write(full(1), f"{s3_strip.url}/a.zarr", storage_options=s3_strip.options)
