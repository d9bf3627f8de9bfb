"""Results of several runs, from files that anyone may have written, as one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from fstx.errors import UsageError
from fstx_conformance.report.text import matrix
from fstx_conformance.results import Result


def merge(paths: Iterable[str | Path]) -> list[Result]:
    """The results in some files; a directory stands for the JSON files in it. Sorted by subject.

    Of the same run twice one counts; two runs of one subject are both shown.

    Raises
    ------
    UsageError
        A file that is no report, or none at all.
    """
    found: list[Result] = []
    for path in paths:
        for file in _files(Path(path)):
            result = Result.load(file)
            if result not in found:
                found.append(result)
    if not found:
        raise UsageError("no report was named; give JSON files that the conformance suite wrote")
    return sorted(found, key=lambda r: (r.subject, r.strategy, r.url))


def table(paths: Iterable[str | Path]) -> str:
    """The Markdown table of the reports in some files."""
    return matrix(merge(paths))


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.json"))
    if not files:
        raise UsageError(f"{path} has no JSON files")
    return files


__all__ = ["merge", "table"]
