"""Results of the conformance suite that no run has made: for tests of the reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fstx_conformance.results import CaseResult, Failure, Level, PromiseRow, Result, Verdict

HOSTILE = "<script>alert('x')</script>&\"|`*_\x1b[31m\x00\u202e\udc80\n]]>"

FAILURE = Failure(
    message="neither old nor new",
    schedule="seed=7; rename_new[*scene]#1=kill",
    scene="replace of two files",
    history=("writer: mkdir /T/.fstx", "writer: rename_new /T/scene -> kill"),
    replay="fstx conformance run 'file:///a  b' --replay 'seed=7; rename_new[*scene]#1=kill'",
)


def case(id: str, verdict: Verdict = Verdict.PASS, **members: Any) -> CaseResult:
    """A case; its level is the first part of its id."""
    made = CaseResult(id, Level(id.partition(".")[0]), verdict, runs=10, seconds=0.5)
    return replace(made, **members)


def result(*cases: CaseResult, **members: Any) -> Result:
    """A result of these cases."""
    made = Result("here", "file:///here", "redo", "standard", 7, cases, seconds=12.0)
    return replace(made, **members)


def mixed() -> Result:
    """A result with a bit of everything."""
    return result(
        case("semantics.modes", rules=("BACKEND-13", "BACKEND-14"), seen=(("commit", 9),)),
        case(
            "crash.kill",
            Verdict.FAIL,
            rules=("BACKEND-35", "BACKEND-13"),
            failures=(FAILURE, Failure("a second one", "seed=7; unlink#2=fail")),
            failing_runs=3,
            fired=(("kill", 40),),
        ),
        case("power.cut", Verdict.NOT_APPLICABLE, rules=("BACKEND-20",), reason="no disk", runs=0),
        case("fencing.late", Verdict.INCONCLUSIVE, rules=("BACKEND-40",), reason="never fired"),
        promises=(
            PromiseRow("ATOMIC_SET", True, "kept", "one rename", ("semantics.modes",)),
            PromiseRow("RECOVERABLE", True, "broken", "see there", ("crash.kill",)),
            PromiseRow("FENCED", True, "not tried"),
            PromiseRow("NO_GAP", False, "kept"),
        ),
        untested=("BACKEND-1", "OPS-2"),
        environment={"kit": "1.2", "os": "Linux", "python": "3.11", "file system": "ext4"},
        command="fstx conformance run file:///here --seed 7",
    )


def hostile() -> Result:
    """A result in which every text that it can hold is hostile."""
    failure = Failure(HOSTILE, HOSTILE, HOSTILE, (HOSTILE, HOSTILE + " -> kill"), HOSTILE)
    return Result(
        HOSTILE,
        HOSTILE,
        HOSTILE,
        HOSTILE,
        0,
        (
            case("crash.x" + HOSTILE, Verdict.FAIL, failures=(failure,), rules=(HOSTILE,)),
            case("hygiene.x" + HOSTILE, Verdict.INCONCLUSIVE, reason=HOSTILE),
            case("scale.x", Verdict.NOT_APPLICABLE, reason=HOSTILE, fired=((HOSTILE, 1),)),
            case("power.x", Verdict.FAIL, reason=HOSTILE, seen=((HOSTILE, 1),)),
        ),
        (
            PromiseRow(HOSTILE, True, HOSTILE, HOSTILE, (HOSTILE,)),
            PromiseRow("P", True, "broken", HOSTILE),
        ),
        (HOSTILE,),
        {HOSTILE: HOSTILE},
        1.0,
        HOSTILE,
    )
