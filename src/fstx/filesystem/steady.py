"""A version that readers hold, and what they are told when it was collected under them.

A missing object of a version must never read as a missing path: zarr would take it for fill values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fstx.errors import StorageError
from fstx.state.entries import Entry


@contextmanager
def _present(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(
            f"{what} is not whole any more: an object of it is gone ({error}). If the version was retired "
            "and collected, open it anew; fs.reading(pin=True) holds one. Else fstx verify tells more"
        ) from error


class Steady:
    """A view of which every object must be there.

    Parameters
    ----------
    view
        A version, or one with the changes of a transaction over it.
    what
        What it is of, for the error.
    """

    def __init__(self, view: Any, what: str) -> None:
        self._held = view
        self._what = what
        self.head = getattr(view, "head", None)

    def get(self, path: str) -> Entry | None:
        """The entry of a path, or None."""
        with _present(self._what):
            found: Entry | None = self._held.get(path)
            return found

    def is_dir(self, path: str) -> bool:
        """Whether something lies below `path`."""
        with _present(self._what):
            return bool(self._held.is_dir(path))

    def items(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """The path `prefix` and all below it, sorted."""
        with _present(self._what):
            yield from self._held.items(prefix)

    def children(self, directory: str = "") -> Iterator[tuple[str, Entry | None]]:
        """Names directly below, sorted."""
        with _present(self._what):
            yield from self._held.children(directory)


def steady(read: Callable[..., bytes], what: str) -> Callable[..., bytes]:
    """`read` of entries of a view; an object that is gone is StorageError."""

    def found(entry: Entry, start: int = 0, stop: int | None = None) -> bytes:
        with _present(what):
            return read(entry, start, stop)

    return found
