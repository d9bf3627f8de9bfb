"""The suite on the command line of pytest: ``pytest -p fstx_conformance.plugin --fstx-url URL``.

It never loads by itself. With ``--fstx-url`` and no file named, that URL is tested and nothing else is
collected; where files are named, suites in them that have no `url` of their own take it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fstx.errors import UsageError
from fstx_conformance import urlsuite
from fstx_conformance.cases import PROFILES
from fstx_conformance.report import write
from fstx_conformance.suite import RESULTS


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("fstx", "conformance of transaction backends")
    group.addoption("--fstx-url", metavar="URL", help="test what fstx.begin opens there")
    group.addoption(
        "--fstx-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="an option of that storage, as text or JSON; may be repeated",
    )
    group.addoption("--fstx-profile", choices=PROFILES, help="how much is run (default: quick)")
    group.addoption("--fstx-seed", metavar="N", help="all chance comes from it (default: 0)")
    group.addoption("--fstx-replay", metavar="SCHEDULE", help="run only this schedule")
    group.addoption(
        "--fstx-report", metavar="DIR", help="write report.json, report.xml, index.html"
    )


def pytest_configure(config: pytest.Config) -> None:
    """A URL without a file is tested by a suite of the kit."""
    url = config.getoption("fstx_url")
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    if url and not named:
        config.args[:] = [str(Path(urlsuite.__file__))]
    urlsuite.TestStorage.options = _options(config.getoption("fstx_option"))


def _options(given: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise pytest.UsageError(f"--fstx-option {text!r}: it reads KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The report, of all suites that ran."""
    config = session.config
    directory = config.getoption("fstx_report")
    results = config.stash.get(RESULTS, [])
    if not directory or not results or hasattr(config, "workerinput"):
        return
    try:
        write(results, directory)
    except UsageError as error:
        raise pytest.UsageError(f"--fstx-report {directory}: {error}") from error


__all__ = ["pytest_addoption", "pytest_configure", "pytest_sessionfinish"]
