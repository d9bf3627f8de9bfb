"""Rules of the fault proxy: which requests get which fault.

Each rule counts the requests that it matches, whatever other rules do to them; the first rule whose turn it
is decides. Actions, where APPLIED means that the server has done what was asked:

=================== =======================================================================================
reset_before        connection reset; the server saw nothing
reset_mid_request   half of the body goes to the server, then both connections are cut
reset_after         APPLIED, then a reset instead of the answer
truncate            APPLIED; all headers, half of the answer's body, then end of file
status              answer `code` without asking the server
status_after        APPLIED, then answer `code`
delay, delay_after  wait `wait_s` before asking the server, or after APPLIED
stall               no answer for `wait_s` or until the client goes; with `applied` the server is asked first
duplicate           APPLIED twice; the client gets answer number `answer` (0 or 1)
late                reset; APPLIED when late requests are delivered, or after `wait_s`
zombie              APPLIED, then as ``late``: a repetition
hold                wait until the gate `name` is opened (or `wait_s`), then ask the server
strip               drop the headers in `names`: a server that ignores conditions
racy                check the condition by a HEAD, wait `wait_s`, ask without it: check-then-act
stale               the previous 200 answer to the same method and path
corrupt             one bit of the answer's body flipped
=================== =======================================================================================
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from fstx_conformance.seams.proxy.wire import Request

ACTIONS = frozenset(
    {
        *("reset_before", "reset_mid_request", "reset_after", "truncate", "status", "status_after"),
        *("delay", "delay_after", "stall", "duplicate", "late", "zombie", "hold"),
        *("strip", "racy", "stale", "corrupt"),
    }
)
CHANGING = "+"
_READING = ("GET", "HEAD", "OPTIONS")


@dataclass
class Rule:
    """Which requests get which fault. Empty `method`, `path`, `header` match all."""

    do: str
    method: str = ""  # patterns with commas between; "+": all but GET, HEAD and OPTIONS
    path: str = ""  # regular expression, searched in path and query
    key: str = "*"  # pattern of the whole of path and query
    header: str = ""  # the request has this header
    skip: int = 0  # so many matching requests pass first
    times: int | None = None  # uses
    chance: float = 1.0  # of each matching request, by a generator seeded with `seed`
    seed: int = 0
    code: int | None = None  # default: 503, of `status_after` 500
    wait_s: float | None = None  # each action has its own default
    applied: bool = False
    answer: int = 0
    name: str = "gate"
    names: tuple[str, ...] = ("if-match", "if-none-match")
    _seen: int = field(default=0, init=False, repr=False)
    _used: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.do not in ACTIONS:
            raise ValueError(f"no action {self.do!r}; there are {', '.join(sorted(ACTIONS))}")
        self.names = tuple(self.names)
        self._random = random.Random(self.seed)

    def matches(self, request: Request) -> bool:
        """Whether this rule counts the request."""
        if self.header and self.header.lower() not in request.headers:
            return False
        return (
            self._takes(request.method)
            and fnmatchcase(request.path, self.key)
            and re.search(self.path, request.path) is not None
        )

    def _takes(self, method: str) -> bool:
        if not self.method:
            return True
        if self.method == CHANGING:
            return method not in _READING
        return any(fnmatchcase(method, pattern) for pattern in self.method.split(","))

    def due(self, request: Request) -> bool:
        """Whether it is this rule's turn; counts the request if it matches."""
        if not self.matches(request):
            return False
        self._seen += 1
        spent = self.times is not None and self._used >= self.times
        return self._seen > self.skip and not spent and self._random.random() < self.chance

    def use(self) -> None:
        """This rule decides about a request."""
        self._used += 1

    def seconds(self, default: float) -> float:
        """How long to wait."""
        return default if self.wait_s is None else self.wait_s


def choose(rules: list[Rule], request: Request) -> Rule | None:
    """The rule that decides; all of them have counted the request then."""
    due = [rule for rule in rules if rule.due(request)]
    if not due:
        return None
    due[0].use()
    return due[0]


__all__ = ["ACTIONS", "CHANGING", "Rule", "choose"]
