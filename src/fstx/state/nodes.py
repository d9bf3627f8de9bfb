"""Nodes of the tree as bytes: zlib over one JSON object of columns (rules NODE-1 to NODE-7).

A leaf holds entries; an inner node holds what lies below it: for each child its first path, its place
in a pack, its digest and how many paths it has.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from fstx.errors import RecoveryError
from fstx.state.columns import (
    Columns,
    Packed,
    check_key,
    ints,
    need,
    pack,
    pack_paths,
    unpack_paths,
)
from fstx.state.entries import Entry
from fstx.state.sealing import FORMAT, digest, load

LIMIT_BYTES = 16 << 20
"""Encoded bytes of one node, at most."""

INFLATED_BYTES = 128 << 20
"""JSON of one node or packed delta, at most."""

MOST_LEVELS = 8

_LEVEL = 2  # of zlib: beyond it costs more than it saves on names and random digits
_HEX = frozenset("0123456789abcdef")
_DIGEST = 32


class NodeRef(NamedTuple):
    """Where a node lies: bytes `offset` to ``offset + length`` of the object `key`."""

    key: str
    offset: int
    length: int
    digest: str


class Child(NamedTuple):
    """A node as its parent knows it: all its paths are `first` or later."""

    first: str
    ref: NodeRef
    paths: int


@dataclass(frozen=True)
class Leaf:
    """Entries in order of their paths."""

    packed: Packed
    level: int = 0

    @property
    def count(self) -> int:
        return len(self.packed.paths)

    @property
    def first(self) -> str:
        return self.packed.paths[0]

    @property
    def last(self) -> str:
        return self.packed.paths[-1]


@dataclass(frozen=True)
class Inner:
    """Children in order of their paths; as columns, because a reader wants one of thousands."""

    level: int
    firsts: list[str]
    counts: list[int]
    packs: list[str]
    which: list[int]
    offsets: list[int]
    lengths: list[int]
    digests: str

    @cached_property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def first(self) -> str:
        return self.firsts[0]

    @property
    def last(self) -> str:
        return self.firsts[-1]

    def child(self, index: int) -> Child:
        """One child."""
        found = self.digests[index * _DIGEST : (index + 1) * _DIGEST]
        ref = NodeRef(
            self.packs[self.which[index]], self.offsets[index], self.lengths[index], found
        )
        return Child(self.firsts[index], ref, self.counts[index])

    @cached_property
    def children(self) -> list[Child]:
        """All children."""
        return [self.child(i) for i in range(len(self.firsts))]


Node: TypeAlias = Leaf | Inner


def spell(columns: dict[str, Any]) -> bytes:
    """JSON with sorted keys."""
    return json.dumps(columns, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def deflate(text: bytes) -> bytes:
    """Compressed."""
    return zlib.compress(text, _LEVEL)


def inflate(data: bytes, where: str, most_bytes: int = INFLATED_BYTES) -> dict[str, Any]:
    """What `spell` and `deflate` made bytes of; RecoveryError for damaged, too much, or of a newer format."""
    machine = zlib.decompressobj()
    try:
        text = machine.decompress(data, most_bytes)
    except zlib.error as error:
        raise RecoveryError(f"{where} is damaged: {error}") from error
    if machine.unconsumed_tail:
        raise RecoveryError(f"{where} holds more than {most_bytes} bytes, which nobody writes")
    if not machine.eof or machine.unused_data:
        raise RecoveryError(f"{where} is damaged: its end does not fit")
    return load(text, where)


def encode_leaf(paths: Sequence[str], entries: Sequence[Entry]) -> bytes:
    """Bytes of a leaf; `paths` sorted, not empty."""
    return deflate(spell({"format": FORMAT, "level": 0, **pack(paths, entries)}))


def encode_inner(level: int, children: Sequence[Child]) -> bytes:
    """Bytes of an inner node; children sorted, not empty."""
    packs: dict[str, int] = {}
    which, gaps = [], []
    ends: dict[int, int] = {}
    for child in children:
        index = packs.setdefault(child.ref.key, len(packs))
        which.append(index)
        gaps.append(child.ref.offset - ends.get(index, 0))
        ends[index] = child.ref.offset + child.ref.length
    columns = {
        "format": FORMAT,
        "level": level,
        **pack_paths([child.first for child in children]),
        "at": list(packs),
        "in": which,
        "gap": gaps,
        "length": [child.ref.length for child in children],
        "count": [child.paths for child in children],
        "digest": "".join([child.ref.digest for child in children]),
    }
    return deflate(spell(columns))


def decode(data: bytes, ref: NodeRef) -> Node:
    """The checked node.

    Raises
    ------
    RecoveryError
        Its bytes are not those that `ref` names, or no node of a format that is known.
    """
    where = name_of(ref)
    if len(data) != ref.length or digest(data) != ref.digest:
        raise RecoveryError(
            f"{where} is damaged: its bytes are not those that the log names. Read an older version, or "
            "restore the object"
        )
    columns = inflate(data, where)
    level = columns.get("level")
    if type(level) is not int or not 0 <= level < MOST_LEVELS:
        raise RecoveryError(f"{where}: member 'level' is {str(level)[:50]}")
    if level:
        return _decode_inner(columns, level, where)
    leaf = Leaf(Packed(columns, where))
    if not leaf.count:
        raise RecoveryError(f"{where} is a leaf without paths")
    return leaf


def _decode_inner(columns: Columns, level: int, where: str) -> Inner:
    firsts = unpack_paths(columns, where)
    n = len(firsts)
    packs = need(columns, "at", list, where)
    for key in packs:
        if not check_key(key, where).startswith("node/") or key.endswith("/"):
            raise RecoveryError(f"{where} names {key!r}, which is no pack of nodes")
    which, lengths, counts = (ints(columns, name, where) for name in ("in", "length", "count"))
    gaps = need(columns, "gap", list, where)
    digests = need(columns, "digest", str, where)
    sizes = {len(which), len(lengths), len(counts), len(gaps), len(digests) // _DIGEST}
    if not n or sizes != {n} or len(digests) != n * _DIGEST or not set(digests) <= _HEX:
        raise RecoveryError(f"{where}: its columns don't fit together")
    if set(map(type, gaps)) != {int} or max(which) >= len(packs) or not all(counts):
        raise RecoveryError(f"{where}: its columns don't fit together")
    ends: dict[int, int] = {}
    offsets = []
    for index, gap, length in zip(which, gaps, lengths, strict=True):
        offset = ends.get(index, 0) + gap
        offsets.append(offset)
        ends[index] = offset + length
    for extreme in (min(offsets), max(offsets)):
        for length in (min(lengths), max(lengths)):
            check_ref(NodeRef(packs[0], extreme, length, ""), where)
    return Inner(level, firsts, counts, packs, which, offsets, lengths, digests)


def check_ref(ref: NodeRef, where: str) -> NodeRef:
    """`ref` if it may name a node: of a size that is worth reading, at a place that an object can have."""
    if not (0 < ref.length <= LIMIT_BYTES and 0 <= ref.offset < 1 << 40):
        raise RecoveryError(
            f"{where} names a node of {ref.length} bytes at {ref.offset} of {ref.key}, which nobody writes"
        )
    return ref


def decode_ref(value: Any, where: str) -> NodeRef | None:
    """The reference to a root in a record; None for an empty tree."""
    if value is None:
        return None
    if type(value) is not list or list(map(type, value)) != [str, int, int, str]:
        raise RecoveryError(f"{where}: member 'root' is no reference to a node")
    ref = NodeRef(*value)
    if not check_key(ref.key, where).startswith("node/") or ref.key.endswith("/"):
        raise RecoveryError(f"{where}: its root is {ref.key!r}, which is no pack of nodes")
    if len(ref.digest) != _DIGEST or not set(ref.digest) <= _HEX:
        raise RecoveryError(f"{where}: its root has no digest")
    return check_ref(ref, where)


def name_of(ref: NodeRef) -> str:
    """For messages."""
    return f"{ref.key} (bytes {ref.offset} to {ref.offset + ref.length})"
