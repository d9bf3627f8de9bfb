"""What it costs to keep units of work: 10,000 units of 64 KiB, and the restart of a long job.

    python benchmarks/resume.py [--units N] [--work-ms MS] [--rounds N] [--restart N] [--dir PLACE]

Each unit computes for `--work-ms` and stages 64 KiB. *Bookkeeping* is what a resumable run takes longer
than one that stages the same files in a plain transaction, commit included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

import fstx
from harness import interleave

CONFIG = {"benchmark": "resume"}


def compute(seconds: float, state: np.ndarray) -> None:
    """Busy for about `seconds`: what a unit is done for."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        np.sort(state)


def plain(place: Path, units: int, data: bytes, work_s: float) -> None:
    state = np.random.default_rng(0).random(2000)
    with fstx.begin(place / "out", durability="none") as tx:
        for n in range(units):
            compute(work_s, state)
            tx.stage(f"p/{n:05d}", data)


def resumable(place: Path, units: int, data: bytes, work_s: float) -> None:
    state = np.random.default_rng(0).random(2000)
    target = place / "out"
    with fstx.begin(target, durability="none", resume="if_possible", fingerprint=CONFIG) as tx:
        for n in tx.remaining(range(units)):
            compute(work_s, state)
            with tx.unit(n) as unit:
                unit.stage(f"p/{n:05d}", data)


def restart(root: str | None, units: int, rounds: int) -> None:
    """Seconds until a job with so many finished units knows what is left to do."""
    place = Path(tempfile.mkdtemp(prefix="bench-", dir=root))
    options = {"durability": "none", "fingerprint": CONFIG}
    try:
        tx = fstx.begin(place / "out", resume="never", **options)
        for n in range(units):
            with tx.unit(n) as unit:
                unit.stage(f"p/{n // 1000}/{n}", b"x" * 100)
        tx.suspend()
        for _ in range(rounds):
            began = time.perf_counter()
            tx = fstx.begin(place / "out", resume="always", **options)
            left = sum(1 for _ in tx.remaining(range(units + 10)))
            print(
                f"restart with {units} finished units: {time.perf_counter() - began:.2f} s, {left} left"
            )
            tx.suspend()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--work-ms", type=float, nargs="*", default=[0.0, 10.0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--restart", type=int, default=100_000)
    parser.add_argument("--dir")
    given = parser.parse_args()
    data = os.urandom(65536)
    for work_ms in given.work_ms:
        print(f"{given.units} units, {work_ms:g} ms of work each")
        work_s = work_ms / 1000
        interleave(
            {
                "plain transaction": lambda p, w=work_s: plain(p, given.units, data, w),
                "resumable": lambda p, w=work_s: resumable(p, given.units, data, w),
            },
            base="plain transaction",
            rounds=given.rounds,
            root=given.dir,
        )
    restart(given.dir, given.restart, given.rounds)


if __name__ == "__main__":
    main()
