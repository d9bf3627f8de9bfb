"""The commands of the conformance suite: exit codes, reports, replays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fstx_conformance.subjects
from fstx.cli.app import run
from fstx.cli.exits import FAILED, OK, USAGE
from fstx_conformance.broken.table import BROKEN
from fstx_conformance.results import Result

MEMORY = "memory://cli-conformance"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Every URL is a backend that cleans nothing away; the case that finds it out."""
    made = BROKEN["nothing is cleaned"].make(str(tmp_path / "broken"))
    monkeypatch.setattr(fstx_conformance.subjects, "subject_of", lambda url, **_: made)
    return "hygiene.quiet"


def test_a_storage_that_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, the result in words, and a report whose command repeats the run."""
    code = run(
        ["conformance", "run", MEMORY, "--case", "hygiene.quiet", "--report", str(tmp_path / "r")]
    )
    assert code == OK
    assert "hygiene" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [
        "index.html",
        "report.json",
        "report.xml",
    ]
    told = Result.load(tmp_path / "r" / "report.json")
    assert "--case hygiene.quiet" in told.command
    assert told.url == MEMORY


def test_a_storage_that_fails(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and the line that shows the failure again."""
    assert run(["conformance", "run", "any://where", "--case", broken]) == FAILED
    assert "--replay" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", MEMORY, "--profile", "fast"],
        ["run", MEMORY, "--case", "no.such"],
        ["run", MEMORY, "--replay", "rename#0=kill"],
        ["run", MEMORY, "-o", "nothing"],
        ["run", "memory://x", "-o", "anon=true"],
        ["matrix", "pyproject.toml"],
        ["diff", "pyproject.toml", "pyproject.toml"],
    ],
)
def test_calls_that_must_be_fixed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line that names what is wrong."""
    assert run(["conformance", *arguments]) == USAGE
    told = capsys.readouterr().err.strip()
    assert told
    assert "Traceback" not in told


def test_credentials_are_in_no_report(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values of storage options are neither in the report nor on the terminal."""
    made = ["conformance", "run", "any://where", "--case", broken, "-o", "secret=hunter2222"]
    assert run([*made, "--report", str(tmp_path / "r")]) == FAILED
    told = capsys.readouterr()
    report = (tmp_path / "r" / "report.json").read_text()
    assert "-o secret=..." in Result.from_json(report).command
    assert "hunter2222" not in told.out + told.err + report


def test_probe_tells_each_mode(capsys: pytest.CaptureFixture[str]) -> None:
    """What is promised in each mode, as JSON."""
    assert run(["conformance", "probe", MEMORY, "--json"]) == OK
    told = json.loads(capsys.readouterr().out)
    assert set(told) >= {"create", "replace", "update"}
    assert told["create"]["ATOMIC_SET"] is True
    assert told["create"]["DURABLE"] is False


def test_diff_and_matrix(broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worse report is exit code 1, the same one 0; a matrix has a row for each."""
    bad, good = tmp_path / "bad", tmp_path / "good"
    run(["conformance", "run", "any://where", "--case", broken, "--report", str(bad)])
    result = Result.load(bad / "report.json")
    better = json.loads(result.to_json())
    for case in better["cases"]:
        case.update(verdict="pass", failures=[], failing_runs=0)
    better["promises"] = []
    good.mkdir()
    (good / "report.json").write_text(json.dumps(better))
    old, new = str(good / "report.json"), str(bad / "report.json")
    capsys.readouterr()
    assert run(["conformance", "diff", old, new]) == FAILED
    assert "worse" in capsys.readouterr().out
    assert run(["conformance", "diff", old, old]) == OK
    capsys.readouterr()
    assert run(["conformance", "matrix", old, new]) == OK
    told = capsys.readouterr().out
    assert "hygiene" in told
    assert told.count(f"| {result.subject} |") == 2
