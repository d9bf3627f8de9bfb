"""JUnit XML: a suite for each level, a test case for each case; failing is failure, inconclusive is error.

Declared promises are a suite of their own, so that a broken one is red even where no case is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from fstx_conformance.report.view import (
    levels,
    one_line,
    promise_verdict,
    tallied,
    verbatim,
    visible,
)
from fstx_conformance.results import CaseResult, Failure, PromiseRow, Result, Verdict

_COUNTED = {
    Verdict.FAIL: "failures",
    Verdict.INCONCLUSIVE: "errors",
    Verdict.NOT_APPLICABLE: "skipped",
}


def junit(results: Result | Sequence[Result]) -> str:
    """One XML document of one or several results."""
    told = [results] if isinstance(results, Result) else list(results)
    root = ET.Element("testsuites", name="fstx conformance")
    for result in told:
        for row in levels(result):
            suite = _suite(root, result, row.level.value, row.cases)
            for case in row.cases:
                _case(suite, f"{one_line(result.subject)}.{row.level}", case)
        if result.promises:
            _promises(root, result)
    verdicts = [c.verdict for r in told for c in r.cases]
    verdicts += [promise_verdict(p) for r in told for p in r.promises]
    _count(root, verdicts, sum(r.seconds for r in told))
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def failure_text(failure: Failure) -> str:
    """A failure in lines: what, how to see it again, and what happened."""
    lines = [visible(failure.message)]
    named = (("schedule", failure.schedule), ("scene", failure.scene), ("replay", failure.replay))
    lines += [f"{name}: {verbatim(value)}" for name, value in named if value]
    if failure.history:
        lines += ["history:", *(f"  {verbatim(line)}" for line in failure.history)]
    return "\n".join(lines)


def _suite(root: ET.Element, result: Result, name: str, cases: Sequence[CaseResult]) -> ET.Element:
    suite = ET.SubElement(root, "testsuite", name=f"{one_line(result.subject)}.{name}")
    _count(suite, [c.verdict for c in cases], sum(c.seconds for c in cases))
    properties = ET.SubElement(suite, "properties")
    told = {
        "url": result.url,
        "strategy": result.strategy,
        "profile": result.profile,
        "seed": str(result.seed),
        "command": result.command,
        **result.environment,
    }
    for key, value in told.items():
        ET.SubElement(properties, "property", name=one_line(key), value=one_line(value))
    return suite


def _case(suite: ET.Element, place: str, case: CaseResult) -> None:
    made = ET.SubElement(
        suite, "testcase", classname=place, name=one_line(case.id), time=f"{case.seconds:.3f}"
    )
    reason = one_line(case.reason)
    if case.verdict is Verdict.FAIL:
        failures = case.failures or (Failure(case.reason or "no details were recorded"),)
        found = ET.SubElement(made, "failure", type="fail", message=one_line(failures[0].message))
        found.text = "\n\n".join(failure_text(f) for f in failures)
    elif case.verdict is Verdict.INCONCLUSIVE:
        ET.SubElement(made, "error", type="inconclusive", message=reason)
    elif case.verdict is Verdict.NOT_APPLICABLE:
        ET.SubElement(made, "skipped", message=reason)
    told = (
        ("rules", " ".join(case.rules)),
        ("runs", str(case.runs)),
        ("failing runs", str(case.failing_runs) if case.failing_runs else ""),
        ("tried", "" if case.sample is None else str(case.sample)),
        ("fired", tallied(case.fired)),
        ("seen", tallied(case.seen)),
    )
    ET.SubElement(made, "system-out").text = "\n".join(
        f"{name}: {visible(value)}" for name, value in told if value
    )


def _promises(root: ET.Element, result: Result) -> None:
    suite = _suite(root, result, "promises", ())
    for promise in result.promises:
        verdict = promise_verdict(promise)
        made = ET.SubElement(
            suite,
            "testcase",
            classname=f"{one_line(result.subject)}.promises",
            name=one_line(promise.capability),
            time="0.000",
        )
        why = _why(promise)
        if verdict is Verdict.FAIL:
            ET.SubElement(made, "failure", type="fail", message=why)
        elif verdict is Verdict.INCONCLUSIVE:
            ET.SubElement(made, "error", type="inconclusive", message=why)
        elif verdict is Verdict.NOT_APPLICABLE:
            ET.SubElement(made, "skipped", message=why)
    _count(suite, [promise_verdict(p) for p in result.promises], 0.0)


def _why(promise: PromiseRow) -> str:
    declared = "declared" if promise.declared else "not declared"
    cases = f" (cases: {', '.join(promise.cases)})" if promise.cases else ""
    reason = f": {promise.reason}" if promise.reason else ""
    return one_line(f"{declared}, observed: {promise.observed}{reason}{cases}")


def _count(element: ET.Element, verdicts: Iterable[Verdict], seconds: float) -> None:
    counted = list(verdicts)
    element.set("tests", str(len(counted)))
    for verdict, name in _COUNTED.items():
        element.set(name, str(counted.count(verdict)))
    element.set("time", f"{seconds:.3f}")
