"""Open files: readers that keep what they opened, writers that publish nothing after an error."""

from __future__ import annotations

import io
import sys
import warnings
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from fsspec.spec import AbstractBufferedFile

from fstx.errors import StateError
from fstx.filesystem import operations as op
from fstx.filesystem.listing import file_info
from fstx.filesystem.places import Place
from fstx.filesystem.sessions import Seen, Session
from fstx.types import Buffer


class ReadFile(AbstractBufferedFile):  # type: ignore[misc]
    """Reads one file of a dataset as it was when it was opened, whatever is committed meanwhile."""

    def __init__(self, fs: Any, session: Session, place: Place, **options: Any) -> None:
        self._seen, self._entry = op.entry_of(session, place)
        options.pop("size", None)
        options.pop("autocommit", None)
        super().__init__(fs, place.name, "rb", size=self._entry.size_bytes, **options)
        self._details = file_info(place.name, self._entry, self._seen.version)

    @property
    def details(self) -> Any:
        """As `info` of the file system gives it."""
        return self._details

    @details.setter
    def details(self, value: Any) -> None:
        self._details = value

    def _fetch_range(self, start: int, end: int) -> bytes:
        stop = min(end, self._entry.size_bytes)
        return self._seen.read(self._entry, start, stop) if stop > start else b""


class DiscardedError(Exception):
    """Thrown into a writer to discard what it wrote."""


class WriteFile(io.IOBase):
    """Writes one file. Closing publishes it, or puts it into the running transaction.

    Nothing is published when the ``with`` block is left by an exception, also where the file is wrapped as
    text, compressed or by `fsspec.open`, nor when the file is dropped without having been closed.

    Parameters
    ----------
    append
        Begin with the content that is there.
    new
        The path must be absent.
    autocommit
        False: closing completes the file, `commit` publishes and `discard` drops it.
    """

    def __init__(
        self,
        fs: Any,
        session: Session,
        place: Place,
        *,
        append: bool = False,
        new: bool = False,
        autocommit: bool = True,
    ) -> None:
        self._over = True  # until there is something to discard
        self.fs = fs
        self.path = place.name
        self.mode = "ab" if append else "xb" if new else "wb"
        self.autocommit = autocommit
        self._before = sys.exc_info()[1]
        self._change = ExitStack()
        self._object = ExitStack()
        self._written = 0
        try:
            self._file = self._enter(session, place, append, new)
        except BaseException as error:
            self._leave(error)
            raise
        self._over = False

    def _enter(self, session: Session, place: Place, append: bool, new: bool) -> Any:
        if place.dataset is None:
            if append and session.places.target.fs.exists(place.real):
                before = op.pieces(session, place)
            else:
                before = iter(())
            file = self._change.enter_context(op.writer(session, place, new=new))
        else:
            change = (
                session.creating(place)
                if new
                else session.change(place, policy="rebase" if append else "last", fresh=append)
            )
            tx = self._change.enter_context(change)
            path = op.must_fit(tx, place)
            entry = tx.view().get(place.path) if append else None
            before = iter(())
            if entry is not None and not entry.directory:
                if hasattr(tx, "touched"):
                    tx.read(path, 0, 0)  # the commit depends on it
                before = op.content(Seen(None, tx.read_entry, None, True), entry)
            file = self._object.enter_context(tx.open(path))
            open_files_of(tx).append(self)
            self._tx = tx
        for data in before:
            file.write(data)
            self._written += len(data)
        return file

    # --- writing ------------------------------------------------------------------------------------

    def write(self, data: Buffer, /) -> int:
        """Append; returns the number of bytes."""
        size = memoryview(data).nbytes
        if self.closed:
            if self._over and self._discarding:
                return size  # a wrapper ends its stream into nothing
            raise ValueError(f"I/O operation on the closed file {self.path!r}")
        self._file.write(data)
        self._written += size
        return size

    _discarding = False

    def tell(self) -> int:
        """Bytes written so far."""
        return self._written

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return not self.closed

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Only to where the file is already."""
        there = {0: offset, 1: self._written + offset, 2: self._written + offset}.get(whence)
        if there != self._written:
            raise OSError(29, "objects are written from front to end", self.path)
        return self._written

    def flush(self, force: bool = False) -> None:
        """Nothing: bytes become visible with the commit."""

    def __repr__(self) -> str:
        return f"<{'closed' if self.closed else 'open'} file {self.path}, {self.mode}>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self.path}: a file that is being written can't be sent elsewhere")

    # --- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Complete the file; publish it, or put it into the running transaction."""
        if self.closed:
            return
        error = sys.exc_info()[1]
        if error is not None and error is not self._before and _in_exit():
            self.discard(error)
            return
        super().close()
        if self._over:
            return
        try:
            self._object.close()
            if self.autocommit:
                self._over = True
                self._change.close()
        except BaseException as failure:
            self._leave(failure)
            raise

    def commit(self) -> None:
        """Publish a file that was opened with ``autocommit=False``."""
        if not self.closed:
            self.close()
        if not self._over:
            self._over = True
            self._change.close()

    def discard(self, error: BaseException | None = None) -> None:
        """Drop what was written; nothing of it is left."""
        self._discarding = True
        self._leave(error)
        super().close()

    def _leave(self, error: BaseException | None) -> None:
        """Leave the contexts by an exception; the first error stays the one that is told."""
        self._over = True
        thrown = error if error is not None else DiscardedError(self.path)
        for stack in (self._object, self._change):
            try:
                stack.__exit__(type(thrown), thrown, thrown.__traceback__)
            except BaseException as second:  # noqa: BLE001 - it is `thrown` again, or a failed cleanup
                if second is not thrown:
                    thrown.add_note(f"discarding {self.path} failed as well: {second!r}")

    def __enter__(self) -> WriteFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        if error is not None and not self.closed:
            self.discard(error)
        else:
            self.close()

    def __del__(self) -> None:
        if not self._over:
            warnings.warn(
                f"{self.path} was opened for writing and never closed; what was written is discarded",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            self.discard()


class TextFile(io.TextIOWrapper):
    """Text over a `WriteFile`; an exception in the block discards."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None and isinstance(self.buffer, WriteFile | Compressed):
            self.buffer.discard(error)
        self.close()


class Compressed(io.IOBase):
    """A compressor over a `WriteFile`: closing ends the stream and then the file."""

    def __init__(self, stream: Any, file: WriteFile) -> None:
        self._stream = stream
        self._file = file
        self.path = file.path

    def write(self, data: Buffer, /) -> int:
        """Compress and append."""
        size: int = self._stream.write(data)
        return size

    def tell(self) -> int:
        """Bytes before compression."""
        return int(self._stream.tell())

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return not self.closed

    def flush(self) -> None:
        """Nothing: bytes become visible with the commit."""

    def close(self) -> None:
        """End the stream, then the file."""
        if self.closed:
            return
        error = sys.exc_info()[1]
        if error is not None and error is not self._file._before and _in_exit():
            self._file.discard(error)
        super().close()
        self._stream.close()
        self._file.close()

    def discard(self, error: BaseException | None = None) -> None:
        """Drop what was written."""
        self._file.discard(error)

    def __enter__(self) -> Compressed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        if error is not None:
            self.discard(error)
        self.close()

    def __del__(self) -> None:
        """Nothing: the file below tells that it was not closed."""


def open_files_of(tx: Any) -> list[WriteFile]:
    """Files that are being written into `tx`: those that were closed drop out."""
    found: list[WriteFile] = tx.__dict__.setdefault("_open_files", [])
    found[:] = [f for f in found if not f.closed]
    return found


def must_be_closed(tx: Any) -> None:
    """StateError while a file is being written into `tx`: its bytes would be lost without a word."""
    still = open_files_of(tx)
    if still:
        raise StateError(
            f"{still[0].path} is still open for writing; close it before the transaction ends",
            txid=tx.txid,
        )


def _in_exit() -> bool:
    """Whether a ``with`` statement of somebody is just being left."""
    frame = sys._getframe(2)
    for _ in range(16):
        if frame.f_code.co_name == "__exit__":
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


__all__ = ["Compressed", "DiscardedError", "ReadFile", "TextFile", "WriteFile", "must_be_closed"]
