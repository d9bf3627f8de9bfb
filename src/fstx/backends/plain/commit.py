"""The commit of plain targets: compare, decide by one record, then bring what was decided to its names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fstx.backends.base import wrap_storage_error
from fstx.backends.manifest.names import IDS
from fstx.backends.plain.base import contents
from fstx.backends.plain.claims import Decided, Ledger, Pointer
from fstx.backends.plain.compare import Content, told
from fstx.backends.plain.names import gone_key, is_notice, ops_key, staged_prefix, told_for
from fstx.backends.plain.ops import Op, pack, stamp
from fstx.backends.plain.placing import noticed
from fstx.backends.plain.project import Projection
from fstx.backends.plain.staging import HELD, PLACED, key_checksum
from fstx.backends.plain.sweep import is_ours
from fstx.errors import (
    ConflictError,
    FencedError,
    InDoubtError,
    PathError,
    StorageError,
    TargetExistsError,
    TransactionError,
)
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.paths import is_below, parents
from fstx.state.entries import Delta, Entry
from fstx.state.records import digest
from fstx.types import Snapshot, StagedObject

if TYPE_CHECKING:
    from fstx.backends.manifest.log import Appender
    from fstx.backends.plain.transaction import PlainTransaction
    from fstx.changes import Changes

INLINE_BYTES = 24 << 10
"""The record holds the steps up to about this size; larger ones lie in an object of their own."""


class Commit:
    """One commit. Made after everything staged in this process is in the storage.

    Raises
    ------
    ConflictError, TargetExistsError, StorageError, PathError
        By the constructor: nothing was decided.
    """

    def __init__(self, tx: PlainTransaction, changes: Changes, when_s: float) -> None:
        self._tx = tx
        self._home = tx.home
        self._changes = changes
        self._when_s = int(when_s)
        self._staged = {tx.place(path): receipt for path, receipt in changes.staged.items()}
        self._size_bytes = sum(r.size_bytes for r in self._staged.values())
        if tx.desk.sent:  # workers that go on put nothing more; what they put before is found below
            self._home.store.put_new(gone_key(tx.txid), b"\n")
        self._left = {i.key: i for i in self._home.store.list(staged_prefix(tx.txid))}
        self._now = contents(self._home.parent, tx.names)
        try:
            self._drop_strays()
            self._compare()
            self._ops = tuple(self._steps())
            self._check_kinds()
            self._decided = self._decision()
        except (ConflictError, TargetExistsError, StorageError) as error:
            if tx.txid not in self._home.refresh().claims:
                raise self._fenced() from error
            raise

    # --- before the record ---------------------------------------------------------------------------

    def _drop_strays(self) -> None:
        """Remove what was put at final names for this transaction and is not wanted any more."""
        tx = self._tx
        placer = tx.desk.placer
        wanted = {p for p, r in self._staged.items() if r.key.startswith(PLACED)}
        own = {*placer.parts, *wanted}
        if any(is_notice(k) and k not in placer.notices for k in self._left):
            before = tx.before()
            elsewhere = noticed(self._home.store, tx.txid, tx.names, skip=placer.notices)
            own.update(
                place
                for place, parts in elsewhere.items()
                if place in self._now
                and place not in own
                and place not in before
                and is_ours(self._home.parent, place, parts)
            )
        self._own = own
        strays = [p for p in own if p in self._now and p not in self._staged]
        if strays:
            self._home.parent.delete(strays)
            for place in strays:
                del self._now[place]

    def _compare(self) -> None:
        """Everything staged is there, and the targets are as this transaction saw them."""
        tx = self._tx
        for place, receipt in self._staged.items():
            if receipt.key.startswith(PLACED):
                self._check_placed(place, receipt)
            elif not receipt.key.startswith(HELD):
                info = self._left.get(receipt.key)
                if info is None or info.size_bytes != receipt.size_bytes:
                    raise StorageError(
                        f"the staged bytes of {receipt.path!r} are not there",
                        txid=tx.id,
                        outcome="aborted",
                    )
        for place, before in tx.touched.items():
            if place not in self._own and stamp(self._now.get(place)) != before:
                raise self._changed(place)
        for tree, known in tx.trees.items():
            found = {k: stamp(i) for k, i in self._now.items() if is_below(k, tree)}
            if {k: s for k, s in found.items() if k not in self._own} != known:
                raise self._changed(tree)
        if tx.mode == "update":
            return
        base = {k: stamp(i) for k, i in tx.base.all().items()}
        for place, info in self._now.items():
            if place not in self._own and base.get(place) != stamp(info):
                raise self._changed(place)
        gone = next((k for k in base if k not in self._now), None)
        if gone is not None:
            raise self._changed(gone)

    def _check_placed(self, place: str, receipt: StagedObject) -> None:
        info = self._now.get(place)
        content = self._tx.desk.contents.get(place) or Content(
            receipt.size_bytes, key_checksum(receipt, self._tx.txid)
        )
        if info is None:
            raise StorageError(
                f"{self._home.url}/{place} was put and is not there any more",
                txid=self._tx.id,
                outcome="aborted",
            )
        if told(info, content) is False:
            raise self._changed(place)

    def _changed(self, place: str) -> Exception:
        kind = TargetExistsError if self._tx.mode == "create" else ConflictError
        return kind(
            f"{self._home.url}/{place} was changed by another program meanwhile; nothing was published. "
            "Read it again and retry",
            txid=self._tx.id,
            outcome="aborted",
        )

    # --- the steps ---------------------------------------------------------------------------------

    def _steps(self) -> Iterator[Op]:
        tx = self._tx
        for place, receipt in self._staged.items():
            if receipt.key.startswith(PLACED):
                continue
            last = receipt.publisher or place == tx.entry_place
            base = stamp(self._now.get(place))
            if receipt.key.startswith(HELD):
                data = tx.desk.held(receipt.key)
                assert data is not None
                yield Op("publisher" if last else "part", place, base, len(data), inline=data)
            else:
                yield Op(
                    "publisher" if last else "part",
                    place,
                    base,
                    receipt.size_bytes,
                    key_checksum(receipt, tx.txid),
                    receipt.key,
                )
        for place in self._going():
            yield Op("remove", place, stamp(self._now[place]))

    def _going(self) -> list[str]:
        """Places of the base that hold nothing afterwards."""
        tx = self._tx
        tops = {tx.place(path) for path in self._changes.removed}
        if tx.mode == "replace" and self._staged:
            roots = {place.partition("/")[0] for place in self._staged}
            tops |= roots
        return [
            place
            for place in self._now
            if place not in self._staged and any(is_below(place, top) for top in tops)
        ]

    def _check_kinds(self) -> None:
        """PathError where a staged object would be a directory as well, or the reverse."""
        going = set(self._going())
        files = {k for k in self._now if k not in going} | set(self._staged)
        folders = {folder for key in files for folder in parents(key)}
        for place in self._staged:
            clash = (
                place if place in folders else next((f for f in parents(place) if f in files), None)
            )
            if clash is not None:
                raise PathError(f"{place!r}: a path can't be a file and a directory ({clash})")

    def _decision(self) -> Decided:
        tx = self._tx
        decided = Decided(tx.names, self._when_s, tx.entry_place, tx.mark, self._ops)
        size = sum(len(op.inline or b"") * 4 // 3 + len(op.path) + 120 for op in self._ops)
        if size <= INLINE_BYTES:
            return decided
        data = pack(self._ops)
        key = ops_key(tx.txid)
        self._home.store.put(key, data)
        pointer = Pointer(key, len(data), digest(data))
        return Decided(tx.names, self._when_s, tx.entry_place, tx.mark, None, pointer)

    # --- the record ----------------------------------------------------------------------------------

    def run(self) -> Snapshot:
        """Decide and publish. When this raises, the error says whether the targets changed."""
        tx = self._tx
        marks = [tx.mark, *(told_for(tx.id, name) for name in tx.names)] if tx.mark else []
        own = Delta({f"{IDS}{mark}": Entry(0, inline=b"") for mark in marks}) if marks else None
        running: list[Appender] = []
        try:
            outcome, appender = self._home.appending(
                "commit",
                tx.txid,
                lambda ledger: ledger.swept(tx.cleaned).decide(tx.txid, self._decided),
                self._judge,
                self._landed,
                own=own,
                made=running.append,
            )
        except BaseException as error:
            if running:
                self._interrupted(error)
            elif isinstance(error, OSError) and not isinstance(error, TransactionError):
                tx._abandon(error)  # the log could not be read: nothing was put
                raise wrap_storage_error(error, f"committing to {tx.url}", tx.id) from error
            raise
        if isinstance(outcome, m.Landed | m.Moot):
            return self._publish()
        if isinstance(outcome, v.Aborted):
            raise self._aborted(outcome.reason, appender.cause)
        raise self._doubt(appender.cause)

    def _judge(self, ledger: Ledger) -> m.Verdict:
        if self._landed(ledger):
            return "moot"
        return "free" if self._tx.txid in ledger.claims else "gone"

    def _landed(self, ledger: Ledger) -> bool:
        return self._tx.txid in ledger.decided or self._tx.txid in ledger.finished

    def _publish(self) -> Snapshot:
        """The record has landed: from here on nothing is an error any more."""
        projection = Projection(self._home, self._tx.txid, self._decided)
        pending, reason = True, ""
        try:
            outcome = projection.run()
            pending = not (isinstance(outcome, v.Committed) and not outcome.pending)
            if not pending:
                self._home.tidy()
        except Exception as error:  # noqa: BLE001 - decided all the same: told, not raised
            reason = f"not finished: {error!r}"
        except BaseException as error:
            error.add_note(
                f"transaction {self._tx.id} is decided; fstx.recover finishes its publication"
            )
            self._tx._state = "committed"
            self._tx._snapshot = self._snapshot(True, "interrupted")
            raise
        if pending and projection.cause is not None:
            reason = f"not finished, the next transaction here or fstx.recover goes on: {projection.cause}"
        return self._snapshot(pending, reason)

    def _snapshot(self, pending: bool, reason: str) -> Snapshot:
        return Snapshot(
            self._tx.id,
            tuple(f"{self._home.url}/{name}" for name in self._tx.names),
            "plain",
            len(self._staged),
            self._size_bytes,
            pending=pending,
            reason=reason,
        )

    # --- what became of it ---------------------------------------------------------------------------

    def _aborted(self, reason: str, cause: BaseException | None) -> Exception:
        tx = self._tx
        made: Exception
        if reason == "gone":
            made = self._fenced()
        else:
            tx._abandon(cause if cause is not None else RuntimeError(reason))
            if isinstance(cause, StorageError):
                return cause
            if isinstance(cause, OSError):
                made = wrap_storage_error(cause, f"committing to {tx.url}", tx.id)
            else:
                made = StorageError(
                    f"committing to {tx.url} failed ({reason})", txid=tx.id, outcome="aborted"
                )
        made.__cause__ = cause
        return made

    def _fenced(self) -> FencedError:
        tx = self._tx
        return FencedError(
            f"transaction {tx.id} on {tx.url} was given up for dead while it went on, and what it staged "
            "was removed; begin anew",
            txid=tx.id,
            outcome="aborted",
        )

    def _doubt(self, cause: BaseException | None) -> InDoubtError:
        tx = self._tx
        made = InDoubtError(
            f"{tx.url}: storage did not say whether transaction {tx.id} was committed; don't retry, ask "
            f"fstx.outcome({tx.url!r}, {tx.id!r})",
            txid=tx.id,
            outcome="unknown",
        )
        made.__cause__ = cause
        return made

    def _interrupted(self, error: BaseException) -> None:
        """Ctrl-C or a defect in the middle: find out, and make sure that nothing lands later."""
        tx = self._tx
        if tx._state == "committed":
            return
        try:
            tx.fence()
            if self._landed(self._home.refresh()):
                tx._state = "committed"
                tx._snapshot = self._publish()
                error.add_note(f"transaction {tx.id} was committed before the interrupt")
                return
            tx.give_up()
        except Exception as second:  # noqa: BLE001 - the interrupt is the one to raise
            error.add_note(f"whether transaction {tx.id} landed is unknown: {second!r}")
            tx._state = "in doubt"


__all__ = ["Commit"]
