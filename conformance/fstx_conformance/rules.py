"""The numbered rules of the specification, as they are shipped with the kit.

``rules.txt`` has one rule a line: number, space, statement. It is made from the tables of the
specification by ``python -m fstx_conformance.rules docs/reference/spec.md``; a test compares the two.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from fstx.errors import UsageError

_ROW = re.compile(r"^\| ([A-Z]+-\d+) \| (.+?) \|$", re.MULTILINE)
_ID = re.compile(r"([A-Z]+)-(\d{1,4})", re.ASCII)
_LINE = re.compile(r"([A-Z]+)-(\d+) (\S.*)")

OWED = ("BACKEND", "STORE", "OPS")
"""The families that a backend of a third party is judged by; the others are the library's own."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One numbered statement of the specification."""

    family: str
    number: int
    statement: str

    @property
    def id(self) -> str:
        """As the specification and the cases name it: ``BACKEND-24``."""
        return f"{self.family}-{self.number}"

    def __str__(self) -> str:
        return f"{self.id} {self.statement}"


def parse(text: str) -> tuple[Rule, ...]:
    """The rules of a text like ``rules.txt``; UsageError for a line that is none."""
    rules = []
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise UsageError(f"{line!r} is no rule; one reads: BACKEND-1 statement")
        rules.append(Rule(found[1], int(found[2]), found[3]))
    return tuple(rules)


def specified(markdown: str) -> tuple[Rule, ...]:
    """The rules in the tables of the specification, in their order."""
    return parse("\n".join(f"{id} {statement}" for id, statement in _ROW.findall(markdown)))


@cache
def every() -> dict[str, Rule]:
    """All rules that this version of the kit knows, by id, in the order of the specification."""
    text = files("fstx_conformance").joinpath("rules.txt").read_text(encoding="utf-8")
    return {rule.id: rule for rule in parse(text)}


def rule(id: str) -> Rule:
    """One rule; UsageError for an id that the specification does not have."""
    try:
        return every()[id]
    except KeyError:
        raise UsageError(f"the specification has no rule {id!r}") from None


def order(ids: set[str] | frozenset[str]) -> tuple[str, ...]:
    """Ids in the order of the specification; unknown ones (of another version) come last."""
    place = {id: n for n, id in enumerate(every())}
    return tuple(sorted(ids, key=lambda id: (place.get(id, len(place)), id)))


def ranges(ids: Iterable[str]) -> str:
    """Ids of the specification, shortened for people: ``BACKEND 1-3, 5; OPS 2``."""
    families: dict[str, list[list[int]]] = {}
    others: list[str] = []
    for id in ids:
        found = _ID.fullmatch(id)
        if found is None:
            others.append(id)
            continue
        runs, number = families.setdefault(found[1], []), int(found[2])
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    told = [
        f"{family} " + ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
        for family, runs in families.items()
    ]
    return "; ".join([*told, *others])


def main(specification: str) -> None:
    """Write ``rules.txt`` anew from a specification."""
    rules = specified(Path(specification).read_text(encoding="utf-8"))
    text = "".join(f"{rule}\n" for rule in rules)
    Path(__file__).with_name("rules.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
