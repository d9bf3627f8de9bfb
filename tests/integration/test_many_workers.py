"""A thousand workers without a coordinator: each commits its own region of one template (I9)."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import zarr

import fstx

WORKERS, PROCESSES, CHUNK = 1000, 4, 4


def work(url: str, first: int) -> list[int]:
    """The workers that this process plays, each with a file system and a transaction of its own."""
    versions = []
    for i in range(first, WORKERS, PROCESSES):
        with fstx.begin(url, id=f"region {i}") as tx:
            store = zarr.storage.FsspecStore.from_url(tx.url)
            array = zarr.open_array(store, mode="r+")
            array[i * CHUNK : (i + 1) * CHUNK] = i + 1
        assert tx.snapshot is not None
        versions.append(tx.snapshot.version or 0)
    return versions


@pytest.mark.timeout(600)
def test_a_thousand_workers_lose_nothing(tmp_path: Path) -> None:
    """I9: all land, each once, whatever the others commit meanwhile; the array is complete."""
    url = f"tx::{tmp_path}/template.zarr"
    with fstx.begin(url):
        zarr.create_array(
            zarr.storage.FsspecStore.from_url(url),
            shape=(WORKERS * CHUNK,),
            chunks=(CHUNK,),
            dtype="i4",
            fill_value=0,
        )
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(work, [url] * PROCESSES, range(PROCESSES)))
    landed = sorted(version for run in runs for version in run)
    assert landed == list(range(2, WORKERS + 2))
    array = zarr.open_array(zarr.storage.FsspecStore.from_url(url), mode="r")
    np.testing.assert_array_equal(array[:], np.repeat(np.arange(1, WORKERS + 1), CHUNK))
