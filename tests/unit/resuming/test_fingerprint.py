"""Fingerprints: the same job gives the same one anywhere, another job another."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fstx
from fstx.resuming.fingerprint import VERSION, differences


@dataclasses.dataclass
class Config:
    size: int = 3
    name: str = "a"


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


class Level(enum.IntEnum):
    LOW = 1


DIFFERENT: list[Any] = [
    None,
    True,
    1,
    1.0,
    "1",
    b"1",
    [],
    {},
    set(),
    [1],
    [[1]],
    {"a": 1},
    {"a": 2},
    {"b": 1},
    {1},
    {1, 2},
    "a",
    "\udc80",
    Path("a"),
    datetime.date(2026, 1, 2),
    datetime.datetime(2026, 1, 2),
    datetime.timedelta(1),
    0.1,
    -0.0,
    0.0,
    float("nan"),
    float("inf"),
    1j,
    np.dtype("<i4"),
    np.dtype("<i8"),
    np.arange(3),
    np.arange(3.0),
    np.arange(3).reshape(3, 1),
    Kind.ONE,
    Kind.TWO,
    Level.LOW,
    Config(),
    Config(4),
    10**30,
]


def test_every_difference_shows() -> None:
    """D18: values that differ in kind, content, nesting or type have different fingerprints."""
    digests = [fstx.fingerprint(value).digest for value in DIFFERENT]
    assert len(set(digests)) == len(digests)
    nested = {fstx.fingerprint({"x": [value]}).digest for value in DIFFERENT}
    assert len(nested) == len(DIFFERENT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, OrderedDict(a=1)),
        ([1, 2], (1, 2)),
        ({"x", "y", "z"}, frozenset({"z", "y", "x"})),
        (np.int16(3), 3),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.arange(6).reshape(2, 3)[:, ::-1], np.arange(6).reshape(2, 3)[:, ::-1].copy()),
        (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")),
        (bytearray(b"x"), b"x"),
    ],
)
def test_the_same_values_are_the_same(one: Any, other: Any) -> None:
    """D18: order of keys, container types and the layout in memory don't show."""
    assert fstx.fingerprint(one) == fstx.fingerprint(other)


def test_it_is_the_same_everywhere() -> None:
    """D18: equal in other processes and with other hash seeds; the digest is fixed for ever."""
    code = (
        "import fstx; print(fstx.fingerprint({'s': {'x', 'y', 'z'}, 'n': [1, 2.5, None, 'ü'], "
        "'b': b'q', 'm': {'k': True}}).digest)"
    )
    found = set()
    for seed in ("0", "1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        found.add(done.stdout.strip())
    assert found == {"24d3d30e9f35aa845f3525d678973c058bf3631a72685e3b6f90cbef24684d34"}


def test_it_says_how_it_was_made() -> None:
    """D17: algorithm and version go with the hash, and it pickles and compares without its words."""
    made = fstx.fingerprint({"rows": 3})
    assert (made.algorithm, made.version) == ("sha256", VERSION)
    assert pickle.loads(pickle.dumps(made)) == made
    assert dataclasses.replace(made, readable=()) == made
    assert dataclasses.replace(made, version=VERSION + 1) != made
    assert fstx.fingerprint(made) is made
    assert str(made).startswith(f"sha256-v{VERSION}:")


def test_what_differs_is_told() -> None:
    """D19: the message names the setting and both values."""
    old, new = fstx.fingerprint({"rows": 3, "seed": 1}), fstx.fingerprint({"rows": 4, "seed": 1})
    assert differences(old, new) == "rows was 3, is 4"
    gone = fstx.fingerprint({"seed": 1})
    assert differences(old, gone) == "rows was 3, is not there"
    long = [fstx.fingerprint({"x": "y" * 500 + end}) for end in "ab"]
    assert "values differ" in differences(*long)
    later = dataclasses.replace(new, version=2)
    assert "can't be compared" in differences(old, later)


def _loop() -> Any:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"a": object()}, "config['a']"),
        ([1, {"f": len}], "config[1]['f']"),
        ({1: 2}, "key 1"),
        (_loop(), "contains itself"),
        ({"a": np.array([object()])}, "config['a']"),
    ],
)
def test_what_has_no_canonical_form_is_refused(config: Any, named: str) -> None:
    """D18: what could differ between two runs without a trace is refused, and its place is named."""
    with pytest.raises(fstx.UsageError) as caught:
        fstx.fingerprint(config)
    assert named in str(caught.value)
