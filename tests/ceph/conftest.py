"""Ceph's gateway as fixtures. These tests are collected in ``nox -s ceph`` only, which installs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.emulators import Ceph, Place

collect_ignore_glob = [] if os.environ.get("FSTX_CEPH") else ["test_*.py"]


@pytest.fixture(scope="session")
def ceph_server(server_logs: Path) -> Iterator[Ceph]:
    """A Ceph with its S3 gateway."""
    emulator = Ceph(server_logs)
    yield emulator
    emulator.server.stop()


@pytest.fixture
def ceph(ceph_server: Ceph) -> Iterator[Place]:
    """A fresh bucket there."""
    with ceph_server.place() as place:
        yield place
