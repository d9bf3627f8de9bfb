"""The page: one static HTML document that needs nothing else, for one result or several.

Everything that comes from a result is text: `markup` escapes it. A verdict is a word and a sign; colour only
repeats them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import files

from fstx_conformance.report.markup import Markup, joined, tag
from fstx_conformance.report.subject import subject
from fstx_conformance.report.text import used
from fstx_conformance.report.verdicts import matrix_cell, verdict, word
from fstx_conformance.report.view import MEANINGS, UNTESTED, WORST, levels, many
from fstx_conformance.results import Level, Result, Verdict


def page(results: Result | Sequence[Result]) -> str:
    """The document."""
    told = [results] if isinstance(results, Result) else list(results)
    title = f"Conformance: {told[0].subject}" if len(told) == 1 else "Conformance"
    body = tag(
        "body",
        tag("header", tag("h1", title), _lead(told)),
        tag("main", _matrix(told), [subject(r, f"s{n}") for n, r in enumerate(told, 1)]),
        _legend(),
    )
    return f"<!DOCTYPE html>\n{tag('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Markup:
    style = files("fstx_conformance.report").joinpath("page.css").read_text(encoding="utf-8")
    # Nothing is loaded and nothing runs, whatever a report holds.
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style)),
    )


def _lead(results: Sequence[Result]) -> Markup:
    runs = sum(c.runs for r in results for c in r.cases)
    cases = sum(len(r.cases) for r in results)
    if len(results) == 1:
        said = joined(
            [verdict(results[0].verdict), f": {many(cases, 'case')}, {many(runs, 'run')}."]
        )
    else:
        counts = Counter(r.verdict for r in results)
        parts = [joined([f"{counts[v]} ", verdict(v)]) for v in WORST if counts[v]]
        said = joined(
            [
                f"{many(len(results), 'subject')}: ",
                joined(parts, ", "),
                f". {many(cases, 'case')}, {many(runs, 'run')}.",
            ]
        )
    return tag("p", said, class_="lead")


def _matrix(results: Sequence[Result]) -> Markup:
    shown = used(results)
    names = ["all", *(level.value for level in shown)]
    head = tag("tr", _column("subject"), [_column(n) for n in names], role="row")
    rows = [_matrix_row(result, f"s{n}", shown) for n, result in enumerate(results, 1)]
    return tag(
        "section",
        tag("h2", "Levels", id="levels"),
        tag(
            "table",
            tag("thead", head, role="rowgroup"),
            tag("tbody", rows, role="rowgroup"),
            class_="matrix",
            role="table",
            aria_label="Verdict of each subject at each level",
        ),
        aria_labelledby="levels",
    )


def _column(name: str) -> Markup:
    return tag("th", name, scope="col", role="columnheader")


def _matrix_row(result: Result, id: str, shown: Sequence[Level]) -> Markup:
    has = {row.level for row in levels(result)}
    name = tag(
        "th",
        tag("a", result.subject, href=f"#{id}"),
        tag("div", result.strategy, class_="soft"),
        scope="row",
        role="rowheader",
    )
    cells = [
        matrix_cell(result.level(level), level.value, f"#{id}-{level}" if level in has else None)
        for level in shown
    ]
    return tag("tr", name, matrix_cell(result.verdict, "all", f"#{id}"), cells, role="row")


def _legend() -> Markup:
    rows = [
        joined([tag("dt", verdict(v)), tag("dd", MEANINGS[v])])
        for v in (Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE)
    ]
    untested = joined([tag("dt", word(UNTESTED)), tag("dd", "no case of this run names the rule")])
    return tag(
        "footer",
        tag("h2", "What the words mean"),
        tag("dl", rows, untested, class_="facts"),
        tag(
            "p",
            "Rules are those of the specification of fstx; a replay line shows a failure again. The same for "
            "programs lies beside this page, as JSON and as JUnit XML.",
            class_="soft small",
        ),
    )


__all__ = ["page"]
