"""What all forms of a report tell alike: words, signs, counts, and which rule was proven by what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from fstx_conformance import rules
from fstx_conformance.results import CaseResult, Failure, Level, PromiseRow, Result, Verdict

UNTESTED = "UNTESTED"

SIGNS = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NOT_APPLICABLE: "–",
}
ASCII_SIGNS = {
    Verdict.PASS: "+",
    Verdict.FAIL: "x",
    Verdict.INCONCLUSIVE: "?",
    Verdict.NOT_APPLICABLE: "-",
}
MEANINGS = {
    Verdict.PASS: "every case that applies held in every run, and what had to happen did",
    Verdict.FAIL: "a case was broken, or a declared promise was",
    Verdict.INCONCLUSIVE: "a fault never fired, or something that had to happen did not: nothing is shown",
    Verdict.NOT_APPLICABLE: "the storage has no such thing; each case says why",
}
WORST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.NOT_APPLICABLE)

# Controls, lone surrogates, and marks that turn the direction of text: none may act on who reads a report.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069\ufffe\uffff]"
)


def visible(text: object) -> str:
    """`text` with everything that could act on a terminal, a page or a parser spelled as an escape."""
    return _HIDDEN.sub(lambda m: m[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def one_line(text: object) -> str:
    """As `visible`, on one line, for people."""
    return " ".join(visible(text).split())


def verbatim(text: object) -> str:
    """As `visible`, on one line, for programs: spaces stay as they are."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


@dataclass(frozen=True, slots=True)
class LevelRow:
    """One level of one result."""

    level: Level
    verdict: Verdict
    cases: tuple[CaseResult, ...]

    @property
    def runs(self) -> int:
        """Runs of all its cases."""
        return sum(c.runs for c in self.cases)

    @property
    def told(self) -> str:
        """How many cases came to what, and in how many runs: ``12 pass, 1 fail; 3,410 runs``."""
        return f"{counted(c.verdict for c in self.cases)}; {many(self.runs, 'run')}"


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule, and what the cases that name it came to; no verdict: UNTESTED."""

    id: str
    statement: str
    verdict: Verdict | None
    cases: tuple[CaseResult, ...]


def levels(result: Result) -> list[LevelRow]:
    """The levels that have cases, in order."""
    rows = []
    for level in Level:
        cases = tuple(c for c in result.cases if c.level == level)
        if cases:
            rows.append(LevelRow(level, result.level(level), cases))
    return rows


def rule_rows(result: Result) -> list[RuleRow]:
    """What third parties owe, and every other rule that a case names or the run lists as untested."""
    by_rule: dict[str, list[CaseResult]] = {}
    for case in result.cases:
        for id in case.rules:
            by_rule.setdefault(id, []).append(case)
    known = rules.every()
    owed = {id for id, rule in known.items() if rule.family in rules.OWED}
    # A result that lists what it did not try decides which rules concern its subject.
    ids = {*by_rule, *result.untested} if result.untested else {*by_rule, *owed}
    rows = []
    for id in rules.order(ids):
        cases = tuple(by_rule.get(id, ()))
        statement = (
            known[id].statement if id in known else "(a rule that this version does not know)"
        )
        rows.append(RuleRow(id, statement, worst(c.verdict for c in cases), cases))
    return rows


@dataclass(frozen=True, slots=True)
class RuleGroup:
    """Rules of one kind: how many there are, how many are proven, and which no case names."""

    title: str
    owed: bool
    rows: tuple[RuleRow, ...]

    @property
    def proven(self) -> int:
        """How many are proven."""
        return sum(row.verdict is Verdict.PASS for row in self.rows)

    @property
    def untested(self) -> tuple[str, ...]:
        """Ids of the others that no case names."""
        return tuple(row.id for row in self.rows if row.verdict is None)

    @property
    def told(self) -> str:
        """``of 45 rules 30 proven, 2 fail, 13 UNTESTED``."""
        rest = counted(r.verdict for r in self.rows if r.verdict not in (None, Verdict.PASS))
        between = "" if rest == "none" else f"{rest}, "
        return (
            f"of {many(len(self.rows), 'rule')} {self.proven} proven, {between}"
            f"{len(self.untested)} {UNTESTED}"
        )


def rule_groups(result: Result) -> list[RuleGroup]:
    """What is owed by every backend, and the library's own rules apart."""
    rows = rule_rows(result)
    owed = tuple(row for row in rows if row.id.rpartition("-")[0] in rules.OWED)
    own = tuple(row for row in rows if row not in owed)
    groups = [
        RuleGroup("owed by every backend", True, owed),
        RuleGroup("of the library's own parts", False, own),
    ]
    return [group for group in groups if group.rows]


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The worst of some verdicts; None of none."""
    found = set(verdicts)
    return next((v for v in WORST if v in found), None)


def promise_verdict(promise: PromiseRow) -> Verdict:
    """Declaring more than was observed fails; declaring less is only noted."""
    if not promise.declared:
        return Verdict.NOT_APPLICABLE
    said = {"kept": Verdict.PASS, "broken": Verdict.FAIL}
    return said.get(promise.observed, Verdict.INCONCLUSIVE)


def promise_note(promise: PromiseRow) -> str:
    """What to make of a promise, in words."""
    if promise.declared:
        return {"kept": "kept", "broken": "declared and broken"}.get(
            promise.observed, "declared, and not shown"
        )
    return "kept, yet not declared" if promise.observed == "kept" else "not declared"


def failures(result: Result) -> list[tuple[CaseResult, Failure]]:
    """Every failure with its case; a failing case without one is told by its reason."""
    found: list[tuple[CaseResult, Failure]] = []
    for case in result.cases:
        if case.verdict is Verdict.FAIL:
            told = case.failures or (Failure(case.reason or "no details were recorded"),)
            found.extend((case, failure) for failure in told)
    return found


def unexplained(result: Result) -> list[PromiseRow]:
    """Declared promises that were broken though no failing case is named for them."""
    failed = {c.id for c in result.cases if c.verdict is Verdict.FAIL}
    return [
        p
        for p in result.promises
        if promise_verdict(p) is Verdict.FAIL and failed.isdisjoint(p.cases)
    ]


def counted(verdicts: Iterable[Verdict | None]) -> str:
    """``3 fail, 12 pass``: worst first."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[v]} {v.value}" for v in WORST if counts[v]) or "none"


def many(number: int, noun: str) -> str:
    """``1 case``, ``1,200 cases``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def tallied(pairs: Iterable[tuple[str, int]]) -> str:
    """``kill 40, lost-reply 12``."""
    return ", ".join(f"{name} {n:,}" for name, n in pairs)


def took(seconds: float) -> str:
    """A duration for people."""
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
