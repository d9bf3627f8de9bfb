"""The example backend: its tutorial shows its code, and fstx does not ship it."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict

from support.example import EXAMPLE, ROOT

PAGE = ROOT / "docs" / "tutorials" / "your-own-backend.md"
BLOCK = re.compile(
    r"^```(?:python|text)\n# ([\w./-]+\.(?:py|toml))\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
WHOLE = {
    "src/sqlitefs/database.py",
    "src/sqlitefs/store.py",
    "src/sqlitefs/backend.py",
    "tests/test_conformance.py",
}


def _shown() -> dict[str, list[str]]:
    found = defaultdict(list)
    for name, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        found[name].append(text.strip("\n"))
    return found


def _code(name: str) -> str:
    """A file as a block has it: without its first docstring and the import from the future."""
    text = (EXAMPLE / name).read_text(encoding="utf-8")
    text = re.sub(r'\A""".*?"""\n\n', "", text, count=1, flags=re.DOTALL)
    return text.replace("from __future__ import annotations\n\n", "", 1).strip("\n")


def test_the_tutorial_shows_the_code_of_the_package() -> None:
    """Protects learners: each block that names a file stands in it word for word, in the file's order."""
    shown = _shown()
    assert {*WHOLE, "src/sqlitefs/filesystem.py", "tests/test_broken.py", "pyproject.toml"} == set(
        shown
    )
    for name, blocks in shown.items():
        code, place = _code(name), 0
        for block in blocks:
            found = code.find(block, place)
            assert found >= 0, f"{name} has no such lines, or not here:\n{block}"
            place = found + len(block)


def test_short_files_are_shown_whole() -> None:
    """Protects learners: what the tutorial says is the whole of a file leaves nothing out."""
    shown = _shown()
    for name in sorted(WHOLE):
        assert "\n".join(shown[name]) == _code(name), name


def test_the_example_is_not_part_of_fstx() -> None:
    """Protects users of fstx: neither its wheel nor its entry points hold anything of the example."""
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = facts["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packed
    assert not any(EXAMPLE.is_relative_to(ROOT / folder) for folder in packed)
    assert "sqlitefs" not in str(facts["project"])
