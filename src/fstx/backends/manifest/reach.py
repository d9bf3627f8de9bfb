"""What versions show: nodes that they share are read once, what their small changes hide does not count."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fstx.backends.manifest.dataset import Dataset
from fstx.backends.manifest.names import owner_of
from fstx.errors import RecoveryError
from fstx.paths import is_covered
from fstx.state.entries import Delta, Entry
from fstx.state.nodes import Inner, Leaf, Node, NodeRef, decode
from fstx.state.tree import NodeCache, Tree
from fstx.state.view import State

_BATCH = 32
_CACHE_BYTES = 16 << 20

Failed: TypeAlias = Callable[[NodeRef, Exception], None]
Line: TypeAlias = "tuple[NodeRef, ...]"


class Shadow:
    """Paths that all versions with one tree hide or replace by their small changes."""

    def __init__(self, tail: Delta) -> None:
        self.puts = set(tail.puts)
        self.tops = set(tail.removed)

    def narrow(self, tail: Delta) -> bool:
        """One version more, with these changes; whether less is hidden now."""
        other = Shadow(tail)
        before = Shadow(Delta())
        before.puts, before.tops = self.puts, self.tops
        self.puts = {p for p in before.puts if other.hides(p)}
        self.puts |= {p for p in other.puts if before.hides(p)}
        self.tops = {t for t in before.tops if other.covers(t)}
        self.tops |= {t for t in other.tops if before.covers(t)}
        return not all(map(self.hides, before.puts)) or not all(map(self.covers, before.tops))

    def covers(self, path: str) -> bool:
        """Whether no version shows anything of the tree at `path` and below."""
        return bool(self.tops) and ("" in self.tops or is_covered(path, self.tops))

    def hides(self, path: str) -> bool:
        """Whether no version shows what the tree has at `path`."""
        return path in self.puts or self.covers(path)


class Shown:
    """Visits each entry that some versions show, mostly once.

    Parameters
    ----------
    dataset
        The dataset.
    take
        Gets path and entry.
    failed
        Is told which node can't be had.
    tell
        Is told how many paths were read.
    """

    def __init__(
        self,
        dataset: Dataset,
        take: Callable[[str, Entry], None],
        failed: Failed,
        tell: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._dataset = dataset
        self._take = take
        self._failed = failed
        self._tell = tell
        self._cache = NodeCache(_CACHE_BYTES)
        self._shadows: dict[NodeRef, Shadow] = {}
        self._due: dict[NodeRef, None] = {}
        self._left: dict[NodeRef, list[tuple[str, Entry]]] = {}  # by leaf: what is hidden so far
        self._above: set[NodeRef] = set()  # nodes that lead to such leaves
        self.seen: set[NodeRef] = set()

    def add(self, state: State) -> None:
        """One version more; its tree is read by the next `walk`."""
        for path, entry in state.tail.puts.items():
            self._take(path, entry)
        root = state.root
        if root is None:
            return
        shadow = self._shadows.get(root)
        if shadow is None:
            self._shadows[root] = Shadow(state.tail)
            self._due[root] = None
        elif shadow.narrow(state.tail):
            self._due[root] = None

    def walk(self, *, strict: bool = True) -> None:
        """Read what was not read before; not `strict`: as far as it is there."""
        failed = self._failed if strict else _ignore
        due, self._due = self._due, {}
        for root in due:
            self._descend(root, self._shadows[root], failed)

    def _descend(self, root: NodeRef, shadow: Shadow, failed: Failed) -> None:
        if root in self._left:
            self._again(root, shadow)
            return
        if root in self.seen and root not in self._above:
            return
        self.seen.add(root)
        store = self._dataset.store
        try:
            top = decode(store.get(root.key, root.offset, root.offset + root.length), root)
        except (RecoveryError, FileNotFoundError) as error:
            failed(root, error)
            return
        tree = Tree(root, store.get, self._cache)
        stack: list[tuple[NodeRef, Node, Line]] = [(root, top, ())]
        while stack:
            ref, node, line = stack.pop()
            if isinstance(node, Leaf):
                self._leaf(ref, node, shadow, line)
                continue
            line = (*line, ref)
            which = []
            for i, child in enumerate(node.children):
                if child.ref in self._left:
                    self._again(child.ref, shadow, line)
                elif child.ref not in self.seen or child.ref in self._above:
                    which.append(i)
            for start in range(0, len(which), _BATCH):
                for i, found in self._children(tree, node, which[start : start + _BATCH], failed):
                    child_ref = node.children[i].ref
                    if isinstance(found, Leaf):
                        self._leaf(child_ref, found, shadow, line)
                    else:
                        stack.append((child_ref, found, line))

    def _children(
        self, tree: Tree, node: Inner, which: list[int], failed: Failed
    ) -> list[tuple[int, Node]]:
        self.seen.update(node.children[i].ref for i in which)
        try:
            nodes = [found for found, _ in tree.load_children(node, which, None)]
            return list(zip(which, nodes, strict=True))
        except (RecoveryError, FileNotFoundError):
            found: list[tuple[int, Node]] = []
        for i in which:
            try:
                found.append((i, tree.load_children(node, [i], None)[0][0]))
            except (RecoveryError, FileNotFoundError) as error:
                failed(node.children[i].ref, error)
        return found

    def _leaf(self, ref: NodeRef, leaf: Leaf, shadow: Shadow, line: Line) -> None:
        hidden = []
        for path, entry in leaf.packed.items():
            if shadow.hides(path):
                hidden.append((path, entry))
            else:
                self._take(path, entry)
        if hidden:
            self._left[ref] = hidden
            self._above.update(line)
        self._tell(leaf.count)

    def _again(self, ref: NodeRef, shadow: Shadow, line: Line = ()) -> None:
        """Another tree shares a leaf: what it shows of what was hidden so far."""
        hidden = []
        for path, entry in self._left[ref]:
            if shadow.hides(path):
                hidden.append((path, entry))
            else:
                self._take(path, entry)
        self._left[ref] = hidden
        if hidden:
            self._above.update(line)


class Reach(Shown):
    """The objects that some versions need, as hashes: of two keys that share one, both stay."""

    def __init__(self, dataset: Dataset, *, tell: Callable[[int], None] = lambda n: None) -> None:
        super().__init__(dataset, self._note, _raise, tell)
        self._keys: set[int] = set()
        self.owners: set[str] = set()

    def walk(self, *, strict: bool = True) -> None:
        super().walk(strict=strict)
        for ref in self.seen:
            self._need(ref.key)

    def __contains__(self, key: str) -> bool:
        return hash(key) in self._keys

    def _note(self, path: str, entry: Entry) -> None:
        if entry.key:
            self._need(entry.key)

    def _need(self, key: str) -> None:
        number = hash(key)
        if number not in self._keys:
            self._keys.add(number)
            owner = owner_of(key)
            if owner:
                self.owners.add(owner)


def _ignore(ref: NodeRef, error: Exception) -> None:
    """Of a version that was collected in part."""


def _raise(ref: NodeRef, error: Exception) -> None:
    raise RecoveryError(
        f"{ref.key}: a node that a kept version needs can't be read ({error}); nothing was removed. "
        "`verify` names all damage"
    ) from error


__all__ = ["Failed", "Reach", "Shown"]
