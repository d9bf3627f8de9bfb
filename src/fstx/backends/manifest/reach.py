"""What versions reach: nodes that they share are read once, keys are kept as hashes.

A hash that two keys share makes an object stay, never go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fstx.backends.manifest.dataset import Dataset
from fstx.backends.manifest.names import owner_of
from fstx.errors import RecoveryError
from fstx.paths import is_covered
from fstx.state.entries import Delta
from fstx.state.nodes import Inner, Leaf, Node, NodeRef, decode
from fstx.state.tree import NodeCache, Tree
from fstx.state.view import State

_BATCH = 64
_CACHE_BYTES = 4 << 20

Failed = Callable[[NodeRef, Exception], None]


def walk(dataset: Dataset, root: NodeRef, seen: set[NodeRef], failed: Failed) -> Iterator[Leaf]:
    """Leaves below `root` that were not `seen` yet; nodes that can't be had are told to `failed`."""
    if root in seen:
        return
    seen.add(root)
    store = dataset.store
    try:
        top = decode(store.get(root.key, root.offset, root.offset + root.length), root)
    except (RecoveryError, FileNotFoundError) as error:
        failed(root, error)
        return
    tree = Tree(root, store.get, NodeCache(_CACHE_BYTES))
    left: list[Node] = [top]
    while left:
        node = left.pop()
        if isinstance(node, Leaf):
            yield node
            continue
        which = [i for i, child in enumerate(node.children) if child.ref not in seen]
        for start in range(0, len(which), _BATCH):
            for found in _children(tree, node, which[start : start + _BATCH], seen, failed):
                if isinstance(found, Leaf):
                    yield found
                else:
                    left.append(found)


def _children(
    tree: Tree, node: Inner, which: list[int], seen: set[NodeRef], failed: Failed
) -> list[Node]:
    seen.update(node.children[i].ref for i in which)
    try:
        return [found for found, _ in tree.load_children(node, which, None)]
    except (RecoveryError, FileNotFoundError):
        found: list[Node] = []
    for i in which:
        try:
            found.append(tree.load_children(node, [i], None)[0][0])
        except (RecoveryError, FileNotFoundError) as error:
            failed(node.children[i].ref, error)
    return found


class Shadow:
    """Paths of trees that no version shows: the small changes over them hide or replace them."""

    def __init__(self) -> None:
        self._first = True
        self.puts: set[str] = set()
        self.removed: list[str] = []
        self._tops: set[str] = set()

    def narrow(self, tail: Delta) -> None:
        """One version more, with these changes over its tree."""
        if self._first:
            self._first = False
            self.puts = set(tail.puts)
            self.removed = list(tail.removed)
            self._tops = set(self.removed)
            return
        if self.puts:
            self.puts = {p for p in self.puts if p in tail.puts or tail.covers(p)}
        if self.removed:
            self.removed = [r for r in self.removed if tail.covers(r)]
        self._tops = set(self.removed)

    def hides(self, path: str) -> bool:
        """Whether every version hides what its tree has at `path`."""
        if path in self.puts:
            return True
        return bool(self._tops) and ("" in self._tops or is_covered(path, self._tops))


class Reach:
    """The objects that some versions need.

    Parameters
    ----------
    dataset
        The dataset.
    failed
        Is told which node can't be had; by default that is raised.
    tell
        Is told how many paths were seen.
    """

    def __init__(
        self,
        dataset: Dataset,
        failed: Failed | None = None,
        tell: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._dataset = dataset
        self._failed = failed or _raise
        self._tell = tell
        self._seen: set[NodeRef] = set()
        self._keys: set[int] = set()
        self._hidden: list[tuple[str, str]] = []
        self._roots: dict[NodeRef, None] = {}
        self._shadow = Shadow()
        self.owners: set[str] = set()

    def add(self, state: State) -> None:
        """One version more; counts after the next `walk`."""
        self._shadow.narrow(state.tail)
        for entry in state.tail.puts.values():
            self._take(entry.key)
        if state.root is not None:
            self._roots[state.root] = None

    def walk(self, *, strict: bool = True) -> None:
        """Read what the versions have that was not read before; not `strict`: as far as it is there."""
        failed = self._failed if strict else _ignore
        for root in [r for r in self._roots if r not in self._seen]:
            for leaf in walk(self._dataset, root, self._seen, failed):
                self._leaf(leaf)
        again, self._hidden = self._hidden, []
        for path, key in again:
            self._place(path, key)
        for ref in self._seen:
            self._take(ref.key)

    def __contains__(self, key: str) -> bool:
        return hash(key) in self._keys

    @property
    def nodes(self) -> int:
        return len(self._seen)

    def _leaf(self, leaf: Leaf) -> None:
        for path, entry in leaf.packed.items():
            self._place(path, entry.key)
        self._tell(leaf.count)

    def _place(self, path: str, key: str) -> None:
        if not key:
            return
        if self._shadow.hides(path):
            self._hidden.append((path, key))
        else:
            self._take(key)

    def _take(self, key: str) -> None:
        number = hash(key)
        if key and number not in self._keys:
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


__all__ = ["Failed", "Reach", "Shadow", "walk"]
