"""The backend of ``tx::`` URLs, and of any `Store` that a third party brings."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fstx import seams
from fstx.backends.base import refuse_missing, storage_errors
from fstx.backends.manifest import joining
from fstx.backends.manifest.collect import settle_dead
from fstx.backends.manifest.conflicts import POLICIES, Policy
from fstx.backends.manifest.dataset import Dataset, dataset_of
from fstx.backends.manifest.joined import JoinedTransaction
from fstx.backends.manifest.names import DATA, mark_of
from fstx.backends.manifest.resolve import find, parse, split_options
from fstx.backends.manifest.survey import survey
from fstx.backends.manifest.transaction import ManifestTransaction
from fstx.errors import PathError, StateError, UsageError
from fstx.stores import Proof, Store
from fstx.types import (
    Capability,
    Durability,
    Guarantee,
    Mode,
    OutcomeState,
    Promise,
    Recovery,
)

if TYPE_CHECKING:
    from fstx.backends.depots import StoreDepots

IDLE_S = 3600.0
"""A transaction that staged nothing for so long, and is not open in this process, counts as dead."""


def promises(url: str, proof: Proof, mode: Mode, durability: Durability) -> Guarantee:
    """What a dataset keeps on a storage of which `proof` is known."""
    commits = proof.put_new and proof.consistent
    why = proof.put_new_reason if not proof.put_new else proof.consistent_reason
    known = {c: (kept, reason, by) for c, kept, reason, by in proof.promises}
    proven = "probe" if commits else ""

    def promise(capability: Capability, reason: str, kept: bool = commits) -> Promise:
        if capability in known:
            kept_too, other, by = known[capability]
            if not kept_too:
                return Promise(capability, False, other, by)
        return Promise(capability, kept, reason if kept or commits else why, proven if kept else "")

    durable = proof.durable and (durability == "data" or proof.shared)
    rows = (
        promise(
            Capability.ATOMIC_OBJECT, "objects are never overwritten; readers hold one version"
        ),
        promise(
            Capability.ATOMIC_SET, "all paths of a transaction appear with one record of the log"
        ),
        promise(Capability.NO_GAP, "a version holds each path or does not"),
        promise(Capability.DURABLE, proof.durable_reason, commits and durable),
        promise(Capability.RECOVERABLE, "what has no record is not part of any version"),
        promise(Capability.CONFLICT_DETECTED, "the record's name can be taken once: put if absent"),
        promise(
            Capability.FENCED, "a record of the log gives a writer up; its own can't land after it"
        ),
        promise(
            Capability.REMOTE_STAGING,
            "any process that reaches the storage may stage"
            if proof.shared
            else "other processes don't see this storage",
            commits and proof.shared,
        ),
        promise(
            Capability.SNAPSHOTS, "versions stay readable until they are retired and collected"
        ),
    )
    notes = ("for readers through tx://; plain readers don't find the objects", *proof.notes)
    return Guarantee(url, "manifest", mode, durability, rows, notes)


class ManifestBackend:
    """Transactions on one dataset.

    Parameters
    ----------
    store
        Where the dataset's control directory lies: any `Store`, rooted at ``<root>/.fstx``.
    prefix
        The place of the transactions' paths in the dataset.
    roots
        Names that paths begin with, where the call named a list of targets.
    policy
        As for `ManifestTransaction`.
    target
        The URL as the caller gave it.
    strip
        The first part of all paths, where `prefix` stands for it.
    """

    tells_who_lives = False
    """Another process's open transaction leaves no sign here but what it stages."""

    def __init__(
        self,
        store: Store | Dataset,
        *,
        prefix: str = "",
        roots: tuple[str, ...] | None = None,
        policy: Policy = "rebase",
        target: str = "",
        strip: str = "",
    ) -> None:
        if policy not in POLICIES:
            raise UsageError(f"policy={policy!r}; it is one of {', '.join(POLICIES)}")
        self.dataset = (
            store if isinstance(store, Dataset) else dataset_of(seams.around_store(store))
        )
        self._prefix = prefix
        self._roots = roots
        self._policy: Policy = policy
        self._strip = strip
        self._target = target or self.dataset.url + (f"/{prefix}" if prefix else "")

    def __repr__(self) -> str:
        return f"ManifestBackend(tx::{self._target})"

    @property
    def url(self) -> str:
        """The target."""
        return f"tx::{self._target}"

    def guarantee(
        self, *, mode: Mode, durability: Durability, entry: str | None = None
    ) -> Guarantee:
        """What is promised here, probed."""
        with self._storage("asking what is promised"):
            return self._guarantee(mode, durability)

    def _guarantee(self, mode: Mode, durability: Durability) -> Guarantee:
        return promises(self.url, self.dataset.proof(), mode, durability)

    def begin(
        self,
        *,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability],
        entry: str | None = None,
        id: str | None = None,
    ) -> ManifestTransaction:
        """Begin on the newest version."""
        promised = self.guarantee(mode=mode, durability=durability, entry=entry)
        self.dataset.must_commit()
        refuse_missing(promised, require)
        outer = joining.current(self.dataset.identity)
        if outer is not None:
            raise StateError(
                f"transaction {outer.id} on {self.url} is open in this context; a second one in it would not "
                "see its changes: commit it first, or stage into it",
                txid=outer.id,
            )
        with self._storage("beginning a transaction"):
            base = self.dataset.refresh(sure=True)
            self.dataset.exists()  # a marker of the other view is refused here
        return ManifestTransaction(
            self.dataset,
            base,
            target=self._target,
            prefix=self._prefix,
            guarantee=promised,
            mode=mode,
            require=require,
            id=id,
            policy=self._policy,
            roots=self._roots,
            strip=self._strip,
        )

    def recover(self, *, idle_s: float = IDLE_S) -> Recovery:
        """Give up writers that are dead by all signs, and remove what they staged.

        A writer that was idle for `idle_s` and yet lives learns at its commit that it was given up: it
        does no harm, it has to begin anew.
        """
        dataset = self.dataset
        with self._storage("recovering"):
            if not dataset.exists():
                if next(iter(dataset.store.list(DATA)), None) is None:
                    return Recovery(self.url)
                dataset.create()  # a first writer died before its commit: the log takes its fence
            return Recovery(self.url, tuple(settle_dead(dataset, self.url, idle_s)))

    def depots(self, entry: str | None = None, /) -> StoreDepots:
        """Where unfinished jobs of this dataset are kept."""
        from fstx.backends.depots import StoreDepots  # which stages as datasets do

        return StoreDepots(
            self.dataset.store, (self._prefix or self._strip or ".", *(self._roots or ()))
        )

    def outcome(self, id: str, /) -> OutcomeState:
        """What became of a transaction, by the caller's id or by ``tx.id``."""
        with self._storage("asking for an outcome"):
            return self._outcome(id)

    def _outcome(self, id: str) -> OutcomeState:
        if not self.dataset.exists():
            return OutcomeState.UNKNOWN
        now = self.dataset.refresh()
        if now.mark(mark_of(id)) is not None:
            return OutcomeState.COMMITTED
        if id in survey(self.dataset.log).txids or id in self.dataset.log.voided().txids:
            return OutcomeState.COMMITTED
        if id in now.head.state.fenced:
            return OutcomeState.ABORTED
        if joining.find(id) is not None:
            return OutcomeState.ACTIVE
        return OutcomeState.UNKNOWN

    def _storage(self, doing: str) -> contextlib.AbstractContextManager[None]:
        return storage_errors(f"{doing} at {self.url} failed")

    def join(self, reference: str) -> Any:
        """The transaction that a URL names: the open one of this process, else one to stage into."""
        return join(self.dataset, reference, self._prefix)


def join(dataset: Dataset, reference: str, prefix: str = "") -> Any:
    """The transaction that `reference` names, open in this process or to be staged into from afar.

    Raises
    ------
    PathError
        No such reference.
    """
    found = joining.parse_reference(reference)
    if found is None:
        raise PathError(
            f"{reference!r} names no transaction; take tx.url as it is, it reads tx://@ID::TARGET"
        )
    own = joining.find(found[0])
    if own is not None and own.dataset.identity == dataset.identity:
        return own
    return JoinedTransaction(dataset, found[0], found[1], prefix)


def open_backend(urls: Sequence[str], *, joined: bool = False, **options: Any) -> Any:
    """Entry point of scheme ``tx``. `joined`: paths begin with the name of a target.

    Parameters
    ----------
    urls
        ``tx::TARGET`` or ``tx://INNER::TARGET``.
    **options
        Of the storage, flat or under its protocol's name; of the chain: ``root``, ``policy``
        (``"rebase"``, ``"fail"``, ``"last"``).
    """
    parts = [parse(u) for u in urls]
    if any(p.reference for p in parts):
        raise PathError(
            f"{urls[0]} names an open transaction: write to it through fsspec, don't begin another on it"
        )
    own, storage = split_options(dict(options), parts[0].target)
    policy = own.get("policy", "rebase")
    if not joined:
        part = parts[0]
        root = own.get("root") or (part.target if part.rooted else None)
        url = f"{part.target}/{part.inner}" if part.inner else part.target
        with storage_errors(f"looking for a dataset at or above {url} failed"):
            dataset, prefix, _ = find(url, storage, root=root)
        return ManifestBackend(dataset, prefix=prefix, policy=policy, target=part.target)
    from fstx.backends.manifest.several import open_several

    return open_several(parts, own, storage, policy)


__all__ = ["ManifestBackend", "join", "open_backend", "promises"]
