"""Results: one verdict per level, made of cases, each with the rules that it proves and what went wrong.

The JSON form has a schema number; a reader refuses a newer one.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fstx.errors import UsageError

SCHEMA = 1


class Level(enum.StrEnum):
    """What is judged; each gets a verdict of its own."""

    PRIMITIVES = "primitives"
    SEMANTICS = "semantics"
    CRASH = "crash"
    POWER = "power"
    AMBIGUITY = "ambiguity"
    ISOLATION = "isolation"
    FENCING = "fencing"
    RESUME = "resume"
    LIVENESS = "liveness"
    SCALE = "scale"
    HYGIENE = "hygiene"


class Verdict(enum.StrEnum):
    """What a case or a level came to."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"  # a fault never fired, or something had to happen and did not
    NOT_APPLICABLE = "n/a"  # the storage has no such thing; the reason is told


@dataclass(frozen=True)
class Failure:
    """One thing that went wrong: the shortest schedule that shows it, and how to see it again."""

    message: str
    schedule: str = ""
    scene: str = ""
    history: tuple[str, ...] = ()
    replay: str = ""


@dataclass(frozen=True)
class CaseResult:
    """What one case came to."""

    id: str
    level: Level
    verdict: Verdict
    rules: tuple[str, ...] = ()
    runs: int = 0
    reason: str = ""  # why it is inconclusive or not applicable
    failures: tuple[Failure, ...] = ()
    failing_runs: int = 0
    fired: tuple[tuple[str, int], ...] = ()  # action and how often it happened
    seen: tuple[tuple[str, int], ...] = ()  # commit, abort, conflict, unknown: how often
    seconds: float = 0.0


@dataclass(frozen=True)
class PromiseRow:
    """One promise: declared by `guarantee`, and what the cases observed."""

    capability: str
    declared: bool
    observed: str  # "kept", "broken", "not tried"
    reason: str = ""
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One run of the suite over one subject."""

    subject: str
    url: str
    strategy: str
    profile: str
    seed: int
    cases: tuple[CaseResult, ...]
    promises: tuple[PromiseRow, ...] = ()
    untested: tuple[str, ...] = ()  # rules of the specification without a case in this run
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    command: str = ""
    schema: int = SCHEMA

    def level(self, level: Level) -> Verdict:
        """The worst of its cases; not applicable where it has none that applied."""
        found = {c.verdict for c in self.cases if c.level == level}
        for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
            if verdict in found:
                return verdict
        return Verdict.NOT_APPLICABLE

    @property
    def verdict(self) -> Verdict:
        """The worst of all levels and promises."""
        if any(p.declared and p.observed == "broken" for p in self.promises):
            return Verdict.FAIL
        levels = {self.level(level) for level in Level}
        for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
            if verdict in levels:
                return verdict
        return Verdict.NOT_APPLICABLE

    # --- JSON -------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """One document, keys sorted."""
        told = asdict(self)
        told["levels"] = {level.value: self.level(level).value for level in Level}
        told["verdict"] = self.verdict.value
        return json.dumps(told, indent=1, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str, where: str = "the report") -> Result:
        """The result that `to_json` spelled; UsageError for anything else, naming `where`."""
        try:
            told: dict[str, Any] = json.loads(text)
            schema = int(told["schema"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{where} is no report of the conformance suite: {error}") from error
        if schema > SCHEMA:
            raise UsageError(f"{where} has schema {schema}; this version reads up to {SCHEMA}")
        try:
            return _result(told)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{where} is damaged: {error!r}") from error

    @staticmethod
    def load(path: str | Path) -> Result:
        """The result in a file."""
        return Result.from_json(Path(path).read_text(encoding="utf-8"), str(path))


def _result(told: dict[str, Any]) -> Result:
    told = {k: v for k, v in told.items() if k not in ("levels", "verdict")}
    told["cases"] = tuple(_case(c) for c in told["cases"])
    told["promises"] = tuple(
        PromiseRow(**{**p, "cases": tuple(p["cases"])}) for p in told["promises"]
    )
    told["untested"] = tuple(told["untested"])
    return Result(**told)


def _case(told: dict[str, Any]) -> CaseResult:
    failures = tuple(Failure(**{**f, "history": tuple(f["history"])}) for f in told["failures"])
    return CaseResult(
        **{
            **told,
            "level": Level(told["level"]),
            "verdict": Verdict(told["verdict"]),
            "rules": tuple(told["rules"]),
            "failures": failures,
            "fired": tuple((str(a), int(n)) for a, n in told["fired"]),
            "seen": tuple((str(a), int(n)) for a, n in told["seen"]),
        }
    )
