"""Overhead of the driver for each chunk: 4096 writes that stage nothing.

    python benchmarks/driver.py [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from harness import quartiles

import fstx
from fstx.plan import Grid, StatelessSink
from fstx.writing import write_into

BLOCKS, SIDE = 64, 4


@dataclass(frozen=True)
class NothingPlan:
    """Takes every block and stages nothing."""

    grid: Grid
    names: tuple[str, ...] = ("x",)
    entry: str | None = None
    overwrite_mode: str = "update"

    def replacing(self, existing: Any) -> Any:
        return self, ()

    def write(self, stager: Any, index: Any, block: Any) -> tuple[()]:
        return ()

    def sink(self, stager: Any) -> StatelessSink:
        return StatelessSink(self, stager)

    def finish(self, tx: Any, receipts: Any) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    array = np.zeros((BLOCKS * SIDE, BLOCKS * SIDE), "u1")
    grid = ((SIDE,) * BLOCKS,) * 2
    lazy = da.from_array(array, chunks=SIDE)
    inputs = {"numpy": (array, {}), "dask threads": (lazy, {"scheduler": "threads"})}
    taken: dict[str, list[float]] = {name: [] for name in inputs}
    for number in range(given.rounds + 1):
        for name, (source, how) in inputs.items():
            tx = fstx.begin("memory://bench-driver")
            began = time.perf_counter()
            write_into(tx, source, NothingPlan(grid), **how)
            seconds = time.perf_counter() - began
            tx.rollback()
            if number:
                taken[name].append(seconds / BLOCKS**2 * 1e3)
    print("| input | ms for each chunk, median (quartiles) |\n|---|---|")
    for name, values in taken.items():
        low, _, high = quartiles(values)
        print(f"| {name} | {statistics.median(values):.3f} ({low:.3f}-{high:.3f}) |")


if __name__ == "__main__":
    main()
