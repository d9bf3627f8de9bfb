"""Files that a library writes by itself: a local path for it, staged when the block ends.

On a local disk the path lies in the staging area and the file is moved, not copied. Elsewhere it lies in a
private directory of this machine's temporary files and is streamed to the storage.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from fstx.changes import Changes
from fstx.errors import PathError, StorageError, TransactionError, UsageError
from fstx.protocol import StagedFile, Stager
from fstx.types import Mode, Sidecars, StagedObject

_BLOCK_BYTES = 8 << 20
_UNWRITTEN = ("-wal", "-journal")  # SQLite: content that the file itself doesn't have yet
_DERIVED = (".aux.xml", ".ovr", ".msk")  # GDAL: made from the file, wrong for another one
_NEVER = ("-shm",)  # SQLite: one machine's memory
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PathError)
"""No such file, or a path that can't be one: too long, or in none of the targets."""

_LOCK, _PREFIX = ".lock", "fstx-room-"


@runtime_checkable
class Room(Protocol):
    """A stager whose staging area is a directory of this machine."""

    def room(self) -> str | None:
        """A new, empty directory in the area; None where the area lies on a server."""

    def take(self, path: str, file: str, *, publisher: bool) -> StagedObject:
        """Stage a file out of such a directory; it is moved, and durable as others are."""


class LocalPaths(ABC):
    """`local_path` of every transaction."""

    _mode: Mode
    _changes: Changes

    @abstractmethod
    def stager(self) -> Stager: ...
    @abstractmethod
    def open(
        self, path: str, /, *, publisher: bool = False
    ) -> AbstractContextManager[StagedFile]: ...
    @abstractmethod
    def adopt(self, receipts: Iterable[StagedObject], /) -> None: ...
    @abstractmethod
    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes: ...
    @abstractmethod
    def remove(self, path: str, /) -> None: ...
    @abstractmethod
    def _before_staging(self, path: str) -> None: ...
    @abstractmethod
    def _ranks_last(self, path: str, publisher: bool) -> bool: ...
    @abstractmethod
    def _storage(self, doing: str, *, fails: bool = True) -> AbstractContextManager[None]: ...

    @contextmanager
    def local_path(
        self,
        path: str,
        /,
        *,
        copy: bool = False,
        sidecars: Sidecars = "refuse",
        publisher: bool = False,
    ) -> Iterator[Path]:
        """A local path at which a library writes one file by itself: HDF5, NetCDF, GDAL, SQLite.

        Leaving the block stages and adopts what lies there then, whoever wrote it and however often it was
        renamed over; an exception discards it, and the transaction goes on as if there had been no block.
        The path ends with the name that `path` ends with, in a directory of its own.

        Parameters
        ----------
        path
            Logical path of the file.
        copy
            True: the file begins as a copy of the present one, to be updated. Otherwise it is not there.
        sidecars
            Files that are left beside it, such as ``.aux.xml`` or ``-wal``: ``"refuse"`` raises where one is
            not empty, ``"stage"`` stages them too, ``"drop"`` forgets them. Sidecars that belong to the
            replaced file are removed in the same commit.
        publisher
            Readers find the other files through this one.

        Raises
        ------
        UsageError
            No file was written, it is still open, or something was left beside it. Nothing was staged.
        FileNotFoundError
            `copy`, and there is no such file.
        StorageError
            Storage failed; only `rollback` is left.
        """
        check_sidecars(sidecars)
        with self._storage(f"staging {path!r}"):
            self._before_staging(path)
            stager = self.stager()
            inside = stager.room() if isinstance(stager, Room) else None
        with _kept(inside) if inside is not None else _elsewhere(path) as room:
            file = Path(room, path.rpartition("/")[2])
            if copy:
                self._fetch(path, file, sidecars)
            yield file
            found = _written(path, file, sidecars)
            for name in found:
                self._keep(_beside(path, name), file.with_name(name), inside, False)
            self._keep(path, file, inside, publisher)
            self._drop_old(path, found)

    def _fetch(self, path: str, file: Path, sidecars: Sidecars) -> None:
        self._download(path, file)
        for end in _UNWRITTEN + _DERIVED:
            if sidecars == "stage":
                with contextlib.suppress(*_ABSENT):
                    self._download(path + end, file.with_name(file.name + end))
            elif end in _UNWRITTEN and sidecars == "refuse" and self._begins(path + end):
                raise UsageError(
                    f"{path + end!r} holds changes that {path!r} doesn't have yet: close the database "
                    "that is being written, or pass sidecars='stage' to copy both"
                )

    def _begins(self, path: str) -> bool:
        try:
            return bool(self.read(path, 0, 1))
        except _ABSENT:
            return False

    def _download(self, path: str, file: Path) -> None:
        start, block = 0, self.read(path, 0, _BLOCK_BYTES)
        with _local(path, file), file.open("xb") as target:
            while block:
                target.write(block)
                start += len(block)
                full = len(block) == _BLOCK_BYTES
                block = self.read(path, start, start + _BLOCK_BYTES) if full else b""

    def _keep(self, path: str, file: Path, inside: str | None, publisher: bool) -> None:
        if inside is not None:
            self._before_staging(path)
            with self._storage(f"staging {path!r}"):
                stager: Any = self.stager()
                receipt = stager.take(path, str(file), publisher=self._ranks_last(path, publisher))
            self.adopt([receipt])
            return
        _stream(self.open, path, file, publisher)

    def _drop_old(self, path: str, found: list[str]) -> None:
        """What described the replaced file, or was going to change it, must not meet the new one."""
        name = path.rpartition("/")[2]
        for end in _UNWRITTEN + _DERIVED + _NEVER:
            if name + end not in found and self._of_base(path + end):
                self.remove(path + end)

    def _of_base(self, path: str) -> bool:
        """Whether `path` is a file of the base that this transaction neither staged nor removed."""
        if self._mode == "replace" or path in self._changes.staged:
            return False
        try:
            self.read(path, 0, 0)
        except _ABSENT:
            return False
        return True


@contextmanager
def streamed(
    opening: Callable[[str], AbstractContextManager[StagedFile]],
    path: str,
    *,
    sidecars: Sidecars = "refuse",
) -> Iterator[Path]:
    """A local path, of which the file goes to ``opening(path)`` when the block ends.

    For those who stage without a transaction at hand: units of a job, workers with a stager.
    """
    check_sidecars(sidecars)
    with _elsewhere(path) as room:
        file = Path(room, path.rpartition("/")[2])
        yield file
        for name in _written(path, file, sidecars):
            _stream(opening, _beside(path, name), file.with_name(name))
        _stream(opening, path, file)


def check_sidecars(value: object) -> None:
    """Raise `UsageError` unless `value` is a way to treat sidecars."""
    if value not in get_args(Sidecars):
        raise UsageError(f"sidecars={value!r}; it is one of {', '.join(get_args(Sidecars))}")


def _stream(opening: Callable[..., Any], path: str, file: Path, publisher: bool = False) -> None:
    how = {"publisher": True} if publisher else {}
    with _local(path, file), file.open("rb") as source, opening(path, **how) as target:
        while block := source.read(_BLOCK_BYTES):
            target.write(block)


def _beside(path: str, name: str) -> str:
    folder, slash, _ = path.rpartition("/")
    return f"{folder}{slash}{name}"


def _written(path: str, file: Path, sidecars: Sidecars) -> list[str]:
    """Names of what lies beside `file` and is to be staged; UsageError where it can't be taken so."""
    if file.is_symlink() or not file.is_file():
        what = "something else than a file" if os.path.lexists(file) else "nothing"
        raise UsageError(f"{path!r}: the block left {what} at {file}; write one file there")
    if _is_open(file):
        raise UsageError(
            f"{path!r}: {file} is still open for writing (a file, a database or a memory map); close it "
            "before the block ends, so that all of it is there"
        )
    found = []
    for other in sorted(file.parent.iterdir()):
        plain = other.is_file() and not other.is_symlink()
        if other == file or other.name.endswith(_NEVER) or sidecars == "drop":
            continue
        if plain and not other.stat().st_size:
            continue
        if not plain or sidecars == "refuse":
            ways = (
                "stage what it holds by paths of its own, or pass sidecars='drop' to leave it out"
            )
            if plain:
                ways = (
                    "close the file (SQLite: the connection), or pass sidecars='stage' to keep it, "
                    "sidecars='drop' to leave it out"
                )
            raise UsageError(f"{path!r}: {other.name!r} was left beside it; {ways}")
        found.append(other.name)
    return found


def _is_open(file: Path) -> bool:
    """Whether anybody still has it open to write. False where the system doesn't tell.

    A read lease is given only where nobody writes (fcntl(2)); network file systems refuse it anyway.
    """
    if sys.platform != "linux":
        return False
    import fcntl

    from fstx.ops.posix import PosixOps

    if not PosixOps().fs_name(str(file)):
        return False
    with file.open("rb") as probe:
        try:
            fcntl.fcntl(
                probe, fcntl.F_SETSIG, signal.SIGURG
            )  # ignored; SIGIO would end the process
            fcntl.fcntl(probe, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        fcntl.fcntl(probe, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


@contextmanager
def _local(path: str, file: Path) -> Iterator[None]:
    """What this machine's disk refuses, as a StorageError that names it."""
    try:
        yield
    except TransactionError:
        raise
    except OSError as error:
        made = StorageError(
            f"staging {path!r}: the local copy {file}: {error.strerror or error} (the directory for "
            "temporary files is TMPDIR)",
            outcome="aborted",
        )
        made.errno = error.errno
        raise made from error


@contextmanager
def _kept(room: str) -> Iterator[str]:
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)  # what can't go now goes with the area


@contextmanager
def _elsewhere(path: str) -> Iterator[str]:
    """A private directory among the temporary files; those of dead processes go first."""
    from fstx.backends.local import native_ops

    ops, folder = native_ops(), tempfile.gettempdir()
    _sweep(folder)
    room = os.path.join(folder, _PREFIX + secrets.token_hex(8))
    with _local(path, Path(room)):
        lock = ops.lock(room + _LOCK, wait_s=5)
        if lock is None:
            raise StorageError(f"staging {path!r}: {room + _LOCK} is held by another")
    try:
        with _local(path, Path(room)):
            os.mkdir(room, 0o700)
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
        lock.release()


def _sweep(folder: str) -> None:
    """Remove the directories whose owners died; what is another user's, or can't go, stays."""
    from fstx.backends.local import native_ops

    ops, own = native_ops(), getattr(os, "geteuid", lambda: 0)()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(_PREFIX) or not entry.name.endswith(_LOCK):
                continue
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid != own:
                    continue
                lock = ops.lock(entry.path, wait_s=0)
                if lock is not None:
                    shutil.rmtree(entry.path.removesuffix(_LOCK), ignore_errors=True)
                    lock.release()


__all__ = ["LocalPaths", "Room", "streamed"]
