"""The command line: ``fstx write | guarantee | recover | outcome | demo``, and of versions
``fstx log | ls | verify | collect | restore``.

Needs the extra ``cli``; without it `main` says so and returns 2.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]

_EXTRA = ("typer", "rich")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv
        Arguments without the program's name; None takes those of the process.
    """
    heard = signal.getsignal(signal.SIGINT)
    try:
        from fstx.cli.app import run

        return run(argv)
    except KeyboardInterrupt:  # while modules were loaded; the commands catch their own
        print("fstx: interrupted: nothing was begun", file=sys.stderr)
        return 130
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(
            f"fstx: the command line needs {error.name}, which is not installed; "
            "run: pip install 'fstx[cli]'",
            file=sys.stderr,
        )
        return 2
    finally:
        if argv is not None and signal.getsignal(signal.SIGINT) is not heard:
            signal.signal(signal.SIGINT, heard)  # a caller in this process goes on
