"""The next tree: changed leaves are written anew, all others are shared.

Leaves are cut by their encoded size. A leaf that became small takes in its neighbour.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TypeAlias

from fstx.state.entries import Delta, Entry
from fstx.state.nodes import (
    Child,
    Inner,
    Leaf,
    Node,
    NodeRef,
    decode,
    encode_inner,
    encode_leaf,
)
from fstx.state.sealing import digest
from fstx.state.spans import Span, covered

LEAF_BYTES = 8 << 10
"""Encoded size that leaves are cut to."""

FAN_OUT = 4096
"""Children of an inner node, at most."""

PACK_BYTES = 16 << 20

_SAMPLE = 512
_MOST_ENTRIES = 1 << 12
_KEPT_BYTES = 4 << 20  # new nodes up to these totals are handed to the cache
_KEPT_PATHS = 100_000
_BATCH = 64

Load: TypeAlias = Callable[[Inner, Sequence[int], "str | None"], "list[tuple[Node, str | None]]"]


class _Run:
    """Entries in order of their paths; two lists, because a million pairs would cost more than their use."""

    __slots__ = ("entries", "paths")

    def __init__(self, paths: list[str], entries: list[Entry]) -> None:
        self.paths = paths
        self.entries = entries

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, start: int, stop: int | None = None) -> _Run:
        return _Run(self.paths[start:stop], self.entries[start:stop])

    def same(self, other: _Run) -> bool:
        return self.paths == other.paths and self.entries == other.entries

    def plus(self, other: _Run) -> _Run:
        return _Run(self.paths + other.paths, self.entries + other.entries) if self else other


class Grower:
    """Builds one tree out of another.

    Parameters
    ----------
    load
        Gives children of an inner node.
    new_key
        Makes the key of a pack.
    """

    def __init__(self, load: Load, new_key: Callable[[], str]) -> None:
        self._load = load
        self._new_key = new_key
        self._key = ""
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self.packs: dict[str, bytes] = {}
        self._fresh: list[tuple[NodeRef, bytes]] = []
        self._fresh_bytes = 0
        self._written = 0  # paths in new leaves
        self._entry_bytes = 0.0

    @property
    def made(self) -> list[tuple[NodeRef, Node]]:
        """New nodes, decoded, where they are few."""
        if self._fresh_bytes > _KEPT_BYTES or self._written > _KEPT_PATHS:
            return []
        return [(ref, decode(data, ref)) for ref, data in self._fresh]

    def grow(self, root: NodeRef | None, node: Node | None, delta: Delta) -> NodeRef | None:
        """The root after `delta`; `packs` must be put before it is named."""
        paths = sorted(delta.puts)
        puts = _Run(paths, list(map(delta.puts.__getitem__, paths)))
        change = _Change(puts, covered(delta.removed))
        level = 0
        if root is None or node is None:
            children = self._leaves(puts)
        elif isinstance(node, Leaf):
            if not change.meets(("", None)):
                return root
            self._entry_bytes = root.length / node.count
            run = change.applied(node, ("", None))
            if run.same(_all(node)):
                return root
            children = self._leaves(run)
        else:
            level = node.level - 1
            children = self._children(node, "", None, change)
            if children == node.children:
                return root
        while len(children) > 1:
            level += 1
            children = self._inners(level, children)
        self._close()
        return children[0].ref if children else None

    # --- one level ------------------------------------------------------------------------------------

    def _children(self, node: Inner, start: str, bound: str | None, change: _Change) -> list[Child]:
        """The children of an inner node after a change."""
        spans = _spans(node, start, bound)
        touched = [i for i, span in enumerate(spans) if change.meets(span)]
        kept: list[Child | None] = list(node.children)
        for i in touched:
            if change.clears(spans[i]):
                kept[i] = None
        wanted = [i for i in touched if kept[i] is not None]
        if node.level == 1:
            return self._leaf_children(node, spans, kept, wanted, change, bound)
        out: list[Child] = []
        for i, child in enumerate(kept):
            if child is None:
                continue
            if i not in set(wanted):
                out.append(child)
                continue
            below, behind = self._load(node, [i], bound)[0]
            assert isinstance(below, Inner)
            out += self._inners(below.level, self._children(below, spans[i][0], behind, change))
        return out

    def _leaf_children(
        self,
        node: Inner,
        spans: Sequence[Span],
        kept: Sequence[Child | None],
        wanted: Sequence[int],
        change: _Change,
        bound: str | None,
    ) -> list[Child]:
        out: list[Child] = []
        run = _Run([], [])
        loaded: dict[int, Leaf] = {}
        changing = set(wanted)
        for i, child in enumerate(kept):
            if child is None:
                continue
            small = bool(run) and len(run) * self._entry_bytes < LEAF_BYTES / 4
            if i not in changing and not small:
                out += self._leaves(run)
                run = _Run([], [])
                out.append(child)
                continue
            if i not in loaded:
                loaded = self._ahead(node, i, wanted, bound)
            leaf = loaded[i]
            now = change.applied(leaf, spans[i]) if i in changing else _all(leaf)
            if not small and now.same(_all(leaf)):
                out += [*self._leaves(run), child]
                run = _Run([], [])
                continue
            self._entry_bytes = child.ref.length / child.paths
            run = run.plus(now)
            if len(run) * self._entry_bytes > 4 * LEAF_BYTES:
                cut = len(run) - int(LEAF_BYTES / self._entry_bytes)
                out += self._leaves(run.part(0, cut))
                run = run.part(cut)
        if run and out and len(run) * self._entry_bytes < LEAF_BYTES / 4:
            last = out[-1]
            at = next((i for i, c in enumerate(kept) if c is not None and c == last), None)
            if at is not None:
                ((before, _),) = self._load(node, [at], bound)
                assert isinstance(before, Leaf)
                run = _all(before).plus(run)
                out.pop()
        return out + self._leaves(run)

    def _ahead(
        self, node: Inner, first: int, wanted: Sequence[int], bound: str | None
    ) -> dict[int, Leaf]:
        """The leaf at `first` and the next ones that change, read together."""
        at = bisect_left(wanted, first)
        which = [first, *(i for i in wanted[at : at + _BATCH] if i != first)]
        found = self._load(node, which, bound)
        return {
            i: leaf for i, (leaf, _) in zip(which, found, strict=True) if isinstance(leaf, Leaf)
        }

    # --- writing --------------------------------------------------------------------------------------

    def _leaves(self, run: _Run) -> list[Child]:
        """Leaves of a run of entries, of even size as far as the entries are alike."""
        paths, entries = run.paths, run.entries
        out: list[Child] = []
        start, n = 0, len(run)
        if n > _SAMPLE and not self._entry_bytes:
            data = encode_leaf(paths[:_SAMPLE], entries[:_SAMPLE])
            self._entry_bytes = len(data) / _SAMPLE
        while start < n:
            left = n - start
            parts = max(round(left * self._entry_bytes / LEAF_BYTES), -(-left // _MOST_ENTRIES), 1)
            stop = start + -(-left // parts)
            out += self._cut(paths[start:stop], entries[start:stop])
            start = stop
        return out

    def _cut(self, paths: Sequence[str], entries: Sequence[Entry]) -> list[Child]:
        n = len(paths)
        data = encode_leaf(paths, entries)
        self._entry_bytes = len(data) / n
        self._written += n
        parts = min(n, round(len(data) / LEAF_BYTES))
        if len(data) <= 2 * LEAF_BYTES or parts < 2:
            return [self._child(paths[0], n, data)]
        out: list[Child] = []
        for k in range(parts):
            start, stop = n * k // parts, n * (k + 1) // parts
            out += self._cut(paths[start:stop], entries[start:stop])
        return out

    def _inners(self, level: int, children: Sequence[Child]) -> list[Child]:
        n = len(children)
        parts = -(-n // FAN_OUT)
        out = []
        for k in range(parts):
            part = children[n * k // parts : n * (k + 1) // parts]
            data = encode_inner(level, part)
            out.append(self._child(part[0].first, sum(c.paths for c in part), data))
        return out

    def _child(self, first: str, count: int, data: bytes) -> Child:
        if not self._parts or self._size_bytes + len(data) > PACK_BYTES:
            self._close()
            self._key = self._new_key()
        ref = NodeRef(self._key, self._size_bytes, len(data), digest(data))
        self._parts.append(data)
        self._size_bytes += len(data)
        self._fresh_bytes += len(data)
        if self._fresh_bytes <= _KEPT_BYTES:
            self._fresh.append((ref, data))
        return Child(first, ref, count)

    def _close(self) -> None:
        if self._parts:
            self.packs[self._key] = b"".join(self._parts)
        self._parts, self._size_bytes = [], 0


class _Change:
    """Sorted puts and removed spans, asked for by range."""

    def __init__(self, puts: _Run, holes: Sequence[Span]) -> None:
        self._puts = puts
        self._paths = puts.paths
        self._holes = holes

    def puts_in(self, span: Span) -> _Run:
        start = bisect_left(self._paths, span[0])
        stop = len(self._paths) if span[1] is None else bisect_left(self._paths, span[1])
        return self._puts.part(start, stop)

    def holes_in(self, span: Span) -> list[Span]:
        start, stop = span
        first = bisect_left(self._holes, start, key=itemgetter(0))
        if first and _reaches(self._holes[first - 1], start):
            first -= 1
        found = []
        for hole in self._holes[first:]:
            if stop is not None and hole[0] >= stop:
                break
            found.append(hole)
        return found

    def meets(self, span: Span) -> bool:
        """Whether anything in a span changes."""
        at = bisect_left(self._paths, span[0])
        if at < len(self._paths) and (span[1] is None or self._paths[at] < span[1]):
            return True
        return bool(self.holes_in(span))

    def clears(self, span: Span) -> bool:
        """Whether all that was in a span goes and nothing comes."""
        start, stop = span
        at = bisect_left(self._paths, start)
        if at < len(self._paths) and (stop is None or self._paths[at] < stop):
            return False
        return any(
            a <= start and (b is None or (stop is not None and b >= stop))
            for a, b in self.holes_in(span)
        )

    def applied(self, leaf: Leaf, span: Span) -> _Run:
        """The entries of a leaf after the change, with all that comes in its span."""
        found = dict(leaf.packed.items())
        paths = leaf.packed.paths
        for start, stop in self.holes_in(span):
            end = len(paths) if stop is None else bisect_left(paths, stop)
            for path in paths[bisect_left(paths, start) : end]:
                found.pop(path, None)
        puts = self.puts_in(span)
        if puts:
            found.update(zip(puts.paths, puts.entries, strict=True))
            found = {path: found[path] for path in sorted(found)}
        return _Run(list(found), list(found.values()))


def _all(leaf: Leaf) -> _Run:
    return _Run(leaf.packed.paths, [entry for _, entry in leaf.packed.items()])


def _spans(node: Inner, start: str, bound: str | None) -> list[Span]:
    """What each child is responsible for: from its first path to that of the next one."""
    firsts = [start, *node.firsts[1:]]
    return list(zip(firsts, [*node.firsts[1:], bound], strict=True))


def _reaches(hole: Span, start: str) -> bool:
    return hole[1] is None or hole[1] > start
