"""Interleaved timing: every round runs every variant once, in shuffled order; ratios are per round.

A shared machine makes seconds noisy; the ratio of two runs of the same round is less so. Reported are
the median and the quartiles over all rounds.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Variant = Callable[[Path], object]


def interleave(
    variants: dict[str, Variant], *, base: str, rounds: int, root: str | None = None, seed: int = 1
) -> dict[str, list[float]]:
    """Seconds of each variant by round. Each run gets an empty directory; syncs between are not timed."""
    order = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=root))
    try:
        for number in range(rounds + 1):
            names = list(variants)
            order.shuffle(names)
            for name in names:
                place = scratch / f"{number}-{name.replace('/', '_').replace(' ', '_')}"
                place.mkdir()
                os.sync()
                gc.collect()
                began = time.perf_counter()
                variants[name](place)
                took = time.perf_counter() - began
                if number:  # round 0 warms up
                    seconds[name].append(took)
                shutil.rmtree(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(seconds, base)
    return seconds


def report(seconds: dict[str, list[float]], base: str) -> None:
    """A Markdown table: median seconds, and the ratio to `base` with quartiles."""
    print(f"| variant | median s | ratio to {base} (quartiles) |\n|---|---|---|")
    for name, taken in seconds.items():
        ratios = [t / b for t, b in zip(taken, seconds[base], strict=True)]
        low, middle, high = quartiles(ratios)
        print(f"| {name} | {statistics.median(taken):.3f} | {middle:.2f} ({low:.2f}-{high:.2f}) |")
    print(flush=True)


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
