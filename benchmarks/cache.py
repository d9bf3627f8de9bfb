"""What a hit costs beside `numpy.load` of the same file.

    python benchmarks/cache.py [rounds]

Each round gives each variant the same number of hits, in shuffled order. Reading from the system's cache is
work of the processor only, so its time is taken, not the clock's: others on the machine disturb it less.
"""

from __future__ import annotations

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


def measure(folder: Path, length: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of one hit by variant and round."""
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
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    hits = max(1, min(100, BATCH_BYTES // (8 * length)))
    order = random.Random(1)
    for number in range(rounds + 1):
        names = list(variants)
        order.shuffle(names)
        for name in names:
            call = variants[name]
            began = time.process_time()
            for _ in range(hits):
                call()
            if number:  # round 0 warms up
                seconds[name].append((time.process_time() - began) / hits)
    return seconds


def main(rounds: int) -> None:
    """Measure and print."""
    print("| size of the array | variant | median ms | ratio to numpy.load (quartiles) |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for length in SIZES:
            seconds = measure(Path(folder), length, rounds)
            for name, taken in seconds.items():
                ratios = [t / b for t, b in zip(taken, seconds["numpy.load"], strict=True)]
                low, middle, high = quartiles(ratios)
                print(
                    f"| {8 * length / 1000:.0f} kB | {name} | {statistics.median(taken) * 1e3:.3f} "
                    f"| {middle:.2f} ({low:.2f}-{high:.2f}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 31)
