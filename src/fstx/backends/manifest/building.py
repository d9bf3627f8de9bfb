"""The record of a commit, or of a service: the state under it, and nodes of the tree before it."""

from __future__ import annotations

import getpass
import os
import platform
import time
from dataclasses import replace
from typing import Any

from fstx.backends.manifest.dataset import Dataset
from fstx.backends.manifest.log import Head, Since
from fstx.backends.manifest.names import node_key
from fstx.backends.manifest.uploads import Uploads
from fstx.state.entries import Delta
from fstx.state.records import Record, weight
from fstx.state.tree import NodeRef, Tree
from fstx.state.view import State

_MANY = 1000  # paths that never fit into a record

_UNDER_WAY_BYTES = 64 << 20

BUDGET_BYTES = 16 << 10
"""A record holds small changes itself up to this; beyond they go into the tree."""


def writer_name() -> str:
    """Who writes: for people who read the log, never for a decision."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "?"
    return f"{user}@{platform.node()}:{os.getpid()}"


class Builder:
    """The states of records that carry `own`; keeps what it put into the tree for the next try.

    Parameters
    ----------
    dataset
        The dataset.
    txid
        Owns the nodes that are put.
    own
        The change.
    reuses
        Whether what others changed meanwhile may lie over `own`: they touched nothing of it.
    """

    def __init__(self, dataset: Dataset, txid: str, own: Delta, *, reuses: bool = True) -> None:
        self._dataset = dataset
        self._reuses = reuses
        self._txid = txid
        self._own = own
        self._weight = weight(own) if len(own.puts) < _MANY else BUDGET_BYTES
        self._big = self._weight > BUDGET_BYTES // 2
        self.packs: list[str] = []  # all that were put
        self._named: tuple[str, ...] = ()  # those of the state that was made last
        self._grown: tuple[NodeRef | None, int, NodeRef | None] | None = None

    def state(self, head: Head, since: Since) -> tuple[State, Delta, bool]:
        """The state under the record, its own change, and whether the state holds that already."""
        state = head.state
        if not self._big:
            self._named = ()
            if weight(state.tail) + self._weight <= BUDGET_BYTES:
                return state, self._own, False
            root = self._grow(state.root, state.tail)
            return replace(state, root=root, tail=Delta()), self._own, False
        if self._reuses and self._grown and self._grown[0] == state.root and since is not None:
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
        self.packs += packs
        self._named = tuple(packs)
        uploads = Uploads(store, self._txid, size_bytes=_UNDER_WAY_BYTES)
        try:
            for key, data in packs.items():
                uploads.put(key, data, "")
        finally:
            uploads.wait()
        uploads.settle()
        return new

    def unused(self) -> list[str]:
        """Packs that the state that was made last does not name."""
        return [key for key in self.packs if key not in self._named]


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
