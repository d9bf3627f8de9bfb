"""The doors to the suite: a pytest class, options of pytest, a report."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fstx.errors import UsageError
from fstx_conformance.results import CaseResult, Result, Verdict
from fstx_conformance.run import chosen
from fstx_conformance.schedule import Fault
from fstx_conformance.suite import BackendSuite, Settings, judge

PLUGIN = ("-p", "fstx_conformance.plugin")

TABLE = """
import sqlite3
from fstx.backends.manifest import ManifestBackend
from fstx.stores import Answer, Info
from fstx.stores.simple import SimpleStore
from fstx.types import Capability
from fstx_conformance.suite import BackendSuite

class TableStore(SimpleStore):
    url = "table://here"

    def __init__(self, path):
        self.path = path
        with self.table() as table:
            table.execute("create table if not exists objects (key text primary key, data blob)")

    def table(self):
        return sqlite3.connect(self.path, timeout=30)

    def run(self, statement, *values):
        table = self.table()
        try:
            with table:
                found = table.execute(statement, values)
                return found.rowcount, found.fetchall()
        finally:
            table.close()

    def put_new(self, key, data):
        done, _ = self.run("insert or ignore into objects values (?, ?)", key, data)
        return Answer.DONE if done else Answer.TAKEN

    def put(self, key, data, *, checksum=""):
        self.run("insert or replace into objects values (?, ?)", key, bytes(data))

    def get(self, key, start=0, stop=None):
        _, rows = self.run("select data from objects where key = ?", key)
        if not rows:
            raise FileNotFoundError(f"{self.url}/{key}")
        return rows[0][0][start:stop]

    def list(self, prefix):
        query = "select key, length(data) from objects where substr(key, 1, ?) = ? order by key"
        return (Info(key, size) for key, size in self.run(query, len(prefix), prefix)[1])

    def delete(self, keys):
        for key in keys:
            self.run("delete from objects where key = ?", key)
"""
"""A store of a third party: a table of SQLite."""

SUITE = """
class TestTable(BackendSuite):
    def make(self, url):
        return ManifestBackend(STORE.below(url))
"""


LIAR = """
class Liar(ManifestBackend):
    def begin(self, **given):
        tx = super().begin(**given)
        if given["mode"] == "replace":
            stage = tx.stage
            tx.stage = lambda path, data, **more: stage(path, data[:10], **more)
        return tx

class TestTable(BackendSuite):
    xfail = XFAIL
    def make(self, url):
        return Liar(STORE.below(url))
"""
"""A backend that keeps ten bytes of each object of a replacement."""


def run(
    folder: Path, code: str, *arguments: str, **variables: str
) -> tuple[int, str, dict[str, str]]:
    """Pytest in a process of its own over a test file: exit status, output, and what became of each test."""
    if code:
        (folder / "test_it.py").write_text(code, encoding="utf-8")
    base = ("-q", "-rA", "-p", "no:zarr", "-p", "no:cacheprovider", "-o", "junit_family=xunit1")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *base, "--junitxml=junit.xml", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    found: dict[str, str] = {}
    if (folder / "junit.xml").exists():
        for test in ET.parse(folder / "junit.xml").iter("testcase"):
            kinds = {child.tag for child in test} & {"failure", "error", "skipped"}
            found[test.get("name", "").partition("[")[2].rstrip("]") or test.get("name", "")] = (
                next(iter(kinds), "passed")
            )
    return done.returncode, done.stdout + done.stderr, found


def table(folder: Path, suite: str = SUITE, **values: object) -> str:
    """The code of a suite over the table."""
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    return "\n".join([TABLE, *lines, f"STORE = TableStore({str(folder / 'o.db')!r})", suite])


def test_hooks_make_a_suite(tmp_path: Path) -> None:
    """One function is enough: cases are tests with their rules, n/a is a skip that says why."""
    status, told, found = run(
        tmp_path, table(tmp_path), "-k", "scenes or replace-if or semantics.require or saw"
    )
    assert status == 0, told
    assert found == {
        "semantics.scenes": "passed",
        "semantics.require": "passed",
        "primitives.replace-if": "skipped",
        "test_saw_everything": "skipped",
    }
    assert "n/a: replace_if is not proven here" in told
    rules = [p.get("value") for p in ET.parse(tmp_path / "junit.xml").iter("property")]
    assert "BACKEND-13 BACKEND-14 BACKEND-24" in rules


def test_a_failure_is_told_whole_and_can_be_run_again(tmp_path: Path) -> None:
    """A backend that is wrong fails with schedule and history; the line that is printed fails again."""
    code = table(tmp_path, LIAR, XFAIL={})
    status, told, found = run(tmp_path, code, "-k", "scenes or semantics.over")
    assert status == 1
    assert found == {"semantics.scenes": "failure", "semantics.over": "passed"}
    assert "the backend broke BACKEND-7" in told
    assert "schedule: case=semantics.scenes; scene=replace; seed=0" in told
    assert "writer: told interrupted" in told
    again = next(line for line in told.splitlines() if line.startswith("again: pytest"))
    words = shlex.split(again.removeprefix("again: pytest "))
    status, told, found = run(tmp_path, "", *words)
    assert (status, found["semantics.scenes"]) == (1, "failure"), told
    assert "semantics.over" not in found


def test_known_failures_are_strict(tmp_path: Path) -> None:
    """A known failure is expected; one that passes fails the suite; one of no case is refused."""
    known = {"semantics.scenes": "ten bytes (issue 1)", "semantics.over": "mended since"}
    code = table(tmp_path, LIAR, XFAIL=known)
    status, told, found = run(tmp_path, code, "-k", "scenes or semantics.over")
    assert status == 1
    assert found == {"semantics.scenes": "skipped", "semantics.over": "failure"}
    assert "ten bytes (issue 1)" in told
    assert "[XPASS(strict)] mended since" in told
    status, told, _ = run(tmp_path, table(tmp_path, LIAR, XFAIL={"semantics.none": "?"}))
    assert status != 0
    assert "TestTable.xfail names no case: semantics.none" in told


@pytest.mark.parametrize(
    ("expected", "status", "told"),
    [
        ("list(Capability)", 1, "DURABLE is expected and not promised"),
        ("[Capability.ATOMIC_SET]", 0, "promised beyond what the suite expects: ATOMIC_OBJECT"),
    ],
)
def test_expected_promises(tmp_path: Path, expected: str, status: int, told: str) -> None:
    """A promise that is expected and not made fails; one that is made besides is a note."""
    suite = f"{SUITE}    capabilities = {expected}\n"
    found = run(tmp_path, table(tmp_path, suite), "-k", "promises")
    notes = [p.get("value", "") for p in ET.parse(tmp_path / "junit.xml").iter("property")]
    assert found[0] == status, found[1]
    assert any(told in text for text in (found[1], *notes))


def test_a_url_needs_no_code(tmp_path: Path) -> None:
    """With the plugin a URL is tested, reported and left empty; values of options are told to nobody."""
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "test_other.py").write_text("def test_other(): assert False")
    status, told, found = run(
        tmp_path,
        "",
        *PLUGIN,
        "--fstx-url",
        str(place),
        "--fstx-option",
        "syncfs=false",
        "--fstx-report",
        "report",
        "--fstx-seed",
        "7",
        "-k",
        "semantics.over",
    )
    assert status == 0, told
    assert found == {"semantics.over": "passed"}
    result = Result.load(tmp_path / "report" / "report.json")
    assert (result.url, result.seed, [c.id for c in result.cases]) == (
        str(place),
        7,
        ["semantics.over"],
    )
    assert "syncfs=..." in result.command
    assert "false" not in result.command
    assert (tmp_path / "report" / "index.html").exists()
    assert list(place.iterdir()) == []


def test_nothing_loads_by_itself() -> None:
    """The wheel registers no plugin of pytest: who does not ask for it does not get it."""
    names = [e.value for e in entry_points(group="pytest11")]
    assert not [name for name in names if name.startswith("fstx")]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("FSTX_PROFILE", "fast", "profile 'fast'; it is one of quick, standard, exhaustive"),
        ("FSTX_SEED", "soon", "seed 'soon'; it is a whole number"),
        ("FSTX_REPLAY", "seed=1", "names no case"),
        ("FSTX_REPLAY", "case=crash.kill; lost", "is no entry of a schedule"),
    ],
)
def test_settings_that_can_not_be(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    """What can't be a setting is refused before anything runs, saying what may be."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=re.escape(told)):
        Settings.of(request.config, BackendSuite)


def test_settings_of_environment_and_class(monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    """The environment wins over the class."""
    suite = type("TestIt", (BackendSuite,), {"profile": "standard", "seed": 3})
    found = Settings.of(request.config, suite)
    assert (found.profile, found.seed, found.replay) == ("standard", 3, None)
    monkeypatch.setenv("FSTX_PROFILE", "exhaustive")
    monkeypatch.setenv("FSTX_REPLAY", "case=crash.kill; seed=2; unlink#1=kill")
    found = Settings.of(request.config, suite)
    assert found.profile == "exhaustive"
    assert found.replay is not None
    assert found.replay.faults == (Fault("unlink", 1, "kill"),)


def test_a_suite_without_a_place_is_refused() -> None:
    """Neither a URL nor a function: the error says what to write."""
    with pytest.raises(UsageError, match="neither `url` nor `make`"):
        BackendSuite().subject()


def test_only_a_pass_passes() -> None:
    """Inconclusive fails with its reason, n/a is a skip with its reason, pass is nothing."""
    case = chosen("quick", ("crash.kill",))[0]

    def result(verdict: Verdict) -> CaseResult:
        return CaseResult(case.id, case.level, verdict, reason="no kill fired")

    with pytest.raises(pytest.fail.Exception, match="inconclusive: no kill fired"):
        judge(result(Verdict.INCONCLUSIVE), case)
    with pytest.raises(pytest.skip.Exception, match="n/a: no kill fired"):
        judge(result(Verdict.NOT_APPLICABLE), case)
    judge(result(Verdict.PASS), case)
