"""The kill table: each broken backend fails at its level, and the right ones pass.

``python -m fstx_conformance.broken.table`` runs all and prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fstx.errors import UsageError
from fstx_conformance.broken.catalogue import BROKEN, RIGHT, Broken, Make
from fstx_conformance.results import CaseResult, Level, Result, Verdict
from fstx_conformance.run import run
from fstx_conformance.schedule import Schedule

_BEGIN, _END = "<!-- kill table -->", "<!-- end of the kill table -->"


@dataclass(frozen=True)
class Row:
    """What one subject came to.

    `broken`: None for a right one. `result`: of the level where it has to fail, to the first failure; of a
    right one all levels. `rest`: of the levels that its defect does not touch.
    """

    name: str
    broken: Broken | None
    result: Result
    rest: Result | None = None

    @property
    def as_expected(self) -> bool:
        """It failed where it has to, and only where it may; a right one nowhere."""
        if self.broken is None:
            return self.result.verdict is not Verdict.FAIL
        return self.result.level(self.broken.level) is Verdict.FAIL and not self.surprises

    @property
    def surprises(self) -> list[str]:
        """Levels that its defect does not touch, and yet did not pass."""
        if self.broken is None or self.rest is None:
            return []
        return [lv.value for lv in self.broken.passes if self.rest.level(lv) is not Verdict.PASS]

    @property
    def failed(self) -> list[CaseResult]:
        """Cases that failed where it has to."""
        return [c for c in self.result.cases if c.verdict is Verdict.FAIL]

    @property
    def passed(self) -> list[str]:
        """Levels that it passed."""
        rest = self.result if self.broken is None else self.rest
        found = [] if rest is None else [lv for lv in Level if rest.level(lv) is Verdict.PASS]
        return [lv.value for lv in found]


def judge(
    make: Make,
    *,
    only: Iterable[str] = (),
    profile: str = "quick",
    first: bool = False,
    replay: Schedule | None = None,
) -> Result:
    """The result of one subject in a directory of its own."""
    memory = "/dev/shm"
    where = memory if os.path.isdir(memory) else None
    with tempfile.TemporaryDirectory(prefix="fstx-broken-", dir=where) as folder:
        subject = make(folder)
        try:
            return run(subject, profile=profile, only=only, first=first, replay=replay)
        finally:
            subject.close()


def rows(
    names: Sequence[str] = (), *, whole: bool = True, tell: Callable[[str], object] = print
) -> list[Row]:
    """Run them; `whole`: with the levels that a defect does not touch, and the right ones."""
    found = []
    for name, broken in BROKEN.items():
        if names and name not in names:
            continue
        tell(name)
        result = judge(broken.make, only=broken.shortest, profile=broken.profile, first=True)
        rest = judge(broken.make, only=broken.passes) if whole and broken.passes else None
        found.append(Row(name, broken, result, rest))
    for name, make in RIGHT.items() if whole else ():
        if not names or name in names:
            tell(name)
            found.append(Row(name, None, judge(make)))
    return found


# --- telling ----------------------------------------------------------------------------------------------


def told(row: Row) -> dict[str, Any]:
    """A row as JSON has it."""
    failures = [f for c in row.failed for f in c.failures]
    return {
        "name": row.name,
        "what": "nothing" if row.broken is None else row.broken.what,
        "must_fail": None if row.broken is None else row.broken.level.value,
        "profile": row.result.profile,
        "as_expected": row.as_expected,
        "failed": [c.id for c in row.failed],
        "rules": sorted(set(row.failed[0].rules)) if row.failed else [],
        "passed": row.passed,
        "surprises": row.surprises,
        "failure": failures[0].message if failures else "",
        "schedule": failures[0].schedule if failures else "",
        "seconds": row.result.seconds,
    }


def to_json(rows: Sequence[dict[str, Any]]) -> str:
    """One document."""
    return json.dumps(rows, indent=1, sort_keys=True) + "\n"


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table of what fails where, and what passes all the same."""
    lines = ["| backend | what is wrong | fails | passes |", "|---|---|---|---|"]
    for row in rows:
        fails = ", ".join(f"`{case}`" for case in row["failed"][:1]) or "nothing"
        if row["profile"] != "quick":
            fails += f" ({row['profile']})"
        lines.append(f"| {row['name']} | {row['what']} | {fails} | {', '.join(row['passed'])} |")
    return "\n".join(lines) + "\n"


def put_into(page: str, table: str) -> str:
    """The page with this table between its marks."""
    before, _, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not end:
        raise UsageError(f"the page has no marks {_BEGIN} and {_END}")
    return f"{before}{_BEGIN}\n\n{table}\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all and print the table; 1 if one was not caught, or a right one failed."""
    parser = argparse.ArgumentParser(prog="python -m fstx_conformance.broken.table")
    parser.add_argument("names", nargs="*", help="only these; all by default")
    parser.add_argument("--quick", action="store_true", help="only the level where each must fail")
    parser.add_argument("--json", action="store_true", help="JSON instead of Markdown")
    parser.add_argument("--page", type=Path, help="put the Markdown between the marks of this page")
    given = parser.parse_args(arguments)
    if unknown := [n for n in given.names if n not in BROKEN and n not in RIGHT]:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join([*BROKEN, *RIGHT])}")
    found = rows(given.names, whole=not given.quick, tell=lambda n: print(n, file=sys.stderr))
    shown = [told(row) for row in found]
    print(to_json(shown) if given.json else to_markdown(shown), end="")
    if given.page is not None:
        given.page.write_text(put_into(given.page.read_text("utf-8"), to_markdown(shown)), "utf-8")
    wrong = [row for row in shown if not row["as_expected"]]
    for row in wrong:
        what = ", ".join(row["surprises"] or row["failed"]) or "nothing"
        print(f"not as expected: {row['name']} (failed: {what})", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
