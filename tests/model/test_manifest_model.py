"""The machines of the log and of plain names, explored exhaustively on simulated stores (A23, A24, I7)."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fstx.machines import Append, Op, Project, manifest, project
from fstx.machines.manifest import (
    Bound,
    Busy,
    Clear,
    Landed,
    Look,
    Moot,
    Overtaken,
    Pause,
    Put,
    Seen,
    Settle,
    Taken,
)
from fstx.machines.project import Apply, Finish, Found, Inspect
from fstx.machines.vocabulary import Aborted, Committed, Done, InDoubt, Refused, Stuck, Unknown
from model.manifest_mutants import MUTANTS, Mutant
from support.logmodel import Report, Rules, Scene, ViolationError, explore, wander
from support.logscenes import ALL, ALL_PLAIN, COMES_BACK, LARGE, PLAIN, SCENES
from support.plainmodel import PlainRules, PlainScene, explore_plain

SPEC = Path(__file__).parents[2] / "docs" / "reference" / "spec.md"
OUTCOMES = (Landed, Moot, Aborted, InDoubt, Committed, Stuck)

# what each scene must at least visit, and what its writers must be told somewhere
FLOORS = {"moody": 400, "one id": 3000, "two conflicting": 3000}
FLOOR = 5000
PLAIN_FLOOR = 4000


@cache
def _explored(scene: Scene) -> Report:
    return explore(scene)


@cache
def _published(scene: PlainScene) -> Report:
    return explore_plain(scene)


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


# --- every history ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES, ids=_name)
def test_what_was_told_is_true_for_ever(
    scene: Scene, record_property: pytest.RecordProperty
) -> None:
    """Lost, late, repeated requests, kills, truncation, collection: promises hold in each history."""
    report = _explored(scene)
    record_property("states", report.states)
    assert report.complete
    assert report.states >= FLOORS.get(scene.name, FLOOR), "the exploration is vacuous"
    assert report.calm > 0
    told = {word for _, word in report.outcomes}
    if any(spec.name == "X" for spec in scene.agents):
        assert "committed" in told
    if any(path in scene.name for path in ("conflict", "cancel", "collector", "floor", "link")):
        assert "aborted" in told
    assert ("doubt" in told) == (scene.name in ("unreadable", "moody"))


@pytest.mark.parametrize("scene", PLAIN, ids=_name)
def test_plain_readers_find_a_whole_set_that_never_goes_back(
    scene: PlainScene, record_property: pytest.RecordProperty
) -> None:
    """Late delivery of an entry, two recoverers, collection, strangers, the next writer."""
    report = _published(scene)
    record_property("states", report.states)
    assert report.states >= PLAIN_FLOOR, "the exploration is vacuous"
    assert report.calm > 0
    said = {what for _, what in report.outcomes}
    assert {"Committed(pending=False)", "Committed(pending=True)"} <= said
    assert any(what.startswith("Stuck") for what in said) == bool(scene.strangers)


def test_model_is_large_and_reports_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    """A change that makes the model explore a fraction of it is seen."""
    log = sum(_explored(scene).states for scene in SCENES)
    plain = sum(_published(scene).states for scene in PLAIN)
    with capsys.disabled():
        print(
            f"\n{log} states in {len(SCENES)} scenes of the log, {plain} in {len(PLAIN)} of plain names"
        )
    assert log > 300_000
    assert plain > 60_000


@pytest.mark.parametrize("scene", LARGE, ids=_name)
def test_histories_by_chance_where_everybody_is_at_work(scene: Scene) -> None:
    """What is too large to be explored is walked through: cancel, collection, pins, floor at once."""
    report = wander(scene, 200)
    assert report.states > 200 * 12
    assert ("X", "committed") in report.outcomes


def test_where_truncation_forgets_the_answer_is_doubt() -> None:
    """LOG-3: what the log can't tell any more is told as in doubt, never guessed."""
    scene = Scene("forgets", ALL["truncation"].agents, faults=2, keep=99, unreadable=True)
    report = explore(scene, rules=Rules(truncation_remembers=False))
    assert ("X", "doubt") in report.outcomes
    assert ("X", "committed") in report.outcomes


def test_a_name_that_was_removed_may_come_back() -> None:
    """A limit, written down: a name that was created and then removed is open to a late creation."""
    with pytest.raises(ViolationError, match="the entry goes back to 1"):
        explore_plain(COMES_BACK)


# --- mutants ------------------------------------------------------------------------------------------


def _hunt(mutant: Mutant) -> None:
    for calm in (False, True):  # the shortest way first, then those that never end
        if isinstance(mutant.rules, PlainRules):
            explore_plain(ALL_PLAIN[mutant.scene], mutant.wrap, mutant.rules, calm=calm)
        else:
            explore(ALL[mutant.scene], mutant.wrap, mutant.rules, calm=calm)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_model_kills(mutant: Mutant) -> None:
    """A machine or performer that breaks one rule is found out."""
    with pytest.raises(ViolationError):
        _hunt(mutant)


def test_a_mutant_that_breaks_nothing_survives() -> None:
    """The hunt itself can fail: unbroken machines aren't killed."""
    _hunt(Mutant("NONE", "unbroken", "one id"))
    _hunt(Mutant("NONE", "unbroken", "two recoverers", rules=PlainRules()))


def test_every_rule_has_a_mutant() -> None:
    """A numbered rule of section 6 that no mutant breaks is not a rule."""
    section = SPEC.read_text(encoding="utf-8")
    rules = set(re.findall(r"^\| ((?:MANIFEST|LOG|PROJECT|PLAIN)-\d+) \|", section, re.M))
    assert len(rules) > 30
    assert rules == {mutant.rule for mutant in MUTANTS}


@pytest.mark.parametrize("module", [manifest, project], ids=lambda m: m.__name__)
def test_docstring_and_specification_number_the_same_rules(module: Any) -> None:
    """A machine's docstring is its specification: the words are those of spec.md."""
    word = module.__name__.rpartition(".")[2].upper()
    joined = re.sub(r"\n {6,}(?=\S)", " ", module.__doc__)
    found = dict(re.findall(rf"^({word}-\d+) +(.+?)\.?$", joined, re.M))
    row = rf"^\| ({word}-\d+) \| (.+?)\.? \|$"
    written = dict(re.findall(row, SPEC.read_text(encoding="utf-8"), re.M))
    assert found
    assert {k: v.replace("``", "`") for k, v in found.items()} == written


# --- step by step -------------------------------------------------------------------------------------


def _play(machine: Any, how: str, *events: Any) -> list[Any]:
    """Everything that a machine asks for and says, given some answers."""
    state, then = getattr(machine, how)()
    asked = [then]
    for event in events:
        state, then = machine.step(state, event)
        asked.append(then)
    return asked


def test_an_uncontended_commit_is_one_put_and_one_boundary() -> None:
    """The figure of requests: nothing is read back where the answer was done."""
    asked = _play(Append(7), "start", Done(), Done(), Clear())
    assert asked == [Settle(), Put(8), Bound(8), Landed(8)]


def test_the_first_loss_costs_no_pause_and_the_second_one_does() -> None:
    """MANIFEST-11: under contention nobody spins, and the first turn is not delayed."""
    lost = (Taken(), Seen(8, None, "free"), Taken(), Done(), Seen(9, None, "free"))
    asked = _play(Append(7), "start", Done(), *lost)
    assert asked[2:] == [Look(8), Put(9), Pause(2), Look(9), Put(10)]


def test_the_same_slot_is_put_again_after_a_lost_request() -> None:
    """MANIFEST-6, and MANIFEST-4 after it."""
    asked = _play(Append(7), "start", Done(), Unknown(), Done(), Seen(7, None, "free"), Done())
    assert asked[2:] == [Pause(1), Look(8), Put(8), Bound(8)]


def test_a_certain_refusal_is_the_end_only_if_nothing_is_under_way() -> None:
    """MANIFEST-8."""
    assert _play(Append(7), "start", Done(), Refused("failed"))[-1] == Aborted("failed")
    free = Seen(7, None, "free")
    asked = _play(Append(7), "start", Done(), Busy(), Done(), free, Refused("failed"))
    assert asked[-1] == Pause(2)


def test_a_verdict_at_a_free_slot_is_not_believed() -> None:
    """MANIFEST-7: while its put may still land, no conflict is reported."""
    early = _play(Append(7), "start", Done(), Unknown(), Done(), Seen(7, None, "conflict"))
    assert early[-1] == Pause(2)
    late = _play(Append(7), "start", Done(), Unknown(), Done(), Seen(8, None, "conflict"))
    assert late[-1] == Aborted("conflict")


def test_an_old_reading_tells_nothing() -> None:
    """A head below the one that is known is no head, whatever it says."""
    asked = _play(Append(7), "start", Done(), Taken(), Seen(6, None, "conflict"))
    assert asked[-1] == Pause(2)


def test_giving_up_ends_as_soon_as_it_can() -> None:
    """MANIFEST-10: an interrupt is answered after one look."""
    assert _play(Append(7), "cancel", Seen(8, 8, "free"))[-1] == Landed(8)
    assert _play(Append(7), "cancel", Seen(8, None, "free"))[-1] == Aborted("gone")
    assert _play(Append(7), "cancel", Seen(7, None, "free"))[-1] == InDoubt()


def test_recovery_looks_first() -> None:
    """What another process may have done is not done again; without an answer nothing is said."""
    assert _play(Append(7), "recover", Seen(7, None, "moot"))[-1] == Moot()
    assert _play(Append(7), "recover", Seen(9, 8, "free"))[-1] == Landed(8)
    assert _play(Append(7), "recover", Seen(7, None, "free"))[-1] == Put(8)
    assert _play(Append(7, tries=1), "recover", Unknown(), Done(), Unknown())[-1] == InDoubt()


def test_an_unfinished_projection_is_waited_for() -> None:
    """PROJECT-7: a writer that only waits gives up cleanly, with nothing under way."""
    blocked = Seen(8, None, "blocked")
    asked = _play(Append(7, tries=2), "start", Done(), Taken(), blocked, Done(), blocked)
    assert asked[-3:] == [Pause(2), Look(9), Aborted("busy")]


def test_an_endless_crowd_ends() -> None:
    """MANIFEST-11: a writer that others always beat is told so at last, and may begin anew."""
    machine = Append(0, tries=2)
    state, then = machine.start()
    head, steps = 0, 0
    while not isinstance(then, OUTCOMES):
        match then:
            case Put():
                head, event = head + 1, Taken()
            case Look():
                event = Seen(head, None, "free")
            case _:
                event = Done()
        state, then = machine.step(state, event)
        steps += 1
        assert steps < 1000
    assert then == Aborted("busy")
    assert head > 50


def test_the_last_put_is_looked_for() -> None:
    """MANIFEST-11: patience ends after a look, so that doubt is told only where the log does not tell."""
    machine = Append(7, tries=1)
    twice = (Done(), Unknown(), Done(), Seen(7, None, "free"), Unknown(), Done())
    assert _play(machine, "start", *twice)[-1] == Look(8)
    assert _play(machine, "start", *twice, Seen(8, 8, "free"))[-1] == Landed(8)
    assert _play(machine, "start", *twice, Seen(7, None, "free"))[-1] == InDoubt()
    assert _play(machine, "start", *twice, Seen(8, None, "free"))[-1] == Put(9)


def test_overtaken_by_truncation_is_looked_at() -> None:
    """MANIFEST-4: a put that was done on a deleted key is no commit."""
    asked = _play(Append(7), "start", Done(), Done(), Overtaken(), Seen(20, None, "free"))
    assert asked[-2:] == [Look(8), Put(21)]


OPS = (
    Op("remove", base="p0"),
    Op("put", publisher=True, base="t0"),
    Op("put"),
    Op("remove", publisher=True, base="q0"),
)


def test_parts_then_publishers_then_removals() -> None:
    """PROJECT-2, whatever the order in which operations are named."""
    asked = _play(Project(OPS), "start", *[Done()] * 5)
    assert asked == [Apply(2), Apply(1), Apply(3), Apply(0), Finish(), Committed()]


def test_recovery_of_a_projection_looks_before_it_writes() -> None:
    """A second recoverer of a large projection moves no byte twice."""
    asked = _play(Project(OPS[1:3]), "recover", Found("new"), Found("base"), Done())
    assert asked == [Inspect(1), Inspect(0), Apply(0), Finish()]


def test_a_projection_that_cannot_go_on_stays_pending() -> None:
    """PROJECT-8: after the record nothing is reported as not committed."""
    one = Project(OPS[1:2], tries=1)
    assert _play(one, "start", Refused("failed"))[-1] == Committed(pending=True)
    assert _play(one, "start", Taken(), Found("other"))[-1] == Committed(pending=True)
    assert _play(one, "start", Unknown(), Unknown())[-1] == Committed(pending=True)
    assert isinstance(_play(one, "recover", Found("other"))[-1], Stuck)
    assert _play(one, "recover", Found("finished"))[-1] == Committed()
    tried = (Busy(), Found("base"), Done(), Busy(), Found("base"))
    assert _play(one, "start", *tried)[-1] == Committed(pending=True)
    assert _play(Project(()), "start", Unknown())[-1] == Committed(pending=True)


def test_states_compare_by_value() -> None:
    """States are immutable values; the same history gives equal states."""
    assert Append(7).start() == Append(7).start()
    assert hash(Project(OPS).start()[0]) == hash(Project(OPS).start()[0])
    with pytest.raises(AttributeError):
        Append(7).start()[0].turn = 1  # type: ignore[misc]
