"""Plays the table of what Windows answers, on the system itself: the answers as JSON, by scenario.

A program for the Windows Python; its one argument is the folder of the tests' own packages.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile


def main() -> None:
    """Each scenario in a directory of its own below the current one; one line of output."""
    sys.path.insert(0, sys.argv[1])
    from fstx.ops._wincrt import NativeCrt
    from support.winscenarios import SCENARIOS, run

    answers = {}
    for scenario in SCENARIOS:
        folder = os.path.abspath(tempfile.mkdtemp(dir=os.curdir))
        answers[scenario.name] = run(scenario, NativeCrt(), folder)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
