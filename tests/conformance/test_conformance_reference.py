"""The reference page of the conformance suite names everything that a schedule or a report may hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fstx_conformance.results import SCHEMA, Level, Verdict
from fstx_conformance.schedule import ACTIONS
from fstx_conformance.seams.losses import DAMAGES
from support.madeup import mixed

PAGE = (Path(__file__).parents[2] / "docs/reference/conformance.md").read_text(encoding="utf-8")


def _rows(word: str) -> list[str]:
    """First cells of the table whose first column is headed so, without the marks of code."""
    table = re.search(rf"^\| {word} \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table is not None
    return [row.split("|")[1].strip().replace("`", "") for row in table[1].splitlines()]


def test_levels_verdicts_and_actions_are_those_of_the_code() -> None:
    """No level, verdict or action is missing on the page, and none is there that does not exist."""
    assert _rows("level") == [level.value for level in Level]
    assert _rows("verdict") == [verdict.value for verdict in Verdict]
    assert _rows("action") == list(ACTIONS)
    assert [d for d in ("lost", *DAMAGES, "kept") if f"`{d}`" not in PAGE] == []


def test_members_are_those_of_the_document() -> None:
    """Every member of the JSON document stands in its table, and the number of the schema is told."""
    told = json.loads(mixed().to_json())
    members = {name for row in _rows("member") for name in row.split(", ")}
    assert members == told.keys()
    of_a_case = {name for row in _rows("member of a case") for name in row.split(", ")}
    assert of_a_case == told["cases"][0].keys()
    spelled = set(re.findall(r"`(\w+)`", PAGE))
    assert told["promises"][0].keys() <= spelled
    assert told["cases"][1]["failures"][0].keys() <= spelled
    assert f"Schema **{SCHEMA}**" in PAGE
