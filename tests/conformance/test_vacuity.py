"""A run that saw too little proves nothing, and says so; a promise is judged by what was seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fstx.types import Capability, Guarantee, Promise
from fstx_conformance.broken.over import Datasets, Memory, OverBackend
from fstx_conformance.broken.table import BROKEN, judge
from fstx_conformance.cases import cases
from fstx_conformance.report.view import promise_note
from fstx_conformance.results import Level, PromiseRow, Result, Verdict
from fstx_conformance.run import Account
from fstx_conformance.subjects.urls import DatasetRoom


class _Deaf(Datasets):
    """A subject that says faults go in, and lets none in."""

    def room(self) -> DatasetRoom:
        room = super().room()
        opened = room.open
        room.open = lambda process=None: opened()  # type: ignore[method-assign]
        return room


class _ClaimsLess(OverBackend):
    def guarantee(self, **asked: Any) -> Guarantee:
        told = super().guarantee(**asked)
        less = Promise(Capability.CONFLICT_DETECTED, False, "nobody looked")
        rows = [p for p in told.promises if p.capability is not less.capability]
        return replace(told, promises=(*rows, less))


def _row(found: Result, capability: Capability) -> PromiseRow:
    return next(p for p in found.promises if p.capability == capability.value)


def test_faults_that_never_fire_are_inconclusive() -> None:
    """Where no fault can fire, no case of crash or ambiguity passes: each says what never happened."""
    levels = (Level.CRASH, Level.AMBIGUITY)
    found = judge(lambda folder: _Deaf("tx::memory://deaf"), only=levels)
    tried = [c for c in found.cases if c.verdict is not Verdict.NOT_APPLICABLE]
    assert len(tried) >= 8
    for case in tried:
        assert case.verdict is Verdict.INCONCLUSIVE, (case.id, case.failures)
        assert "fired" in case.reason
    assert found.level(Level.CRASH) is Verdict.INCONCLUSIVE
    assert found.verdict is Verdict.INCONCLUSIVE


def test_a_run_without_conflict_is_inconclusive() -> None:
    """A whole run that was never told of a conflict or of a doubt is inconclusive, though all passed."""
    account = Account(Datasets("tx::memory://quiet"))
    for case in cases():
        if case.id in ("hygiene.quiet", "hygiene.refused"):
            assert account.run(case).verdict is Verdict.PASS
    guard = account.guard()
    assert guard.verdict is Verdict.INCONCLUSIVE
    assert guard.reason == "never told: conflict, unknown"
    assert account.result(whole=True).verdict is Verdict.INCONCLUSIVE
    assert account.result(whole=False).verdict is Verdict.PASS
    account.seen.update(conflict=1, unknown=1)
    assert account.guard().verdict is Verdict.PASS


def test_claiming_more_than_is_kept_fails() -> None:
    """A promise that a case saw broken is a failure of the whole result, by its row alone."""
    found = judge(BROKEN["claims too much"].make, only=["crash.kill"], first=True)
    row = _row(found, Capability.ATOMIC_SET)
    assert row.declared
    assert row.observed == "broken"
    assert "crash.kill" in row.cases
    assert replace(found, cases=()).verdict is Verdict.FAIL


def test_claiming_less_is_a_note() -> None:
    """What is kept and not promised is told, and no failure."""
    make = lambda folder: Memory("memory://less", backend=_ClaimsLess)  # noqa: E731
    found = judge(make, only=["isolation.same-path"])
    row = _row(found, Capability.CONFLICT_DETECTED)
    assert not row.declared
    assert row.observed == "kept"
    assert promise_note(row) == "kept, yet not declared"
    assert found.verdict is Verdict.PASS
