"""What plain targets of an object store keep, from what is known of the storage and of the targets."""

from __future__ import annotations

from fstx.stores import Proof
from fstx.types import Capability, Durability, Guarantee, Mode, Promise

_SET_NO_ENTRY = (
    "objects appear one by one: without an entry= readers may meet old and new ones in between"
)
_SET_IN_PLACE = (
    "what is there is replaced in place, object by object, and readers find objects by their names alone. "
    "Write through tx:: (tx::{url}), write to another name, or ask for less: require='RECOVERABLE'"
)


def promises(
    url: str,
    proof: Proof,
    *,
    mode: Mode,
    durability: Durability,
    entry: str | None,
    occupied: bool,
) -> Guarantee:
    """The guarantee of a transaction. `occupied`: a target holds something."""
    commits = proof.put_new and proof.consistent
    why_not = proof.consistent_reason if proof.put_new else proof.put_new_reason
    known = {c: (kept, reason, by) for c, kept, reason, by in proof.promises}

    def promise(capability: Capability, kept: bool, reason: str) -> Promise:
        if capability in known and not known[capability][0]:
            return Promise(capability, False, *known[capability][1:])
        if not commits:
            return Promise(capability, False, why_not)
        return Promise(capability, kept, reason, "probe" if kept else "")

    durable = proof.durable and (durability == "data" or proof.shared)
    rows = (
        promise(Capability.ATOMIC_OBJECT, True, "each object is put whole"),
        promise(Capability.ATOMIC_SET, *_set(url, mode, entry, occupied)),
        promise(Capability.NO_GAP, True, "objects are replaced, never deleted first"),
        promise(Capability.DURABLE, durable, proof.durable_reason),
        promise(
            Capability.RECOVERABLE,
            True,
            "the log decides, and whoever comes next brings it to its names",
        ),
        promise(
            Capability.CONFLICT_DETECTED,
            True,
            "names are claimed in the log; what other programs changed is compared before the commit",
        ),
        promise(
            Capability.FENCED, True, "a record of the log gives a writer up; it can't commit after"
        ),
        promise(
            Capability.REMOTE_STAGING,
            proof.shared,
            "any process that reaches the storage may stage"
            if proof.shared
            else "other processes don't see this storage",
        ),
        Promise(Capability.SNAPSHOTS, False, "plain names hold one version; tx:: keeps versions"),
    )
    return Guarantee(url, "plain", mode, durability, rows, _notes(proof, entry))


def _set(url: str, mode: Mode, entry: str | None, occupied: bool) -> tuple[bool, str]:
    if entry is None:
        return False, _SET_NO_ENTRY
    if mode == "replace" and occupied:
        return False, _SET_IN_PLACE.format(url=url)
    if mode == "update" and occupied:
        return True, f"readers enter by {entry!r}, replaced last by one put; parts have new names"
    return True, f"readers enter by {entry!r}, put last; until then nothing leads to the parts"


def _notes(proof: Proof, entry: str | None) -> tuple[str, ...]:
    notes = [".fstx beside the targets holds the log: a few small objects"]
    if entry is not None:
        notes.append("a listing shows parts before the entry is there")
    if not proof.replace_if:
        notes.append(
            "no conditional replacement here: keep to one writer at a time where objects are replaced"
        )
    return (*notes, *proof.notes)


__all__ = ["promises"]
