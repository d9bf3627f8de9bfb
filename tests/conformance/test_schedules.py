"""Schedules that once showed a defect, each run again; and that a schedule means the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstx_conformance.results import Verdict
from fstx_conformance.run import run
from fstx_conformance.schedule import Fault, Schedule, parse
from fstx_conformance.subjects import subject_of

LOCAL = {
    "the journal can't be read back after the exchange: committed, not given up": (
        "case=ambiguity.refused; scene=replace; seed=0; read_file#5=fail"
    ),
    "what is staged can't be looked at": (
        "case=ambiguity.refused; scene=create; seed=0; lstat#17=fail"
    ),
    "a base can't be looked at": "case=ambiguity.refused; scene=update; seed=0; lstat#22=fail",
    "storage is gone while locks are let go": (
        "case=ambiguity.outage; scene=create; seed=0; *#73=fail!"
    ),
    "storage is gone after the commit point": (
        "case=ambiguity.outage; scene=create; seed=0; *#94=fail!"
    ),
    "the answer to a lock is lost, for good": (
        "case=ambiguity.outage; scene=create; seed=0; lock#6=lost-reply!"
    ),
}
DATASET = {
    "the log can't be listed at begin": (
        "case=ambiguity.refused; scene=create; seed=0; list#1=fail"
    ),
    "the marker can't be looked for": (
        "case=ambiguity.lost; scene=create; seed=0; info#1=lost-request"
    ),
    "storage is gone from the first listing on": (
        "case=ambiguity.outage; scene=create; seed=0; list#1=fail!"
    ),
}


def _passes(url: str, text: str) -> None:
    subject = subject_of(url)
    try:
        result = run(subject, replay=parse(text))
    finally:
        subject.close()
    assert [c.failures for c in result.cases] == [()] * len(result.cases)
    assert {c.verdict for c in result.cases} == {Verdict.PASS}
    assert sum(c.runs for c in result.cases) >= 1
    assert any(c.fired for c in result.cases), "the schedule met no call"


@pytest.mark.parametrize("what", LOCAL)
def test_local_schedules(what: str, tmp_path: Path) -> None:
    """A schedule that once failed on local disk passes, and its fault still fires."""
    _passes(str(tmp_path), LOCAL[what])


@pytest.mark.parametrize("what", DATASET)
def test_dataset_schedules(what: str, tmp_path: Path) -> None:
    """A schedule that once failed through tx:: passes, and its fault still fires."""
    _passes(f"tx::{tmp_path}", DATASET[what])


def test_a_writer_that_was_given_up_while_it_stages_is_told_so(tmp_path: Path) -> None:
    """Its staging area is taken away at the rename that adopts an object: FencedError, not a missing file."""
    subject = subject_of(str(tmp_path))
    text = "case=fencing.fenced; scene=replace; seed=0; rename[*/a/* */s/0/a]#1=fence"
    try:
        (case,) = run(subject, replay=parse(text)).cases
    finally:
        subject.close()
    assert case.verdict is Verdict.PASS
    assert dict(case.fired) == {"fence": 1}
    assert dict(case.seen)["fenced"] == 1


_TEXTS = st.text(
    st.sampled_from(r";][#=!:\x3b\"' *?{}," + "\n\t\x00\u2028") | st.characters(), max_size=8
)


@given(_TEXTS, _TEXTS, _TEXTS, _TEXTS)
def test_any_text_survives_print_and_parse(key: str, case: str, scene: str, extra: str) -> None:
    """What a schedule prints is read as the same schedule, whatever its patterns and names hold."""
    faults = (Fault("put_new", 2, "kill", key=key, sticky=True), Fault("+", 1, "late", "*", "b"))
    told = Schedule(faults, 3, case, scene, extra)
    text = str(told)
    assert parse(text) == told
    assert text.isprintable()


def test_a_pattern_with_a_separator_meets_its_key() -> None:
    """A semicolon and a bracket in a pattern are spelled by numbers, and match the key that holds them."""
    text = r"seed=0; put_new[a\x3b[[\x5db]#1=kill"
    told = parse(text)
    assert str(told) == text
    assert told.faults[0].matches("writer", "put_new", "a;[b", True)
    assert parse(r"put_new[dir\name]#1=kill").faults[0].key == r"dir\name"  # as people type it


_SCRIPT = """
import sys
from fstx_conformance.lab import Lab
from fstx_conformance.scenes import SCENES
from fstx_conformance.schedule import parse
from fstx_conformance.subjects import subject_of
subject = subject_of(sys.argv[1])
told = parse(sys.argv[2])
found = Lab(subject, told.case, seed=told.seed).trial(SCENES[told.scene], told)
print("\\n".join(found.history.lines))
subject.close()
"""


@pytest.mark.parametrize("url", ["{}", "tx::{}"])
def test_a_schedule_repeats_to_the_byte(url: str, tmp_path: Path) -> None:
    """The same schedule in another process, with another hash seed and folder, has the same history."""
    text = "case=crash.kill; scene=update; seed=3; +#2=kill; recoverer: +#2=kill-after"
    histories = []
    for number in range(2):
        folder = tmp_path / f"f{number}"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, url.format(folder), text],
            env={**os.environ, "PYTHONHASHSEED": str(number + 1)},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        histories.append(done.stdout)
    assert histories[0] == histories[1]
    assert "kill" in histories[0]
    assert histories[0].count("\n") >= 3
