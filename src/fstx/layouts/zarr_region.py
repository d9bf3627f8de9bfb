"""Writing into a Zarr v3 array that is there: a region of whole chunks or shards, or more at its end.

A stored object is written by one call whole, or not at all: nothing is read, changed and written back, so
that writers of disjoint regions never meet.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fstx.errors import UsageError
from fstx.layouts.shard_sink import Partial, ShardSink
from fstx.layouts.zarr3 import DOCUMENT, ZarrPlan, block_grid
from fstx.layouts.zarr_existing import ExistingArray, read_document
from fstx.plan import ArraySpec, Index, StatelessSink, block_slices
from fstx.protocol import Stager, Transaction
from fstx.types import StagedObject

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class RegionPlan(ZarrPlan):
    """The plan of a region; `shape` is the whole array's, `grid` the region's. Made by `plan_into`."""

    region: Slices = ()
    grows: bool = False

    def place(self, index: Index) -> Slices:
        """Elements of block `index` in the whole array."""
        return tuple(
            slice(r.start + b.start, r.start + b.stop)
            for r, b in zip(self.region, block_slices(self.grid, index), strict=True)
        )

    def sink(self, stager: Stager, /, *, partial: Partial = "fill") -> StatelessSink | ShardSink:
        """As a new array's."""
        if self.shards is None:
            return StatelessSink(self, stager)
        return ShardSink(stager, self.layout, self.grid, partial=partial, place=self.place)

    def finish(self, tx: Transaction, receipts: Sequence[StagedObject], /) -> None:
        """Adopt and compose; chunks that became all fill value replace what was there; grow."""
        layout = self.layout
        self._adopt(tx, receipts)
        written = {receipt.path.rpartition("#")[0] or receipt.path for receipt in receipts}
        empty = None
        for shard in shards_of(self.region, layout.shards):
            path = layout.path(shard)
            if path in written or not _is_there(tx, path):
                continue
            if empty is None:
                form = layout.format
                empty = (
                    self.codec.encode_fill()
                    if self.shards is None
                    else form.encode_index(form.empty_index())
                )
            tx.stage(path, empty)
        if self.grows:
            tx.stage(f"{self.name}/{DOCUMENT}", self.metadata, publisher=True)


def _is_there(tx: Transaction, path: str) -> bool:
    try:
        tx.read(path, 0, 1)
    except FileNotFoundError:
        return False
    return True


def plan_into(
    name: str,
    document: bytes,
    spec: ArraySpec,
    *,
    region: object = None,
    append_dim: object = None,
    dims: tuple[str, ...] | None = None,
) -> RegionPlan:
    """Plan to write an array into the array `name`, of which `document` is the ``zarr.json``.

    Parameters
    ----------
    region
        A slice for each axis, or slices by name of dimension (other axes whole). Or:
    append_dim
        Axis, or name of the dimension, along which the array is put behind the present one.
    dims
        The array's own names of dimensions, where it has some.

    Raises
    ------
    UsageError
        Another data type or shape, a region that cuts chunks or shards (the message says which doesn't),
        or an array that can't be written here.
    """
    there = read_document(name, document)
    if spec.dtype.name != there.codec.dtype:
        raise UsageError(
            f"{name} has data type {there.codec.dtype}, the array {spec.dtype}; convert it by .astype()"
        )
    if dims is not None and None not in there.names and dims != there.names:
        raise UsageError(f"{name} has dimensions {there.names}, the array {dims}; transpose it")
    if region is not None:
        where, shape = _region(name, there, region), there.shape
    else:
        where, shape = _appended(name, there, spec, append_dim)
    asked = tuple(r.stop - r.start for r in where)
    if spec.shape != asked:
        raise UsageError(
            f"{name}: the array has shape {spec.shape}, the region {_shown(where)} has {asked}"
        )
    return RegionPlan(
        name,
        shape,
        there.codec,
        there.shards,
        block_grid(spec, there.codec.shape, there.shards),
        there.grown(shape),
        region=where,
        grows=region is None,
    )


def _region(name: str, there: ExistingArray, region: object) -> Slices:
    axes = _slices(name, there, region)
    found = []
    for axis, (given, n) in enumerate(zip(axes, there.shape, strict=True)):
        plain = all(end is None or type(end) is int for end in (given.start, given.stop))
        if not plain or given.step not in (None, 1):
            raise UsageError(f"region: {given} of axis {axis} is no slice of whole numbers, step 1")
        start, stop = given.indices(n)[:2]
        if max(given.start or 0, given.stop or 0) > n:
            raise UsageError(
                f"{name} has length {n} along axis {axis}, the region {given.start}:{given.stop} ends "
                "behind it; append_dim= appends"
            )
        if stop <= start:
            raise UsageError(f"region: {given.start}:{given.stop} of axis {axis} is empty")
        found.append(slice(start, stop))
    aligned = tuple(
        slice(r.start // u * u, min(-(-r.stop // u) * u, n))
        for r, u, n in zip(found, there.unit, there.shape, strict=True)
    )
    if aligned != tuple(found):
        raise UsageError(
            f"{name}: the region {_shown(found)} cuts {_units(there)}, which other writers may be writing "
            f"too; the aligned region around it is {_shown(aligned)}"
        )
    return tuple(found)


def _slices(name: str, there: ExistingArray, region: object) -> list[slice]:
    if isinstance(region, Mapping):
        odd = [key for key in region if key is None or key not in there.names]
        if odd or len(set(there.names)) != len(there.names):
            raise UsageError(f"region: {name} has dimensions {there.names}, not {odd or region}")
        region = [region.get(key, slice(None)) for key in there.names]
    elif isinstance(region, slice):
        region = [region]
    if not isinstance(region, Sequence) or not all(isinstance(s, slice) for s in region):
        raise UsageError(
            f"region={region!r}: a slice for each axis is needed, or slices by dimension"
        )
    if len(region) != len(there.shape):
        raise UsageError(f"region: {len(region)} slices for the {len(there.shape)} axes of {name}")
    return list(region)


def _appended(
    name: str, there: ExistingArray, spec: ArraySpec, append_dim: object
) -> tuple[Slices, tuple[int, ...]]:
    axis = append_dim
    if isinstance(axis, str):
        if axis not in there.names:
            raise UsageError(f"append_dim={axis!r}: {name} has dimensions {there.names}")
        axis = there.names.index(axis)
    if type(axis) is not int or not 0 <= axis < len(there.shape):
        raise UsageError(
            f"append_dim={append_dim!r}: the name of a dimension or an axis from 0 to "
            f"{len(there.shape) - 1} is needed"
        )
    if len(spec.shape) != len(there.shape):
        raise UsageError(f"{name} has {len(there.shape)} axes, the array {len(spec.shape)}")
    length, unit = there.shape[axis], there.unit[axis]
    if length % unit:
        raise UsageError(
            f"{name} has length {length} along axis {axis}, which ends inside of {_units(there)}: the last "
            f"one would have to be written again. Append in multiples of {unit} from the first time on, or "
            "by xarray's to_zarr(append_dim=) through tx::, which rewrites it"
        )
    if not spec.shape[axis]:
        raise UsageError(f"append_dim: the array is empty along axis {axis}")
    grown = tuple(n + spec.shape[axis] if a == axis else n for a, n in enumerate(there.shape))
    where = tuple(
        slice(length, grown[axis]) if a == axis else slice(0, n) for a, n in enumerate(there.shape)
    )
    return where, grown


def _units(there: ExistingArray) -> str:
    return f"{'chunks' if there.shards is None else 'shards'} of {there.unit}"


def _shown(region: Sequence[slice]) -> str:
    return "[" + ", ".join(f"{r.start}:{r.stop}" for r in region) + "]"


def shards_of(region: Slices, unit: tuple[int, ...]) -> itertools.product[Index]:
    """Numbers of all stored objects that a region covers."""
    return itertools.product(
        *(range(r.start // u, -(-r.stop // u)) for r, u in zip(region, unit, strict=True))
    )
