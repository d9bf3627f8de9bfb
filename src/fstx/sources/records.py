"""The graph of a write: one task for each block, whose result is the block's receipts; whole, or in parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from fstx.plan import Index

SHARED_TASKS = 16  # constants that the chunks of a simple graph share, such as the array cut up
_SMALL = 1 << 20  # bytes of data that parts may each bring along


def records_of(
    array: Any, task: Any, *, name: str, only: Collection[Index] | None = None
) -> Records:
    """`task` mapped over the blocks of a dask array; `only`: over these."""
    import dask.array as da
    from dask.core import flatten

    chunks = tuple((1,) * n for n in array.numblocks)
    meta = np.empty((0,) * array.ndim, dtype=object)
    graph = da.map_blocks(task, array, name=name, chunks=chunks, dtype=object, meta=meta)
    if only is None:
        return Records(graph.dask, list(flatten(graph.__dask_keys__())), graph.name)
    # dask before 2025.5 puts a hash behind the name that it is given
    return Records(graph.dask, [(graph.name, *i) for i in sorted(only)], graph.name, some=True)


class Records:
    """Blocks of an array as a collection of dask's: what `persist` takes.

    Parameters
    ----------
    graph, keys, name
        As dask has them; all keys are ``(name, *index)``.
    some
        Whether these are not all keys of the graph.
    fused
        Whether the graph is optimised already.
    """

    def __init__(
        self, graph: Any, keys: list[Any], name: str, *, some: bool = False, fused: bool = False
    ) -> None:
        self.graph = graph
        self.keys = keys
        self.name = name
        self.some = some
        self.fused = fused

    def parts(self, size: int) -> Iterator[Records]:
        """The blocks, `size` at a time, as long as a part shares nothing with others; then all the rest.

        A block shares nothing where fusing leaves one task for it and data: so nothing is computed twice.
        Each part is made when it is asked for, so that a scheduler never has to hold the whole graph.
        """
        from dask.blockwise import optimize_blockwise

        layers = optimize_blockwise(self.graph, keys=self.keys)
        brought: set[Any] = set()
        start = 0
        while start < len(self.keys):
            keys = self.keys[start : start + size]
            graph = layers.cull(set(keys))
            if not _stand_alone(dict(graph), len(keys), brought):
                break
            yield Records(graph, keys, self.name, fused=True)
            start += size
        if rest := self.keys[start:]:
            yield Records(self.graph, rest, self.name, some=self.some or start > 0)

    def __dask_graph__(self) -> Any:
        return self.graph

    def __dask_keys__(self) -> list[Any]:
        return self.keys

    def __dask_optimize__(self, graph: Any, keys: Any, **options: Any) -> Any:
        from dask.array.optimization import optimize

        return graph if self.fused else optimize(graph, keys, **options)

    def __dask_postpersist__(self) -> Any:
        return _persisted, (self.keys, self.name)

    def __dask_postcompute__(self) -> Any:
        return list, ()


def _persisted(graph: Any, keys: list[Any], name: str, *, rename: Any = None) -> Records:
    return Records(graph, keys, name)


def _stand_alone(fused: dict[Any, Any], blocks: int, brought: set[Any]) -> bool:
    """Whether nothing but the tasks of the blocks themselves runs, and no large data is sent a second time.

    `brought`: keys of large data in parts before, added to.
    """
    from dask.sizeof import sizeof

    data = {key: node for key, node in fused.items() if not runs(node)}
    if len(fused) - len(data) > blocks:
        return False
    large = {key for key, node in data.items() if sizeof(getattr(node, "value", node)) > _SMALL}
    if large & brought:
        return False
    brought |= large
    return True


def runs(node: Any) -> bool:
    """True for a task, False for data in a graph. The node classes are dask's own affair, hence by name:
    not knowing one only costs time."""
    return isinstance(node, tuple) or (
        hasattr(node, "dependencies") and type(node).__name__ != "DataNode"
    )


__all__ = ["SHARED_TASKS", "Records", "records_of", "runs"]
