"""Logical paths (PATH-1, PATH-3, PATH-4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstx.errors import PathError
from fstx.paths import check_path, fold, is_below, parents


@pytest.mark.parametrize(
    "path",
    ["a", "a/b", "a.b/c-d", "...", "..a", "a..", "é/ü", " ", "a b", ".hidden",
     ".fstx2/x", "x" * 255, "~", "%2e%2e"],
)  # fmt: skip
def test_good(path: str) -> None:
    """PATH-1: what may be staged comes back as it was given."""
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "empty"),
        ("/a", "absolute"),
        ("c:x", "absolute"),
        ("a/..", "'..'"),
        ("../a", "'..'"),
        (".", "'.'"),
        ("a/./b", "'.'"),
        ("a//b", "empty part"),
        ("a/", "empty part"),
        ("a\x00", "control character"),
        ("a\x1f", "control character"),
        ("a\x7f", "control character"),
        ("a\\b", "backslash"),
        (".fstx", "library's own"),
        (".fstx/x", "library's own"),
        (".Fstx/x", "library's own"),
        ("a/.fstx", "library's own"),
        ("x" * 256, "255 bytes"),
        ("a/" + "é" * 128, "255 bytes"),
        (b"a", "bytes"),
        (None, "NoneType"),
    ],
)
def test_bad(path: object, says: str) -> None:
    """PATH-1, PATH-4: refused with the reason; no other exception."""
    with pytest.raises(PathError, match=says):
        check_path(path)  # type: ignore[arg-type]


@given(st.text(max_size=40))
def test_never_leaves(path: str) -> None:
    """PATH-5: whatever is accepted stays below its root when joined, and raises nothing else."""
    import os.path

    try:
        check_path(path)
    except PathError:
        return
    joined = os.path.normpath(os.path.join("/root", path))
    assert joined == "/root/" + path
    assert joined.startswith("/root/")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("A", "a"),
        ("É", "é"),
        ("e\u0301", "é"),
        ("STRASSE", "straße"),
        ("a/B", "A/b"),
        ("\u212a", "k"),
    ],
)
def test_fold(one: str, two: str) -> None:
    """PATH-3: names that some file system takes for one."""
    assert fold(one) == fold(two)


@given(st.text(max_size=20))
def test_fold_is_stable(text: str) -> None:
    """PATH-3: folding twice changes nothing."""
    assert fold(fold(text)) == fold(text)


def test_parents_and_below() -> None:
    """Ancestors nearest first; `is_below` compares whole parts."""
    assert parents("a/b/c") == ["a/b", "a"]
    assert parents("a") == []
    assert is_below("a/b", "a")
    assert is_below("a", "a")
    assert not is_below("ab", "a")
    assert not is_below("a", "a/b")


def test_lone_surrogates() -> None:
    """A name that is no Unicode (bytes on disk) is staged as Python spells it."""
    assert check_path("a\udc80b") == "a\udc80b"
