"""From staged paths to the fewest renames: a directory that is new moves as one item.

Reads the target and the area, changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from fstx.backends.local.records import Entry, Identity, Root
from fstx.changes import Changes
from fstx.errors import PathError
from fstx.machines.vocabulary import Kind
from fstx.ops import FileKind, Ops, Stat
from fstx.paths import CONTROL_NAME
from fstx.types import Mode


@dataclass(frozen=True, slots=True)
class Target:
    """One target: a name in a parent, and what was there at begin."""

    parent: str
    name: str
    base: Identity | None = None
    empty: bool = False  # at begin: nothing, or an empty directory
    generation: bytes = b""

    @property
    def path(self) -> str:
        return os.path.join(self.parent, self.name)


@dataclass(slots=True)
class _Node:
    publisher: bool = False
    leaf: bool = False
    children: dict[str, _Node] = field(default_factory=dict)


Ranked: TypeAlias = tuple[int, Entry]
_CLASH, _PART, _PUBLISHER, _REMOVAL = range(4)


def identity(stat: Stat | None) -> Identity | None:
    """What tells one content from another. A directory's size and time change with its entries."""
    if stat is None:
        return None
    if stat.kind is FileKind.TREE:
        return (stat.dev, stat.ino, 0, 0)
    return (stat.dev, stat.ino, stat.size_bytes, stat.mtime_ns)


def is_weak(found: Identity | None) -> bool:
    """True where the system tells no inode: contents differ by size and time, trees by their places."""
    return found is not None and found[:2] == (0, 0)


def is_empty_tree(ops: Ops, path: str, stat: Stat | None) -> bool:
    return (
        stat is not None
        and stat.kind is FileKind.TREE
        and next(iter(ops.scandir(path)), None) is None
    )


def roots_of(
    ops: Ops, targets: tuple[Target, ...], entries: tuple[Entry, ...], home: str
) -> tuple[Root, ...]:
    """The targets that items lie in, for recovery to know them again."""
    found = []
    for i in sorted({e.root for e in entries if e.rest}):
        target = targets[i]
        base = target.base or identity(ops.lstat(target.path))
        if base is not None:
            found.append(Root("" if target.parent == home else target.parent, target.name, base))
    return tuple(found)


def is_free(ops: Ops, target: Target) -> bool:
    """True where nothing or an empty directory is."""
    stat = ops.lstat(target.path)
    return stat is None or is_empty_tree(ops, target.path, stat)


def contents(ops: Ops, place: str) -> frozenset[tuple[str, Identity]]:
    """Paths and identities of all that lies below a directory."""
    found: list[tuple[str, Identity]] = []
    waiting = [place]
    while waiting:
        folder = waiting.pop()
        for name, kind in ops.scandir(folder):
            path = os.path.join(folder, name)
            known = identity(ops.lstat(path))
            if known is not None:
                found.append((path, known))
            if kind is FileKind.TREE:
                waiting.append(path)
    return frozenset(found)


def first_link(ops: Ops, place: str, parts: Iterable[str]) -> str | None:
    """The first symbolic link on the way down from `place`, or None."""
    for part in parts:
        place = os.path.join(place, part)
        stat = ops.lstat(place)
        if stat is not None and stat.kind is FileKind.LINK:
            return place
    return None


def no_links(ops: Ops, target: str, rest: str, *, itself: bool = False) -> None:
    """PathError if the way from a target to a path in it leads through a symbolic link (PATH-5).

    `itself`: the path must be no link either.
    """
    parts = rest.split("/") if rest else []
    link = first_link(ops, target, parts if itself else parts[:-1])
    if link is not None:
        raise PathError(
            f"{link} is a symbolic link; nothing is reached through links below a target. "
            "Make the place it points to the target"
        )


def walk(ops: Ops, place: str, logical: str, prefix: str) -> Iterable[str]:
    """Logical paths of the files at or below a place, those that `prefix` may name, sorted by folder."""
    if (
        prefix
        and logical
        and not (
            logical.startswith(prefix) or prefix.startswith(logical + "/") or prefix == logical
        )
    ):
        return
    stat = ops.lstat(place)
    if stat is None:
        return
    if stat.kind is not FileKind.TREE:
        if logical:
            yield logical
        return
    for name, _ in sorted(ops.scandir(place)):
        if name == CONTROL_NAME:
            continue  # staging of transactions on targets in here: nothing a reader should see
        yield from walk(
            ops, os.path.join(place, name), f"{logical}/{name}" if logical else name, prefix
        )


class Itemizer:
    """Turns the changes of a transaction into record entries in commit order."""

    def __init__(
        self, ops: Ops, targets: tuple[Target, ...], mode: Mode, area: str, joined: bool
    ) -> None:
        self._ops = ops
        self._targets = targets
        self._mode = mode
        self._area = area
        self._joined = joined

    def split(self, path: str) -> tuple[int, str]:
        """Index of the target and the rest of a logical path."""
        if not self._joined:
            return 0, path
        name, _, rest = path.partition("/")
        for i, target in enumerate(self._targets):
            if target.name == name:
                return i, rest
        raise PathError(f"{path!r} lies in none of the targets")

    def target_path(self, path: str) -> str:
        i, rest = self.split(path)
        return os.path.join(self._targets[i].path, rest) if rest else self._targets[i].path

    def staged_path(self, path: str) -> str:
        i, rest = self.split(path)
        return os.path.join(self._area, "s", str(i), *rest.split("/") if rest else ())

    def entries(self, changes: Changes) -> tuple[Entry, ...]:
        """Clashing removals, parts, publishers, removals; each group in the order of the calls.

        Raises
        ------
        PathError
            A staged path is a file where the target has a directory, or the reverse.
        """
        if self._moves_whole(changes):
            stat = self._ops.lstat(self._targets[0].path)
            return (self._whole(0, _Node(), stat)[1],)
        roots = self._roots(changes)
        going = {self.target_path(path): path for path in changes.removed}
        found: list[Ranked] = []
        for i, node in roots.items():
            if self._mode == "update":
                self._descend(i, "", node, going, found)
            else:
                found.append(self._whole(i, node, self._ops.lstat(self._targets[i].path)))
        for path in going.values():
            i, rest = self.split(path)
            if i in roots and self._mode != "update":
                continue  # the whole target goes already
            self._remove(i, rest, found, _REMOVAL)
        return tuple(entry for _, entry in sorted(found, key=lambda ranked: ranked[0]))

    def _moves_whole(self, changes: Changes) -> bool:
        """One target that moves as a tree: what is staged in it need not be looked at, so O(1)."""
        if self._joined or not changes.staged:
            return False
        return self._mode != "update" or self._ops.lstat(self._targets[0].path) is None

    def _roots(self, changes: Changes) -> dict[int, _Node]:
        """Staged paths as trees, by target."""
        roots: dict[int, _Node] = {}
        for path, receipt in changes.staged.items():
            i, rest = self.split(path)
            node = roots.setdefault(i, _Node())
            node.publisher |= receipt.publisher
            for part in rest.split("/") if rest else ():
                node = node.children.setdefault(part, _Node())
                node.publisher |= receipt.publisher
            node.leaf = True
        return roots

    def _whole(self, i: int, node: _Node, stat: Stat | None) -> Ranked:
        """A target that is published as one item. What came since begin is never displaced."""
        target = self._targets[i]
        if stat is not None and node.leaf and stat.kind is FileKind.TREE:
            raise PathError(
                f"{target.path} is a directory and {target.name!r} is staged as a file; remove it first"
            )
        empty = stat is None or (not node.leaf and is_empty_tree(self._ops, target.path, stat))
        rank = _PUBLISHER if node.publisher else _PART
        if not empty and (self._mode != "replace" or target.empty):
            # Named as absent, so that the check under the lock refuses it.
            return rank, self._publish(i, "", node, None, occupied=False)
        return rank, self._publish(i, "", node, stat, occupied=not empty)

    def _descend(
        self, i: int, rest: str, node: _Node, going: dict[str, str], found: list[Ranked]
    ) -> None:
        target = self._targets[i]
        path = os.path.join(target.path, rest) if rest else target.path
        stat = self._ops.lstat(path)
        rank = _PUBLISHER if node.publisher else _PART
        if stat is None:
            found.append((rank, self._publish(i, rest, node, None, occupied=False)))
            return
        if path in going and node.leaf and stat.kind is FileKind.FILE:
            del going[path]  # replaced in one step, never absent
        elif path in going:
            del going[path]
            self._remove(i, rest, found, _CLASH)
            found.append((rank, self._publish(i, rest, node, None, occupied=False)))
            return
        shown = rest if not self._joined else f"{target.name}/{rest}" if rest else target.name
        if stat.kind is FileKind.LINK:
            raise PathError(
                f"{shown!r} is a symbolic link; nothing is written through links below a target. "
                "Remove the link first, or make the place it points to the target"
            )
        if node.leaf:
            if stat.kind is not FileKind.FILE:
                raise PathError(f"{shown!r} is a directory in the target; remove it first")
            found.append((rank, self._publish(i, rest, node, stat, occupied=True)))
        elif stat.kind is not FileKind.TREE:
            raise PathError(f"{shown!r} is a file in the target; remove it first")
        elif is_empty_tree(self._ops, path, stat):
            found.append((rank, self._publish(i, rest, node, stat, occupied=False)))
        else:
            for name, child in node.children.items():
                self._descend(i, f"{rest}/{name}" if rest else name, child, going, found)

    def _publish(
        self, i: int, rest: str, node: _Node, stat: Stat | None, *, occupied: bool
    ) -> Entry:
        target = self._targets[i]
        staged = os.path.join(self._area, "s", str(i), *rest.split("/") if rest else ())
        if node.leaf:
            self._make_later(staged, stat)
        return Entry(
            Kind.PUBLISH,
            target.parent,
            target.name,
            rest,
            i,
            tree=not node.leaf,
            occupied=occupied,
            new=identity(self._ops.lstat(staged)),
            base=identity(stat),
        )

    def _make_later(self, staged: str, base: Stat | None) -> None:
        """Where only size and time tell contents apart: a new one is later than the one that it replaces."""
        if base is None or base.kind is not FileKind.FILE or not is_weak(identity(base)):
            return
        new = self._ops.lstat(staged)
        if new is not None and new.mtime_ns <= base.mtime_ns:
            self._ops.set_mtime(staged, base.mtime_ns + 10**9)

    def _remove(self, i: int, rest: str, found: list[Ranked], rank: int) -> None:
        target = self._targets[i]
        path = os.path.join(target.path, rest) if rest else target.path
        no_links(self._ops, target.path, rest)
        stat = self._ops.lstat(path)
        if stat is None:
            return
        tree = stat.kind is FileKind.TREE
        found.append(
            (
                rank,
                Entry(
                    Kind.REMOVE,
                    target.parent,
                    target.name,
                    rest,
                    i,
                    tree=tree,
                    occupied=True,
                    new=None,
                    base=identity(stat),
                ),
            )
        )


def lies_in(path: str, other: str) -> bool:
    """True below `other`, with the separators and the case of this system."""
    return os.path.normcase(path).startswith(os.path.join(os.path.normcase(other), ""))
