"""What is kept of our own runs: a row for each subject and profile, and promises by kind of transaction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fstx.errors import UsageError
from fstx_conformance.report.ledger import (
    Promise,
    Row,
    load,
    promise_table,
    spelled,
    table,
    updated,
)
from fstx_conformance.results import Level, PromiseRow
from fstx_conformance.run import run
from fstx_conformance.subjects import subject_of
from support.madeup import mixed

ORDER = ["a", "b", "c"]


def _row(key: str, profile: str = "quick", seconds: int = 1) -> Row:
    return replace(Row.of(key, mixed()), profile=profile, seconds=seconds)


def test_a_run_replaces_its_own_row_alone(tmp_path: Path) -> None:
    """Rows of other subjects and profiles stay as they were; the file says the same when it is read again."""
    old = [_row("b"), _row("a", "standard"), _row("a"), _row("gone")]
    rows = updated(old, [_row("a", seconds=9), _row("c")], ORDER)
    assert [(r.key, r.profile, r.seconds) for r in rows] == [
        ("a", "quick", 9),
        ("a", "standard", 1),
        ("b", "quick", 1),
        ("c", "quick", 1),
    ]
    path = tmp_path / "rows.json"
    assert load(path) == []
    path.write_text(spelled(rows))
    assert load(path) == rows
    assert len(path.read_text().splitlines()) == len(rows) + 2
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(UsageError, match="schema 2"):
        load(path)
    path.write_text("{}")
    with pytest.raises(UsageError, match="no rows"):
        load(path)


def test_a_row_tells_levels_promises_and_versions() -> None:
    """A row has a verdict for every level, what was kept for which transactions, and no kernel's version."""
    promises = (
        PromiseRow("NO_GAP", True, "kept", scenes=("create", "index")),
        PromiseRow("DURABLE", True, "not tried", scenes=("create",)),
        PromiseRow("FENCED", False, "kept"),
        PromiseRow("ATOMIC_SET", True, "broken", scenes=("create",)),
    )
    told = replace(mixed(), promises=promises, environment={"os": "Linux 6.1.0 x86_64"})
    row = Row.of("b", told, server="S 1")
    assert row.levels == {level.value: told.level(level).value for level in Level}
    assert row.kept("NO_GAP") == ("create", "index")
    assert [row.kept(name) for name in ("DURABLE", "FENCED", "ATOMIC_SET", "SNAPSHOTS")] == [()] * 4
    assert row.promises["DURABLE"] == Promise(("create",), "not tried")
    assert row.environment == {"os": "Linux x86_64", "server": "S 1"}
    cells = [cell.strip() for cell in promise_table([row]).splitlines()[2].split("|")[1:-1]]
    assert cells == ["`b`", told.profile, "kept", "not tried: create", "–", "**broken**: create"]
    cells = [cell.strip() for cell in table([row]).splitlines()[2].split("|")[1:-1]]
    assert cells[0] == "`b`"
    assert [cell.strip("*") for cell in cells[3:]] == [*row.levels.values(), row.verdict]


def test_promises_are_asked_for_each_kind_of_transaction(tmp_path: Path) -> None:
    """Without an exchange a replaced tree has a gap and a new one has none, and the report says which."""
    subject = subject_of(str(tmp_path), exchange=False)
    try:
        found = {p.capability: p for p in run(subject, only=("semantics.errors",)).promises}
    finally:
        subject.close()
    assert found["NO_GAP"].scenes == ("create", "create index", "update", "index")
    assert found["ATOMIC_SET"].scenes == ("create", "create index", "replace", "index")
    assert found["SNAPSHOTS"].scenes == ()
    assert [p.capability for p in found.values() if p.declared != bool(p.scenes)] == []
