"""Reports tell what a result holds, in every form, and nothing in it can act on who reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fstx.errors import UsageError
from fstx_conformance.report import write
from fstx_conformance.report.diff import diff
from fstx_conformance.report.environment import environment, file_system, parse_mount
from fstx_conformance.report.junit import junit
from fstx_conformance.report.matrix import merge, table
from fstx_conformance.report.text import matrix, plain, promises, told
from fstx_conformance.report.view import rule_groups, rule_rows
from fstx_conformance.results import Failure, PromiseRow, Result, Verdict
from fstx_conformance.rules import ranges
from support.madeup import FAILURE, case, hostile, mixed, result
from support.trees import tree

# --- JSON -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [mixed, hostile, result], ids=lambda f: f.__name__)
def test_json_holds_everything(make: Callable[[], Result]) -> None:
    """What is read back equals what was written, also text that is no valid Unicode."""
    text = make().to_json()
    assert Result.from_json(text) == make()
    assert Result.from_json(text).to_json() == text
    assert text.isascii()


def test_a_newer_schema_is_refused() -> None:
    """A report of a later schema is not half understood: both numbers are named."""
    told = json.loads(mixed().to_json()) | {"schema": 2}
    with pytest.raises(UsageError, match=r"old\.json has schema 2; this version reads up to 1"):
        Result.from_json(json.dumps(told), "old.json")


def test_members_that_are_not_known_are_left_out() -> None:
    """A member that a later version adds under the same schema does no harm, at any depth."""
    told = json.loads(mixed().to_json())
    told["new"] = told["cases"][0]["new"] = told["cases"][1]["failures"][0]["new"] = [1]
    told["promises"][0]["new"] = {}
    assert Result.from_json(json.dumps(told)) == mixed()


def test_a_verdict_is_made_of_its_cases() -> None:
    """A file can't claim a verdict that its cases don't have."""
    told = json.loads(mixed().to_json()) | {"verdict": "pass", "levels": {"crash": "pass"}}
    assert Result.from_json(json.dumps(told)).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: told.pop("cases"),
        lambda told: told["cases"][0].update(level="speed"),
        lambda told: told["cases"][0].update(verdict="maybe"),
        lambda told: told["cases"][0].update(rules="BACKEND-1"),
        lambda told: told["cases"][0].update(reason=["x"]),
        lambda told: told["cases"][0].update(fired=[["kill"]]),
        lambda told: told["cases"][1]["failures"][0].update(message=7),
        lambda told: told["promises"][0].update(declared="no"),
        lambda told: told.update(seed="seven"),
        lambda told: told.update(subject=None),
        lambda told: told.update(environment=["kit"]),
        lambda told: told.update(cases=[None]),
    ],
)
def test_a_damaged_report_is_refused_by_name(damage: Callable[[Any], object]) -> None:
    """What has a wrong member or type is refused, and the file is named."""
    told = json.loads(mixed().to_json())
    damage(told)
    with pytest.raises(UsageError, match=r"a\.json is damaged"):
        Result.from_json(json.dumps(told), "a.json")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b"<html>"])
def test_what_is_no_report_is_refused(text: bytes, tmp_path: Path) -> None:
    """Any other file is refused by its name."""
    path = tmp_path / "other.json"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=r"other\.json is no report"):
        Result.load(path)


# --- JUnit ----------------------------------------------------------------------------------------------


def test_junit_counts_and_places_everything() -> None:
    """One suite for each level and one for the promises; counts fit; each verdict is its element."""
    root = ET.fromstring(junit(mixed()).encode())
    counts = {
        s.get("name"): [s.get(n) for n in ("tests", "failures", "errors", "skipped")] for s in root
    }
    assert counts == {
        "here.semantics": ["1", "0", "0", "0"],
        "here.crash": ["1", "1", "0", "0"],
        "here.power": ["1", "0", "0", "1"],
        "here.fencing": ["1", "0", "1", "0"],
        "here.promises": ["4", "1", "1", "1"],
    }
    assert [root.get(n) for n in ("tests", "failures", "errors", "skipped")] == ["8", "2", "2", "2"]
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.get("tests") == str(len(cases))
        found = [[len(c.findall(n)) for c in cases] for n in ("failure", "error", "skipped")]
        assert [str(sum(n)) for n in found] == counts[suite.get("name")][1:]
    skipped = root.find(".//testcase[@name='power.cut']/skipped")
    assert skipped is not None
    assert skipped.get("message") == "no disk"
    error = root.find(".//testcase[@name='fencing.late']/error")
    assert error is not None
    assert error.get("message") == "never fired"


def test_junit_tells_how_to_see_a_failure_again() -> None:
    """A failure holds schedule, history and replay line of each of its failures, and the run its seed."""
    root = ET.fromstring(junit(mixed()).encode())
    failure = root.find(".//testcase[@name='crash.kill']/failure")
    assert failure is not None
    text = failure.text or ""
    for part in (
        FAILURE.message,
        FAILURE.schedule,
        FAILURE.replay,
        *FAILURE.history,
        "a second one",
    ):
        assert part in text
    properties = {
        p.get("name"): p.get("value") for p in root.iterfind("testsuite/properties/property")
    }
    assert properties["seed"] == "7"
    assert properties["file system"] == "ext4"


def test_junit_is_red_for_a_failure_without_details() -> None:
    """A failing case is a failure even if nobody recorded why."""
    root = ET.fromstring(junit(result(case("crash.kill", Verdict.FAIL))).encode())
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message")


def test_junit_of_hostile_text_parses() -> None:
    """Text that XML can't hold is spelled as escapes; nothing becomes markup."""
    root = ET.fromstring(junit([hostile(), mixed()]).encode())
    assert not root.findall(".//script")
    spelled = "".join(root.itertext()) + "".join(v for e in root.iter() for v in e.attrib.values())
    assert "<script>alert('x')</script>" in spelled
    assert "\\x1b" in spelled
    assert "\x1b" not in spelled


# --- text -----------------------------------------------------------------------------------------------


def test_the_terminal_tells_the_result() -> None:
    """Levels with their counts, promises, rules, reasons, and each failure with its replay line as it is."""
    text = told(mixed())
    assert text.startswith("✗ here (file:///here, strategy redo): fail\n")
    for part in (
        "crash       1 fail; 10 runs",
        "semantics   1 pass; 10 runs",
        "fencing.late: never fired",
        "power.cut: no disk",
        "declared and broken: see there",
        "kept, yet not declared",
        "owed by every backend: of 7 rules 1 proven, 2 fail, 1 inconclusive, 1 n/a, 2 UNTESTED",
        "    UNTESTED: BACKEND 1; OPS 2\n",
        "crash.kill, crash (BACKEND-35, BACKEND-13); 3 of 10 runs",
        "seed=7; unlink#2=fail",
        FAILURE.replay,
        *FAILURE.history,
    ):
        assert part in text


def test_a_long_history_is_cut_to_its_end() -> None:
    """The terminal shows the last lines, where the fault is, and says how many are left out."""
    failure = Failure("x", history=tuple(f"line {n}" for n in range(100)))
    text = told(result(case("crash.kill", Verdict.FAIL, failures=(failure,))), history_lines=5)
    assert "95 earlier lines left out" in text
    assert "line 94" not in text
    assert "line 95" in text
    assert "line 99" in text


def test_a_broken_promise_without_a_case_is_seen() -> None:
    """What makes the verdict fail is named, also where no case failed."""
    promise = PromiseRow("DURABLE", True, "broken", "gone after a cut")
    found = result(case("crash.kill"), promises=(promise,))
    assert found.verdict is Verdict.FAIL
    assert "declared and broken: gone after a cut; no failing case is named for it" in told(found)


@pytest.mark.parametrize(
    ("encoding", "poor"),
    [("utf-8", False), ("ascii", True), ("cp1252", True), (None, True), ("nonsense", True)],
)
def test_a_poor_terminal_is_spared(encoding: str | None, poor: bool) -> None:
    """Where a stream can't hold the signs, the result is told in ASCII, so that telling it never fails."""
    assert plain(encoding) is poor
    assert told(mixed(), ascii_only=True).encode("ascii")


def test_text_acts_on_no_terminal() -> None:
    """No control sequence, direction mark or broken character of a result reaches the terminal."""
    text = told(hostile())
    assert {c for c in text if not c.isprintable()} == {"\n"}
    assert text.encode()
    assert told(hostile(), ascii_only=True).isascii()
    assert "x here" in told(mixed(), ascii_only=True)


# --- matrix ---------------------------------------------------------------------------------------------


def test_the_matrix_has_a_row_for_each_result() -> None:
    """Columns are the levels that anyone has; who has none there is n/a."""
    other = result(case("scale.calls"), subject="other")
    assert matrix([mixed(), other]).splitlines() == [
        "| backend | strategy | semantics | crash | power | fencing | scale | all |",
        "|---|---|---|---|---|---|---|---|",
        "| here | redo | pass | **fail** | n/a | inconclusive | n/a | **fail** |",
        "| other | redo | n/a | n/a | n/a | n/a | pass | pass |",
    ]


def test_promises_side_by_side() -> None:
    """Each promise of any result has a row; what one does not speak of is a dash."""
    rows = promises([mixed(), result(subject="bare")]).splitlines()
    assert rows[0] == "| promise | here | bare |"
    assert "| RECOVERABLE | declared and broken | – |" in rows
    assert len(rows) == 2 + 4


def test_a_subject_can_not_break_the_table() -> None:
    """Whatever a subject is called, the table keeps its columns and shows no markup."""
    import re

    rows = matrix([hostile(), mixed()]).splitlines()
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(rows[0].split("|")) - 1}
    assert re.search(r"(?<!\\)[<`]", rows[2]) is None


def test_files_are_merged_once_each(tmp_path: Path) -> None:
    """The same result twice is one; two runs of one subject are both there; a directory is its files."""
    write(mixed(), tmp_path / "a")
    write(mixed(), tmp_path / "b")
    write([replace(mixed(), seed=8), result(case("scale.x"), subject="A")], tmp_path / "c")
    found = merge([tmp_path / "a" / "report.json", tmp_path / "b", tmp_path / "c"])
    assert [(r.subject, r.seed) for r in found] == [("A", 7), ("here", 7), ("here", 8)]
    assert table([tmp_path / "a"]) == matrix([mixed()])


def test_nothing_to_merge_is_told(tmp_path: Path) -> None:
    """No file, and a directory without reports, are errors of the call."""
    with pytest.raises(UsageError, match="no report was named"):
        merge([])
    with pytest.raises(UsageError, match="has no JSON files"):
        merge([tmp_path])


# --- difference -----------------------------------------------------------------------------------------

PASSED = result(case("crash.kill", rules=("BACKEND-35",)), case("scale.calls"))


def _with(*cases: Any, **members: Any) -> Result:
    return result(*cases, **members)


@pytest.mark.parametrize(
    ("old", "new", "worse", "said"),
    [
        (PASSED, PASSED, False, "no change"),
        (PASSED, _with(PASSED.cases[0]), True, "case scale.calls: gone, was pass"),
        (
            _with(*PASSED.cases, case("scale.more")),
            PASSED,
            True,
            "case scale.more: gone, was pass",
        ),
        (PASSED, _with(*PASSED.cases, case("scale.more")), False, "case scale.more: new, pass"),
        (
            PASSED,
            _with(*PASSED.cases, case("scale.more", Verdict.FAIL)),
            True,
            "case scale.more: new, fail",
        ),
        (
            PASSED,
            _with(case("crash.kill", Verdict.FAIL), PASSED.cases[1]),
            True,
            "case crash.kill: pass -> fail",
        ),
        (
            PASSED,
            _with(case("crash.kill", Verdict.INCONCLUSIVE), PASSED.cases[1]),
            True,
            "level crash: pass -> inconclusive",
        ),
        (
            PASSED,
            _with(case("crash.kill", Verdict.NOT_APPLICABLE), PASSED.cases[1]),
            True,
            "case crash.kill: pass -> n/a",
        ),
        (
            _with(case("crash.kill", Verdict.FAIL), PASSED.cases[1]),
            PASSED,
            False,
            "case crash.kill: fail -> pass",
        ),
        (
            _with(case("crash.kill", Verdict.FAIL), PASSED.cases[1]),
            _with(PASSED.cases[1]),
            False,
            "case crash.kill: gone, was fail",
        ),
        (
            PASSED,
            _with(case("crash.kill"), PASSED.cases[1]),
            True,
            "rule BACKEND-35: pass -> UNTESTED",
        ),
        (
            _with(case("crash.kill", Verdict.FAIL, failures=(FAILURE,))),
            _with(case("crash.kill", Verdict.FAIL, failures=(FAILURE, Failure("another", "s")))),
            True,
            "failure crash.kill: new, another (s)",
        ),
        (
            replace(PASSED, promises=(PromiseRow("FENCED", True, "kept"),)),
            replace(PASSED, promises=(PromiseRow("FENCED", True, "broken"),)),
            True,
            "promise FENCED: kept -> declared and broken",
        ),
        (
            replace(PASSED, promises=(PromiseRow("FENCED", True, "kept"),)),
            replace(PASSED, promises=(PromiseRow("FENCED", False, "kept"),)),
            True,
            "promise FENCED: kept -> kept, yet not declared",
        ),
        (
            replace(PASSED, promises=(PromiseRow("FENCED", True, "broken"),)),
            replace(PASSED, promises=(PromiseRow("FENCED", False, "not tried"),)),
            False,
            "promise FENCED: declared and broken -> not declared",
        ),
        (PASSED, replace(PASSED, environment={"os": "X"}), False, "note: os: not told -> X"),
        (PASSED, replace(PASSED, profile="quick"), False, "note: profile: standard -> quick"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_difference_says_what_is_worse(old: Result, new: Result, worse: bool, said: str) -> None:
    """Lost passes, new failures and withdrawn promises are worse; repairs and new cases are not."""
    found = diff(old, new)
    assert said in str(found)
    assert found.worse is worse
    assert str(found).splitlines()[-1].startswith("worse") is worse


def test_a_difference_acts_on_no_terminal() -> None:
    """Text of either result is shown, never obeyed."""
    text = str(diff(mixed(), hostile())) + str(diff(hostile(), mixed()))
    assert {c for c in text if not c.isprintable()} == {"\n"}


# --- rules and environment ------------------------------------------------------------------------------


def test_a_rule_is_as_its_worst_case() -> None:
    """A rule that one case proves and another breaks is broken; one that no case names is UNTESTED."""
    rows = {row.id: row for row in rule_rows(mixed())}
    assert rows["BACKEND-13"].verdict is Verdict.FAIL
    assert rows["BACKEND-14"].verdict is Verdict.PASS
    assert rows["BACKEND-40"].verdict is Verdict.INCONCLUSIVE
    assert rows["OPS-2"].verdict is None
    assert [c.id for c in rows["BACKEND-13"].cases] == ["semantics.modes", "crash.kill"]


def test_without_a_list_every_rule_that_is_owed_is_shown() -> None:
    """A run that lists nothing as untested hides no rule for that."""
    rows = rule_rows(result(case("crash.kill", rules=("CTRL-1",))))
    assert rows[0].id == "CTRL-1"
    assert {row.id for row in rows if row.verdict is None} >= {"BACKEND-1", "STORE-1", "OPS-1"}


def test_the_library_s_own_rules_stand_apart() -> None:
    """What every backend owes is counted by itself, with or without a list of what was not tried."""
    untested = ("CTRL-1", "CTRL-2", "CTRL-4", "BACKEND-1", "OPS-3")
    cases = (case("crash.kill", rules=("BACKEND-35", "RECOVER-6")),)
    found = rule_groups(result(*cases, untested=untested))
    assert [(g.proven, len(g.rows), ranges(g.untested)) for g in found] == [
        (1, 3, "BACKEND 1; OPS 3"),
        (1, 4, "CTRL 1-2, 4"),
    ]
    assert [g.owed for g in found] == [True, False]
    text = told(result(*cases, untested=untested))
    assert "UNTESTED: BACKEND 1; OPS 3" in text
    assert "of the library's own parts: of 4 rules 1 proven, 3 UNTESTED" in text
    assert "CTRL 1-2" not in text


def test_the_environment_names_no_host(tmp_path: Path) -> None:
    """Versions, system and file system are told; neither host, user nor path."""
    import getpass
    import socket

    told = environment(tmp_path / "not" / "there")
    assert {"kit", "fstx", "fsspec", "python", "os", "file system"} <= told.keys()
    text = " ".join(told.values())
    assert str(tmp_path) not in text
    assert socket.gethostname() not in text
    assert f"/{getpass.getuser()}" not in text


def test_the_file_system_of_a_path_is_that_of_its_mount() -> None:
    """The longest mount point that holds the path counts; blanks in it are understood."""
    line = r"36 35 98:0 /m /mnt\040a rw,noatime master:1 - ext3 /dev/root rw"
    assert parse_mount(line) == ("/mnt a", "ext3")
    if Path("/proc/self/mountinfo").exists():
        assert file_system("/proc/self") == "proc"
        assert file_system("/procession") != "proc"


# --- writing --------------------------------------------------------------------------------------------


def test_a_report_is_three_files_and_nothing_beside(tmp_path: Path) -> None:
    """JSON, XML and page lie in the directory, which may have to be made; no trace of writing is left."""
    page = write(mixed(), tmp_path / "new" / "report")
    assert page == tmp_path / "new" / "report" / "index.html"
    names = {k for k in tree(tmp_path) if k[-1] != "/"}
    assert names == {f"new/report/{n}" for n in ("index.html", "report.json", "report.xml")}
    assert Result.load(page.with_name("report.json")) == mixed()


def test_subjects_of_one_name_have_files_of_their_own(tmp_path: Path) -> None:
    """Of several results none overwrites another, whatever they are called."""
    results = [mixed(), replace(mixed(), seed=9), hostile(), replace(mixed(), subject="///")]
    write(results, tmp_path / "r")
    found = {Result.load(p).seed for p in (tmp_path / "r").glob("here*.json")}
    assert found == {7, 9}
    assert len(list((tmp_path / "r").glob("*.json"))) == 4


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """When one result can't be written, the directory is as it was: no mixture of two runs."""
    write(mixed(), tmp_path / "r")
    before = tree(tmp_path)
    broken = replace(mixed(), cases=(object(),))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        write([replace(mixed(), seed=9), broken], tmp_path / "r")
    assert tree(tmp_path) == before


def test_a_report_needs_a_result(tmp_path: Path) -> None:
    """Nothing to report is an error of the call, and makes no directory."""
    with pytest.raises(UsageError, match="needs a result"):
        write([], tmp_path / "r")
    assert not (tmp_path / "r").exists()
