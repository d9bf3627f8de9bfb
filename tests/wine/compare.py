"""What wine must answer to a scenario, and both columns as a text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeAlias

from wine.deviations import WINE, Deviation

Answer: TypeAlias = tuple[str | int, dict[str, str | None]]


def deviation(name: str) -> Deviation | None:
    """What is known to differ for whom runs this."""
    known = WINE.get(name)
    return None if known is None or (known.root and os.geteuid() != 0) else known


def expected(name: str, simulated: Answer) -> Answer:
    """The simulation's answer with what is known to differ."""
    known = deviation(name)
    return simulated if known is None else (known.code, {**simulated[1], **known.after})


def table(real: Mapping[str, Answer], simulated: Mapping[str, Answer]) -> str:
    """A line for each scenario; what differs is marked, with the reason below."""
    wide = max(map(len, real))
    lines = [f"{'scenario':<{wide}}  simulated  wine"]
    for name, (code, after) in real.items():
        same = (code, after) == simulated[name]
        lines.append(
            f"{name:<{wide}}  {simulated[name][0]!s:<9}  {code!s:<7}{'' if same else ' *'}"
        )
        known = deviation(name)
        if not same:
            lines.append(f"    {known.reason if known else 'not known to differ'}")
    differ = sum(real[name] != simulated[name] for name in real)
    lines.append(f"{len(real)} scenarios, {differ} of them otherwise under wine")
    return "\n".join(lines)
