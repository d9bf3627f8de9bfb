"""Before a transaction begins, and in `recover`: what others left is finished or taken back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from fstx import seams
from fstx.backends.plain import owner
from fstx.backends.plain.claims import Claim, Dead, Ledger
from fstx.backends.plain.home import Home
from fstx.backends.plain.names import overlap, staged_prefix
from fstx.backends.plain.owner import Owner
from fstx.backends.plain.project import Projection
from fstx.backends.plain.sweep import sweep
from fstx.errors import ConflictError, RecoveryError, StorageError
from fstx.machines import manifest as m
from fstx.machines import vocabulary as v
from fstx.types import OutcomeState, Settled

LEASE_S = 3600.0
"""A writer on another host that staged nothing for so long counts as dead."""

LATE_S = 120.0
"""So long after a writer was given up, a put of it may still arrive."""

_TURNS = 20


def finish(home: Home, names: tuple[str, ...] | None) -> list[Settled]:
    """Bring decided transactions to their names; of `names`, or all of them.

    Raises
    ------
    RecoveryError
        A stranger's object is in the way; nothing of it was touched.
    StorageError
        The storage refused; whoever comes next goes on.
    """
    settled = []
    ledger = home.refresh()
    found = ledger.decided if names is None else ledger.unfinished(names)
    for txid, decided in found.items():
        projection = Projection(home, txid, decided)
        outcome = projection.run(recovering=True)
        if isinstance(outcome, v.Stuck):
            raise RecoveryError(
                f"{home.url}: transaction {txid} is decided, and its publication can't go on: "
                f"{projection.cause or outcome.detail}. Move that object away and run fstx.recover; all else "
                "was left as it is",
                txid=txid,
                outcome="pending",
            ) from projection.cause
        if outcome.pending:
            raise StorageError(
                f"{home.url}: the publication of transaction {txid} is not finished: {projection.cause}",
                txid=txid,
                outcome="pending",
            ) from projection.cause
        settled.append(Settled(txid, home.url, OutcomeState.COMMITTED, "publication finished"))
    return settled


def idle_s(home: Home, txid: str, claim: Claim) -> float:
    """Seconds since a transaction gave a sign, by the latest of all clocks."""
    last = float(claim.when_s)
    for info in home.store.list(staged_prefix(txid)):
        last = max(last, info.modified_s or 0.0)
    return max(0.0, time.time() - last)


def living(home: Home, claims: Mapping[str, Claim], lease_s: float) -> dict[str, str]:
    """Those claims whose owners may live, and why."""
    found = {}
    for txid, claim in claims.items():
        life = claim.owner.life(txid)
        if life == "living":
            found[txid] = f"process {claim.owner.pid} on this host has it open"
        elif life == "elsewhere":
            idle = idle_s(home, txid, claim)
            if idle < lease_s:
                found[txid] = (
                    f"process {claim.owner.pid} on {claim.owner.host or 'another host'} gave a sign "
                    f"{idle:.0f} s ago; it counts as dead after {lease_s:.0f} s"
                )
    return found


def claim(
    home: Home, txid: str, names: tuple[str, ...], mode: str, mark: str, *, lease_s: float
) -> Ledger:
    """Afterwards `txid` holds `names`, and whoever held them before is given up for dead.

    Raises
    ------
    ConflictError
        A living transaction holds one of them.
    """
    mine = Claim(names, Owner.here(), int(time.time()), mode, mark)
    for turn in range(_TURNS):
        finish(home, names)
        before = home.refresh().claimed(names)
        alive = living(home, before, lease_s)
        if alive:
            raise _held(home, before, alive, names, lease_s)
        doomed = frozenset(before)

        def judge(ledger: Ledger, doomed: frozenset[str] = doomed) -> m.Verdict:
            if txid in ledger.claims:
                return "moot"
            free = doomed.issuperset(ledger.claimed(names)) and not ledger.unfinished(names)
            return "free" if free else "conflict"

        def change(ledger: Ledger, doomed: frozenset[str] = doomed) -> Ledger:
            return ledger.give_up(doomed, mine.when_s).claim(txid, mine)

        outcome, appender = home.appending(
            "claim", txid, change, judge, lambda ledger: txid in ledger.claims
        )
        if isinstance(outcome, m.Landed | m.Moot):
            return home.ledger(home.dataset.current().head)
        if isinstance(outcome, v.Aborted) and outcome.reason == "conflict":
            seams.pause(min(0.5, 0.01 * 2**turn))
            continue
        text = f"beginning at {home.url}: the claim could not be written"
        if isinstance(outcome, v.Aborted):
            raise StorageError(text, txid=txid, outcome="aborted") from appender.cause
        _withdraw(home, txid)
        raise StorageError(text, txid=txid, outcome="aborted") from appender.cause
    raise ConflictError(
        f"{home.url}: others took {', '.join(names)} again and again; retry", outcome="aborted"
    )


def _withdraw(home: Home, txid: str) -> None:
    """A claim of which nobody knows whether it landed: this process does not work on it any more."""
    owner.closed(txid)


def _held(
    home: Home,
    claims: Mapping[str, Claim],
    alive: Mapping[str, str],
    names: tuple[str, ...],
    lease_s: float,
) -> ConflictError:
    txid, why = next(iter(alive.items()))
    name = overlap(claims[txid].names, names)
    way = "wait for it, or write elsewhere"
    if "counts as dead" in why:
        way += f"; if it is dead, fstx.recover('{home.url}/{name}', lease_s=0) gives it up at once"
    return ConflictError(
        f"another transaction ({txid}) holds {home.url}/{name}: {why}; {way}", outcome="aborted"
    )


def clean(home: Home, ledger: Ledger, names: tuple[str, ...], *, late_s: float) -> tuple[str, ...]:
    """Remove what dead transactions left in `names`, on which the caller holds a claim.

    Returns
    -------
    tuple of str
        Those of which nothing is left and nothing can come any more.
    """
    done = []
    for txid, dead in ledger.given_up(names).items():
        if _sweep_dead(home, txid, dead, names, late_s=late_s):
            done.append(txid)
    return tuple(done)


def _sweep_dead(home: Home, txid: str, dead: Dead, names: Iterable[str], *, late_s: float) -> bool:
    held = tuple(n for n in dead.names if n in set(names))
    late = time.time() - dead.when_s < late_s
    swept = sweep(home.parent, home.store, txid, dead.names, within=held, keep_notices=late)
    return not swept.left and len(held) == len(dead.names)


__all__ = ["LATE_S", "LEASE_S", "claim", "clean", "finish", "idle_s", "living"]
