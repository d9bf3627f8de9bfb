"""Values that cross the contract: what is staged, promised, published and found.

Plain frozen data, standard library only; everything here pickles and compares by value.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes as callers hold them. The library reads a buffer during the call and keeps no reference."""

Data: TypeAlias = Buffer | Sequence[Buffer]
"""One buffer, or several that are written one behind the other without being joined in memory."""

Mode: TypeAlias = Literal["create", "replace", "update"]
Durability: TypeAlias = Literal["none", "data"]
Sidecars: TypeAlias = Literal["refuse", "stage", "drop"]
"""What becomes of files that a library left beside the one that it was to write."""


class Capability(enum.StrEnum):
    """Positive promises. A capability that is not named is not promised."""

    ATOMIC_OBJECT = "ATOMIC_OBJECT"
    ATOMIC_SET = "ATOMIC_SET"
    NO_GAP = "NO_GAP"
    DURABLE = "DURABLE"
    RECOVERABLE = "RECOVERABLE"
    CONFLICT_DETECTED = "CONFLICT_DETECTED"
    FENCED = "FENCED"
    REMOTE_STAGING = "REMOTE_STAGING"
    SNAPSHOTS = "SNAPSHOTS"


class OutcomeState(enum.StrEnum):
    """What became of a transaction, as far as the storage remembers it."""

    COMMITTED = "committed"  # published; readers see it
    PENDING = "pending"  # decided, publication not finished: `recover` finishes it
    ACTIVE = "active"  # its owner is alive and has not decided
    ABORTED = "aborted"  # given up or never decided; the target is as it was
    UNKNOWN = "unknown"  # the storage holds no trace (finished and forgotten, or never begun)


@dataclass(frozen=True, slots=True)
class StagedObject:
    """The receipt of one staged object: small, picklable, and enough to publish it.

    Parameters
    ----------
    path
        Logical path within the transaction, ``/``-separated and relative.
    key
        Where the bytes lie, relative to the staging area. Meaningful to the backend alone.
    size_bytes
        Length of the staged bytes.
    txid
        The transaction that it was staged for; another one refuses it.
    publisher
        True when readers find the other objects through this one (an index, array metadata):
        published after every part.
    """

    path: str
    key: str
    size_bytes: int
    txid: str
    publisher: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `commit` published.

    ``pending`` is True when the transaction is decided but storage refused a later step (no space, a
    busy file): it can't be undone any more, and the next run or `fstx.recover` finishes it.
    """

    txid: str
    urls: tuple[str, ...]
    strategy: str
    paths: int
    size_bytes: int
    pending: bool = False
    version: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Promise:
    """One capability at one target: kept or not, why, and what proved it."""

    capability: Capability
    kept: bool
    reason: str
    proof: str = ""


@dataclass(frozen=True)
class Guarantee:
    """What is promised at a target for a mode, strategy by strategy of proof."""

    url: str
    strategy: str
    mode: Mode
    durability: Durability
    promises: tuple[Promise, ...]
    notes: tuple[str, ...] = ()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The capabilities that are kept."""
        return frozenset(p.capability for p in self.promises if p.kept)

    def __contains__(self, capability: Capability | str) -> bool:
        return Capability(capability) in self.capabilities

    def __getitem__(self, capability: Capability | str) -> Promise:
        wanted = Capability(capability)
        for promise in self.promises:
            if promise.capability is wanted:
                return promise
        raise KeyError(wanted)

    def __str__(self) -> str:
        head = (
            f"{self.url}: strategy {self.strategy}, mode {self.mode}, durability {self.durability}"
        )
        rows = [
            f"  {'yes' if p.kept else 'no ':3}  {p.capability:<17}  {p.reason}"
            + (f"  [{p.proof}]" if p.proof else "")
            for p in self.promises
        ]
        return "\n".join([head, *rows, *(f"  note: {n}" for n in self.notes)])


@dataclass(frozen=True, slots=True)
class Settled:
    """What `recover` did with one interrupted transaction."""

    txid: str
    place: str
    state: OutcomeState
    detail: str = ""


@dataclass(frozen=True)
class Recovery:
    """The report of `recover`: one row per transaction that it found."""

    url: str
    settled: tuple[Settled, ...] = ()
    removed: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.settled or self.removed)

    def __str__(self) -> str:
        if not self:
            return f"{self.url}: nothing to recover"
        rows = [f"  {s.state:9} {s.txid}  {s.detail}".rstrip() for s in self.settled]
        rows += [f"  removed   {r}" for r in self.removed]
        return "\n".join([f"{self.url}:", *rows])
