"""Schedules: which calls go wrong and how, as one line of text that can be printed and replayed.

``case=crash.kill; scene=update; seed=7; writer: put_new[log/*]#1=lost-reply; recoverer: unlink#2=kill``

An entry names an agent (``writer`` if left out), a call, optionally a pattern of its key, the number of the
matching call, and an action; ``!`` after the action makes it stick: that call and all later matching ones.
The call is a pattern of names; ``*`` is any call and ``+`` any call that changes something.

``power#17=lost(3,5-7)+torn(2)`` is no call: the power goes after entry 17 of the disk's log, and that is lost
(see `seams.losses`). With the agent ``recoverer`` it goes again, in the recovery.

Text of others (patterns, and what ``case=``, ``scene=`` and ``extra=`` hold) may be anything: what would part
an entry or end a pattern, and what can't be printed, is spelled by its number, such as ``\\x3b`` for ``;``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from fstx.errors import UsageError

ACTIONS = {
    "fail": "certainly not done, and told so",
    "lost-request": "not done, and not told: an error or UNKNOWN",
    "lost-reply": "done, and not told",
    "kill": "the process dies before the call",
    "kill-after": "the process dies after the call",
    "torn": "the process dies when half of the call is done",
    "late": "not told, and done only later, when the run asks for late requests",
    "duplicate": "done twice; the second answer is told",
    "interrupt": "Ctrl-C before the call",
    "interrupt-after": "Ctrl-C after the call",
    "stale": "a read answers what it answered before",
    "switch": "the other agent runs from here on, until it ends or is switched",
    "fence": "the process stops; a recoverer takes it for dead; then the process goes on",
    "sigkill": "the real process is killed",
    "sigstop": "the real process is stopped",
    # on the wire, by the proxy: the call is an HTTP method, the key path and query
    "reset-before": "the connection is reset; the server saw nothing",
    "reset-middle": "half of the body reaches the server, then all is reset",
    "reset-after": "done, then a reset instead of the answer",
    "status-403": "refused with this status; the server saw nothing",
    "status-409": "refused with this status; the server saw nothing",
    "status-429": "refused with this status; the server saw nothing",
    "status-500": "refused with this status; the server saw nothing",
    "status-503": "refused with this status; the server saw nothing",
    "status-500-after": "done, and answered with this status",
    "status-503-after": "done, and answered with this status",
    "stall": "not done, and no answer for longer than the caller waits",
    "stall-after": "done, and no answer for longer than the caller waits",
    "duplicate-first": "done twice; the first answer is told",
    "zombie": "done, not told, and done again when the run asks for late requests",
    "truncate": "done; half of the answer's body, then the end",
    "corrupt": "done; one bit of the answer's body is another",
    "strip": "the conditions of the call are ignored",
    "racy": "the conditions of the call are looked at first, and ignored then",
}
"""What may happen at a call."""

POWER = "power"
"""The name of a loss of power, in place of a call."""

_ENTRY = re.compile(
    r"(?:(?P<agent>[\w-]+):\s*)?(?P<op>[\w*+?-]+)(?:\[(?P<key>[^\]]*)\])?#(?P<nth>\d+)=(?P<action>[\w(),+-]+)(?P<sticky>!?)"
)
_NUMBER = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_LOSS = re.compile(r"kept|(?:\w+\([\d,-]+\))(?:\+\w+\([\d,-]+\))*")


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a schedule."""

    op: str
    nth: int
    action: str
    key: str = "*"
    agent: str = "writer"
    sticky: bool = False

    def matches(self, agent: str, op: str, key: str, changing: bool) -> bool:
        """Whether a call is one of those that this entry counts."""
        if agent != self.agent or self.op == POWER:
            return False
        named = changing if self.op == "+" else fnmatchcase(op, self.op)
        return named and (self.key == "*" or fnmatchcase(key, self.key))

    def __str__(self) -> str:
        agent = "" if self.agent == "writer" else f"{self.agent}: "
        key = "" if self.key == "*" else f"[{_spelled(self.key)}]"
        return f"{agent}{self.op}{key}#{self.nth}={self.action}{'!' if self.sticky else ''}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """All that a run needs to go the same way again, beside its case and its storage."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0
    case: str = ""
    scene: str = ""
    extra: str = ""  # what a case needs besides, in a form of its own

    def __str__(self) -> str:
        head = [f"case={_spelled(self.case)}"] if self.case else []
        head += [f"scene={_spelled(self.scene)}"] if self.scene else []
        tail = [f"extra={_spelled(self.extra)}"] if self.extra else []
        return "; ".join([*head, f"seed={self.seed}", *map(str, self.faults), *tail])

    def without(self, index: int) -> Schedule:
        """This schedule with one fault fewer."""
        return replace(self, faults=self.faults[:index] + self.faults[index + 1 :])


def schedule(*faults: Fault, seed: int = 0) -> Schedule:
    """A schedule of these faults."""
    return Schedule(tuple(faults), seed)


def parse(text: str) -> Schedule:
    """The schedule that `text` spells; UsageError naming the entry that can't be read."""
    seed = 0
    named = {"case": "", "scene": "", "extra": ""}
    faults: list[Fault] = []
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        if entry.startswith("seed="):
            try:
                seed = int(entry.removeprefix("seed="))
            except ValueError:
                raise UsageError(f"{entry!r}: a seed is a whole number") from None
            continue
        word, equals, value = entry.partition("=")
        if equals and word in named:
            named[word] = _read(value.strip())
            continue
        found = _ENTRY.fullmatch(entry)
        if found is None or int(found["nth"]) < 1:
            raise UsageError(
                f"{entry!r} is no entry of a schedule; one reads writer: put_new[log/*]#1=lost-reply"
            )
        power = found["op"] == POWER
        if power and _LOSS.fullmatch(found["action"]) is None:
            raise UsageError(
                f"{entry!r} names no loss of power; one reads power#17=lost(3,5-7)+torn(2)"
            )
        if not power and found["action"] not in ACTIONS:
            raise UsageError(
                f"{entry!r}: no action {found['action']!r}; there are {', '.join(ACTIONS)}"
            )
        faults.append(
            Fault(
                found["op"],
                int(found["nth"]),
                found["action"],
                "*" if found["key"] is None else _read(found["key"]),
                found["agent"] or "writer",
                bool(found["sticky"]),
            )
        )
    return Schedule(tuple(faults), seed, named["case"], named["scene"], named["extra"])


def _spelled(text: str) -> str:
    """Any text so that it parts no entry and ends no pattern; `_read` gives it back."""
    ends = (0, len(text) - 1)  # where blanks are lost

    def lost(at: int, char: str) -> bool:
        return char in ";]\\" or not char.isprintable() or (char == " " and at in ends)

    return "".join(_numbered(char) if lost(at, char) else char for at, char in enumerate(text))


def _numbered(char: str) -> str:
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 1 << 8
        else f"\\u{code:04x}"
        if code < 1 << 16
        else f"\\U{code:08x}"
    )


def _read(text: str) -> str:
    """What `_spelled` spelled; a backslash before anything else is one."""
    return _NUMBER.sub(lambda found: chr(int(found[found.lastindex or 1], 16)), text)
