"""What several runs came to, in one small file that is kept: one row for each subject and profile.

A run replaces its own row and leaves the others, so that subjects may be run on different days and machines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fstx.errors import UsageError
from fstx_conformance.report.view import one_line
from fstx_conformance.results import Level, Result, Verdict

SCHEMA = 1
_SHORT = {"os": lambda told: " ".join(told.split()[::2])}  # without the version of the kernel


@dataclass(frozen=True)
class Promise:
    """What is declared for which scenes, and what the cases observed of it."""

    declared: tuple[str, ...] = ()
    observed: str = "not tried"


@dataclass(frozen=True)
class Row:
    """One run: `key` is its subject's name among those of the runs."""

    key: str
    subject: str
    strategy: str
    profile: str
    seed: int
    command: str
    seconds: int
    verdict: str
    levels: Mapping[str, str] = field(default_factory=dict)
    promises: Mapping[str, Promise] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(key: str, result: Result, **environment: str) -> Row:
        """The row of a result; facts of the surroundings that the result does not tell are added."""
        told = {**result.environment, **environment}
        return Row(
            key=key,
            subject=result.subject,
            strategy=result.strategy,
            profile=result.profile,
            seed=result.seed,
            command=result.command,
            seconds=round(result.seconds),
            verdict=result.verdict.value,
            levels={level.value: result.level(level).value for level in Level},
            promises={p.capability: Promise(p.scenes, p.observed) for p in result.promises},
            environment={k: _SHORT.get(k, str)(v) for k, v in told.items()},
        )

    def kept(self, capability: str) -> tuple[str, ...]:
        """The scenes for which a promise is declared, if it was seen to be kept."""
        promise = self.promises.get(capability, Promise())
        return promise.declared if promise.observed == "kept" else ()


def load(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a file; none where it is not there yet.

    Raises
    ------
    UsageError
        It is no such file, or a newer one.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        told: dict[str, Any] = json.loads(text)
        if told["schema"] > SCHEMA:
            raise UsageError(f"{path} has schema {told['schema']}; this version reads {SCHEMA}")
        return [_row(row) for row in told["rows"]]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} holds no rows of runs: {error!r}") from error


def _row(told: dict[str, Any]) -> Row:
    promises = {
        name: Promise(tuple(p["declared"]), p["observed"]) for name, p in told["promises"].items()
    }
    return Row(**{**told, "promises": promises})


def updated(rows: Iterable[Row], new: Iterable[Row], order: Sequence[str]) -> list[Row]:
    """Rows with new ones in place of older ones of the same subject and profile.

    Parameters
    ----------
    order
        The keys, in the order of the rows; a row whose key is not there any more is left out.
    """
    found = {(row.key, row.profile): row for row in (*rows, *new) if row.key in order}
    profiles = ("quick", "standard", "exhaustive")
    return sorted(found.values(), key=lambda r: (order.index(r.key), profiles.index(r.profile)))


def spelled(rows: Iterable[Row]) -> str:
    """The text of the file: a line for each row, so that a change of one is a change of a line."""
    lines = ",\n".join(json.dumps(asdict(row), sort_keys=True) for row in rows)
    return f'{{"schema": {SCHEMA}, "rows": [\n{lines}\n]}}\n'


def table(rows: Sequence[Row]) -> str:
    """A Markdown table: a row for each run, a column for each level."""
    head = ["`--only`", "backend", "profile", *(level.value for level in Level), "all"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [f"`{row.key}`", one_line(row.subject), row.profile]
        cells += [_marked(row.levels.get(level.value, Verdict.NOT_APPLICABLE)) for level in Level]
        lines.append("| " + " | ".join([*cells, _marked(row.verdict)]) + " |")
    return "\n".join(lines) + "\n"


def promise_table(rows: Sequence[Row]) -> str:
    """A Markdown table: for each run and promise the scenes for which it is declared, and what was seen."""
    names = list(dict.fromkeys(name for row in rows for name in row.promises))
    lines = ["| `--only` | profile | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 2)]
    for row in rows:
        every = tuple(dict.fromkeys(s for p in row.promises.values() for s in p.declared))
        cells = [_seen(row.promises.get(name, Promise()), every) for name in names]
        lines.append(f"| `{row.key}` | {row.profile} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _marked(verdict: str) -> str:
    return f"**{verdict}**" if verdict == Verdict.FAIL else verdict


def _seen(promise: Promise, every: tuple[str, ...]) -> str:
    if not promise.declared:
        return "–"
    where = "" if len(promise.declared) == len(every) else f": {', '.join(promise.declared)}"
    word = {"kept": "kept", "broken": "**broken**"}.get(promise.observed, "not tried")
    return f"{word}{where}"


__all__ = ["SCHEMA", "Promise", "Row", "load", "promise_table", "spelled", "table", "updated"]
