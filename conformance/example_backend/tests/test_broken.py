"""The suite can fail: a store that forgets the one promise that matters is found out."""

from __future__ import annotations

from contextlib import closing

import pytest

from fstx.backends.manifest import backend_over
from fstx.errors import CapabilityError
from fstx.stores import Answer
from fstx_conformance.results import Verdict
from fstx_conformance.run import run
from fstx_conformance.suite import BackendSuite
from sqlitefs.database import split
from sqlitefs.store import SqliteStore


class Overwriting(SqliteStore):
    """`put_new` puts whatever is there, and says that it was the first."""

    only_below = ""

    def put_new(self, key, data):
        """Wrong."""
        if self.only_below not in key:
            return super().put_new(key, data)
        self.put(key, data)
        return Answer.DONE


class Sly(Overwriting):
    """Wrong in the log alone, where the probe does not look."""

    only_below = "/log/"


def backend(store, url):
    """A backend over a store that is wrong."""
    database, path = split(url)
    return backend_over(store(database), [path])


class OverSly(BackendSuite):
    """Not collected: its name does not begin with Test."""

    def make(self, url):
        """As `open_backend`, over the wrong store."""
        return backend(Sly, url)


def test_the_probe_refuses_a_store_that_overwrites(tmp_path):
    """No transaction begins there, so nothing can be lost."""
    wrong = backend(Overwriting, f"sqlitefs://{tmp_path}/wrong.db/cube")
    with pytest.raises(CapabilityError, match="no transaction can be committed here"):
        wrong.begin(mode="update", durability="data", require=frozenset())


def test_the_suite_finds_what_the_probe_does_not(tmp_path):
    """Two writers take the same number of the log, and one of their commits is gone."""
    with closing(OverSly().subject(url=f"sqlitefs://{tmp_path}/sly.db")) as subject:
        found = run(subject, profile="quick", only=["isolation.same-path"])
    assert found.verdict is Verdict.FAIL
    assert "CONFLICT_DETECTED" in {p.capability for p in found.promises if p.observed == "broken"}
