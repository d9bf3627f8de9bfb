"""Streams of chunks into an object store: companions, ragged ones too, and the memory that it takes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr

import fstx
from support.emulators import Place

GRID = [(i, j) for i in range(4) for j in range(4)]


@pytest.mark.parametrize("view", ["plain", "tx", "sftp"])
def test_dense_and_ragged_companions(
    view: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """F18, F20, F23: chunks of two shards by turns, in one commit; nothing is seen before, all after it."""
    there: Place = request.getfixturevalue("sftp" if view == "sftp" else "s3")
    place = f"{'tx::' if view == 'tx' else ''}{there.url}"
    with fstx.chunk_writer(
        f"{place}/a.zarr",
        shape=(32, 32),
        dtype="f4",
        chunks=(8, 8),
        shards=(32, 16),
        companions={"points": {"layout": "ragged", "dtype": "f8"}},
        storage_options=there.options,
    ) as w:
        for i, j in GRID:
            n = i * 4 + j
            assert w.write_chunk(
                (i, j), np.full((8, 8), n + 1, "f4"), {"points": np.arange(n) + 0.5}
            )
        with pytest.raises((FileNotFoundError, KeyError)):
            _open(f"{place}/a.zarr", there.options, tmp_path)[:]
    whole = np.repeat(np.repeat(np.arange(1, 17, dtype="f4").reshape(4, 4), 8, 0), 8, 1)
    assert (_open(f"{place}/a.zarr", there.options, tmp_path)[:] == whole).all()
    points = _open(f"{place}/points", there.options, tmp_path)
    assert len(list(points.array_keys())) == 15
    assert (points["3.3"][:] == np.arange(15) + 0.5).all()


def _open(url: str, options: dict[str, Any], folder: Path) -> Any:
    """As zarr reads it; from a server that zarr can't use, a copy."""
    if not url.startswith("sftp"):
        return zarr.open(url, mode="r", storage_options=options)
    fs, path = fsspec.url_to_fs(url, **options)
    copy = folder / path.rpartition("/")[2]
    for name in fs.find(path):
        file = copy / name[len(path) :].strip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(fs.cat_file(name))
    return zarr.open(copy, mode="r")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(s3: Place) -> None:
    """F17: one shard of 32, 128 and 512 MiB: the peak is that of the parts under way, and no more."""
    values, peaks = np.random.default_rng(1).random((512, 1024), dtype="f4"), []
    for times in (1, 4, 16):
        rows = 4 * times
        with fstx.chunk_writer(
            f"{s3.url}/{times}.zarr",
            shape=(512 * rows, 4096),
            dtype="f4",
            chunks=(512, 1024),
            shards=(512 * rows, 4096),
            compression=None,
            storage_options=s3.options,
        ) as w:
            tracemalloc.start()
            for i in range(rows):
                for j in range(4):
                    assert w.write_chunk((i, j), values)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1], peaks
    assert max(peaks) < 160 << 20, peaks
