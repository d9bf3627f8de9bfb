"""Pure state machines that decide how a transaction is committed and recovered."""

from __future__ import annotations

from fstx.machines.base import State
from fstx.machines.manifest import Append
from fstx.machines.project import Op, Project
from fstx.machines.redo import Redo
from fstx.machines.rename import How, Rename
from fstx.machines.swap import Swap
from fstx.machines.vocabulary import Item, Machine

__all__ = [
    "Append",
    "How",
    "Item",
    "Machine",
    "Op",
    "Project",
    "Redo",
    "Rename",
    "State",
    "Swap",
    "build",
    "discard",
]


def build(
    strategy: str, items: tuple[Item, ...], *, how: How = "create", strict: bool = True
) -> Machine[State]:
    """The machine that commits `items`, and the same that recovers them.

    Parameters
    ----------
    strategy
        ``"rename"``, ``"swap"`` or ``"redo"``.
    items
        In commit order; exactly one for ``"rename"``.
    how
        For ``"rename"`` alone: the kind of `Move` that commits.
    strict
        Whether content that is not the base is a conflict. Recovery needs what the commit had: it
        belongs in the record, as `how` does.

    Raises
    ------
    ValueError
        For a strategy or a number of items that doesn't exist.
    """
    if strategy == "rename":
        if len(items) != 1:
            raise ValueError(f"rename commits one item, not {len(items)}")
        return Rename(items, strict, how)
    if strategy == "swap":
        return Swap(items, strict)
    if strategy == "redo":
        return Redo(items, strict)
    raise ValueError(f"unknown strategy: {strategy!r}")


def discard(items: tuple[Item, ...] = ()) -> Machine[State]:
    """The machine whose `recover` discards an area without any record.

    It answers `InDoubt` if there is a record after all once the area is fenced; the next run, which
    reads it, decides.
    """
    return Rename(items)
