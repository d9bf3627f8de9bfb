"""Exit codes, and errors as one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from fstx.paths import CONTROL_NAME
from fstx.registry import as_url, scheme_of
from fstx.stores.hiding import scrub, secrets_of

OK = 0
FAILED = 1
USAGE = 2
CONFLICT = 3
UNSETTLED = 4
INTERRUPTED = 130

_FLAGS = (
    "chunks shards compression level crs transform nodata layout durability require max_workers id resume "
    "fingerprint"
)
_begun: list[
    tuple[str | None, frozenset[str]]
] = []  # of the command that runs: as `_interrupted` has it
_KEYWORD = re.compile(rf"(?<![^\s(])({'|'.join(_FLAGS.split())})=(?!\S*[/\\])(?=(\S?))")


@dataclass
class _Command:
    """The command that runs in this process, for a Ctrl-C that comes outside of `guarded`."""

    begun: bool = False
    place: str | None = None
    before: frozenset[str] = frozenset()
    code: int | None = None


_command = _Command()


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
        return in_flags(f"interrupted: {text}")
    text = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        text = f"out of memory ({text}); pass smaller --chunks or fewer --max-workers"
    elif not isinstance(error, TransactionError):
        text = f"{type(error).__name__}: {text}"
    if isinstance(error, TargetExistsError):
        notes.append("on the command line: --overwrite")
    if exit_code(error) == FAILED:
        notes.append("nothing was published; --debug shows the traceback")
    return in_flags(" ".join("; ".join([text, *notes]).split()))


def in_flags(text: str) -> str:
    """A message of the library in words of the command line: ``crs=`` becomes ``--crs``.

    Words with a slash stay as they are: paths may look like keywords.
    """
    text = text.replace("use mode='replace' or overwrite=True", "use --overwrite")
    text = text.replace("overwrite=True", "--overwrite").replace(
        "use overwrite or", "use --overwrite or"
    )
    return _KEYWORD.sub(_flag, text)


def _flag(match: re.Match[str]) -> str:
    return f"--{match[1].replace('_', '-')}" + (" " if match[2] and match[2] not in ";,.):" else "")


def held(place: str | None) -> frozenset[str]:
    """What the control directory beside a local target holds, such as unsettled transactions."""
    if place is None or scheme_of(as_url(place)) != "file":
        return frozenset()
    path = as_url(place).removeprefix("file://").rstrip("/")
    top = os.path.join(os.path.dirname(path), CONTROL_NAME)
    try:
        return frozenset([".", *os.listdir(top)])
    except OSError:
        return frozenset()


def heard_of_interrupt() -> bool:
    """Whether `guarded` has met a Ctrl-C in this process and said so."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def deaf() -> None:
    """From here on Ctrl-C is not heard: what is left to do is to say how it ended."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def last_word() -> int:
    """The exit code after a Ctrl-C outside of `guarded`, and a line: before it, or a second one in it.

    After a command's end its own code holds, and it has said all.
    """
    deaf()
    if _command.code is not None:
        return _command.code
    error = KeyboardInterrupt()
    code = INTERRUPTED
    if _command.begun:
        code = _interrupted(error, _command.place, _command.before)
    else:
        error.add_note("nothing was begun")
    print(f"fstx: {sentence(error)}", file=sys.stderr)
    return code


def forget_command() -> None:
    """The next command of this process is another one."""
    global _command
    _command = _Command()


def guarded(
    work: Callable[[], int],
    *,
    as_json: bool,
    debug: bool,
    place: str | None = None,
    secret: Mapping[str, Any] | None = None,
) -> int:
    """Run `work`; an error becomes one line on standard error and an exit code.

    An interrupt is 130 only where it left nothing beside `place`, and else 4. What is `secret` among
    storage options is shown nowhere.
    """
    before: frozenset[str] = frozenset()
    try:
        before = held(place)
        _command.begun, _command.place, _command.before = True, place, before
        _command.code = work()
        return _command.code
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the boundary to the shell
        code = exit_code(error)
        if isinstance(error, KeyboardInterrupt):
            deaf()
            code = _interrupted(error, place, before)
        hidden = secrets_of(secret or {})
        told = scrub(sentence(error), hidden)
        if debug:
            print(scrub(traceback.format_exc(), hidden), end="", file=sys.stderr)
        print(f"fstx: {told}", file=sys.stderr)
        if as_json:
            print_json(
                {
                    "ok": False,
                    "exit_code": code,
                    "error": type(error).__name__,
                    "message": told,
                    "txid": getattr(error, "txid", None),
                    "outcome": getattr(error, "outcome", None),
                }
            )
        _command.code = code
        return code


def _interrupted(error: KeyboardInterrupt, place: str | None, before: frozenset[str]) -> int:
    told = " ".join(getattr(error, "__notes__", ()))
    unsettled = "not settled" in told or "could not be settled" in told
    committed = "is committed" in told
    kept = "finished units are kept in" in told  # a resumable job: on purpose, and the note says so
    if not unsettled and (committed or kept or held(place) <= before):
        return INTERRUPTED
    error.add_note(f"something may be left: fstx recover {place} settles it")
    return UNSETTLED


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, default=str))
