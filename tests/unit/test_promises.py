"""The README claims what our own runs of the conformance suite saw, place by place, and no more."""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fstx.types import Capability
from fstx_conformance.report import ledger

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = {
    "new": {"create", "create index"},
    "whole": {"replace"},
    "in place": {"update", "index"},
    "entry": {"create index", "index"},
    "all": {"create", "create index", "replace", "update", "index"},
    "–": set(),
}
NOT_RUN = ("local, macOS",)
WORD_OF_SERVICE = "its word"


@cache
def runs() -> Any:
    """`conformance/runs.py`, a script beside the package."""
    spec = importlib.util.spec_from_file_location("runs", ROOT / "conformance" / "runs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


def rows() -> list[ledger.Row]:
    """What is kept of the runs."""
    return ledger.load(ROOT / "docs" / "reference" / "conformance.json")


def tables() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The README's table in prose and that of capabilities, as dictionaries by the words of their heads."""
    found = []
    section = README.split("## What is promised where")[1].split("\n## ")[0]
    for head, body in re.findall(r"^(\| place .*)\n\|[-|]+\n((?:\|.*\n)+)", section, re.MULTILINE):
        names = cells(head)
        found.append([dict(zip(names, cells(line), strict=True)) for line in body.splitlines()])
    prose, capabilities = found
    return prose, capabilities


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


CLAIMS = [
    (row, key)
    for row in tables()[1]
    if row["place"] not in NOT_RUN
    for key in re.findall(r"`([\w-]+)`", row["`--only`"])
]


def test_both_tables_have_the_same_places_and_every_capability() -> None:
    """Each place that is promised anything has a row of what was seen; capabilities have a column each."""
    prose, seen = tables()
    places = dict.fromkeys(row["place"].split(";")[0] for row in seen)
    assert [row["place"] for row in prose] == list(places)
    assert [row["place"] for row in seen if row["`--only`"] == "not run"] == list(NOT_RUN)
    assert all(
        "not run" in cell
        for row in prose
        if row["place"] in NOT_RUN
        for cell in row.values()
        if cell != row["place"]
    )
    heads = [name for head in list(seen[0])[2:] for name in head.split(", ")]
    assert sorted(heads) == sorted(
        c.value for c in Capability if c is not Capability.REMOTE_STAGING
    )
    assert all(
        re.fullmatch(r"`[\w-]+`(, `[\w-]+`)*", row["`--only`"])
        for row in seen
        if row["place"] not in NOT_RUN
    )


@pytest.mark.parametrize(("claims", "key"), CLAIMS, ids=[key for _, key in CLAIMS])
def test_what_is_claimed_was_seen(claims: dict[str, str], key: str) -> None:
    """A row claims for each of its subjects exactly what that is declared for and was seen to keep."""
    known = [row for row in rows() if row.key == key]
    assert known, f"{key} was never run: python conformance/runs.py quick --only {key} --docs"
    for row in known:
        assert row.verdict == "pass", f"{row.command} came to {row.verdict}"
        for head in list(claims)[2:]:
            for capability in head.split(", "):
                said = claims[head]
                promise = row.promises[capability]
                if said == WORD_OF_SERVICE:
                    assert set(promise.declared) == WORDS["all"], capability
                    assert promise.observed == "not tried", capability
                else:
                    claimed = {scene for word in said.split(", ") for scene in WORDS[word]}
                    assert set(row.kept(capability)) == claimed, capability


def test_the_page_shows_what_is_kept() -> None:
    """The tables of the page are made of the file of results, by whom `--docs` is asked."""
    page = (ROOT / "docs/reference/conformance.md").read_text(encoding="utf-8")
    assert runs().shown(page, rows()) == page


def test_the_commands_run_what_they_say() -> None:
    """Each row's command names a subject that there is, and profile and seed of the row."""
    for row in rows():
        assert row.key in runs().SUBJECTS
        command = f"python conformance/runs.py {row.profile} --only {row.key} --seed {row.seed}"
        assert row.command == command


def test_what_this_machine_can_not_run_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file system that can't be made or mounted is a refusal that says what is missing."""
    none = tmp_path / "none"
    with pytest.raises(runs().CannotRunError, match=r"can't mount ext4: .*none"):
        runs()._mount_step("ext4", "mount", "-o", "loop", str(none), str(none))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runs().shutil, "which", lambda *_, **__: None)
    with pytest.raises(runs().CannotRunError, match="Debian has it in e2fsprogs"):
        runs()._mount_step("ext4", "mkfs.ext4")
