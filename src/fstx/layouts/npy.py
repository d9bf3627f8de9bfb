"""One ``.npy`` file: a header and the array's bytes.

An array without blocks of its own is staged in one go, straight from its memory. A chunked array
arrives as slabs along the first axis; each is staged alone, and the coordinator puts header and
slabs together, so that the whole array is never in memory.
"""

from __future__ import annotations

import io
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.plan import ArraySpec, Grid, Host, Index, StatelessSink, grid_shape
from fstx.protocol import Stager, Transaction
from fstx.types import Buffer, Mode, StagedObject

OPTIONS: frozenset[str] = frozenset()
"""Names of the options that `plan` takes."""

SLAB_BYTES = 4 << 20
"""Neighbouring slabs are joined up to this size, so that thin ones don't cost a file."""


ENTERED_BY_NAME = True
DOCUMENT: str | None = None
OVERWRITE_MODE: Mode = "update"


def targets(name: str) -> tuple[str, ...]:
    """The one target."""
    return (name,)


def describe(array: object, given: Container[str] = ()) -> dict[str, object]:
    """Options that a labelled array itself tells: none, a .npy file keeps no labels."""
    return {}


def plan(name: str, spec: ArraySpec, **options: object) -> NpyPlan:
    """Plan one ``.npy`` file.

    Parameters
    ----------
    name
        File name, beside the URL's parent.
    spec
        Any dtype whose description survives the format: no Python objects, no extension types.

    Raises
    ------
    UsageError
        An unknown option, a dtype that the format can't hold, or chunks of unknown length.
    """
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise UsageError(f"npy takes no option {unknown[0]!r}; it has none")
    check_dtype(spec.dtype)
    return NpyPlan(name, spec.shape, spec.dtype, _grid(spec), spec.grid is not None)


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Refuse a dtype that would not come back from a .npy file as it is."""
    if dtype.hasobject:
        raise UsageError(f"dtype {dtype} holds Python objects, which .npy can't store safely")
    try:
        kept = np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype))
    except (ValueError, TypeError) as error:
        raise UsageError(f"dtype {dtype} can't be described in a .npy header: {error}") from error
    if kept != dtype:
        raise UsageError(
            f"dtype {dtype} would come back from .npy as {kept}; convert it, or view it as {kept}"
        )
    npy_header(dtype, (), fortran=False)


def _grid(spec: ArraySpec) -> Grid:
    if spec.grid is None or not spec.shape:
        return tuple((n,) for n in spec.shape)
    for lengths, n in zip(spec.grid, spec.shape, strict=True):
        if sum(lengths) != n:
            raise UsageError(
                f"the array's chunks {lengths} don't add up to its length {n}; compute them first"
            )
    if spec.grid[1:] == tuple((n,) for n in spec.shape[1:]):
        return spec.grid  # slabs already: taken as they come
    row_bytes = spec.dtype.itemsize * int(np.prod(spec.shape[1:], dtype=np.int64))
    slabs: list[int] = []
    for length in spec.grid[0]:
        if slabs and (slabs[-1] + length) * row_bytes <= SLAB_BYTES:
            slabs[-1] += length
        else:
            slabs.append(length)
    return (tuple(slabs), *((n,) for n in spec.shape[1:]))


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...], *, fortran: bool) -> bytes:
    """The bytes in front of the data; equal input gives equal bytes."""
    fields = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": fortran,
        "shape": shape,
    }
    head = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(head, fields)
    except UnicodeEncodeError as error:
        raise UsageError(f"dtype {dtype}: field names must be Latin-1 in a .npy file") from error
    except ValueError:  # more than 64 KiB of field names
        head = io.BytesIO()
        np.lib.format.write_array_header_2_0(head, fields)
    return head.getvalue()


def raw_bytes(array: Host) -> Buffer:
    """The memory of a C- or Fortran-contiguous array as bytes, in memory order, not copied."""
    if not array.nbytes:
        return b""
    flat = (array if array.flags.c_contiguous else array.T).reshape(-1)
    return flat.view(np.uint8).data


@dataclass(frozen=True)
class NpyPlan:
    """The plan of one ``.npy`` file. Made by `plan`."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    grid: Grid
    composed: bool

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def entry(self) -> str | None:
        return self.name

    @property
    def document(self) -> str | None:
        return None

    @property
    def overwrite_mode(self) -> Mode:
        return OVERWRITE_MODE

    @property
    def markers(self) -> tuple[str, ...]:
        return ()

    def replacing(
        self, existing: Sequence[str], /, *, keep_previous: bool = False
    ) -> tuple[NpyPlan, tuple[str, ...]]:
        return self, ()

    @property
    def units(self) -> Grid:
        """Refused: nothing of one file is finished before all of it is."""
        raise UsageError(
            f"{self.name} is one file, of which no part can be kept, so resume= would do all of it again; "
            "write .zarr or .vrt, or leave resume= out"
        )

    def sink(self, stager: Stager, /) -> StatelessSink:
        return StatelessSink(self, stager)

    def write(self, stager: Stager, index: Index, block: Host, /) -> tuple[StagedObject, ...]:
        """Stage the whole file, or one slab of it as a piece for `finish`."""
        expected = tuple(lengths[i] for lengths, i in zip(self.grid, index, strict=True))
        if block.shape != expected:
            raise UsageError(f"{self.name}: block {index} has shape {block.shape}, not {expected}")
        if block.dtype.newbyteorder("=") != self.dtype.newbyteorder("="):
            raise UsageError(
                f"{self.name}: block {index} has dtype {block.dtype}, not {self.dtype}"
            )
        block = block.astype(self.dtype, copy=False)
        if self.composed:
            number = index[0] if index else 0
            slab = np.ascontiguousarray(block) if block.ndim else block
            return (stager.stage(f"{self.name}#{number}", raw_bytes(slab)),)
        fortran = block.flags.f_contiguous and not block.flags.c_contiguous
        header = npy_header(self.dtype, self.shape, fortran=fortran)
        if block.flags.forc:
            return (stager.stage(self.name, [header, raw_bytes(block)]),)
        with stager.open(self.name) as file:
            file.write(header)
            for piece in _pieces(block):
                file.write(raw_bytes(np.ascontiguousarray(piece)))
        return (file.receipt,)

    def finish(self, tx: Transaction, receipts: Sequence[StagedObject], /) -> None:
        """Adopt the file, or compose it out of its slabs.

        Raises
        ------
        UsageError
            A slab is missing; nothing was adopted.
        """
        if not self.composed:
            tx.adopt(receipts)
            return
        slabs = {r.path: r for r in receipts}  # a task that ran twice: the later one counts
        count = grid_shape(self.grid)[0] if self.grid else 1
        missing = [i for i in range(count) if f"{self.name}#{i}" not in slabs]
        if missing:
            raise UsageError(f"{self.name}: slab {missing[0]} of {count} was never written")
        header = npy_header(self.dtype, self.shape, fortran=False)
        tx.compose(self.name, [header, *(slabs[f"{self.name}#{i}"] for i in range(count))])


def _pieces(array: Host) -> Any:
    """The values of a scattered array in C order, a few MiB at a time."""
    return np.nditer(
        array,
        flags=["external_loop", "buffered", "zerosize_ok"],
        buffersize=max(1, SLAB_BYTES // max(1, array.dtype.itemsize)),
        order="C",
    )
