"""The public functions: from a URL to a transaction, and from an array to files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, cast

from fstx import layouts, registry
from fstx.errors import PathError, TargetExistsError, UsageError
from fstx.layouts.dataarray import is_labelled
from fstx.plan import Plan, Source
from fstx.progress import Progress, reporter
from fstx.protocol import Transaction
from fstx.registry import URL
from fstx.sources import lazy, open_source
from fstx.types import Capability, Durability, Guarantee, Mode, OutcomeState, Recovery, Snapshot
from fstx.writing import blocks_of, check_workers, write_into

__all__ = ["begin", "guarantee", "outcome", "recover", "write"]

Require = Capability | str | Iterable["Capability | str"] | None

_MODES = ("create", "replace", "update")
_DURABILITIES = ("none", "data")


def begin(
    url: URL | Sequence[URL],
    *,
    mode: Mode = "update",
    durability: Durability = "data",
    require: Require = (Capability.RECOVERABLE,),
    entry: str | None = None,
    id: str | None = None,
    **storage_options: Any,
) -> Transaction:
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
        ``"replace"``: what is staged becomes the whole target. ``"update"``: staged paths are added or
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
    **storage_options
        For the backend, such as ``syncfs=False`` on local disk.

    Raises
    ------
    UsageError
        A bad argument or URL (`PathError`), or a promise that can't be kept (`CapabilityError`).
    TargetExistsError
        Mode ``create`` and something is there.
    ConflictError
        Another living transaction creates the same target, or has this id.
    StorageError
        The place can't be written. In all cases nothing was changed.
    """
    urls, joined = _urls(url)
    _check_choice("mode", mode, _MODES)
    _check_choice("durability", durability, _DURABILITIES)
    _check_id(id)
    found = registry.backend(urls, joined=joined, **storage_options)
    return found.begin(
        mode=mode, durability=durability, require=_capabilities(require), entry=entry, id=id
    )


def write(
    array: Any,
    url: URL,
    *,
    layout: str | None = None,
    overwrite: bool = False,
    durability: Durability = "data",
    require: Require = (Capability.ATOMIC_SET,),
    id: str | None = None,
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
    durability
        ``"data"``: the result survives loss of power. ``"none"``: only kills.
    require
        Capabilities that must be promised; by default a reader never meets a mixture.
    id
        Idempotency key; a second call with the same id does nothing if the first one committed.
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
    UsageError, TargetExistsError, ConflictError, CapabilityError
        Before any value is computed or byte is written.
    Exception
        The first failure of a block, by time, with its traceback and a note naming the block.
    """
    target = registry.as_url(url).rstrip("/")
    _check_choice("durability", durability, _DURABILITIES)
    _check_id(id)
    check_workers(max_workers)
    module = layouts.choose(_name_of(target), layout)
    if is_labelled(array):
        options = {**module.describe(array), **options}
    source = open_source(array, scheduler=scheduler)
    plan: Plan = module.plan(_name_of(target), source.spec, **options)
    job = _Job(
        source, plan, target, overwrite, durability, _capabilities(require), id, max_workers,
        progress, keep_previous, dict(storage_options or {}),
    )
    if not compute:
        return lazy(job)
    return job()


class _Job:
    """One `write`, ready to run: validated, nothing begun."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        url: str,
        overwrite: bool,
        durability: Durability,
        require: frozenset[Capability],
        id: str | None,
        max_workers: int | None,
        progress: Progress,
        keep_previous: bool,
        storage_options: dict[str, Any],
    ) -> None:
        self.source = source
        self.plan = plan
        self.url = url
        self.overwrite = overwrite
        self.durability: Durability = durability
        self.require = require
        self.id = id
        self.max_workers = max_workers
        self.progress = progress
        self.keep_previous = keep_previous
        self.storage_options = storage_options

    def __call__(self) -> Snapshot:
        tx = self.open()
        if getattr(tx, "committed", False):
            return Snapshot(tx.id, (self.url,), tx.guarantee.strategy, 0, 0, reason="committed before")
        with tx, reporter(self.progress, blocks_of(self.plan), self.url) as advance:
            plan = self.prepare(tx)
            write_into(tx, self.source, plan, max_workers=self.max_workers, progress=advance)
            return tx.commit()

    def open(self) -> Transaction:
        """Begin on all names of the plan."""
        urls = [_sibling(self.url, name) for name in self.plan.names]
        if self.overwrite:
            return self._begin(urls, self.plan.overwrite_mode)
        try:
            return self._begin(urls, "create")
        except TargetExistsError as error:
            own = self.plan.names[0] + "."
            if not any(name.startswith(own) for name in self.plan.names):
                raise
            tx = self._begin(urls, "update")
            stale = list(tx.paths())
            if not stale or not all(path.startswith(own) for path in stale):
                tx.rollback()
                raise error from None
            for path in stale:  # a sidecar of an index that is gone must not describe the new one
                tx.remove(path)
            return tx

    def _begin(self, urls: list[str], mode: Mode) -> Transaction:
        return begin(
            urls,
            mode=mode,
            durability=self.durability,
            require=self.require,
            entry=self.plan.entry,
            id=self.id,
            **self.storage_options,
        )

    def prepare(self, tx: Transaction) -> Plan:
        """The plan beside what exists; superseded paths are removed in the same commit."""
        if not self.overwrite or self.plan.overwrite_mode == "replace":
            return self.plan
        existing = list(tx.paths())
        plan, superseded = self.plan.replacing(existing)
        keep: tuple[str, ...] = ()
        split = getattr(self.plan, "superseded", None)
        if split is not None and self.keep_previous:
            keep = split(existing)[1]
        for path in superseded:
            if path not in keep:
                tx.remove(path)
        return plan


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
    urls, joined = _urls(url)
    if not joined and (layout is not None or urls[0].rstrip("/").endswith(layouts.SUFFIXES)):
        own = urls[0].rstrip("/")
        module = layouts.choose(_name_of(own), layout)
        mode = mode or module.OVERWRITE_MODE
        entry = entry or (_name_of(own) if module.ENTERED_BY_NAME else None)
        urls, joined = [_sibling(own, name) for name in module.targets(_name_of(own))], True
    mode = mode or "update"
    _check_choice("mode", mode, _MODES)
    _check_choice("durability", durability, _DURABILITIES)
    return registry.backend(urls, joined=joined, **storage_options).guarantee(
        mode=mode, durability=durability, entry=entry
    )


def recover(url: URL | Sequence[URL], **storage_options: Any) -> Recovery:
    """Settle every interrupted transaction at a target and, for a directory, in it.

    Afterwards each is wholly published or wholly gone. Living transactions are left alone and listed.

    Raises
    ------
    RecoveryError
        A state that it won't guess about, or a record that is damaged or from a newer version: it is
        named, nothing of it was changed, and all others were settled first.
    """
    urls, _ = _urls(url)
    return registry.backend(urls, joined=True, **storage_options).recover()


def outcome(url: URL | Sequence[URL], id: str, **storage_options: Any) -> OutcomeState:
    """What became of a transaction: by the id that its caller chose, or by ``tx.id``.

    A transaction whose id was not chosen by its caller leaves no trace once it is finished: UNKNOWN.
    """
    urls, _ = _urls(url)
    _check_id(id)
    return registry.backend(urls, joined=True, **storage_options).outcome(id)


# --- arguments ------------------------------------------------------------------------------------


def _urls(url: URL | Sequence[URL]) -> tuple[list[str], bool]:
    if isinstance(url, str | os.PathLike) or hasattr(url, "protocol"):
        return [registry.as_url(cast("URL", url))], False
    if not isinstance(url, list | tuple):
        raise PathError(f"a target is a URL or a list of them, not {type(url).__name__}")
    if not url:
        raise PathError("the list of targets is empty")
    return [registry.as_url(u) for u in url], True


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}={value!r}; it is one of {', '.join(map(repr, allowed))}")


def _check_id(id: object) -> None:
    if id is not None and (not isinstance(id, str) or not id or len(id) > 1024 or "\n" in id):
        raise UsageError(f"id={id!r}; it is a short text on one line")


def _capabilities(require: Require) -> frozenset[Capability]:
    if require is None:
        return frozenset()
    listed = [require] if isinstance(require, str) else list(require)
    try:
        return frozenset(Capability(c) for c in listed)
    except ValueError as error:
        raise UsageError(f"require: {error}; there are {', '.join(Capability)}") from error


def _name_of(url: str) -> str:
    name = url.rstrip("/").replace(os.sep, "/").rpartition("/")[2]
    if not name or name in (".", "..") or name.endswith(":"):
        raise PathError(f"{url!r} names no file; give it a name, for example out/dem.vrt")
    return name


def _sibling(url: str, name: str) -> str:
    own = _name_of(url)
    return url[: len(url) - len(own)] + name
