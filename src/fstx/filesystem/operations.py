"""Reading, writing, copying and removing, each at the place where its name lies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fstx.backends.manifest.transaction import ManifestTransaction
from fstx.errors import PathError, UsageError
from fstx.filesystem import plain
from fstx.filesystem.listing import is_directory, missing
from fstx.filesystem.places import Place, bad_path
from fstx.filesystem.sessions import Seen, Session
from fstx.paths import is_below, parents
from fstx.state.entries import Entry
from fstx.types import Data

PIECE_BYTES = 8 << 20


# --- reading ------------------------------------------------------------------------------------


def entry_of(session: Session, place: Place) -> tuple[Seen, Entry]:
    """The entry of a file.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        There is none.
    """
    seen = session.seen(place)
    entry = seen.view.get(place.path) if place.path else None
    if entry is not None and not entry.directory:
        return seen, entry
    if entry is not None or not place.path:
        raise IsADirectoryError(21, "is a directory", place.name)
    raise missing(
        place.name
    )  # or a directory: it is not asked, absent chunks are read by the thousand


def cat(session: Session, place: Place, start: int | None, end: int | None) -> bytes:
    """Bytes of a file; `start` and `end` as for a slice."""
    if place.dataset is None:
        data: bytes = session.places.target.fs.cat_file(place.real, start=start, end=end)
        return data
    seen, entry = entry_of(session, place)
    first, last, _ = slice(start, end).indices(entry.size_bytes)
    return seen.read(entry, first, max(first, last))


def pieces(session: Session, place: Place) -> Iterator[bytes]:
    """The content of a file, a few megabytes at a time."""
    if place.dataset is None:
        with session.places.target.fs.open(place.real, "rb") as file:
            while data := file.read(PIECE_BYTES):
                yield data
        return
    seen, entry = entry_of(session, place)
    yield from content(seen, entry)


def content(seen: Seen, entry: Entry) -> Iterator[bytes]:
    """The content of an entry, a few megabytes at a time; what fits in one is compared with its checksum."""
    for start in range(0, entry.size_bytes, PIECE_BYTES):
        yield seen.read(entry, start, min(start + PIECE_BYTES, entry.size_bytes))


# --- writing ------------------------------------------------------------------------------------


def path_in(tx: Any, place: Place) -> str:
    """The place's path as `tx` spells paths: one that was begun below the root begins there.

    Raises
    ------
    PathError
        The path is not below the transaction's target.
    """
    if tx.prefix and not is_below(place.path, tx.prefix):
        raise PathError(
            f"{place.name} lies outside of {tx.prefix!r}, where the running transaction was begun; begin it "
            "on the dataset's root"
        )
    path: str = (
        tx.stager().logical(place.path) if isinstance(tx, ManifestTransaction) else place.path
    )
    return path


def must_fit(tx: Any, place: Place) -> str:
    """The path as `tx` spells it, if a file may be there.

    Raises
    ------
    IsADirectoryError, NotADirectoryError
        A directory is there, or a file where a directory would have to be.
    """
    if not place.path:
        raise bad_path(place)
    path = path_in(tx, place)
    if not isinstance(tx, ManifestTransaction):
        return path  # elsewhere each question is a request
    # What is staged is compared when this is; here, in constant time, what lies in the base.
    # With removals the whole view is asked, and only where the base says that there is a directory.
    made = place.path in tx._directories
    if made or (
        tx.base.is_dir(place.path) and (not tx._changes.removed or tx.view().is_dir(place.path))
    ):
        raise IsADirectoryError(21, "is a directory", place.name)
    for parent in parents(place.path):
        above = tx.base.get(parent)
        if above is not None:
            below = not tx.prefix or is_below(parent, tx.prefix)
            gone = below and tx._changes.gone(tx.stager().logical(parent))
            if not above.directory and not gone:
                raise NotADirectoryError(20, f"{place.within(parent)} is a file", place.name)
            break
    return path


def pipe(session: Session, place: Place, data: Data, *, new: bool = False) -> None:
    """Write one whole file."""
    if place.dataset is None:
        session.writable()
        session.must_not_be_covered(place.name)
        with plain.written(session.places.target, place, new=new) as file:
            file.write(data)  # type: ignore[arg-type]
        return
    change = session.creating(place) if new else session.change(place, fresh=False)
    with change as tx:
        tx.stage(must_fit(tx, place), data)


@contextmanager
def writer(session: Session, place: Place, *, new: bool = False) -> Iterator[plain.Writer]:
    """A writer of one file: committed with the block's end, or into the running transaction."""
    if place.dataset is None:
        session.writable()
        session.must_not_be_covered(place.name)
        with plain.written(session.places.target, place, new=new) as file:
            yield file
        return
    change = session.creating(place) if new else session.change(place, fresh=False)
    with change as tx, tx.open(must_fit(tx, place)) as file:
        yield file


def put(session: Session, local: str, place: Place, *, new: bool, callback: Any) -> None:
    """Write a local file to `place`."""
    import os

    with open(local, "rb") as source, writer(session, place, new=new) as file:
        callback.set_size(os.fstat(source.fileno()).st_size)
        while data := source.read(PIECE_BYTES):
            file.write(data)
            callback.relative_update(len(data))


def get(session: Session, place: Place, local: Any, callback: Any) -> None:
    """Copy a file to a local path or an open file."""
    import os

    if place.dataset is None:
        source, size = pieces(session, place), session.places.target.fs.size(place.real)
    else:
        seen, entry = entry_of(session, place)
        source, size = content(seen, entry), entry.size_bytes
    callback.set_size(size)
    if hasattr(local, "write"):
        for data in source:
            local.write(data)
            callback.relative_update(len(data))
        return
    os.makedirs(os.path.dirname(local) or ".", exist_ok=True)
    with open(local, "wb") as file:
        for data in source:
            file.write(data)
            callback.relative_update(len(data))


def copy(session: Session, source: Place, goal: Place) -> None:
    """Copy a file, or make the directory that `source` is; in one dataset no byte is moved."""
    if source.dataset is None or goal.dataset is None or source.root != goal.root:
        if _holds_directory(session, source):
            make_directory(session, goal, exist_ok=True)
            return
        with writer(session, goal) as file:
            for data in pieces(session, source):
                file.write(data)
        return
    with session.change(goal) as tx:
        view = tx.view()
        entry = view.get(source.path) if source.path else None
        if entry is not None and not entry.directory:
            tx.link(must_fit(tx, goal), entry)
        elif entry is not None or view.is_dir(source.path) or not source.path:
            if goal.path:  # also where its files came first: it stays when they go
                tx.make_directory(path_in(tx, goal))
        else:
            raise missing(source.name)


def _holds_directory(session: Session, place: Place) -> bool:
    if place.dataset is None:
        return bool(session.places.target.fs.isdir(place.real))
    return is_directory(session.seen(place), place.path)


# --- directories and removal ----------------------------------------------------------------------


def make_directory(
    session: Session, place: Place, *, exist_ok: bool, parents_too: bool = True
) -> None:
    """An empty directory; of a dataset's root the dataset itself.

    Raises
    ------
    FileExistsError
        Something is there, and `exist_ok` does not allow a directory.
    FileNotFoundError
        The directory above is not there, and `parents_too` is False.
    """
    if place.dataset is None:
        session.writable()
        session.must_not_be_covered(place.name)
        session.places.target.fs.makedirs(place.real, exist_ok=exist_ok)
        return
    seen = session.seen(place)
    entry = seen.view.get(place.path) if place.path else None
    file = entry is not None and not entry.directory
    if file or entry is not None or is_directory(seen, place.path):
        if file or not exist_ok:
            raise FileExistsError(17, "there is something at this path", place.name)
        return
    above = place.path.rpartition("/")[0]
    if place.path and not parents_too and above and not is_directory(seen, above):
        raise missing(place.within(above))
    if not place.path:
        session.writable()
        place.dataset.must_commit()
        place.dataset.create()
        session.places.created(place.root)
        session.moved(place)
        return
    with session.change(place) as tx:
        for parent in parents(place.path):
            there = tx.view().get(parent)
            if there is not None and not there.directory:
                raise NotADirectoryError(20, f"{place.within(parent)} is a file", place.name)
        tx.make_directory(path_in(tx, place))


def remove(session: Session, place: Place, *, recursive: bool) -> None:
    """Remove a file; a directory if it is empty or `recursive` says so. A root is emptied; versions stay."""
    if place.dataset is None:
        _remove_plain(session, place, recursive)
        return
    with session.change(place, many=True) as tx:
        view = tx.view()
        entry = view.get(place.path) if place.path else None
        if entry is not None and not entry.directory:
            tx.remove(path_in(tx, place))
            return
        held = next(iter(view.children(place.path)), None) is not None
        if entry is None and not held and (place.path or not session.seen(place).present):
            raise missing(place.name)
        if held and not recursive:
            raise IsADirectoryError(21, "is a directory that is not empty", place.name)
        if place.path:
            tx.remove(path_in(tx, place))
        else:
            for name in [n for n, _ in view.children("")]:
                below = Place(place.within(name), "", place.dataset, place.root, name)
                tx.remove(path_in(tx, below))


def _remove_plain(session: Session, place: Place, recursive: bool) -> None:
    session.writable()
    session.must_not_be_covered(place.name)
    fs = session.places.target.fs
    fs.invalidate_cache()
    if fs.isdir(place.real):
        if recursive or fs.ls(place.real):
            raise UsageError(
                f"{place.name} is a directory outside of any dataset, which can't be removed in one step; "
                "remove it by the file system below tx::"
            )
        fs.rmdir(place.real)
        return
    fs.rm_file(place.real)


def remove_directory(session: Session, place: Place) -> None:
    """Remove an empty directory.

    Raises
    ------
    OSError
        It is not empty, or no directory.
    """
    if place.dataset is None:
        session.writable()
        session.must_not_be_covered(place.name)
        session.places.target.fs.rmdir(place.real)
        return
    seen = session.seen(place)
    entry = seen.view.get(place.path) if place.path else None
    if entry is not None and not entry.directory:
        raise NotADirectoryError(20, "is no directory", place.name)
    if next(iter(seen.view.children(place.path)), None) is not None:
        raise OSError(39, "directory not empty", place.name)
    if entry is None and not is_directory(seen, place.path):
        raise missing(place.name)
    if place.path:
        remove(session, place, recursive=False)
