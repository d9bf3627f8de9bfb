"""Whether another commit stands in the way of one: what it touched against what came since."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, TypeAlias

from fstx.backends.manifest.log import Head, Since
from fstx.paths import is_below, is_covered
from fstx.state.entries import OWN, Delta
from fstx.state.view import View

Policy: TypeAlias = Literal["rebase", "fail", "last"]
POLICIES: tuple[Policy, ...] = ("rebase", "fail", "last")


@dataclass(frozen=True)
class Touched:
    """What a commit depends on: paths as they were, and trees with all that they held.

    Of the directories that it makes, only that others have put no file there.
    """

    paths: Collection[str]
    trees: Collection[str]
    directories: Collection[str] = ()

    def meets(self, delta: Delta) -> str | None:
        """A path of this that `delta` changed, or None."""
        for path, entry in delta.puts.items():
            if path.startswith(OWN):
                continue
            if path in self.paths or self._in_tree(path):
                return path
            if not entry.directory and path in self.directories:
                return path
        for gone in delta.removed:
            for path in self.paths:
                if gone == "" or is_below(path, gone):
                    return path
            for tree in self.trees:
                if tree == "" or gone == "" or is_below(tree, gone) or is_below(gone, tree):
                    return tree or gone
        return None

    def _in_tree(self, path: str) -> bool:
        return bool(self.trees) and ("" in self.trees or is_covered(path, self.trees))


def met(touched: Touched, base: View, now: View, since: Since) -> str | None:
    """A path that was changed between two views, or None.

    Small commits name their changes in their records; where one does not, or records are gone,
    the views themselves are compared.
    """
    if since is not None and not any(record.own_in_tree for record in since):
        for record in since:
            if record.kind == "commit" and (found := touched.meets(record.own)) is not None:
                return found
        return None
    for path in touched.paths:
        if base.get(path) != now.get(path):
            return path
    for tree in touched.trees:
        if any(a != b for a, b in zip_longest(base.items(tree), now.items(tree))):
            return tree or "the dataset"
    for path in touched.directories:
        there = now.get(path)
        if there is not None and not there.directory and there != base.get(path):
            return path
    return None


def gone(head: Head, txid: str, begun: int) -> bool:
    """Whether a transaction was given up for dead."""
    return txid in head.state.fenced or begun < head.state.floor
