"""What a transaction across storages keeps at each target, and how that is found again."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fstx import registry
from fstx.errors import PathError, ResumeError
from fstx.paths import check_path
from fstx.protocol import Transaction
from fstx.resuming import ResumableTransaction
from fstx.resuming.jobs import depots_of
from fstx.resuming.units import decode_units, record_of
from fstx.types import Capability, Durability, Mode, OutcomeState

PREFIX = "across-"
COMMIT, ABORT = b"commit\n", b"abort\n"
ABOUT = "=across"


@dataclass(frozen=True)
class About:
    """What each target's depot says of the whole."""

    id: str
    urls: tuple[str, ...]  # the home is the last one
    home: str  # name of its depot
    mode: Mode
    durability: Durability
    entry: str | None
    begun_s: int


@dataclass
class Member:
    """One target: its name, its backend, and its job while this process has it open."""

    url: str
    name: str
    backend: Any
    job: ResumableTransaction | None = None


def members_of(
    urls: Sequence[registry.URL], storage_options: Mapping[str, Mapping[str, Any]] | None
) -> list[Member]:
    if isinstance(urls, str) or len(urls) < 2:
        raise PathError(
            "a transaction across storages has two targets or more; else use fstx.begin"
        )
    made: list[Member] = []
    options = storage_options or {}
    texts = [registry.as_url(u).rstrip("/") for u in urls]
    unknown = set(options) - {registry.scheme_of(t) for t in texts}
    if unknown:
        raise PathError(
            f"storage_options for {', '.join(sorted(unknown))}: no target has that scheme"
        )
    for text in texts:
        name = check_path(text.replace("\\", "/").rpartition("/")[2])
        if name in {m.name for m in made}:
            raise PathError(
                f"two targets have the last name {name!r}; paths could not tell them apart"
            )
        own = options.get(registry.scheme_of(text), {})
        made.append(Member(text, name, registry.backend([text], joined=True, **own)))
    return made


def starter(
    member: Member, mode: Mode, durability: Durability, entry: str | None
) -> Callable[[str], Transaction]:
    def begin(id: str) -> Transaction:
        started: Transaction = member.backend.begin(
            mode=mode,
            durability=durability,
            require=frozenset({Capability.RECOVERABLE}),
            entry=own_entry(entry, member),
            id=id,
        )
        return started

    return begin


def id_of(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def own_entry(entry: str | None, member: Member) -> str | None:
    return entry if entry is not None and entry.partition("/")[0] == member.name else None


def depots_in(member: Member, id: str | None = None) -> list[Any]:
    found = []
    depots = depots_of(member.backend, None)
    for name in depots.names():
        depot = depots.open(name)
        try:
            record = record_of(depot)
        except (FileNotFoundError, ResumeError):
            continue
        wanted = record.id.startswith(PREFIX) if id is None else record.id == id
        if wanted and record.targets == tuple(depots.targets):
            found.append(depot)
    return found


def about_in(depot: Any) -> About | None:
    for unit in decode_units(depot.lines(), ""):
        if unit.id == ABOUT:
            info = unit.info
            try:
                return About(**{**info, "urls": tuple(info["urls"])})
            except (TypeError, KeyError):
                return None
    return None


def is_alive(member: Member, depot: Any, idle_s: float) -> bool:
    record = record_of(depot)
    state = member.backend.outcome(record.id)
    if state is OutcomeState.ACTIVE:
        return True
    tells = getattr(member.backend, "tells_who_lives", True)
    return not tells and time.time() - record.begun_s < idle_s


def forget_all(members: Sequence[Member], id: str) -> None:
    """Nobody chose the id, and nobody can need it any more."""
    for member in members:
        forget = getattr(member.backend, "forget", None)
        if forget is not None:
            with contextlib.suppress(OSError):
                forget(id)
