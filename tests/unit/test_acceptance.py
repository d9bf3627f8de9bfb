"""The list of what has to hold names tests that are there."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
LINES: dict[str, Any] = tomllib.loads((TESTS / "acceptance.toml").read_text())

REQUIRED = [
    *(f"A{n}" for n in range(1, 35)),
    *(f"B{n}" for n in range(1, 19)),
    *(f"C{n}" for n in range(1, 15)),
    *(f"D{n}" for n in range(1, 33)),
    *(f"E{n}" for n in range(1, 18)),
    *(f"F{n}" for n in range(1, 25)),
    *(f"G{n}" for n in range(1, 7)),
    *(f"H{n}" for n in range(1, 11)),
    *(f"I{n}" for n in range(1, 12)),
    *("real", "bands", "urls", "paths", "parents", "space", "kinds"),
]


@cache
def functions_of(file: str) -> dict[str, str]:
    """Docstrings by name of all test functions of a file."""
    return {
        node.name: ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse((TESTS / file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    }


def test_every_line_is_listed() -> None:
    """Protects the list from losing a line, and from lines that nobody asked for."""
    assert sorted(LINES) == sorted(REQUIRED)


@pytest.mark.parametrize("line", REQUIRED)
def test_line_is_proved_or_explained(line: str) -> None:
    """Protects each line: its tests exist, one says so in its docstring, or the reason is given."""
    entry = LINES[line]
    if "reason" in entry:
        assert set(entry) == {"reason"}
        assert len(entry["reason"].split()) >= 3
        return
    assert set(entry) <= {"says", "tests", "limit"}
    assert entry["says"]
    assert len(set(entry["tests"])) == len(entry["tests"]) >= 1
    named = []
    for test in entry["tests"]:
        file, _, function = test.partition("::")
        assert (TESTS / file).is_file(), test
        assert function in functions_of(file), test
        named.append(functions_of(file)[function])
    if line[0].isupper():
        word = re.compile(rf"\b{line}\b")
        assert any(word.search(text) for text in named), f"no test of {line} names it"


def test_few_lines_are_only_explained() -> None:
    """Protects from explaining instead of testing: figures alone have no test."""
    assert [line for line in REQUIRED if "reason" in LINES[line]] == ["E7", "E8", "E13"]
