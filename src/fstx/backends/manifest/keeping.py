"""Which versions stay: from what a caller asks to what a record says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from fstx.backends.manifest.survey import KEPT, Row, Survey, alive, kept_of
from fstx.errors import UsageError
from fstx.state.view import State

Keep: TypeAlias = "int | timedelta | Iterable[int] | None"
"""So many newest versions; those of so long; these ones; None: all."""


@dataclass(frozen=True)
class Kept:
    """Versions from `oldest` on, and some before it."""

    oldest: int
    also: frozenset[int]

    def over(self, state: State) -> State:
        """`state` with no more kept than here; what is retired there stays so."""
        oldest = max(self.oldest, state.oldest)
        also = sorted(
            v
            for v in self.also | kept_of(state)
            if v < oldest and alive(state, v) and (v >= self.oldest or v in self.also)
        )
        extra = {k: v for k, v in state.extra.items() if k != KEPT}
        if also:
            extra[KEPT] = also
        return replace(state, oldest=oldest, extra=extra)


def choose(survey: Survey, keep: Keep, now_s: float) -> Kept:
    """What `keep` leaves of the versions that are there. The newest one always stays.

    Raises
    ------
    UsageError
        It keeps nothing, or a version that is not there.
    """
    state = survey.head.state
    rows = survey.versions(state)
    wanted = _wanted(rows, survey, keep, now_s)
    if not rows or wanted >= {row.seq for row in rows}:
        return Kept(state.oldest, kept_of(state))
    oldest = rows[-1].seq
    for row in reversed(rows):
        if row.seq not in wanted:
            break
        oldest = row.seq
    oldest = max(oldest, state.oldest)  # before that there are gaps
    return Kept(oldest, frozenset(v for v in wanted if v < oldest))


def _wanted(rows: list[Row], survey: Survey, keep: Keep, now_s: float) -> set[int]:
    seqs = [row.seq for row in rows]
    if keep is None or not seqs:
        return set(seqs)
    if isinstance(keep, bool):
        raise UsageError(f"keep={keep!r}; it is a number, a timedelta or a list of versions")
    if isinstance(keep, int):
        if keep < 1:
            raise UsageError(f"keep={keep}; at least the newest version stays")
        return set(seqs[-keep:])
    if isinstance(keep, timedelta):
        if keep < timedelta(0):
            raise UsageError(f"keep={keep}; a time that is not negative")
        cut = now_s - keep.total_seconds()
        before = [row.seq for row in rows if _when(row) < cut]
        return {row.seq for row in rows if _when(row) >= cut} | set(before[-1:]) | {seqs[-1]}
    wanted = {seqs[-1]}
    for version in _numbers(keep):
        below = [seq for seq in seqs if seq <= version]
        if version > survey.head.seq or not alive(survey.head.state, version) or not below:
            raise UsageError(f"keep={version}: there is no such version")
        wanted.add(below[-1])
    return wanted


def _numbers(keep: Iterable[int]) -> list[int]:
    try:
        found = list(keep)
    except TypeError as error:
        raise UsageError(
            f"keep={keep!r}; it is a number, a timedelta or a list of versions"
        ) from error
    for version in found:
        if not isinstance(version, int) or isinstance(version, bool):
            raise UsageError(f"keep={version!r}: versions are numbers")
    return found


def _when(row: Row) -> float:
    return row.modified_s if row.modified_s is not None else row.when_s


__all__ = ["Keep", "Kept", "choose"]
