"""Resumable jobs under kills: at every call of the system, and of real processes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import fstx
from support.killer import Killed, KillerOps
from support.trees import Tree, plant, tree, without_receipts

# a process that was killed runs no finalizer, but the one that plays it does
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG = {"seed": 1}
UNITS = {"0": {"a": b"A", "d/b": b"BB"}, "1": {}, "2": {"c": b"C" * 5000}}
NEW: Tree = {"t/a": b"A", "t/d/b": b"BB", "t/c": b"C" * 5000, "t/index": b"{}"}
OLD: Tree = {"t/old": b"o", "t/a": b"before"}


class Run:
    """One run of the job, which notes what it knows to be finished."""

    def __init__(self, root: Path, **faults: Any) -> None:
        self.ops = KillerOps(**faults)
        self.before: set[str] = set()
        self.finished: set[str] = set()
        self.killed = False
        try:
            self._run(root)
        except Killed:
            self.killed = True

    def _run(self, root: Path) -> None:
        with fstx.begin(
            str(root / "t"),
            mode="replace",
            entry="index",
            resume="if_possible",
            fingerprint=CONFIG,
            ops=self.ops,
        ) as tx:
            self.before = set(tx.done_before)
            if tx.committed:  # the kill came between the commit and the clearing
                assert list(tx.remaining(UNITS)) == []
                return
            for id, files in UNITS.items():
                if tx.is_done(id):
                    continue
                with tx.unit(id) as unit:
                    for path, data in files.items():
                        unit.stage(path, data)
                self.finished.add(id)
            tx.stage("index", b"{}")


@pytest.mark.parametrize(("old", "step"), [({}, 3), (OLD, 5)], ids=["new", "replaced"])
def test_a_kill_at_every_call(old: Tree, step: int, tmp_path: Path) -> None:
    """D14, D25, I5: after a kill anywhere readers find old or new, and the next run goes on and ends it.

    At every third call for a new target, at every fifth where one is replaced.
    """
    for k in itertools.count(1, step):
        root = tmp_path / str(k)
        plant(root, old)
        first = Run(root, kill_at=k)
        seen = without_receipts(tree(root))
        seen = {p: v for p, v in seen.items() if ".fstx" not in p}
        assert seen in (old, NEW), k
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = Run(root)
        assert not second.killed
        if seen != NEW:
            assert second.before >= first.finished, k
            assert not second.before & second.finished, k
        assert without_receipts(tree(root)) == NEW, k
        if not first.killed:
            assert os.listdir(root) == ["t"]
            assert k > 40
            return
        shutil.rmtree(root)


def test_a_kill_in_the_run_that_resumes(tmp_path: Path) -> None:
    """D14: a second kill, at every fourth call of the run that goes on, loses no finished unit either."""
    (tmp_path / "count").mkdir()
    half = len(Run(tmp_path / "count").ops.calls) // 2
    for k in itertools.count(1, 4):
        root = tmp_path / str(k)
        root.mkdir()
        first = Run(root, kill_at=half)
        assert first.killed
        second = Run(root, kill_at=k)
        third = Run(root)
        assert without_receipts(tree(root)) == NEW, k
        if tree(root) and not second.killed:
            return
        done = {p for p in tree(root) if p.startswith("t/")}
        assert done == set(NEW), k
        assert not third.before & third.finished
        shutil.rmtree(root)


def test_the_configuration_is_synced_before_it_counts(tmp_path: Path) -> None:
    """D13: the record's bytes are synced before its rename, and its directory before the first unit."""
    calls: list[str] = []

    class Watching(KillerOps):
        def sync_file(self, file: Any) -> None:
            calls.append(f"sync {os.path.basename(file.name)}")
            super().sync_file(file)

        def sync_dir(self, path: str) -> None:
            calls.append(f"sync {os.path.basename(path)}/")
            super().sync_dir(path)

        def replace_file(self, src: str, dst: str) -> None:
            calls.append(f"rename {os.path.basename(dst)}")
            super().replace_file(src, dst)

        def open_new(self, path: str) -> Any:
            calls.append(f"open {os.path.basename(path)}")
            return super().open_new(path)

    tx = fstx.begin(str(tmp_path / "t"), resume="never", fingerprint=1, ops=Watching())
    with tx.unit(1):
        pass
    wanted = ["open job.json.tmp", "sync job.json.tmp", "rename job.json"]
    places = [calls.index(call) for call in wanted]
    assert places == sorted(places)
    after = calls[places[-1] + 1 :]
    assert after[0].startswith(f"sync {tx.depot_url.rpartition('/')[2]}")
    assert after.index("sync jobs/") < after.index("sync .fstx/") < after.index("open units.log")
    tx.rollback()


def test_the_last_unit_costs_what_the_first_did(tmp_path: Path) -> None:
    """D26, RESUME-11: keeping a unit makes the same calls however many were kept before."""
    ops = KillerOps()
    tx = fstx.begin(str(tmp_path / "t"), durability="none", resume="never", fingerprint=1, ops=ops)
    made = []
    for n in range(300):
        before = len(ops.calls)
        with tx.unit(n) as unit:
            unit.stage(f"p/{n}", b"x")
        # syncs go on beside the units, each for many of them
        made.append([name for name, _ in ops.calls[before:] if name != "sync_fs"])
    assert made[1] == made[150] == made[299]
    tx.rollback()


_JOB = """
import sys, time
import fstx

url, did, stop = sys.argv[1:4]
with fstx.begin(url, resume="if_possible", fingerprint={"n": 40}) as tx:
    for n in tx.remaining(range(40)):
        with tx.unit(n) as unit:
            unit.stage(f"p/{n:02d}", bytes([n]) * 70_000)
        with open(did, "a") as file:
            file.write(f"{n}\\n")
        if n == int(stop):
            time.sleep(600)
    tx.stage("index", b"all")
"""


@pytest.mark.parametrize("scheme", ["", "tx::"])
def test_a_killed_process_goes_on(scheme: str, tmp_path: Path) -> None:
    """D7, D26: a process that is killed again and again does each unit once."""
    did = tmp_path / "did"
    url = scheme + str(tmp_path / "place" / "out")
    for stop in (7, 20, 33, 99):
        child = subprocess.Popen([sys.executable, "-c", _JOB, url, str(did), str(stop)])
        deadline = time.monotonic() + 60
        while stop < 40 and f"{stop}\n" not in (did.read_text() if did.exists() else ""):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        if stop < 40:
            child.send_signal(signal.SIGKILL)
        assert child.wait(60) == (-signal.SIGKILL if stop < 40 else 0)
    assert did.read_text().split() == [str(n) for n in range(40)]
    if scheme:
        found = {
            p: fstx.dataset(url).snapshot().read(p) for p in fstx.dataset(url).snapshot().paths()
        }
    else:
        found = tree(tmp_path / "place" / "out")
    assert found == {**{f"p/{n:02d}": bytes([n]) * 70_000 for n in range(40)}, "index": b"all"}
    assert fstx.jobs(url) == []
