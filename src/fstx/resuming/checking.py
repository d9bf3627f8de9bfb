"""What is kept of a job, looked at: whether it is whole, and why something is not there."""

from __future__ import annotations

from collections.abc import Mapping

from fstx.depot import Depot
from fstx.errors import FencedError, ResumeError
from fstx.resuming.units import Unit
from fstx.state.entries import matches

_READ_BYTES = 8 << 20


def sound(unit: Unit, depot: Depot, sizes: Mapping[str, int], *, digests: bool) -> bool:
    """Whether all that a unit names is there whole; with `digests` also the same bytes."""
    for kept in unit.objects:
        staged = kept.object
        if sizes.get(staged.key) != staged.size_bytes:
            return False
        if not digests:
            continue
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


__all__ = ["missing", "sound"]
