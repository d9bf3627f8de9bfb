"""Every code block of README and docs runs, page by page, in an empty directory.

``python`` blocks of a page share their names; ``sh`` blocks run by bash with ``fstx`` at hand. ``text`` is
shown only, and ``sh install`` is for what a fresh machine needs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.example import EXAMPLE, installed

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), EXAMPLE / "README.md"])
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"python", "sh"}
SHOWN = {"text", "sh install"}
INSTALLERS = ("python3 -m venv", ".venv/bin/", "pip install", "git clone", ". .venv", ".ci/run")


def _blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def _indented(page: Path) -> list[str]:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"^    (?:import|from|with|fstx|\$) .*$", text, re.MULTILINE)


def _script(page: Path) -> str:
    lines = ["import subprocess as _s"]
    for kind, text in _blocks(page):
        if kind == "python":
            lines.append(text)
        elif kind == "sh":
            lines.append(f"_s.run(['bash', '-euc', {text!r}], check=True)")
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks_are_of_known_kinds(page: Path) -> None:
    """Protects against examples that nobody runs: only known kinds, installers only install."""
    for kind, text in _blocks(page):
        assert kind in RUN | SHOWN, f"{page.name}: a block of kind {kind!r}"
        if kind == "sh install":
            for line in text.strip().splitlines():
                assert line.startswith(INSTALLERS), line
    assert not _indented(page), "code belongs into a fenced block, so that it runs"


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if any(kind in RUN for kind, _ in _blocks(p))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    """Protects readers: what the page shows works as it stands, with warnings as errors."""
    tools = tmp_path / "tools"
    tools.mkdir()
    command = tools / "fstx"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fstx.cli "$@"\n')
    command.chmod(0o755)
    place = tmp_path / "work"
    (place / "tests").mkdir(parents=True)
    (place / "tests" / "data").symlink_to(ROOT / "tests" / "data")
    script = tmp_path / "page.py"
    script.write_text(_script(page))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
        env={
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(installed(tmp_path / "site")),  # the tutorial's package
        },
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_main_pages_have_examples() -> None:
    """Protects the runner from finding nothing."""
    ran = {p.name for p in PAGES if any(kind in RUN for kind, _ in _blocks(p))}
    assert {"README.md", "first-transaction.md", "write-a-dem.md", "cli.md"} <= ran


@pytest.mark.parametrize(
    "name",
    [
        "write-a-mosaic-safely.md",
        "share-a-cache.md",
        "resume-a-killed-job.md",
        "write-tiles-in-threads.md",
        "stream-chunks.md",
        "write-from-a-cluster.md",
    ],
)
def test_pages_show_code_before_and_after(name: str) -> None:
    """I11: pages that compare run both: the code without the library, and the one with it."""
    text = (ROOT / "docs" / "how-to" / name).read_text(encoding="utf-8")
    before, found, after = text.partition("## After")
    assert found
    _, found, before = before.partition("## Before")
    assert found
    assert "```python" in before
    assert "fstx." not in "".join(code for kind, code in BLOCK.findall(before))
    assert "fstx." in "".join(code for kind, code in BLOCK.findall(after))
