"""Processes that may die, forked from one that has imported what they need: the slow part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

# Whatever ends `run` ends the child as it would end a program: the parent only waits.
_PARENT = """
import json, os, sys, tempfile

while line := sys.stdin.readline():
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not (pid := os.fork()):
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            run(*json.loads(line))
            sys.exit()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    print(json.dumps([code, *texts]), flush=True)
"""


class Forks:
    """Runs a function in a process of its own each time, as ``with Forks(code) as forks``.

    Parameters
    ----------
    code
        Defines ``run``; may import, but starts no thread.
    """

    def __init__(self, code: str) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-c", code + _PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=TESTS,
            text=True,
        )

    def run(self, *arguments: str | int) -> subprocess.CompletedProcess[str]:
        """Call ``run`` with these arguments in a fork, and wait for its end."""
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(arguments) + "\n")
        self._parent.stdin.flush()
        line = self._parent.stdout.readline()
        if not line:
            raise RuntimeError("the process to fork from has ended")
        return subprocess.CompletedProcess(arguments, *json.loads(line))

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.communicate(timeout=30)
