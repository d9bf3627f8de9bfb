"""Transactions on the calls of Windows itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import fstx
from fstx.errors import PathError, TargetExistsError
from fstx.types import Capability, OutcomeState
from support.localjobs import JOBS, Job
from wine.suite.programs import Disk


@pytest.fixture(params=list(JOBS))
def job(request: pytest.FixtureRequest) -> Job:
    return JOBS[request.param]


def test_commit(job: Job, tmp_path: Path) -> None:
    """A18, A23 on Windows: the new state whole, nothing left beside it."""
    disk = Disk(tmp_path)
    disk.put(job.old)
    job.run(disk)
    assert disk.found() == job.new


def test_rollback(job: Job, tmp_path: Path) -> None:
    """An exception in the body leaves the old state and nothing else."""
    disk = Disk(tmp_path)
    disk.put(job.old)
    with pytest.raises(RuntimeError, match="stop"):
        job.run(disk, fail=True)
    assert disk.found() == job.old


def test_modes(tmp_path: Path) -> None:
    """create, update and replace through the front, by a path with a drive."""
    target = tmp_path / "t"
    with fstx.begin(target, mode="create") as tx:
        tx.stage("s/a", b"1")
        tx.stage("b", b"2")
    with pytest.raises(TargetExistsError), fstx.begin(target, mode="create"):
        pass
    with fstx.begin(str(target), mode="update") as tx:
        tx.stage("s/a", b"3")
        tx.remove("b")
    assert Disk(tmp_path).found() == {"t/s/a": b"3"}
    with fstx.begin(target.as_posix(), mode="replace", id="job") as tx:
        tx.stage("c", b"4")
    assert (target / "c").read_bytes() == b"4"
    assert fstx.outcome(target, "job") is OutcomeState.COMMITTED


def test_names(tmp_path: Path) -> None:
    """B9: what Windows can't hold is refused before a byte is written."""
    with pytest.raises(PathError, match="device"), fstx.begin(tmp_path / "nul.zarr"):
        pass
    with fstx.begin(tmp_path / "t", mode="create") as tx, pytest.raises(PathError, match="':'"):
        tx.stage("s/a:b", b"x")
    assert Disk(tmp_path).found() == {}


def test_targets_one_in_another(tmp_path: Path) -> None:
    """A target that lies in another is refused, also with the separator of Windows and in other case."""
    (tmp_path / "T").mkdir()
    for inner in ("T\\s", "t/s"):
        with pytest.raises(PathError, match="lies in the target"):
            fstx.begin([str(tmp_path / "T"), f"{tmp_path}\\{inner}"], mode="update")
    assert Disk(tmp_path).found() == {"T/": b""}


def test_absent_drive() -> None:
    """A drive that is not there is told, not searched for."""
    with pytest.raises(PathError, match="Q:"):
        fstx.begin("Q:\\data\\t", mode="create")


def test_guarantee(tmp_path: Path) -> None:
    """The gap of a swap is told, and so is what Windows can't make durable."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a").write_bytes(b"1")
    promised = fstx.guarantee(tmp_path / "t", mode="replace")
    assert promised.strategy == "swap"
    assert Capability.NO_GAP not in promised
    assert Capability.DURABLE not in promised
    assert {Capability.RECOVERABLE, Capability.CONFLICT_DETECTED} <= set(promised.capabilities)
