"""The kit can fail: each broken backend fails at its level, by a schedule that shows it again."""

from __future__ import annotations

import os

import pytest

from fstx_conformance.broken.table import BROKEN, judge
from fstx_conformance.results import Verdict
from fstx_conformance.rules import every
from fstx_conformance.schedule import parse

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the calls of POSIX")


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_caught(name: str) -> None:
    """A broken backend fails at its level in a case of its rules, and its schedule fails again."""
    broken = BROKEN[name]
    found = judge(broken.make, only=broken.shortest, profile=broken.profile, first=True)
    failed = [c for c in found.cases if c.verdict is Verdict.FAIL]
    assert failed, f"{name} passes {broken.level}: the kit has a hole"
    assert failed[0].level is broken.level
    assert set(broken.rules) & set(failed[0].rules), failed[0].rules
    assert failed[0].failures[0].message
    schedule = parse(failed[0].failures[0].schedule)
    again = judge(broken.make, profile=broken.profile, replay=schedule)
    assert [c.id for c in again.cases] == [failed[0].id]
    assert again.verdict is Verdict.FAIL, str(schedule)


def test_rules_and_levels_are_known() -> None:
    """The table names rules of the specification, and no level twice in one row."""
    for name, broken in BROKEN.items():
        assert set(broken.rules) <= set(every()), name
        assert broken.level not in broken.passes, name
    assert len(BROKEN) >= 14
