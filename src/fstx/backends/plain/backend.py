"""The backend of plain URLs of object stores: ``s3://``, ``gs://``, ``az://`` and any other `Store`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from fstx.backends.base import refuse_missing, storage_errors
from fstx.backends.depots import StoreDepots
from fstx.backends.manifest.dataset import marked_above
from fstx.backends.manifest.names import DATA, new_txid, owner_of
from fstx.backends.manifest.resolve import top_of
from fstx.backends.plain import owner
from fstx.backends.plain.base import Base, occupied
from fstx.backends.plain.home import Home, home_of
from fstx.backends.plain.listings import forget_listings
from fstx.backends.plain.names import is_gone, mark_for, told_for
from fstx.backends.plain.promises import promises
from fstx.backends.plain.settle import LATE_S, LEASE_S, claim, clean, finish, living
from fstx.backends.plain.transaction import PlainTransaction
from fstx.errors import (
    CapabilityError,
    ConflictError,
    PathError,
    RecoveryError,
    TargetExistsError,
    TransactionError,
)
from fstx.paths import CONTROL_NAME, check_path, fold
from fstx.stores import Store
from fstx.stores.opening import open_store
from fstx.types import (
    Capability,
    Durability,
    Guarantee,
    Mode,
    OutcomeState,
    Recovery,
    Settled,
)

_GONE_S = 86_400.0  # so long a worker without coordinator may go on


class PlainBackend:
    """Targets that lie beside each other in an object store, readable with nothing of ours.

    Parameters
    ----------
    parent
        The store in which the targets lie.
    names
        Their names, directly below it.
    joined
        True when paths begin with the name of a target.
    above
        The store at the top, and the parent's path in it: a dataset there is refused.
    lease_s
        After so long without a sign a writer on another host counts as dead.
    """

    enters_by_document = True
    """Readers of a directory start at its document (``zarr.json``): it is put last, as an entry."""

    def __init__(
        self,
        parent: Store,
        names: Sequence[str],
        *,
        joined: bool,
        above: tuple[Store, str] | None = None,
        lease_s: float = LEASE_S,
        late_s: float = LATE_S,
        home: Home | None = None,
    ) -> None:
        self._names = tuple(names)
        for name in self._names:
            check_path(name)
        if len({fold(n) for n in names}) != len(names):
            raise PathError(
                f"targets of one transaction need names that differ by more than case, got {list(names)}"
            )
        self._joined = joined
        self._above = above
        self._lease_s = float(lease_s)
        self._late_s = float(late_s)
        self.home = home or home_of(parent)

    def __repr__(self) -> str:
        return f"PlainBackend({self.url})"

    @property
    def url(self) -> str:
        """The targets."""
        return ", ".join(f"{self.home.url}/{name}" for name in self._names)

    # --- the contract --------------------------------------------------------------------------

    def guarantee(
        self, *, mode: Mode, durability: Durability, entry: str | None = None
    ) -> Guarantee:
        """What is promised here, probed."""
        with self._storage_errors("asking what is promised"):
            taken = bool(occupied(self.home.parent, self._names))
            return self._promise(mode, durability, entry, taken)

    def begin(
        self,
        *,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability],
        entry: str | None = None,
        id: str | None = None,
    ) -> PlainTransaction:
        """Begin; settles first what dead writers left on these targets.

        Raises
        ------
        CapabilityError
            The storage can't promise what is required.
        TargetExistsError
            Mode ``create`` and a target holds something.
        ConflictError
            Another living transaction holds one of the targets.
        RecoveryError
            The place belongs to the ``tx::`` view, or what was left there can't be settled.
        """
        if entry is not None:
            check_path(entry)
        txid = new_txid()
        with self._storage_errors("beginning a transaction"):
            self._refuse_datasets()
            known = self.home.exists()
            mark = mark_for(id, self._names) if id is not None else ""
            done = left = False
            if known:
                finish(self.home, self._names)
                ledger = self.home.ledger(self.home.dataset.current().head)
                left = bool(ledger.claimed(self._names) or ledger.given_up(self._names))
                done = bool(mark and self.home.dataset.current().mark(mark) is not None)
            taken = occupied(self.home.parent, self._names)
            if mode == "create" and taken and not left and not done:
                raise self._exists(
                    taken[0]
                )  # before anything is written; asked again under the claim
            promised = self._promise(mode, durability, entry, bool(taken))
            self._must_commit()
            refuse_missing(promised, require)
            self.home.create()
            return self._begin(txid, mode, promised, require, entry, id, mark, done)

    def _begin(
        self,
        txid: str,
        mode: Mode,
        promised: Guarantee,
        require: frozenset[Capability],
        entry: str | None,
        id: str | None,
        mark: str,
        done: bool,
    ) -> PlainTransaction:
        sign = owner.opened(txid)
        try:
            cleaned: tuple[str, ...] = ()
            base = Base(self.home.parent, self._names, empty=True)
            if not done:
                ledger = claim(self.home, txid, self._names, mode, mark, lease_s=self._lease_s)
                cleaned = clean(self.home, ledger, self._names, late_s=self._late_s)
                base = Base(self.home.parent, self._names, empty=mode == "create")
            tx = PlainTransaction(
                self.home,
                txid=txid,
                names=self._names,
                joined=self._joined,
                base=base,
                url=self.url,
                guarantee=promised,
                mode=mode,
                entry=entry,
                require=require,
                id=id,
                mark=mark,
                life=sign,
                cleaned=cleaned,
            )
        except BaseException:
            owner.closed(txid)  # a claim that landed is a dead one's: the next one gives it up
            raise
        if done or (mark and self.home.version().mark(mark) is not None):
            if not done:
                tx.give_up()
            owner.closed(txid)
            tx._state = "committed"
            return tx
        try:
            self._look(tx, mode)
        except BaseException:
            with contextlib.suppress(OSError, TransactionError):
                tx.rollback()
            owner.closed(txid)
            raise
        return tx

    def _look(self, tx: PlainTransaction, mode: Mode) -> None:
        """Under the claim: nothing there, or what is there."""
        if mode == "create":
            taken = occupied(self.home.parent, self._names)
            if taken:
                raise self._exists(taken[0])
        elif mode == "replace":
            tx.base.all()

    def recover(self) -> Recovery:
        """Finish what is decided, take back what dead writers left; living ones are listed.

        Raises
        ------
        RecoveryError
            A state that it won't guess about; all others were settled first.
        """
        with self._storage_errors("recovering"):
            homes = [self.home, *(Home(self.home.parent.below(n)) for n in self._names)]
            settled: list[Settled] = []
            removed: list[str] = []
            failed: BaseException | None = None
            for home in homes:
                if not home.exists():
                    continue
                try:
                    self._recover(home, settled, removed)
                except RecoveryError as error:
                    failed = failed or error
            forget_listings(self.home.parent.url)
            if failed is not None:
                raise failed
            return Recovery(self.url, tuple(settled), tuple(removed))

    def _recover(self, home: Home, settled: list[Settled], removed: list[str]) -> None:
        failed: RecoveryError | None = None
        try:
            settled += finish(home, None)
        except RecoveryError as error:
            failed = error
        ledger = home.refresh()
        alive = living(home, ledger.claims, self._lease_s)
        for txid, why in alive.items():
            settled.append(Settled(txid, home.url, OutcomeState.ACTIVE, why))
        doomed = {t: c.names for t, c in ledger.claims.items() if t not in alive}
        for txid, names in {**doomed, **{t: d.names for t, d in ledger.dead.items()}}.items():
            found = self._take_back(home, names)
            if found is None:
                continue
            if txid in doomed:
                text = "staged objects removed"
                settled.append(Settled(txid, home.url, OutcomeState.ABORTED, text))
        removed += self._orphans(home)
        home.tidy(least=1)
        if failed is not None:
            raise failed

    def _take_back(self, home: Home, names: tuple[str, ...]) -> bool | None:
        """Give up and clean under a claim of one's own; None where the names are held."""
        txid = new_txid()
        sign = owner.opened(txid)
        try:
            ledger = claim(home, txid, names, "recover", "", lease_s=self._lease_s)
            cleaned = clean(home, ledger, names, late_s=self._late_s)
            home.service(
                "fence",
                txid,
                lambda ledger: ledger.swept(cleaned).release(txid),
                lambda ledger: "free" if txid in ledger.claims else "moot",
                lambda ledger: txid not in ledger.claims,
            )
            return bool(cleaned)
        except (ConflictError, RecoveryError):
            return None  # held by a living one, or behind a publication that can't go on
        finally:
            owner.closed(txid)
            del sign

    @staticmethod
    def _orphans(home: Home) -> list[str]:
        """Remove staged objects that belong to no transaction any more: late ones of dead writers."""
        found: dict[str, list[str]] = {}
        old: set[str] = set()
        for info in home.store.list(DATA):
            if time.time() - (info.modified_s or 0.0) > _GONE_S:
                old.add(info.key)
            found.setdefault(str(owner_of(info.key)), []).append(info.key)
        ledger = home.refresh()  # after the listing: what is staged has a claim before it
        known = {*ledger.claims, *ledger.decided, *ledger.dead}
        going = [key for txid, keys in found.items() if txid not in known for key in keys]
        going = [key for key in going if not is_gone(key) or key in old]
        home.store.delete(going)
        return [f"{home.store.url}/{key}" for key in going]

    def depots(self, entry: str | None = None, /) -> StoreDepots:
        """Where unfinished jobs of these targets are kept."""
        return StoreDepots(self.home.store, self._names)

    def outcome(self, id: str, /) -> OutcomeState:
        """What became of a transaction, by the caller's id or by ``tx.id``."""
        with self._storage_errors("asking for an outcome"):
            if not self.home.exists():
                return OutcomeState.UNKNOWN
            ledger = self.home.refresh()

            def is_meant(txid: str, mark: str, names: tuple[str, ...]) -> bool:
                return id == txid or (
                    mark == mark_for(id, names) and set(self._names) <= set(names)
                )

            for txid, decided in ledger.decided.items():
                if is_meant(txid, decided.mark, decided.names):
                    return OutcomeState.PENDING
            now = self.home.version()
            told = all(now.mark(told_for(id, name)) is not None for name in self._names)
            if id in ledger.finished or told:
                return OutcomeState.COMMITTED
            for txid, claimed in ledger.claims.items():
                if is_meant(txid, claimed.mark, claimed.names):
                    return self._undecided(txid)
            return OutcomeState.ABORTED if id in ledger.dead else OutcomeState.UNKNOWN

    def _undecided(self, txid: str) -> OutcomeState:
        """A claim without a commit: its owner lives, or is given up now, so that the answer stays true."""
        ledger = self.home.refresh()
        if txid in living(self.home, ledger.claims, self._lease_s):
            return OutcomeState.ACTIVE
        names = ledger.claims[txid].names if txid in ledger.claims else self._names
        self._take_back(self.home, names)
        ledger = self.home.refresh()
        if txid in ledger.finished:
            return OutcomeState.COMMITTED
        return OutcomeState.PENDING if txid in ledger.decided else OutcomeState.ABORTED

    # --- surroundings ------------------------------------------------------------------------------

    def _promise(
        self, mode: Mode, durability: Durability, entry: str | None, taken: bool
    ) -> Guarantee:
        return promises(
            self.url,
            self.home.proof(),
            mode=mode,
            durability=durability,
            entry=entry,
            occupied=taken,
        )

    def _must_commit(self) -> None:
        proof = self.home.proof()
        if proof.put_new and proof.consistent:
            return
        reason = proof.consistent_reason if proof.put_new else proof.put_new_reason
        raise CapabilityError(
            f"{self.url}: no transaction can be committed here: {reason}. Use a storage that refuses to "
            "overwrite on request, or write without fstx, one writer at a time"
        )

    def _refuse_datasets(self) -> None:
        top, path = self._above or (self.home.parent, "")
        for name in self._names:
            below = f"{path}/{name}" if path else name
            for marked in marked_above(top, below):
                place = f"{top.url.rstrip('/')}/{marked}".rstrip("/")
                raise RecoveryError(
                    f"{self.home.url}/{name} lies in the dataset {place}, which is written through tx::; "
                    f"use tx::{self.home.url}/{name}, or another place"
                )
            break  # the others have the same ancestors

    def _exists(self, name: str) -> TargetExistsError:
        return TargetExistsError(
            f"{self.home.url}/{name} holds something; mode 'create' needs it free (use mode='replace' or "
            "overwrite=True)",
            outcome="aborted",
        )

    def _storage_errors(self, doing: str) -> contextlib.AbstractContextManager[None]:
        return storage_errors(f"{doing} at {self.url} failed")


def open_backend(urls: Sequence[str], *, joined: bool = False, **options: Any) -> PlainBackend:
    """Entry point of the schemes of object stores. `joined`: paths begin with the name of a target.

    Parameters
    ----------
    urls
        ``s3://bucket/path/name``, ``gs://``, ``az://``, or another protocol of fsspec.
    **options
        As the protocol's file system takes them; ``lease_s``: seconds after which a silent writer on
        another host counts as dead (0: at once).
    """
    lease_s = options.pop("lease_s", LEASE_S)
    late_s = options.pop("late_s", LATE_S)
    places = [top_of(url) for url in urls]
    for url, (_, path) in zip(urls, places, strict=True):
        if not path:
            raise PathError(f"{url} is a whole bucket; name a target in it")
        if CONTROL_NAME in path.split("/"):
            raise PathError(f"{url} lies in {CONTROL_NAME}/, which is the library's own")
    parents = {(top, path.rpartition("/")[0]) for top, path in places}
    if len(parents) > 1:
        raise PathError(
            f"targets of one transaction lie beside each other here; got {', '.join(urls)}"
        )
    top_url, parent_path = parents.pop()
    top = open_store(top_url, **options)
    parent = top.below(parent_path) if parent_path else top
    names = [path.rpartition("/")[2] for _, path in places]
    return PlainBackend(
        parent,
        names,
        joined=joined,
        above=(top, parent_path),
        lease_s=lease_s,
        late_s=late_s,
    )


__all__ = ["PlainBackend", "open_backend"]
