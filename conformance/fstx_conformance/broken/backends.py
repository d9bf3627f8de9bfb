"""Backends that do one thing wrong, made of right ones."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any, ClassVar

from fstx.errors import StorageError, TransactionError
from fstx.types import Capability, Guarantee, Promise, Recovery
from fstx_conformance.broken.over import OverBackend
from fstx_conformance.subjects.urls import unreached


class RaisesLate(OverBackend):
    """After the commit point a clean-up that failed is raised as a failed commit."""

    def begin(self, **asked: Any) -> Any:
        """It lands, and says that it did not."""
        tx = self.inner.begin(**asked)
        land = tx.commit

        def commit() -> Any:
            land()
            raise StorageError(
                f"{tx.url}: the staging area could not be removed", txid=tx.id, outcome="aborted"
            )

        tx.commit = commit
        return tx


class ForgetsIds(OverBackend):
    """The caller's id is for show: each run of it is another transaction."""

    def begin(self, *, id: str | None = None, **asked: Any) -> Any:
        """Another id, drawn at random."""
        if id is None:
            return self.inner.begin(id=None, **asked)
        tx = self.inner.begin(id=f"{id} {secrets.token_hex(4)}", **asked)
        tx._id = id
        return tx


class ClaimsMore(OverBackend):
    """Says of everything that it is promised."""

    claimed = frozenset(Capability)

    def guarantee(self, **asked: Any) -> Guarantee:
        """Kept, without proof."""
        told = super().guarantee(**asked)
        rows = tuple(
            Promise(p.capability, True, p.reason) if p.capability in self.claimed else p
            for p in told.promises
        )
        return replace(told, promises=rows)


class LooksAtAll(OverBackend):
    """Each file of the target is looked at when a transaction begins."""

    def begin(self, **asked: Any) -> Any:
        """One call for each file."""
        tx = self.inner.begin(**asked)
        for path in tx.paths():
            self.inner._ops.lstat(f"{self.inner._paths[0]}/{path}")
        return tx


class NeverSettles(OverBackend):
    """Recovery gives up where it finds something to do."""

    def recover(self, **asked: Any) -> Recovery:
        """Refused, each time."""
        raise StorageError(f"{self.inner.url}: recovery is under way elsewhere")


class DeletesByAge(OverBackend):
    """Recovery removes all staged data that no version needs, as if their age told whose they are."""

    def recover(self, **asked: Any) -> Recovery:
        """Also what an active writer staged."""
        dataset = self.inner.dataset
        dataset.store.delete(unreached(dataset, dataset.store))
        return super().recover(**asked)


class NotReentrant(OverBackend):
    """Recovery marks that it runs, and refuses to run where the mark of another one is."""

    def recover(self, **asked: Any) -> Recovery:
        """A recoverer that dies leaves its mark for ever."""
        ops, mark = self.inner._ops, f"{self.inner._paths[0]}.recovering"
        try:
            with ops.open_new(mark):
                pass
        except FileExistsError:
            raise StorageError(f"{self.inner.url}: another recovery is under way") from None
        try:
            return super().recover(**asked)
        finally:
            ops.unlink(mark)


class Leaks(OverBackend):
    """Errors tell what was used to reach the storage."""

    SECRET = "open-sesame-1001"

    def begin(self, **asked: Any) -> Any:
        """Refusals name the key."""
        try:
            return self.inner.begin(**asked)
        except TransactionError as error:
            error.args = (f"{error} (as user kit, secret_key={self.SECRET})",)
            raise


class _Kept(dict[str, bytes]):
    def clear(self) -> None:
        """The other transaction's bytes are in it."""


class SharedState(OverBackend):
    """What is staged belongs to the target, not to the transaction that staged it."""

    _shared: ClassVar[dict[str, Any]] = {}

    def begin(self, **asked: Any) -> Any:
        """Two open transactions change one set."""
        tx = self.inner.begin(**asked)
        first = self._shared.setdefault(tx.url, tx)
        if first._state != "open":
            self._shared[tx.url] = first = tx
        if first is tx:
            tx._staged_bytes = _Kept()
        tx._changes = first._changes
        tx._staged_bytes = tx._stager._staged = first._staged_bytes
        return tx


class NoFence(OverBackend):
    """Recovery removes what a dead writer staged, and does not keep it from publishing."""

    def recover(self, **asked: Any) -> Recovery:
        """No record of the log says who is given up."""
        dataset = self.inner.dataset
        dataset.store.delete(unreached(dataset, dataset.store))
        return Recovery(self.inner.url)
