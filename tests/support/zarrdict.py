"""Plans run over the memory backend, and what they published as a dictionary."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.implementations.memory import MemoryFileSystem

from fstx.backends.memory import MemoryBackend, MemoryTransaction
from fstx.plan import Index, Plan, block_slices, grid_shape
from fstx.types import Mode, StagedObject

PLACE = "layouts-test"


@contextmanager
def clean_memory() -> Iterator[None]:
    """The memory file system, empty before and after."""
    before = MemoryFileSystem.store
    MemoryFileSystem.store = {}
    try:
        yield
    finally:
        MemoryFileSystem.store = before


def begin(*names: str, mode: Mode = "update") -> MemoryTransaction:
    """A transaction whose paths begin with one of `names`."""
    backend = MemoryBackend([f"{PLACE}/{n}" for n in names], joined=True)
    return backend.begin(mode=mode, durability="none", require=frozenset())


def published() -> dict[str, bytes]:
    """What plain readers of the memory file system find: path to bytes."""
    start = f"/{PLACE}/"
    return {
        key.removeprefix(start): bytes(file.getvalue())
        for key, file in sorted(MemoryFileSystem.store.items())
        if key.startswith(start)
    }


def export(folder: Path) -> None:
    """Write what was published below `folder`, for readers that want files."""
    for path, content in published().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def blocks(plan: Plan, array: np.ndarray[Any, Any]) -> Iterator[tuple[Index, np.ndarray[Any, Any]]]:
    """The blocks of `array` on the plan's grid, as views."""
    for index in itertools.product(*map(range, grid_shape(plan.grid))):
        yield index, array[block_slices(plan.grid, index)]


def write(
    plan: Plan, array: np.ndarray[Any, Any], *, stateless: bool = False, reverse: bool = False
) -> Sequence[StagedObject]:
    """Run a plan to its commit and return the receipts of its blocks."""
    order = list(blocks(plan, array))
    if reverse:
        order.reverse()
    receipts: list[StagedObject] = []
    with begin(*plan.names, mode=plan.overwrite_mode) as tx:
        if stateless:
            for index, block in order:
                receipts += plan.write(tx.stager(), index, block)
        else:
            sink = plan.sink(tx.stager())
            for index, block in order:
                receipts += sink.write(index, block)
            receipts += sink.close()
        plan.finish(tx, receipts)
    return receipts
