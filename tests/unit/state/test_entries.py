"""Entries, deltas and escaped names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fstx.state.entries import OWN, Delta, Entry, escape, escape_all, unescape
from support import statekit as kit


@given(kit.contents(), kit.deltas(), kit.deltas())
def test_two_deltas_in_one_do_what_both_do(
    model: dict[str, Entry], first: Delta, second: Delta
) -> None:
    """Protects the merged tail: it has the effect of all its commits in order."""
    assert kit.applied(model, first.then(second)) == kit.applied(kit.applied(model, first), second)


@given(kit.deltas(), kit.paths)
def test_covers_says_what_goes(delta: Delta, path: str) -> None:
    """Protects look-ups under a delta: covered is exactly what its removals take away."""
    assert delta.covers(path) == (
        path not in kit.applied({path: Entry(1)}, Delta({}, delta.removed))
    )


def test_many_removals_cover_as_few_do() -> None:
    """Protects the way for many removals: the same answers at every depth."""
    few, many = Delta({}, ("a/b",)), Delta({}, ("a/b", *(f"x{i}" for i in range(20))))
    for path in ("a", "a/b", "a/b/c/d", "a/bc", "a/b-", "ab"):
        assert few.covers(path) == many.covers(path), path
    assert many.covers("x7/y")


def test_removals_never_cover_what_is_the_librarys_own() -> None:
    """Protects the memory of chosen ids: a replaced dataset still knows them."""
    mark = f"{OWN}id/k-{'1' * 32}"
    first = Delta({mark: Entry(3, inline=b""), "a": Entry(1, inline=b"x")})
    both = first.then(Delta({}, ("",)))
    assert set(both.puts) == {mark}
    assert not Delta({}, ("",)).covers(mark)
    assert Delta({}, ("",)).covers(".fstxother")


def test_an_empty_delta_changes_nothing() -> None:
    """Protects the identity: the same object comes back."""
    delta = Delta({"a": Entry(1)})
    assert delta.then(Delta()) is delta
    assert Delta().then(delta) is delta


@given(kit.paths)
def test_escaped_names_are_one_part_and_come_back(path: str) -> None:
    """Protects keys: every path has one name without '/', and short ones are found again."""
    name = escape(path)
    assert "/" not in name
    assert "~" not in name
    assert len(name) <= 150
    assert unescape(name) in (path, None)
    if len(path) < 12:
        assert unescape(name) == path


@given(st.lists(kit.paths, max_size=6))
def test_many_are_escaped_as_one(paths: list[str]) -> None:
    """Protects the fast way: it spells as the plain one."""
    assert escape_all(paths) == [escape(path) for path in paths]
