"""The words machines and performers share: effects asked for, events answered, outcomes.

A machine never sees a path, a byte or an exception: it handles the index of an item and the names of
places. Places of item *i* in transaction X:

    target   where readers look                    (any directory)
    new      staged content, complete but unseen   <control>/X/n<i>
    old      displaced content                     <control>/X/o<i>

and of X as a whole: its *area* ``X/`` (live), ``X.fenced/`` (taken over by a recoverer) or
``X.trash/`` (settled, only ever deleted), with records ``plan``, ``intent``, ``commit`` inside.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

RecordKind: TypeAlias = Literal["plan", "intent", "commit"]
Reason: TypeAlias = Literal[
    "conflict",  # the base is not what it was at begin
    "exists",  # something is where nothing may be
    "busy",  # another program holds it, or a lock could not be had in time
    "gone",  # our area is not there any more: fenced
    "unsupported",  # the primitive does not exist here
    "cross-device",  # the rename would leave the file system
    "failed",  # no space, no permission, I/O error: nothing was done
]


class Kind(enum.Enum):
    """What becomes of an item."""

    PUBLISH = "publish"  # new -> target
    REMOVE = "remove"  # target -> old


@dataclass(frozen=True, slots=True)
class Item:
    """One rename-sized piece of a transaction: a file, a whole new directory, or a removal.

    ``occupied``: something that must go was at the target when the transaction was prepared (a file, a
    non-empty directory). ``tree``: the staged content is a directory. Items come in commit order: parts,
    then publishers, then removals.
    """

    kind: Kind
    occupied: bool = False
    tree: bool = False


# --- effects: what a machine asks the performer to do; one answer each -------------------------


@dataclass(frozen=True, slots=True)
class SyncData:
    """Make the contents of all staged files durable."""


@dataclass(frozen=True, slots=True)
class SyncArea:
    """Make the directory entries of the area durable, bottom-up, the area's parent last."""


@dataclass(frozen=True, slots=True)
class Lock:
    """Take the locks of all targets, in sorted order."""


@dataclass(frozen=True, slots=True)
class Check:
    """Compare all targets with the base and test whatever would refuse a later step."""


@dataclass(frozen=True, slots=True)
class Record:
    """Write a record durably: temporary name, sync, rename, sync of the area."""

    kind: RecordKind


@dataclass(frozen=True, slots=True)
class Move:
    """Rename. ``how``: ``place`` new -> target, replacing a file or an empty directory, never more;
    ``create`` new -> target, refused where anything but an empty directory is; ``exchange`` new <-> target;
    ``aside`` target -> old; ``restore`` old -> target, refused where anything is.
    """

    item: int
    how: Literal["place", "create", "exchange", "aside", "restore"]


@dataclass(frozen=True, slots=True)
class SyncTargets:
    """Make the renames durable: the directories of all targets, and the area."""


@dataclass(frozen=True, slots=True)
class Inspect:
    """Look, change nothing; answered by `Found`."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Remember durably that this transaction is committed, where its owner chose its id."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Take the area over by renaming it; `gone` if another took it before."""


@dataclass(frozen=True, slots=True)
class Retire:
    """Rename the area to trash and make that durable: from here it is only ever deleted."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Delete trash, release locks, remove the control directory if empty. Best effort."""


Effect: TypeAlias = (
    SyncData
    | SyncArea
    | Lock
    | Check
    | Record
    | Move
    | SyncTargets
    | Inspect
    | Receipt
    | Fence
    | Retire
    | Clear
)


# --- events: the performer's answer ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """It took effect."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It certainly did not take effect."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may or may not have taken effect."""


class Who(enum.Enum):
    """Whose content lies at a place, judged by identity, never by an error code."""

    NONE = "none"
    NEW = "new"  # what this transaction staged
    BASE = "base"  # what was at the target when the transaction was prepared
    OTHER = "other"  # anything else


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies at the three places of one item."""

    target: Who
    new: Who
    old: Who


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to `Inspect`: the items' places, and the complete, valid records."""

    items: tuple[Seen, ...]
    records: frozenset[RecordKind]


Event: TypeAlias = Done | Refused | Unknown | Found


# --- outcomes: a machine's last word --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Committed:
    """Published. ``pending``: decided, but storage refused a later step; recovery finishes it."""

    pending: bool = False


@dataclass(frozen=True, slots=True)
class Aborted:
    """Not published; every target is as it was."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Storage does not say; the area is kept, so that recovery can decide."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Recovery met a state it won't guess about; nothing was destroyed."""

    detail: str


Outcome: TypeAlias = Committed | Aborted | InDoubt | Stuck

S = TypeVar("S")


class Machine(Protocol, Generic[S]):
    """A commit protocol. States are immutable and compare by value."""

    def start(self) -> tuple[S, Effect]:
        """Commit."""

    def rollback(self) -> tuple[S, Effect]:
        """Give up before `start`; also the way of an exception in the ``with`` body."""

    def recover(self) -> tuple[S, Effect]:
        """Settle what a dead owner left; the performer holds the owner's liveness lock."""

    def step(self, state: S, event: Event) -> tuple[S, Effect | Outcome]:
        """Take the answer to the last effect; return the next effect or the outcome."""
