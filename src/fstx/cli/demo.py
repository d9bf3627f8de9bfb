"""``fstx demo``: the same raster, two writers, the same kill, and what a reader finds.

A parent process kills each writer (SIGKILL; TerminateProcess on Windows) when it has written the same
number of tiles, looks with a reader that knows nothing of fstx, and then does what people do: retry.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

import fstx
from fstx.cli.demo_reader import Seen, look, sources
from fstx.cli.demo_writer import blocks, raster
from fstx.errors import UsageError

STOP = 40
WAIT_S = 60.0


class Stage:
    """One scratch directory, two rasters, and a console that tells what happens."""

    def __init__(self, root: str, console: Console) -> None:
        self.root = root
        self.console = console
        self.old, self.new = raster(1), raster(2)
        self.told: dict[str, Any] = {}

    def path(self, kind: str) -> str:
        return os.path.join(self.root, kind, "dem.vrt")

    def run(self, kind: str, version: int, *how: str, kill: bool = False) -> str:
        """Run a writer; returns "killed", "done", or the last line of its complaint."""
        Path(self.path(kind)).parent.mkdir(exist_ok=True)
        own = str(Path(fstx.__file__).parents[1])
        paths = os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])
        stop = str(STOP) if kill else "-1"
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "fstx.cli.demo_writer",
                kind,
                str(version),
                self.path(kind),
                stop,
                *how,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        try:
            if kill:
                assert child.stdout is not None
                reached = child.stdout.readline().strip()
                child.kill()
                _, complaint = child.communicate(timeout=WAIT_S)
                return "killed" if reached == f"at {STOP}" else _last_line(complaint)
            _, complaint = child.communicate(timeout=WAIT_S)
            return "done" if child.returncode == 0 else _last_line(complaint)
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()

    def look(self, key: str, kind: str) -> Seen:
        """Let the reader look, say what it found, and note it under `key`."""
        seen = look(self.path(kind), self.old, self.new)
        self.told[key] = seen.verdict
        bad = seen.verdict in ("leftovers", "broken", "mixture")
        colour = "red" if bad else "green"
        self.say(f"    reader: {seen.sentence()}", colour)
        return seen

    def say(self, text: str = "", style: str = "") -> None:
        self.console.print(text, style=style or None, markup=False)


def play(console: Console, *, directory: str | None = None, keep: bool = False) -> dict[str, Any]:
    """Play both scenes on a scratch directory, and return what was found.

    Returns
    -------
    dict
        ``ok`` is True when the fstx writer left old or new each time and nothing else; the verdicts by
        scene; ``seconds``; ``directory`` if it was kept, else None: then nothing is left of it.
    """
    import tifffile  # noqa: F401 - said at once where it is missing

    begun_s = time.perf_counter()
    root = _scratch(directory)
    try:
        stage = Stage(root, console)
        stage.say(
            f"A terrain model of {stage.new.shape[0]} x {stage.new.shape[1]} pixels, "
            f"{len(blocks(stage.new))} GeoTIFF tiles and a VRT index, in {root}.\n"
            "The plain writer: make the directory, write tiles into it, write the index last.\n"
            "The fstx writer:  fstx.write(array, path).\n"
            f"Both are killed by SIGKILL after {STOP} tiles."
        )
        _first_write(stage)
        _replacement(stage)
    finally:
        if not keep:
            shutil.rmtree(root, ignore_errors=True)
    told = dict(stage.told)
    told["ok"] = all(told[key] == wanted for key, wanted in _PROMISED.items())
    told["seconds"] = round(time.perf_counter() - begun_s, 1)
    told["directory"] = root if keep else None
    stage.say(
        f"\n{told['seconds']} s. "
        + (f"Kept: {root}" if keep else "The scratch directory is removed (--keep keeps it).")
    )
    return told


_PROMISED = {
    "fstx new, killed": "nothing",
    "fstx new, retried": "new",
    "fstx new, left over": [],
    "fstx replacing, killed": "old",
    "fstx replacing, retried": "new",
    "fstx replacing, left over": [],
}


def _first_write(stage: Stage) -> None:
    stage.say("\n1. Nothing is there yet", "bold")
    stage.say("  plain writer, " + stage.run("plain", 2, kill=True))
    stage.look("plain new, killed", "plain")
    complaint = stage.run("plain", 2)
    stage.told["plain new, retry"] = complaint
    stage.say(f"  plain writer, retried: {complaint.replace(stage.root + os.sep, '')}")
    stage.say(
        "  plain writer, retried, told to skip tiles that exist: " + stage.run("plain", 2, "skip")
    )
    stage.look("plain new, resumed", "plain")
    stage.say("  fstx writer, " + stage.run("fstx", 2, kill=True))
    stage.look("fstx new, killed", "fstx")
    stage.say(f"    beside it: {_listed(stage, 'fstx')} (what was staged; the next run removes it)")
    stage.say("  fstx writer, retried: " + stage.run("fstx", 2))
    stage.look("fstx new, retried", "fstx")
    _left_over(stage, "fstx new, left over")


def _replacement(stage: Stage) -> None:
    stage.say("\n2. A raster is there and is replaced by one 100 m higher", "bold")
    for kind in ("plain", "fstx"):
        shutil.rmtree(os.path.dirname(stage.path(kind)))
        stage.run(kind, 1)
    stage.say("  plain writer, " + stage.run("plain", 2, "replace", kill=True))
    stage.look("plain replacing, killed", "plain")
    stage.say("  plain writer, run again to the end: " + stage.run("plain", 2, "replace"))
    stage.look("plain replacing, retried", "plain")
    stage.say("  fstx writer, " + stage.run("fstx", 2, "replace", kill=True))
    stage.look("fstx replacing, killed", "fstx")
    stage.say("  fstx writer, retried: " + stage.run("fstx", 2, "replace"))
    stage.look("fstx replacing, retried", "fstx")
    _left_over(stage, "fstx replacing, left over")


def _left_over(stage: Stage, key: str) -> None:
    """Files beside the index and the tiles that it names."""
    path = stage.path("fstx")
    named = {os.path.normpath(p) for p in sources(path).values()} | {path}
    found = [str(p) for p in Path(path).parent.rglob("*") if p.is_file() and str(p) not in named]
    found += [str(p) for p in Path(path).parent.glob(".fstx")]
    stage.told[key] = sorted(os.path.relpath(p, stage.root) for p in found)
    stage.say(f"    left over: {', '.join(stage.told[key]) or 'nothing'}")


def _listed(stage: Stage, kind: str) -> str:
    return ", ".join(sorted(os.listdir(os.path.dirname(stage.path(kind))))) or "nothing"


def _scratch(directory: str | None) -> str:
    try:
        return tempfile.mkdtemp(prefix="fstx-demo-", dir=directory)
    except OSError as error:
        raise UsageError(
            f"--dir {directory}: no scratch directory can be made there: {error}"
        ) from error


def _last_line(complaint: str) -> str:
    lines = complaint.strip().splitlines()
    return lines[-1] if lines else "ended without a word"
