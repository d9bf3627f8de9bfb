"""Results: one verdict per level, made of cases, each with the rules that it proves and what went wrong.

The JSON form has a schema number; a reader refuses a newer one.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fstx.errors import UsageError
from fstx_conformance.sampling import Sample

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
    sample: Sample | None = None  # how much of what could be tried was; None: nothing was swept


@dataclass(frozen=True)
class PromiseRow:
    """One promise: declared by `guarantee`, and what the cases observed."""

    capability: str
    declared: bool
    observed: str  # "kept", "broken", "not tried"
    reason: str = ""
    cases: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()  # for which it is declared


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
        """The result that `to_json` spelled; UsageError for anything else, naming `where`.

        Members that this version does not know are left out: they may be added under one schema number.
        """
        try:
            told: dict[str, Any] = json.loads(text)
            schema = int(told["schema"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{where} is no report of the conformance suite: {error!r}") from error
        if schema > SCHEMA:
            raise UsageError(f"{where} has schema {schema}; this version reads up to {SCHEMA}")
        try:
            return _result(told)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{where} is damaged: {error!r}") from error

    @staticmethod
    def load(path: str | Path) -> Result:
        """The result in a file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is no report of the conformance suite: {error}") from error
        return Result.from_json(text, str(path))


# --- reading: a report may come from anyone, so each member is made what it has to be ------------------


def _result(told: dict[str, Any]) -> Result:
    known = _known(Result, told)
    for name in ("subject", "url", "strategy", "profile", "command"):
        if name in known:
            known[name] = _text(known[name])
    return Result(
        **{
            **known,
            "schema": int(told["schema"]),
            "seed": int(told["seed"]),
            "seconds": float(told.get("seconds", 0)),
            "cases": tuple(_case(c) for c in told["cases"]),
            "promises": tuple(_promise(p) for p in told.get("promises", ())),
            "untested": _texts(told.get("untested", ())),
            "environment": {
                _text(k): _text(v) for k, v in dict(told.get("environment", {})).items()
            },
        }
    )


def _case(told: dict[str, Any]) -> CaseResult:
    return CaseResult(
        id=_text(told["id"]),
        level=Level(told["level"]),
        verdict=Verdict(told["verdict"]),
        rules=_texts(told.get("rules", ())),
        runs=int(told.get("runs", 0)),
        reason=_text(told.get("reason", "")),
        failures=tuple(_failure(f) for f in told.get("failures", ())),
        failing_runs=int(told.get("failing_runs", 0)),
        fired=tuple((_text(a), int(n)) for a, n in told.get("fired", ())),
        seen=tuple((_text(a), int(n)) for a, n in told.get("seen", ())),
        seconds=float(told.get("seconds", 0)),
        sample=_sample(told.get("sample")),
    )


def _sample(told: dict[str, Any] | None) -> Sample | None:
    if told is None:
        return None
    return Sample(*(int(told[name]) for name in ("tried", "points", "sweeps", "of")))


def _failure(told: dict[str, Any]) -> Failure:
    known = {k: _text(v) for k, v in _known(Failure, told).items() if k != "history"}
    return Failure(**known, history=_texts(told.get("history", ())))


def _promise(told: dict[str, Any]) -> PromiseRow:
    declared = told["declared"]
    if not isinstance(declared, bool):
        raise TypeError(f"declared is true or false, not {declared!r}")
    return PromiseRow(
        _text(told["capability"]),
        declared,
        _text(told["observed"]),
        _text(told.get("reason", "")),
        _texts(told.get("cases", ())),
        _texts(told.get("scenes", ())),
    )


def _known(kind: type[Any], told: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in told.items() if k in names}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, not {value!r:.80}")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list | tuple):
        raise TypeError(f"a list was expected, not {values!r:.80}")
    return tuple(_text(v) for v in values)
