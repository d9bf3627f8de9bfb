"""The command line: ``fstx write | guarantee | recover | outcome | demo``, and of versions
``fstx log | ls | verify | collect | restore``.

Needs the extra ``cli``; without it `main` says so and returns 2.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

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
    told = sys.unraisablehook
    sys.unraisablehook = partial(_raise_again, told)
    getattr(sys.modules.get("fstx.cli.exits"), "forget_command", int)()
    try:
        from fstx.cli.app import run

        return run(argv)
    except KeyboardInterrupt:  # while modules were loaded, or a further one
        last_word = getattr(sys.modules.get("fstx.cli.exits"), "last_word", None)
        if last_word is not None:
            return int(last_word())
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
        if argv is not None:  # a caller in this process goes on
            sys.unraisablehook = told
            if signal.getsignal(signal.SIGINT) is not heard:
                signal.signal(signal.SIGINT, heard)


def _raise_again(otherwise: Callable[[Any], object], lost: Any) -> None:
    """A Ctrl-C that lands in a finalizer, where Python prints and drops it, comes again after it."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if isinstance(lost.exc_value, KeyboardInterrupt):
        later = threading.Timer(0.01, _thread.interrupt_main)  # now it would land in this hook
        later.daemon = True
        later.start()
    elif not (ignored and "race condition" in str(lost.exc_value)):  # one came while it was told to
        otherwise(lost)
