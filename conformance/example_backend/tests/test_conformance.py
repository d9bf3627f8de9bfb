"""Certified by the kit: `BackendSuite` runs every case over a database of its own."""

from __future__ import annotations

import pytest

from fstx.types import Capability
from fstx_conformance.suite import BackendSuite


class TestSqlite(BackendSuite):
    """All that is promised of a store is expected of this one."""

    capabilities = frozenset(Capability)

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def database(cls, tmp_path_factory):
        """A file of its own."""
        cls.url = f"sqlitefs://{tmp_path_factory.mktemp('sqlite')}/suite.db"
