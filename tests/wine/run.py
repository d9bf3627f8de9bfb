"""Runs the Windows Python under wine: ``python tests/wine/run.py -c "import fstx"``."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from wine.install import environment, home, loader  # noqa: E402


def windows(path: Path) -> str:
    """The name that wine gives to a path of this system."""
    return "Z:" + str(path.absolute()).replace("/", "\\")


def project() -> None:
    """Make the checkout known to the Windows Python, with its entry points."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    site = home() / "Lib" / "site-packages"
    info = site / f"fstx-{about['version']}.dist-info"
    info.mkdir(exist_ok=True)
    folders = [windows(ROOT / name) for name in ("src", "conformance")]
    (site / "fstx.pth").write_text("\n".join([*folders, ""]))
    head = f"Metadata-Version: 2.1\nName: fstx\nVersion: {about['version']}\n"
    (info / "METADATA").write_text(head)
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in entries.items())
        for group, entries in about["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """One run; its output goes through a pipe, as wine can't write to a file that it inherits."""
    project()
    warm()
    return subprocess.run(
        command(arguments),
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def command(arguments: Sequence[str]) -> list[str]:
    """What starts the Windows Python with these arguments."""
    return [loader(), str(home() / "python.exe"), "-X", "utf8", *arguments]


def warm() -> None:
    """Start wine's own processes, so that none of them inherits the pipe of a later one and keeps it open."""
    nothing = subprocess.DEVNULL
    subprocess.run(
        command(["-c", ""]),
        env=environment(),
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        check=True,
    )


def main(arguments: Sequence[str]) -> int:
    """Pass on what the Windows Python says while it says it; its exit status."""
    project()
    warm()
    with subprocess.Popen(
        command(arguments),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        while piece := process.stdout.read1(1 << 16):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
