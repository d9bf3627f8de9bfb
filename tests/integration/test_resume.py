"""Resumable jobs on each kind of storage: what was finished counts, whatever ended the run."""

from __future__ import annotations

import json
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx.resuming import ResumableTransaction
from support.places import PLACES, Target, logical

CONFIG = {"seed": 1, "units": 6}
CONTENT = {f"p/{n}.bin": bytes([n]) * (1000 * n + 1) for n in range(6)}
Begin = Callable[..., ResumableTransaction]


@pytest.fixture(params=PLACES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    (tmp_path / "place").mkdir()
    return Target(request.param, tmp_path / "place")


def _begin(target: Target, name: str = "out", **options: Any) -> ResumableTransaction:
    given: dict[str, Any] = {"resume": "if_possible", "fingerprint": CONFIG, **target.options}
    made = fstx.begin(target.url(name), **{**given, **options})
    assert isinstance(made, ResumableTransaction)
    return made


def _jobs(target: Target, name: str = "out") -> list[fstx.Job]:
    return fstx.jobs(target.url(name), **target.options)


def _do(tx: ResumableTransaction, n: int) -> None:
    with tx.unit(n) as unit:
        unit.stage(f"p/{n}.bin", CONTENT[f"p/{n}.bin"])
        unit.info["rows"] = n


def _some(target: Target, *numbers: int, **options: Any) -> None:
    """A run that finishes some units and then fails."""
    with pytest.raises(RuntimeError) as caught, _begin(target, **options) as tx:
        for n in numbers:
            _do(tx, n)
        raise RuntimeError("the job failed")
    assert f"{len(tx.done)} finished units are kept" in caught.value.__notes__[-1]


def _found(target: Target) -> dict[str, bytes]:
    found = logical(target.base, {})
    return {k.removeprefix("out/"): v for k, v in found.items()}


def test_a_failed_job_goes_on(target: Target) -> None:
    """D3, D7: units that were finished, in any order, are not done again; readers see nothing before."""
    _some(target, 4, 0, 2)
    assert _found(target) == {}
    with _begin(target) as tx:
        assert list(tx.remaining(range(6))) == [1, 3, 5]
        assert tx.done_before == {"0", "2", "4"}
        assert tx.done["4"].info == {"rows": 4}
        assert sorted(tx.paths()) == ["p/0.bin", "p/2.bin", "p/4.bin"]
        assert tx.read("p/2.bin", 1, 3) == b"\x02\x02"
        for n in tx.remaining(range(6)):
            _do(tx, n)
        tx.stage("index.json", b"{}")
    assert tx.committed
    assert _found(target) == {**CONTENT, "index.json": b"{}"}
    assert _jobs(target) == []


def test_nothing_of_a_job_is_left(target: Target) -> None:
    """D28: after the commit nothing of the job lies in the target or beside it."""
    _some(target, 1)
    with _begin(target) as tx:
        for n in tx.remaining(range(6)):
            _do(tx, n)
    if not target.kind.startswith("tx"):
        assert sorted(target.found()) == [f"out/{p}" for p in sorted(CONTENT)]
    if target.kind == "tx over local":
        left = [p for p in (target.folder / "out" / ".fstx" / "jobs").rglob("*") if p.is_file()]
        assert left == []


def test_the_three_modes(target: Target) -> None:
    """D1, D2, D3: always goes on or raises; never begins anew and leaves the old; if_possible chooses."""
    with pytest.raises(fstx.ResumeError, match="nothing to resume"):
        _begin(target, resume="always")
    _some(target, 0, 1)
    with pytest.raises(fstx.ResumeError, match="units was 6, is 7"):
        _begin(target, resume="always", fingerprint={**CONFIG, "units": 7})
    _some(target, 2, fingerprint={**CONFIG, "units": 7})
    assert sorted(job.units for job in _jobs(target)) == [1, 2]
    with _begin(target, resume="always") as tx:
        assert tx.done_before == {"0", "1"}
        tx.suspend()
    fresh = _begin(target, resume="never")
    assert fresh.done == {}
    fresh.rollback()
    assert sorted(job.units for job in _jobs(target)) == [1, 2]
    assert _found(target) == {}


def test_bad_calls_are_refused(target: Target) -> None:
    """Bad input is refused before a byte is written: modes, fingerprints, ids, paths."""
    with pytest.raises(fstx.UsageError, match="'never', 'always'"):
        _begin(target, resume="sometimes")
    with pytest.raises(fstx.UsageError, match="needs fingerprint="):
        _begin(target, fingerprint=None)
    with pytest.raises(fstx.UsageError, match="pass resume="):
        fstx.begin(target.url("out"), fingerprint=CONFIG, **target.options)
    assert _jobs(target) == []
    tx = _begin(target)
    for bad in ("", (), None, True, 1.5, "a\nb", ("a", None)):
        with pytest.raises(fstx.UsageError, match="id"), tx.unit(bad):  # type: ignore[arg-type]
            raise AssertionError
    with pytest.raises(fstx.PathError), tx.unit("x") as unit:
        unit.stage("../x", b"")
    _do(tx, 1)
    with pytest.raises(fstx.StateError, match="unit 1 is finished"), tx.unit("1"):
        raise AssertionError
    with pytest.raises(fstx.PathError, match=r"written by unit 1"), tx.unit(2) as unit:
        unit.stage("p/1.bin", b"")
    with pytest.raises(fstx.PathError, match=r"written by unit 1"):
        tx.stage("p/1.bin", b"")
    with pytest.raises(fstx.UsageError, match="plain JSON"), tx.unit(3) as unit:
        unit.info["x"] = object()
    with pytest.raises(TypeError, match="unit_stager"):
        pickle.dumps(tx)
    assert list(tx.done) == ["1"]
    tx.rollback()
    assert _jobs(target) == []
    with pytest.raises(fstx.StateError, match="is over"), tx.unit(4):
        raise AssertionError


def test_a_unit_without_output_is_done(target: Target) -> None:
    """D11: a unit that legitimately wrote nothing is recorded, and not done again."""
    with pytest.raises(RuntimeError), _begin(target) as tx:
        with tx.unit("empty"):
            pass
        raise RuntimeError
    with _begin(target) as tx:
        assert tx.is_done("empty")
        _do(tx, 1)
    assert _found(target) == {"p/1.bin": CONTENT["p/1.bin"]}


def test_a_failing_unit_leaves_nothing(target: Target) -> None:
    """D25: what a unit staged before it failed is gone; later units and the run go on."""
    with _begin(target) as tx:
        with pytest.raises(ValueError, match="midway"), tx.unit(1) as unit:
            unit.stage("p/1.bin", b"half")
            raise ValueError("midway")
        assert not tx.is_done(1)
        _do(tx, 1)
        _do(tx, 2)
    assert _found(target) == {p: CONTENT[p] for p in ("p/1.bin", "p/2.bin")}


def test_a_conflict_keeps_the_units(target: Target) -> None:
    """D27: a commit that fails loses no unit; the job goes on once the obstacle is gone."""
    _some(target, 0, mode="create")
    with fstx.begin(target.url("out"), **target.options) as other:
        other.stage("x", b"theirs")
    with pytest.raises(fstx.TargetExistsError):
        _begin(target, mode="create", resume="always")
    assert [job.units for job in _jobs(target)] == [1]
    with pytest.raises(fstx.ResumeError, match="mode was create, is update"):
        _begin(target, mode="update", resume="always")


def test_an_id_names_a_job(target: Target) -> None:
    """D22: a chosen id: the second run of a finished job does no work, and jobs of two ids don't mix."""
    _some(target, 0, id="a")
    with _begin(target, id="b") as tx:
        assert tx.done == {}
        _do(tx, 1)
    with _begin(target, id="a") as tx:
        assert tx.done_before == {"0"}
        _do(tx, 2)
    again = _begin(target, id="a")
    assert again.committed
    assert again.done == {}
    assert sorted(_found(target)) == ["p/0.bin", "p/1.bin", "p/2.bin"]
    assert _jobs(target) == []


def test_workers_stage_and_the_coordinator_finishes(target: Target) -> None:
    """E15: receipts of workers finish a unit; a task that ran twice counts once; foreign ones are refused."""
    with _begin(target) as tx:
        stager = tx.unit_stager()
        first = stager.stage("p/1.bin", CONTENT["p/1.bin"])
        second = stager.stage("p/1.bin", b"by a task that ran twice")
        assert tx.finish(1, [first], info={"rows": 1}).objects[0].object == first
        assert tx.finish(1, [second]).objects[0].object == first
        with _begin(target, "other") as other:
            foreign = other.unit_stager().stage("x", b"")
            with pytest.raises(fstx.StateError, match="another job"):
                tx.finish(2, [foreign])
            other.rollback()
        lost = fstx.StagedObject("y", first.key, 12345, first.txid)
        with pytest.raises(fstx.StorageError, match="12345 bytes expected"):
            tx.finish(3, [lost])
    assert _found(target) == {"p/1.bin": CONTENT["p/1.bin"]}


def test_jobs_are_listed_and_dropped(target: Target) -> None:
    """A job that nobody will finish is shown with what it is about, and goes when it is told to."""
    _some(target, 1, 2)
    (job,) = _jobs(target)
    assert job.units == 2
    assert job.size_bytes == len(CONTENT["p/1.bin"]) + len(CONTENT["p/2.bin"])
    assert "2 units" in str(job)
    job.discard()
    assert _jobs(target) == []
    with pytest.raises(fstx.ResumeError, match="nothing to resume"):
        _begin(target, resume="always")


def test_recover_leaves_what_can_be_resumed(target: Target) -> None:
    """RESUME-7: settling dead writers and writing beside a job take nothing from it."""
    _some(target, 1, 2)
    fstx.recover(target.url("out"), **target.options)
    with fstx.begin(target.url("out"), **target.options) as other:
        other.stage("x", b"theirs")
    if target.kind.startswith("tx"):
        fstx.dataset(target.url("out")).collect(keep=1, dry_run=False, older_than_s=0)
        assert fstx.dataset(target.url("out")).verify().ok
    with _begin(target, resume="always") as tx:
        assert tx.done_before == {"1", "2"}
        _do(tx, 3)
    assert sorted(_found(target)) == ["p/1.bin", "p/2.bin", "p/3.bin", "x"]


# --- what lies on a disk may be damaged ----------------------------------------------------------


def _depot(folder: Path) -> Path:
    (found,) = (folder / ".fstx" / "jobs").iterdir()
    return found


@pytest.fixture
def local(tmp_path: Path) -> Target:
    return Target("local", tmp_path / "place")


@pytest.mark.parametrize("keep", [0, 1, 0.3, 0.9, -1])
def test_a_damaged_configuration_is_told(local: Target, keep: float) -> None:
    """D15, D19: a record that was cut off or changed at any place is a clear error that names it."""
    _some(local, 1)
    record = _depot(local.folder) / "job.json"
    whole = record.read_bytes()
    at = int(keep * len(whole)) if 0 < keep < 1 else int(keep)
    record.write_bytes(whole[:at])
    for resume in ("always", "if_possible"):
        with pytest.raises(fstx.ResumeError) as caught:
            _begin(local, resume=resume)
        assert str(record) in str(caught.value)
        assert "resume='never'" in str(caught.value)
    (job,) = _jobs(local)
    assert "can't be read" in job.problem
    _begin(local, resume="never").rollback()


@pytest.mark.parametrize("name", ["token", "mode", "targets", "digest", "version", "id", "boot"])
def test_a_missing_field_is_named(local: Target, name: str) -> None:
    """D16: each required field that is missing, or of another kind, is named; no KeyError."""
    from fstx.state.sealing import seal, unseal

    _some(local, 1)
    record = _depot(local.folder) / "job.json"
    value = unseal(record.read_bytes(), "")
    for broken in ({k: v for k, v in value.items() if k != name}, {**value, name: None}):
        record.write_bytes(seal(broken))
        with pytest.raises(fstx.ResumeError, match=f"the field '{name}'"):
            _begin(local)
    record.write_bytes(seal({**value, "format": 99}))
    with pytest.raises(fstx.ResumeError, match="format 99"):
        _begin(local)


def test_a_torn_or_hostile_line_is_a_unit_not_done(local: Target) -> None:
    """A32, D14, I10: records that are torn, damaged or name other places count as nothing."""
    from fstx.state.sealing import seal

    _some(local, 0, 1, 2)
    log = _depot(local.folder) / "units.log"
    first, second, third = log.read_bytes().splitlines(keepends=True)
    hostile = {"format": 1, "unit": "9", "info": {}}
    bad = [
        seal({**hostile, "objects": [["x", "../../../secret", 3, "", False]]}),
        seal({**hostile, "objects": [["../x", "a/y", 3, "", False]]}),
        seal({**hostile, "objects": [["x", "a/y", -1, "", False]]}),
        seal({**hostile, "objects": 3}),
        b"0" * 32 + seal({**hostile, "objects": []})[32:],  # whole, but not what was written
        b"\xff\xfe not a record\n",
        b"\n",
    ]
    log.write_bytes(first + second[:-20] + b"\n" + b"".join(bad) + third[: len(third) // 2])
    with pytest.warns(RuntimeWarning, match="are not there whole"):
        tx = _begin(local)
    with tx:
        assert set(tx.done) == {"0"}
        for n in tx.remaining(range(3)):
            _do(tx, n)
    assert _found(local) == {p: CONTENT[p] for p in ("p/0.bin", "p/1.bin", "p/2.bin")}


def test_what_a_record_names_must_be_there(local: Target) -> None:
    """D29: a unit of which a file is missing or cut off is done again; files that no unit names go."""
    _some(local, 0, 1, 2)
    depot = _depot(local.folder)
    lines = [
        json.loads(x.partition(b" ")[2]) for x in (depot / "units.log").read_bytes().splitlines()
    ]
    keys = [line["objects"][0][1] for line in lines]
    (depot / keys[0]).unlink()
    with (depot / keys[1]).open("r+b") as file:
        file.truncate(1)
    (depot / "a" / "stray").write_bytes(b"of a killed worker")
    with pytest.warns(RuntimeWarning, match="2 units"):
        tx = _begin(local)
    assert set(tx.done) == {"2"}
    assert not (depot / "a" / "stray").exists()
    tx.rollback()


def test_after_a_loss_of_power_bytes_are_compared(
    local: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D10: under another kernel a unit whose bytes changed at the right length is done again."""
    _some(local, 1, 2)
    depot = _depot(local.folder)
    line = json.loads((depot / "units.log").read_bytes().splitlines()[0].partition(b" ")[2])
    damaged = depot / line["objects"][0][1]
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx = _begin(local)
    assert set(tx.done) == {"1", "2"}  # the same kernel: lengths prove it
    tx.suspend()
    monkeypatch.setattr("fstx.backends.local.depot.boot_id", lambda: "another life")
    with pytest.warns(RuntimeWarning, match="1 units"):
        tx = _begin(local)
    assert set(tx.done) == {"2"}
    tx.rollback()


def test_drawn_runs_end_exactly(local: Target) -> None:
    """D4-D7: drawn orders and failures over many runs: each unit counts once, and the result is exact."""
    draw = random.Random(7)
    for round_ in range(10):
        runs, did = 0, 0
        while True:
            runs += 1
            try:
                with _begin(local, f"r{round_}") as tx:
                    todo = list(tx.remaining(range(6)))
                    draw.shuffle(todo)
                    for n in todo:
                        if draw.random() < 0.3:
                            raise RuntimeError
                        _do(tx, n)
                        did += 1
                break
            except RuntimeError:
                assert runs < 100
        assert did == 6
        found = logical(local.base, {})
        assert {p: found[f"r{round_}/{p}"] for p in CONTENT} == CONTENT
