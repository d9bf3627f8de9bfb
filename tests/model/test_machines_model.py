"""The commit machines, explored exhaustively on a simulated file system (A23, A24, I7)."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fstx.machines import build
from fstx.machines.vocabulary import Aborted, Committed, InDoubt, Stuck
from model.mutants import MUTANTS, Mutant, Wrap
from support.explorer import Report, ViolationError, explore, interrupted, race
from support.modelfs import Scene
from support.scenes import ALL, PAIRS, RACES, SCENES

SPEC = Path(__file__).parents[2] / "docs" / "reference" / "spec.md"
FLOORS = {"faults": 1200, "strang": 1000, "kills": 1000, "rival": 90, "not st": 1000}


@cache
def _explored(scene: Scene) -> Report:
    return explore(scene)


def _name(value: Any) -> str:
    return value.name if isinstance(value, Scene) else str(value)


@pytest.mark.parametrize("scene", SCENES, ids=_name)
def test_every_history_ends_wholly_old_or_wholly_new(
    scene: Scene, record_property: pytest.RecordProperty
) -> None:
    """Answers, kills, power cuts, strangers, crashes in recovery: promises hold in each."""
    report = _explored(scene)
    record_property("states", report.states)
    floor = min(n for word, n in FLOORS.items() if word in scene.name)
    assert report.states > floor, "the exploration is vacuous"
    assert {"old", "new"} <= report.settled
    said = {outcome for who, outcome in report.outcomes if who == "owner"}
    assert Committed() in said
    assert any(isinstance(outcome, Aborted) for outcome in said)
    if scene.faults:
        assert Committed(pending=True) in said or not scene.keyed
        assert {o for who, o in report.outcomes if who == "recoverer"} >= {Committed(), InDoubt()}


def test_model_is_large_and_reports_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    """A change that makes the model explore a fraction of it is seen."""
    chosen = [scene for scene in SCENES if "faults" in scene.name]
    states = sum(_explored(scene).states for scene in chosen)
    with capsys.disabled():
        print(f"\n{states} states in {len(chosen)} of {len(SCENES)} scenes")
    assert states > 40_000


@pytest.mark.parametrize(
    "scene", [s for s in SCENES if "stranger" in s.name and "exchange" in s.name], ids=_name
)
def test_a_strangers_content_goes_back_after_an_exchange(scene: Scene) -> None:
    """RENAME-6: the conflict is reported by whoever exchanged back, owner or recoverer."""
    said = _explored(scene).outcomes
    assert ("owner", Aborted("conflict")) in said
    assert ("recoverer", Aborted("conflict")) in said


def test_what_cannot_be_judged_is_left_alone() -> None:
    """RECOVER-7: recovery says Stuck in each strategy, and only after a stranger."""
    for name in ("rename exchange, strangers", "swap file, a stranger", "redo file, a stranger"):
        said = {o for who, o in _explored(ALL[name]).outcomes if who == "recoverer"}
        assert any(isinstance(outcome, Stuck) for outcome in said), name


@pytest.mark.parametrize("scene", RACES, ids=_name)
def test_a_fenced_owner_that_goes_on_does_no_harm(scene: Scene) -> None:
    """RECOVER-1: every interleaving of an owner with its recoverer ends old or new, as was told."""
    report = race(scene)
    assert report.states > 100
    assert ("owner", Aborted("gone")) in report.outcomes
    assert ("owner", Committed()) in report.outcomes
    assert any(who == "recoverer" and outcome == Committed() for who, outcome in report.outcomes)


@pytest.mark.parametrize("scene", PAIRS, ids=_name)
def test_recoverers_one_after_the_other(scene: Scene) -> None:
    """RECOVER-2: a second recoverer finds nothing to do, or what the first one left."""
    for item, disks in interrupted(scene).items():
        report = race(scene, starts=disks, touched=item)
        assert report.states > 10 * len(disks)
        assert ("recoverer", Committed()) in report.outcomes


def _hunt(mutant: Mutant) -> None:
    scene = replace(ALL[mutant.scene], rules=mutant.rules)
    if mutant.scene in {pair.name for pair in PAIRS}:
        for item, disks in interrupted(scene, mutant.wrap).items():
            race(scene, mutant.wrap, starts=disks, touched=item)
    elif mutant.scene in {one.name for one in RACES}:
        race(scene, mutant.wrap)
    else:
        explore(scene, mutant.wrap)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_model_kills(mutant: Mutant) -> None:
    """A machine or performer that breaks one rule is found out."""
    with pytest.raises(ViolationError):
        _hunt(mutant)


def test_every_rule_has_a_mutant() -> None:
    """A numbered rule of section 4 (and REC-1) that no mutant breaks is not a rule."""
    section = SPEC.read_text(encoding="utf-8").split("\n## 4.")[1]
    rules = set(re.findall(r"^\| ((?:RENAME|SWAP|REDO|RECOVER|EFFECT)-\d+) \|", section, re.M))
    assert len(rules) > 40
    assert rules | {"REC-1"} == {mutant.rule for mutant in MUTANTS}


@pytest.mark.parametrize("name", ["rename", "swap", "redo"])
def test_docstring_and_specification_number_the_same_rules(name: str) -> None:
    """A machine's docstring is its specification: the words are those of spec.md."""
    module = __import__(f"fstx.machines.{name}", fromlist=[name])
    found = dict(re.findall(rf"^({name.upper()}-\d+) +(.+?)\.?$", _joined(module.__doc__), re.M))
    row = rf"^\| ({name.upper()}-\d+) \| (.+?)\.? \|$"
    written = dict(re.findall(row, SPEC.read_text(encoding="utf-8"), re.M))
    assert found.keys() == written.keys()
    assert {k: v.replace("``", "`") for k, v in found.items()} == written


def _joined(text: str) -> str:
    """Rules on one line each: continuation lines are indented."""
    return re.sub(r"\n {6,}(?=\S)", " ", text)


@pytest.mark.parametrize(
    ("strategy", "count"), [("rename", 0), ("rename", 2), ("copy", 1)], ids=str
)
def test_machines_that_do_not_exist(strategy: str, count: int) -> None:
    """A damaged record never becomes another machine than the one that wrote it."""
    item = ALL["redo file, faults"].items[0]
    with pytest.raises(ValueError, match=r"one item|unknown strategy"):
        build(strategy, (item,) * count)


def test_states_compare_by_value() -> None:
    """A machine's states are immutable values; the same history gives equal states."""
    one, two = (build("swap", ALL["swap file, faults"].items) for _ in range(2))
    assert one == two
    assert one.start() == two.start()
    assert hash(one.start()[0]) == hash(two.start()[0])
    with pytest.raises(AttributeError):
        one.start()[0].at = None  # type: ignore[misc, assignment]


def test_a_mutant_that_breaks_nothing_survives() -> None:
    """The hunt itself can fail: an unbroken machine isn't killed."""
    unbroken: Wrap = lambda machine: machine  # noqa: E731
    _hunt(Mutant("NONE", "unbroken", "redo file, faults", unbroken))
