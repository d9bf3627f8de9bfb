"""A report in a directory: JSON, JUnit XML and the page, all of one run or all of another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import fstx
from fstx.errors import UsageError
from fstx_conformance.report.junit import junit
from fstx_conformance.report.page import page
from fstx_conformance.results import Result

JSON, XML, PAGE = "report.json", "report.xml", "index.html"


def write(results: Result | Sequence[Result], directory: str | Path) -> Path:
    """Write a report as one transaction; its readers enter by ``index.html``, which comes last.

    Of one result the JSON is ``report.json``; of several each has its own, named by its subject.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UsageError
        No result, or a directory that can't be a target.
    """
    told = [results] if isinstance(results, Result) else list(results)
    if not told:
        raise UsageError("a report needs a result")
    place = Path(directory)
    with fstx.begin(place, entry=PAGE) as tx:
        names = [JSON] if len(told) == 1 else _names(told)
        for name, result in zip(names, told, strict=True):
            tx.stage(name, result.to_json().encode())
        tx.stage(XML, junit(told).encode())
        tx.stage(PAGE, page(told).encode())
    return place / PAGE


def _names(results: Sequence[Result]) -> list[str]:
    names: list[str] = []
    for result in results:
        stem = re.sub(r"[^a-z0-9]+", "-", result.subject.lower()).strip("-")[:60] or "subject"
        name, n = stem, 1
        while f"{name}.json" in names:
            n += 1
            name = f"{stem}-{n}"
        names.append(f"{name}.json")
    return names


__all__ = ["JSON", "PAGE", "XML", "write"]
