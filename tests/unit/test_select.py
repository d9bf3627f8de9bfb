"""One table for guarantee, begin and commit: they can't disagree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstx.machines.vocabulary import Item, Kind
from fstx.select import Abilities, guarantee, strategy_at_begin, strategy_at_commit
from fstx.types import Capability

LINUX = Abilities("linux", "ext4", True, True, True, True, True, False)
PLACES = [
    LINUX,
    replace(LINUX, exchange=False),
    replace(LINUX, exchange=False, create=False, fs_name="", sync_fs=False),
    replace(LINUX, fs_name="tmpfs"),
    replace(LINUX, system="macos", fs_name="", sync_fs=False),
    replace(LINUX, system="windows", fs_name="", exchange=False, sync_dirs=False, sync_fs=False),
]
FILE = Item(Kind.PUBLISH)
TREE = Item(Kind.PUBLISH, tree=True)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([FILE], ("rename", "create")),
        ([TREE], ("rename", "create")),
        ([Item(Kind.PUBLISH, occupied=True)], ("rename", "place")),
        ([Item(Kind.PUBLISH, occupied=True, tree=True)], ("rename", "exchange")),
        ([FILE, FILE], ("redo", "")),
        ([Item(Kind.REMOVE, occupied=True)], ("redo", "")),
        ([FILE, Item(Kind.PUBLISH, occupied=True, tree=True)], ("swap", "")),
        ([], ("redo", "")),
    ],
)
def test_at_commit(items: list[Item], expected: tuple[str, str]) -> None:
    """design.md 3: which strategy serves what, on Linux."""
    assert strategy_at_commit(items, LINUX) == expected


def test_without_exchange_and_on_windows() -> None:
    """design.md 3: swap serves Windows and every place without exchange."""
    tree = Item(Kind.PUBLISH, occupied=True, tree=True)
    assert strategy_at_commit([tree], PLACES[1]) == ("swap", "")
    assert strategy_at_commit([FILE, FILE], PLACES[-1]) == ("swap", "")
    assert strategy_at_begin("update", 1, 1, PLACES[-1]) == "swap"


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
@pytest.mark.parametrize("mode", ["create", "replace", "update"])
@pytest.mark.parametrize("durability", ["none", "data"])
def test_every_capability_has_a_reason(place: Abilities, mode: Any, durability: Any) -> None:
    """I1: each capability once, with a reason; DURABLE follows wish and system; memory never lasts."""
    for occupied, targets in [(0, 1), (1, 1), (0, 2), (2, 2)]:
        made = guarantee(
            "u", mode=mode, durability=durability, entry=None, occupied=occupied, targets=targets,
            abilities=place,
        )  # fmt: skip
        assert [p.capability for p in made.promises] == list(Capability)
        assert all(p.reason for p in made.promises)
        lasts = place.sync_dirs and place.fs_name != "tmpfs"
        assert (Capability.DURABLE in made) == (durability == "data" and lasts)
        assert (Capability.NO_GAP in made) == (made.strategy != "swap")
        assert Capability.RECOVERABLE in made
        assert str(made).count("\n") >= len(Capability)


def items_of(mode: str, occupied: int, targets: int) -> st.SearchStrategy[list[Item]]:
    """What a transaction of this kind can have as items."""
    if mode == "update" and occupied:
        any_item = st.sampled_from(
            [FILE, TREE, Item(Kind.PUBLISH, occupied=True), Item(Kind.REMOVE, occupied=True)]
        )
        return st.lists(any_item, min_size=1, max_size=4)
    busy = mode == "replace" and occupied > 0
    each = st.builds(Item, st.just(Kind.PUBLISH), st.just(busy), st.booleans())
    return st.lists(each, min_size=1, max_size=targets)


@given(st.data())
def test_commit_keeps_what_begin_promised(data: st.DataObject) -> None:
    """The strategy of the commit is never weaker than the one that was promised on."""
    place = data.draw(st.sampled_from(PLACES))
    mode: Any = data.draw(st.sampled_from(["create", "replace", "update"]))
    targets = data.draw(st.integers(1, 3))
    occupied = data.draw(st.integers(0, targets)) if mode != "create" else 0
    promised = strategy_at_begin(mode, occupied, targets, place)
    used, _ = strategy_at_commit(data.draw(items_of(mode, occupied, targets)), place)
    one_switch = {"rename"}
    no_gap = {"rename", "redo"}
    if promised in one_switch:
        assert used in one_switch
    if promised in no_gap:
        assert used in no_gap
