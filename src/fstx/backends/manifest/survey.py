"""What a log holds: its records, each in a few words, and which versions can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fstx.backends.manifest.log import Head, Log
from fstx.backends.manifest.names import LOG, log_key, seq_of
from fstx.errors import RecoveryError
from fstx.state.records import Record
from fstx.state.view import State

THREADS = 16
KEPT = "kept"
"""Member of ``State.extra``: versions older than ``oldest`` that are kept all the same."""

CHANGES = frozenset({"commit", "restore"})
"""Kinds of records that make a version; the others leave the paths as they are."""

_HELD = 200
_LOOKS = 5
_BATCH = 64

Tell = Callable[[int], None]


def kept_of(state: State) -> frozenset[int]:
    """Versions before ``state.oldest`` that are kept."""
    found = state.extra.get(KEPT, ())
    if not isinstance(found, list | tuple):
        return frozenset()
    return frozenset(v for v in found if type(v) is int and v > 0)


def alive(state: State, version: int) -> bool:
    """Whether a version that was committed is kept, so far as this state knows."""
    return version >= state.oldest or version in kept_of(state)


@dataclass(frozen=True, slots=True)
class Row:
    """A record without its state."""

    seq: int
    kind: str
    txid: str
    when_s: float
    modified_s: float | None
    writer: str
    message: str
    paths: int
    size_bytes: int
    prev: str
    digest: str


@dataclass
class Survey:
    """All effective records of a log at one moment.

    Parameters
    ----------
    head
        The newest one.
    rows
        By number; records at or below `boundary` count no more and are not among them.
    damaged
        Records that can't be read, with the reason.
    """

    head: Head
    rows: dict[int, Row] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)
    boundary: int = 0
    states: dict[int, State] = field(default_factory=dict)

    @property
    def txids(self) -> set[str]:
        """Transactions that are committed, as far as the log reaches back."""
        return {row.txid for row in self.rows.values() if row.kind in CHANGES}

    def readable(self, state: State) -> list[int]:
        """Numbers of all records whose version is kept by `state`, ascending; damaged ones too."""
        return [s for s in sorted({*self.rows, *self.damaged}) if alive(state, s)]

    def versions(self, state: State) -> list[Row]:
        """The records that changed paths and whose version is kept, ascending."""
        rows = (self.rows[s] for s in self.readable(state) if s in self.rows)
        return [row for row in rows if row.kind in CHANGES]


def survey(log: Log, tell: Tell = lambda n: None) -> Survey:
    """Read the whole log.

    Raises
    ------
    RecoveryError
        Its newest record is damaged, or records are missing above the boundary.
    """
    for _ in range(_LOOKS):
        found = _attempt(log, tell)
        if found is not None:
            return found
    raise RecoveryError(
        f"{log.store.url}/{LOG}: records vanished {_LOOKS} times between listing and reading"
    )


def _attempt(log: Log, tell: Tell) -> Survey | None:
    modified = {seq_of(i.key): i.modified_s for i in log.store.list(LOG)}
    seqs = [s for s in modified if s is not None]
    # after the listing: what lies at or below it may be a sleeper's late record
    boundary = log.boundary()
    if not seqs:
        return Survey(Head()) if not boundary else None
    last = max(seqs)
    if last <= boundary:
        return None
    found = Survey(Head(), boundary=boundary)
    missing = []
    for seq, head in read_many(log, range(boundary + 1, last + 1)):
        tell(1)
        if isinstance(head, RecoveryError):
            found.damaged[seq] = str(head)
        elif head is None:
            missing.append(seq)
        else:
            _note(found, head, modified.get(seq))
    if missing and log.boundary() < max(missing):
        raise RecoveryError(
            f"{log.store.url}/{log_key(missing[0])} is missing, though records around it are there; "
            "restore the object"
        )
    if last in found.damaged:
        raise RecoveryError(found.damaged[last])
    return found if found.head.seq == last else None


def _note(found: Survey, head: Head, modified_s: float | None) -> None:
    record = head.record
    assert record is not None
    found.rows[head.seq] = row_of(record, head.digest, modified_s)
    found.states[head.seq] = head.state
    if len(found.states) > _HELD:
        del found.states[min(found.states)]
    if head.seq > found.head.seq:
        found.head = head


def row_of(record: Record, digest: str, modified_s: float | None) -> Row:
    return Row(
        record.seq,
        record.kind,
        record.txid,
        record.when_s,
        modified_s,
        record.writer,
        record.message,
        record.paths,
        record.size_bytes,
        record.prev,
        digest,
    )


def read_many(log: Log, seqs: Iterable[int]) -> Iterator[tuple[int, Head | RecoveryError | None]]:
    """Records in the order of `seqs`, some at a time: None for one that is not there."""

    def read(seq: int) -> Head | RecoveryError | None:
        try:
            return log.read(seq)
        except RecoveryError as error:
            return error

    left = list(seqs)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="fstx-log") as pool:
        for start in range(0, len(left), _BATCH):
            part = left[start : start + _BATCH]
            yield from zip(part, pool.map(read, part), strict=True)


__all__ = [
    "CHANGES",
    "KEPT",
    "THREADS",
    "Row",
    "Survey",
    "Tell",
    "alive",
    "kept_of",
    "read_many",
    "row_of",
    "survey",
]
