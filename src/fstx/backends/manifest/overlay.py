"""A version with the changes of a transaction over it: what its own readers see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fstx.paths import is_below
from fstx.state.entries import Delta, Entry
from fstx.state.view import View

Under = Callable[[], Delta]


class Overlay:
    """Reads `base` with a delta over it, asked for anew at each call.

    Parameters
    ----------
    base
        The version below.
    delta
        Gives the changes as they are now, by paths of the dataset.
    """

    def __init__(self, base: View, delta: Under) -> None:
        self._base = base
        self._delta = delta

    def get(self, path: str) -> Entry | None:
        """The entry of a path, or None."""
        delta = self._delta()
        found = delta.puts.get(path)
        if found is not None:
            return found
        return None if delta.covers(path) else self._base.get(path)

    def items(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """What lies at `prefix` and below it, sorted by path."""
        delta = self._delta()
        if not delta:
            return iter(self._base.items(prefix))
        found = {p: e for p, e in self._base.items(prefix) if not delta.covers(p)}
        found.update(
            (p, e) for p, e in list(delta.puts.items()) if not prefix or is_below(p, prefix)
        )
        return iter(sorted(found.items()))

    def children(self, directory: str = "") -> Iterator[tuple[str, Entry | None]]:
        """Names directly below, sorted; None for a directory that holds something."""
        delta = self._delta()
        if not delta:
            yield from self._base.children(directory)
            return
        start = len(directory) + 1 if directory else 0
        found: dict[str, Entry | None] = {}
        for name, entry in self._base.children(directory):
            path = f"{directory}/{name}" if directory else name
            if not delta.removed or self._left(path, entry, delta):
                found[name] = entry
        for path, entry in _below(delta.puts, directory):
            name, slash, _ = path[start:].partition("/")
            if name:
                found[name] = None if slash else found.get(name, entry) and entry
        yield from sorted(found.items())

    def is_dir(self, path: str) -> bool:
        """Whether something lies below `path`, or an empty directory was made there."""
        entry = self.get(path)
        if entry is not None and entry.directory:
            return True
        return next(iter(self.children(path)), None) is not None

    def _left(self, path: str, entry: Entry | None, delta: Delta) -> bool:
        if delta.covers(path):
            return False
        if entry is not None or not any(is_below(r, path) for r in delta.removed):
            return True
        return any(not delta.covers(p) for p, _ in self._base.items(path))


def _below(puts: Mapping[str, Entry], directory: str) -> Iterator[tuple[str, Entry]]:
    for path, entry in list(puts.items()):
        if not directory or (path != directory and is_below(path, directory)):
            yield path, entry
