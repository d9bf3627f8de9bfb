"""Per-block overhead of the driver: 4096 blocks whose write does nothing.

    python benchmarks/driver_overhead.py [rounds]

Prints milliseconds per block, median and quartiles, for numpy and for dask threads, interleaved; and
dask's own time for the same graph with a plain function, which the driver can't get below.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np

from fstx.plan import Grid, StatelessSink
from fstx.sources import open_source
from fstx.streaming import uniform_grid
from fstx.writing import write_into

SHAPE, BLOCK = (512, 512), (8, 8)


@dataclass(frozen=True)
class Nothing:
    """A plan that stages nothing."""

    grid: Grid

    def write(self, *_: Any) -> tuple[()]:
        return ()

    def sink(self, stager: Any) -> Any:
        return StatelessSink(self, stager)  # type: ignore[arg-type]

    def finish(self, *_: Any) -> None:
        return None


class NoTransaction:
    """As much of a transaction as a plan without output needs."""

    def stager(self) -> None:
        return None


def _driver(array: Any) -> None:
    plan: Any = Nothing(uniform_grid(SHAPE, BLOCK))
    tx: Any = NoTransaction()
    write_into(tx, open_source(array), plan, max_workers=2)


def _dask_alone(array: Any) -> None:
    cell = np.empty((1, 1), object)
    ones = tuple((1,) * n for n in array.numblocks)
    meta = np.empty((0, 0), object)
    tokens = da.map_blocks(lambda _block: cell, array, chunks=ones, dtype=object, meta=meta)
    tokens.compute(scheduler="threads", num_workers=2)


def main(rounds: int) -> None:
    """Measure and print."""
    host = np.zeros(SHAPE, "f4")
    cases = {
        "numpy": lambda: _driver(host),
        "dask threads": lambda: _driver(da.from_array(host, chunks=BLOCK)),
        "dask alone": lambda: _dask_alone(da.from_array(host, chunks=BLOCK)),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) / 4096 * 1e3)
    for name, seen in times.items():
        low, middle, high = statistics.quantiles(seen, n=4)
        print(f"{name:14} {middle:.4f} ms per block (quartiles {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
