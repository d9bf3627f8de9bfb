"""The tree of a state: sorted, immutable, read node by node.

A change writes new nodes along its paths and shares all others with the tree before it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from fstx.errors import RecoveryError
from fstx.state import growing
from fstx.state.entries import OWN, Delta, Entry
from fstx.state.nodes import Child, Inner, Leaf, Node, NodeRef, decode, name_of
from fstx.state.spans import EVERYTHING, OWN_END, Span, below, only, without

Fetch: TypeAlias = Callable[[str, int, "int | None"], bytes]
"""`Store.get`: key, start, stop."""

READ_BYTES = 4 << 20
_AHEAD = 64
_GAP_BYTES = 8 << 10
_THREADS = 16
_ENTRY_BYTES = 150  # memory of one decoded entry, about


class NodeCache:
    """Decoded nodes that were used last, up to a size. Thread-safe."""

    def __init__(self, limit_bytes: int = 64 << 20) -> None:
        self._limit_bytes = limit_bytes
        self._nodes: OrderedDict[str, tuple[Node, int]] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def get(self, ref: NodeRef) -> Node | None:
        """The node, if it is held."""
        with self._lock:
            found = self._nodes.get(ref.digest)
            if found is None:
                return None
            self._nodes.move_to_end(ref.digest)
            return found[0]

    def put(self, ref: NodeRef, node: Node) -> None:
        """Hold a node; the ones used longest ago go."""
        n = len(node.firsts) if isinstance(node, Inner) else node.count
        size = ref.length + _ENTRY_BYTES * n
        with self._lock:
            old = self._nodes.pop(ref.digest, None)
            self._size_bytes += size - (old[1] if old else 0)
            self._nodes[ref.digest] = (node, size)
            while self._size_bytes > self._limit_bytes and len(self._nodes) > 1:
                self._size_bytes -= self._nodes.popitem(last=False)[1][1]


class Tree:
    """Paths to entries.

    Parameters
    ----------
    root
        Where the root node lies; None: nothing is in the tree.
    fetch
        Reads bytes of an object: key, start, stop. Called from several threads at once.
    cache
        Shared between trees of one dataset.
    """

    def __init__(self, root: NodeRef | None, fetch: Fetch, cache: NodeCache | None = None) -> None:
        self.root = root
        self._fetch = fetch
        self._cache = NodeCache() if cache is None else cache

    # --- reading --------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Number of paths, the library's own among them."""
        return 0 if self.root is None else self._root(self.root).count

    def count_in(self, span: Span) -> int:
        """Number of paths in a span; reads the nodes at its ends only."""
        return 0 if self.root is None else self._count(self._root(self.root), None, span)

    def get(self, path: str) -> Entry | None:
        """The entry of a path, or None."""
        if self.root is None:
            return None
        leaf, _ = self._leaf(path)
        paths = leaf.packed.paths
        at = bisect_left(paths, path)
        return leaf.packed.entry(at) if at < len(paths) and paths[at] == path else None

    def items(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """The path `prefix` and all below it, in order of paths; "" is everything."""
        if prefix:
            yield from self.within(only(prefix))
        yield from self.within(below(prefix))

    def within(self, span: Span = EVERYTHING) -> Iterator[tuple[str, Entry]]:
        """All paths of a span, in order; nodes that follow each other are read together."""
        if self.root is None:
            return
        position: str | None = span[0]
        stop = span[1]
        ahead = 1
        while position is not None and (stop is None or position < stop):
            leaf, bound = self._leaf(position, stop, ahead)
            paths = leaf.packed.paths
            start = bisect_left(paths, position)
            end = len(paths) if stop is None else bisect_left(paths, stop)
            yield from leaf.packed.items(start, end)
            position = bound
            ahead = min(2 * ahead, _AHEAD)

    def children(self, directory: str = "") -> Iterator[tuple[str, Entry | None]]:
        """Names directly below, each once, in order of paths; None: a directory that holds something.

        A directory comes where its first path lies. Leaves that hold nothing but paths below one
        directory are skipped unread.
        """
        above = f"{directory}/" if directory else ""
        found = self.children_in(directory, below(directory))
        now = next(found, None)
        while now is not None:
            name, entry = now
            now = next(found, None)
            maybe = entry is not None and now is not None and now[0].startswith(name)
            if maybe and self.any_in(below(f"{above}{name}")):
                continue  # a file that is a directory, too
            yield name, entry

    def children_in(self, directory: str, span: Span) -> Iterator[tuple[str, Entry | None]]:
        """As `children`, in a part of the directory's span; a file that is a directory, too, comes twice."""
        skip = len(directory) + 1 if directory else 0
        position: str | None = span[0] if self.root is not None else None
        stop = span[1]
        ahead = 1
        while position is not None and (stop is None or position < stop):
            leaf, bound = self._leaf(position, stop, ahead)
            paths = leaf.packed.paths
            at = bisect_left(paths, position)
            end = len(paths) if stop is None else bisect_left(paths, stop)
            while at < end:
                path = paths[at]
                slash = path.find("/", skip)
                if slash < 0:
                    yield path[skip:], leaf.packed.entry(at)
                    at += 1
                    continue
                yield path[skip:slash], None
                position = f"{path[:slash]}0"
                at = bisect_left(paths, position, at)
            if bound is None or position < bound:
                position, ahead = bound, min(2 * ahead, _AHEAD)
            else:
                ahead = 1

    def any_in(self, span: Span) -> bool:
        """Whether a path lies in a span; reads one or two leaves."""
        return next(self.within(span), None) is not None

    # --- comparing ------------------------------------------------------------------------------------

    def differences(self, other: Tree) -> Iterator[tuple[str, Entry | None, Entry | None]]:
        """Paths whose entries differ, in order: path, entry here, entry in `other`.

        Nodes that both trees share are not read.
        """
        mine, theirs = self._tops(), other._tops()
        level = max((n.level for n in (mine, theirs) if n is not None), default=-1)
        here = [] if mine is None else [_as_child(mine, self.root)]
        there = [] if theirs is None else [_as_child(theirs, other.root)]
        levels = [n.level if n is not None else -1 for n in (mine, theirs)]
        for now in range(level, -1, -1):
            shared = {c.ref.digest for c in here} & {c.ref.digest for c in there}
            here = [c for c in here if c.ref.digest not in shared]
            there = [c for c in there if c.ref.digest not in shared]
            if now == 0:
                break
            if levels[0] >= now:
                here = self._expand(here)
            if levels[1] >= now:
                there = other._expand(there)
        yield from _merge_differences(self._entries(here), other._entries(there))

    def _tops(self) -> Node | None:
        return None if self.root is None else self._root(self.root)

    def _expand(self, children: Sequence[Child]) -> list[Child]:
        found: list[Child] = []
        for node in self._load(children):
            if isinstance(node, Leaf):
                raise RecoveryError("a node of the tree has a leaf where an inner node belongs")
            found += node.children
        return found

    def _entries(self, children: Sequence[Child]) -> Iterator[tuple[str, Entry]]:
        for start in range(0, len(children), _AHEAD):
            for node in self._load(children[start : start + _AHEAD]):
                if isinstance(node, Leaf):
                    yield from node.packed.items()

    # --- changing ---------------------------------------------------------------------------------------

    def updated(
        self, delta: Delta, new_key: Callable[[], str]
    ) -> tuple[NodeRef | None, dict[str, bytes]]:
        """The root after a change, and the packs that must be there before anyone may name it.

        Parameters
        ----------
        delta
            The change.
        new_key
            Makes the key of a pack, a new one at each call.
        """
        grower = growing.Grower(self.load_children, new_key)
        node = None if self.root is None else self._root(self.root)
        root = grower.grow(self.root, node, delta)
        for ref, made in grower.made:
            self._cache.put(ref, made)
        return root, grower.packs

    # --- nodes -----------------------------------------------------------------------------------------

    def _root(self, ref: NodeRef) -> Node:
        node = self._cache.get(ref)
        if node is None:
            node = decode(self._fetch(ref.key, ref.offset, ref.offset + ref.length), ref)
            self._cache.put(ref, node)
        return node

    def _leaf(self, path: str, stop: str | None = None, ahead: int = 1) -> tuple[Leaf, str | None]:
        """The leaf in which `path` lies or would lie, and the first path of the one behind it."""
        assert self.root is not None
        node = self._root(self.root)
        bound: str | None = None
        while isinstance(node, Inner):
            at = max(0, bisect_right(node.firsts, path) - 1)
            end = at + 1
            if node.level == 1 and ahead > 1:
                end = min(at + ahead, len(node.firsts))
                if stop is not None:
                    end = max(at + 1, min(end, bisect_left(node.firsts, stop)))
            node, bound = self.load_children(node, range(at, end), bound)[0]
        return node, bound

    def load_children(
        self, parent: Inner, which: Sequence[int], bound: str | None
    ) -> list[tuple[Node, str | None]]:
        """Children of an inner node, each with the first path behind it; checked against their parent."""
        wanted = [parent.child(i) for i in which]
        nodes = self._load(wanted)
        found: list[tuple[Node, str | None]] = []
        for i, child, node in zip(which, wanted, nodes, strict=True):
            behind = parent.firsts[i + 1] if i + 1 < len(parent.firsts) else bound
            fits = node.level == parent.level - 1 and node.count == child.paths
            if not fits or node.first < child.first or (behind is not None and node.last >= behind):
                raise RecoveryError(
                    f"{name_of(child.ref)} is not the node that its parent names: other level, number or "
                    "range of paths. Read an older version"
                )
            found.append((node, behind))
        return found

    def _load(self, children: Sequence[Child]) -> list[Node]:
        """Nodes, read together where they lie together."""
        found = {c.ref: self._cache.get(c.ref) for c in children}
        missing = sorted(ref for ref, node in found.items() if node is None)
        ranges: list[list[NodeRef]] = []
        for ref in missing:
            last = ranges[-1] if ranges else None
            if (
                last is not None
                and last[-1].key == ref.key
                and ref.offset - (last[-1].offset + last[-1].length) <= _GAP_BYTES
                and ref.offset + ref.length - last[0].offset <= READ_BYTES
            ):
                last.append(ref)
            else:
                ranges.append([ref])
        if len(ranges) > 1:
            with ThreadPoolExecutor(min(_THREADS, len(ranges))) as pool:
                parts = list(pool.map(self._read, ranges))
        else:
            parts = [self._read(refs) for refs in ranges]
        for refs, part in zip(ranges, parts, strict=True):
            for ref in refs:
                begin = ref.offset - refs[0].offset
                node = decode(part[begin : begin + ref.length], ref)
                self._cache.put(ref, node)
                found[ref] = node
        nodes = [found[c.ref] for c in children]
        return [node for node in nodes if node is not None]

    def _read(self, refs: Sequence[NodeRef]) -> bytes:
        end = max(ref.offset + ref.length for ref in refs)
        return self._fetch(refs[0].key, refs[0].offset, end)

    def _count(self, node: Node, bound: str | None, span: Span) -> int:
        start, stop = span
        if isinstance(node, Leaf):
            paths = node.packed.paths
            end = len(paths) if stop is None else bisect_left(paths, stop)
            return max(0, end - bisect_left(paths, start))
        total = 0
        for i, child in enumerate(node.children):
            behind = node.firsts[i + 1] if i + 1 < len(node.firsts) else bound
            if (stop is not None and child.first >= stop) or (
                behind is not None and behind <= start
            ):
                continue
            inside = child.first >= start and (
                stop is None or (behind is not None and behind <= stop)
            )
            if inside:
                total += child.paths
            else:
                below_it = self.load_children(node, [i], bound)[0]
                total += self._count(*below_it, span)
        return total


def _as_child(node: Node, ref: NodeRef | None) -> Child:
    assert ref is not None
    return Child(node.first, ref, node.count)


def _merge_differences(
    mine: Iterator[tuple[str, Entry]], theirs: Iterator[tuple[str, Entry]]
) -> Iterator[tuple[str, Entry | None, Entry | None]]:
    a, b = next(mine, None), next(theirs, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            yield a[0], a[1], None
            a = next(mine, None)
        elif a is None or b[0] < a[0]:
            yield b[0], None, b[1]
            b = next(theirs, None)
        else:
            if a[1] != b[1]:
                yield a[0], a[1], b[1]
            a, b = next(mine, None), next(theirs, None)


__all__ = ["EVERYTHING", "OWN", "OWN_END", "Fetch", "NodeCache", "NodeRef", "Tree", "without"]
