"""A state as readers see it: the tree with the newest small changes over it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from fstx.state.entries import OWN, Delta, Entry
from fstx.state.nodes import NodeRef
from fstx.state.spans import OWN_END, Span, below, covered, only, without
from fstx.state.tree import Fetch, NodeCache, Tree

_HIDDEN: Span = (OWN, OWN_END)


@dataclass(frozen=True)
class State:
    """All that a log says at one record.

    Parameters
    ----------
    root
        Of the tree; None: nothing is in it.
    tail
        Changes since that tree.
    fenced
        Transactions that were given up for dead, each with the record that did it.
    floor
        Transactions that began before this record are given up, too.
    oldest
        The oldest version that is kept.
    extra
        JSON that is carried on from record to record, for other views.
    """

    root: NodeRef | None = None
    tail: Delta = field(default_factory=Delta)
    fenced: Mapping[str, int] = field(default_factory=dict)
    floor: int = 0
    oldest: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def then(self, own: Delta) -> State:
        """The state after one more change."""
        return replace(self, tail=self.tail.then(own)) if own else self


class View:
    """Reads one state. The library's own paths (``.fstx/...``) are hidden.

    Parameters
    ----------
    state
        What to read.
    fetch
        Reads bytes of an object: key, start, stop.
    cache
        Of decoded nodes; shared between views of one dataset.
    """

    def __init__(self, state: State, fetch: Fetch, cache: NodeCache | None = None) -> None:
        self.state = state
        self.tree = Tree(state.root, fetch, cache)
        self._puts = state.tail.puts

    @cached_property
    def _paths(self) -> list[str]:
        return sorted(self._puts)

    @cached_property
    def _holes(self) -> list[Span]:
        return covered(self.state.tail.removed)

    def get(self, path: str) -> Entry | None:
        """The entry of a path, or None."""
        return None if path.startswith(OWN) else self._get(path)

    def mark(self, mark: str) -> int | None:
        """What was remembered under a chosen id, or None where it never landed."""
        found = self._get(f"{OWN}id/{mark}")
        return None if found is None else found.size_bytes

    def items(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """The path `prefix` and all below it, in order of paths; "" is everything."""
        spans = [only(prefix), below(prefix)] if prefix else [below("")]
        for span in spans:
            for part in without(span, [_HIDDEN]):
                yield from self._within(part)

    def children(self, directory: str = "") -> Iterator[tuple[str, Entry | None]]:
        """Names directly below, each once, sorted; None: a directory that holds something."""
        skip = len(directory) + 1 if directory else 0
        found: dict[str, Entry | None] = {}
        for part in without(below(directory), self._out()):
            for name, entry in self.tree.children_in(directory, part):
                found[name] = entry if name not in found else None
        for span in without(below(directory), [_HIDDEN]):
            for path in self._tail_paths(span):
                name, slash, _ = path[skip:].partition("/")
                if slash or found.get(name, path) is None:
                    found[name] = None
                else:
                    found[name] = self._puts[path]
        return iter(sorted(found.items(), key=lambda pair: pair[0]))

    def is_dir(self, path: str) -> bool:
        """Whether something lies below `path`, or an empty directory was made there."""
        entry = self.get(path) if path else None
        if entry is not None and entry.directory:
            return True
        return any(self._any(part) for part in without(below(path), [_HIDDEN]))

    @property
    def count(self) -> int:
        """Number of paths; reads nodes of the tree where the tail has changes."""
        tree = self.tree
        total = sum(tree.count_in(span) for span in without(("", None), self._out()))
        covers = self.state.tail.covers
        for path in self._paths:
            if not path.startswith(OWN) and (covers(path) or tree.get(path) is None):
                total += 1
        return total

    # --- tree and tail ---------------------------------------------------------------------------------

    def _get(self, path: str) -> Entry | None:
        found = self._puts.get(path)
        if found is not None:
            return found
        return None if self.state.tail.covers(path) else self.tree.get(path)

    def _out(self) -> list[Span]:
        """What readers don't see of the tree."""
        return sorted([*self._holes, _HIDDEN], key=lambda span: span[0])

    def _tail_paths(self, span: Span) -> list[str]:
        start, stop = span
        end = len(self._paths) if stop is None else bisect_left(self._paths, stop)
        return self._paths[bisect_left(self._paths, start) : end]

    def _any(self, span: Span) -> bool:
        if self._tail_paths(span):
            return True
        return any(self.tree.any_in(part) for part in without(span, self._holes))

    def _within(self, span: Span) -> Iterator[tuple[str, Entry]]:
        """Tree and tail of a span in one order."""
        puts = self._puts
        waiting = iter(self._tail_paths(span))
        path = next(waiting, None)
        for part in without(span, self._holes):
            for found in self.tree.within(part):
                while path is not None and path < found[0]:
                    yield path, puts[path]
                    path = next(waiting, None)
                if path == found[0]:
                    yield path, puts[path]
                    path = next(waiting, None)
                else:
                    yield found
        while path is not None:
            yield path, puts[path]
            path = next(waiting, None)


__all__ = ["State", "View"]
