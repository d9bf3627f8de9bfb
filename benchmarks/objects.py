"""Arrays and raw bytes to an S3 server on this machine, each round every way once.

    python benchmarks/objects.py [--rounds N] [--memory-gib N]

The server is the project's own choice of an honest one (tests/servers). Floor: the same chunks compressed in
two threads and put by 16 requests at a time, with nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import zarr

import fstx
from harness import interleave

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.emulators import ENVIRONMENT, S3

SIDE, CHUNK = 4096, 256


def chunks_of(array: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    return [
        np.ascontiguousarray(array[y : y + CHUNK, x : x + CHUNK])
        for y in range(0, SIDE, CHUNK)
        for x in range(0, SIDE, CHUNK)
    ]


async def put_all(fs: Any, items: dict[str, bytes], width: int) -> None:
    gate = asyncio.Semaphore(width)

    async def put(path: str, data: bytes) -> None:
        async with gate:
            await fs._pipe_file(path, data)

    await asyncio.gather(*(put(p, d) for p, d in items.items()))


def floor(fs: Any, array: np.ndarray[Any, Any], bucket: str) -> None:
    from numcodecs.zstd import Zstd

    codec = Zstd(level=3)
    root = f"{bucket}/{uuid.uuid4().hex}"
    with ThreadPoolExecutor(2) as pool:
        encoded = list(pool.map(codec.encode, chunks_of(array)))
    items = {f"{root}/c/{i}": bytes(data) for i, data in enumerate(encoded)}
    fsspec.asyn.sync(fs.loop, put_all, fs, items, 16)


def by_zarr(options: dict[str, Any], array: np.ndarray[Any, Any], bucket: str) -> None:
    store = zarr.storage.FsspecStore.from_url(
        f"s3://{bucket}/{uuid.uuid4().hex}.zarr", storage_options=options
    )
    made = zarr.create_array(
        store,
        shape=array.shape,
        chunks=(CHUNK, CHUNK),
        dtype=array.dtype,
        compressors=zarr.codecs.ZstdCodec(level=3),
    )
    made[:] = array


def by_fstx(options: dict[str, Any], array: np.ndarray[Any, Any], url: str) -> None:
    fstx.write(
        array, url, chunks=(CHUNK, CHUNK), compression="zstd", level=3, storage_options=options
    )


def raw(options: dict[str, Any], data: list[bytes], url: str) -> None:
    with fstx.begin(url, **options) as tx:
        for i, piece in enumerate(data):
            tx.stage(f"{i:04d}", piece)


def memory(options: dict[str, Any], bucket: str, gib: float) -> None:
    """Peak memory above the baseline while `gib` GiB go out in objects of 1 MiB; in a process of its own."""
    piece = os.urandom(1 << 20)
    with fstx.begin(f"tx::s3://{bucket}/warm-{uuid.uuid4().hex}", **options) as tx:
        tx.stage("0", piece)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status_kib("VmRSS")
    with fstx.begin(f"tx::s3://{bucket}/mem-{uuid.uuid4().hex}", **options) as tx:
        for i in range(int(gib * 1024)):
            tx.stage(f"{i}", b"%08d" % i + piece[8:])
    above = (status_kib("VmHWM") - before) / 1024
    print(f"{gib:g} GiB in objects of 1 MiB: peak {above:.0f} MiB above the baseline")


def status_kib(name: str) -> int:
    """A figure of this process as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-gib", type=float, default=2)
    given = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    with tempfile.TemporaryDirectory() as logs, ExitStack() as stack:
        server = S3(Path(logs))
        stack.callback(server.server.stop)
        place = stack.enter_context(server.place())
        options, bucket = place.options, place.bucket
        fs = fsspec.filesystem("s3", **options)
        rng = np.random.default_rng(1)
        array = rng.random((SIDE, SIDE), dtype=np.float32)
        interleave(
            {
                "floor: zstd in 2 threads, 16 puts": lambda p: floor(fs, array, bucket),
                "zarr, FsspecStore, no transaction": lambda p: by_zarr(options, array, bucket),
                "fstx.write, plain Zarr": lambda p: by_fstx(
                    options, array, f"s3://{bucket}/{uuid.uuid4().hex}.zarr"
                ),
                "fstx.write, tx::": lambda p: by_fstx(
                    options, array, f"tx::s3://{bucket}/{uuid.uuid4().hex}.zarr"
                ),
            },
            base="floor: zstd in 2 threads, 16 puts",
            rounds=given.rounds,
        )
        pieces = [rng.bytes(256 << 10) for _ in range(256)]
        interleave(
            {
                "fs.pipe": lambda p: fs.pipe(
                    {f"{bucket}/{uuid.uuid4().hex}/{i}": d for i, d in enumerate(pieces)}
                ),
                "fstx, tx::": lambda p: raw(
                    options, pieces, f"tx::s3://{bucket}/{uuid.uuid4().hex}"
                ),
            },
            base="fs.pipe",
            rounds=given.rounds,
        )
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(memory, options, bucket, given.memory_gib).result()


if __name__ == "__main__":
    main()
