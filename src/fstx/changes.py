"""The changes of one transaction, as data: what is staged, what goes, what clashes.

Pure and not locked: the transaction that owns it serialises access.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fstx.errors import PathError
from fstx.paths import check_path, fold, is_below, is_covered, parents
from fstx.types import StagedObject


class Changes:
    """Adopted receipts by path, and removals of what the base holds.

    Invariants: no staged path is a directory of another (PATH-2); no two staged paths or directories
    differ by case or normalisation alone (PATH-3).
    """

    def __init__(self) -> None:
        self.staged: dict[str, StagedObject] = {}
        self.removed: dict[str, None] = {}  # in the order of the calls
        self.size_bytes = 0  # of all that is staged
        self._spelling: dict[str, str] = {}  # folded path or directory -> as spelled
        self._directories: dict[str, int] = {}  # directory -> number of staged paths below
        self._holds_removed: set[str] = set()  # directories that may have removals below

    def __bool__(self) -> bool:
        return bool(self.staged or self.removed)

    def check(self, path: str) -> str:
        """Raise `PathError` if `path` can't be staged beside what is staged already."""
        check_path(path)
        if path in self.staged:
            return path
        if path in self._directories:
            raise PathError(f"{path!r} is staged as a directory; it can't be a file as well")
        for name in (path, *parents(path)):
            other = self._spelling.get(fold(name))
            if other is not None and other != name:
                raise PathError(
                    f"{name!r} and {other!r} differ only by case or Unicode form; "
                    "many file systems take them for one"
                )
            if name != path:
                if name in self.staged:
                    raise PathError(f"{name!r} is staged as a file, so {path!r} can't lie below it")
                if name in self._directories:
                    break  # its ancestors were compared when it was entered
        return path

    def add(self, receipt: StagedObject) -> StagedObject | None:
        """Adopt; returns the receipt that it displaces."""
        path = self.check(receipt.path)
        before = self.staged.get(path)
        self.staged[path] = receipt
        self.size_bytes += receipt.size_bytes - (before.size_bytes if before else 0)
        if before is None:
            self._spelling[fold(path)] = path
            for name in parents(path):
                self._directories[name] = self._directories.get(name, 0) + 1
                self._spelling[fold(name)] = name
        return before

    def remove(self, path: str) -> list[StagedObject]:
        """Remove a file or tree; returns the staged objects that it drops."""
        check_path(path)
        dropped = self.below(path)
        for receipt in dropped:
            self._forget(receipt.path)
        if path in self._holds_removed:
            for other in [p for p in self.removed if is_below(p, path)]:
                del self.removed[other]
        if not self.gone(path):
            self.removed[path] = None
            self._holds_removed.update(parents(path))
        return dropped

    def below(self, path: str) -> list[StagedObject]:
        """What is staged at `path` or below it."""
        if path in self.staged:
            return [self.staged[path]]
        if path not in self._directories:
            return []
        return [r for p, r in self.staged.items() if is_below(p, path)]

    def holds(self, path: str) -> bool:
        """Whether something is staged at `path` or below it."""
        return path in self.staged or path in self._directories

    def _forget(self, path: str) -> None:
        self.size_bytes -= self.staged.pop(path).size_bytes
        self._spelling.pop(fold(path), None)
        for name in parents(path):
            self._directories[name] -= 1
            if not self._directories[name]:
                del self._directories[name]
                self._spelling.pop(fold(name), None)

    def gone(self, path: str) -> bool:
        """True when what the base holds at `path` goes."""
        return bool(self.removed) and is_covered(path, self.removed)

    def view(self, base: Iterable[str], prefix: str) -> Iterator[str]:
        """Paths below `prefix` as after commit, sorted."""
        kept = {p for p in base if not self.gone(p) and _matches(p, prefix)}
        kept.update(p for p in self.staged if _matches(p, prefix))
        return iter(sorted(kept))


def _matches(path: str, prefix: str) -> bool:
    return not prefix or is_below(path, prefix.rstrip("/"))
