"""One commit: the record that follows the head, built anew where the head moved on."""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fstx.backends.base import wrap_storage_error
from fstx.backends.manifest import conflicts
from fstx.backends.manifest.dataset import Dataset, Version
from fstx.backends.manifest.log import Appender, Head, Since
from fstx.backends.manifest.names import new_txid, node_key, owner_of
from fstx.backends.manifest.survey import CHANGES, alive
from fstx.errors import (
    ConflictError,
    FencedError,
    InDoubtError,
    StorageError,
    TargetExistsError,
)
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.state.entries import Delta
from fstx.state.records import Record, weight
from fstx.state.tree import NodeRef, Tree
from fstx.state.view import State
from fstx.types import Snapshot

if TYPE_CHECKING:
    from fstx.backends.manifest.transaction import ManifestTransaction

_MANY = 1000  # paths that never fit into a record

BUDGET_BYTES = 32 << 10
"""A record holds small changes itself up to this; beyond they go into the tree."""


def writer_name() -> str:
    """Who writes: for people who read the log, never for a decision."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "?"
    return f"{user}@{platform.node()}:{os.getpid()}"


class Builder:
    """Makes records that carry `own`; keeps what it put into the tree for the next try."""

    def __init__(self, dataset: Dataset, txid: str, own: Delta) -> None:
        self._dataset = dataset
        self._txid = txid
        self._own = own
        self._weight = weight(own) if len(own.puts) < _MANY else BUDGET_BYTES
        self._big = self._weight > BUDGET_BYTES // 2
        self.packs: list[str] = []
        self._grown: tuple[NodeRef | None, int, NodeRef | None] | None = None

    def state(self, head: Head, since: Since) -> tuple[State, Delta, bool]:
        """The state under the record, its own change, and whether the state holds that already."""
        state = head.state
        if not self._big:
            if weight(state.tail) + self._weight <= BUDGET_BYTES:
                return state, self._own, False
            root = self._grow(state.root, state.tail)
            return replace(state, root=root, tail=Delta()), self._own, False
        if self._grown is not None and self._grown[0] == state.root and since is not None:
            _, seq, root = self._grown
            later = [r for r in since if r.seq > seq]
            if not any(r.own_in_tree for r in later):
                # others touched nothing that this touched, so their order does not matter
                tail = Delta()
                for record in later:
                    tail = tail.then(record.own)
                return replace(state, root=root, tail=tail), Delta(), True
        root = self._grow(state.root, state.tail.then(self._own))
        self._grown = (state.root, head.seq, root)
        return replace(state, root=root, tail=Delta()), Delta(), True

    def _grow(self, root: NodeRef | None, delta: Delta) -> NodeRef | None:
        store = self._dataset.store
        tree = Tree(root, store.get, self._dataset.cache)
        new, packs = tree.updated(delta, lambda: node_key(self._txid))
        puts = [store.start_put(key, data) for key, data in packs.items()]
        self.packs += packs
        for put in puts:
            put.result()
        return new


class Commit:
    """Appends the record of one transaction, and says what became of it."""

    INLINE_BYTES = 8 << 10
    """Held-back objects up to this total go into the record; more of them into a pack."""

    def __init__(self, tx: ManifestTransaction, own: Delta, when_s: float) -> None:
        self._tx = tx
        self._dataset = tx.dataset
        self._own = own
        self._when_s = when_s
        self._builder = Builder(tx.dataset, tx.txid, own)
        self._paths = len(own.puts) - bool(tx.mark) - tx.directories
        self._size_bytes = sum([e.size_bytes for e in own.puts.values()])
        self._reason = ""

    def run(
        self,
        *,
        settle: Callable[[], None],
        discard: Callable[[], None],
        dropped: Iterable[str],
    ) -> Snapshot:
        """Commit; when this raises, the error says whether the dataset changed."""
        head, since = self._dataset.known_since(self._tx.begun)
        verdict = self._judge(head, since) if head.seq > self._tx.begun else "free"
        if verdict != "free":
            discard()
            if verdict == "moot":
                return self._before()
            raise self._error(verdict, None)
        appender = Appender(
            self._dataset.log,
            head,
            self._tx.txid,
            self._build,
            self._judge,
            settle=settle,
            landed_unseen=self._landed_unseen,
        )
        appender.since = since
        try:
            outcome = appender.run()
        except BaseException as error:
            self._interrupted(appender, error, discard)
            raise
        match outcome:
            case m.Landed(slot):
                return self._landed(appender, slot, dropped)
            case m.Moot():
                discard()
                return self._before()
            case v.Aborted(reason):
                discard()
                raise self._error(reason, appender.cause)
            case _:
                raise self._doubt(appender.cause)

    # --- the record ---------------------------------------------------------------------------------

    def _build(self, head: Head, since: Since) -> Record:
        state, own, in_tree = self._builder.state(head, since)
        return Record(
            seq=head.seq + 1,
            kind="commit",
            txid=self._tx.txid,
            nonce=self._tx.txid,
            begun=self._tx.begun,
            prev=head.digest,
            state=state,
            own=own,
            own_in_tree=in_tree,
            paths=self._paths,
            size_bytes=self._size_bytes,
            when_s=self._when_s,
            writer=writer_name(),
            message=self._tx.message,
            info={},
        )

    def _judge(self, head: Head, since: Since) -> m.Verdict:
        tx = self._tx
        now = Version(head, self._dataset.store, self._dataset.cache)
        if tx.mark and now.mark(tx.mark) is not None:
            return "moot"
        if conflicts.gone(head, tx.txid, tx.begun):
            return "gone"
        if tx.has_links and tx.begun and not alive(head.state, tx.begun):
            self._reason = (
                f"version {tx.begun}, of which it copied, was retired and may be collected"
            )
            return "conflict"
        if tx.policy == "last":
            return "free"
        if tx.policy == "fail" and (since is None or any(r.kind in CHANGES for r in since)):
            self._reason = "something was committed since, and the policy is 'fail'"
            return "conflict"
        try:
            found = conflicts.met(tx.touched(), tx.base, now, since)
        except FileNotFoundError:
            if alive(head.state, tx.begun):
                raise
            self._reason = (
                f"version {tx.begun}, on which it began, was collected, so that nothing tells what "
                "others changed since"
            )
            return "conflict"
        if found is None:
            return "free"
        self._reason = f"{found!r} was changed by another commit since version {tx.begun}"
        return "conflict"

    def _landed_unseen(self, head: Head) -> int | None:
        """Where records are gone from the log: found by the objects that only this transaction staged."""
        now = Version(head, self._dataset.store, self._dataset.cache)
        for path, entry in self._own.puts.items():
            if owner_of(entry.key) == self._tx.txid:
                found = now.get(path)
                if found is not None and found.key == entry.key:
                    return head.seq
        return None

    # --- what became of it ---------------------------------------------------------------------------

    def _landed(self, appender: Appender, slot: int, dropped: Iterable[str]) -> Snapshot:
        self._dataset.note(appender)
        keys = list(dropped)
        reason = ""
        if keys:
            try:
                self._dataset.store.delete(keys)
            except OSError as error:  # committed; collect removes them later
                reason = f"superseded objects were left for collect: {error}"
        return Snapshot(
            self._tx.id,
            (self._tx._url,),
            "manifest",
            self._paths,
            self._size_bytes,
            version=slot,
            reason=reason,
        )

    def _before(self) -> Snapshot:
        return Snapshot(self._tx.id, (self._tx._url,), "manifest", 0, 0, reason="committed before")

    def _error(self, reason: str, cause: BaseException | None) -> Exception:
        tx = self._tx
        made: Exception
        if reason == "gone":
            made = FencedError(
                f"transaction {tx.id} on {tx._url} was given up for dead while it went on; begin anew",
                txid=tx.id,
                outcome="aborted",
            )
        elif reason == "conflict" and tx.mode == "create":
            made = TargetExistsError(
                f"{tx._url} was created by another writer meanwhile: {self._reason}",
                txid=tx.id,
                outcome="aborted",
            )
        elif reason == "conflict":
            made = ConflictError(
                f"{tx._url}: {self._reason}; read it again and retry", txid=tx.id, outcome="aborted"
            )
        elif isinstance(cause, StorageError):
            return cause
        elif isinstance(cause, OSError):
            made = wrap_storage_error(cause, f"committing to {tx._url}", tx.id)
        else:
            made = StorageError(f"committing to {tx._url} failed", txid=tx.id, outcome="aborted")
        made.__cause__ = cause
        return made

    def _doubt(self, cause: BaseException | None) -> InDoubtError:
        made = InDoubtError(
            f"{self._tx._url}: storage did not say whether transaction {self._tx.id} was committed; don't "
            f"retry, ask fstx.outcome({self._tx._url!r}, {self._tx.id!r})",
            txid=self._tx.id,
            outcome="unknown",
        )
        made.__cause__ = cause
        return made

    def _interrupted(
        self, appender: Appender, error: BaseException, discard: Callable[[], None]
    ) -> None:
        """Ctrl-C or a defect in the middle: find out, and fence what may still land."""
        if not appender.tried:
            discard()
            return
        try:
            outcome = appender.run(m.Append.cancel)
            if not isinstance(outcome, m.Landed):
                outcome = fence(self._dataset, [self._tx.txid])
        except Exception as second:  # noqa: BLE001 - the interrupt is the one to raise
            error.add_note(f"whether transaction {self._tx.id} landed is unknown: {second!r}")
            self._tx._state = "in doubt"
            return
        if isinstance(outcome, m.Landed):
            self._tx._state = "committed"
            self._tx._snapshot = self._landed(appender, outcome.slot, ())
            error.add_note(f"transaction {self._tx.id} was committed before the interrupt")
            return
        discard()


def fence(dataset: Dataset, txids: list[str]) -> Any:
    """Give transactions up for dead: none of them can land afterwards.

    Returns
    -------
    Outcome
        ``Landed`` if one of them turned out committed (its slot); ``Aborted("gone")`` when all are fenced.
    """
    wanted = set(txids)
    found: dict[str, int] = {}

    def judge(head: Head, since: Since) -> m.Verdict:
        for record in since or ():
            if record.kind == "commit" and record.txid in wanted:
                found[record.txid] = record.seq
                wanted.discard(record.txid)
        if since is None:
            landed = dataset.log.voided().txids
            found.update((t, landed[t]) for t in wanted & set(landed))
            wanted.difference_update(found)
        return "moot" if wanted <= set(head.state.fenced) else "free"

    def build(head: Head, since: Since) -> Record:
        fenced = {**head.state.fenced, **dict.fromkeys(sorted(wanted), head.seq + 1)}
        return service_record("fence", head, replace(head.state, fenced=fenced), nonce)

    nonce = new_txid()
    head = dataset.refresh().head
    since = dataset.known_since(0)[1]
    if judge(head, since) == "free":
        appender = Appender(dataset.log, head, nonce, build, judge)
        outcome = appender.run()
        if isinstance(outcome, v.Aborted | v.InDoubt):
            raise StorageError(
                f"{dataset.url}: the log could not be written", outcome="unknown"
            ) from appender.cause
        if isinstance(outcome, m.Landed):
            dataset.note(appender)
    if found:
        return m.Landed(max(found.values()))
    return v.Aborted("gone")


def service_record(
    kind: str, head: Head, state: State, nonce: str, info: dict[str, Any] | None = None
) -> Record:
    """A record that changes no path."""
    return Record(
        seq=head.seq + 1,
        kind=kind,
        txid=nonce,
        nonce=nonce,
        begun=head.seq,
        prev=head.digest,
        state=state,
        own=Delta(),
        own_in_tree=False,
        paths=0,
        size_bytes=0,
        when_s=time.time(),
        writer=writer_name(),
        message="",
        info=info or {},
    )
