"""fstx.write with resume= on an object store."""

from __future__ import annotations

from typing import Any

import fsspec
import numpy as np
import pytest

import fstx
from support.emulators import Place

ARRAY = np.arange(64 * 64, dtype="float32").reshape(64, 64) + 1
JOB: dict[str, Any] = {"fingerprint": "elevation 3", "chunks": (8, 8), "shards": (16, 16)}


class Source:
    """Counts the blocks that are asked for; one fails."""

    shape, dtype = ARRAY.shape, ARRAY.dtype

    def __init__(self, fails: int | None) -> None:
        self.fails, self.asked = fails, 0

    def __getitem__(self, region: Any) -> np.ndarray[Any, Any]:
        self.asked += 1
        if self.asked == self.fails:
            raise ZeroDivisionError("block")
        return ARRAY[region]


@pytest.mark.parametrize("view", ["", "tx::"])
def test_shards_that_are_finished_are_not_computed_again(view: str, s3: Place) -> None:
    """D32, D28: a failed write goes on; nothing is visible before, nothing of the job is left after."""
    url, options = f"{view}{s3.url}/s.zarr", {"storage_options": s3.options, "max_workers": 1}
    with pytest.raises(ZeroDivisionError):
        fstx.write(Source(10), url, resume="if_possible", **JOB, **options)
    fs, root = fsspec.url_to_fs(s3.url, **s3.options)
    assert [p for p in fs.find(root) if ".fstx/" not in p] == []
    assert fstx.jobs(url, **s3.options)[0].units == 9
    source = Source(None)
    done = fstx.write(source, url, resume="always", **JOB, **options)
    assert source.asked == 7
    assert done.reason.startswith("9 of 16 units")
    fs.invalidate_cache()
    assert [p for p in fs.find(root) if "/jobs/" in p] == []
    if not view:
        zarr = pytest.importorskip("zarr")
        store = zarr.storage.FsspecStore.from_url(url, storage_options=s3.options, read_only=True)
        np.testing.assert_array_equal(zarr.open_array(store, mode="r")[...], ARRAY)


def test_a_dataset_in_batches(s3: Place) -> None:
    """D7, D21: a stopped run goes on and grows; readers that enter by _metadata find one set."""
    pytest.importorskip("pyarrow")
    url, made = f"{s3.url}/d", []
    job: dict[str, Any] = {"schema": {"id": "int64"}, "rows_per_batch": 10, "fingerprint": 1}

    def generate(rows: int, stop_at: int = -1) -> None:
        with fstx.batches(url, rows=rows, storage_options=s3.options, **job) as run:
            for batch in run:
                if batch.number == stop_at:
                    run.suspend()
                    return
                run.write(batch, {"id": list(range(batch.start, batch.stop))})
                made.append(batch.number)

    generate(25, stop_at=1)
    generate(25)
    generate(40)
    assert made == [0, 1, 2, 3, 4]
    import pyarrow.dataset as ds
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    fs, root = fsspec.url_to_fs(url, **s3.options)
    fs.invalidate_cache()
    found = ds.parquet_dataset(f"{root}/_metadata", filesystem=PyFileSystem(FSSpecHandler(fs)))
    assert sorted(found.to_table()["id"].to_pylist()) == list(range(40))
    assert sorted(p.rpartition("/")[2] for p in fs.find(root) if ".fstx" not in p) == [
        "_metadata",
        *(f"part-{n:05d}.parquet" for n in range(5)),
    ]
