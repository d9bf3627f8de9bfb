"""Uploads in the background: a bounded window, and the first failure kept."""

from __future__ import annotations

import threading
from concurrent.futures import Future

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
            An earlier upload failed.
        """
        size = len(data)
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self.failure is not None
                    or not self._under_way
                    or (
                        self._under_way < self._count
                        and self._held_bytes + size <= self._size_bytes
                    )
                )
            )
            self._raise()
            self._under_way += 1
            self._held_bytes += size
        try:
            future = self._store.start_put(key, data, checksum=checksum)
        except BaseException as error:
            self._done(size, error)
            raise
        future.add_done_callback(lambda f: self._finished(f, size))

    def settle(self) -> None:
        """Wait until nothing is under way; StorageError if an upload failed."""
        self.wait()
        self._raise()

    def wait(self) -> None:
        """Wait until nothing is under way, whatever became of it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)

    def _finished(self, future: Future[None], size: int) -> None:
        self._done(size, None if future.cancelled() else future.exception())

    def _done(self, size: int, error: BaseException | None) -> None:
        with self._changed:
            self._under_way -= 1
            self._held_bytes -= size
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
        raise failure
