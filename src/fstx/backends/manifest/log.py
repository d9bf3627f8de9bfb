"""The log of a dataset: reading its head, and appending by the machine `Append`.

A record holds the state before it and its own change, so the newest record alone tells the state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fstx import seams
from fstx.backends.manifest.names import BOUNDARY, LOG, boundary_key, log_key, seq_of
from fstx.errors import RecoveryError
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.state.records import Record, decode, digest, encode
from fstx.state.sealing import seal, unseal
from fstx.state.view import State
from fstx.stores import Answer, Store

_LOOKS = 5
_DIGITS = 2
_REMEMBERED = 4096  # transactions that a boundary's marker names; older ones must ask elsewhere


@dataclass(frozen=True)
class Head:
    """The newest record as last read, and the state after it. ``seq`` 0: nothing was committed yet."""

    seq: int = 0
    state: State = field(default_factory=State)
    digest: str = ""
    record: Record | None = None


@dataclass(frozen=True)
class Voided:
    """Nonces of the truncated records after number `since`, and their numbers."""

    since: int = 0
    txids: Mapping[str, int] = field(default_factory=dict)

    @property
    def through(self) -> int:
        """The greatest number that it tells of."""
        return max(self.txids.values(), default=0)


Since: TypeAlias = "tuple[Record, ...] | None"
"""Records after a head, oldest first; None where some of them are gone from the log."""


class Log:
    """Records of one dataset. Holds nothing but the store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self, seq: int) -> Head | None:
        """Record `seq`, or None where it is not, or not any more."""
        key = log_key(seq)
        try:
            data = self.store.get(key)
        except FileNotFoundError:
            return None
        where = f"{self.store.url}/{key}"
        record = decode(data, seq, where)
        return Head(seq, record.after, digest(data), record)

    def newest(self) -> Head:
        """The head, by listing.

        A key at or below the boundary is never the greatest one of a listing, but between listing and
        reading the record may be truncated, and put anew by a writer that slept: the boundary, read
        last, tells.
        """
        for _ in range(_LOOKS):
            seqs = self.seqs()
            if not seqs:
                return Head()
            found = self.read(seqs[-1])
            if found is not None and self.boundary() < found.seq:
                return found
        raise RecoveryError(
            f"{self.store.url}/{LOG}: its newest record went {_LOOKS} times between listing and reading; "
            "the storage does not read what it lists"
        )

    def seqs(self) -> list[int]:
        """Numbers of the records that are there, sorted."""
        found = (seq_of(info.key) for info in self.store.list(LOG))
        return sorted(seq for seq in found if seq is not None)

    def boundary(self) -> int:
        """Records up to this number count no more, whoever wrote them."""
        found = (seq_of(info.key) for info in self.store.list(BOUNDARY))
        return max((seq for seq in found if seq is not None), default=0)

    def forward(self, head: Head) -> tuple[Head, Since]:
        """Read on from `head`: the newest record, and all records between.

        The boundary is read after the records: a writer that slept may have put a record where one was
        deleted long ago, and only the boundary tells.
        """
        start = head
        since: list[Record] = []
        at = start
        while (following := self.read(at.seq + 1)) is not None:
            if following.record is None or following.record.prev != at.digest:
                break  # not the successor of what we know: the boundary decides below
            at = following
            since.append(following.record)
        if self.boundary() > start.seq or following is not None:
            return self.newest(), None
        return at, tuple(since)

    def forward_surely(self, head: Head) -> tuple[Head, Since]:
        """As `forward`, but what it returns is older than `head` where that record is not there any more.

        So it is where the dataset was deleted, and perhaps made anew. Costs no more requests: the names
        around `head` are listed instead of reading the record after it.
        """
        if not head.seq:
            return self.forward(head)
        following = head.seq + 1
        near = {seq_of(i.key) for i in self.store.list(log_key(head.seq)[:-_DIGITS])}
        if near.isdisjoint((head.seq, following)):
            return self.newest(), None
        if following in near or following % 10**_DIGITS == 0:
            return self.forward(head)
        return (head, ()) if self.boundary() <= head.seq else (self.newest(), None)

    def voided(self) -> Voided:
        """Transactions whose records the boundary voids, as its newest marker remembers them."""
        seq = self.boundary()
        if not seq:
            return Voided()
        key = boundary_key(seq)
        try:
            value = unseal(self.store.get(key), f"{self.store.url}/{key}")
        except FileNotFoundError:
            return Voided(since=seq)  # a newer marker came meanwhile
        since, txids = value.get("since"), value.get("txids")
        if not isinstance(since, int) or not isinstance(txids, dict):
            raise RecoveryError(
                f"{self.store.url}/{key} is damaged: it has no list of transactions"
            )
        return Voided(since, {str(t): int(n) for t, n in txids.items() if isinstance(n, int)})

    def raise_boundary(self, seq: int) -> None:
        """Nothing up to `seq` counts any more; the record after it must be there.

        The marker remembers which transactions the voided records were, so that a writer whose answer
        was lost still learns that it committed.
        """
        while True:
            before = self.boundary()
            known = self.voided()
            since, txids = known.since, dict(known.txids)
            for n in range(max(known.through, known.since) + 1, seq + 1):
                try:
                    head = self.read(n)
                except RecoveryError:
                    since = n  # damaged: nobody can tell whose it was
                    continue
                if head is not None and head.record is not None:
                    txids[head.record.nonce] = n
            if self.boundary() == before:
                break  # else another truncation deleted what was to be read
        for txid in sorted(txids, key=lambda t: txids[t])[: max(0, len(txids) - _REMEMBERED)]:
            since = max(since, txids.pop(txid))
        key = boundary_key(seq)
        answer = self.store.put_new(key, seal({"format": 1, "since": since, "txids": txids}))
        if answer is not Answer.DONE and self.boundary() < seq:
            raise OSError(f"{self.store.url}/{key} could not be written ({answer.value})")


Judge: TypeAlias = "Callable[[Head, Since], m.Verdict]"
Build: TypeAlias = Callable[[Head, Since], Record]


class Appender:
    """Performs `Append` for one record: at most one of its puts is ever effective.

    Parameters
    ----------
    log, head
        The log, and the newest record that is known.
    nonce
        Names this append: found in a record, that record is ours.
    build
        Makes the record that follows a head; called again where the head moved on.
    judge
        ``"free"``, ``"conflict"``, ``"gone"`` or ``"moot"`` for a head that moved on.
    landed_unseen
        Where records between are gone: whether ours was among them; None if that can't be told.
    """

    def __init__(
        self,
        log: Log,
        head: Head,
        nonce: str,
        build: Build,
        judge: Judge,
        *,
        settle: Callable[[], None] = lambda: None,
        landed_unseen: Callable[[Head], int | None] = lambda head: None,
        sleep: Callable[[float], None] = seams.pause,
    ) -> None:
        self.log = log
        self.head = head
        self.nonce = nonce
        self.build = build
        self.judge = judge
        self.settle = settle
        self.landed_unseen = landed_unseen
        self.sleep = sleep
        self.cause: BaseException | None = None  # of what was refused or stayed unknown
        self.record: Record | None = None
        self.since: Since = ()
        self.tried = 0  # the slot of the first put; 0: none was made
        self.own: int | None = None  # where a look found the record
        self._ready: tuple[int, str, bytes] | None = None

    def run(
        self, enter: Callable[[m.Append], Any] = m.Append.start
    ) -> v.Outcome | m.Landed | m.Moot:
        """Perform until the machine has its last word."""
        machine = m.Append(self.head.seq)
        state, then = enter(machine)
        while not isinstance(then, m.Landed | m.Moot | v.Aborted | v.InDoubt):
            state, then = machine.step(state, self._perform(then))
        return then

    def _perform(self, effect: Any) -> Any:
        try:
            match effect:
                case m.Settle():
                    self.settle()
                    return v.Done()
                case m.Put(slot):
                    return self._put(slot)
                case m.Bound(slot):
                    return m.Clear() if self.log.boundary() < slot else m.Overtaken()
                case m.Look():
                    return self._look()
                case m.Pause(turn):
                    self.sleep(random.uniform(0, min(2.0, 0.01 * 2**turn)))
                    return v.Done()
        except OSError as error:
            self.cause = error
            return v.Refused("failed") if isinstance(effect, m.Put | m.Settle) else v.Unknown()
        raise AssertionError(f"no effect {effect!r}")

    def _put(self, slot: int) -> Any:
        if slot != self.head.seq + 1:
            raise AssertionError(f"record {slot} does not follow {self.head.seq}")
        if self._ready is None or self._ready[:2] != (slot, self.head.digest):
            try:
                self.record = self.build(self.head, self.since)
            except FileNotFoundError as error:
                # nodes of a head that was retired and collected meanwhile; of the newest it is damage
                if self.log.forward(self.head)[0].seq == self.head.seq:
                    raise
                self.cause = error
                return m.Busy()
            self._ready = (slot, self.head.digest, encode(self.record))
        self.tried = self.tried or slot
        answer = self.log.store.put_new(log_key(slot), self._ready[2])
        return {
            Answer.DONE: v.Done(),
            Answer.TAKEN: m.Taken(),
            Answer.BUSY: m.Busy(),
            Answer.UNKNOWN: v.Unknown(),
        }[answer]

    def _look(self) -> Any:
        head, since = self.log.forward(self.head)
        # an interrupt may come between a look and its evaluation: what was found once stays found
        own = self.own or next((r.seq for r in since or () if r.nonce == self.nonce), None)
        self.own = own
        known = self.since is not None and since is not None
        self.head, self.since = head, (*(self.since or ()), *(since or ())) if known else None
        if own is not None:
            return m.Seen(head.seq, own, "free")
        if self.since is None and self.tried:
            voided = self.log.voided()
            self.own = own = voided.txids.get(self.nonce) or self.landed_unseen(head)
            if own is None and self.tried <= voided.since:
                raise ConnectionError(
                    f"{self.log.store.url}: records after {self.tried} are gone, and nothing tells "
                    "whether one of them was this one"
                )
            if own is not None:
                return m.Seen(head.seq, own, "free")
        return m.Seen(head.seq, None, self.judge(head, self.since))

    @property
    def landed(self) -> Head:
        """The head as it is after this append landed, as far as this process knows it."""
        if (
            self._ready is not None
            and self._ready[0] == self.head.seq + 1
            and self.record is not None
        ):
            return Head(self._ready[0], self.record.after, digest(self._ready[2]), self.record)
        return self.head
