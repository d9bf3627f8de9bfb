"""Staging for plain targets: straight at the final name where that is safe, else in the home.

Safe is a new name that readers find through the entry alone. What is staged in the home is copied to its
name after the commit's record.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fstx.backends.manifest.names import new_attempt, split_attempt
from fstx.backends.manifest.staging import ObjectStager, StagedWriter
from fstx.backends.manifest.uploads import Uploads
from fstx.backends.plain.compare import Content, Running, content_of
from fstx.backends.plain.names import opens_key, staged_prefix
from fstx.backends.plain.placing import Part, Placer, opens
from fstx.errors import ConflictError, StateError
from fstx.paths import check_path
from fstx.state.entries import checksum, data_key
from fstx.stores import Store
from fstx.types import StagedObject

PLACED = "placed/"
HELD = "held/"
PUBLISHER_BYTES = 256 << 10
"""Publishers up to this size wait in memory, and go into the commit's record or its steps."""

SMALL_BYTES = 2048
"""So do other objects that are copied forward, up to this size."""

HELD_BYTES = 4 << 20
_AT_ONCE = 64


@dataclass(frozen=True)
class Rules:
    """Which objects may be put at their final names at once.

    Parameters
    ----------
    entry
        The entry's place, relative to the parent; None: readers enter anywhere, so nothing may.
    open_roots
        Targets in which new names are found through the entry alone.
    fresh
        Nothing was in these targets at the beginning.
    """

    entry: str | None
    open_roots: frozenset[str] = frozenset()
    fresh: bool = True

    def direct(self, place: str, publisher: bool) -> bool:
        """Whether a new object may go to `place` before the commit."""
        if self.entry is None or publisher or place == self.entry:
            return False
        if "#" in place.rpartition("/")[2]:
            return False  # a piece that is going to be composed
        return place.partition("/")[0] in self.open_roots


class Desk:
    """What the stagers of one transaction share in its own process.

    ``taken`` tells whether something was at a place at the beginning; ``look`` looks at all of it.
    """

    def __init__(
        self,
        parent: Store,
        home: Store,
        txid: str,
        taken: Callable[[str], bool],
        look: Callable[[], object] = lambda: None,
    ) -> None:
        self.txid = txid
        self.taken = taken
        self.sent = False  # a stager went to another process
        self._look = look
        self.placer = Placer(parent, home, txid)
        self.uploads = Uploads(_Routes(home, self.placer), txid, count=_AT_ONCE)  # type: ignore[arg-type]
        self._lock = threading.Lock()
        self._held: dict[str, bytes] = {}
        self._held_bytes = 0
        self._count = 0
        self.contents: dict[str, Content] = {}  # of what was put at final names, by place

    def place(self, place: str, data: bytes, content: Content) -> bool:
        """Begin to put at the final name; False where this transaction put something else there."""
        with self._lock:
            before = self.contents.setdefault(place, content)
        if before is not content:
            return before == content
        self.uploads.put(place, data, _Routes.named(content))
        return True

    def send(self) -> None:
        """A stager goes to another process: from here on what lies there may be its work, not the base."""
        if not self.sent:
            self._look()
            self.sent = True

    def reserve(self, place: str) -> bool:
        """Whether `place` is free for a large object; it is not free any more then."""
        with self._lock:
            if place in self.contents:
                return False
            self.contents[place] = Content(-1, "")  # equal to no other
            return True

    def hold(self, data: bytes) -> str | None:
        """Keep an object in memory; None where too much is held already."""
        with self._lock:
            if self._held_bytes + len(data) > HELD_BYTES:
                return None
            self._count += 1
            key = f"{HELD}{self._count}"
            self._held[key] = data
            self._held_bytes += len(data)
        return key

    def held(self, key: str) -> bytes | None:
        """The content of an object that is held."""
        return self._held.get(key)

    def drop(self, key: str) -> None:
        with self._lock:
            data = self._held.pop(key, None)
            self._held_bytes -= len(data or b"")

    def settle(self) -> None:
        """Everything staged in this process is in the storage; StorageError where it is not."""
        self.placer.flush()
        self.uploads.settle()

    def wait(self) -> None:
        """Nothing is under way any more, whatever became of it."""
        try:
            self.placer.flush()
        finally:
            self.uploads.wait()
            self.placer.close()


class _Routes:
    """What `Uploads` puts into: the home, or a final name."""

    def __init__(self, home: Store, placer: Placer) -> None:
        self._home = home
        self._placer = placer

    @staticmethod
    def named(content: Content) -> str:
        return f"{content.checksum} {content.md5}"

    def start_put(self, key: str, data: bytes, /, *, checksum: str = "") -> Future[None]:
        sum_, direct, md5 = checksum.partition(" ")
        if not direct:
            return self._home.start_put(key, data, checksum=sum_)
        return self._placer.start(Part(key, Content(len(data), sum_, md5)), data)


class PlacedWriter(StagedWriter):
    """Writer of one object that goes straight to its final name once it is large."""

    def __init__(self, stager: PlainStager, path: str, publisher: bool) -> None:
        super().__init__(stager, path, publisher)
        self._plain = stager
        self._place = stager.full(path)
        self._running: Running | None = None

    def _spill(self) -> None:
        if self._running is None and self._writer is None:
            with self._plain.failing(self.path):
                writer = self._plain.open_place(self._place, self._publisher)
            if writer is not None:
                self._writer, self._running = writer, Running()
        if self._running is not None:
            self._running.add(self._buffer)
        super()._spill()

    def finish(self) -> None:
        """Complete the object."""
        if self._running is None:
            super().finish()
            return
        self.closed = True
        if self._buffer:
            self._spill()
        with self._plain.failing(self.path):
            content = self._running.content()
            self._plain.complete(self._place, content, self._writer)
        self._receipt = self._plain.receipt(
            self.path, f"{PLACED}{new_attempt('')}", self._size_bytes, self._publisher
        )


class PlainStager(ObjectStager):
    """Stages objects of one transaction, from any thread; pickled, from any process or host.

    Parameters
    ----------
    parent, home
        Where the targets lie, and their home.
    txid
        The transaction.
    prefix
        What stands before the transaction's paths: the target's name, or "" where they begin with it.
    rules
        What may go to its final name at once.
    desk
        Of the coordinator's process; None elsewhere.
    """

    def __init__(
        self,
        parent: Store,
        home: Store,
        txid: str,
        prefix: str,
        rules: Rules,
        desk: Desk | None = None,
    ) -> None:
        super().__init__(home, txid, prefix)
        self.parent = parent
        self.rules = rules
        self._own = desk

    def __repr__(self) -> str:
        return f"<stager of transaction {self.txid[:12]} at {self.parent.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._own is not None and self.rules.open_roots:
            self._own.send()
        return (PlainStager, (self.parent, self.store, self.txid, self.prefix, self.rules))

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[StagedWriter]:
        """A writer; leaving the block completes the object, an exception discards it."""
        check_path(path)
        file = PlacedWriter(self, path, publisher)
        try:
            yield file
            file.finish()
        except BaseException:
            file.discard()
            raise

    def open_place(self, place: str, publisher: bool) -> Any:
        """A writer at the final name, put if absent; None where that is not safe, or not possible."""
        make = getattr(self.parent, "open_if", None)
        if make is None or not self.rules.direct(place, publisher) or self._taken(place):
            return None
        if self._own is not None and not self._own.reserve(place):
            return None
        if hasattr(self.parent, "abort_uploads"):  # so that whoever sweeps knows of the upload
            self.store.put(opens_key(self.txid), opens(place))
        return make(place, None)

    def complete(self, place: str, content: Content, writer: Any) -> None:
        """Put the object of `open_place`."""
        desk = self._own
        if desk is None:
            Placer(self.parent, self.store, self.txid).complete(Part(place, content), writer)
        else:
            desk.placer.complete(Part(place, content), writer)
            desk.contents[place] = content

    def keep(self, path: str, data: bytes, publisher: bool) -> StagedObject:
        """Put at the final name, hold in memory, or put into the home."""
        place = self.full(path)
        if self.rules.direct(place, publisher) and not self._taken(place):
            content = content_of(data, self.parent)
            if self._place(path, place, data, content):
                key = f"{PLACED}{new_attempt(content.checksum)}"
                return self.receipt(path, key, len(data), publisher)
        desk = self._own
        if desk is not None and len(data) <= (PUBLISHER_BYTES if publisher else SMALL_BYTES):
            held = desk.hold(data)
            if held is not None:
                return self.receipt(path, held, len(data), publisher)
        sum_ = checksum([data])
        key = self.key_of(path, sum_)
        if desk is not None:
            desk.uploads.put(key, data, sum_)
        else:
            with self.failing(path):
                self.store.put(key, data, checksum=sum_)
        return self.receipt(path, key, len(data), publisher)

    def _taken(self, place: str) -> bool:
        # What was there must not be taken for ours, even with the same content: it would go with us.
        if self.rules.fresh:
            return False
        if self._own is not None:
            return self._own.taken(place)
        with self.failing(place):
            return self.parent.info(place) is not None

    def _place(self, path: str, place: str, data: bytes, content: Content) -> bool:
        if self._own is not None:
            return self._own.place(place, data, content)
        try:
            with self.failing(path):
                Placer(self.parent, self.store, self.txid).now(Part(place, content), data)
        except ConflictError:
            # Perhaps another attempt of the same task with other bytes: the coordinator finds out.
            return False
        return True

    def key_of(self, path: str, sum_: str) -> str:
        return data_key(self.txid, self.full(path), new_attempt(sum_))


def key_checksum(receipt: StagedObject, txid: str) -> str:
    """The checksum in a receipt's key ("" where it is not known); StateError where it is no key of `txid`."""
    key = receipt.key
    if key.startswith(PLACED):
        attempt = split_attempt(key[len(PLACED) :])
    else:
        attempt = split_attempt(key.rpartition("~")[2])
        if not key.startswith(staged_prefix(txid)) or ".." in key.split("/"):
            attempt = None
    if attempt is None or attempt[1] == "rm":
        raise StateError(
            f"the receipt of {receipt.path!r} names no object of transaction {txid}: {key!r}",
            txid=txid,
        )
    return attempt[1]


__all__ = [
    "HELD",
    "PLACED",
    "Desk",
    "PlainStager",
    "Rules",
    "key_checksum",
]
