"""A simulated Windows as a subject: its rules are met, and a dead process keeps nothing open."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fstx.ops.posix import PosixOps
from fstx_conformance.injector import Injector, Killed
from fstx_conformance.results import Verdict
from fstx_conformance.run import run
from fstx_conformance.schedule import parse
from fstx_conformance.seams.ops import FaultOps
from fstx_conformance.subjects.simulated import WindowsSubject


@pytest.fixture
def windows(tmp_path: Path) -> Iterator[WindowsSubject]:
    """Targets on a simulated disk."""
    subject = WindowsSubject(str(tmp_path))
    yield subject
    subject.close()


def test_an_open_file_keeps_its_directory_until_the_process_is_dead(
    windows: WindowsSubject,
) -> None:
    """Files that were opened again or to be read hold what lies above them, and go with their process."""
    room = windows.room()
    other = room.ops(None)
    folder, moved = os.path.join(room.folder, "d"), os.path.join(room.folder, "n")
    other.mkdir(folder)
    other.open_new(f"{folder}/f").close()
    process = Injector()
    ops = room.ops(process)
    files = [ops.open_again(f"{folder}/f"), ops.open_read(f"{folder}/f")]
    with pytest.raises(PermissionError) as raised:
        other.rename(folder, moved)
    assert raised.value.errno == errno.EBUSY
    process.die()
    assert all(file.closed for file in files)
    other.rename(folder, moved)
    for call in (ops.open_again, ops.open_read):
        with pytest.raises(Killed):
            call(f"{moved}/f")
    room.close()


@pytest.mark.parametrize(
    "schedule",
    [
        "case=resume.kill-at-every-step; scene=job again; seed=0; *#111=kill",  # its log was open
        "case=primitives.rename; seed=0",  # a reader takes turns with who replaces
    ],
)
def test_windows_schedules(windows: WindowsSubject, schedule: str) -> None:
    """A schedule that once failed on the simulated Windows passes."""
    (case,) = run(windows, replay=parse(schedule)).cases
    assert (case.verdict, case.failures) == (Verdict.PASS, ())
    assert case.runs >= 1
    assert dict(case.fired) == {f.action: 1 for f in parse(schedule).faults}


def test_a_recovery_that_an_open_file_stops_changes_nothing(windows: WindowsSubject) -> None:
    """Who is taken for dead while it writes a file can't be settled there, and goes on to commit."""
    text = "case=fencing.fenced; scene=replace; seed=0; write#2=fence"
    (case,) = run(windows, replay=parse(text)).cases
    assert (case.verdict, case.failures) == (Verdict.PASS, ())
    assert dict(case.fired) == {"fence": 1}
    assert dict(case.seen) == {"committed": 1}


def test_stager_elsewhere_does_not_apply(windows: WindowsSubject) -> None:
    """No other process sees the simulated disk: that is told, and no promise counts as broken."""
    result = run(windows, only=("semantics.remote-staging",))
    assert result.cases[0].verdict is Verdict.NOT_APPLICABLE
    assert {p.capability: p.observed for p in result.promises}["REMOTE_STAGING"] == "not tried"


def test_a_file_with_a_file_in_it_is_synced_itself(tmp_path: Path) -> None:
    """What the calls below opened is what they are asked to sync, also where it holds another file."""

    class Nested(PosixOps):
        synced: Any = None

        def sync_file(self, file: Any) -> None:
            self.synced = file

    inner = Nested()
    ops = FaultOps(inner, Injector())
    file: Any = SimpleNamespace(_file="what lies in it")
    ops.sync_file(file)
    assert inner.synced is file
    with ops.open_new(str(tmp_path / "f")) as opened:
        ops.sync_file(opened)
        assert inner.synced is opened._file  # type: ignore[attr-defined]
