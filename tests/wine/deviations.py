"""Where wine 8 answers otherwise than Windows: by scenario, with the reason.

The simulation answers as Windows is documented to. ``nox -s wine`` plays each scenario on both; what
stands here must differ, and nothing else may.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Deviation:
    """What wine answers, and what it leaves at the names where that is not what Windows leaves."""

    code: str | int
    reason: str
    after: Mapping[str, str | None] = field(default_factory=dict)
    root: bool = False  # under wine only where root runs it


_OPEN_BELOW = (
    "wine moves a directory by the file system's rename and looks at handles on the directory only, "
    "not at those below it"
)

WINE: Mapping[str, Deviation] = {
    "rename tree, held inside": Deviation("ok", _OPEN_BELOW, {"e/x": None}),
    "rename tree, shared inside": Deviation("ok", _OPEN_BELOW, {"n": "dir"}),
    "replace over read-only": Deviation(
        "ok",
        "wine replaces by the file system's rename, which asks the directory for leave, not the file",
        {"a": None, "ro": "a"},
    ),
    "open read-only to write": Deviation(
        "ok",
        "the attribute is a mode without write bits, which root is not bound by",
        root=True,
    ),
}
