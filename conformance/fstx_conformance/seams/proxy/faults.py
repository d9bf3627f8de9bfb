"""Entries of a schedule as rules of the proxy: ``proxy: PUT[*log*]#1=reset-after``.

The call is a pattern of HTTP methods (``+``: what changes something), the key one of path and query as they
stand in the request. ``late``, ``zombie``: what is late arrives when the run delivers late requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fstx.errors import UsageError
from fstx_conformance.schedule import Fault
from fstx_conformance.seams.proxy.rules import Rule

_DO: dict[str, dict[str, Any]] = {
    "reset-before": {"do": "reset_before"},
    "reset-middle": {"do": "reset_mid_request"},
    "reset-after": {"do": "reset_after"},
    "status-403": {"do": "status", "code": 403},
    "status-409": {"do": "status", "code": 409},
    "status-429": {"do": "status", "code": 429},
    "status-500": {"do": "status", "code": 500},
    "status-503": {"do": "status", "code": 503},
    "status-500-after": {"do": "status_after", "code": 500},
    "status-503-after": {"do": "status_after", "code": 503},
    "stall": {"do": "stall"},
    "stall-after": {"do": "stall", "applied": True},
    "duplicate": {"do": "duplicate", "answer": 1},
    "duplicate-first": {"do": "duplicate", "answer": 0},
    "late": {"do": "late"},
    "zombie": {"do": "zombie"},
    "truncate": {"do": "truncate"},
    "corrupt": {"do": "corrupt"},
    "stale": {"do": "stale"},
    "strip": {"do": "strip"},
    "racy": {"do": "racy"},
    # the names that other seams know
    "fail": {"do": "status", "code": 403},
    "lost-request": {"do": "reset_before"},
    "lost-reply": {"do": "reset_after"},
}

HTTP_ACTIONS = frozenset(_DO)
"""What the proxy can do of what a schedule may say."""


def rule_of(fault: Fault) -> Rule:
    """One entry as a rule; UsageError for an action that no proxy can do."""
    if fault.action not in _DO:
        raise UsageError(
            f"{fault}: a proxy can't {fault.action}; it can {', '.join(sorted(HTTP_ACTIONS))}"
        )
    return Rule(
        **_DO[fault.action],
        method="" if fault.op == "*" else fault.op,
        key=fault.key,
        skip=fault.nth - 1,
        times=None if fault.sticky else 1,
    )


def rules_of(faults: Iterable[Fault], agent: str = "proxy") -> list[Rule]:
    """The rules for the entries that name `agent`, in order."""
    return [rule_of(fault) for fault in faults if fault.agent == agent]


__all__ = ["HTTP_ACTIONS", "rule_of", "rules_of"]
