"""One object that lies in no dataset: read as it is, written whole or not at all; no log, no marker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from fstx import registry
from fstx.errors import StorageError
from fstx.filesystem.places import Place, Target
from fstx.stores import Answer
from fstx.types import Buffer


class Writer(Protocol):
    """What a block writes one object with."""

    def write(self, data: Buffer, /) -> int | None: ...


@contextmanager
def written(target: Target, place: Place, *, new: bool = False) -> Iterator[Writer]:
    """A writer of the whole object: it is there once the block ended, or never.

    Parameters
    ----------
    new
        The object must be absent, else FileExistsError; of several writers one gets it.
    """
    from fsspec.implementations.local import LocalFileSystem

    if isinstance(target.fs, LocalFileSystem):
        with _local(place.real, new) as file:
            yield file
        return
    above, _, key = place.real.rpartition("/")
    store = target.store(above or "/")
    if new:
        collected = _Collected()
        yield collected
        answer = store.put_new(key, b"".join(collected.pieces))
        if answer is Answer.TAKEN:
            raise FileExistsError(17, "there is something at this path", place.name)
        if answer is not Answer.DONE:
            raise StorageError(f"{place.name}: storage did not say whether it was written")
    else:
        writer = store.open(key)
        try:
            yield writer
        except BaseException:
            writer.abort()
            raise
        writer.close()
    target.fs.invalidate_cache(above)


@contextmanager
def _local(path: str, new: bool) -> Iterator[Writer]:
    found = registry.backend([path], joined=True)
    tx: Any = found.begin(
        mode="create" if new else "update", durability="data", require=frozenset()
    )
    with tx, tx.open(path.rpartition("/")[2]) as file:
        yield file


class _Collected:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: Buffer, /) -> int:
        piece = bytes(data)
        self.pieces.append(piece)
        return len(piece)


__all__ = ["Writer", "written"]
