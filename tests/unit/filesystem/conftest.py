"""A fresh target for each test, in memory and on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.txplaces import KINDS, targets


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a target that is not there yet."""
    yield from targets(request.param, tmp_path)
