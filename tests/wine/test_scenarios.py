"""The table of Windows' answers, played under wine and on the simulation, and compared."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from support.winscenarios import SCENARIOS, Scenario
from wine.compare import Answer, expected

Columns = tuple[Mapping[str, Answer], Mapping[str, Answer]]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name.replace(" ", "-"))
def test_wine_answers_as_simulated(scenario: Scenario, columns: Columns) -> None:
    """The simulation is no invention: a real Windows program gets its answers, but for what is known
    to differ under wine."""
    real, simulated = columns
    assert real[scenario.name] == expected(scenario.name, simulated[scenario.name])
