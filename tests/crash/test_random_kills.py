"""Many tiles by four processes that are killed at random: what is committed is exact, and there once.

The same with 10,000 tiles: ``PYTHONPATH=tests python tests/support/killjobs.py PLACE 10000 4 100 1``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.killjobs import content
from support.places import logical
from support.trees import tree

TILES = 240


@pytest.mark.parametrize("view", ["local", "tx"])
def test_tiles_are_exact_and_once(view: str, tmp_path: Path) -> None:
    """E15, E16: workers killed while they stage and answer; tasks given twice; no tile lost or doubled."""
    place = tmp_path / "place"
    place.mkdir()
    url = f"{'tx::' if view == 'tx' else ''}{place}/out"
    done = subprocess.run(
        [sys.executable, "-m", "support.killjobs", url, str(TILES), "4", "40", "3"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counts = eval(done.stdout)
    assert counts["kills"] >= 5
    assert counts["lost"] >= 2
    assert counts["doubled"] >= 2
    found = logical(str(place), {}) if view == "tx" else tree(place)
    assert found == {f"out/t/{n // 100}/{n}": content(n) for n in range(TILES)}
