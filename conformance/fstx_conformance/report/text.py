"""Reports as text: a result for the terminal, and several as a Markdown table for the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fstx_conformance.report.view import (
    ASCII_SIGNS,
    SIGNS,
    UNTESTED,
    failures,
    levels,
    many,
    one_line,
    promise_note,
    promise_verdict,
    rule_groups,
    took,
    unexplained,
    verbatim,
    visible,
)
from fstx_conformance.results import CaseResult, Failure, Level, Result, Verdict
from fstx_conformance.rules import ranges

HISTORY_LINES = 12
_MARKDOWN = re.compile(r"([\\`*_|<>\[\]&#])")


def told(result: Result, *, ascii_only: bool = False, history_lines: int = HISTORY_LINES) -> str:
    """A result for the terminal.

    Parameters
    ----------
    ascii_only
        Signs for terminals that show nothing else.
    history_lines
        The last lines of a failure's history; more are in the page and in the JSON.
    """
    signs = ASCII_SIGNS if ascii_only else SIGNS
    lines = list(_lines(result, signs, history_lines))
    text = "\n".join(lines) + "\n"
    return text.encode("ascii", "backslashreplace").decode() if ascii_only else text


def plain(encoding: str | None) -> bool:
    """Whether a stream of this encoding has no signs: then `told` should be asked for ASCII only."""
    try:
        "".join(SIGNS.values()).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def _lines(result: Result, signs: dict[Verdict, str], history_lines: int) -> Iterator[str]:
    place = one_line(result.url) if result.url != result.subject else ""
    names = ", ".join(filter(None, (place, f"strategy {one_line(result.strategy)}")))
    yield f"{signs[result.verdict]} {one_line(result.subject)} ({names}): {result.verdict}"
    yield f"  profile {one_line(result.profile)}, seed {result.seed}, {took(result.seconds)}"
    yield ""
    for row in levels(result):
        yield f"  {signs[row.verdict]} {row.verdict:12}  {row.level:10}  {row.told}"
    yield from _promises(result, signs)
    yield from _rules(result)
    for verdict, heading in (
        (Verdict.INCONCLUSIVE, "inconclusive"),
        (Verdict.NOT_APPLICABLE, "not applicable"),
    ):
        cases = [c for c in result.cases if c.verdict is verdict]
        if cases:
            yield from ("", f"{heading}:")
            yield from (f"  {one_line(c.id)}: {one_line(c.reason)}" for c in cases)
    sampled = [c for c in result.cases if c.sample is not None and not c.sample.whole]
    if sampled:
        yield from ("", "sampled:")
        yield from (f"  {one_line(c.id)}: {c.sample}" for c in sampled)
    failed = failures(result)
    if failed:
        yield from ("", f"{many(len(failed), 'failure')}:")
        for case, failure in failed:
            yield ""
            yield from _failure(case, failure, signs, history_lines)


def _promises(result: Result, signs: dict[Verdict, str]) -> Iterator[str]:
    if not result.promises:
        return
    yield from ("", "promises:")
    alone = unexplained(result)
    for promise in result.promises:
        verdict = promise_verdict(promise)
        why = f": {one_line(promise.reason)}" if promise.reason else ""
        hint = "; no failing case is named for it" if promise in alone else ""
        yield f"  {signs[verdict]} {one_line(promise.capability):17}  {promise_note(promise)}{why}{hint}"


def _rules(result: Result) -> Iterator[str]:
    yield from ("", "rules:")
    for group in rule_groups(result):
        yield f"  {group.title}: {group.told}"
        if group.owed and group.untested:  # the library has tests of its own for the others
            yield f"    {UNTESTED}: {one_line(ranges(group.untested))}"


def _failure(
    case: CaseResult, failure: Failure, signs: dict[Verdict, str], history_lines: int
) -> Iterator[str]:
    rules = f" ({', '.join(map(one_line, case.rules))})" if case.rules else ""
    runs = f"; {case.failing_runs:,} of {many(case.runs, 'run')}" if case.failing_runs else ""
    yield f"  {signs[Verdict.FAIL]} {one_line(case.id)}, {case.level}{rules}{runs}"
    yield from (f"    {line}" for line in visible(failure.message).splitlines())
    if failure.schedule:
        yield f"    schedule: {verbatim(failure.schedule)}"
    if failure.scene:
        yield f"    scene:    {one_line(failure.scene)}"
    if failure.history:
        kept = failure.history[-history_lines:] if history_lines else ()
        left = len(failure.history) - len(kept)
        yield "    history:" + (f"  ({many(left, 'earlier line')} left out)" if left else "")
        yield from (f"      {one_line(line)}" for line in kept)
    if failure.replay:
        yield f"    replay:   {verbatim(failure.replay)}"


# --- Markdown -------------------------------------------------------------------------------------------


def matrix(results: Sequence[Result], *, levels: Sequence[Level] | None = None) -> str:
    """A Markdown table: a row for each result, a column for each level that any of them has.

    Parameters
    ----------
    levels
        The columns, if not those.
    """
    shown = levels if levels is not None else used(results)
    head = ["backend", "strategy", *(level.value for level in shown), "all"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for result in results:
        cells = [_cell(result.subject), _cell(result.strategy)]
        cells += [_verdict(result.level(level)) for level in shown]
        rows.append("| " + " | ".join([*cells, _verdict(result.verdict)]) + " |")
    return "\n".join(rows) + "\n"


def promises(results: Sequence[Result]) -> str:
    """A Markdown table: what each declares, and what was seen of it."""
    names = list(dict.fromkeys(p.capability for r in results for p in r.promises))
    rows = ["| promise | " + " | ".join(_cell(r.subject) for r in results) + " |"]
    rows.append("|" + "---|" * (len(results) + 1))
    for name in names:
        found = [next((p for p in r.promises if p.capability == name), None) for r in results]
        cells = ["–" if p is None else promise_note(p) for p in found]
        rows.append(f"| {_cell(name)} | " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def used(results: Sequence[Result]) -> tuple[Level, ...]:
    """The levels that any of the results has cases of, in order."""
    found = {case.level for result in results for case in result.cases}
    return tuple(level for level in Level if level in found)


def _verdict(verdict: Verdict) -> str:
    return f"**{verdict}**" if verdict is Verdict.FAIL else verdict.value


def _cell(value: str) -> str:
    return _MARKDOWN.sub(r"\\\1", one_line(value)).replace("\\_", "_")


__all__ = ["HISTORY_LINES", "matrix", "plain", "promises", "told", "used"]
