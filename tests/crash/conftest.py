"""What all crash campaigns need."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def fast() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of syncs."""
    memory = "/dev/shm"
    base = memory if os.path.isdir(memory) and os.access(memory, os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="fstx-crash-", dir=base)
    yield Path(folder)
    shutil.rmtree(folder)
