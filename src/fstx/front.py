"""The public functions: from a URL to a transaction, and from an array to files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from fstx import layouts, registry
from fstx.checks import (
    DURABILITIES,
    MODES,
    Require,
    capabilities,
    check_choice,
    check_id,
    check_resume,
    size_number,
    urls_of,
)
from fstx.errors import UsageError
from fstx.jobs import Addition, Goal, Job, name_of, plain_numbers, sibling, stream_of
from fstx.layouts.dataarray import is_labelled
from fstx.plan import Plan, grid_shape
from fstx.progress import Progress
from fstx.protocol import Transaction
from fstx.registry import URL
from fstx.resumed import ResumedJob, check_resumable, job_fingerprint
from fstx.resuming import Job as UnfinishedJob
from fstx.resuming import ResumableTransaction, Resume, begin_job, jobs_of, sweep
from fstx.resuming import fingerprint as fingerprint_of
from fstx.sources import lazy, open_source
from fstx.streaming import ChunkWriter, Stream
from fstx.types import Capability, Durability, Guarantee, Mode, OutcomeState, Recovery
from fstx.writing import check_workers

__all__ = ["begin", "chunk_writer", "guarantee", "jobs", "outcome", "recover", "write"]


@overload
def begin(
    url: URL | Sequence[URL],
    *,
    mode: Mode = "update",
    durability: Durability = "data",
    require: Require = (Capability.RECOVERABLE,),
    entry: str | None = None,
    id: str | None = None,
    resume: None = None,
    fingerprint: Any = None,
    **storage_options: Any,
) -> Transaction: ...
@overload
def begin(
    url: URL | Sequence[URL],
    *,
    mode: Mode = "update",
    durability: Durability = "data",
    require: Require = (Capability.RECOVERABLE,),
    entry: str | None = None,
    id: str | None = None,
    resume: Resume,
    fingerprint: Any = None,
    **storage_options: Any,
) -> ResumableTransaction: ...
def begin(
    url: URL | Sequence[URL],
    *,
    mode: Mode = "update",
    durability: Durability = "data",
    require: Require = (Capability.RECOVERABLE,),
    entry: str | None = None,
    id: str | None = None,
    resume: Resume | None = None,
    fingerprint: Any = None,
    **storage_options: Any,
) -> Transaction | ResumableTransaction:
    """Begin a transaction on a directory, or on several files and directories.

    Leaving the ``with`` block commits; an exception in it rolls back. Until commit no reader can see
    anything of it, and after a kill nothing of it is left once the next writer or `recover` came by.

    Parameters
    ----------
    url
        One URL or path: the target is a directory and paths are relative to it. A list of them: each is
        a target, a file or a directory; paths begin with the target's last name, and all are
        published together. The targets of a list share a scheme and a file system.
    mode
        ``"create"``: every target must be absent or an empty directory; the first writer wins.
        ``"replace"``: what is staged becomes the whole target; nothing staged is refused; of a list,
        a target for which nothing is staged stays. ``"update"``: staged paths are added or
        replaced, removed ones go, the rest stays; a conflict if a touched path was changed meanwhile.
    durability
        ``"data"``: what `commit` published survives loss of power. ``"none"``: only kills.
    require
        Capabilities that must be promised here, else `CapabilityError`.
    entry
        The path by which readers enter (an index); it is published last.
    id
        The caller's idempotency key. A second run with the same id learns by ``tx.committed`` that the
        first one committed; a dead first run is settled, and then this one begins anew.
    resume
        Keep finished units of work beyond a kill or an exception, and go on with those that an earlier
        run of these targets (and this `id`) kept: ``"if_possible"`` when its fingerprint is this one, else
        anew; ``"always"`` or raise; ``"never"`` anew, what was kept is left. None: no units.
    fingerprint
        With `resume`: all that changes what the job writes, as `fstx.fingerprint` takes it.
    **storage_options
        For the backend, such as ``syncfs=False`` on local disk.

    Returns
    -------
    Transaction
        With `resume` a `ResumableTransaction`: ``tx.remaining(units)``, ``with tx.unit(id) as unit``.

    Raises
    ------
    UsageError
        A bad argument or URL (`PathError`), or a promise that can't be kept (`CapabilityError`).
    TargetExistsError
        Mode ``create`` and something is there.
    ConflictError
        Another living transaction creates the same target, or has this id.
    ResumeError
        There is nothing to resume, its record can't be read, or it has another fingerprint.
    StorageError
        The place can't be written. In all cases nothing was changed.
    """
    urls, joined = urls_of(url)
    check_choice("mode", mode, MODES)
    check_choice("durability", durability, DURABILITIES)
    check_id(id)
    wanted = capabilities(require)
    if not check_resume(resume, fingerprint) or resume is None:
        found = registry.backend(urls, joined=joined, **storage_options)
        return found.begin(mode=mode, durability=durability, require=wanted, entry=entry, id=id)
    print_ = fingerprint_of(fingerprint)
    found = registry.backend(urls, joined=joined, **storage_options)

    def start(job_id: str) -> Transaction:
        return found.begin(mode=mode, durability=durability, require=wanted, entry=entry, id=job_id)

    return begin_job(found, start, resume=resume, fingerprint=print_, mode=mode, entry=entry, id=id)


def jobs(url: URL | Sequence[URL], **storage_options: Any) -> list[UnfinishedJob]:
    """Unfinished resumable jobs beside a target (on ``tx::``: in its dataset), also those that run now.

    ``job.discard()`` drops what a job kept.
    """
    urls, joined = urls_of(url)
    return jobs_of(registry.backend(urls, joined=joined, **storage_options))


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


def guarantee(
    url: URL | Sequence[URL],
    *,
    mode: Mode | None = None,
    durability: Durability = "data",
    entry: str | None = None,
    layout: str | None = None,
    **storage_options: Any,
) -> Guarantee:
    """What is promised at a target, each capability with its reason and what proved it.

    Nothing is left behind.

    Parameters
    ----------
    url
        As for `begin`. With a layout's suffix (``.vrt``, ``.zarr``, ``.npy``) or `layout`, the answer is
        what `write` with ``overwrite=True`` gets there.
    mode
        By default ``"update"``, or the layout's way to replace its output.
    durability, entry, **storage_options
        As for `begin`.
    """
    urls, joined = urls_of(url)
    document = None
    if not joined and (layout is not None or urls[0].rstrip("/").endswith(layouts.SUFFIXES)):
        own = urls[0].rstrip("/")
        module = layouts.choose(name_of(own), layout)
        mode = mode or module.OVERWRITE_MODE
        entry = entry or (name_of(own) if module.ENTERED_BY_NAME else None)
        document = f"{name_of(own)}/{module.DOCUMENT}" if module.DOCUMENT else None
        urls, joined = [sibling(own, name) for name in module.targets(name_of(own))], True
    mode = mode or "update"
    check_choice("mode", mode, MODES)
    check_choice("durability", durability, DURABILITIES)
    backend = registry.backend(urls, joined=joined, **storage_options)
    if entry is None and registry.enters_by_document(backend):
        entry = document
    return backend.guarantee(mode=mode, durability=durability, entry=entry)


def recover(url: URL | Sequence[URL], **storage_options: Any) -> Recovery:
    """Settle every interrupted transaction at a target and, for a directory, in it.

    Afterwards each is wholly published or wholly gone. Living transactions are left alone and listed.

    Raises
    ------
    RecoveryError
        A state that it won't guess about, or a record that is damaged or from a newer version: it is
        named, nothing of it was changed, and all others were settled first.
    """
    urls, _ = urls_of(url)
    backend = registry.backend(urls, joined=True, **storage_options)
    report = backend.recover()
    late = sweep(backend)  # of workers that went on when their resumable job was over
    return replace(report, removed=(*report.removed, *late)) if late else report


def outcome(url: URL | Sequence[URL], id: str, **storage_options: Any) -> OutcomeState:
    """What became of a transaction: by the id that its caller chose, or by ``tx.id``.

    A transaction whose id was not chosen by its caller leaves no trace once it is finished: UNKNOWN.
    """
    urls, _ = urls_of(url)
    check_id(id)
    return registry.backend(urls, joined=True, **storage_options).outcome(id)
