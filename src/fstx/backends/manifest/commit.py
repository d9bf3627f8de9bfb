"""One commit: the record that follows the head, built anew where the head moved on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from fstx.backends.base import wrap_storage_error
from fstx.backends.manifest import conflicts
from fstx.backends.manifest.building import Builder, writer_name
from fstx.backends.manifest.dataset import Version
from fstx.backends.manifest.fencing import fence
from fstx.backends.manifest.log import Appender, Head, Since
from fstx.backends.manifest.names import owner_of
from fstx.backends.manifest.survey import CHANGES, alive
from fstx.errors import (
    ConflictError,
    FencedError,
    InDoubtError,
    StorageError,
    TargetExistsError,
    TransactionError,
)
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.state.entries import Delta
from fstx.state.records import Record
from fstx.types import Snapshot

if TYPE_CHECKING:
    from fstx.backends.manifest.transaction import ManifestTransaction


class Commit:
    """Appends the record of one transaction, and says what became of it."""

    INLINE_BYTES = 8 << 10
    """Held-back objects up to this total go into the record; more of them into a pack."""

    def __init__(self, tx: ManifestTransaction, own: Delta, when_s: float) -> None:
        self._tx = tx
        self._dataset = tx.dataset
        self._own = own
        self._when_s = when_s
        # what comes meanwhile may lie over what this puts, where it touches nothing of it
        apart = tx.policy != "last" and not tx.directories
        self._builder = Builder(tx.dataset, tx.txid, own, reuses=apart)
        self._paths = len(own.puts) - bool(tx.mark) - tx.directories
        self._size_bytes = sum([e.size_bytes for e in own.puts.values()])
        self._reason = ""
        self._decided = False

    def run(self, *, settle: Callable[[], None], dropped: Iterable[str]) -> Snapshot:
        """Commit; when this raises, the error says whether the dataset changed."""
        head, since = self._dataset.known_since(self._tx.begun)
        appender = Appender(
            self._dataset.log,
            head,
            self._tx.txid,
            self._build,
            self._judge,
            settle=settle,
            landed_unseen=self._landed_unseen,
        )
        appender.since = since
        try:
            outcome = self._before_any(appender) or appender.run()
            match outcome:
                case m.Landed(slot):
                    return self._landed(appender, slot, dropped)
                case m.Moot():
                    return self._before()
                case v.Aborted(reason):
                    made = self._error(reason, appender.cause)
                    self._decided = True
                    self._clear(made)
                    raise made
                case _:
                    self._decided = True
                    raise self._doubt(appender.cause)
        except BaseException as error:
            if not self._decided:
                self._interrupted(appender, error)
            raise

    def _before_any(self, appender: Appender) -> m.Moot | v.Aborted | None:
        """What the log said already when the commit began; None: it may land."""
        if appender.head.seq <= self._tx.begun:
            return None
        try:
            verdict = self._judge(appender.head, appender.since)
        except OSError as error:
            appender.cause = error
            return v.Aborted("failed")
        if verdict == "free":
            return None
        return (
            m.Moot()
            if verdict == "moot"
            else v.Aborted("gone" if verdict == "gone" else "conflict")
        )

    def _clear(self, error: BaseException) -> None:
        self._tx.clear_away(error, self._builder.packs)

    # --- the record ---------------------------------------------------------------------------------

    def _build(self, head: Head, since: Since) -> Record:
        state, own, in_tree = self._builder.state(head, since)
        return Record(
            seq=head.seq + 1,
            kind="commit",
            txid=self._tx.txid,
            nonce=self._tx.txid,
            begun=self._tx.begun,
            prev=head.digest,
            state=state,
            own=own,
            own_in_tree=in_tree,
            paths=self._paths,
            size_bytes=self._size_bytes,
            when_s=self._when_s,
            writer=writer_name(),
            message=self._tx.message,
            info={},
        )

    def _judge(self, head: Head, since: Since) -> m.Verdict:
        tx = self._tx
        now = Version(head, self._dataset.store, self._dataset.cache)
        if tx.mark and now.mark(tx.mark) is not None:
            return "moot"
        if conflicts.gone(head, tx.txid, tx.begun):
            return "gone"
        if tx.has_links and tx.begun and not alive(head.state, tx.begun):
            self._reason = (
                f"version {tx.begun}, of which it copied, was retired and may be collected"
            )
            return "conflict"
        if tx.policy == "last":
            return "free"
        if tx.policy == "fail" and (since is None or any(r.kind in CHANGES for r in since)):
            self._reason = "something was committed since, and the policy is 'fail'"
            return "conflict"
        try:
            found = conflicts.met(tx.touched(), tx.base, now, since)
        except FileNotFoundError:
            if alive(head.state, tx.begun):
                raise
            self._reason = (
                f"version {tx.begun}, on which it began, was collected, so that nothing tells what "
                "others changed since"
            )
            return "conflict"
        if found is None:
            return "free"
        self._reason = f"{found!r} was changed by another commit since version {tx.begun}"
        return "conflict"

    def _landed_unseen(self, head: Head) -> int | None:
        """Where records are gone from the log: found by the objects that only this transaction staged."""
        now = Version(head, self._dataset.store, self._dataset.cache)
        for path, entry in self._own.puts.items():
            if owner_of(entry.key) == self._tx.txid:
                found = now.get(path)
                if found is not None and found.key == entry.key:
                    return head.seq
        return None

    # --- what became of it ---------------------------------------------------------------------------

    def _landed(self, appender: Appender, slot: int, dropped: Iterable[str]) -> Snapshot:
        snapshot = Snapshot(
            self._tx.id,
            (self._tx._url,),
            "manifest",
            self._paths,
            self._size_bytes,
            version=slot,
        )
        self._over(snapshot)  # whatever comes now, it is committed
        try:
            self._dataset.note(appender)
            named = {e.key for e in self._own.puts.values()}
            keys = [key for key in dropped if key not in named]
            if appender.record is not None and appender.record.seq == slot:
                keys += self._builder.unused()
            if keys:
                self._dataset.store.delete(keys)
        except Exception as error:  # noqa: BLE001 - committed; collect removes them later
            snapshot = replace(
                snapshot, reason=f"superseded objects were left for collect: {error}"
            )
        return snapshot

    def _before(self) -> Snapshot:
        found = Snapshot(self._tx.id, (self._tx._url,), "manifest", 0, 0, reason="committed before")
        self._over(found)
        self._clear(RuntimeError())  # what is left is for collect
        return found

    def _over(self, snapshot: Snapshot) -> None:
        self._decided = True
        self._tx._snapshot = snapshot
        self._tx._state = "committed"

    def _error(self, reason: str, cause: BaseException | None) -> Exception:
        tx = self._tx
        made: Exception
        if reason == "gone":
            made = FencedError(
                f"transaction {tx.id} on {tx._url} was given up for dead while it went on; begin anew",
                txid=tx.id,
                outcome="aborted",
            )
        elif reason == "conflict" and tx.mode == "create":
            made = TargetExistsError(
                f"{tx._url} was created by another writer meanwhile: {self._reason}",
                txid=tx.id,
                outcome="aborted",
            )
        elif reason == "conflict":
            made = ConflictError(
                f"{tx._url}: {self._reason}; read it again and retry", txid=tx.id, outcome="aborted"
            )
        elif isinstance(cause, StorageError):
            return cause
        elif isinstance(cause, OSError):
            made = wrap_storage_error(cause, f"committing to {tx._url}", tx.id)
        else:
            made = StorageError(f"committing to {tx._url} failed", txid=tx.id, outcome="aborted")
        made.__cause__ = cause
        return made

    def _doubt(self, cause: BaseException | None) -> InDoubtError:
        made = InDoubtError(
            f"{self._tx._url}: storage did not say whether transaction {self._tx.id} was committed; don't "
            f"retry, ask fstx.outcome({self._tx._url!r}, {self._tx.id!r})",
            txid=self._tx.id,
            outcome="unknown",
        )
        made.__cause__ = cause
        return made

    def _interrupted(self, appender: Appender, error: BaseException) -> None:
        """Ctrl-C or a defect in the middle: find out, and fence what may still land."""
        tx = self._tx
        if not appender.tried:
            self._decided = True
            self._clear(error)
            return
        tx._state = "in doubt"  # also if the next Ctrl-C comes
        try:
            outcome = appender.run(m.Append.cancel)
            if not isinstance(outcome, m.Landed):
                outcome = fence(self._dataset, [tx.txid], tx.begun)
            if isinstance(outcome, m.Landed):
                self._landed(appender, outcome.slot, ())
        except BaseException as second:  # noqa: BLE001 - the first one is the one to raise
            _tell(error, "unknown")
            error.add_note(f"whether transaction {tx.id} landed is unknown: {second!r}")
            return
        if isinstance(outcome, m.Landed):
            _tell(error, "committed")
            error.add_note(f"transaction {tx.id} was committed before the interrupt")
            return
        tx._state = "rolled back"
        _tell(error, "aborted")
        self._clear(error)


def _tell(error: BaseException, outcome: str) -> None:
    if isinstance(error, TransactionError):
        error.outcome = outcome
