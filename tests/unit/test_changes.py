"""The changes of a transaction as data (PATH-2, PATH-3), against a plain model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstx.changes import Changes
from fstx.errors import PathError
from fstx.paths import fold, is_below
from fstx.types import StagedObject


def receipt(path: str, size_bytes: int = 1) -> StagedObject:
    return StagedObject(path, "a/" + path.replace("/", "-"), size_bytes, "x")


def made(*paths: str) -> Changes:
    changes = Changes()
    for path in paths:
        changes.add(receipt(path))
    return changes


def test_later_wins() -> None:
    """Of two receipts for one path the later counts, and the earlier is handed back."""
    changes = made("a")
    later = receipt("a", 7)
    assert changes.add(later) == receipt("a")
    assert changes.staged == {"a": later}


@pytest.mark.parametrize(
    ("there", "new", "says"),
    [
        ("a", "a/b", "can't lie below"),
        ("a/b", "a/b/c/d", "can't lie below"),
        ("a/b/c", "a/b", "as a directory"),
        ("a/b", "A", "only by case"),
        ("a/b", "A/c", "only by case"),
        ("a/b/c", "a/B/d", "only by case"),
        ("x", "X", "only by case"),
    ],
)
def test_clashes(there: str, new: str, says: str) -> None:
    """PATH-2, PATH-3: refused, and nothing changed."""
    changes = made(there)
    with pytest.raises(PathError, match=says):
        changes.add(receipt(new))
    assert list(changes.staged) == [there]


def test_removal_frees_names() -> None:
    """What is removed makes room for another kind, another spelling."""
    changes = made("a/b/c", "a/d")
    assert [r.path for r in changes.remove("a")] == ["a/b/c", "a/d"]
    changes.add(receipt("A"))
    assert list(changes.staged) == ["A"]
    assert changes.gone("a/b/c")
    assert not changes.gone("b")


def test_removals_swallow_each_other() -> None:
    """The removal of a tree covers those below it, before and after."""
    changes = Changes()
    changes.remove("a/b")
    changes.remove("a")
    changes.remove("a/c")
    assert list(changes.removed) == ["a"]


def test_view() -> None:
    """After commit: the base without what goes, and what is staged, sorted, below a prefix."""
    changes = made("b/x", "n")
    changes.remove("d")
    base = ["a", "b/x", "b/y", "d/z", "dd"]
    assert list(changes.view(base, "")) == ["a", "b/x", "b/y", "dd", "n"]
    assert list(changes.view(base, "b")) == ["b/x", "b/y"]
    assert list(changes.view(base, "b/")) == ["b/x", "b/y"]
    assert list(changes.view(base, "d")) == []


def test_size() -> None:
    """The size counts what is staged now."""
    changes = made("a", "b/c")
    changes.add(receipt("a", 10))
    assert changes.size_bytes == 11
    changes.remove("b")
    assert changes.size_bytes == 10
    assert bool(changes)
    assert not Changes()


PARTS = st.sampled_from(["a", "b", "A", "é"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), PATHS), max_size=14)


def clashes(path: str, staged: set[str]) -> bool:
    """The rules, spelled out over all pairs."""
    for other in staged - {path}:
        if is_below(other, path) or is_below(path, other):
            return True
        mine, theirs = path.split("/"), other.split("/")
        for n in range(1, 1 + min(len(mine), len(theirs))):
            one, two = "/".join(mine[:n]), "/".join(theirs[:n])
            if one != two and fold(one) == fold(two):
                return True
    return False


@given(STEPS)
def test_against_the_rules(steps: list[tuple[str, str]]) -> None:
    """PATH-2, PATH-3 and the view agree with the rules over any order of calls."""
    changes = Changes()
    staged: set[str] = set()
    gone: set[str] = set()
    base = {"a/base", "b", "é/a"}
    left = set(base)
    for verb, path in steps:
        if verb == "add":
            if clashes(path, staged):
                with pytest.raises(PathError):
                    changes.add(receipt(path))
                continue
            changes.add(receipt(path))
            staged.add(path)
        else:
            changes.remove(path)
            gone.add(path)
            staged = {p for p in staged if not is_below(p, path)}
            left = {p for p in left if not is_below(p, path)}
        assert set(changes.staged) == staged
        assert set(changes.view(base, "")) == staged | left
        for other in base | staged:
            assert changes.gone(other) == any(is_below(other, g) for g in gone)
