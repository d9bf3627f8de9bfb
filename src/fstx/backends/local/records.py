"""Records in an area: one physical line, checksum first (rules REC-1 to REC-4).

A record may have been written by anyone who can write to the directory, so it is checked as input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fstx.errors import PathError, RecoveryError
from fstx.machines.vocabulary import Item, Kind
from fstx.paths import check_path
from fstx.state.sealing import FORMAT, seal, unseal

LIMIT_BYTES = 64 << 20
_HOWS = ("create", "place", "exchange")

Identity = tuple[int, int, int, int]  # dev, ino, size_bytes, mtime_ns; a directory has 0, 0 behind


@dataclass(frozen=True, slots=True)
class Entry:
    """One item with its places: target ``parent/name[/rest]``, staged ``s/<root>[/rest]``."""

    kind: Kind
    parent: str
    name: str
    rest: str
    root: int
    tree: bool
    occupied: bool
    new: Identity | None
    base: Identity | None

    @property
    def item(self) -> Item:
        return Item(self.kind, occupied=self.occupied, tree=self.tree)

    @property
    def logical(self) -> str:
        return f"{self.name}/{self.rest}" if self.rest else self.name


@dataclass(frozen=True, slots=True)
class Root:
    """A target that is entered rather than moved: recovery goes on only if it is still the same one."""

    parent: str
    name: str
    base: Identity


@dataclass(frozen=True, slots=True)
class RecordBody:
    """Everything that recovery must know."""

    txid: str
    strategy: str
    how: str
    strict: bool
    keyed: bool
    durability: str
    entries: tuple[Entry, ...]
    roots: tuple[Root, ...] = ()


def encode(body: RecordBody) -> bytes:
    """The line of a record."""
    value = {
        "format": FORMAT,
        "txid": body.txid,
        "strategy": body.strategy,
        "how": body.how,
        "strict": body.strict,
        "keyed": body.keyed,
        "durability": body.durability,
        "roots": [{"parent": r.parent, "name": r.name, "base": r.base} for r in body.roots],
        "items": [
            {
                "kind": e.kind.value,
                "parent": e.parent,
                "name": e.name,
                "rest": e.rest,
                "root": e.root,
                "tree": e.tree,
                "occupied": e.occupied,
                "new": e.new,
                "base": e.base,
            }
            for e in body.entries
        ],
    }
    return seal(value)


def decode(line: bytes, where: str) -> RecordBody:
    """The checked body; RecoveryError naming `where` and the member that is wrong."""
    value = unseal(line, where)
    get = _Getter(value, where)
    items = get.of("items", list)
    strategy = get.one_of("strategy", ("rename", "swap", "redo"))
    if strategy == "rename" and len(items) != 1:
        raise RecoveryError(f"{where}: strategy 'rename' has {len(items)} items, not one")
    entries = tuple(_entry(i, f"{where} item {n}") for n, i in enumerate(items))
    roots = tuple(_root(r, f"{where} root {n}") for n, r in enumerate(get.of("roots", list)))
    if not {(r.parent, r.name) for r in roots} <= {(e.parent, e.name) for e in entries}:
        raise RecoveryError(f"{where} has a root that no item lies in")
    return RecordBody(
        txid=get.of("txid", str),
        strategy=strategy,
        how=get.one_of("how", _HOWS if strategy == "rename" else ("",)),
        strict=get.of("strict", bool),
        keyed=get.of("keyed", bool),
        durability=get.one_of("durability", ("none", "data")),
        entries=entries,
        roots=roots,
    )


def _root(value: Any, where: str) -> Root:
    if not isinstance(value, dict):
        raise RecoveryError(f"{where} is not an object")
    get = _Getter(value, where)
    base = get.identity("base")
    if base is None:
        raise RecoveryError(f"{where} has no identity")
    return Root(get.of("parent", str), get.of("name", str), base)


def _entry(value: Any, where: str) -> Entry:
    if not isinstance(value, dict):
        raise RecoveryError(f"{where} is not an object")
    get = _Getter(value, where)
    entry = Entry(
        kind=Kind(get.one_of("kind", ("publish", "remove"))),
        parent=get.of("parent", str),
        name=get.of("name", str),
        rest=get.of("rest", str),
        root=get.of("root", int),
        tree=get.of("tree", bool),
        occupied=get.of("occupied", bool),
        new=get.identity("new"),
        base=get.identity("base"),
    )
    if not 0 <= entry.root < 1 << 20:
        raise RecoveryError(f"{where} has root {entry.root}")
    try:
        check_path(entry.logical)
    except PathError as error:
        raise RecoveryError(f"{where} would leave its target: {error}") from error
    if "/" in entry.name:
        raise RecoveryError(f"{where} has a name with '/': {entry.name!r}")
    return entry


class _Getter:
    def __init__(self, value: dict[str, Any], where: str) -> None:
        self._value = value
        self._where = where

    def of(self, name: str, kind: type) -> Any:
        if name not in self._value:
            raise RecoveryError(f"{self._where} lacks the member {name!r}")
        found = self._value[name]
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            raise RecoveryError(f"{self._where}: member {name!r} is no {kind.__name__}")
        return found

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        found: str = self.of(name, str)
        if found not in allowed:
            raise RecoveryError(
                f"{self._where}: member {name!r} is {found!r}, not one of {allowed}"
            )
        return found

    def identity(self, name: str) -> Identity | None:
        if self._value.get(name, 0) is None:
            return None
        found = self.of(name, list)
        if len(found) != 4 or not all(type(n) is int for n in found):
            raise RecoveryError(f"{self._where}: member {name!r} is no identity")
        return (found[0], found[1], found[2], found[3])


__all__ = [
    "LIMIT_BYTES",
    "Entry",
    "Identity",
    "RecordBody",
    "Root",
    "decode",
    "encode",
    "seal",
    "unseal",
]
