"""What it costs to keep units: 10,000 of 64 KiB, some that work, and the restart of a long job.

    python benchmarks/resume.py [--units N] [--rounds N] [--work-ms MS] [--restart N] [--dir PLACE]

*Bookkeeping* is what a resumable run takes longer than one that stages the same files in a plain transaction
of the same durability, commit included. Both run in one process, in shuffled order, into directories of their
own that stay until the end: ext4 looks long for a place where files were removed a moment ago.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fstx
from harness import quartiles

CONFIG = {"benchmark": "resume"}
FEW = 300
"""Units of the run in which each unit works."""


def compute(seconds: float, state: np.ndarray) -> None:
    """Busy for about `seconds`: what a unit is done for."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        np.sort(state)


def plain(place: Path, units: int, data: bytes, work_s: float, durability: str) -> None:
    state = np.random.default_rng(0).random(2000)
    with fstx.begin(place / "out", durability=durability) as tx:
        for n in range(units):
            compute(work_s, state)
            tx.stage(f"p/{n:05d}", data)


def resumable(place: Path, units: int, data: bytes, work_s: float, durability: str) -> None:
    state = np.random.default_rng(0).random(2000)
    options = {"resume": "if_possible", "fingerprint": CONFIG}
    with fstx.begin(place / "out", durability=durability, **options) as tx:
        for n in tx.remaining(range(units)):
            compute(work_s, state)
            with tx.unit(n) as unit:
                unit.stage(f"p/{n:05d}", data)


def bookkeeping(place: Path, units: int, rounds: int, work_s: float, durability: str) -> None:
    """Print what a resumable run costs beside a plain one."""
    data, order = os.urandom(65536), random.Random(1)
    variants: dict[str, Callable[..., None]] = {"plain": plain, "resumable": resumable}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        names = list(variants)
        order.shuffle(names)
        for name in names:
            own = place / f"{name}-{number}"
            own.mkdir()
            os.sync()
            gc.collect()
            began, worked = time.perf_counter(), time.process_time()
            variants[name](own, units if number else 50, data, work_s, durability)
            if number:  # round 0 warms up
                taken[name].append((time.perf_counter() - began, time.process_time() - worked))
    for name, times in taken.items():
        clock, work = (1e6 * statistics.median(t[i] for t in times) / units for i in (0, 1))
        print(f"  {name}: {clock:.0f} us a unit, {work:.0f} of them of the processor")
    for i, kind in enumerate(("clock", "processor")):
        pairs = zip(taken["resumable"], taken["plain"], strict=True)
        low, middle, high = quartiles([r[i] / p[i] for r, p in pairs])
        print(f"  ratio, {kind}: {middle:.3f} ({low:.3f}-{high:.3f})", flush=True)


def restart(place: Path, units: int, rounds: int) -> None:
    """Seconds until a new process knows what is left of a job with so many finished units."""
    tx = fstx.begin(place / "out", resume="never", fingerprint=CONFIG, durability="none")
    for n in range(units):
        with tx.unit(n) as unit:
            unit.stage(f"p/{n // 1000}/{n}", b"x" * 100)
    tx.suspend()
    for _ in range(rounds):
        code = f"import resume; resume.plan({str(place)!r}, {units})"
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)


def plan(place: str, units: int) -> None:
    """In the new process."""
    began, worked = time.perf_counter(), time.process_time()
    tx = fstx.begin(f"{place}/out", resume="always", fingerprint=CONFIG, durability="none")
    left = sum(1 for _ in tx.remaining(range(units + 10)))
    clock, work = time.perf_counter() - began, time.process_time() - worked
    print(f"  {clock:.2f} s, {work:.2f} of them of the processor; {left} left", flush=True)
    tx.suspend()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--durability", default="data", choices=("data", "none"))
    parser.add_argument("--work-ms", type=float, default=5.0)
    parser.add_argument("--restart", type=int, default=100_000)
    parser.add_argument("--dir")
    given = parser.parse_args()
    print(f"load of the machine: {', '.join(f'{n:.1f}' for n in os.getloadavg())}")
    place = Path(tempfile.mkdtemp(prefix="bench-", dir=given.dir))
    try:
        for units, work_s in ((given.units, 0.0), (FEW, given.work_ms / 1000)):
            if units:
                print(f"{units} units of {1000 * work_s:g} ms, durability {given.durability}")
                own = place / f"{units}-{work_s}"
                own.mkdir()
                bookkeeping(own, units, given.rounds, work_s, given.durability)
        if given.restart:
            print(f"restart of a job with {given.restart} finished units", flush=True)
            restart(place, given.restart, given.rounds)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
