"""Collection: what no kept or pinned version needs goes, and dead writers are given up.

In this order: a record of the log retires versions and fences writers; the log is read; the pins are
listed; then data, nodes and records are removed. A writer that was judged dead by mistake finds its fence.
Nothing rests on clocks but the choice of whom to give up, and of pins to let expire.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from fstx.backends.manifest import joining
from fstx.backends.manifest.building import service_record
from fstx.backends.manifest.dataset import Dataset
from fstx.backends.manifest.keeping import Keep, Kept, choose
from fstx.backends.manifest.log import Appender, Head, Since
from fstx.backends.manifest.names import (
    BOUNDARY,
    DATA,
    LOG,
    NODE,
    REFS,
    new_txid,
    owner_of,
    seq_of,
)
from fstx.backends.manifest.pins import Pin, left_clocks, pins_of, storage_now
from fstx.backends.manifest.reach import Reach
from fstx.backends.manifest.reports import Collection, Pinned
from fstx.backends.manifest.survey import CHANGES, Survey, read_many, row_of, survey
from fstx.errors import ConflictError, RecoveryError, StorageError, UsageError
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.state.records import Record
from fstx.state.view import State
from fstx.types import OutcomeState, Settled

OLDER_THAN_S = 86400.0
"""A writer that staged nothing for so long counts as dead."""

SPARE = 64
"""So many of the newest records stay in any case: writers that are under way look for their own there."""

EPOCHS = "epochs"
"""Member of ``State.extra``: records of collections with the storage's time, for the floor."""

_FENCES = 256  # tombstones beyond that are replaced by a floor
_FLOOR_S = 7 * 86400.0
_EPOCH_S = 6 * 3600.0
_TRIES = 5
_BATCH = 500
_REF = re.compile(rf"{REFS}(\d{{20}})(?:-.*)?\.json")
_OWNER = re.compile(r"[0-9a-f]{32}|k-[0-9a-f]{32}")

Progress = Callable[[int, int], None]


class _MovedError(Exception):
    """The log moved on in a way that needs another look."""


@dataclass
class _Owner:
    objects: int = 0
    last_s: float | None = None


@dataclass
class _Plan:
    """What was found, and what shall be done."""

    found: Survey
    now_s: float
    kept: Kept
    reach: Reach
    added: set[int] = field(default_factory=set)
    once: set[str] = field(default_factory=set)  # owners that retired versions need
    dead: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    fenced: dict[str, float] = field(default_factory=dict)
    retired: tuple[int, ...] = ()


class Collector:
    """One collection of one dataset.

    Parameters
    ----------
    dataset
        The dataset.
    keep
        So many newest versions, those of a time, or these ones; None: all that are kept now.
    older_than_s
        Unfinished transactions that staged nothing for so long are given up.
    progress
        Gets (done, total) of paths read and objects removed; the total grows.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        keep: Keep = None,
        older_than_s: float = OLDER_THAN_S,
        progress: Progress | None = None,
    ) -> None:
        if not older_than_s >= 0:
            raise UsageError(f"older_than_s={older_than_s}; it is a time that is not negative")
        self._dataset = dataset
        self._store = dataset.store
        self._keep = keep if keep is None or not isinstance(keep, Iterable) else list(keep)
        self._older_than_s = older_than_s
        self._progress = progress
        self._done = self._total = 0

    def plan(self) -> Collection:
        """What `run` would do now; nothing is written."""

        def attempt() -> Collection:
            plan = self._decide(None)
            head = plan.found.head
            state, _ = self._next(plan, head, ())
            pins = list(pins_of(self._dataset))
            protected = self._protect(plan, state, pins)
            return self._remove(plan, replace(head, state=state), pins, protected, dry_run=True)

        return self._until_still(attempt)

    def run(self) -> Collection:
        """Collect.

        Raises
        ------
        RecoveryError
            Something that a kept version needs is damaged: nothing was removed.
        StorageError
            The log could not be written: nothing was removed.
        """
        self._dataset.must_commit()

        def attempt() -> Collection:
            plan = self._decide(storage_now(self._dataset))
            self._append(plan)
            head = self._read_on(plan)
            # after the head: a reader that was not told of the retirement has put its pin before
            pins = list(pins_of(self._dataset))
            protected = self._protect(plan, head.state, pins)
            return self._remove(plan, head, pins, protected, dry_run=False)

        return self._until_still(attempt)

    def _until_still(self, attempt: Callable[[], Collection]) -> Collection:
        for _ in range(_TRIES):
            try:
                return attempt()
            except _MovedError:
                continue
        raise ConflictError(
            f"{self._dataset.url}: another collection was always ahead; nothing is wrong, run it again"
        )

    # --- deciding ---------------------------------------------------------------------------------

    def _decide(self, now_s: float | None) -> _Plan:
        found = survey(self._dataset.log)
        owners, newest_s = self.owners()
        if now_s is None:
            now_s = max(time.time(), newest_s)
        kept = choose(found, self._keep, now_s)
        plan = _Plan(found, now_s, kept, Reach(self._dataset, tell=self._tell))
        with contextlib.suppress(RecoveryError, FileNotFoundError):  # for the bar only
            self._expect(self._dataset.current().tree.count)
        state = kept.over(found.head.state)
        before = {row.seq for row in found.versions(found.head.state)}
        plan.retired = tuple(sorted(before - {row.seq for row in found.versions(state)}))
        protected = self._protect(plan, state, list(pins_of(self._dataset)))
        known = found.txids | set(state.fenced) | plan.reach.owners
        if owners.keys() - known:
            plan.once = set(self._dataset.log.voided().txids)
            known |= plan.once
        if owners.keys() - known:
            plan.once |= self._owners_of_retired(plan, protected)
            known |= plan.once
        for txid in sorted(owners.keys() - known):
            last_s = owners[txid].last_s
            # A look at one object and a listing may round the storage's time differently.
            idle_s = max(0.0, now_s - last_s) if last_s is not None else float("inf")
            living = joining.find(txid) is not None
            dead = idle_s >= self._older_than_s and not living and _OWNER.fullmatch(txid)
            (plan.dead if dead else plan.waiting)[txid] = idle_s
        return plan

    def owners(self) -> tuple[dict[str, _Owner], float]:
        """Who owns objects or uploads, and when it last wrote or began one."""
        owners: dict[str, _Owner] = {}
        newest_s = 0.0
        for prefix in (DATA, NODE):
            for info in self._store.list(prefix):
                owner = owners.setdefault(owner_of(info.key) or "", _Owner())
                owner.objects += 1
                if info.modified_s is not None:
                    owner.last_s = max(owner.last_s or 0.0, info.modified_s)
                    newest_s = max(newest_s, info.modified_s)
        for info in getattr(self._store, "open_uploads", tuple)():
            owner = owners.setdefault(owner_of(info.key) or "", _Owner())
            owner.last_s = max(owner.last_s or 0.0, info.modified_s or 0.0)
        owners.pop("", None)
        return owners, newest_s

    def _protect(self, plan: _Plan, state: State, pins: list[Pin]) -> set[int]:
        """Let `plan.reach` know all that kept and pinned versions need; returns their numbers."""
        found = plan.found
        keep = set(found.readable(state))
        self._add(plan, keep)
        plan.reach.walk()
        held = {p.version for p in pins if not p.expired(plan.now_s)} & (
            found.rows.keys() | found.damaged.keys()
        )
        self._add(plan, held - keep, strict=False)
        plan.reach.walk(strict=False)
        return keep | held

    def _add(self, plan: _Plan, seqs: set[int], *, strict: bool = True) -> None:
        for seq, state in self._states(plan.found, sorted(seqs - plan.added), strict=strict):
            plan.reach.add(state)
            plan.added.add(seq)

    def _states(
        self, found: Survey, seqs: list[int], *, strict: bool
    ) -> Iterator[tuple[int, State]]:
        missing = []
        for seq in seqs:
            if seq in found.states:
                yield seq, found.states[seq]
            else:
                missing.append(seq)
        for seq, head in read_many(self._dataset.log, missing):
            if isinstance(head, Head):
                yield seq, head.state
            elif strict:
                if isinstance(head, RecoveryError):
                    raise head
                raise _MovedError

    def _owners_of_retired(self, plan: _Plan, protected: set[int]) -> set[str]:
        """Transactions that versions name which are not kept any more: committed, not unfinished."""
        reach = Reach(self._dataset)
        rest = sorted(plan.found.rows.keys() - protected)
        for _, state in self._states(plan.found, rest, strict=False):
            reach.add(state)
        reach.walk(strict=False)
        return reach.owners

    # --- the record -------------------------------------------------------------------------------

    def _next(self, plan: _Plan, head: Head, since: tuple[Record, ...]) -> tuple[State, str]:
        """The state that the record shall say, and the record's kind; "" where nothing changes."""
        before = head.state
        state = plan.kept.over(before)
        kind = "retire" if state != before else ""
        committed = {r.txid for r in since if r.kind in CHANGES}
        new = [t for t in plan.dead if t not in before.fenced and t not in committed]
        plan.fenced = {t: plan.dead[t] for t in plan.dead if t not in committed}
        fenced = {**before.fenced, **dict.fromkeys(new, head.seq + 1)}
        kind = kind or ("fence" if new else "")
        floor, extra = before.floor, dict(state.extra)
        epochs = _epochs(before)
        if len(fenced) > _FENCES:
            until_s = plan.now_s - max(_FLOOR_S, self._older_than_s)
            floor = max([floor, *(seq for seq, at_s in epochs if at_s <= until_s)])
            if floor > before.floor:
                fenced = {t: f for t, f in fenced.items() if f > floor}
                kind = kind or "fence"
        if kind and (not epochs or plan.now_s - epochs[-1][1] >= _EPOCH_S):
            extra[EPOCHS] = [*([s, t] for s, t in epochs[-39:]), [head.seq + 1, plan.now_s]]
        return replace(state, fenced=fenced, floor=floor, extra=extra), kind

    def _append(self, plan: _Plan) -> None:
        nonce = new_txid()
        head = plan.found.head
        if not self._next(plan, head, ())[1]:
            return

        def since_of(since: Since) -> tuple[Record, ...]:
            if since is None:
                raise _MovedError
            return since

        def judge(head: Head, since: Since) -> m.Verdict:
            return "free" if self._next(plan, head, since_of(since))[1] else "moot"

        def build(head: Head, since: Since) -> Record:
            state, kind = self._next(plan, head, since_of(since))
            info: dict[str, Any] = {"retired": len(plan.retired), "fenced": len(plan.fenced)}
            return service_record(kind or "fence", head, state, nonce, info)

        appender = Appender(self._dataset.log, head, nonce, build, judge)
        outcome = appender.run()
        if isinstance(outcome, v.Aborted | v.InDoubt):
            raise StorageError(
                f"{self._dataset.url}: the log could not be written; nothing was removed",
                outcome="unknown" if isinstance(outcome, v.InDoubt) else "aborted",
            ) from appender.cause
        if isinstance(outcome, m.Landed):
            self._dataset.note(appender)

    def _read_on(self, plan: _Plan) -> Head:
        """The newest record, with all between noted in the plan."""
        head, since = self._dataset.log.forward(plan.found.head)
        if since is None:
            raise _MovedError
        for record in since:
            plan.found.rows[record.seq] = row_of(record, "", None)
            plan.found.states[record.seq] = record.after
        plan.found.head = head
        self._dataset.advance(head)
        return head

    # --- removing ---------------------------------------------------------------------------------

    def _remove(
        self, plan: _Plan, head: Head, pins: list[Pin], protected: set[int], *, dry_run: bool
    ) -> Collection:
        found, state = plan.found, head.state
        settled = found.txids | set(state.fenced) | plan.reach.owners | plan.once
        sizes = {}
        for prefix in (DATA, NODE):
            sizes[prefix] = {
                info.key: info.size_bytes
                for info in self._store.list(prefix)
                if owner_of(info.key) in settled and info.key not in plan.reach
            }
        top = self._boundary(found, head, protected)
        records = self._void(top)
        other = [p.key for p in pins if p.expired(plan.now_s)]
        other += left_clocks(self._dataset, plan.now_s)
        other += [
            i.key for i in self._store.list(REFS) if _version_of(i.key) not in {0, *protected}
        ]
        self._expect(sum(map(len, [*sizes.values(), records, other])))
        uploads = 0
        if not dry_run:
            self._delete(sizes[DATA])
            self._delete(sizes[NODE])
            if top > found.boundary:
                self._dataset.log.raise_boundary(top)
            self._delete(records)
            self._delete(other)
            tidy = getattr(self._store, "tidy", None)
            uploads = tidy(max(self._older_than_s, OLDER_THAN_S)) if tidy is not None else 0
            abort = getattr(self._store, "abort_uploads", None)
            if abort is not None:
                uploads += abort(lambda key: owner_of(key) in settled)
        return Collection(
            url=f"tx::{self._dataset.url}",
            dry_run=dry_run,
            kept=tuple(row.seq for row in found.versions(state)),
            retired=plan.retired,
            pins=tuple(
                Pinned(p.version, str(p), p.reader) for p in pins if not p.expired(plan.now_s)
            ),
            fenced=dict(plan.fenced),
            waiting=dict(plan.waiting),
            data=tuple(sizes[DATA]),
            nodes=tuple(sizes[NODE]),
            records=tuple(records),
            other=tuple(other),
            size_bytes=sum(sum(found.values()) for found in sizes.values()),
            uploads=uploads,
        )

    def _boundary(self, found: Survey, head: Head, protected: set[int]) -> int:
        """Up to which record the log may go: below all that is kept or pinned, and below the newest ones."""
        lowest = min((s for s in protected if s > 0), default=head.seq)
        return max(found.boundary, min(lowest - 1, head.seq - SPARE))

    def _void(self, top: int) -> list[str]:
        """Records that count no more once `top` is the boundary, and the older boundaries."""
        records = [i.key for i in self._store.list(LOG) if (seq_of(i.key) or top + 1) <= top]
        bounds = [i.key for i in self._store.list(BOUNDARY) if (seq_of(i.key) or top) < top]
        return records + bounds

    def _delete(self, keys: Iterable[str]) -> None:
        left = list(keys)
        for start in range(0, len(left), _BATCH):
            part = left[start : start + _BATCH]
            self._store.delete(part)
            self._tell(len(part))

    # --- progress -----------------------------------------------------------------------------------

    def _expect(self, count: int) -> None:
        self._total += count

    def _tell(self, count: int) -> None:
        self._done += count
        self._total = max(self._total, self._done)
        if self._progress is not None:
            self._progress(self._done, self._total)


def settle_dead(dataset: Dataset, url: str, idle_s: float) -> list[Settled]:
    """Give up writers that staged nothing for `idle_s`, and remove what they staged.

    Where there are none, nothing but the log and the names of objects is read.
    """
    collector = Collector(dataset, older_than_s=idle_s)
    owners, _ = collector.owners()
    found = survey(dataset.log)
    left = owners.keys() - found.txids - dataset.log.voided().txids.keys()
    if not left:
        return []
    fenced = found.head.state.fenced
    told = collector.run()
    removed = Counter(owner_of(key) for key in (*told.data, *told.nodes))
    settled = []
    for txid in sorted({*told.fenced, *(t for t in fenced if removed[t])}):
        detail = f"{removed[txid]} staged objects removed"
        settled.append(Settled(txid, url, OutcomeState.ABORTED, detail))
    for txid, ago_s in told.waiting.items():
        detail = f"staged something {ago_s:.0f} s ago; given up after {idle_s:.0f} s"
        if joining.find(txid) is not None:
            detail = "open in this process"
        settled.append(Settled(txid, url, OutcomeState.ACTIVE, detail))
    return settled


def _version_of(key: str) -> int:
    """Of a reference document; 0 for what is none."""
    found = _REF.fullmatch(key)
    return int(found[1]) if found else 0


def _epochs(state: State) -> list[tuple[int, float]]:
    found = state.extra.get(EPOCHS, ())
    if not isinstance(found, list | tuple):
        return []
    return [
        (pair[0], float(pair[1]))
        for pair in found
        if isinstance(pair, list | tuple) and list(map(type, pair)) in ([int, int], [int, float])
    ]


__all__ = ["OLDER_THAN_S", "SPARE", "Collector", "Progress", "settle_dead"]
