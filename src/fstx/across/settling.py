"""Settling what transactions across storages left: decided ones are published, the others go."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from fstx.across.publishing import published
from fstx.across.records import (
    ABORT,
    COMMIT,
    About,
    Member,
    about_in,
    depots_in,
    forget_all,
    is_alive,
)
from fstx.errors import RecoveryError
from fstx.resuming.jobs import depots_of
from fstx.types import OutcomeState, Settled


def settle(members: Sequence[Member], idle_s: float) -> list[Settled]:
    """All transactions across storages that left something at one of the members."""
    seen: dict[str, tuple[About, list[tuple[Member, Any]]]] = {}
    for member in members:
        depots_of(member.backend, None).sweep()
        for depot in depots_in(member):
            about = about_in(depot)
            if about is None:  # killed before it had said what it is: nothing was decided
                if is_alive(member, depot, idle_s):
                    continue
                depot.remove()
                continue
            seen.setdefault(about.id, (about, []))[1].append((member, depot))
    return [settle_one(about, found, members, idle_s) for about, found in seen.values()]


def settle_one(
    about: About, found: list[tuple[Member, Any]], members: Sequence[Member], idle_s: float
) -> Settled:
    by_url = {m.url: m for m in members}
    missing = [url for url in about.urls if url not in by_url]
    if missing:
        raise RecoveryError(
            f"transaction {about.id} is also about {', '.join(missing)}: name all of its targets, "
            f"fstx.recover_across({list(about.urls)})",
            txid=about.id,
            outcome="pending",
        )
    place = ", ".join(about.urls)
    home = by_url[about.urls[-1]]
    depot = depots_of(home.backend, None).open(about.home)
    decided = depot.decided()
    with contextlib.suppress(FileNotFoundError):
        if decided is None:
            if is_alive(home, depot, idle_s):
                return Settled(about.id, place, OutcomeState.ACTIVE, "its coordinator may be alive")
            decided = depot.decide(ABORT)
    if decided == COMMIT or _went(home, about.id):
        for url in about.urls:
            published(by_url[url], about)
        forget_all([by_url[url] for url in about.urls], about.id)
        return Settled(about.id, place, OutcomeState.COMMITTED, "all targets are published")
    for _, left in sorted(found, key=lambda pair: pair[1].name == about.home):
        left.remove()
    return Settled(about.id, place, OutcomeState.ABORTED, "what was staged is removed")


def _went(home: Member, id: str) -> bool:
    """Whether the home is published already: then the others are, too, but for what they kept."""
    return home.backend.outcome(id) is OutcomeState.COMMITTED
