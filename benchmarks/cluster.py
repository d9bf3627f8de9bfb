"""A dask.distributed cluster of 4 processes writes a Zarr array: with fstx, by dask alone, and by hand.

    python benchmarks/cluster.py [--rounds 7] [--side 8192] [--chunk 256] [--dir PLACE]
    python benchmarks/cluster.py --memory [--chunks 256 1024 4096]

*By hand* is one task for each chunk that compresses it and writes a file: no transaction, no sync, no second
try. ``--memory`` runs each count of chunks in a process of its own (driver and scheduler), and prints by
how much its peak resident set grew; *by hand* there is what dask itself needs for so many tasks. dask keeps
the last 1000 messages of each connection for who looks for errors; that is set to 1 there, for both.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np

from harness import interleave

LEVEL = 3


@contextmanager
def cluster(workers: int = 4) -> Iterator[Any]:
    """The active client of so many processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as made,
        Client(made) as client,
    ):
        yield client


def source(side: int, chunk: int) -> Any:
    """Random numbers, made by the workers."""
    return da.random.default_rng(0).random((side, side), chunks=chunk, dtype="f4")


def made(side: int, chunk: int) -> Any:
    """An array of which dask has to remember nothing for each chunk."""
    sizes = ((chunk,) * (side // chunk),) * 2
    return da.map_blocks(numbers, chunks=sizes, dtype="f4", meta=np.empty((0, 0), "f4"), side=chunk)


def numbers(side: int, block_id: Any = None) -> np.ndarray:
    return np.random.default_rng(block_id).random((side, side), dtype="f4")


def save(block: np.ndarray, folder: str, block_id: Any = None) -> np.ndarray:
    """What anyone would write: one compressed file for each chunk."""
    import numcodecs

    path = os.path.join(folder, *map(str, block_id))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(numcodecs.Zstd(LEVEL).encode(np.ascontiguousarray(block)))
    return np.ones((1, 1), "u1")


def by_hand(array: Any, place: Path) -> None:
    ones = tuple((1,) * n for n in array.numblocks)
    meta = np.empty((0, 0), "u1")
    folder = str(place / "c")
    done = da.map_blocks(save, array, folder=folder, chunks=ones, dtype="u1", meta=meta)
    assert int(done.sum().compute()) == array.npartitions


def by_dask(array: Any, place: Path) -> None:
    import zarr

    target = zarr.create_array(
        str(place / "a.zarr"),
        shape=array.shape,
        chunks=array.chunksize,
        dtype="f4",
        compressors=zarr.codecs.ZstdCodec(level=LEVEL),
    )
    da.store(array, target, lock=False)


def by_fstx(array: Any, place: Path, durability: str = "none") -> None:
    import fstx

    fstx.write(array, place / "a.zarr", level=LEVEL, durability=durability)


def times(options: argparse.Namespace) -> None:
    array = source(options.side, options.chunk)
    print(
        f"{array.npartitions} chunks of {array.nbytes // array.npartitions >> 10} KiB, 4 processes\n"
    )
    with cluster():
        interleave(
            {
                "by hand": partial(by_hand, array),
                "dask and zarr-python": partial(by_dask, array),
                "fstx, durability none": partial(by_fstx, array),
                "fstx, durability data": partial(by_fstx, array, durability="data"),
            },
            base="by hand",
            rounds=options.rounds,
            root=options.dir,
        )


def peak_kib(variant: str, chunks: int) -> None:
    """In a process of its own: growth of its peak resident set."""
    dask.config.set({"distributed.admin.low-level-log-length": 1})
    side = int(chunks**0.5)
    write = {"by hand": by_hand, "fstx": by_fstx}[variant]
    with cluster(2), tempfile.TemporaryDirectory() as scratch:
        write(made(64, 16), _made(scratch, "warm"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        write(made(16 * side, 16), _made(scratch, "run"))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def _made(scratch: str, name: str) -> Path:
    folder = Path(scratch, name)
    folder.mkdir()
    return folder


def memory(options: argparse.Namespace) -> None:
    print(
        "| chunks | by hand, KiB | fstx, KiB | fstx more, bytes for each chunk |\n|---|---|---|---|"
    )
    for chunks in options.chunks:
        grown = {}
        for variant in ("by hand", "fstx"):
            command = [sys.executable, __file__, "--child", variant, "--chunks", str(chunks)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            grown[variant] = int(done.stdout.split()[-1])
        more = (grown["fstx"] - grown["by hand"]) * 1024 // chunks
        print(f"| {chunks} | {grown['by hand']} | {grown['fstx']} | {more} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--dir")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--chunks", type=int, nargs="*", default=[1024, 4096, 16384])
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        peak_kib(given.child, given.chunks[0])
    elif given.memory:
        memory(given)
    else:
        times(given)
