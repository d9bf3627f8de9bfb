"""Levels isolation, fencing, resume and liveness: they pass here, and fail where a promise is broken."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from glob import glob
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fstx.backends.local import control, perform, recovery
from fstx.backends.local.perform import Performer
from fstx.backends.local.recovery import Recoverer
from fstx.backends.manifest import collect, conflicts
from fstx.backends.manifest.log import Log
from fstx.machines import vocabulary as v
from fstx_conformance import run as runner
from fstx_conformance.cases import _CASES
from fstx_conformance.injector import History
from fstx_conformance.lab import Lab
from fstx_conformance.races import Race, Writer, run_race
from fstx_conformance.results import CaseResult, Level, Verdict
from fstx_conformance.schedule import Fault, Schedule, parse
from fstx_conformance.subjects import subject_of
from fstx_conformance.turns import Turns, step, switches

for _name in ("isolation", "fencing", "resuming", "liveness", "processes"):
    import_module(f"fstx_conformance.cases.{_name}")


@pytest.fixture(scope="module", autouse=True)
def _small_heap() -> Iterator[None]:
    """Simulated processes end with a collection of garbage: what was there before is left out of it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def run_case(url: str, id: str, replay: str = "", **options: Any) -> CaseResult:
    """One case over a subject that is gone afterwards."""
    subject = subject_of(url, **options)
    try:
        lab = Lab(subject, id, replay=parse(replay) if replay else None)
        return runner._run_case(_CASES[id], lab)
    finally:
        subject.close()


def ids(*levels: Level) -> list[str]:
    """The quick cases of some levels."""
    return [c.id for c in _CASES.values() if c.level in levels and "quick" in c.profiles]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    """Where local storage lies: in memory if there is such a place, for syncs take their time."""
    made = tempfile.mkdtemp(dir="/dev/shm") if os.path.isdir("/dev/shm") else str(tmp_path)
    yield os.path.join(made, "top")
    shutil.rmtree(made)


def urls(folder: str) -> dict[str, str]:
    """Storage that is always there."""
    return {
        "local": folder,
        "memory": "memory://levels-two",
        "tx-memory": "tx::memory://levels-two",
        "tx-local": f"tx::{folder}",
    }


def shown(result: CaseResult) -> str:
    """For messages: what failed and how to see it again."""
    return "\n".join([result.reason, *(f"{f.message}\n{f.replay}" for f in result.failures)])


# --- turns ----------------------------------------------------------------------------------------------


def steps(turns: Turns, name: str, count: int) -> None:
    """An agent that makes some calls."""

    def work(process: Any) -> None:
        for n in range(count):
            step(process, f"{n}")
            turns.history.add(f"{name} did {n}")

    turns.add(name, work)


def test_a_switch_hands_the_turn_on_at_the_call_that_the_schedule_names() -> None:
    """One agent runs at a time; it changes at the numbered calls and at ends, nowhere else."""
    turns = Turns(parse("writer: *#2=switch; rival: *#2=switch").faults)
    steps(turns, "writer", 3)
    steps(turns, "rival", 2)
    turns.run()
    did = [line for line in turns.history.lines if " did " in line]
    assert did == ["writer did 0", "rival did 0", "writer did 1", "writer did 2", "rival did 1"]


def test_locks_that_are_held_crosswise_are_a_deadlock(tmp_path: Path) -> None:
    """Agents that wait for each other are told of, with what both did; no time passes."""
    from fstx.backends.local import native_ops
    from fstx_conformance.seams.ops import FaultOps

    turns = Turns(parse("writer: lock#2=switch").faults)

    def taking(*names: str) -> Any:
        def work(process: Any) -> list[bool]:
            ops = FaultOps(native_ops(), process, root=str(tmp_path))
            held = [ops.lock(str(tmp_path / name), wait_s=30.0) for name in names]
            for lock in held:
                if lock is not None:
                    lock.release()
            return [lock is not None for lock in held]

        return work

    turns.add("writer", taking("one", "two"))
    turns.add("rival", taking("two", "one"))
    agents = turns.run()
    assert turns.problems == ["deadlock: rival, writer wait for locks of each other for ever"]
    assert sorted(agents[name].result for name in agents) == [[True, False], [True, True]]
    assert any("rival: lock two" in line for line in turns.history.lines)


def test_a_schedule_gives_the_same_history_each_time(folder: str) -> None:
    """An interleaving is repeated by its schedule, byte for byte, on another folder too."""
    race = Race(
        "same path",
        {"a": b"old"},
        (Writer("writer", {"a": b"1"}), Writer("rival", {"a": b"2"})),
    )
    for url, at, then in ((folder, 31, 47), ("tx::memory://turns", 5, 8)):
        faults = (Fault("*", at, "switch"), Fault("*", then, "switch", agent="rival"))
        seen = []
        for _ in range(2):
            subject = subject_of(url)
            with Lab(subject, "x", seed=3).room() as room:
                trial = run_race(room, race, Schedule(faults, seed=3))
            subject.close()
            assert trial.fired["switch"] == 2
            seen.append((trial.history.lines, trial.calls))
        assert seen[0] == seen[1]
        assert sum(line.startswith("--") for line in trial.history.lines) >= 3


def test_switches_are_all_of_them_or_spread_evenly() -> None:
    """With budget for all, each pair of calls occurs once; with less, early and late calls occur."""
    every = list(switches({"writer": 6, "rival": 5}, 1000))
    assert len(every) == len(set(every)) == 6 * (1 + 5)
    some = list(switches({"writer": 100, "rival": 80}, 60))
    assert len(some) == 60
    pairs = [faults for faults in some if len(faults) == 2]
    for quarter in range(4):
        for agent, count in ((0, 100), (1, 80)):
            inside = [p for p in pairs if (p[agent].nth - 1) * 4 // count == quarter]
            assert 5 <= len(inside) <= 15


def test_a_history_is_cut_where_it_is_too_long() -> None:
    """The first lines stay."""
    history = History(limit=2)
    for n in range(4):
        history.add(str(n))
    assert history.lines == ["0", "1"]


# --- the levels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["local", "memory", "tx-memory", "tx-local"])
@pytest.mark.parametrize("id", ids(Level.ISOLATION, Level.FENCING, Level.RESUME, Level.LIVENESS))
def test_the_level_passes(id: str, place: str, folder: str) -> None:
    """What is shipped keeps what the case asks for."""
    result = run_case(urls(folder)[place], id)
    assert result.verdict in (Verdict.PASS, Verdict.NOT_APPLICABLE), shown(result)


def test_isolation_fails_where_nobody_compares_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is not compared with its base loses another's: the level sees it."""
    monkeypatch.setattr(conflicts, "met", lambda *_: None)
    result = run_case("tx::memory://levels-two", "isolation.same-path")
    assert result.verdict is Verdict.FAIL
    assert "BACKEND-21" in result.failures[0].message
    assert result.failures[0].replay.count("switch") <= 2


def test_readers_are_missed_by_no_call(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that is moved away before the new one comes has a gap: the level sees it."""
    before = Performer.perform

    def gap(self: Any, effect: Any) -> Any:
        if isinstance(effect, v.Move) and effect.how == "exchange":
            for path in glob(f"{folder}/*/*/t/a"):
                os.unlink(path)
        return before(self, effect)

    monkeypatch.setattr(Performer, "perform", gap)
    result = run_case(folder, "isolation.readers", "scene=replace")
    assert result.verdict is Verdict.FAIL
    assert "a is absent" in result.failures[0].message


def test_fencing_fails_where_nobody_looks_for_the_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that does not look whether it was given up lands after recovery: the level sees it."""
    monkeypatch.setattr(conflicts, "gone", lambda *_: False)
    result = run_case("tx::memory://levels-two", "fencing.fenced")
    assert result.verdict is Verdict.FAIL
    assert "BACKEND-40" in result.failures[0].message
    assert "fence" in result.failures[0].replay


def test_fencing_fails_where_an_answer_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A put into a slot that was cut off is no commit: without a look at the boundary the level sees it."""
    monkeypatch.setattr(Log, "boundary", lambda self: 0)
    result = run_case("tx::memory://levels-two", "fencing.truncate")
    assert result.verdict is Verdict.FAIL


def test_fencing_fails_where_pins_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that deletes what a reader pinned: the level sees it."""
    monkeypatch.setattr(collect, "pins_of", lambda dataset: iter(()))
    result = run_case("tx::memory://levels-two", "fencing.collect")
    assert result.verdict is Verdict.FAIL
    assert any("reader" in f.scene for f in result.failures)


def test_liveness_fails_where_recovery_runs_for_ever(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery that looks again and again is told by its calls; no clock is asked."""

    def again(self: Recoverer, control: Any, txid: str, removed: list[str]) -> None:
        while True:
            control.ops.lstat(control.path)

    monkeypatch.setattr(Recoverer, "_one", again)
    result = run_case(folder, "liveness.after-a-kill", "+#40=kill")
    assert result.verdict is Verdict.FAIL
    assert "does not end" in result.failures[0].message


def test_liveness_fails_where_something_is_left(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery that leaves the staged files of the dead: the level sees it."""
    monkeypatch.setattr(control, "remove_tree", lambda ops, path: [])
    monkeypatch.setattr(recovery, "remove_tree", lambda ops, path: [])
    monkeypatch.setattr(perform, "remove_tree", lambda ops, path: [])
    result = run_case(folder, "liveness.after-a-kill", "+#40=kill")
    assert result.verdict is Verdict.FAIL


@pytest.mark.skipif(os.name != "posix", reason="the signals are those of POSIX")
def test_a_real_process_is_killed_and_another_stands_still(folder: str) -> None:
    """The worker runs a scene by its URL; a schedule kills it, or stops it while others come."""
    for id, action in (("crash.sigkill", "sigkill"), ("fencing.sigstop", "sigstop")):
        result = run_case(folder, id, f"scene=create; +#20={action}")
        assert result.verdict is Verdict.PASS, shown(result)
        assert dict(result.fired) == {action: 1}


# --- regressions ------------------------------------------------------------------------------------------


def test_memory_removes_a_tree_as_it_was_when_it_was_removed() -> None:
    """Once: a file that came into the tree, or changed there, was removed unseen (PATH-6)."""
    for scene in ("remove and add", "remove and change"):
        replay = f"case=isolation.remove; scene={scene}; step#3=switch"
        result = run_case("memory://regressions", "isolation.remove", replay)
        assert result.verdict is Verdict.PASS, shown(result)
        assert dict(result.seen) == {"committed": 1, "conflict": 1}
