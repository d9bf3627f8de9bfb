"""Coordinators killed while workers stage: another process takes the job over; zombies do no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fstx
from support.places import logical
from support.trees import tree
from support.workerjobs import JOB, UNITS, content, ends, killed_coordinator, receipt_of

WHOLE = {f"u/{n}": content(n) for n in range(UNITS)}
DONE = 5


@pytest.fixture
def workers(tmp_path: Path) -> Path:
    """Where workers and coordinators meet."""
    folder = tmp_path / "meeting"
    folder.mkdir()
    return folder


def take_over(url: str, workers: Path, options: dict[str, Any]) -> fstx.ResumableTransaction:
    """What is finished is there; the rest is done anew, by workers or here."""
    receipts = [receipt_of(workers, n) for n in range(UNITS)]
    tx = fstx.begin(url, resume="always", **JOB, **options)
    assert tx.done_before == {str(n) for n in range(DONE)}
    for n in tx.remaining(range(UNITS)):
        if n % 2:
            with tx.unit(n) as unit:
                unit.stage(f"u/{n}", content(n))
        else:
            staged = tx.unit_stager().stage(f"u/{n}", content(n))
            tx.finish(n, [staged])
            tx.finish(n, [receipts[n]])  # as of a task that ran twice: no effect
    return tx


@pytest.mark.parametrize("view", ["local", "tx"])
def test_another_process_adopts_and_commits(view: str, workers: Path, tmp_path: Path) -> None:
    """E16, I5: SIGKILL while four workers stage; what was finished counts, once; zombies are told."""
    place = tmp_path / "place"
    place.mkdir()
    url = f"{'tx::' if view == 'tx' else ''}{place}/out"
    killed_coordinator(url, workers, DONE, {})
    with take_over(url, workers, {}) as tx:
        pass
    assert tx.committed
    for said in ends(workers):
        assert said.startswith("FencedError: "), said
        assert "over" in said
    found = logical(str(place), {}) if view == "tx" else tree(place)
    mine = {k.removeprefix("out/"): v for k, v in found.items() if ".fstx/done/" not in k}
    assert mine == WHOLE  # and besides the receipt that the id asks for, nothing
    assert [p for p in place.rglob("jobs/*/*") if p.is_file()] == []
    assert fstx.jobs(url) == []
    assert not fstx.recover(url).removed
    assert fstx.begin(url, id=JOB["id"]).committed


def test_without_resume_the_next_writer_settles(workers: Path, tmp_path: Path) -> None:
    """E16, A24: a killed coordinator's transaction goes with the next begin; its four zombies are told."""
    place = tmp_path / "place"
    place.mkdir()
    killed_coordinator(f"{place}/out", workers, 0, {})
    assert len([p for p in (place / ".fstx").rglob("u/*") if p.is_file()]) == UNITS
    with fstx.begin(f"{place}/out") as tx:
        tx.stage("mine", b"1")
    for said in ends(workers):
        assert said.startswith("FencedError: "), said
        assert "given up for dead" in said
    assert tree(place) == {"out/mine": b"1"}
