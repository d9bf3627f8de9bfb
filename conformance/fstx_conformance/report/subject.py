"""The page's part about one result: failures first, then levels, promises, rules and environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from fstx_conformance.report.markup import Child, Markup, code, joined, prose, tag
from fstx_conformance.report.verdicts import verdict, word
from fstx_conformance.report.view import (
    UNTESTED,
    LevelRow,
    RuleGroup,
    RuleRow,
    failures,
    levels,
    many,
    promise_note,
    promise_verdict,
    rule_groups,
    tallied,
    took,
    unexplained,
    visible,
)
from fstx_conformance.results import CaseResult, Failure, PromiseRow, Result, Verdict
from fstx_conformance.rules import ranges
from fstx_conformance.schedule import ACTIONS

OPEN_LINES = 40
"""Of longer histories all but the last `LAST_LINES` are folded; printing unfolds them."""
LAST_LINES = 20

_FAULT = re.compile(rf"-> (?:{'|'.join(sorted(ACTIONS, key=len, reverse=True))})\s*$")
_ENVIRONMENT = ("kit", "fstx", "fsspec", "python", "os", "system", "file system")


def subject(result: Result, id: str) -> Markup:
    """Everything about one result, below anchors that begin with `id`."""
    return tag(
        "section",
        tag("h2", result.subject, " ", verdict(result.verdict), id=id),
        _where(result),
        _failures(result, id),
        _levels(result, id),
        _promises(result, id),
        _rules(result, id),
        _environment(result),
        class_="subject",
        aria_labelledby=id,
    )


def _where(result: Result) -> Markup:
    told = [
        tag("p", code(result.url)),
        tag(
            "p",
            f"strategy {result.strategy}, profile {result.profile}, seed {result.seed}; "
            f"{many(len(result.cases), 'case')}, {many(sum(c.runs for c in result.cases), 'run')} "
            f"in {took(result.seconds)}",
            class_="soft",
        ),
    ]
    return joined(told)


# --- failures -------------------------------------------------------------------------------------------


def _failures(result: Result, id: str) -> Markup | None:
    found = failures(result)
    alone = unexplained(result)
    if not found and not alone:
        return None
    told = [_failure(c, f, f"{id}-f{n}") for n, (c, f) in enumerate(found, 1)]
    told += [_broken(p) for p in alone]
    return joined([tag("h3", many(len(told), "failure")), *told])


def _failure(case: CaseResult, failure: Failure, id: str) -> Markup:
    rows: list[Child] = []
    named = (("Schedule", failure.schedule), ("Scene", failure.scene))
    rows += [joined([tag("dt", n), tag("dd", tag("pre", v))]) for n, v in named if v]
    if failure.history:
        rows.append(joined([tag("dt", "History"), tag("dd", _history(failure.history))]))
    if failure.replay:
        rows.append(joined([tag("dt", "Replay"), tag("dd", tag("pre", failure.replay))]))
    runs = f", {case.failing_runs:,} of {many(case.runs, 'run')}" if case.failing_runs else ""
    return tag(
        "article",
        tag("h4", verdict(Verdict.FAIL), " ", code(case.id), id=id),
        tag("div", case.level, runs, _named(case.rules), class_="soft small"),
        tag("p", failure.message, class_="message"),
        tag("dl", rows) if rows else None,
        class_="failure",
        aria_labelledby=id,
    )


def _broken(promise: PromiseRow) -> Markup:
    return tag(
        "article",
        tag("h4", verdict(Verdict.FAIL), " promise ", code(promise.capability)),
        tag("p", f"{promise_note(promise)}: {promise.reason}", class_="message"),
        class_="failure",
    )


def _named(rules: Sequence[str]) -> Markup | None:
    return joined(["; ", _ids(rules)]) if rules else None


def _ids(rules: Iterable[str]) -> Markup:
    return joined((_id(rule) for rule in rules), ", ")


def _id(rule: str) -> Markup:
    return tag("code", rule, class_="id")


def _history(lines: Sequence[str]) -> Markup:
    if len(lines) <= OPEN_LINES:
        return _numbered(lines, 1)
    first = len(lines) - LAST_LINES
    folded = tag(
        "details",
        tag("summary", many(first, "earlier line")),
        _numbered(lines[:first], 1),
    )
    return joined([folded, _numbered(lines[first:], first + 1)])


def _numbered(lines: Sequence[str], start: int) -> Markup:
    rows = [tag("li", tag("code", _line(line))) for line in lines]
    return tag("ol", rows, class_="history", start=str(start))


def _line(line: str) -> Markup | str:
    """A line of a history; where the fault was is marked."""
    shown = visible(line)
    if _FAULT.search(shown) is None:
        return shown
    return tag("strong", shown, class_="fault")


# --- levels and cases -----------------------------------------------------------------------------------


def _levels(result: Result, id: str) -> Markup:
    told = [_level(row, f"{id}-{row.level}") for row in levels(result)]
    return joined([tag("h3", "Levels"), tag("div", told, class_="levels")])


def _level(row: LevelRow, id: str) -> Markup:
    folded = row.verdict in (Verdict.PASS, Verdict.NOT_APPLICABLE)
    names = ("case", "verdict", "rules", "runs", "what happened")
    table = _table(names, (_case(c) for c in row.cases), "cases")
    return tag(
        "details",
        tag(
            "summary",
            verdict(row.verdict),
            " ",
            tag("span", row.level, class_="name"),
            " ",
            tag("span", row.told, class_="soft"),
        ),
        table,
        id=id,
        open=not folded,
    )


def _case(case: CaseResult) -> Sequence[Child]:
    happened = [case.reason] if case.reason else []
    happened += [f"tried: {case.sample}"] if case.sample is not None else []
    happened += [
        f"{n}: {tallied(p)}" for n, p in (("faults", case.fired), ("seen", case.seen)) if p
    ]
    return (
        code(case.id),
        verdict(case.verdict),
        _ids(case.rules),
        f"{case.runs:,}",
        "; ".join(happened),
    )


# --- promises and rules -------------------------------------------------------------------------------


def _promises(result: Result, id: str) -> Markup | None:
    if not result.promises:
        return None
    rows = (
        (
            code(p.capability),
            "yes" if p.declared else "no",
            verdict(promise_verdict(p), promise_note(p)),
            joined(map(code, p.cases), ", "),
            p.reason,
        )
        for p in result.promises
    )
    names = ("promise", "declared", "observed", "cases", "reason")
    return joined([tag("h3", "Promises"), _table(names, rows, "promises")])


def _rules(result: Result, id: str) -> Markup:
    return joined([tag("h3", "Rules"), *(_group(group) for group in rule_groups(result))])


def _group(group: RuleGroup) -> Markup:
    names = ("rule", "verdict", "statement", "cases")
    table = _table(names, (_rule(row) for row in group.rows), "rules")
    return joined(
        [
            tag("p", word(UNTESTED), f" {group.title}: ", ranges(group.untested))
            if group.untested
            else None,
            tag("details", tag("summary", f"{group.title.capitalize()}: {group.told}"), table),
        ]
    )


def _rule(row: RuleRow) -> Sequence[Child]:
    cases = [
        joined([code(c.id), "" if c.verdict is Verdict.PASS else f" ({c.verdict})"])
        for c in row.cases
    ]
    return (_id(row.id), verdict(row.verdict), prose(row.statement), joined(cases, ", "))


def _environment(result: Result) -> Markup:
    order = {name: n for n, name in enumerate(_ENVIRONMENT)}
    keys = sorted(result.environment, key=lambda k: (order.get(k, len(order)), k))
    facts = [(k, result.environment[k]) for k in keys]
    facts += [("seed", str(result.seed)), ("command", result.command)]
    rows = [joined([tag("dt", k), tag("dd", code(v))]) for k, v in facts if v]
    return joined([tag("h3", "Environment"), tag("dl", rows, class_="facts")])


def _table(names: Sequence[str], rows: Iterable[Sequence[Child]], kind: str) -> Markup:
    """A table whose first column heads its rows; cells carry their column's name for narrow screens."""
    head = [tag("th", n, scope="col", role="columnheader") for n in names]
    body = []
    for first, *others in rows:
        cells = [tag("th", first, scope="row", role="rowheader")]
        cells += [
            tag("td", tag("div", value), data_label=name, role="cell", class_=_blank(value))
            for name, value in zip(names[1:], others, strict=True)
        ]
        body.append(tag("tr", cells, role="row"))
    return tag(
        "table",
        tag("thead", tag("tr", head, role="row"), role="rowgroup"),
        tag("tbody", body, role="rowgroup"),
        class_=kind,
        role="table",
        aria_label=kind,
    )


def _blank(value: Child) -> str | None:
    return "blank" if value == "" else None


__all__ = ["LAST_LINES", "OPEN_LINES", "subject"]
