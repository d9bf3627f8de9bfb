"""Keys of a cache: one spelling for each, the same everywhere, and none for what has none."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fstx.caching import keys
from fstx.errors import UsageError

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
KEYS = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner).map(tuple) | st.dictionaries(st.text("ab") | st.integers(), inner)
    ),
    max_leaves=8,
)


def told(key: Any) -> Any:
    """A key with the kind of each value beside it: what has to differ where keys differ."""
    if isinstance(key, dict):
        return ("d", frozenset((told(k), told(v)) for k, v in key.items()))
    if isinstance(key, tuple):
        return ("t", tuple(told(v) for v in key))
    if isinstance(key, float):
        return ("f", key, math.copysign(1, key))
    return (type(key).__name__, key)


@settings(max_examples=60, deadline=None)
@given(KEYS)
def test_a_spelling_is_read_back(key: Any) -> None:
    """C12: every value, its kind and its place are in the spelling, so two keys never share one."""
    assert told(keys.read(keys.spell(key))) == told(key)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40))
def test_what_is_no_spelling_is_refused(data: bytes) -> None:
    """Damaged keys raise ValueError, and nothing else, or are a spelling."""
    try:
        key = keys.read(data)
    except ValueError:
        return
    assert keys.read(keys.spell(key)) == key or key != key


def test_every_input_changes_the_name() -> None:
    """C12: kinds, nesting, borders between texts, and each part of a dictionary."""
    different: list[Any] = [
        1, 1.0, True, "1", b"1", (1,), ((1,),), None, "", (), {}, 0.0, -0.0,
        ("ab", "c"), ("a", "bc"), ("null", 10, 2, 0), ("null", 10, 2, 1), ("null", 10, (2, 0)),
        {"n": 10, "k": 2}, {"n": 10, "k": 2, "seed": 0}, {"n": 2, "k": 10}, {1: "a"}, {"1": "a"},
        float("nan"), float("inf"), -1, 10**30, "e\u0301", "\u00e9",
    ]  # fmt: skip
    assert len({keys.name_of(keys.spell(key)) for key in different}) == len(different)


def test_order_lists_and_numpy_numbers_do_not_matter() -> None:
    """One key has one spelling however it is written down."""
    same = [
        ({"a": 1, "b": [2, 3]}, {"b": (2, 3), "a": 1}),
        ((np.int64(3), np.float32(0.5), np.str_("x"), np.bool_(True)), (3, 0.5, "x", True)),
        (float("nan"), -float("nan")),
    ]
    for one, other in same:
        assert keys.spell(one) == keys.spell(other)


def test_names_are_the_same_in_every_process() -> None:
    """C12: what was put by one process is found by all, whatever their hash seed; names stay for ever."""
    key = {"null": 1, "n": 100, "k": (10, 2.5, None), "seed": b"\x00", "text": "\u00e9"}
    name = keys.name_of(keys.spell(key))
    assert keys.spell(key) == (
        b"{s1:k(i10;f\x40\x04\x00\x00\x00\x00\x00\x00N)"
        + b"s1:ni100;s4:nulli1;s4:seedb1:\x00s4:texts2:\xc3\xa9}"
    )
    assert name == "1ac98c3a545c107e72c66e3c1a8a64d87e7e12ca594fd65763fbf7afaadd5b8f"
    code = f"from fstx.caching import keys; print(keys.name_of(keys.spell({key!r})))"
    env = {**os.environ, "PYTHONHASHSEED": "4711"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == name


class Text(str):
    """A kind of its own."""


def endless() -> list[Any]:
    """A key that contains itself."""
    key: list[Any] = []
    key.append(key)
    return key


@pytest.mark.parametrize(
    "key",
    [
        np.arange(3),
        {1, 2},
        object(),
        Path("a"),
        Text("a"),
        ("x", [len]),
        {"a": {"b": np.arange(2)}},
        np.datetime64("2024-01-01"),
        complex(1, 2),
        "\ud800",
        "x" * 70_000,
        endless(),
        {1: "a", np.int64(1).item() + 0: "b", "x": bytearray(b"")},
    ],
    ids=lambda key: type(key).__name__,
)
def test_a_key_without_a_spelling_is_refused(key: Any) -> None:
    """C12: what would be left out of the name, or spelled by chance, is an error that says so."""
    with pytest.raises(UsageError, match="key"):
        keys.spell(key)
