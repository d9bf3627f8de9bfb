"""Uploads in the background: a bounded window, and the first failure kept."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future

from fstx.backends.base import wrap_storage_error
from fstx.errors import StorageError
from fstx.stores import Store
from fstx.types import Buffer

COUNT = 24
SIZE_BYTES = 24 << 20


class Uploads:
    """Puts objects while the caller goes on; waits where more are under way than the window takes.

    Memory: at most `size_bytes` of objects under way, or one object that is larger.

    Parameters
    ----------
    store
        Where they go.
    txid
        For errors.
    """

    def __init__(
        self, store: Store, txid: str, *, count: int = COUNT, size_bytes: int = SIZE_BYTES
    ) -> None:
        self._store = store
        self._txid = txid
        self._count = count
        self._size_bytes = size_bytes
        self._changed = threading.Condition()
        self._under_way = 0
        self._held_bytes = 0
        self.failure: BaseException | None = None
        self.others: list[BaseException] = []

    def put(self, key: str, data: Buffer, checksum: str) -> None:
        """Begin one upload. `data` must not change any more.

        Raises
        ------
        StorageError
            An earlier upload failed; no other is under way any more.
        """
        size = len(data)
        ticket = _Ticket(self, size)
        try:
            with self._changed:
                self._changed.wait_for(lambda: self.failure is not None or self._has_room(size))
                if self.failure is not None:
                    self._changed.wait_for(lambda: not self._under_way)
                self._raise()
                ticket.begin()
            future = self._store.start_put(key, data, checksum=checksum)
            future.add_done_callback(lambda f: ticket.end(_failure_of(f)))
        except BaseException as error:
            ticket.end(error)
            raise

    def _has_room(self, size_bytes: int) -> bool:
        few = self._under_way < self._count
        return not self._under_way or (few and self._held_bytes + size_bytes <= self._size_bytes)

    def settle(self) -> None:
        """Wait until nothing is under way; StorageError if an upload failed."""
        self.wait()
        self._raise()

    def wait(self) -> None:
        """Wait until nothing is under way, whatever became of it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)

    def _count_in(self, size: int, sign: int, error: BaseException | None) -> None:
        with self._changed:
            self._under_way += sign
            self._held_bytes += sign * size
            if error is not None and self.failure is None:
                self.failure = error
            elif error is not None:
                self.others.append(error)
            self._changed.notify_all()

    def _raise(self) -> None:
        failure = self.failure
        if failure is None:
            return
        if isinstance(failure, StorageError):
            raise failure
        if isinstance(failure, OSError):
            made = wrap_storage_error(failure, "an upload failed", self._txid)
            made.others = tuple(self.others)
            raise made from failure
        if isinstance(failure, Exception) and not isinstance(failure, CancelledError):
            raise failure
        raise StorageError(
            "an upload was interrupted", txid=self._txid, outcome="aborted"
        ) from failure


class _Ticket:
    """One upload: counted once, and no more once it ended, however often and wherever that is told."""

    def __init__(self, uploads: Uploads, size_bytes: int) -> None:
        self._uploads = uploads
        self._size_bytes = size_bytes
        self._lock = threading.Lock()
        self._counted = False

    def begin(self) -> None:
        with self._lock:
            self._counted = True
            self._uploads._count_in(self._size_bytes, 1, None)

    def end(self, error: BaseException | None) -> None:
        with self._lock:
            if self._counted:
                self._counted = False
                self._uploads._count_in(self._size_bytes, -1, error)


def _failure_of(future: Future[None]) -> BaseException | None:
    return CancelledError() if future.cancelled() else future.exception()
