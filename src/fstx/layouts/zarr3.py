"""Zarr v3: one array at the root of a directory, in chunks or in shards.

Chunks are staged as they come; ``zarr.json`` follows when all of them are there, so that no reader
finds an array without its values. Chunks that are all fill value are not stored.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fstx.errors import UsageError
from fstx.layouts.chunks import DTYPES, ChunkCodec, check_compression
from fstx.layouts.shard_sink import Partial, ShardSink
from fstx.layouts.shards import ShardFormat, ShardLayout
from fstx.layouts.zarr_metadata import DOCUMENT as DOCUMENT  # of every layout's module
from fstx.layouts.zarr_metadata import OVERWRITE_MODE as OVERWRITE_MODE
from fstx.layouts.zarr_metadata import ZarrDirectory, array_metadata, fill_bytes
from fstx.plan import ArraySpec, Grid, Host, Index, StatelessSink, block_slices, cut
from fstx.protocol import Stager, Transaction
from fstx.types import Buffer, StagedObject

OPTIONS: frozenset[str] = frozenset(
    {"chunks", "shards", "compression", "level", "fill_value", "attributes", "dimension_names"}
)
"""Names of the options that `plan` takes."""

CHUNK_BYTES = 1 << 20
"""Upper bound of a chunk's size where the caller names none."""

Shape = tuple[int, ...]


ENTERED_BY_NAME = False


def targets(name: str) -> tuple[str, ...]:
    """The one target."""
    return (name,)


def describe(array: Any, given: Container[str] = ()) -> dict[str, Any]:
    """Options that a labelled array (xarray) itself tells: dimension names, attributes, fill value.

    Attributes that JSON can't hold are left out, with a warning that names them.
    """
    found: dict[str, Any] = {"dimension_names": tuple(str(dim) for dim in array.dims)}
    attributes, lost = {}, []
    for name, value in dict(array.attrs).items():
        plain = value.tolist() if hasattr(value, "tolist") else value
        try:
            attributes[str(name)] = json.loads(json.dumps(plain, allow_nan=False))
        except (TypeError, ValueError):
            lost.append(str(name))
    if "_FillValue" in array.attrs and "fill_value" not in given:
        attributes.pop("_FillValue", None)
        lost = [name for name in lost if name != "_FillValue"]
        found["fill_value"] = array.attrs["_FillValue"]
    if lost and "attributes" not in given:
        warnings.warn(
            f"attributes that JSON can't hold are not written: {', '.join(lost)}", stacklevel=3
        )
    if attributes:
        found["attributes"] = attributes
    return found


def plan(name: str, spec: ArraySpec, **options: Any) -> ZarrPlan:
    """Plan one Zarr v3 array.

    Parameters
    ----------
    name
        Name of the directory that is the array.
    spec
        Data type bool, int, uint, float16 to float64 or complex, in either byte order.
    **options
        ``chunks``, ``shards``: elements along each axis (a tuple, or one number for all axes; -1 is
        the whole axis); shards are multiples of chunks. Without ``chunks``: the array's own where
        they are regular, else about 1 MiB. ``compression``: ``"zstd"``, ``"gzip"``, ``"blosc"``,
        ``"none"`` or None; ``level``. ``fill_value``: 0 by default. ``attributes``: a dict for
        JSON. ``dimension_names``: one string or None per axis.

    Raises
    ------
    UsageError
        An unknown option, or a value that can't be written; the message names it.
    """
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise UsageError(
            f"zarr takes no option {unknown[0]!r}; it takes {', '.join(sorted(OPTIONS))}"
        )
    if spec.dtype.name not in DTYPES:
        raise UsageError(
            f"dtype {spec.dtype} can't be written to zarr; convert it to one of "
            + ", ".join(sorted(DTYPES))
        )
    _check_grid(spec)
    chunks, shards = _shapes(spec, options.get("chunks"), options.get("shards"))
    compression, level = check_compression(options.get("compression", "zstd"), options.get("level"))
    fill = fill_bytes(options.get("fill_value"), spec.dtype)
    codec = ChunkCodec(chunks, spec.dtype.name, fill, compression, level)
    if math.prod(chunks) * spec.dtype.itemsize >= 2**31 - 16:
        raise UsageError(f"chunks={chunks} of {spec.dtype} are 2 GiB or more; make them smaller")
    metadata = array_metadata(
        spec.shape, codec, shards, options.get("attributes"), options.get("dimension_names")
    )
    return ZarrPlan(name, spec.shape, codec, shards, block_grid(spec, chunks, shards), metadata)


def _check_grid(spec: ArraySpec) -> None:
    for lengths, n in zip(spec.grid or (), spec.shape, strict=False):
        if sum(lengths) != n:
            raise UsageError(
                f"the array's chunks {lengths} don't add up to its length {n}; compute them first"
            )


def _shapes(spec: ArraySpec, chunks: object, shards: object) -> tuple[Shape, Shape | None]:
    inner = _given("chunks", chunks, spec.shape)
    outer = _given("shards", shards, spec.shape)
    if outer is not None and not spec.shape:
        raise UsageError("shards: an array without axes can't be sharded")
    if inner is None:
        own = _regular(spec)
        if own is not None and (outer is None or _divides(own, outer)):
            inner = own
        else:
            inner = _guess(outer or tuple(max(1, n) for n in spec.shape), spec, outer is not None)
    if outer is not None and not _divides(inner, outer):
        raise UsageError(f"shards={outer} are not whole multiples of chunks={inner}")
    return inner, outer


def _given(option: str, value: object, shape: Shape) -> Shape | None:
    if value is None:
        return None
    lengths = (value,) * len(shape) if isinstance(value, int) else value
    if not isinstance(lengths, Sequence) or isinstance(lengths, str) or len(lengths) != len(shape):
        raise UsageError(
            f"{option}={value!r}: one number for each of the {len(shape)} axes, please"
        )
    if any(isinstance(n, bool) or not isinstance(n, int) or (n < 1 and n != -1) for n in lengths):
        raise UsageError(f"{option}={value!r}: lengths are whole numbers from 1, or -1 for all")
    return tuple(max(1, whole) if n == -1 else n for n, whole in zip(lengths, shape, strict=True))


def _divides(inner: Shape, outer: Shape) -> bool:
    return all(o % i == 0 for i, o in zip(inner, outer, strict=True))


def _regular(spec: ArraySpec) -> Shape | None:
    """The array's own chunk shape, if its chunks are alike but for the last of an axis."""
    if spec.grid is None:
        return None
    for lengths in spec.grid:
        if not lengths or lengths[0] < 1 or set(lengths[:-1]) - {lengths[0]}:
            return None
        if lengths[-1] > lengths[0]:
            return None
    return tuple(lengths[0] for lengths in spec.grid)


def _guess(whole: Shape, spec: ArraySpec, exact: bool) -> Shape:
    """Halve the longest axis until a chunk is small; `exact` halves even lengths only."""
    chunk = list(whole)
    while math.prod(chunk) * spec.dtype.itemsize > CHUNK_BYTES:
        axes = [a for a, n in enumerate(chunk) if n > 1 and not (exact and n % 2)]
        if not axes:
            break
        longest = max(axes, key=lambda a: chunk[a])
        chunk[longest] = -(-chunk[longest] // 2)
    return tuple(chunk)


def block_grid(spec: ArraySpec, chunks: Shape, shards: Shape | None) -> Grid:
    """Blocks that cover whole chunks: the array's own where they do, else such as do."""
    if spec.grid is None:
        unit = shards or chunks
        return tuple(cut(n, u) for n, u in zip(spec.shape, unit, strict=True))
    axes = []
    for lengths, n, chunk, shard in zip(
        spec.grid, spec.shape, chunks, shards or chunks, strict=True
    ):
        own = tuple(length for length in lengths if length) or (0,)
        ends = [sum(own[: i + 1]) for i in range(len(own) - 1)]
        if all(end % chunk == 0 for end in ends):
            axes.append(own)
            continue
        # One unaligned block would mean two writers of one chunk: the source rechunks instead.
        step = shard if max(own) >= shard else chunk
        axes.append(cut(n, step * max(1, round(max(own) / step))))
    return tuple(axes)


@dataclass(frozen=True)
class ZarrPlan(ZarrDirectory):
    """The plan of one Zarr v3 array. Made by `plan`."""

    shape: Shape
    codec: ChunkCodec
    shards: Shape | None
    grid: Grid
    metadata: bytes

    @property
    def layout(self) -> ShardLayout:
        """Chunks and their paths; without shards, each chunk counts as a shard of one."""
        outer = self.shards or self.codec.shape
        per_shard = tuple(o // i for o, i in zip(outer, self.codec.shape, strict=True))
        return ShardLayout(f"{self.name}/c", self.shape, outer, ShardFormat(self.codec, per_shard))

    def place(self, index: Index) -> tuple[slice, ...]:
        """Elements of block `index` in the whole array."""
        return block_slices(self.grid, index)

    def sink(self, stager: Stager, /, *, partial: Partial = "fill") -> StatelessSink | ShardSink:
        """A sink for blocks of this process.

        Of a sharded array it is a `ShardSink`, which takes single inner chunks too by
        `write_chunk`. Who hands over blocks knows whether all of them came; with
        ``partial="error"`` the sink checks that as well.
        """
        if self.shards is None:
            return StatelessSink(self, stager)
        return ShardSink(stager, self.layout, self.grid, partial=partial)

    def write(self, stager: Stager, index: Index, block: Host, /) -> tuple[StagedObject, ...]:
        """Stage the chunks of one block.

        Shards that the block covers are streamed and complete; of others, each inner chunk is
        staged alone for `finish` to compose.
        """
        layout = self.layout
        region = self.place(index)
        if block.shape != tuple(r.stop - r.start for r in region):
            raise UsageError(f"{self.name}: block {index} has shape {block.shape}, not {region}")
        receipts: list[StagedObject] = []
        for shard, chunks in layout.chunks_of(region):
            if self.shards is None:
                data = self.codec.encode(block[chunks[0][1]])
                if data is not None:
                    receipts.append(stager.stage(layout.path(shard), data))
            elif len(chunks) == layout.chunks_in(shard):
                receipts += self._stream(stager, layout, block, chunks)
            else:
                for chunk, place in chunks:
                    data = self.codec.encode(block[place])
                    if data is not None:
                        piece = layout.piece(*layout.split(chunk))
                        receipts.append(stager.stage(piece, data))
        return tuple(receipts)

    def _stream(
        self,
        stager: Stager,
        layout: ShardLayout,
        block: Host,
        chunks: list[tuple[Index, tuple[slice, ...]]],
    ) -> tuple[StagedObject, ...]:
        sink = ShardSink(stager, layout, partial="fill")
        try:
            for chunk, place in chunks:
                done = sink.write_chunk(chunk, block[place])
        except BaseException:
            sink.discard()
            raise
        return done

    def finish(self, tx: Transaction, receipts: Sequence[StagedObject], /) -> None:
        """Adopt chunks and shards, compose the shards that came in pieces, stage ``zarr.json``."""
        self._adopt(tx, receipts)
        tx.stage(f"{self.name}/{DOCUMENT}", self.metadata, publisher=True)

    @property
    def units(self) -> Grid:
        """How many neighbouring blocks along each axis are finished together: those that share a shard."""
        outer = self.shards or self.codec.shape
        return tuple(_together(own, size) for own, size in zip(self.grid, outer, strict=True))

    def parts(
        self, receipts: Iterable[StagedObject], /
    ) -> tuple[list[StagedObject], dict[str, list[Buffer | StagedObject]]]:
        """Whole objects among receipts, and by path what the others are to be composed of."""
        whole: list[StagedObject] = []
        pieces: dict[str, dict[Index, StagedObject]] = {}
        for receipt in receipts:
            path, mark, inner = receipt.path.rpartition("#")
            if mark and "/" not in inner:
                where = tuple(map(int, inner.split(".")))
                pieces.setdefault(path, {})[where] = receipt  # of a repeated task the later counts
            else:
                whole.append(receipt)
        form = self.layout.format
        composed: dict[str, list[Buffer | StagedObject]] = {}
        for path, parts in sorted(pieces.items()):
            index, offset = form.empty_index(), 0
            ordered = sorted(parts.items())
            for inner_index, part in ordered:
                index[form.number(inner_index)] = (offset, part.size_bytes)
                offset += part.size_bytes
            composed[path] = [*(part for _, part in ordered), form.encode_index(index)]
        return whole, composed

    def _adopt(self, tx: Transaction, receipts: Sequence[StagedObject]) -> None:
        whole, composed = self.parts(receipts)
        tx.adopt(whole)
        for path, pieces in composed.items():
            tx.compose(path, pieces)


def _together(lengths: tuple[int, ...], size: int) -> tuple[int, ...]:
    groups, count, end = [], 0, 0
    for length in lengths:
        count, end = count + 1, end + length
        if end % size == 0:
            groups.append(count)
            count = 0
    return (*groups, count) if count else tuple(groups)


def plan_into(name: str, document: bytes, spec: ArraySpec, **where: Any) -> ZarrPlan:
    """Plan to write into an array that is there; see `fstx.layouts.zarr_region`."""
    from fstx.layouts import zarr_region

    return zarr_region.plan_into(name, document, spec, **where)
