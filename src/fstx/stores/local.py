"""Objects as files of a local (or mounted) file system, over plain OS calls.

A file is written under a temporary name in its directory, synced, and moved to its name in one step:
linked where it must be new, moved over where not. After an error what lies there decides, never the
error's number: on a network mount a call can fail that took place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from fstx import seams
from fstx.errors import PathError
from fstx.ops._wincrt import NativeCrt, extended, plain
from fstx.ops.windows import name_problem
from fstx.stores import Answer, Info, Proof
from fstx.stores.files import Files
from fstx.stores.keys import check_key, check_prefix, is_temp, span, temp_name
from fstx.stores.syncing import Directories, Workers
from fstx.types import Buffer

_WINDOWS = sys.platform == "win32"
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_TRIES = 50


class LocalStore:
    """A `Store` over a directory. Its objects are plain files that anything may read.

    Parameters
    ----------
    root
        The directory, made when the first object is put.
    durable
        False leaves out every sync: what was put survives a killed process, not a loss of power.
    files
        The calls that change something; the operating system's when None.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, durable: bool = True, files: Files | None = None
    ) -> None:
        self._root = os.path.abspath(os.fspath(root))
        if _WINDOWS:
            self._root = extended(self._root)  # keys may make it longer than 260 characters
        self._durable = durable
        self._files = Files() if files is None else files
        self._directories = Directories(self._root, durable=durable, files=self._files)
        self._workers = Workers()

    @property
    def url(self) -> str:
        path = plain(self._root).replace(os.sep, "/")
        return f"file://{path}" if path.startswith("/") else f"file:///{path}"

    @property
    def identity(self) -> str:
        return f"file:{os.path.realpath(plain(self._root))}"

    def __repr__(self) -> str:
        return f"<LocalStore {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make, (type(self), self._root, self._durable, self._files))

    # --- writing -------------------------------------------------------------------------------

    def put_new(self, key: str, data: bytes, /) -> Answer:
        target = self._path(key)
        if os.path.lexists(target):
            if os.path.isdir(target):
                raise IsADirectoryError(errno.EISDIR, "a directory, not an object", target)
            return Answer.TAKEN  # saves writing the temporary file; the link below decides
        temp = self._write_temp(target, (data,))
        try:
            answer = _settle_new(self._files, temp, target)
        finally:
            self._drop(temp)
        if answer is Answer.DONE and self._durable:
            try:
                self._directories.sync(os.path.dirname(target))
            except OSError:
                return Answer.UNKNOWN  # it is there, but may not outlive a loss of power
        return answer

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        target = self._path(key)
        temp = self._write_temp(target, (data,))
        try:
            _replace(self._files, temp, target)
        except BaseException:
            self._drop(temp)
            raise
        self._directories.sync(os.path.dirname(target))

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        self._path(key)  # a bad key is refused here
        return self._workers.submit(self.put, key, data)

    def open(self, key: str, /) -> LocalWriter:
        return LocalWriter(self, self._path(key))

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        if token is None:
            return self.put_new(key, data)
        raise OSError(errno.ENOTSUP, "files can't be replaced on a condition", self._path(key))

    def delete(self, keys: Iterable[str], /) -> None:
        parents = set()
        for key in keys:
            path = self._path(key)
            try:
                self._files.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                if not os.path.isdir(path):  # a directory is no object, so none has this key
                    raise
                continue
            parents.add(os.path.dirname(key))
        for parent in sorted(parents):
            # The entry goes for good only with its directory's sync; a file that comes back after a
            # loss of power is garbage, not damage, but "deleted" should mean it.
            with contextlib.suppress(FileNotFoundError):
                self._directories.sync(self._join(parent))
        self._prune(parents)

    def _prune(self, parents: Iterable[str]) -> None:
        """Remove directories that are empty now, but not those directly below the root."""
        for parent in sorted(parents, reverse=True):
            while "/" in parent or parent.startswith(".probe-"):
                path = self._join(parent)
                try:
                    self._files.rmdir(path)
                except OSError:
                    break  # not empty, gone, or in use: somebody else's business
                self._directories.forget(path)
                parent = os.path.dirname(parent)

    # --- reading -------------------------------------------------------------------------------

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        path = self._path(key)
        try:
            file = open_read(path)
        except (NotADirectoryError, IsADirectoryError):
            raise FileNotFoundError(errno.ENOENT, "no such object", path) from None
        with file:
            first, last = span(os.fstat(file.fileno()).st_size, start, stop)
            if first:
                file.seek(first)
            pieces = []
            while first < last and (piece := file.read(last - first)):
                pieces.append(piece)
                first += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def list(self, prefix: str, /) -> Iterator[Info]:
        check_prefix(prefix)
        top = prefix.rpartition("/")[0]
        yield from self._walk(top, prefix)

    def _walk(self, directory: str, prefix: str) -> Iterator[Info]:
        try:
            with os.scandir(self._join(directory)) as entries:
                # A directory sorts as the "/" that follows its name in every key below it.
                names = sorted(
                    e.name + "/" if e.is_dir(follow_symlinks=False) else e.name for e in entries
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            key = f"{directory}/{name}" if directory else name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key[:-1], prefix)
            elif key.startswith(prefix) and not is_temp(name):
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    st = os.stat(self._join(key))
                    if not _is_dir(st):
                        yield _info(key, st)

    def info(self, key: str, /) -> Info | None:
        try:
            st = os.stat(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if _is_dir(st) else _info(key, st)

    # --- what it is ----------------------------------------------------------------------------

    def probe(self) -> Proof:
        from fstx.stores.localproof import prove

        return prove(self._root, durable=self._durable)

    def below(self, path: str, /) -> LocalStore:
        return type(self)(self._join(check_key(path)), durable=self._durable, files=self._files)

    def tidy(self, older_than_s: float) -> int:
        """Remove temporary files that killed writers left; returns how many."""
        before_s = time.time() - older_than_s
        count = 0
        for directory, _, names in os.walk(self._root):
            for path in (os.path.join(directory, n) for n in names if is_temp(n)):
                with contextlib.suppress(OSError):
                    if os.stat(path).st_mtime < before_s:
                        self._files.unlink(path)
                        count += 1
        return count

    @property
    def durable(self) -> bool:
        """Whether writes are synced."""
        return self._durable

    def path_of(self, key: str) -> str:
        """The file of an object, for callers that need no more than the operating system."""
        return self._path(key)

    def _path(self, key: str) -> str:
        if _WINDOWS:
            _check_names(key)
        return self._join(check_key(key))

    def _join(self, key: str) -> str:
        return os.path.join(self._root, *key.split("/")) if key else self._root

    def _open_temp(self, target: str) -> tuple[str, int]:
        directory = os.path.dirname(target)
        for _ in range(_TRIES):
            temp = os.path.join(directory, temp_name())
            try:
                self._directories.make(directory)
                return temp, self._files.create(temp)
            except FileNotFoundError:
                # Removed since, by one who deleted its last file: made again.
                self._directories.forget(directory)
        raise FileNotFoundError(errno.ENOENT, "the directory vanishes again and again", directory)

    def _write_temp(self, target: str, pieces: Iterable[Buffer]) -> str:
        temp, fd = self._open_temp(target)
        try:
            try:
                for piece in pieces:
                    self._write_all(fd, piece)
                self._sync_file(fd)
            finally:
                self._files.close(fd)
        except BaseException:
            self._drop(temp)
            raise
        return temp

    def _write_all(self, fd: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[self._files.write(fd, view) :]

    def _sync_file(self, fd: int) -> None:
        if self._durable:
            self._files.sync(fd)

    def _drop(self, temp: str) -> None:
        with contextlib.suppress(OSError):
            self._files.unlink(temp)


class LocalWriter:
    """Writes a temporary file that takes its name at `close`."""

    def __init__(self, store: LocalStore, target: str) -> None:
        self._store, self._target = store, target
        self._fd: int | None = None  # until there is one: a refusal leaves nothing to abort
        self._temp, self._fd = store._open_temp(target)

    def write(self, data: Buffer, /) -> None:
        if self._fd is None:
            raise ValueError(f"the writer of {self._target} is closed")
        self._store._write_all(self._fd, data)

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            try:
                self._store._sync_file(fd)
            finally:
                self._store._files.close(fd)
            _replace(self._store._files, self._temp, self._target)
        except BaseException:
            self._store._drop(self._temp)
            raise
        self._store._directories.sync(os.path.dirname(self._target))

    def abort(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                self._store._files.close(fd)
            self._store._drop(self._temp)

    def __del__(self) -> None:
        self.abort()


def _make(kind: type[LocalStore], root: str, durable: bool, files: Files) -> LocalStore:
    return kind(root, durable=durable, files=files)


def _settle_new(files: Files, temp: str, target: str) -> Answer:
    """Give `temp`'s content the name `target` if it is free; what lies there afterwards decides."""
    try:
        _take_name(files, temp, target)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise  # nothing can be there, and asking fails the same way
        try:
            own, there = _lstat(temp), _lstat(target)
        except OSError:
            return Answer.UNKNOWN
        if own is None and there is not None and not isinstance(error, FileExistsError):
            return Answer.UNKNOWN  # moved away by a call that failed: probably ours
        if there is not None:
            ours = own is not None and os.path.samestat(own, there)
            return Answer.DONE if ours else Answer.TAKEN
        raise
    return Answer.DONE


def _take_name(files: Files, temp: str, target: str) -> None:
    if _WINDOWS:
        files.rename(temp, target)  # refuses an existing target there
        return
    try:
        files.link(temp, target)
    except OSError as error:
        if error.errno not in _NO_LINKS or _lstat(target) is not None:
            raise
        files.rename_new(temp, target)


def open_read(path: str) -> Any:
    """The file, unbuffered; on Windows without keeping others from deleting it."""
    if _WINDOWS:
        try:
            return NativeCrt().open_shared(path)
        except PermissionError:
            if not os.path.isdir(path):
                raise
            raise IsADirectoryError(errno.EISDIR, "is a directory", path) from None
    fd = os.open(path, os.O_RDONLY | _CLOEXEC)
    try:
        return open(fd, "rb", buffering=0)
    except BaseException:
        os.close(fd)
        raise


def _check_names(key: str) -> None:
    for part in key.split("/"):
        if problem := name_problem(part):
            raise PathError(f"the key {key!r}: Windows can't hold a name that {problem}")


def _replace(files: Files, temp: str, target: str) -> None:
    pause_s = 0.01
    while True:
        try:
            files.replace(temp, target)
            return
        except PermissionError:
            # On Windows a scanner or a reader may hold the old file open for a moment.
            if not _WINDOWS or pause_s > 1:
                raise
        seams.pause(pause_s)
        pause_s *= 2


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_dir(st: os.stat_result) -> bool:
    import stat

    return stat.S_ISDIR(st.st_mode)


def _info(key: str, st: os.stat_result) -> Info:
    token = f"{st.st_dev:x}-{st.st_ino:x}-{st.st_size:x}-{st.st_mtime_ns:x}"
    return Info(key, st.st_size, st.st_mtime, token)


__all__ = ["LocalStore", "LocalWriter", "open_read"]
