"""What changed from one run to a later one, and whether it is worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fstx_conformance.report.view import (
    failures,
    one_line,
    promise_note,
    promise_verdict,
    rule_rows,
)
from fstx_conformance.results import CaseResult, Level, Result, Verdict

_RANK = {
    Verdict.PASS: 3,
    Verdict.NOT_APPLICABLE: 2,  # nothing is shown any more, or not yet: below a pass, above a failure
    Verdict.INCONCLUSIVE: 1,
    Verdict.FAIL: 0,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that came out otherwise; None: it was not there, or is not there any more."""

    kind: str  # "level", "case", "promise", "rule", "failure"
    name: str
    old: str | None
    new: str | None
    worse: bool

    def __str__(self) -> str:
        mark = "worse" if self.worse else "     "
        name = one_line(self.name)
        if self.old is None:
            return f"  {mark}  {self.kind} {name}: new, {self.new}"
        if self.new is None:
            return f"  {mark}  {self.kind} {name}: gone, was {self.old}"
        return f"  {mark}  {self.kind} {name}: {self.old} -> {self.new}"


@dataclass(frozen=True)
class Diff:
    """All changes between two results."""

    old: Result
    new: Result
    changes: tuple[Change, ...]
    notes: tuple[str, ...]  # what makes the two hard to compare

    @property
    def worse(self) -> bool:
        """True if anything is: a command exits by it."""
        return any(change.worse for change in self.changes)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        said = f"{one_line(self.old.subject)}: {self.old.verdict} -> {self.new.verdict}"
        end = "worse" if self.worse else ("changed, not worse" if self.changes else "no change")
        notes = (f"  note: {note}" for note in self.notes)
        return "\n".join([said, *notes, *map(str, self.changes), end]) + "\n"


def diff(old: Result, new: Result) -> Diff:
    """Verdicts that changed, cases that are new or gone, new failures, promises and rules."""
    changes = (*_levels(old, new), *_cases(old, new), *_promises(old, new), *_rules(old, new))
    return Diff(old, new, changes, tuple(_notes(old, new)))


def _notes(old: Result, new: Result) -> Iterator[str]:
    for name in ("subject", "strategy", "profile", "seed"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{name}: {one_line(before)} -> {one_line(after)}"
    for key in sorted({*old.environment, *new.environment}):
        was, now = old.environment.get(key, "not told"), new.environment.get(key, "not told")
        if was != now:
            yield f"{one_line(key)}: {one_line(was)} -> {one_line(now)}"


def _levels(old: Result, new: Result) -> Iterator[Change]:
    for level in Level:
        was, now = old.level(level), new.level(level)
        if was is not now:
            yield Change("level", level, was, now, _RANK[now] < _RANK[was])


def _cases(old: Result, new: Result) -> Iterator[Change]:
    before, after = {c.id: c for c in old.cases}, {c.id: c for c in new.cases}
    for id in dict.fromkeys([*before, *after]):
        was, now = before.get(id), after.get(id)
        if was is None and now is not None:
            yield Change("case", id, None, now.verdict, _bad(now.verdict))
        elif now is None and was is not None:
            # A case that is gone shows nothing any more; one that failed is not missed.
            yield Change("case", id, was.verdict, None, was.verdict is Verdict.PASS)
        elif was is not None and now is not None:
            if was.verdict is not now.verdict:
                worse = _RANK[now.verdict] < _RANK[was.verdict]
                yield Change("case", id, was.verdict, now.verdict, worse)
            elif now.verdict is Verdict.FAIL:
                yield from _failures(was, now, old, new)


def _failures(was: CaseResult, now: CaseResult, old: Result, new: Result) -> Iterator[Change]:
    """Of a case that failed before and fails now: failures that were not there."""
    known = {f.message for c, f in failures(old) if c.id == was.id}
    for _, failure in (pair for pair in failures(new) if pair[0].id == now.id):
        if failure.message not in known:
            said = one_line(failure.message)
            where = one_line(failure.schedule)
            yield Change("failure", now.id, None, f"{said} ({where})" if where else said, True)


def _promises(old: Result, new: Result) -> Iterator[Change]:
    before = {p.capability: p for p in old.promises}
    after = {p.capability: p for p in new.promises}
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        old_note = None if was is None else promise_note(was)
        new_note = None if now is None else promise_note(now)
        if old_note == new_note:
            continue
        old_rank = _RANK[promise_verdict(was)] if was is not None else None
        if now is None:
            worse = old_rank == _RANK[Verdict.PASS]
        elif old_rank is None:
            worse = _bad(promise_verdict(now))
        else:
            worse = _RANK[promise_verdict(now)] < old_rank
        yield Change("promise", name, old_note, new_note, worse)


def _rules(old: Result, new: Result) -> Iterator[Change]:
    """Rules that are proven no more, or now: a case may pass and name one rule fewer."""
    before = {row.id: row.verdict for row in rule_rows(old)}
    after = {row.id: row.verdict for row in rule_rows(new)}
    for id in dict.fromkeys([*before, *after]):
        was, now = before.get(id), after.get(id)
        if (was is Verdict.PASS) != (now is Verdict.PASS):
            yield Change("rule", id, was or "UNTESTED", now or "UNTESTED", was is Verdict.PASS)


def _bad(verdict: Verdict) -> bool:
    return verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE)


__all__ = ["Change", "Diff", "diff"]
