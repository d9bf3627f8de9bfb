"""Faults under any fsspec file system, and under any code that writes local files."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from fstx.stores.generic import GenericStore
from fstx.stores.opening import open_store
from fstx_conformance.injector import Injector, Killed
from fstx_conformance.results import Level, Verdict
from fstx_conformance.run import run
from fstx_conformance.schedule import parse
from fstx_conformance.seams.files import FaultFiles, stands, under
from fstx_conformance.seams.oscalls import injected
from fstx_conformance.subjects.comparisons import WRITERS, ComparisonSubject


def process(text: str) -> Injector:
    return Injector(parse(text).faults)


@pytest.fixture
def memory() -> MemoryFileSystem:
    """An empty folder of fsspec's memory."""
    fs = MemoryFileSystem()
    if fs.exists("/seam"):
        fs.rm("/seam", recursive=True)
    return fs


@pytest.mark.parametrize(
    ("action", "error", "there"),
    [
        ("fail", PermissionError, False),
        ("lost-request", ConnectionError, False),
        ("lost-reply", ConnectionError, True),
        ("kill", Killed, False),
        ("kill-after", Killed, True),
    ],
)
def test_a_call_goes_wrong_as_the_schedule_says(
    action: str, error: type[BaseException], there: bool, memory: MemoryFileSystem
) -> None:
    """The second write meets its fault, the first does not; done or not as the action says."""
    fs = FaultFiles(memory, process(f"pipe_file#2={action}"))
    fs.pipe_file("/seam/a", b"first")
    with pytest.raises(error):
        fs.pipe_file("/seam/b", b"second")
    assert memory.cat_file("/seam/a") == b"first"
    assert memory.exists("/seam/b") == there


def test_a_late_write_arrives_when_it_is_delivered(memory: MemoryFileSystem) -> None:
    """A late write is an error at first, and there once late requests arrive."""
    writer = process("pipe_file#1=late")
    with pytest.raises(ConnectionError):
        FaultFiles(memory, writer).pipe_file("/seam/a", b"late")
    assert not memory.exists("/seam/a")
    assert writer.deliver() == 1
    assert memory.cat_file("/seam/a") == b"late"


def test_a_dead_process_writes_nothing_more(memory: MemoryFileSystem) -> None:
    """After its death every call of the process raises, and changes nothing."""
    fs = FaultFiles(memory, process("write#1=kill"))
    file = fs.open("/seam/a", "wb")
    with pytest.raises(Killed):
        file.write(b"never")
    with pytest.raises(Killed):
        fs.pipe_file("/seam/b", b"never")
    assert not memory.exists("/seam/b")


def test_a_protocol_gets_the_layer_and_gives_it_back(memory: MemoryFileSystem) -> None:
    """File systems that others make for a protocol meet the faults of the process that stands there."""
    with under("memory"):
        store = open_store("memory:///seam")
        assert isinstance(store, GenericStore)
        store.put("a", b"plain")
        with stands(process("pipe_file#1=kill")), pytest.raises(Killed):
            store.put("b", b"never")
        assert store.get("a") == b"plain"
    assert fsspec.get_filesystem_class("memory") is MemoryFileSystem
    assert not memory.exists("/seam/b")


@pytest.mark.parametrize(
    ("schedule", "error"),
    [("replace#1=kill", Killed), ("open#2=fail", OSError), ("write#1=torn", Killed)],
)
def test_calls_of_the_system_go_wrong_below_a_folder(
    schedule: str, error: type[BaseException], tmp_path: Path
) -> None:
    """Code that knows nothing of faults meets them below the folder, not beside it, and only in the block."""
    folder = tmp_path / "inside"
    folder.mkdir()
    beside = tmp_path / "beside"
    with injected(process(schedule), str(folder)), pytest.raises(error):
        beside.write_bytes(b"not counted")
        for number in range(2):
            with open(folder / "new", "wb") as file:
                file.write(b"0123456789")
            os.replace(folder / "new", folder / f"old{number}")
    assert beside.read_bytes() == b"not counted"
    left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert (
        left
        == {
            "replace#1=kill": {"new": b"0123456789"},
            "open#2=fail": {"old0": b"0123456789"},
            "write#1=torn": {"new": b"01234"},
        }[schedule]
    )
    (folder / "after").write_bytes(b"nothing stands here any more")


@pytest.mark.parametrize("key", WRITERS)
def test_what_people_use_today(key: str, tmp_path: Path) -> None:
    """Killed, each of the three leaves a mixture; left in peace, it leaves nothing over."""
    subject = ComparisonSubject(WRITERS[key](), str(tmp_path))
    try:
        result = run(subject, only=["crash.kill", "hygiene.quiet", "semantics"])
    finally:
        subject.close()
    assert result.level(Level.CRASH) is Verdict.FAIL
    (killed,) = (c for c in result.cases if c.id == "crash.kill")
    assert "mixture" in killed.failures[0].message
    assert result.level(Level.HYGIENE) is Verdict.PASS
    assert result.level(Level.SEMANTICS) is Verdict.NOT_APPLICABLE
