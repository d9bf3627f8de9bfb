"""Datasets and real processes on one local directory: many writers, killed ones, stopped ones."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fstx
from fstx.backends.manifest import Dataset, ManifestBackend
from fstx.backends.manifest.history import VersionedDataset
from fstx.backends.manifest.names import DATA
from fstx.errors import ConflictError
from fstx.stores import Store
from fstx.stores.opening import open_store

WRITER = """
import sys
import fstx

url, name, count, big = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "big"
for n in range(count):
    with fstx.begin(url) as tx:
        tx.stage(f"{name}/{n}", f"{name} {n} ".encode() * (1000 if big else 1))
        tx.stage(f"{name}/last", str(n).encode())
    print(f"{name}/{n}", flush=True)
"""

STOPPED = """
import sys
import fstx

tx = fstx.begin(sys.argv[1])
tx.stage("late", b"x" * 5000)
tx.stager().stage("other", b"y" * 5000)
tx._settle()
print(tx.txid, flush=True)
sys.stdin.readline()
try:
    tx.commit()
except fstx.FencedError as error:
    print("fenced", error, flush=True)
else:
    print("committed", flush=True)
"""


def writer(url: str, name: str, count: int, size: str = "small") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, url, name, str(count), size],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def store_at(place: Path) -> Store:
    return open_store(str(place)).below(".fstx")


def at(place: Path) -> VersionedDataset:
    return VersionedDataset(Dataset(store_at(place)))


def content(place: Path, version: int | None = None) -> dict[str, bytes]:
    snapshot = at(place).snapshot(version)
    return {path: snapshot.read(path) for path in snapshot.paths()}


def left_over(place: Path) -> set[str]:
    """Data objects that no version needs."""
    needed = {e.key for _, e in at(place).snapshot().items() if e.key}
    return {i.key for i in store_at(place).list(DATA)} - needed


@pytest.mark.slow
def test_four_processes_keep_all_120_commits(tmp_path: Path) -> None:
    """Protects concurrent processes: 4 x 30 commits on one directory, each its own version, nothing lost."""
    place = tmp_path / "ds"
    names = ["p", "q", "r", "s"]
    running = [writer(f"tx::{place}", name, 30) for name in names]
    for process in running:
        _, told = process.communicate(timeout=240)
        assert process.returncode == 0, told
    log = at(place).log()
    assert len(log) == 120
    assert [row.version for row in log] == list(range(120, 0, -1))
    found = content(place)
    assert {f"{n}/{i}" for n in names for i in range(30)} < set(found)
    assert all(found[f"{n}/last"] == b"29" for n in names)
    at_60 = content(place, 60)
    assert len([path for path in at_60 if not path.endswith("/last")]) == 60
    assert at(place).verify(data=True).ok


@pytest.mark.slow
def test_acknowledged_commits_outlive_sigkill(tmp_path: Path) -> None:
    """Protects I5 and A23 for datasets: writers killed at random moments; what was told is there."""
    place = tmp_path / "ds"
    chance = random.Random(3)
    told: list[str] = []
    for turn in range(12):
        process = writer(f"tx::{place}", f"w{turn}", 1000, "big")
        assert process.stdout is not None
        told.append(process.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        told += process.stdout.read().split()
        process.wait()
        process.stdout.close()
        assert process.stderr is not None
        process.stderr.close()
        if turn % 4 == 3:
            at(place).collect(keep=2, older_than_s=0, dry_run=False)
    found = content(place)
    for path in told:
        name, _, n = path.partition("/")
        assert found[path] == f"{name} {n} ".encode() * 1000
    # one commit more than was told may have landed with each kill, never half of one
    for turn in range(12):
        count = len([p for p in found if p.startswith(f"w{turn}/")]) - 1
        assert found[f"w{turn}/last"] == str(count - 1).encode()
        assert count - len([p for p in told if p.startswith(f"w{turn}/")]) in (0, 1)
    at(place).collect(keep=1, older_than_s=0, dry_run=False)
    assert not left_over(place)
    assert at(place).verify(data=True).ok


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP")
def test_a_stopped_writer_is_fenced(tmp_path: Path) -> None:
    """Protects I6: stopped, given up, collected and continued, a writer learns it and publishes nothing."""
    place = tmp_path / "ds"
    with fstx.begin(f"tx::{place}") as tx:
        tx.stage("a", b"1")
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, f"tx::{place}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    txid = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGSTOP)
    done = at(place).collect(older_than_s=0, dry_run=False)
    assert set(done.fenced) == {txid}
    assert len(done.data) == 2
    with fstx.begin(f"tx::{place}") as tx:
        tx.stage("b", b"2")
    os.kill(process.pid, signal.SIGCONT)
    out, _ = process.communicate("go\n", timeout=60)
    assert out.startswith("fenced")
    assert content(place) == {"a": b"1", "b": b"2"}
    at(place).collect(older_than_s=0, dry_run=False)
    assert not left_over(place)
    assert at(place).verify(data=True).ok


@pytest.mark.slow
def test_collections_beside_writing_processes(tmp_path: Path) -> None:
    """Protects living writers: two processes collect all the time, two write, one holds a pinned version."""
    place = tmp_path / "ds"
    with fstx.begin(f"tx::{place}") as tx:
        tx.stage("first", b"1" * 5000)
    collector = (
        "import sys, fstx\n"
        "while not sys.stdin.closed:\n"
        "    fstx.dataset(sys.argv[1]).collect(keep=1, dry_run=False)\n"
        "    print('.', flush=True)\n"
    )
    with at(place).snapshot(1) as held:
        collecting = [
            subprocess.Popen(
                [sys.executable, "-c", collector, f"tx::{place}"], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for process in collecting:
            assert process.stdout is not None
            assert process.stdout.readline() == ".\n"  # at work before the writers are
        running = [writer(f"tx::{place}", name, 25, "big") for name in ("p", "q")]
        for process in running:
            _, told = process.communicate(timeout=240)
            assert process.returncode == 0, told
        for process in collecting:
            assert process.poll() is None
            process.kill()
            process.communicate()
        assert held.read("first") == b"1" * 5000
        assert list(held.paths()) == ["first"]
    found = content(place)
    for name in ("p", "q"):
        for n in range(25):
            assert found[f"{name}/{n}"] == f"{name} {n} ".encode() * 1000
    at(place).collect(keep=1, older_than_s=0, dry_run=False)
    assert not left_over(place)
    assert at(place).verify(data=True).ok


def test_a_forked_child_lets_the_pin_lie(tmp_path: Path) -> None:
    """Protects readers that fork: the end of the child takes no pin away."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    place = tmp_path / "ds"
    with fstx.begin(f"tx::{place}") as tx:
        tx.stage("a", b"1" * 5000)
    code = (
        "import os, sys, fstx\n"
        "dataset = fstx.dataset(sys.argv[1])\n"
        "with dataset.snapshot() as held:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        held.read('a')\n"
        "    else:\n"
        "        assert os.waitpid(child, 0)[1] == 0\n"
        "        assert len(dataset.pins()) == 1, dataset.pins()\n"
        "if child == 0:\n"
        "    os._exit(0)\n"
        "assert not dataset.pins()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"tx::{place}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_conflicts_between_processes_are_told(tmp_path: Path) -> None:
    """Protects both writers of one path: the second one, on an old base, is refused."""
    place = tmp_path / "ds"
    url = f"tx::{place}"
    with fstx.begin(url) as tx:
        tx.stage("a", b"1")
    slow = ManifestBackend(Dataset(store_at(place))).begin(
        mode="update", durability="data", require=frozenset()
    )
    slow.stage("p/last", b"mine")
    process = writer(url, "p", 1)
    assert process.communicate(timeout=60)[0] == "p/0\n"
    with pytest.raises(ConflictError):
        slow.commit()
    assert content(place)["p/last"] == b"0"
