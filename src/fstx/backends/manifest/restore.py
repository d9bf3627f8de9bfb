"""An old version as the newest one: one record that names the old tree."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from fstx.backends.manifest.building import BUDGET_BYTES, writer_name
from fstx.backends.manifest.dataset import Dataset, Version
from fstx.backends.manifest.log import Appender, Head, Since
from fstx.backends.manifest.names import IDS, new_txid, node_key
from fstx.backends.manifest.pins import gone
from fstx.backends.manifest.survey import CHANGES, alive
from fstx.errors import ConflictError, InDoubtError, StorageError
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.state.entries import Delta, Entry
from fstx.state.nodes import NodeRef
from fstx.state.records import Record, weight
from fstx.state.tree import Tree
from fstx.state.view import State
from fstx.types import Snapshot


def restore(dataset: Dataset, version: int, message: str | None) -> Snapshot:
    """Commit the tree of `version`; fails if anything was committed since this read the head."""
    dataset.must_commit()
    dataset.create()
    head = dataset.refresh().head
    old = dataset.view(version)  # raises where it is not, or not any more
    work = _Restore(dataset, old, f"restored version {version}" if message is None else message)
    appender = Appender(dataset.log, head, work.txid, work.build, work.judge, settle=work.settle)
    outcome = appender.run()
    if isinstance(outcome, m.Landed):
        dataset.note(appender)
        return Snapshot(
            work.txid, (f"tx::{dataset.url}",), "manifest", work.paths, 0, version=outcome.slot
        )
    where = f"tx::{dataset.url}"
    if isinstance(outcome, v.InDoubt):
        raise InDoubtError(
            f"{where}: storage did not say whether version {version} was restored; ask "
            f"fstx.outcome({where!r}, {work.txid!r})",
            txid=work.txid,
            outcome="unknown",
        ) from appender.cause
    if work.reason:
        raise ConflictError(f"{where}: {work.reason}", txid=work.txid, outcome="aborted")
    raise StorageError(
        f"{where}: the log could not be written", txid=work.txid, outcome="aborted"
    ) from appender.cause


class _Restore:
    """Builds and judges the record."""

    def __init__(self, dataset: Dataset, old: Version, message: str) -> None:
        self._dataset = dataset
        self._old = old
        self._message = message
        self.txid = new_txid()
        self.reason = ""
        self.paths = 0
        self._begun = 0
        self._state = State()

    def settle(self) -> None:
        """Before the record: nodes for what it can't hold itself."""
        now = self._dataset.current()
        self._begun = now.version
        # what is remembered of chosen ids is no content: it stays
        marks = dict(_marks(self._dataset, now))
        for path in _marks(self._dataset, self._old):
            marks.pop(path, None)
        state = self._old.head.state
        tail = state.tail.then(Delta(marks))
        root: NodeRef | None = state.root
        if weight(tail) > BUDGET_BYTES:
            store = self._dataset.store
            tree = Tree(root, store.get, self._dataset.cache)
            root, packs = tree.updated(tail, lambda: node_key(self.txid))
            for put in [store.start_put(key, data) for key, data in packs.items()]:
                put.result()
            tail = Delta()
        self._state = State(root=root, tail=tail)
        self.paths = self._old.count

    def build(self, head: Head, since: Since) -> Record:
        info: dict[str, Any] = {"restored": self._old.version}
        return Record(
            seq=head.seq + 1,
            kind="restore",
            txid=self.txid,
            nonce=self.txid,
            begun=self._begun,
            prev=head.digest,
            state=replace(head.state, root=self._state.root, tail=self._state.tail),
            own_in_tree=True,
            paths=self.paths,
            when_s=time.time(),
            writer=writer_name(),
            message=self._message,
            info=info,
        )

    def judge(self, head: Head, since: Since) -> m.Verdict:
        if since is None or any(r.kind in CHANGES for r in since):
            self.reason = "something was committed meanwhile; look at it, then restore again"
            return "conflict"
        if self._old.version and not alive(head.state, self._old.version):
            self.reason = gone(self._dataset, self._old.version, head.seq)
            return "conflict"
        return "free"


def _marks(dataset: Dataset, version: Version) -> dict[str, Entry]:
    state = version.head.state
    tree = Tree(state.root, dataset.store.get, dataset.cache)
    found = dict(tree.items(IDS.rstrip("/")))
    found.update((p, e) for p, e in state.tail.puts.items() if p.startswith(IDS))
    return found


__all__ = ["restore"]
