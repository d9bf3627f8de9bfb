"""The public functions that take arrays: from an array, or its chunks, to files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fstx import layouts, registry
from fstx.checks import (
    DURABILITIES,
    Require,
    capabilities,
    check_choice,
    check_id,
    check_resume,
    size_number,
)
from fstx.errors import UsageError
from fstx.goals import Addition, Goal, Job, stream_of
from fstx.integers import plain_numbers
from fstx.layouts.dataarray import is_labelled
from fstx.plan import Plan, grid_shape
from fstx.progress import Progress
from fstx.protocol import Transaction
from fstx.registry import URL, name_of
from fstx.resumed import ResumedJob, check_resumable, job_fingerprint
from fstx.resuming import Resume
from fstx.sources import lazy, open_source
from fstx.streaming import ChunkWriter, Stream
from fstx.types import Capability, Durability
from fstx.writing import check_workers

__all__ = ["chunk_writer", "write"]


def write(
    array: Any,
    url: URL,
    *,
    layout: str | None = None,
    overwrite: bool = False,
    region: Any = None,
    append_dim: str | int | None = None,
    durability: Durability = "data",
    require: Require = (Capability.ATOMIC_SET,),
    id: str | None = None,
    resume: Resume | None = None,
    fingerprint: Any = None,
    compute: bool = True,
    scheduler: Any = None,
    max_workers: int | None = None,
    progress: Progress = None,
    keep_previous: bool = True,
    storage_options: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Write an array as one transaction: all of it becomes visible, or nothing.

    When this raises, no block is being written any more, the target is as it was, nothing is left
    beside it, and the same call may be made again. After a kill the next call, or `recover`, settles
    what was left: the target is wholly old or wholly new.

    Parameters
    ----------
    array
        numpy, dask, device (cupy, torch, jax by protocol) array, or an xarray DataArray, whose
        coordinates and attributes are used where the layout has a place for them.
    url
        ``out/dem.vrt`` (tiled GeoTIFF and index), ``out/dem.zarr`` (Zarr v3), ``out/dem.npy``.
    layout
        ``"vrt"``, ``"zarr"`` or ``"npy"``, where the suffix doesn't say.
    overwrite
        Replace what is there. Otherwise something there is refused before a value is computed.
    region
        Write into the Zarr array that is there: a slice for each axis, or slices by dimension. They cover
        whole chunks (shards, where there are some), else refused. Disjoint regions of many writers all land.
    append_dim
        Put the array behind the one that is there, along this dimension or axis, by one commit.
    durability
        ``"data"``: the result survives loss of power. ``"none"``: only kills.
    require
        Capabilities that must be promised; by default a reader never meets a mixture.
    id
        Idempotency key; a second call with the same id does nothing if the first one committed.
    resume
        Keep finished blocks (tiles, chunks, whole shards) beyond a kill or an exception, and don't compute
        again those that an earlier run kept: modes as for `begin`. A ``.npy`` file has no such blocks.
    fingerprint
        With `resume`: all that changes the array's values, as `fstx.fingerprint` takes it. Layout, shape,
        data type, blocks and options are compared as well.
    compute
        False: return a lazy object whose ``compute()`` writes and commits (dask).
    scheduler
        As for ``dask.compute``; by default dask's own order of choices, then threads.
    max_workers
        Blocks at once; 1 for a slow share.
    progress
        True for a bar, or a callable that gets (done, total).
    keep_previous
        When a mosaic is replaced: True keeps the tiles that the old index names until the next
        replacement, so that readers which opened it finish; False removes them in the same commit.
    storage_options
        For the backend.
    **options
        For the layout: ``chunks``, ``shards``, ``compression``, ``level``, ``crs``, ``transform``,
        ``nodata``, ... (reference: the layout's page).

    Returns
    -------
    Snapshot
        What was published; with ``compute=False`` a dask ``Delayed`` of it.

    Raises
    ------
    UsageError, TargetExistsError, ConflictError, CapabilityError, ResumeError
        Before any value is computed or byte is written.
    Exception
        The first failure of a block, by time, with its traceback and a note naming the block.
    """
    target = registry.as_url(url).rstrip("/")
    check_choice("durability", durability, DURABILITIES)
    check_id(id)
    max_workers = plain_numbers(max_workers)
    check_workers(max_workers)
    options = {name: size_number(name, value) for name, value in options.items()}
    module = layouts.choose(name_of(target), layout)
    given = sorted(options)
    if is_labelled(array):
        options = {**module.describe(array, options), **options}
    source = open_source(array, scheduler=scheduler)
    if region is not None or append_dim is not None:
        dims = tuple(map(str, array.dims)) if is_labelled(array) else None
        where = {"region": region, "append_dim": plain_numbers(append_dim), "dims": dims}
        begun = {"durability": durability, "require": capabilities(require), "id": id}
        more = dict(storage_options or {})
        if resume is not None:
            raise UsageError("resume= is for whole arrays; region= and append_dim= go without it")
        add = Addition(target, module, source, where, begun, max_workers, progress, more)
        add.check(given, overwrite=overwrite)
        return add() if compute else lazy(add)
    plan: Plan = module.plan(name_of(target), source.spec, **options)
    goal = Goal(
        target,
        plan,
        overwrite,
        durability,
        capabilities(require),
        id,
        keep_previous,
        dict(storage_options or {}),
    )
    job: Job | ResumedJob = Job(goal, source, max_workers, progress)
    if check_resume(resume, fingerprint):
        check_resumable(plan)
        print_ = job_fingerprint(fingerprint, plan, keep_previous)
        goal = replace(goal, resume=resume, fingerprint=print_)
        job = ResumedJob(goal, source, max_workers, progress)
    return job() if compute else lazy(job)


def chunk_writer(
    url: URL,
    *,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
    companions: Mapping[str, Mapping[str, Any]] | None = None,
    check: Callable[[Transaction], object] | None = None,
    partial: bool = False,
    layout: str | None = None,
    overwrite: bool = False,
    durability: Durability = "data",
    require: Require = None,
    id: str | None = None,
    keep_previous: bool = True,
    storage_options: dict[str, Any] | None = None,
    **options: Any,
) -> ChunkWriter:
    """A writer for producers that make one chunk at a time, in any order, from any thread.

    ``with fstx.chunk_writer(...) as w: w.write_chunk(index, chunk)``: leaving the block commits, an exception
    rolls back. Storage is not touched before the first chunk. No chunk is kept: for a sharded Zarr array
    the memory needed is one chunk for each thread and its compressed bytes, never a shard.

    Parameters
    ----------
    url, layout, overwrite, durability, id, keep_previous, storage_options, **options
        As for `write`.
    shape, dtype
        Of the array.
    chunks
        Lengths of a chunk; the last one of an axis may be cut. The inner chunks, where there are ``shards``.
    companions
        Arrays on the same grid of chunks, written from ``extras``: options by name, with ``dtype`` (and
        ``shape``, ``chunks`` where they differ). They lie beside `url` under that name, such as
        ``"weights.zarr"``. With ``layout="ragged"`` the blocks may have any shape, each its own array of a
        Zarr group; an empty one is left out.
    check
        Called once, with the transaction, at the first chunk; raising refuses the whole write.
    partial
        True: chunks that never come stay out (Zarr: the fill value). Otherwise that is an error.
    require
        By default ATOMIC_SET, with companions RECOVERABLE.

    Raises
    ------
    UsageError
        Before storage is touched.
    """
    target = registry.as_url(url).rstrip("/")
    check_choice("durability", durability, DURABILITIES)
    check_id(id)
    main, plan = stream_of(name_of(target), layout, shape, dtype, chunks, options)
    others: dict[str, Stream] = {}
    beside: list[str] = []
    for name, given in (companions or {}).items():
        extra = dict(given)
        inherited = {} if "layout" in extra else options
        others[name], other = stream_of(
            name,
            extra.pop("layout", layout),
            extra.pop("shape", shape),
            extra.pop("dtype", dtype),
            extra.pop("chunks", chunks),
            {**inherited, **extra},
        )
        beside += other.names
    names = [*plan.names, *beside]
    if len(set(names)) != len(names):
        raise UsageError(f"the arrays of one stream need different names, got {', '.join(names)}")
    if require is None:
        require = (Capability.RECOVERABLE,) if others else (Capability.ATOMIC_SET,)
    goal = Goal(
        target,
        plan,
        overwrite,
        durability,
        capabilities(require),
        id,
        keep_previous,
        dict(storage_options or {}),
        beside=tuple(beside),
    )

    def start() -> Transaction:
        tx = goal.open()
        try:
            if check is not None:
                check(tx)
        except BaseException:
            tx.rollback()
            raise
        return tx

    def prepared(stream: Stream) -> Stream:
        made: Any = stream.plan
        return Stream(stream.spec, lambda tx: goal.prepare(tx, made))

    return ChunkWriter(
        start,
        prepared(main),
        grid_shape=grid_shape(plan.grid),
        companions={name: prepared(stream) for name, stream in others.items()},
        partial=partial,
    )
