"""What a hit costs beside `numpy.load` of the same file.

    python benchmarks/cache.py [rounds]

Each round gives each variant the same number of hits, in shuffled order. Ratios are of the clock's time and
of the processor's: a large entry is read by two threads, which gains time where a second processor is free,
and never work.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fstx
from harness import quartiles

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)  # of 8 bytes each
BATCH_BYTES = 8_000_000


Times = dict[str, list[tuple[float, float]]]


def measure(folder: Path, length: int, rounds: int) -> Times:
    """Seconds of one hit by variant and round: of the clock, of the processor."""
    always = fstx.cache(folder / str(length), max_bytes=10**12)
    never = fstx.cache(folder / str(length), max_bytes=10**12, verify="never")
    key = ("null", 100, 10, {"seed": 1})
    always.put(key, np.random.default_rng(1).random(length))
    (path,) = (folder / str(length) / "v1" / "entries").iterdir()
    variants: dict[str, Callable[[], object]] = {
        "numpy.load": lambda: np.load(path),
        "fstx": lambda: always.get(key),
        'fstx, verify="never"': lambda: never.get(key),
    }
    seconds: Times = {name: [] for name in variants}
    hits = max(1, min(100, BATCH_BYTES // (8 * length)))
    order = random.Random(1)
    for number in range(rounds + 1):
        names = list(variants)
        order.shuffle(names)
        for name in names:
            call = variants[name]
            began, worked = time.perf_counter(), time.process_time()
            for _ in range(hits):
                call()
            clock, work = time.perf_counter() - began, time.process_time() - worked
            if number:  # round 0 warms up
                seconds[name].append((clock / hits, work / hits))
    return seconds


def main(rounds: int) -> None:
    """Measure and print."""
    print(f"load of the machine: {', '.join(f'{n:.1f}' for n in os.getloadavg())}")
    print(
        "| size of the array | variant | median ms | ratio to numpy.load (quartiles) | of processor time |"
    )
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for length in SIZES:
            seconds = measure(Path(folder), length, rounds)
            for name, taken in seconds.items():
                clock, work = (
                    quartiles(
                        [t[i] / b[i] for t, b in zip(taken, seconds["numpy.load"], strict=True)]
                    )
                    for i in (0, 1)
                )
                print(
                    f"| {8 * length / 1000:.0f} kB | {name} "
                    f"| {statistics.median(t for t, _ in taken) * 1e3:.3f} "
                    f"| {spelled(clock)} | {spelled(work)} |",
                    flush=True,
                )


def spelled(ratio: tuple[float, float, float]) -> str:
    """Median and quartiles."""
    low, middle, high = ratio
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 31)
