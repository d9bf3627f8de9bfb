"""What is kept of a job, looked at: whether it is whole, and why something is not there."""

from __future__ import annotations

from collections.abc import Callable

from fstx.depot import Depot
from fstx.errors import FencedError, ResumeError
from fstx.resuming.ledger import Ledger
from fstx.resuming.units import Unit, decode_records, unit_of
from fstx.state.entries import matches

_READ_BYTES = 8 << 20


def checked(
    depot: Depot,
    token: str,
    *,
    digests: bool,
    accept: Callable[[Unit, Depot], bool] | None,
) -> tuple[Ledger, list[str]]:
    """The units of which all is there, and ids of others; objects that are there besides are removed.

    `digests`: the bytes are compared as well. `accept`: what else is looked at in a unit.
    """
    left = depot.sizes()
    ledger, torn = Ledger(token), dict[str, None]()
    known = ledger.keys()
    looked_at = digests or accept is not None
    for value, text in decode_records(depot.lines()):
        id, objects = value["unit"], value["objects"]
        if id in known:  # of two records of a unit the later counts
            left.update((o.key, o.size_bytes) for o in ledger.drop(id))
        if torn:
            torn.pop(id, None)
        for row in objects:
            if left.get(row[1]) != row[2]:
                torn[id] = None
                break
        else:
            if looked_at and not _accepted(unit_of(value, token), depot, digests, accept):
                torn[id] = None
                continue
            ledger.add(value, text)
            for row in objects:
                left.pop(row[1], None)
    depot.delete(list(left))
    return ledger, list(torn)


def _accepted(
    unit: Unit, depot: Depot, digests: bool, accept: Callable[[Unit, Depot], bool] | None
) -> bool:
    return (not digests or _same(unit, depot)) and (accept is None or accept(unit, depot))


def _same(unit: Unit, depot: Depot) -> bool:
    """Whether the bytes of all that a unit names are those that were put."""
    for kept in unit.objects:
        staged = kept.object
        value = b"".join(
            depot.read(staged.key, start, min(start + _READ_BYTES, staged.size_bytes))
            for start in range(0, staged.size_bytes, _READ_BYTES)
        )
        if not matches(value, kept.checksum):
            return False
    return True


def missing(path: str, depot: Depot, txid: str) -> ResumeError | FencedError:
    """What to raise where a kept object is not in its depot."""
    try:
        depot.get_job()
    except FileNotFoundError:
        return FencedError(
            f"the job {txid} is over: another process went on with it, and committed it or gave it up "
            f"({depot.url} is gone); fstx.outcome tells which",
            txid=txid,
            outcome="aborted",
        )
    return ResumeError(
        f"{path!r} is gone from {depot.url}; run the job again with resume='if_possible': its unit is done "
        "anew",
        txid=txid,
        outcome="aborted",
    )


__all__ = ["checked", "missing"]
