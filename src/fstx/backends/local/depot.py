"""Depots of resumable jobs where there are files: ``P/.fstx/jobs/<name>/``, beside the target.

``job.json`` is put by rename. ``a/`` holds the objects. ``units.log`` has one physical line for each
finished unit, appended by one write: a kill loses nothing that was appended, a loss of power may lose the
last ones, and then every object is checked by its checksum before it counts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fstx import seams
from fstx.backends.local.control import Control, is_tree, names_from, remove_tree
from fstx.backends.local.records import unseal
from fstx.backends.local.staging import LocalStager, read_range, stage_copy, write_all
from fstx.backends.local.syncing import Syncing
from fstx.errors import FencedError, RecoveryError, TransactionError
from fstx.ops import FileKind, Ops
from fstx.ops.processes import boot_id
from fstx.protocol import Transaction
from fstx.types import StagedObject

JOBS = "jobs"
SYNC_EVERY = 192
"""So many units after a sync began the next one begins: each writes inodes and a journal once more."""

SYNCED_AFTER = 64
"""So many units later it has ended: a loss of power takes as many as both together, a kill takes none."""

_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
_GONE = re.compile(_NAME.pattern + r"\.[0-9a-f]{8}\.gone")
_KEY = re.compile(r"a/(?!\.\.?$)[^/\\\0]+")
_LIMIT_BYTES = 1 << 20


class LocalDepots:
    """The depots of a control directory, for targets by their paths."""

    def __init__(self, control: Control, paths: Sequence[str], *, syncfs: bool) -> None:
        self._control = control
        self._syncfs = syncfs
        self._folder = os.path.join(control.path, JOBS)
        self.targets = tuple(names_from(control.parent, paths))

    def names(self) -> list[str]:
        ops = self._control.ops
        if not is_tree(ops, self._control.path) or not is_tree(ops, self._folder):
            return []
        found = list(ops.scandir(self._folder))
        return sorted(n for n, kind in found if kind is FileKind.TREE and _NAME.fullmatch(n))

    def open(self, name: str, /) -> LocalDepot:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a depot")
        return LocalDepot(self._control, name, syncfs=self._syncfs)

    def sweep(self) -> list[str]:
        ops, found = self._control.ops, []
        if not any(self._left()) and not self._is_bare():
            return []
        with self._control.entered():  # as for whoever makes one: it has its record, or is none
            for path in self._left():
                if not remove_tree(ops, path):
                    found.append(ops.place + path)
            with contextlib.suppress(OSError):
                ops.rmdir(self._folder)
        self._control.leave()
        return found

    def _is_bare(self) -> bool:
        """Whether the directory of the depots is there, and none in it."""
        ops = self._control.ops
        there = is_tree(ops, self._control.path) and is_tree(ops, self._folder)
        return there and next(iter(ops.scandir(self._folder)), None) is None

    def _left(self) -> Iterator[str]:
        """Directories of jobs that are over, or were killed before their record was there."""
        ops = self._control.ops
        if not is_tree(ops, self._control.path) or not is_tree(ops, self._folder):
            return
        for name, kind in list(ops.scandir(self._folder)):
            path = os.path.join(self._folder, name)
            begun = _NAME.fullmatch(name) and ops.lstat(os.path.join(path, "job.json"))
            known = _NAME.fullmatch(name) or _GONE.fullmatch(name)
            if kind is FileKind.TREE and known and not begun:
                yield path


class LocalDepot:
    """One job's depot on a file system."""

    def __init__(self, control: Control, name: str, *, syncfs: bool) -> None:
        self._control = control
        self._syncfs = syncfs
        self._ops: Ops = control.ops
        self.name = name
        self.token = name.partition("-")[2]
        self.path = os.path.join(control.path, JOBS, name)
        self.quick = (
            not self._ops.place
        )  # of this system; files on a server are given by several threads
        self._lock = threading.Lock()
        self._log: Any = None
        self._appended = 0  # since the last sync began
        self._syncing = Syncing()
        self._fs_fd: int | None = None

    def __repr__(self) -> str:
        return f"<depot {self.path}>"

    @property
    def url(self) -> str:
        return self._ops.place + self.path

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def put_job(self, data: bytes, /) -> None:
        with self._control.entered():  # no sweep meets a depot without its record
            self._put_job(data)

    def _put_job(self, data: bytes) -> None:
        self._make(os.path.join(self._control.path, JOBS))
        self._make(self.path)
        self._make(self._at("a"))
        temporary = self._at("job.json.tmp")
        with contextlib.suppress(FileNotFoundError):
            self._ops.unlink(temporary)
        with self._ops.open_new(temporary) as file:
            write_all(file, [data])
            self._ops.sync_file(file)
        self._ops.replace_file(temporary, self._at("job.json"))
        for folder in (self.path, os.path.dirname(self.path), self._control.path):
            self._ops.sync_dir(folder)

    def _make(self, folder: str) -> None:
        with contextlib.suppress(FileExistsError):
            self._ops.mkdir(folder)
            with contextlib.suppress(OSError):
                self._ops.share(folder, self._control.parent)

    def get_job(self) -> bytes:
        return self._ops.read_file(self._at("job.json"), _LIMIT_BYTES)

    def stager(self) -> LocalStager:
        return LocalStager(self._ops, self.path, self.token, durable=False, keeper=None)

    def append(self, line: bytes, /) -> None:
        with self._lock:
            if self._log is None:
                self._log = self._opened_log()
                self._fs_fd = self._ops.open_fs(self.path) if self._syncfs else None
            if self._log.write(line) != len(
                line
            ):  # a full disk: the line is torn, and counts as nothing
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._at("units.log"))
            self._appended += 1
            if self._appended == SYNCED_AFTER or self._appended >= SYNC_EVERY:
                self._sync_on()

    def _sync_on(self) -> None:
        """The sync that was begun has ended, or the next one begins."""
        with self._doubted():
            if self._appended < SYNC_EVERY:
                self._syncing.end()
            else:
                self._appended = 0
                self._begin_sync()

    @contextlib.contextmanager
    def _doubted(self) -> Iterator[None]:
        """Where a sync fails, what was kept is not taken at its length any more: a mark stays."""
        try:
            yield
        except OSError:
            with contextlib.suppress(OSError):
                self._ops.open_new(self._at("unsynced")).close()
            raise

    def _opened_log(self) -> Any:
        path = self._at("units.log")
        try:
            try:
                file = self._ops.open_new(path)
            except FileExistsError:
                file = self._ops.open_again(path)
        except FileNotFoundError as error:
            raise FencedError(
                f"the depot of the job {self.path} is gone: it was dropped while it ran",
                outcome="aborted",
            ) from error
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            torn = file.read(1) != b"\n"
            file.seek(0, os.SEEK_END)
            if (
                torn
            ):  # what was cut off by a kill becomes a line of its own, which counts as nothing
                write_all(file, [b"\n"])
        return file

    def _begin_sync(self) -> None:
        fs_fd = self._fs_fd
        if fs_fd is None:
            self._ops.sync_file(self._log)
        else:
            self._syncing.begin(lambda: self._ops.sync_fs(fs_fd))

    def lines(self) -> Iterator[bytes]:
        try:
            file = self._ops.open_read(self._at("units.log"))
        except FileNotFoundError:
            return
        with file:
            rest = b""
            while block := file.read(1 << 20):
                lines = (rest + block).splitlines(keepends=True)
                rest = b"" if lines[-1].endswith(b"\n") else lines.pop()
                yield from lines

    def sizes(self) -> dict[str, int]:
        found = {}
        folder = self._at("a")
        if not is_tree(self._ops, folder):
            return {}
        at_once = getattr(self._ops, "file_sizes", None)
        if at_once is not None:
            return {f"a/{name}": size_bytes for name, size_bytes in at_once(folder)}
        for name, kind in self._ops.scandir(folder):
            stat = self._ops.lstat(os.path.join(folder, name)) if kind is FileKind.FILE else None
            if stat is not None:
                found[f"a/{name}"] = stat.size_bytes
        return found

    def read(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        return read_range(self._ops, self._file(key), start, stop)

    def _file(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise RecoveryError(f"{self.path}: a record names the object {key!r}, which is none")
        return os.path.join(self.path, key)

    def give_all(self, transaction: Transaction, kept: Iterable[StagedObject], /) -> bool:
        """Stage and adopt objects at once; False where `transaction` is no local one.

        FileNotFoundError names the file of one that is not there whole.
        """
        adopt: Any = getattr(transaction, "adopt_files", None)
        if adopt is None:
            return False
        adopt((one, self._file(one.key)) for one in kept)
        return True

    def give(self, transaction: Transaction, kept: StagedObject, /) -> StagedObject:
        stager = transaction.stager()
        source = self._file(kept.key)
        if isinstance(stager, LocalStager):
            try:
                return stager.link(kept.path, source, publisher=kept.publisher)
            except TransactionError:
                raise
            except OSError:  # no links here: it is copied
                pass
        return stage_copy(self._ops, source, stager, kept)

    def delete(self, keys: Iterable[str], /) -> None:
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                self._ops.unlink(self._file(key))

    def remove(self) -> None:
        with self._lock, contextlib.suppress(OSError):  # what goes need not be durable
            self._close_files(sync=False)
        remove_tree(self._ops, self._set_aside())
        with contextlib.suppress(OSError):
            self._ops.rmdir(os.path.dirname(self.path))
        self._control.leave()

    def _set_aside(self) -> str:
        """The depot under a name where late workers find no place, and where no job is seen."""
        gone = f"{self.path}.{seams.token_hex(4)}.gone"
        try:
            self._ops.rename(self.path, gone)
            return gone
        except FileNotFoundError:
            return self.path
        except OSError:  # a file in it is open, and this system holds the directory then
            with contextlib.suppress(FileNotFoundError):
                self._ops.unlink(self._at("job.json"))
            return self.path

    def decide(self, value: bytes, /) -> bytes:
        path = self._at("decision")
        temporary = f"{path}.{seams.token_hex(4)}.tmp"
        with self._ops.open_new(temporary) as file:
            write_all(file, [value])
            self._ops.sync_file(file)
        try:
            self._ops.rename_new(temporary, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            with contextlib.suppress(FileExistsError):
                self._ops.link_new(temporary, path)
        with contextlib.suppress(OSError):
            self._ops.unlink(temporary)
        self._ops.sync_dir(self.path)
        return self._ops.read_file(path, _LIMIT_BYTES)

    def decided(self) -> bytes | None:
        try:
            return self._ops.read_file(self._at("decision"), _LIMIT_BYTES)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """What was appended is durable, and no descriptor is open."""
        with self._lock:
            self._close_files(sync=True)

    def _close_files(self, *, sync: bool) -> None:
        log, self._log = self._log, None
        fs_fd, self._fs_fd = self._fs_fd, None
        with self._doubted(), contextlib.ExitStack() as ends:  # the last one first
            if fs_fd is not None:
                ends.callback(self._ops.close_fs, fs_fd)
            if log is not None:
                ends.callback(log.close)
                if sync:
                    ends.callback(self._ops.sync_file, log)
            self._syncing.end()

    def moved(self) -> bool:
        try:
            if self._ops.lstat(self._at("unsynced")) is not None:
                return True
            boot = unseal(self.get_job(), self._at("job.json")).get("boot")
        except (OSError, RecoveryError):
            return True
        return not boot or boot != boot_id()


__all__ = ["JOBS", "SYNC_EVERY", "LocalDepot", "LocalDepots"]
