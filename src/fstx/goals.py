"""One write, decided before it begins: where it goes, under which promise, and how it opens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, cast

import numpy as np

from fstx import layouts, registry
from fstx.errors import ConflictError, PathError, TargetExistsError, UsageError
from fstx.integers import plain_numbers
from fstx.plan import ArraySpec, Plan, Source
from fstx.progress import Progress, reporter
from fstx.protocol import Transaction
from fstx.registry import name_of, sibling
from fstx.resuming import Fingerprint, ResumableTransaction, Resume, begin_job
from fstx.streaming import Stream, uniform_grid
from fstx.types import Capability, Durability, Mode, Snapshot
from fstx.writing import blocks_of, write_into


@dataclass(frozen=True)
class Goal:
    """Where an array goes, and under which promise: everything that `begin` needs."""

    url: str
    plan: Plan
    overwrite: bool
    durability: Durability
    require: frozenset[Capability]
    id: str | None
    keep_previous: bool
    storage_options: dict[str, Any]
    beside: tuple[str, ...] = ()  # names of companions, published with the plan's
    resume: Resume | None = None
    fingerprint: Fingerprint | None = None  # with `resume`

    @property
    def names(self) -> tuple[str, ...]:
        """All targets; the first is the URL's own name."""
        return (*self.plan.names, *self.beside)

    def open(self) -> Transaction:
        """Begin on all names."""
        if self.overwrite:
            return self._begin(self.plan.overwrite_mode, self._must_be_ours)
        try:
            return self._begin("create")
        except TargetExistsError as error:
            own = self.names[0] + "."
            if not any(name.startswith(own) for name in self.names):
                raise
            return self._begin("update", partial(_clear_sidecars, own, error))

    def _must_be_ours(self, tx: Transaction) -> None:
        """Only output of the same kind is overwritten, not whatever lies under that name."""
        markers = self.plan.markers
        if not markers or tx.committed:
            return
        for name in self.names:
            if any(is_there(tx, f"{name}/{marker}") for marker in markers):
                continue
            if next(tx.paths(name), None) is not None:
                tx.rollback()
                raise TargetExistsError(
                    f"{sibling(self.url, name)} holds none of {', '.join(markers)}, so it is not what "
                    "overwrite=True may replace. Remove it first, or write to another name",
                    outcome="aborted",
                )

    def _begin(self, mode: Mode, look: Callable[[Transaction], None] | None = None) -> Transaction:
        urls = [sibling(self.url, name) for name in self.names]
        backend = registry.backend(urls, joined=True, **self.storage_options)
        document = self.plan.document if registry.enters_by_document(backend) else None
        entry = self.plan.entry or document

        def start(id: str | None) -> Transaction:
            tx = backend.begin(
                mode=mode, durability=self.durability, require=self.require, entry=entry, id=id
            )
            if look is not None:
                look(tx)
            return tx

        if self.resume is None or self.fingerprint is None:
            return start(self.id)
        job: Any = begin_job(
            backend,
            start,
            resume=self.resume,
            fingerprint=self.fingerprint,
            mode=mode,
            entry=entry,
            id=self.id,
        )
        return cast("Transaction", job)

    def prepare(self, tx: Transaction, plan: Plan) -> Plan:
        """The plan beside what exists; superseded paths are removed in the same commit."""
        if not self.overwrite or plan.overwrite_mode == "replace":
            return plan
        existing = tx.paths_before() if isinstance(tx, ResumableTransaction) else tx.paths()
        following, going = plan.replacing(list(existing), keep_previous=self.keep_previous)
        for path in going:
            tx.remove(path)
        return following


def _clear_sidecars(own: str, error: TargetExistsError, tx: Transaction) -> None:
    """A sidecar of an index that is gone must not describe the new one; anything else is no target."""
    stale = list(tx.paths())
    if not tx.committed and (not stale or not all(path.startswith(own) for path in stale)):
        tx.rollback()
        raise error from None
    for path in stale:
        tx.remove(path)


@dataclass(frozen=True)
class Job:
    """One `write`, ready to run: validated, nothing begun."""

    goal: Goal
    source: Source
    max_workers: int | None
    progress: Progress

    def __call__(self) -> Snapshot:
        tx = self.goal.open()
        if tx.committed:
            return Snapshot(
                tx.id, (self.goal.url,), tx.guarantee.strategy, 0, 0, reason="committed before"
            )
        with tx, reporter(self.progress, blocks_of(self.goal.plan), self.goal.url) as advance:
            plan = self.goal.prepare(tx, self.goal.plan)
            write_into(tx, self.source, plan, max_workers=self.max_workers, progress=advance)
            return tx.commit()


@dataclass(frozen=True)
class Addition:
    """One `write` into an array that is there: a region of it, or more at its end."""

    url: str
    module: ModuleType
    source: Source
    where: dict[str, Any]  # region or append_dim, and the array's own dimensions
    begin: dict[str, Any]  # durability, require, id
    max_workers: int | None
    progress: Progress
    storage_options: dict[str, Any]

    def check(self, options: list[str], *, overwrite: bool) -> None:
        """Raise `UsageError` where what else was asked for doesn't go with it."""
        if None not in (self.where["region"], self.where["append_dim"]):
            raise UsageError("region= and append_dim= are two ways to write; pass one")
        word = "region" if self.where["append_dim"] is None else "append_dim"
        if not hasattr(self.module, "plan_into"):
            raise UsageError(f"{word}= writes into Zarr arrays; other layouts are written whole")
        if overwrite:
            raise UsageError(f"overwrite=True replaces the whole array; {word}= goes without it")
        if options:
            raise UsageError(f"{options[0]}= is the existing array's; {word}= goes without it")

    def __call__(self) -> Snapshot:
        name = name_of(self.url)
        document = f"{name}/{self.module.DOCUMENT}"
        backend = registry.backend([self.url], joined=True, **self.storage_options)
        grows = self.where["append_dim"] is not None
        tx = backend.begin(mode="update", entry=document if grows else None, **self.begin)
        if tx.committed:
            return Snapshot(
                tx.id, (self.url,), tx.guarantee.strategy, 0, 0, reason="committed before"
            )
        with tx:
            try:
                found = tx.read(document)
            except FileNotFoundError as error:
                raise UsageError(
                    f"{self.url} holds no {self.module.DOCUMENT}: region= and append_dim= write into an "
                    "array of Zarr v3 that is there; write it without them first"
                ) from error
            plan = self.module.plan_into(name, found, self.source.spec, **self.where)
            try:
                with reporter(self.progress, blocks_of(plan), self.url) as advance:
                    write_into(
                        tx, self.source, plan, max_workers=self.max_workers, progress=advance
                    )
            except PathError as error:
                if tx.read(document) == found:
                    raise
                raise ConflictError(
                    f"{self.url} was changed by another writer; run the same call again",
                    txid=tx.id,
                    outcome="aborted",
                ) from error
            return tx.commit()


def stream_of(
    name: str,
    layout: str | None,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...],
    options: dict[str, Any],
) -> tuple[Stream, Plan]:
    module = layouts.choose(name, layout)
    shape = _lengths("shape", shape, None, least=0)
    chunks = _lengths("chunks", chunks, len(shape), least=1)
    try:
        known = np.dtype(dtype)
    except TypeError as error:
        raise UsageError(f"dtype={dtype!r}: {error}") from None
    spec = ArraySpec(shape, known, uniform_grid(shape, chunks))
    if "shards" in module.OPTIONS:
        options = {**options, "chunks": chunks}
    plan: Plan = module.plan(name, spec, **options)
    if plan.grid != spec.grid:
        raise UsageError(
            f"{name} can't be written in chunks of {chunks}: it needs {plan.grid} along its axes"
        )
    return Stream(spec, plan), plan


def _lengths(option: str, value: Any, axes: int | None, *, least: int) -> tuple[int, ...]:
    value = plain_numbers(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value,) * (1 if axes is None else axes)
    whole = isinstance(value, list | tuple) and all(
        isinstance(n, int) and not isinstance(n, bool) and n >= least for n in value
    )
    if not whole or (axes is not None and len(value) != axes):
        each = "" if axes is None else f", one for each of the {axes} axes"
        raise UsageError(f"{option}={value!r}: whole numbers from {least} are needed{each}")
    return tuple(value)


def is_there(tx: Transaction, path: str) -> bool:
    try:
        tx.read(path, 0, 1)
    except FileNotFoundError:
        return False
    return True
