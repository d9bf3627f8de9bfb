"""Staging on a local file system: bytes into the area, under names nobody looks for.

Every attempt writes to a name of its own in ``a/``; only adoption, by the coordinator, moves it to where
the commit takes it from. A task that runs twice, or a zombie, can therefore do no harm.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from fstx import seams
from fstx.backends.base import wrap_storage_error
from fstx.backends.given import as_buffers
from fstx.errors import FencedError, StateError, StorageError
from fstx.ops import Ops
from fstx.paths import check_path
from fstx.protocol import Stager
from fstx.types import Buffer, Data, StagedObject

HELD_FILES = (
    31  # as many descriptors wait for their fsync; one more and syncfs is cheaper (rename.md 2)
)
_IOV_MAX = 512
_WRITE_BACK_BYTES = 128 << 10  # measured: gains at 230 KiB a file, costs at 64 KiB (benchmarks/)
_COPY_BYTES = 1 << 20


class Keeper:
    """Decides how staged contents become durable, and remembers what still has to.

    Up to `HELD_FILES` files stay open until commit and are synced by the descriptor that wrote them (a
    reopened one can miss a write-back error); from there on one syncfs covers all, where trusted.
    """

    def __init__(self, ops: Ops, *, durable: bool, fs_fd: int | None) -> None:
        self._ops = ops
        self.durable = durable
        self.fs_fd = fs_fd
        self._held: list[BinaryIO] = []
        self._many = False
        self._lock = threading.Lock()

    def finish(self, file: BinaryIO) -> None:
        """Take over a completely written file."""
        if not self.durable:
            file.close()
            return
        if self.fs_fd is None:
            self._ops.sync_file(file)
            file.close()
            return
        if file.tell() >= _WRITE_BACK_BYTES:
            self._ops.begin_sync(file)
        with self._lock:
            if not self._many and len(self._held) < HELD_FILES:
                self._held.append(file)
                return
            self._many = True
        file.close()

    @property
    def covers_all(self) -> bool:
        """Whether `sync` reaches all files, also those that were not given to `finish`."""
        return self._many and self.fs_fd is not None

    def sync(self) -> None:
        """All contents durable, or OSError; a failed sync is final (never tried again)."""
        with self._lock:
            held, self._held = self._held, []
        try:
            if self._many and self.fs_fd is not None:
                self._ops.sync_fs(self.fs_fd)
            else:
                for file in held:
                    self._ops.sync_file(file)
        finally:
            for file in held:
                file.close()

    def close(self) -> None:
        """Let all descriptors go without syncing."""
        with self._lock:
            held, self._held = self._held, []
            fs_fd, self.fs_fd = self.fs_fd, None
        for file in held:
            with contextlib.suppress(OSError):
                file.close()
        if fs_fd is not None:
            self._ops.close_fs(fs_fd)


class LocalStagedFile(io.BufferedRandom):
    """A binary file that becomes an object when its ``with`` block ends; readable and seekable.

    ``write`` accepts any buffer; ``receipt`` is there once the block was left without an exception.
    """

    def __init__(self, raw: Any, path: str) -> None:
        super().__init__(raw, getattr(raw, "buffer_bytes", io.DEFAULT_BUFFER_SIZE))
        self.path = path
        self.broken: OSError | None = None  # kept: the caller's library may swallow it
        self._receipt: StagedObject | None = None

    @property
    def name(self) -> str:
        """The logical path: for libraries that look at a file's name."""
        return self.path

    def write(self, data: Buffer, /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        self.broken = self.broken or error
        return wrap_storage_error(error, f"staging {self.path!r} failed")

    @property
    def receipt(self) -> StagedObject:
        if self._receipt is None:
            raise StateError(
                f"{self.path!r} is not complete; its receipt comes when the block ends"
            )
        return self._receipt


class LocalStager:
    """Writes staged objects into an area. Threads share one; another process gets a copy by pickle.

    A copy syncs each file as it is written (it holds nothing until commit), in durable mode.
    """

    def __init__(
        self, ops: Ops, area: str, txid: str, *, durable: bool, keeper: Keeper | None
    ) -> None:
        self._ops = ops
        self._area = area
        self._folder = os.path.join(area, "a")
        self._txid = txid
        self._durable = durable
        self._keeper = keeper
        self._pid = os.getpid()
        self._token = seams.token_hex(6)
        self._count = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "ops": self._ops,
            "area": self._area,
            "txid": self._txid,
            "durable": self._durable,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["ops"], state["area"], state["txid"], durable=state["durable"], keeper=None
        )

    def __repr__(self) -> str:
        return f"<LocalStager of {self._txid[:12]} in {self._area}>"

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage one whole object.

        Raises
        ------
        StorageError
            Storage failed (no space, no permission); nothing of this object is left.
        FencedError
            The area was taken away: this writer was given up for dead.
        """
        check_path(path)
        self._settle_in()
        buffers = as_buffers(path, data)
        file, key = self._create(path)
        try:
            size_bytes = write_all(file, buffers)
            self._finish(file)
        except BaseException as error:
            self._discard(file, key)
            if isinstance(error, OSError):
                raise wrap_storage_error(error, f"staging {path!r} failed", self._txid) from error
            raise
        return StagedObject(path, key, size_bytes, self._txid, publisher)

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[LocalStagedFile]:
        """Open a binary writer; the object is complete once the block was left without an exception."""
        check_path(path)
        self._settle_in()
        raw, key = self._create(path)
        file = LocalStagedFile(raw, path)
        try:
            yield file
        except BaseException:
            # Detached before it is closed: nothing buffered is worth flushing to a file that goes.
            with contextlib.suppress(ValueError, OSError):
                file.detach()
            self._discard(raw, key)
            raise
        try:
            if file.broken is not None:
                raise file.broken
            if not file.closed:
                file.flush()
                file.detach()
            elif self._durable:
                raw = self._reopen(key)
            if raw.closed:
                stat = self._ops.lstat(self._at(key))
                size_bytes = 0 if stat is None else stat.size_bytes
            else:
                size_bytes = raw.seek(0, os.SEEK_END)
                self._finish(raw)
        except OSError as error:
            with contextlib.suppress(ValueError, OSError):
                file.detach()
            self._discard(raw, key)
            error = file.broken or error
            raise wrap_storage_error(error, f"staging {path!r} failed", self._txid) from error
        file._receipt = StagedObject(path, key, size_bytes, self._txid, publisher)

    def link(self, path: str, source: str, *, publisher: bool = False) -> StagedObject:
        """Stage a file of the same file system as it is, by one more name: no byte is copied.

        Raises
        ------
        OSError
            There are no links here, or not to that file; nothing was staged.
        """
        check_path(path)
        self._settle_in()
        stat = self._ops.lstat(source)
        if stat is None:
            raise FileNotFoundError(source)
        key = f"a/{self._name()}"
        self._ops.link_new(source, self._at(key))
        if self._durable:
            self._finish(self._reopen(key))
        return StagedObject(path, key, stat.size_bytes, self._txid, publisher)

    def settle(self, path: str) -> None:
        """See that a file in the area that others wrote is durable at commit, as what is staged is."""
        if self._durable and not (self._keeper is not None and self._keeper.covers_all):
            self._finish(self._ops.open_again(path))

    def room(self) -> str | None:
        """A new directory in the area, for a library that writes files itself; None on a server."""
        if self._ops.place:
            return None
        self._settle_in()
        path = self._at(f"a/{self._new_name()}.d")
        with self._fenced(f"a file in {path}"):
            self._ops.mkdir(path)
        return path

    def take(self, path: str, file: str, *, publisher: bool) -> StagedObject:
        """Stage a file that lies in a `room`; it is moved."""
        key = f"a/{self._new_name()}"
        with self._fenced(repr(path)):
            self._ops.rename(file, self._at(key))
            raw = self._reopen(key)
            size_bytes = raw.seek(0, os.SEEK_END)
            self._finish(raw)
        return StagedObject(path, key, size_bytes, self._txid, publisher)

    def _reopen(self, key: str) -> Any:
        """The caller's library closed the file; sync it by a descriptor of our own."""
        return self._ops.open_again(self._at(key))

    def _at(self, key: str) -> str:
        return os.path.join(self._area, key)

    def _settle_in(self) -> None:
        """In a forked child: names of its own, and each file synced here, for the parent never will."""
        if self._pid != os.getpid():
            self.__setstate__(self.__getstate__())

    def _name(self) -> str:
        """One that nobody else takes."""
        with self._lock:
            self._count += 1
            return f"{self._token}-{self._count}"

    def _new_name(self) -> str:
        with self._lock:
            self._count += 1
            return f"{self._token}-{self._count}"

    def _create(self, path: str) -> tuple[Any, str]:
        name = self._new_name()
        with self._fenced(repr(path)):
            return self._ops.open_new(os.path.join(self._folder, name)), f"a/{name}"

    @contextmanager
    def _fenced(self, what: str) -> Iterator[None]:
        """Storage's errors as ours; where a name is missing, the whole area is."""
        try:
            yield
        except FileNotFoundError as error:
            raise FencedError(
                f"the staging area of transaction {self._txid} is gone, so {what} can't be staged: "
                "it was given up for dead, or is over",
                txid=self._txid,
                outcome="aborted",
            ) from error
        except OSError as error:
            raise wrap_storage_error(error, f"staging {what} failed", self._txid) from error

    def _finish(self, file: Any) -> None:
        if self._keeper is not None:
            self._keeper.finish(file)
            return
        if self._durable:
            self._ops.sync_file(file)
        file.close()

    def _discard(self, file: Any, key: str) -> None:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            self._ops.unlink(self._at(key))


def write_all(file: Any, buffers: Iterable[Buffer]) -> int:
    """Write buffers one behind the other, without joining them; returns the bytes written."""
    total = 0
    views = [memoryview(b).cast("B") for b in buffers if memoryview(b).nbytes]
    fd = _descriptor(file)
    writev = getattr(os, "writev", None) if fd is not None else None
    while views:
        done = writev(fd, views[:_IOV_MAX]) if writev is not None else file.write(views[0])
        total += done
        while views and done >= views[0].nbytes:
            done -= views[0].nbytes
            views.pop(0)
        if done:
            views[0] = views[0][done:]
    return total


def _descriptor(file: Any) -> int | None:
    """That of a file of this system; None for one on a server."""
    try:
        return int(file.fileno())
    except io.UnsupportedOperation:
        return None


def read_range(ops: Ops, path: str, start: int, stop: int | None) -> bytes:
    """Bytes `start` to `stop` of a file, as a slice would give them."""
    with ops.open_read(path) as file:
        first, last, _ = slice(start, stop).indices(file.seek(0, os.SEEK_END))
        file.seek(first)
        blocks = []
        left = last - first
        while left > 0 and (block := file.read(left)):
            blocks.append(block)
            left -= len(block)
    return b"".join(blocks)


def same_content(ops: Ops, path: str, other: str) -> bool:
    """Whether two files hold the same bytes."""
    with ops.open_read(path) as one, ops.open_read(other) as two:
        while True:
            block = one.read(_COPY_BYTES)
            if block != two.read(_COPY_BYTES):
                return False
            if not block:
                return True


def stage_copy(ops: Ops, source: str, stager: Stager, kept: StagedObject) -> StagedObject:
    """Stage the bytes of a file under the path of `kept`."""
    with (
        ops.open_read(source) as file,
        stager.open(kept.path, publisher=kept.publisher) as out,
    ):
        while block := file.read(_COPY_BYTES):
            out.write(block)
    return out.receipt


def copy_file(source: Any, target: Any) -> int:
    """Append a whole file; inside the kernel where it can be (copy_file_range(2)). Returns its size."""
    left = size_bytes = int(source.seek(0, os.SEEK_END))
    source.seek(0)
    in_kernel = hasattr(os, "copy_file_range") and _descriptor(source) is not None
    while left:
        if in_kernel:
            try:
                done = os.copy_file_range(source.fileno(), target.fileno(), left)
            except OSError:
                in_kernel = False
                continue
            if done == 0:
                break
            left -= done
            continue
        block = source.read(min(left, _COPY_BYTES))
        if not block:
            break
        write_all(target, [block])
        left -= len(block)
    return size_bytes
