"""Exit codes, and errors as one line that says what to do."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from fstx.errors import (
    ConflictError,
    InDoubtError,
    RecoveryError,
    TargetBusyError,
    TargetExistsError,
    TransactionError,
    UsageError,
)

OK = 0
FAILED = 1
USAGE = 2
CONFLICT = 3
UNSETTLED = 4
INTERRUPTED = 130


def exit_code(error: BaseException) -> int:
    """The exit code that an error becomes.

    1: failed, nothing was published. 2: the call must be fixed. 3: the target exists, is busy, or another
    writer won; may be tried again. 4: not settled yet. 130: interrupted.
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, InDoubtError | RecoveryError):
        return UNSETTLED
    if isinstance(error, TargetExistsError | ConflictError | TargetBusyError):
        return CONFLICT
    if isinstance(error, UsageError):
        return USAGE
    return FAILED


def sentence(error: BaseException) -> str:
    """What happened and what to do, on one line."""
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    if isinstance(error, KeyboardInterrupt):
        text = "; ".join(notes) or "nothing was published and nothing is left behind"
        return f"interrupted: {text}"
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        text = f"out of memory ({text}); pass smaller --chunks or fewer --max-workers"
    elif not isinstance(error, TransactionError):
        text = f"{type(error).__name__}: {text}"
    if isinstance(error, TargetExistsError):
        notes.append("on the command line: --overwrite")
    if exit_code(error) == FAILED:
        notes.append("nothing was published; --debug shows the traceback")
    return " ".join("; ".join([text, *notes]).split())


def guarded(work: Callable[[], int], *, as_json: bool, debug: bool) -> int:
    """Run `work`; an error becomes one line on standard error and an exit code."""
    try:
        return work()
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the boundary to the shell
        code = exit_code(error)
        if debug:
            traceback.print_exc()
        print(f"fstx: {sentence(error)}", file=sys.stderr)
        if as_json:
            print_json(
                {
                    "ok": False,
                    "exit_code": code,
                    "error": type(error).__name__,
                    "message": sentence(error),
                    "txid": getattr(error, "txid", None),
                    "outcome": getattr(error, "outcome", None),
                }
            )
        return code


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, default=str))
