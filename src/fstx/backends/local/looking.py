"""What lies at the places of the items, and whose it is: by identity, or by place where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fstx.backends.local.items import identity, is_weak
from fstx.backends.local.journals import read_records, same
from fstx.backends.local.records import Entry, Identity
from fstx.backends.local.staging import same_content
from fstx.machines import vocabulary as v

if TYPE_CHECKING:
    from fstx.backends.local.perform import Performer


def inspect(hands: Performer) -> v.Found:
    """The answer to Inspect; changes nothing."""
    entries = hands.body.entries
    going = {hands.target(e): e.base for e in entries if e.kind is v.Kind.REMOVE}
    seen = tuple(_seen(hands, i, entry, going) for i, entry in enumerate(entries))
    return v.Found(seen, frozenset(read_records(hands.control, hands.area)))


def _seen(hands: Performer, index: int, entry: Entry, going: dict[str, Identity | None]) -> v.Seen:
    target = _at_target(hands, entry, going)
    old = _who(hands, hands.old(index), entry, new=False)
    if entry.kind is v.Kind.REMOVE:
        return v.Seen(target, v.Who.NONE, old)
    if target is v.Who.NEW and not entry.tree:
        # Its old name may be left, where a file is moved by a link: it was moved all the same.
        return v.Seen(target, v.Who.NONE, old)
    return v.Seen(target, _who(hands, hands.new(entry), entry), old)


def _at_target(hands: Performer, entry: Entry, going: dict[str, Identity | None]) -> v.Who:
    """What another entry is about to remove from the same place counts as nothing."""
    path = hands.target(entry)
    if entry.kind is v.Kind.PUBLISH and path in going:
        found = identity(hands.control.ops.lstat(path))
        if found is not None and same(found, going[path]):
            return v.Who.NONE
    return _who(hands, path, entry, new=_may_be_in(hands, path, entry))


def _may_be_in(hands: Performer, path: str, entry: Entry) -> bool:
    """Whether what was staged may lie at the target.

    Where identities are weak, it does not as long as it lies in the area: nobody else moves it. But a server
    that moves a file by a link can have been stopped before it removed the old name.
    """
    if entry.kind is v.Kind.REMOVE or not is_weak(entry.new):
        return True
    ops = hands.control.ops
    if ops.lstat(hands.new(entry)) is None:
        return True
    if entry.tree or ops.lstat(path) is None:
        return False
    return same_content(ops, path, hands.new(entry))


def _who(hands: Performer, path: str, entry: Entry, *, new: bool = True) -> v.Who:
    """`new`: it may be what was staged, as far as its place tells."""
    found = identity(hands.control.ops.lstat(path))
    if found is None:
        return v.Who.NONE
    if same(found, entry.new) and (new or not is_weak(found)):
        return v.Who.NEW
    if hands.nothing_at(path, entry):
        return v.Who.NONE
    return v.Who.BASE if same(found, entry.base) else v.Who.OTHER
