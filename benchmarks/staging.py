"""4096 files of 64 KiB: staged and committed durably, against written plainly and one syncfs.

    python benchmarks/staging.py [--files N] [--rounds N] [--dir PLACE]

Also: the seconds of `commit` alone for a growing number of files (it does not grow).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from pathlib import Path

import fstx
from harness import interleave


def plain(place: Path, files: int, data: bytes, *, sync: bool) -> None:
    target = place / "out"
    target.mkdir()
    for i in range(files):
        with open(target / f"{i:06d}", "wb", buffering=0) as file:
            file.write(data)
    if sync:
        fd = os.open(place, os.O_RDONLY)
        ctypes.CDLL(None).syncfs(fd)
        os.close(fd)


def staged(place: Path, files: int, data: bytes, durability: str) -> float:
    with fstx.begin(place / "out", mode="create", durability=durability) as tx:
        for i in range(files):
            tx.stage(f"{i:06d}", data)
        began = time.perf_counter()
        tx.commit()
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dir")
    given = parser.parse_args()
    data = os.urandom(65536)
    n = given.files
    interleave(
        {
            "plain, no sync": lambda p: plain(p, n, data, sync=False),
            "plain, one syncfs": lambda p: plain(p, n, data, sync=True),
            "fstx, durability none": lambda p: staged(p, n, data, "none"),
            "fstx, durability data": lambda p: staged(p, n, data, "data"),
        },
        base="plain, one syncfs",
        rounds=given.rounds,
        root=given.dir,
    )
    print("| files in a new tree | commit alone, ms (durability none) |\n|---|---|")
    import tempfile

    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        for files in (10, 100, 1000, 10000):
            taken = [staged(Path(folder) / f"{files}-{r}", files, b"x", "none") for r in range(5)]
            print(f"| {files} | {sorted(taken)[2] * 1e3:.2f} |")


if __name__ == "__main__":
    main()
