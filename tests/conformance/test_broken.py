"""The kit can fail: each broken backend fails at its level, by a schedule that shows it again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fstx.errors import UsageError
from fstx_conformance.broken.table import BROKEN, RIGHT, judge, put_into
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


SHOWN = ("crash.kill", "isolation.same-path", "semantics.apart", "scale.requests", "hygiene.quiet")


@pytest.mark.parametrize("name", RIGHT)
def test_right_ones_pass(name: str) -> None:
    """A right backend fails none of the cases that broken ones fail; the table has all levels."""
    found = judge(RIGHT[name], only=SHOWN)
    assert not [(c.id, c.failures) for c in found.cases if c.failures]
    assert found.verdict is Verdict.PASS
    assert {c.id for c in found.cases if c.verdict is Verdict.PASS} >= set(SHOWN[1:3])


def test_rules_and_levels_are_known() -> None:
    """The table names rules of the specification, and no level twice in one row."""
    for name, broken in BROKEN.items():
        assert set(broken.rules) <= set(every()), name
        assert broken.level not in broken.passes, name
    assert len(BROKEN) >= 14


def test_the_page_has_all() -> None:
    """The kill table of the documentation has every broken backend with its sentence, and every right one."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "conformance.md"
    text = page.read_text("utf-8")
    table = text.partition("<!-- kill table -->")[2].partition("<!-- end of the kill table -->")[0]
    shown = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    told = {cells[0].strip("| "): cells[1:3] for cells in shown}
    assert list(told) == [*BROKEN, *RIGHT]
    for name, broken in BROKEN.items():
        what, fails = told[name]
        assert what == broken.what
        assert fails.startswith(f"`{broken.level.value}.")
    assert {told[name][1] for name in RIGHT} == {"nothing"}


def test_a_page_without_marks_is_refused() -> None:
    """The table is put between the marks, twice as well as once, and nowhere else."""
    page = "# P\n<!-- kill table -->\nold\n<!-- end of the kill table -->\nend\n"
    once = put_into(page, "| new |\n")
    assert once == "# P\n<!-- kill table -->\n\n| new |\n\n<!-- end of the kill table -->\nend\n"
    assert put_into(once, "| new |\n") == once
    with pytest.raises(UsageError, match="no marks"):
        put_into("# P\n", "| new |\n")
