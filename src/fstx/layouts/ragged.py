"""Ragged arrays: a Zarr v3 group that holds one array of any shape for each chunk of a grid.

The array of chunk ``(2, 0)`` is called ``2.0``; a chunk without values has none. ``zarr.json`` of the group
follows when all of them are there.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.layouts.chunks import DTYPES, ChunkCodec, check_compression
from fstx.layouts.zarr_metadata import DOCUMENT as DOCUMENT  # of every layout's module
from fstx.layouts.zarr_metadata import OVERWRITE_MODE as OVERWRITE_MODE
from fstx.layouts.zarr_metadata import ZarrDirectory, array_metadata
from fstx.plan import ArraySpec, Grid, Host, Index, StatelessSink, cut
from fstx.protocol import Stager, Transaction
from fstx.types import StagedObject

OPTIONS: frozenset[str] = frozenset({"compression", "level", "attributes"})
"""Names of the options that `plan` takes."""

ENTERED_BY_NAME = False


def targets(name: str) -> tuple[str, ...]:
    """The one target."""
    return (name,)


def describe(array: Any, given: Container[str] = ()) -> dict[str, Any]:
    """A labelled array tells nothing that has a place here."""
    return {}


def plan(name: str, spec: ArraySpec, **options: Any) -> RaggedPlan:
    """Plan one group.

    Parameters
    ----------
    name
        Name of the directory that is the group.
    spec
        The grid by which chunks are numbered, and the data type of all of them.
    **options
        ``compression``, ``level``, ``attributes`` of the group: as for Zarr.

    Raises
    ------
    UsageError
        An unknown option, or a value that can't be written; the message names it.
    """
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise UsageError(
            f"ragged takes no option {unknown[0]!r}; it takes {', '.join(sorted(OPTIONS))}"
        )
    if spec.dtype.name not in DTYPES:
        raise UsageError(f"dtype {spec.dtype} can't be written; known: {', '.join(sorted(DTYPES))}")
    compression, level = check_compression(options.get("compression", "zstd"), options.get("level"))
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group"}
    try:
        document["attributes"] = dict(options.get("attributes") or {})
        metadata = json.dumps(document, indent=2, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"attributes can't be written as JSON: {error}") from error
    grid = spec.grid or tuple(cut(n, max(1, n)) for n in spec.shape)
    return RaggedPlan(name, grid, spec.dtype.name, compression, level, metadata)


@dataclass(frozen=True)
class RaggedPlan(ZarrDirectory):
    """The plan of one group. Made by `plan`."""

    grid: Grid
    dtype: str
    compression: str | None
    level: int
    metadata: bytes

    ragged = True
    """Blocks may have any shape, also another number of axes."""

    def sink(self, stager: Stager, /) -> StatelessSink:
        """A sink for blocks of this process."""
        return StatelessSink(self, stager)

    def write(self, stager: Stager, index: Index, block: Host, /) -> tuple[StagedObject, ...]:
        """Stage the array of one chunk; nothing where it has no values."""
        if block.size == 0:
            return ()
        fill = np.zeros((), np.dtype(self.dtype).newbyteorder("<")).tobytes()
        codec = ChunkCodec(block.shape, self.dtype, fill, self.compression, self.level)
        place = f"{self.name}/{'.'.join(map(str, index)) or '0'}"
        receipts = []
        data = codec.encode(block)
        if data is not None:
            key = "/".join(["c", *("0" for _ in block.shape)])
            receipts.append(stager.stage(f"{place}/{key}", data))
        metadata = array_metadata(block.shape, codec, None, None, None)
        return (*receipts, stager.stage(f"{place}/{DOCUMENT}", metadata))

    def finish(self, tx: Transaction, receipts: Sequence[StagedObject], /) -> None:
        """Adopt all arrays and stage the group's ``zarr.json``."""
        tx.adopt(receipts)
        tx.stage(f"{self.name}/{DOCUMENT}", self.metadata, publisher=True)
