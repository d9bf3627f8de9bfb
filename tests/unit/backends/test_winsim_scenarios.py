"""The simulated Windows answers as Windows does: the table runs on the real one as it stands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fstx.ops._wincrt import NativeCrt
from support.winscenarios import SCENARIOS, Scenario, run
from support.winsim import SimDisk
from wine.deviations import WINE


def system(root: Path) -> Any:
    """The real calls on Windows, the simulated ones elsewhere."""
    return NativeCrt() if sys.platform == "win32" else SimDisk(str(root)).process()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name.replace(" ", "-"))
def test_answer(scenario: Scenario, tmp_path: Path) -> None:
    """A18, A23 on Windows rest on these answers: code and what is left on disk."""
    code, after = run(scenario, system(tmp_path), str(tmp_path))
    wanted = scenario.code if isinstance(scenario.code, tuple) else (scenario.code,)
    assert code in wanted
    assert after == scenario.after


def test_table_covers_what_was_agreed() -> None:
    """At least the 36 combinations that were compared with other systems, each named once."""
    assert len({s.name for s in SCENARIOS}) == len(SCENARIOS) >= 36


def test_deviations_of_wine_name_scenarios() -> None:
    """What is known to differ under wine names a scenario and differs from its answer, with a reason."""
    codes = {s.name: s.code for s in SCENARIOS}
    assert WINE
    assert set(WINE) <= set(codes)
    assert [name for name, known in WINE.items() if known.code == codes[name]] == []
    assert all(known.reason for known in WINE.values())
