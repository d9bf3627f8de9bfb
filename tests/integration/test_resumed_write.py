"""fstx.write with resume=: what a killed or failed run finished is kept, and only the rest is computed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import zarr

import fstx
from fstx.cli.app import run
from fstx.errors import ResumeError, UsageError
from support.places import PLACES, Target, logical
from support.trees import tree

SIDE, CHUNK = 64, 16
BLOCKS = (SIDE // CHUNK) ** 2
GEO = {"crs": "EPSG:4326", "transform": (0, 1, 0, 0, 0, -1)}
KINDS: dict[str, dict[str, Any]] = {
    "a.vrt": {**GEO, "chunks": (CHUNK, CHUNK), "tile_size": 16},
    "a.zarr": {"chunks": (CHUNK, CHUNK)},
    "s.zarr": {"chunks": (CHUNK // 2, CHUNK // 2), "shards": (CHUNK, CHUNK)},
}
JOB = {"fingerprint": {"elevation": 3}}
DATA = np.arange(SIDE * SIDE, dtype="f4").reshape(SIDE, SIDE)

CHILD = textwrap.dedent(
    """
    import json, os, signal, sys, time
    import numpy as np
    import fstx

    url, options, fatal, when = sys.argv[1:]
    data = np.arange(64 * 64, dtype="f4").reshape(64, 64)

    class Fatal:
        shape, dtype, asked = data.shape, data.dtype, 0

        def __getitem__(self, region):
            self.asked += region[0].stop > region[0].start
            if self.asked == int(when) + 1:  # so many are finished
                os.kill(os.getpid(), getattr(signal, fatal))
                time.sleep(0.5)
            return data[region]

    fstx.write(Fatal(), url, resume="if_possible", fingerprint={"elevation": 3}, max_workers=1,
        **json.loads(options))
    """
)


class Counted:
    """An array that remembers which blocks were asked for, and fails at one of them."""

    shape, dtype = DATA.shape, DATA.dtype

    def __init__(self, fails: tuple[int, int] | None = None) -> None:
        self.fails = fails
        self.asked: list[tuple[int, int]] = []

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray[Any, Any]:
        block = tuple(r.start // CHUNK for r in region)
        if region[0].stop > region[0].start:
            self.asked.append(block)
        if block == self.fails:
            raise ZeroDivisionError("no such block")
        return DATA[region]


def killed(url: Path, name: str, fatal: str, when: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(url), json.dumps(KINDS[name]), fatal, str(when)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def values(url: Path) -> np.ndarray[Any, Any]:
    if url.suffix == ".zarr":
        return np.asarray(zarr.open_array(url, mode="r")[:])
    with rasterio.open(url) as opened:
        return opened.read(1)


def half(array: Any, url: Any, name: str, **how: Any) -> None:
    """A run that fails on its way."""
    with pytest.raises(ZeroDivisionError) as caught:
        fstx.write(array, url, resume="if_possible", **JOB, **KINDS[name], **how)
    assert "finished units are kept in " in caught.value.__notes__[-1]


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_write_goes_on(name: str, tmp_path: Path) -> None:
    """D32: SIGKILL in the middle; the second run asks for the rest only; bytes equal an undisturbed run."""
    url = tmp_path / "killed" / name
    url.parent.mkdir()
    assert killed(url, name, "SIGKILL", 7).returncode == -signal.SIGKILL
    assert os.listdir(url.parent) == [".fstx"]
    array = Counted()
    done = fstx.write(array, url, resume="always", max_workers=1, **JOB, **KINDS[name])
    assert BLOCKS - 8 <= len(set(array.asked)) == len(array.asked) <= BLOCKS - 7
    whole = tmp_path / "whole" / name
    whole.parent.mkdir()
    fstx.write(DATA, whole, max_workers=1, **KINDS[name])
    assert tree(url.parent) == tree(whole.parent)
    assert (values(url) == DATA).all()
    kept = BLOCKS - len(array.asked)
    assert done.reason == (
        f"{kept} of {BLOCKS} units were finished by earlier runs, {BLOCKS - kept} by this one"
    )
    assert fstx.jobs(url) == []


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    """D32: SIGINT suspends: the message says what is kept and how to go on, and the next run does."""
    url = tmp_path / "a.zarr"
    told = killed(url, "a.zarr", "SIGINT", 5)
    assert told.returncode != 0
    assert "KeyboardInterrupt" in told.stderr
    assert "the same call with resume='if_possible' goes on" in told.stderr
    assert os.listdir(tmp_path) == [".fstx"]
    array = Counted()
    fstx.write(array, url, resume="always", **JOB, **KINDS["a.zarr"])
    assert len(array.asked) <= BLOCKS - 5
    assert os.listdir(tmp_path) == ["a.zarr"]
    assert (values(url) == DATA).all()


@pytest.mark.parametrize("place", PLACES)
def test_a_failed_write_goes_on_everywhere(place: str, tmp_path: Path) -> None:
    """D32: a block that fails keeps the others, on each kind of storage."""
    target = Target(place, tmp_path)
    how = {"storage_options": target.options, "scheduler": "synchronous"}
    url = target.url("s.zarr")
    half(Counted(fails=(2, 1)), url, "s.zarr", **how)
    assert [p for p in logical(target.base, {}) if p.startswith("s.zarr")] == []
    array = Counted()
    fstx.write(array, url, resume="always", **JOB, **KINDS["s.zarr"], **how)
    assert array.asked[0] == (2, 1)
    assert len(array.asked) == BLOCKS - 9
    found = logical(target.base, {})
    assert len([p for p in found if p.startswith("s.zarr/c/")]) == BLOCKS


def test_source_chunks_of_finished_blocks_are_not_computed(tmp_path: Path) -> None:
    """D32: the graph is culled, also where source chunks differ: only what is missing is computed."""
    asked: list[tuple[int, ...]] = []
    failing = [True]

    def load(block: np.ndarray[Any, Any], block_info: Any = None) -> np.ndarray[Any, Any]:
        where = block_info[0]["chunk-location"]
        asked.append(where)
        if failing and where == (2, 0):
            raise ZeroDivisionError("chunk")
        return block

    def strips() -> Any:
        return da.from_array(DATA, chunks=(8, 64)).map_blocks(load, dtype="f4")

    how = {"chunks": (16, 64)}
    with pytest.raises(ZeroDivisionError):
        fstx.write(
            strips().rechunk((16, 64)),
            tmp_path / "a.zarr",
            resume="if_possible",
            scheduler="synchronous",
            **JOB,
            **how,
        )
    finished = fstx.jobs(tmp_path / "a.zarr")[0].units
    assert 1 <= finished <= 3
    asked.clear()
    failing.clear()
    array = strips().rechunk((16, 64))
    fstx.write(array, tmp_path / "a.zarr", resume="always", scheduler="threads", **JOB, **how)
    assert len(set(asked)) == len(asked) == 8 - 2 * finished
    assert (2, 0) in asked
    assert (values(tmp_path / "a.zarr") == DATA).all()


def test_blocks_of_an_unfinished_shard_are_computed_again(tmp_path: Path) -> None:
    """D32, F23: the unit of a sharded array is a shard, whole or not at all."""
    asked: list[tuple[int, ...]] = []

    def load(block: np.ndarray[Any, Any], block_info: Any = None) -> np.ndarray[Any, Any]:
        where = block_info[0]["chunk-location"]
        asked.append(where)
        if fails == where:
            raise ZeroDivisionError("chunk")
        return block

    def source() -> Any:
        return da.from_array(DATA, chunks=CHUNK).map_blocks(load, dtype="f4")

    how = {"chunks": (8, 8), "shards": (32, 32), "scheduler": "synchronous", **JOB}
    fails = (2, 1)
    with pytest.raises(ZeroDivisionError):
        fstx.write(source(), tmp_path / "s.zarr", resume="if_possible", **how)
    finished = fstx.jobs(tmp_path / "s.zarr")[0].units
    assert 1 <= finished <= 3
    asked.clear()
    fails = ()  # type: ignore[assignment]
    fstx.write(source(), tmp_path / "s.zarr", resume="always", **how)
    assert len(set(asked)) == len(asked) == 4 * (4 - finished)
    assert (values(tmp_path / "s.zarr") == DATA).all()


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as made,
    ):
        yield made


def last_waits(block: np.ndarray[Any, Any], url: str, block_info: Any = None) -> Any:
    """The last block fails, once the coordinator has recorded the first shard."""
    if block_info and block_info[0]["chunk-location"] == (3, 3):
        deadline = time.monotonic() + 60
        while not any(job.units for job in fstx.jobs(url)):
            assert time.monotonic() < deadline, "no unit was finished while blocks were to come"
            time.sleep(0.02)
        raise ZeroDivisionError("last")
    return block


def counts(block: np.ndarray[Any, Any], folder: str, block_info: Any = None) -> Any:
    if block_info and block.size:
        (Path(folder) / "-".join(map(str, block_info[0]["chunk-location"]))).touch()
    return block


@pytest.mark.parametrize("kind", ["processes", "distributed"])
def test_units_are_finished_as_blocks_come_back(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """D32, E3: workers stage, the coordinator keeps each shard at once; the rest alone is computed later."""
    scheduler: Any = request.getfixturevalue("client") if kind == "distributed" else "processes"
    url = tmp_path / "s.zarr"
    asked = tmp_path / "asked"
    asked.mkdir()
    how: dict[str, Any] = {"chunks": (8, 8), "shards": (16, 64), "scheduler": scheduler, **JOB}
    source = da.from_array(DATA, chunks=CHUNK)
    with pytest.raises(ZeroDivisionError):
        array = source.map_blocks(last_waits, str(url), dtype="f4")
        fstx.write(array, url, resume="if_possible", **how)
    finished = fstx.jobs(url)[0].units
    assert 1 <= finished <= 3
    again = source.map_blocks(counts, str(asked), dtype="f4")
    if kind == "processes":
        how["scheduler"] = "threads"  # another scheduler is no other job
    done = fstx.write(again, url, resume="always", **how)
    assert len(os.listdir(asked)) == 4 * (4 - finished)
    assert f"{finished} of 4 units were finished by earlier runs" in done.reason
    assert (values(url) == DATA).all()
    assert len([p for p in (url / "c").rglob("*") if p.is_file()]) == 4


def test_another_configuration_is_another_job(tmp_path: Path) -> None:
    """D2, D3, D18: with other data or options always raises, if_possible begins anew beside it."""
    url = tmp_path / "a.zarr"
    half(Counted(fails=(2, 1)), url, "a.zarr")
    others: list[tuple[dict[str, Any], str]] = [
        ({"level": 9}, "codec.level was 3, is 9"),
        ({"fingerprint": {"elevation": 4}}, "data elevation was 3, is 4"),
        ({"chunks": (32, 32)}, "grid was ((16, 16"),
    ]
    for other, words in others:
        with pytest.raises(ResumeError, match=f"configured otherwise: .*{re.escape(words)}"):
            fstx.write(Counted(), url, resume="always", **{**JOB, **KINDS["a.zarr"], **other})
    array = Counted()
    fstx.write(array, url, resume="if_possible", **{**JOB, **KINDS["a.zarr"], "level": 9})
    assert len(array.asked) == BLOCKS
    assert len(fstx.jobs(url)) == 1


@pytest.mark.parametrize("resume", ["always", "if_possible"])
def test_a_mosaic_that_was_replaced_meanwhile(resume: str, tmp_path: Path) -> None:
    """D2, D3: tiles that were kept for a place that is taken now are never mixed with another's."""
    url = tmp_path / "a.vrt"
    fstx.write(DATA, url, **KINDS["a.vrt"])
    half(Counted(fails=(3, 1)), url, "a.vrt", overwrite=True)
    fstx.write(DATA + 1, url, overwrite=True, **KINDS["a.vrt"])
    array = Counted()
    how = {**JOB, **KINDS["a.vrt"], "overwrite": True}
    if resume == "always":
        with pytest.raises(ResumeError, match="was replaced since its unfinished job began"):
            fstx.write(array, url, resume=resume, **how)
        assert (values(url) == DATA + 1).all()
        assert array.asked == []
        return
    fstx.write(array, url, resume=resume, **how)
    assert len(array.asked) == BLOCKS
    assert (values(url) == DATA).all()


@pytest.mark.parametrize("name", ["a.vrt", "a.zarr"])
def test_a_replacement_goes_on(name: str, tmp_path: Path) -> None:
    """D32: what replaces another output: kept tiles are of its own generation, the old one stays."""
    url = tmp_path / name
    fstx.write(DATA + 1, url, **KINDS[name])
    how = {**JOB, **KINDS[name], "overwrite": True, "max_workers": 1}
    with pytest.raises(ZeroDivisionError):
        fstx.write(Counted(fails=(3, 1)), url, resume="if_possible", **how)
    assert (values(url) == DATA + 1).all()
    array = Counted()
    fstx.write(array, url, resume="always", compute=False, **how).compute(scheduler="sync")
    assert array.asked == [(3, 1), (3, 2), (3, 3)]
    assert (values(url) == DATA).all()


def test_a_kill_after_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D2, I5: what was committed when the kill came is not written again, and nothing of the job is left."""
    url = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:  # dies between the commit and the clearing
        patch.setattr(fstx.ResumableTransaction, "_clear", lambda tx: tx.depot.close())
        fstx.write(DATA, url, resume="if_possible", **JOB, **KINDS["a.zarr"])
    before = {p: d for p, d in tree(tmp_path).items() if not p.startswith(".fstx/")}
    array = Counted()
    done = fstx.write(array, url, resume="always", **JOB, **KINDS["a.zarr"])
    assert array.asked == []
    assert done.reason == "committed before"
    assert fstx.jobs(url) == []
    assert tree(tmp_path) == before


def test_what_can_not_be_resumed_is_refused_first(tmp_path: Path) -> None:
    """D2: one file, a region, no fingerprint, an unknown mode, nothing to resume: said before any work."""
    array = Counted()
    with pytest.raises(UsageError, match=r"a\.npy is one file"):
        fstx.write(array, tmp_path / "a.npy", resume="if_possible", **JOB)
    with pytest.raises(UsageError, match="region= and append_dim= go without"):
        fstx.write(array, tmp_path / "a.zarr", resume="always", append_dim=0, **JOB)
    with pytest.raises(UsageError, match="needs fingerprint="):
        fstx.write(array, tmp_path / "a.zarr", resume="always")
    with pytest.raises(UsageError, match=r"fingerprint= .* pass resume= too"):
        fstx.write(array, tmp_path / "a.zarr", **JOB)
    with pytest.raises(UsageError, match="resume='often'"):
        fstx.write(array, tmp_path / "a.zarr", resume="often", **JOB)
    with pytest.raises(ResumeError, match="nothing to resume"):
        fstx.write(array, tmp_path / "a.zarr", resume="always", **JOB)
    assert array.asked == []
    assert os.listdir(tmp_path) == []


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D2, D32: --resume and --fingerprint; `fstx jobs` lists what is kept, and drops it by name."""
    source, url = tmp_path / "a.npy", tmp_path / "out" / "a.zarr"
    np.save(source, DATA)
    url.parent.mkdir()
    call = ["write", str(source), str(url), "--chunks", "16", "--resume"]
    assert run([*call, "always"]) == 2
    assert "--resume needs --fingerprint" in capsys.readouterr().err
    assert run([*call, "always", "--fingerprint", "v1"]) == 1
    assert "nothing to resume" in capsys.readouterr().err
    half(Counted(fails=(2, 1)), url, "a.zarr")
    assert run(["jobs", str(url), "--json"]) == 0
    (job,) = json.loads(capsys.readouterr().out)["jobs"]
    assert job["units"] > 0
    assert run(["jobs", str(url), "--discard", job["name"]]) == 0
    assert capsys.readouterr().out.startswith(f"discarded {job['targets'][0]}: ")
    assert run(["jobs", str(url)]) == 0
    assert "no unfinished job" in capsys.readouterr().out
    assert run(["jobs", str(url), "--discard", "x"]) == 2
    capsys.readouterr()
    assert run([*call, "if_possible", "--fingerprint", "v1", "--json"]) == 0
    assert (values(url) == DATA).all()


def test_ctrl_c_on_the_command_line(tmp_path: Path) -> None:
    """D32: exit code 130 and one line: what is kept, and the option that goes on."""
    source, url = tmp_path / "a.npy", tmp_path / "out" / "a.zarr"
    np.save(source, np.arange(2000 * 2000, dtype="f4").reshape(2000, 2000))
    url.parent.mkdir()
    call = [sys.executable, "-m", "fstx.cli", "write", str(source), str(url), "--chunks", "32"]
    call += ["--resume", "if_possible", "--fingerprint", "v1", "--max-workers", "1"]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as child:
        while child.poll() is None and not any(job.units > 5 for job in fstx.jobs(url)):
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        told = child.communicate(timeout=60)[1]
    assert child.returncode == 130, told
    assert "finished units are kept in " in told
    assert "the same call with --resume 'if_possible' goes on" in told
    assert fstx.jobs(url)[0].units > 5
    assert not url.exists()
