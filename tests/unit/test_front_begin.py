"""begin, recover, guarantee and outcome: what reaches the backend, and what is refused before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx import registry
from fstx.errors import PathError, UsageError
from fstx.types import Capability, OutcomeState, Recovery


class Recorder:
    """A backend that notes what it was asked."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.asked: list[Any] = []

    def __call__(self, urls: Any, *, joined: bool, **options: Any) -> Recorder:
        self.made.append((list(urls), joined, options))
        return self

    def begin(self, **arguments: Any) -> str:
        self.asked.append(arguments)
        return "transaction"

    def guarantee(self, **arguments: Any) -> str:
        self.asked.append(arguments)
        return "guarantee"

    def recover(self) -> Recovery:
        return Recovery("x")

    def outcome(self, id: str) -> OutcomeState:
        self.asked.append(id)
        return OutcomeState.UNKNOWN


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(registry, "backend", recorder)
    return recorder


def test_defaults(backend: Recorder) -> None:
    """begin: update, durable, RECOVERABLE, no entry, no id; one URL is a tree."""
    assert fstx.begin("a/b") == "transaction"
    assert backend.made == [(["a/b"], False, {})]
    assert backend.asked == [
        {
            "mode": "update",
            "durability": "data",
            "require": frozenset({Capability.RECOVERABLE}),
            "entry": None,
            "id": None,
        }
    ]


@pytest.mark.parametrize(
    ("require", "expected"),
    [
        (None, set()),
        ("NO_GAP", {"NO_GAP"}),
        (Capability.NO_GAP, {"NO_GAP"}),
        (["NO_GAP", Capability.DURABLE], {"NO_GAP", "DURABLE"}),
        (frozenset(), set()),
    ],
)
def test_require(backend: Recorder, require: Any, expected: set[str]) -> None:
    """require: one capability or several, by name or as such."""
    fstx.begin("a", require=require)
    assert backend.asked[0]["require"] == expected


def test_lists_and_options(backend: Recorder) -> None:
    """A list makes paths begin with names; storage options pass through; paths become text."""
    fstx.begin([Path("a") / "x", "b"], syncfs=False)
    fstx.begin(("a",))
    fstx.guarantee(Path("a") / "o")
    fstx.recover("a")
    fstx.outcome(["a", "b"], "job")
    assert backend.made == [
        (["a/x", "b"], True, {"syncfs": False}),
        (["a"], True, {}),
        (["a/o"], False, {}),
        (["a"], True, {}),
        (["a", "b"], True, {}),
    ]
    assert backend.asked[-1] == "job"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mode": "w"}, "mode='w'.*'create', 'replace', 'update'"),
        ({"mode": None}, "mode=None"),
        ({"durability": "full"}, "durability='full'.*'none', 'data'"),
        ({"require": "FAST"}, "FAST.*ATOMIC_SET"),
        ({"require": [1]}, "require"),
        ({"id": ""}, "id=''"),
        ({"id": "a\nb"}, "one line"),
        ({"id": "x" * 2000}, "short"),
        ({"id": 7}, "id=7"),
    ],
)
def test_refused(backend: Recorder, arguments: dict[str, Any], says: str) -> None:
    """A8: a bad argument is named with what is allowed, and no backend is asked to begin."""
    with pytest.raises(UsageError, match=says):
        fstx.begin("a", **arguments)
    assert backend.asked == []


@pytest.mark.parametrize(
    "url", [None, 3, b"x", {"a"}, {"a": 1}, [], ["a", None], ["a", ""], object()]
)
def test_bad_urls(backend: Recorder, url: Any) -> None:
    """Bad input: every public function refuses what is no URL, before anything is made."""
    for call in (fstx.begin, fstx.recover, fstx.guarantee, lambda u: fstx.outcome(u, "x")):
        with pytest.raises(PathError):
            call(url)
    assert backend.made == []
