"""The contract between sources, layouts and the driver that joins them. No code but a default.

A layout makes a `Plan` from an `ArraySpec` before any work: names, block grid, what is published last.
A source delivers blocks on that grid as host arrays; the driver hands each to the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from fstx.protocol import Stager, Transaction
from fstx.types import Mode, StagedObject

Index: TypeAlias = tuple[int, ...]
Grid: TypeAlias = tuple[tuple[int, ...], ...]
"""Block lengths along each axis, as dask's ``chunks``: ``((256, 256, 188), (256, 144))``."""
Host: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ArraySpec:
    """What a layout may know of an array before a value is computed.

    ``grid`` is the array's own block grid, or None when it has none (numpy, device arrays).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    grid: Grid | None = None


class Sink(Protocol):
    """Takes blocks in one process, from several threads, in any order; may keep state between them."""

    def write(self, index: Index, block: Host, /) -> tuple[StagedObject, ...]:
        """Encode and stage one block; returns the objects that this block completed."""

    def close(self) -> tuple[StagedObject, ...]:
        """Complete what is open and return those receipts."""

    def discard(self) -> None:
        """Drop what is open. Never raises."""


class Plan(Protocol):
    """What will be written, decided before any work. Immutable, pure, pickles.

    All paths begin with one of `names`, which lie beside each other in the parent of the URL.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The targets; the first is the URL's own name."""

    @property
    def entry(self) -> str | None:
        """The path that readers open and that is published last, where there is one."""

    @property
    def document(self) -> str | None:
        """The path that readers of a directory start at, published last by itself where the directory can't
        be switched whole; None where `entry` says it."""

    @property
    def grid(self) -> Grid:
        """The blocks that the source must deliver."""

    @property
    def overwrite_mode(self) -> Mode:
        """Transaction mode when existing output is to be replaced."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Files of which one lies in every target that may be replaced whole; none: not asked."""

    def replacing(
        self, existing: Sequence[str], /, *, keep_previous: bool = False
    ) -> tuple[Plan, tuple[str, ...]]:
        """The plan beside existing paths, and the paths that go once it is published.

        `keep_previous` leaves out what readers of the present output may still have open.
        """

    def write(self, stager: Stager, index: Index, block: Host, /) -> tuple[StagedObject, ...]:
        """Stage one block without memory of others: in any process, for any scheduler."""

    def sink(self, stager: Stager, /) -> Sink:
        """A sink for blocks that arrive in this process."""

    def finish(self, tx: Transaction, receipts: Sequence[StagedObject], /) -> None:
        """Coordinator, after all blocks: adopt the parts, stage the publishers."""


class Source(Protocol):
    """An array and the loop over it. The source owns the loop: dask ships it to workers."""

    @property
    def spec(self) -> ArraySpec: ...

    def run(
        self,
        work: Callable[[Index, Host], tuple[StagedObject, ...]],
        grid: Grid,
        *,
        max_workers: int | None,
        progress: Callable[[int], None],
        only: Collection[Index] | None = None,
        landed: Callable[[tuple[Any, ...]], None] | None = None,
    ) -> Iterator[StagedObject]:
        """Call `work` once per block of `grid` and yield what it returned, as it comes.

        `only`: of these blocks alone; what no other block needs is not computed. `landed`: called with
        what a call of `work` returned as soon as it is known here, at the latest when it is yielded.

        When it raises, no call of `work` is running any more where that can be known (threads,
        processes) and none starts after the first failure, which is the one raised.
        """

    @property
    def remote(self) -> bool:
        """True when `work` runs in other processes and must pickle."""

    def with_scheduler(self, scheduler: Any, /) -> Source:
        """The same array under another scheduler; `UsageError` for one that can't run it."""


@dataclass
class StatelessSink:
    """The sink of a plan that needs no memory between blocks."""

    plan: Plan
    stager: Stager

    def write(self, index: Index, block: Host, /) -> tuple[StagedObject, ...]:
        return self.plan.write(self.stager, index, block)

    def close(self) -> tuple[StagedObject, ...]:
        return ()

    def discard(self) -> None:
        return None


def block_slices(grid: Grid, index: Index) -> tuple[slice, ...]:
    """The region of block `index`, in elements."""
    region = []
    for lengths, i in zip(grid, index, strict=True):
        start = sum(lengths[:i])
        region.append(slice(start, start + lengths[i]))
    return tuple(region)


def cut(length: int, size: int) -> tuple[int, ...]:
    """Blocks of `size` along an axis, the last one shorter; one empty block for an empty axis."""
    whole, rest = divmod(length, size)
    return (size,) * whole + ((rest,) if rest or not whole else ())


def grid_shape(grid: Grid) -> tuple[int, ...]:
    """Number of blocks along each axis."""
    return tuple(len(lengths) for lengths in grid)
