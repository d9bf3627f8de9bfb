"""Staging to an object store: immutable objects under names of their own, seen by nobody.

In the coordinator's process uploads run in the background and small objects are held back; a stager that was
sent elsewhere has put each object before it gives the receipt.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from fstx.backends.base import wrap_storage_error
from fstx.backends.given import as_buffers
from fstx.backends.manifest.names import joined_key, new_attempt
from fstx.backends.manifest.uploads import Uploads
from fstx.errors import PathError, StateError, StorageError
from fstx.paths import check_path
from fstx.state.entries import Entry, checksum, data_key
from fstx.stores import Store, StoreWriter
from fstx.types import Buffer, Data, StagedObject

HELD_BYTES = 2048
"""Objects up to this size are held back: inline in the record, or packed."""

PACK_BYTES = 4 << 20
PART_BYTES = 8 << 20
"""From this size on an object is written in parts."""

HELD = "held/"
PACK = "=pack"


class Desk:
    """What the stagers of one transaction share in its own process: uploads, and objects held back."""

    def __init__(self, store: Store, txid: str) -> None:
        self.store = store
        self.txid = txid
        self.uploads = Uploads(store, txid)
        self.shared = False  # others look for staged objects in the storage: nothing is held back
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._closed = False
        self._staging: set[object] = set()  # calls of stagers under way
        self._writers: weakref.WeakSet[StagedWriter] = weakref.WeakSet()  # in parts, open
        self._held: dict[str, bytes] = {}
        self._held_bytes = 0
        self._packed: dict[str, tuple[str, int]] = {}  # held key -> key of the pack, offset
        self._count = 0

    @contextmanager
    def staging(self) -> Iterator[None]:
        """A block that stages something; StateError once the transaction is over."""
        call = object()
        try:
            with self._changed:
                if self._closed:
                    raise StateError(
                        f"transaction {self.txid} is over; nothing more is staged", txid=self.txid
                    )
                self._staging.add(call)
            yield
        finally:
            with self._changed:
                self._staging.discard(call)
                self._changed.notify_all()

    def close(self) -> None:
        """From here on no stager stages, and none is at it."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._staging)

    def release(self) -> None:
        """Nothing is under way, open in parts or held in memory any more."""
        self.close()
        self.uploads.wait()
        for writer in list(self._writers):
            writer.discard()
        with self._lock:
            self._held, self._packed, self._held_bytes = {}, {}, 0

    def opened(self, writer: StagedWriter) -> None:
        """Know of a writer in parts, for `release`."""
        with self._lock:
            self._writers.add(writer)

    def hold(self, data: bytes) -> str:
        """Keep a small object; returns its key."""
        with self._lock:
            self._count += 1
            key = f"{HELD}{self._count}"
            self._held[key] = data
            self._held_bytes += len(data)
            full = self._held_bytes > PACK_BYTES
        if full:
            self.pack()
        return key

    def held(self, key: str) -> bytes | None:
        """The content of an object that was held back; None once it was packed."""
        with self._lock:
            return self._held.get(key)

    def packed(self, key: str) -> tuple[str, int] | None:
        """Where a packed object lies: key of the pack, and offset in it."""
        with self._lock:
            return self._packed.get(key)

    def has(self, key: str) -> bool:
        """Whether an object is held back or packed."""
        with self._lock:
            return key in self._held or key in self._packed

    def drop(self, key: str) -> None:
        with self._lock:
            data = self._held.pop(key, None)
            self._held_bytes -= len(data or b"")

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def settled(self, entries: Mapping[str, Entry]) -> dict[str, Entry]:
        """Entries as they are committed: of those held back, inline or with their place in a pack."""
        held, packed = self._held, self._packed
        found = dict(entries)
        for path, entry in entries.items():
            key = entry.key
            if not key.startswith(HELD):
                continue
            place = packed.get(key)
            if place is not None:
                found[path] = Entry(entry.size_bytes, place[0], place[1])
            elif key in held:
                found[path] = Entry(entry.size_bytes, inline=held[key])
            else:
                raise StateError(f"the content of {path!r} was used up already", txid=self.txid)
        return found

    def pack(self) -> None:
        """Put all that is held back as one object."""
        with self._lock:
            held, self._held, self._held_bytes = self._held, {}, 0
            if not held:
                return
            body = b"".join(held.values())
            sum_ = checksum([body])
            key = f"data/{self.txid}/{PACK}~{new_attempt(sum_)}"
            offset = 0
            for name, data in held.items():
                self._packed[name] = (key, offset)
                offset += len(data)
        self.uploads.put(key, body, sum_)


class StagedWriter:
    """Writer of one staged object: in memory while small, in parts from 8 MiB on."""

    def __init__(self, stager: ObjectStager, path: str, publisher: bool) -> None:
        self.path = path
        self._stager = stager
        self._publisher = publisher
        self._buffer = bytearray()
        self._size_bytes = 0
        self._writer: StoreWriter | None = None
        self._key = ""
        self._receipt: StagedObject | None = None
        self.closed = False

    def write(self, data: Buffer, /) -> int:
        """Append; returns the number of bytes."""
        if self.closed:
            raise ValueError(f"I/O operation on the closed file {self.path!r}")
        (view,) = as_buffers(self.path, data)
        self._buffer += view
        self._size_bytes += len(view)
        if len(self._buffer) >= PART_BYTES:
            self._spill()
        return len(view)

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing: bytes become visible at commit."""

    def tell(self) -> int:
        return self._size_bytes

    def close(self) -> None:
        """No more writes; the object is completed when the ``with`` block ends."""
        self.closed = True

    @property
    def receipt(self) -> StagedObject:
        """The receipt, once the block ended."""
        if self._receipt is None:
            raise StateError(
                f"{self.path!r} is not complete; its receipt comes when the block ends"
            )
        return self._receipt

    def _spill(self) -> None:
        with self._stager.staging(), self._stager.failing(self.path):
            if self._writer is None:
                self._key = self._stager.key_of(self.path, "")
                self._writer = self._stager.store.open(self._key)
                self._stager.opened(self)
            self._writer.write(bytes(self._buffer))
        self._buffer = bytearray()

    def finish(self) -> None:
        """Complete the object."""
        self.closed = True
        if self._writer is None:
            data = bytes(self._buffer)
            self._buffer = bytearray()
            self._receipt = self._stager.keep(self.path, data, self._publisher)
            return
        if self._buffer:
            self._spill()
        with self._stager.staging(), self._stager.failing(self.path):
            self._writer.close()
            self._writer = None
        self._receipt = self._stager.receipt(
            self.path, self._key, self._size_bytes, self._publisher
        )

    def discard(self) -> None:
        """Nothing of it is left."""
        self.closed = True
        self._buffer = bytearray()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()


class ObjectStager:
    """Stages objects of one transaction, from any thread; pickled, from any process or host.

    Parameters
    ----------
    store
        Of the dataset's control directory.
    txid
        The transaction.
    prefix
        Where the transaction's paths lie in the dataset; "" for its root.
    desk
        Of the coordinator's process; None elsewhere.
    joined
        True for one who joined by URL: the coordinator finds what was staged by listing.
    strip
        First part of the transaction's paths that the dataset's paths don't have.
    """

    def __init__(
        self,
        store: Store,
        txid: str,
        prefix: str,
        desk: Desk | None = None,
        *,
        joined: bool = False,
        strip: str = "",
    ) -> None:
        self.store = store
        self.txid = txid
        self.prefix = prefix
        self._desk = desk
        self.joined = joined
        self.strip = strip

    def __repr__(self) -> str:
        where = "" if self._desk is None else ", in the background"
        return f"<stager of transaction {self.txid[:12]} at {self.store.url}{where}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.store.probe().shared:
            raise TypeError(
                f"{self.store.url} can't be staged to from another process, which does not see it; use "
                "a thread scheduler or a target on storage"
            )
        return (_stager, (self.store, self.txid, self.prefix, self.joined, self.strip))

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage one whole object."""
        check_path(path)
        pieces = as_buffers(path, data)
        if sum(len(p) for p in pieces) >= PART_BYTES:
            with self.open(path, publisher=publisher) as file:
                for piece in pieces:
                    for start in range(0, len(piece), PART_BYTES):
                        file.write(piece[start : start + PART_BYTES])
            return file.receipt
        one = data if isinstance(data, bytes) else b"".join(pieces)
        return self.keep(path, one, publisher)

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[StagedWriter]:
        """A writer; leaving the block completes the object, an exception discards it."""
        check_path(path)
        file = StagedWriter(self, path, publisher)
        try:
            yield file
            file.finish()
        except BaseException:
            file.discard()
            raise

    # --- for the writer ----------------------------------------------------------------------------

    def keep(self, path: str, data: bytes, publisher: bool) -> StagedObject:
        """Hold `data` back where that pays, else put it."""
        with self.staging():
            return self._keep(path, data, publisher)

    def _keep(self, path: str, data: bytes, publisher: bool) -> StagedObject:
        desk = self._desk
        if desk is not None and len(data) <= HELD_BYTES and not desk.shared:
            return self.receipt(path, desk.hold(data), len(data), publisher)
        sum_ = checksum([data])
        key = self.key_of(path, sum_)
        if desk is not None:
            desk.uploads.put(key, data, sum_)
        else:
            with self.failing(path):
                self.store.put(key, data, checksum=sum_)
        return self.receipt(path, key, len(data), publisher)

    def receipt(self, path: str, key: str, size_bytes: int, publisher: bool) -> StagedObject:
        return StagedObject(path, key, size_bytes, self.txid, publisher)

    def key_of(self, path: str, sum_: str) -> str:
        make = joined_key if self.joined else data_key
        return make(self.txid, self.full(path), new_attempt(sum_))

    def full(self, path: str) -> str:
        """The path within the dataset."""
        if self.strip:
            path = path[len(self.strip) + 1 :]
            if not path:
                raise PathError(
                    f"{self.strip!r} is a dataset's root here, so it can't be a file; name a path in it"
                )
        return f"{self.prefix}/{path}" if self.prefix else path

    def logical(self, full: str) -> str:
        """The transaction's path of a path of the dataset."""
        path = full[len(self.prefix) + 1 :] if self.prefix else full
        return f"{self.strip}/{path}".rstrip("/") if self.strip else path

    def tree(self, path: str) -> str:
        """As `full`, for a tree: the target itself counts too."""
        if self.strip and path == self.strip:
            return self.prefix
        return self.full(path) if path else self.prefix

    def staging(self) -> AbstractContextManager[None]:
        """A block that stages something, known to the coordinator where it runs in its process."""
        return nullcontext() if self._desk is None else self._desk.staging()

    def opened(self, writer: StagedWriter) -> None:
        """`writer` writes in parts from here on."""
        if self._desk is not None:
            self._desk.opened(writer)

    @contextmanager
    def failing(self, path: str) -> Iterator[None]:
        """Storage's errors as StorageError that names the path."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise wrap_storage_error(error, f"staging {path!r}", self.txid) from error


def _stager(store: Store, txid: str, prefix: str, joined: bool, strip: str) -> ObjectStager:
    return ObjectStager(store, txid, prefix, joined=joined, strip=strip)
