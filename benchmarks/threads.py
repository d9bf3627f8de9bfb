"""How well compression runs in two threads: the same tiles with one worker and with two.

    python benchmarks/threads.py [--rounds N]

Smooth data at zstd 15, so that the codec decides; to memory://, so that no disk does.
"""

from __future__ import annotations

import argparse
import uuid
from functools import partial
from pathlib import Path

import fsspec
import numpy as np

import fstx
from harness import interleave

SIDE = 2048


def write(array: np.ndarray, workers: int, place: Path) -> None:
    url = f"memory://bench-{uuid.uuid4().hex}"
    fstx.write(array, f"{url}/o.vrt", tile_size=256, level=15, max_workers=workers)
    fsspec.filesystem("memory").rm(url, recursive=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    noise = np.random.default_rng(1).random((SIDE, SIDE), dtype=np.float32)
    array = np.round(1000 + 300 * np.sin(x / 97) * np.cos(y / 61) + noise * 2, 1).astype("f4")
    seconds = interleave(
        {"one thread": partial(write, array, 1), "two threads": partial(write, array, 2)},
        base="two threads",
        rounds=given.rounds,
    )
    best = min(seconds["one thread"]) / min(seconds["two threads"])
    print(f"by the best of each: {best:.2f}")


if __name__ == "__main__":
    main()
