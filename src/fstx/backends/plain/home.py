"""The home of plain targets: ``.fstx`` beside them, with a log that decides and remembers claims."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from fstx.backends.manifest.building import Builder, service_record
from fstx.backends.manifest.dataset import Dataset, Version, check_marker, marker
from fstx.backends.manifest.log import Appender, Head, Since
from fstx.backends.manifest.names import BOUNDARY, boundary_key, log_key, new_txid, seq_of
from fstx.backends.plain.claims import Ledger
from fstx.backends.plain.names import KIND, MARKER
from fstx.errors import InDoubtError, StorageError
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.paths import CONTROL_NAME
from fstx.state.entries import Delta
from fstx.state.records import Record
from fstx.stores import Proof, Store

_CUT_AFTER = 16
_KNOWN = 64

Judge = Callable[[Ledger], m.Verdict]
Change = Callable[[Ledger], Ledger]
Seen = Callable[[Ledger], bool]


class Home:
    """One place for all transactions whose targets lie directly below `parent`. Thread-safe.

    Parameters
    ----------
    parent
        Rooted where the targets lie.
    """

    def __init__(self, parent: Store) -> None:
        self.parent = parent
        self.store = parent.below(CONTROL_NAME)
        self.dataset = Dataset(self.store)
        self._proof: Proof | None = None
        self._marked = False
        self._cut_at = 0  # records up to this are known to be gone
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the targets lie."""
        return self.parent.url.rstrip("/")

    def __repr__(self) -> str:
        return f"<home of {self.url}>"

    def proof(self) -> Proof:
        """What the storage is proven to do."""
        with self._lock:
            if self._proof is None:
                self._proof = self.parent.probe()
            return self._proof

    # --- the marker ----------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether transactions were here; RecoveryError for a marker that is not ours."""
        if not self._marked:
            try:
                data = self.store.get(MARKER)
            except FileNotFoundError:
                return False
            check_marker(data, f"{self.store.url}/{MARKER}", KIND)
            self._marked = True
        return True

    def create(self) -> None:
        """Put the marker, where it is not yet."""
        for _ in range(5):
            if self.exists():
                return
            self.store.put_new(MARKER, marker(KIND, self.parent.identity))
        raise StorageError(f"{self.store.url}/{MARKER} can't be written", outcome="aborted")

    # --- the log ---------------------------------------------------------------------------------

    def refresh(self) -> Ledger:
        """What is open now."""
        return self.ledger(self.dataset.refresh().head)

    def ledger(self, head: Head) -> Ledger:
        """What was open at a head."""
        return Ledger.of(head.state, f"{self.store.url}/{log_key(head.seq)}")

    def version(self) -> Version:
        """The newest state, with the ids that are remembered in it."""
        return self.dataset.refresh()

    def append(
        self,
        kind: str,
        txid: str,
        change: Change,
        judge: Judge,
        seen: Seen,
        *,
        own: Delta | None = None,
    ) -> v.Outcome | m.Landed | m.Moot:
        """Append one record that changes the ledger.

        Parameters
        ----------
        kind, txid
            Of the record.
        change
            The ledger after it, made of the one before; called again where others came between.
        judge
            ``"free"``, ``"conflict"``, ``"gone"`` or ``"moot"`` for a ledger.
        seen
            Where records between are gone: whether a ledger shows that this one had landed.
        own
            What changes in the tree: an id that is remembered.
        """
        return self.appending(kind, txid, change, judge, seen, own=own)[0]

    def appending(
        self,
        kind: str,
        txid: str,
        change: Change,
        judge: Judge,
        seen: Seen,
        *,
        own: Delta | None = None,
        settle: Callable[[], None] = lambda: None,
        made: Callable[[Appender], None] = lambda appender: None,
    ) -> tuple[v.Outcome | m.Landed | m.Moot, Appender]:
        """As `append`; also what appended, for who has to find out more after an interrupt."""
        builder = Builder(self.dataset, txid, own) if own else None
        nonce = new_txid()

        def build(head: Head, since: Since) -> Record:
            after = change(self.ledger(head))
            record = service_record(kind, head, after.into(head.state), nonce)
            if builder is None:
                return replace(record, txid=txid)
            state, delta, in_tree = builder.state(head, since)
            return replace(
                record, txid=txid, state=after.into(state), own=delta, own_in_tree=in_tree
            )

        head = self.dataset.refresh().head
        appender = Appender(
            self.dataset.log,
            head,
            nonce,
            build,
            lambda at, since: judge(self.ledger(at)),
            settle=settle,
            landed_unseen=lambda at: at.seq if seen(self.ledger(at)) else None,
        )
        made(appender)
        verdict = judge(self.ledger(head))
        if verdict == "moot":
            return m.Moot(), appender
        if verdict != "free":
            return v.Aborted("conflict" if verdict == "conflict" else "gone"), appender
        outcome = appender.run()
        if isinstance(outcome, m.Landed):
            self.dataset.note(appender)
        return outcome, appender

    def service(self, kind: str, txid: str, change: Change, judge: Judge, seen: Seen) -> bool:
        """Append a record that only needs to be there in the end; True where it was not needed.

        Raises
        ------
        StorageError, InDoubtError
            It could not be appended, or nobody can tell.
        """
        outcome, appender = self.appending(kind, txid, change, judge, seen)
        if isinstance(outcome, m.Landed):
            return False
        if isinstance(outcome, m.Moot):
            return True
        text = f"{self.url}: the log could not be written"
        if isinstance(outcome, v.Aborted):
            raise StorageError(text, txid=txid, outcome="aborted") from appender.cause
        raise InDoubtError(text, txid=txid, outcome="unknown") from appender.cause

    # --- keeping it small --------------------------------------------------------------------------

    def tidy(self, *, least: int = _CUT_AFTER) -> int:
        """Delete old records where nothing is under way; returns how many went.

        The newest one holds everything. Never raises for storage: whoever comes next tries again.
        """
        head = self.dataset.current().head
        if head.seq - self._cut_at < least + 1 or self.ledger(head).active:
            return 0
        try:
            self._cut_at = max(self._cut_at, self.dataset.log.boundary())
            return self._cut(head.seq) if head.seq - self._cut_at > least else 0
        except OSError:
            return 0

    def _cut(self, newest: int) -> int:
        seqs = [n for n in self.dataset.log.seqs() if n < newest]
        if not seqs:
            return 0
        self.dataset.log.raise_boundary(newest - 1)
        self._cut_at = newest - 1
        found = [seq_of(info.key) for info in self.store.list(BOUNDARY)]
        older = [boundary_key(n) for n in found if n is not None and n < newest - 1]
        self.store.delete([log_key(n) for n in seqs] + older)
        return len(seqs)


_homes: OrderedDict[tuple[str, str], Home] = OrderedDict()
_homes_lock = threading.Lock()


def home_of(parent: Store) -> Home:
    """The home beside targets in `parent`; one object for one place, so that its probe is kept."""
    # With other credentials it is another one; they are compared by a hash, and not kept.
    options = repr(getattr(getattr(parent, "link", None), "_given", ""))
    key = (parent.identity, hashlib.sha256(options.encode()).hexdigest())
    with _homes_lock:
        found = _homes.get(key)
        if found is None:
            found = _homes[key] = Home(parent)
            while len(_homes) > _KNOWN:
                _homes.popitem(last=False)
        else:
            _homes.move_to_end(key)
        return found


def forget() -> None:
    """Forget all homes: after a fork, or in tests."""
    with _homes_lock:
        _homes.clear()


__all__ = ["Home", "forget", "home_of"]
