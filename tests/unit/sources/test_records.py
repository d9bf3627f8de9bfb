"""The graph of a write on a cluster, whole and in parts: acceptance E10."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

from fstx.sources.records import Records, records_of

SIDE, CHUNK, BLOCKS = 32, 4, 64


def count(block: Any, block_id: Any = ()) -> Any:
    cell = np.empty((1,) * len(block_id), dtype=object)
    cell[(0,) * len(block_id)] = (float(np.sum(block)),)
    return cell


def parts_of(array: Any, size: int = 10, only: Any = None) -> list[Records]:
    return list(records_of(array, count, name="w", only=only).parts(size))


def values(parts: list[Records]) -> dict[Any, float]:
    found = {}
    for part in parts:
        [records] = dask.persist(part, scheduler="sync")
        found.update({key: records.graph[key].flat[0][0] for key in records.keys})
    return found


def numbers() -> np.ndarray:
    return np.arange(SIDE * SIDE, dtype="f8").reshape(SIDE, SIDE)


def expected() -> dict[Any, float]:
    blocks = numbers().reshape(8, CHUNK, 8, CHUNK).sum((1, 3))
    return {("w", i, j): float(blocks[i, j]) for i in range(8) for j in range(8)}


@pytest.mark.parametrize(
    "array",
    [
        da.from_array(numbers(), chunks=CHUNK),
        da.from_array(numbers(), chunks=CHUNK) * 2 / 2,
        da.ones((SIDE, SIDE), chunks=CHUNK) * 0 + da.from_array(numbers(), chunks=CHUNK),
    ],
    ids=["data", "elementwise", "two arrays"],
)
def test_blocks_that_share_nothing_go_in_parts(array: Any) -> None:
    """Parts of the size asked, each with its own tasks only; together all blocks, once."""
    parts = parts_of(array)
    assert [len(part.keys) for part in parts] == [10] * 6 + [4]
    assert all(len(dict(part.graph)) <= 3 * len(part.keys) for part in parts)
    keys = [key for part in parts for key in part.keys]
    assert len(keys) == len(set(keys)) == BLOCKS
    assert values(parts) == expected()


def test_blocks_that_share_work_stay_together() -> None:
    """E10: what several blocks need is in one graph, so that nobody computes it twice."""
    array = da.from_array(numbers(), chunks=CHUNK)
    for shared in (array - array.mean(), array.rechunk(8), array + array[:CHUNK].sum(0)):
        [whole] = parts_of(shared)
        assert len(whole.keys) == shared.npartitions


def test_work_that_later_blocks_share_stays_together() -> None:
    """Parts end where sharing begins: the rest is one graph."""
    array = da.from_array(numbers(), chunks=CHUNK)
    tail = array[16:] - array[16:].mean()
    parts = parts_of(da.concatenate([array[:16], tail]), size=16)
    assert sum(len(part.keys) for part in parts) == BLOCKS
    assert len(parts[-1].keys) >= 32
    assert not parts[-1].fused


def test_large_data_is_not_sent_with_each_part() -> None:
    """An object of megabytes that all blocks read is sent with one part and with the rest at most."""

    class Large:
        shape, dtype, ndim = (SIDE, SIDE), np.dtype("f8"), 2

        def __init__(self) -> None:
            self.ballast = np.zeros(1 << 18)
            self.values = numbers()

        def __sizeof__(self) -> int:
            return self.ballast.nbytes

        def __getitem__(self, key: Any) -> Any:
            return self.values[key]

    array = da.from_array(Large(), chunks=CHUNK, asarray=False, inline_array=False)
    assert [len(part.keys) for part in parts_of(array)] == [10, 54]
    small = da.from_array(Large(), chunks=CHUNK, asarray=False, inline_array=True)
    assert values(parts_of(small)) == expected()


def test_some_blocks_in_parts() -> None:
    """Of a resumed write only the blocks that are asked for are in any part."""
    only = [(i, j) for i in range(8) for j in range(3)]
    parts = parts_of(da.from_array(numbers(), chunks=CHUNK), only=only)
    assert [len(part.keys) for part in parts] == [10, 10, 4]
    assert values(parts) == {key: v for key, v in expected().items() if key[2] < 3}
