"""The rules that the kit ships are those of the specification."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from fstx.errors import UsageError
from fstx_conformance import rules

SPEC = Path(__file__).parents[2] / "docs" / "reference" / "spec.md"


def _specified() -> tuple[rules.Rule, ...]:
    return rules.specified(SPEC.read_text(encoding="utf-8"))


def test_the_kit_ships_the_rules_of_the_specification() -> None:
    """rules.txt says word for word what spec.md says, in the same order (else: make it anew)."""
    assert tuple(rules.every().values()) == _specified()


def test_numbers_are_unique_and_without_gaps() -> None:
    """Each family of rules is numbered 1, 2, 3 in the order of the page."""
    families = defaultdict(list)
    for rule in _specified():
        families[rule.family].append(rule.number)
    assert {"CTRL", "PATH", "REC", "RENAME", "LOG", "PLAIN", *rules.OWED} <= families.keys()
    assert families == {f: list(range(1, len(n) + 1)) for f, n in families.items()}


def test_every_row_of_a_table_of_rules_is_numbered() -> None:
    """No statement in a table of rules lacks its number, and no numbered one is overlooked."""
    text = SPEC.read_text(encoding="utf-8")
    tables = re.findall(r"^\| rule \| statement \|\n\|---\|---\|\n((?:\|.*\n?)+)", text, re.M)
    assert sum(table.count("\n| ") + 1 for table in tables) == len(_specified())


def test_every_rule_that_the_specification_speaks_of_exists() -> None:
    """A number in the prose, or in another rule, leads somewhere."""
    text = SPEC.read_text(encoding="utf-8")
    families = "|".join(sorted({rule.family for rule in _specified()}))
    named = set(re.findall(rf"\b(?:{families})-\d+\b", text))
    assert len(named) > 150
    assert named <= rules.every().keys()


@pytest.mark.parametrize("family", rules.OWED)
def test_what_third_parties_owe_is_one_line_each(family: str) -> None:
    """Rules for third parties are short enough for a table, whole sentences, and said once."""
    owed = [r.statement for r in _specified() if r.family == family]
    assert len(owed) > 10
    assert [s for s in owed if len(s) > 260 or not s.endswith(".")] == []
    assert len(set(owed)) == len(owed)


def test_rules_are_found_by_id() -> None:
    """A rule is known by its id; an unknown one is refused by name, and sorts last."""
    assert rules.rule("BACKEND-1").statement.startswith("`guarantee`")
    with pytest.raises(UsageError, match="BACKEND-999"):
        rules.rule("BACKEND-999")
    assert rules.order({"OPS-1", "ZZZ-1", "BACKEND-10", "BACKEND-9"}) == (
        "BACKEND-9", "BACKEND-10", "OPS-1", "ZZZ-1",
    )  # fmt: skip


def test_a_line_that_is_no_rule_is_refused() -> None:
    """A damaged rules.txt is named, not half read."""
    with pytest.raises(UsageError, match="hello"):
        rules.parse("BACKEND-1 fine\nhello")


def test_ids_are_shortened_without_loss() -> None:
    """Runs of numbers become ranges; what is no id of the specification stays as it is."""
    ids = ["BACKEND-1", "BACKEND-2", "BACKEND-3", "BACKEND-5", "OPS-2", "X", "OPS-3"]
    assert rules.ranges(ids) == "BACKEND 1-3, 5; OPS 2-3; X"
    assert rules.ranges([]) == ""
