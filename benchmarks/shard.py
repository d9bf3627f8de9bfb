"""One shard of 64 MiB with 256 inner chunks, streamed: peak memory and bytes written.

    python benchmarks/shard.py [--dir PLACE]

Each variant runs in a process of its own; the growth is of its peak resident set (ru_maxrss) over
what it was before the first chunk was made.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIDE, INNER = 4096, 256


def produce(index: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(index[0] * 100 + index[1]).random((INNER, INNER), dtype=np.float32)


def streamed(place: Path) -> None:
    import fstx

    with fstx.chunk_writer(
        place / "a.zarr", shape=(SIDE, SIDE), dtype="f4", chunks=(INNER, INNER), shards=(SIDE, SIDE)
    ) as writer:
        for i in range(SIDE // INNER):
            for j in range(SIDE // INNER):
                writer.write_chunk((i, j), produce((i, j)))


def slab(place: Path) -> None:
    import zarr

    array = zarr.create_array(
        place / "a.zarr", shape=(SIDE, SIDE), dtype="f4", chunks=(INNER, INNER), shards=(SIDE, SIDE)
    )
    whole = np.empty((SIDE, SIDE), "f4")
    for i in range(SIDE // INNER):
        for j in range(SIDE // INNER):
            whole[i * INNER : (i + 1) * INNER, j * INNER : (j + 1) * INNER] = produce((i, j))
    array[:] = whole


def child(name: str, place: Path) -> None:
    import zarr

    import fstx
    import fstx.layouts.zarr3

    variant = {"streamed": streamed, "slab": slab}[name]
    small = place / "warm"  # imports, thread pools and codecs are not the subject
    small.mkdir()
    fstx.write(np.zeros((8, 8), "f4"), small / "w.zarr", chunks=(4, 4), shards=(8, 8))
    zarr.open(small / "w.zarr")[:]
    produce((0, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    variant(place)
    took = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = sum(f.stat().st_size for f in (place / "a.zarr").rglob("*") if f.is_file())
    print(f"| {name} | {grown:.1f} | {size} | {took:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir")
    parser.add_argument("--child", nargs=2)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]))
        return
    import numcodecs

    codec = numcodecs.Zstd(level=0)
    n = SIDE // INNER
    compressed = sum(len(codec.encode(produce((i, j)))) for i in range(n) for j in range(n))
    print(f"compressed chunks alone: {compressed} bytes\n")
    print("| variant | peak RSS growth MiB | bytes written | s |\n|---|---|---|---|", flush=True)
    for name in ("streamed", "slab"):
        with tempfile.TemporaryDirectory(dir=given.dir) as place:
            subprocess.run([sys.executable, __file__, "--child", name, place], check=True)


if __name__ == "__main__":
    main()
