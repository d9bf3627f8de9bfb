"""What a home remembers in its newest record: claims, decided transactions, dead ones, finished ones.

Carried from record to record in `State.extra`, and checked as what a stranger may have written.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from fstx.backends.plain.names import is_txid, overlap
from fstx.backends.plain.ops import Op, decode, encode
from fstx.backends.plain.owner import Owner
from fstx.errors import PathError, RecoveryError
from fstx.paths import check_path
from fstx.state.view import State

KEY = "plain"
REMEMBERED = 32
"""Finished transactions that are remembered: more than commits that can pass while an answer is late."""

_MOST = 10_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claim:
    """Names that one open transaction holds."""

    names: tuple[str, ...]
    owner: Owner
    when_s: int
    mode: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where the steps of a large commit lie."""

    key: str
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A committed transaction whose publication is not finished."""

    names: tuple[str, ...]
    when_s: int
    entry: str = ""
    mark: str = ""
    ops: tuple[Op, ...] | None = None
    pointer: Pointer | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """A transaction that was given up: what it put at plain names has to go."""

    names: tuple[str, ...]
    when_s: int


@dataclass(frozen=True)
class Ledger:
    """All that is open in one home. Immutable."""

    claims: Mapping[str, Claim] = field(default_factory=dict)
    decided: Mapping[str, Decided] = field(default_factory=dict)
    dead: Mapping[str, Dead] = field(default_factory=dict)
    finished: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether any transaction is under way."""
        return bool(self.claims or self.decided)

    def claimed(self, names: tuple[str, ...]) -> dict[str, Claim]:
        """Claims on one of `names`."""
        return {t: c for t, c in self.claims.items() if overlap(c.names, names)}

    def unfinished(self, names: tuple[str, ...]) -> dict[str, Decided]:
        """Decided transactions on one of `names`."""
        return {t: d for t, d in self.decided.items() if overlap(d.names, names)}

    def given_up(self, names: tuple[str, ...]) -> dict[str, Dead]:
        """Dead transactions on one of `names`."""
        return {t: d for t, d in self.dead.items() if overlap(d.names, names)}

    # --- changes ---------------------------------------------------------------------------------

    def claim(self, txid: str, claim: Claim) -> Ledger:
        return replace(self, claims={**self.claims, txid: claim})

    def decide(self, txid: str, decided: Decided) -> Ledger:
        return replace(
            self, claims=_without(self.claims, txid), decided={**self.decided, txid: decided}
        )

    def finish(self, txid: str) -> Ledger:
        kept = (*self.finished, txid)[-REMEMBERED:]
        return replace(self, decided=_without(self.decided, txid), finished=kept)

    def release(self, txid: str) -> Ledger:
        """The claim goes, and nothing of the transaction is left anywhere."""
        return replace(self, claims=_without(self.claims, txid))

    def give_up(self, txids: Collection[str], when_s: int) -> Ledger:
        """From here on none of these can commit."""
        dead = {t: Dead(self.claims[t].names, when_s) for t in txids if t in self.claims}
        left = {t: c for t, c in self.claims.items() if t not in dead}
        return replace(self, claims=left, dead={**self.dead, **dead})

    def swept(self, txids: Collection[str]) -> Ledger:
        """Nothing of these dead transactions is left."""
        return replace(self, dead={t: d for t, d in self.dead.items() if t not in txids})

    # --- in a record -----------------------------------------------------------------------------

    def into(self, state: State) -> State:
        """`state` with this ledger in it."""
        found: dict[str, Any] = {
            "claims": {t: _claim_out(c) for t, c in self.claims.items()},
            "open": {t: _decided_out(d) for t, d in self.decided.items()},
            "dead": {t: [list(d.names), d.when_s] for t, d in self.dead.items()},
            "done": list(self.finished),
        }
        return replace(state, extra={**state.extra, KEY: found})

    @staticmethod
    def of(state: State, where: str) -> Ledger:
        """The ledger in a state.

        Raises
        ------
        RecoveryError
            It is not one that this library writes; the message names the place.
        """
        found = state.extra.get(KEY, {})
        read = _Reader(where)
        body = read.mapping(found)
        return Ledger(
            claims=read.each(body.get("claims", {}), read.claim),
            decided=read.each(body.get("open", {}), read.decided),
            dead=read.each(body.get("dead", {}), read.dead),
            finished=tuple(read.txid(t) for t in read.items(body.get("done", []))),
        )


def _without(mapping: Mapping[str, T], key: str) -> dict[str, T]:
    return {k: v for k, v in mapping.items() if k != key}


def _claim_out(claim: Claim) -> dict[str, Any]:
    owner = claim.owner
    return {
        "names": list(claim.names),
        "owner": [owner.host, owner.boot, owner.pid, owner.started],
        "when": claim.when_s,
        "mode": claim.mode,
        "mark": claim.mark,
    }


def _decided_out(decided: Decided) -> dict[str, Any]:
    found: dict[str, Any] = {
        "names": list(decided.names),
        "when": decided.when_s,
        "entry": decided.entry,
        "mark": decided.mark,
    }
    if decided.pointer is not None:
        found["at"] = [decided.pointer.key, decided.pointer.size_bytes, decided.pointer.digest]
    else:
        found["ops"] = encode(decided.ops or ())
    return found


class _Reader:
    """Takes a ledger apart and refuses what can't be one."""

    def __init__(self, where: str) -> None:
        self.where = where

    def wrong(self, what: str) -> RecoveryError:
        return RecoveryError(
            f"{self.where} is damaged or was not written by fstx: {what}. Nothing was changed"
        )

    def mapping(self, found: object) -> dict[str, Any]:
        if not isinstance(found, dict) or len(found) > _MOST:
            raise self.wrong("a table is none")
        return found

    def items(self, found: object) -> list[Any]:
        if not isinstance(found, list) or len(found) > _MOST:
            raise self.wrong("a list is none")
        return found

    def text(self, found: object) -> str:
        if not isinstance(found, str) or len(found) > 4096:
            raise self.wrong("a text is none, or too long")
        return found

    def number(self, found: object) -> int:
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 62:
            raise self.wrong("a number is none")
        return found

    def txid(self, found: object) -> str:
        if not is_txid(found):
            raise self.wrong(f"{str(found)[:80]!r} names no transaction")
        return str(found)

    def each(self, found: object, make: Callable[[str, Any], T]) -> dict[str, T]:
        return {self.txid(t): make(t, value) for t, value in self.mapping(found).items()}

    def names(self, found: object) -> tuple[str, ...]:
        names = tuple(self.text(n) for n in self.items(found))
        for name in names:
            try:
                check_path(name)
            except PathError as error:
                raise self.wrong(str(error)) from error
            if "/" in name:
                raise self.wrong(f"the target {name!r} is no single name")
        return names

    def claim(self, txid: str, found: Any) -> Claim:
        body = self.mapping(found)
        owner = self.items(body.get("owner"))
        if len(owner) != 4:
            raise self.wrong("a claim has no owner")
        host, boot, pid, started = owner
        return Claim(
            self.names(body.get("names")),
            Owner(self.text(host), self.text(boot), self.number(pid), self.text(started)),
            self.number(body.get("when")),
            self.text(body.get("mode")),
            self.text(body.get("mark")),
        )

    def decided(self, txid: str, found: Any) -> Decided:
        body = self.mapping(found)
        names = self.names(body.get("names"))
        ops: tuple[Op, ...] | None = None
        pointer = None
        if "at" in body:
            at = self.items(body["at"])
            if len(at) != 3 or not self.text(at[0]).startswith(f"data/{txid}/=ops-"):
                raise self.wrong("the steps of a commit lie nowhere")
            pointer = Pointer(at[0], self.number(at[1]), self.text(at[2]))
        else:
            ops = decode(body.get("ops"), txid, names, self.where)
        return Decided(
            names,
            self.number(body.get("when")),
            self.text(body.get("entry")),
            self.text(body.get("mark")),
            ops,
            pointer,
        )

    def dead(self, txid: str, found: Any) -> Dead:
        pair = self.items(found)
        if len(pair) != 2:
            raise self.wrong("a dead transaction has no names")
        return Dead(self.names(pair[0]), self.number(pair[1]))


__all__ = ["REMEMBERED", "Claim", "Dead", "Decided", "Ledger", "Pointer"]
