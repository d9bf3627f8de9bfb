"""The cases, one module per level. Each names the rules that it proves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from fstx_conformance.results import Level

if TYPE_CHECKING:
    from fstx_conformance.lab import Lab

PROFILES = ("quick", "standard", "exhaustive")


@dataclass(frozen=True)
class Case:
    """One case.

    Parameters
    ----------
    id
        ``level.name``.
    rules
        Numbers of the specification that it proves.
    run
        Gets a `Lab`.
    fires
        Actions of which each must have happened, else the case is inconclusive.
    sees
        What must have been told at least once: ``committed``, ``aborted``, ``conflict``, ``unknown``.
    seams
        The kinds of seam that it needs; empty: none.
    profiles
        In which it runs.
    """

    id: str
    level: Level
    rules: tuple[str, ...]
    run: Callable[[Lab], None]
    fires: tuple[str, ...] = ()
    sees: tuple[str, ...] = ()
    seams: tuple[str, ...] = ()
    profiles: tuple[str, ...] = PROFILES

    @property
    def title(self) -> str:
        """The first line of its docstring."""
        return (self.run.__doc__ or self.id).strip().splitlines()[0]


_CASES: dict[str, Case] = {}


def case(
    level: Level,
    name: str,
    *rules: str,
    fires: tuple[str, ...] = (),
    sees: tuple[str, ...] = (),
    seams: tuple[str, ...] = (),
    profiles: tuple[str, ...] = PROFILES,
) -> Callable[[Callable[[Lab], None]], Callable[[Lab], None]]:
    """Register a case; see `Case`."""

    def register(run: Callable[[Lab], None]) -> Callable[[Lab], None]:
        made = Case(f"{level.value}.{name}", level, rules, run, fires, sees, seams, profiles)
        if made.id in _CASES:
            raise ValueError(f"two cases are named {made.id}")
        _CASES[made.id] = made
        return run

    return register


def cases() -> tuple[Case, ...]:
    """All cases, level by level."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    order = {level: i for i, level in enumerate(Level)}
    return tuple(sorted(_CASES.values(), key=lambda c: order[c.level]))
