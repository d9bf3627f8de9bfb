"""What a disk was asked to do, in order, and what of it would outlive a loss of power.

Nodes are numbers: files and directories, whatever their names. A slot is a name in a directory. The log
holds changes of slots, contents, syncs and marks; `Platter` reads it up to a point and tells which
changes are durable, which are loose, and which contents are dirty.

Two models of what becomes durable when:

``posix``
    A change of slots is loose until every directory that it touches was synced since; any subset of
    the loose ones may be lost. A file's sync covers its content, not its name. Weaker than any file
    system in use, and all that POSIX promises.
``ordered``
    A journal of metadata, as on ext4, xfs and btrfs: changes of slots are lost from the end on only, and
    each sync, of a file too, makes all earlier ones durable. Contents are written when they are synced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Node: TypeAlias = int
Slot: TypeAlias = tuple[Node, str]
Model = Literal["posix", "ordered"]
ROOT: Node = 1


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of a file, or where a link points to, with the time of the write; compared by digest."""

    data: bytes = field(repr=False, compare=False)
    mtime_ns: int
    digest: bytes
    link: bool = False

    @staticmethod
    def of(data: bytes, mtime_ns: int, *, link: bool = False) -> Content:
        """With its digest."""
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return Content(data, mtime_ns, digest, link)


@dataclass(frozen=True, slots=True)
class Change:
    """One operation on names, which happens wholly or not at all.

    ``takes``: slots that something was taken from, which must have been there. ``made``: a new file,
    empty. ``gone``: a directory that is no more.
    """

    call: str
    writes: tuple[tuple[Slot, Node | None], ...]
    takes: tuple[Slot, ...] = ()
    made: tuple[Node, Content] | None = None
    gone: Node | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """A file's content changed."""

    node: Node
    content: Content


@dataclass(frozen=True, slots=True)
class Sync:
    """Something was synced: a file's content, a directory's entries, or (``node`` None) everything."""

    kind: Literal["file", "dir", "all"]
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Something happened that is no call, such as a commit that returned."""

    text: str


Entry: TypeAlias = Change | Data | Sync | Mark


@dataclass(frozen=True, slots=True)
class Logged:
    """One entry and how a reader of a history is told of it."""

    entry: Entry
    told: str


@dataclass
class Loose:
    """A change that is not durable yet: its number in the log, and the directories still to be synced."""

    number: int
    change: Change
    waits: set[Node]


@dataclass
class Dirty:
    """A file's content that is not durable: what is, the newest, and the number of its last write."""

    durable: Content
    newest: Content
    number: int


@dataclass
class Start:
    """What lay on the disk before the log: all of it durable."""

    slots: dict[Slot, Node]
    contents: dict[Node, Content]


class Platter:
    """A disk after the first `upto` entries of its log.

    Attributes
    ----------
    slots
        Names that are durable, before the first loose change.
    changes
        All changes from the first loose one on, by number; the durable ones among them wait for nothing.
    dirty
        Files whose content is not durable.
    contents
        The newest content of every file.
    """

    def __init__(self, start: Start, log: Sequence[Logged], upto: int, model: Model) -> None:
        self.model = model
        self.slots = dict(start.slots)
        self.contents = dict(start.contents)
        self.changes: list[Loose] = []
        self.dirty: dict[Node, Dirty] = {}
        self._needed: dict[int, list[Loose]] = {}  # by number: who put there what it took
        self._last: dict[Slot, Loose] = {}  # who wrote a slot last
        for number, logged in enumerate(log[:upto], 1):
            self._read(number, logged.entry)

    def loose(self) -> list[int]:
        """Numbers of the changes that may be lost."""
        return [c.number for c in self.changes if c.waits]

    def _read(self, number: int, entry: Entry) -> None:
        if isinstance(entry, Change):
            waits = {slot[0] for slot, _ in entry.writes}
            self._needed[number] = [self._last[slot] for slot in entry.takes if slot in self._last]
            loose = Loose(number, entry, waits)
            self._last |= {slot: loose for slot, _ in entry.writes}
            self.changes.append(loose)
            if entry.made is not None:
                self.contents[entry.made[0]] = entry.made[1]
        elif isinstance(entry, Data):
            known = self.dirty.get(entry.node)
            durable = known.durable if known else self.contents[entry.node]
            self.dirty[entry.node] = Dirty(durable, entry.content, number)
            self.contents[entry.node] = entry.content
        elif isinstance(entry, Sync):
            self._sync(entry)

    def _sync(self, sync: Sync) -> None:
        if sync.kind == "all":
            self.dirty.clear()
        elif sync.kind == "file" and sync.node is not None:
            self.dirty.pop(sync.node, None)
        for change in self.changes:
            if sync.kind == "all" or self.model == "ordered":
                change.waits.clear()
            elif sync.kind == "dir" and sync.node is not None:
                change.waits.discard(sync.node)
        self._settle()

    def _settle(self) -> None:
        """What a durable change presupposes is durable; a directory durably gone needs no sync."""
        again = True
        while again:
            again = False
            for change in reversed(self.changes):
                if change.waits:
                    continue
                for needed in self._needs(change):
                    needed.waits.clear()
                    again = True
                gone = change.change.gone
                if gone is not None:
                    for other in self.changes:
                        if other.number < change.number and gone in other.waits:
                            other.waits.discard(gone)
                            again = True
        while self.changes and not self.changes[0].waits:
            apply(self.slots, self.changes.pop(0).change)

    def _needs(self, change: Loose) -> list[Loose]:
        """The changes that put there what this one took, if they are not durable."""
        return [n for n in self._needed[change.number] if n.waits]

    # --- losses -----------------------------------------------------------------------------------

    def closed(self, lost: Iterable[int]) -> frozenset[int]:
        """These losses and those that follow: nobody can take what never came."""
        gone = set(lost)
        for change in self.changes:
            if any(n.number in gone for n in self._needs(change)):
                gone.add(change.number)
        return frozenset(gone)

    def without(self, lost: Iterable[int]) -> dict[Slot, Node]:
        """Names as they are when these changes were lost."""
        gone = frozenset(lost)
        slots = dict(self.slots)
        for change in self.changes:
            if change.number not in gone:
                apply(slots, change.change)
        return slots


def apply(slots: dict[Slot, Node], change: Change) -> None:
    """Let one change take place."""
    for slot, node in change.writes:
        if node is None:
            slots.pop(slot, None)
        else:
            slots[slot] = node
