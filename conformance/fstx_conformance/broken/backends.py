"""Backends that do one thing wrong, made of right ones."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from fstx.errors import StorageError, TransactionError
from fstx.types import Capability, Guarantee, OutcomeState, Promise, Recovery
from fstx_conformance.broken.over import OverBackend, OverTransaction


class _Late(OverTransaction):
    def commit(self) -> Any:
        """It landed, and then the clean-up is said to have failed."""
        made = self.inner.commit()
        raise StorageError(
            f"{self.inner.url}: the staging area could not be removed",
            txid=self.inner.id,
            outcome="aborted",
        ) from RuntimeError(f"after {made.txid}")


class RaisesLate(OverBackend):
    """After the commit point a failed clean-up is raised as a failed commit."""

    transaction = _Late


class _Keyless(OverTransaction):
    def __init__(self, backend: Any, inner: Any, id: str) -> None:
        super().__init__(backend, inner)
        self.id = id


class ForgetsIds(OverBackend):
    """The caller's id is for show: each run of it is another transaction."""

    def begin(self, *, id: str | None = None, **asked: Any) -> Any:
        """Another id, drawn at random."""
        if id is None:
            return self.inner.begin(**asked)
        return _Keyless(self, self.inner.begin(id=f"{id} {secrets.token_hex(4)}", **asked), id)

    def outcome(self, id: str, /) -> OutcomeState:
        """As below, where nobody knows that id."""
        found: OutcomeState = self.inner.outcome(id)
        return found


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


class Younger(OverBackend):
    """Collects all staged data that no version needs, whoever staged them: as if age told who is dead."""

    def recover(self, **asked: Any) -> Recovery:
        """By what is reached now."""
        from fstx_conformance.subjects.urls import unreached

        dataset = self.inner.dataset
        store = dataset.store
        found: Recovery = self.inner.recover(**asked)
        store.delete(unreached(dataset, store) if dataset.exists() else [])
        return found


class NoFence(OverBackend):
    """Recovery removes what a dead writer staged, and does not keep it from publishing."""

    def recover(self, **asked: Any) -> Recovery:
        """No record of the log says who is given up."""
        from fstx.backends.manifest.names import DATA

        dataset = self.inner.dataset
        keys = [info.key for info in dataset.store.list(DATA)]
        if dataset.exists():
            from fstx_conformance.subjects.urls import unreached

            keys = unreached(dataset, dataset.store)
        dataset.store.delete(keys)
        return Recovery(self.inner.url)


__all__ = [
    "ClaimsMore",
    "ForgetsIds",
    "NeverSettles",
    "NoFence",
    "RaisesLate",
    "TransactionError",
    "Younger",
]
