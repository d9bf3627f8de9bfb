"""What runs under wine is collected in ``nox -s wine`` only, which installs wine and its Python."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

import pytest

from support.winscenarios import SCENARIOS, run
from support.winsim import SimDisk
from wine.compare import Answer, table
from wine.run import ROOT, python, windows

collect_ignore = [] if sys.platform == "win32" else ["suite"]
collect_ignore_glob = [] if os.environ.get("FSTX_WINE") else ["test_*.py"]

Columns = tuple[Mapping[str, Answer], Mapping[str, Answer]]
PLAYED = pytest.StashKey[Columns]()


@pytest.fixture(scope="session")
def columns(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Columns:
    """What wine answers to each scenario, and what the simulation does."""
    tests = ROOT / "tests"
    done = python(
        windows(tests / "wine" / "play.py"), windows(tests), cwd=tmp_path_factory.mktemp("wine")
    )
    assert done.returncode == 0, done.stderr
    real = {name: (code, after) for name, (code, after) in json.loads(done.stdout).items()}
    simulated = {}
    for scenario in SCENARIOS:
        place = str(tmp_path_factory.mktemp("simulated"))
        simulated[scenario.name] = run(scenario, SimDisk(place).process(), place)
    pytestconfig.stash[PLAYED] = (real, simulated)
    return real, simulated


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Both columns, whatever the tests made of them."""
    played = terminalreporter.config.stash.get(PLAYED, None)
    if played is not None:
        terminalreporter.section("Windows under wine and simulated")
        terminalreporter.write_line(table(*played))
