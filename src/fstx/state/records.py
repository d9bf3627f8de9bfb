"""Records of a dataset's log: the state under one change, and the change (rules RECORD-1 to RECORD-7)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fstx.errors import PathError, RecoveryError
from fstx.paths import check_path
from fstx.state.columns import MOST, Packed, need, pack
from fstx.state.entries import Delta
from fstx.state.nodes import decode_ref, deflate, inflate, spell
from fstx.state.sealing import FORMAT, digest, seal, unseal
from fstx.state.view import State

KINDS = ("commit", "fence", "retire", "claim", "done", "restore")

LIMIT_BYTES = 16 << 20
"""Bytes of one record, at most."""

_PLAIN_BYTES = 1 << 10  # changes of more JSON than that are compressed
_INFLATED_BYTES = 64 << 20
_MOST_S = 1e12
_MOST_SEQ = 10**20
_ADVICE = "Nothing was changed. Read an older version, or restore the object"


@dataclass(frozen=True)
class Record:
    """One record.

    Parameters
    ----------
    seq
        Its number.
    kind
        ``commit``, ``fence``, ``retire``, ``claim``, ``done`` or ``restore``.
    txid
        The transaction.
    nonce
        Names the append that wrote it.
    begun
        The newest record when the transaction began.
    prev
        `digest` of the record before; "" for the first.
    state
        Under the record's own change, with what else the record changes (fenced, floor, oldest, extra) done.
    own
        The change.
    own_in_tree
        The tree of `state` holds the change already; `own` is empty.
    paths, size_bytes
        Of the change.
    when_s, writer, message, info
        For people; decides nothing.
    """

    seq: int
    kind: str
    txid: str
    nonce: str
    begun: int
    prev: str
    state: State
    own: Delta = field(default_factory=Delta)
    own_in_tree: bool = False
    paths: int = 0
    size_bytes: int = 0
    when_s: float = 0.0
    writer: str = ""
    message: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def after(self) -> State:
        """The state at this record."""
        return self.state.then(self.own)


def encode(record: Record) -> bytes:
    """The line of a record.

    Raises
    ------
    RecoveryError
        It is larger than anyone would read; put the change into the tree.
    """
    state = record.state
    line = seal(
        {
            "format": FORMAT,
            "seq": record.seq,
            "kind": record.kind,
            "txid": record.txid,
            "nonce": record.nonce,
            "begun": record.begun,
            "prev": record.prev,
            "root": None if state.root is None else list(state.root),
            "tail": _encode_delta(state.tail),
            "fenced": dict(state.fenced),
            "floor": state.floor,
            "oldest": state.oldest,
            "extra": dict(state.extra),
            "own": _encode_delta(record.own),
            "own_in_tree": record.own_in_tree,
            "paths": record.paths,
            "size_bytes": record.size_bytes,
            "when_s": record.when_s,
            "writer": record.writer,
            "message": record.message,
            "info": dict(record.info),
        }
    )
    if len(line) > LIMIT_BYTES:
        raise RecoveryError(
            f"record {record.seq} would have {len(line)} bytes; {LIMIT_BYTES} are allowed"
        )
    return line


def decode(line: bytes, seq: int, where: str) -> Record:
    """The checked record.

    Parameters
    ----------
    line
        Its bytes.
    seq
        The number in its key.
    where
        Its name, for messages.

    Raises
    ------
    RecoveryError
        It is damaged, of a newer format, or not what a writer writes; the message names the member.
    """
    if len(line) > LIMIT_BYTES:
        raise RecoveryError(f"{where} has {len(line)} bytes; no record has more than {LIMIT_BYTES}")
    value = unseal(line, where, _ADVICE)
    if _count(value, "seq", where) != seq:
        raise RecoveryError(f"{where} says that it is record {value['seq']}. {_ADVICE}")
    kind = need(value, "kind", str, where)
    if kind not in KINDS:
        raise RecoveryError(f"{where}: member 'kind' is {kind[:50]!r}, not one of {KINDS}")
    fenced = need(value, "fenced", dict, where)
    if not set(map(type, fenced.values())) <= {int}:
        raise RecoveryError(f"{where}: member 'fenced' has something else than numbers")
    when_s: Any = value.get("when_s")
    if type(when_s) not in (int, float) or not abs(when_s) < _MOST_S:
        raise RecoveryError(f"{where}: member 'when_s' is no time")
    state = State(
        root=decode_ref(value.get("root"), where),
        tail=_decode_delta(value, "tail", where),
        fenced=fenced,
        floor=_count(value, "floor", where),
        oldest=_count(value, "oldest", where),
        extra=need(value, "extra", dict, where),
    )
    own = _decode_delta(value, "own", where)
    own_in_tree = need(value, "own_in_tree", bool, where)
    if own and own_in_tree:
        raise RecoveryError(f"{where}: its change is in the tree and beside it")
    begun = _count(value, "begun", where)
    if begun >= seq:
        raise RecoveryError(f"{where} began at record {begun}, after itself")
    return Record(
        seq=seq,
        kind=kind,
        txid=need(value, "txid", str, where),
        nonce=need(value, "nonce", str, where),
        begun=begun,
        prev=need(value, "prev", str, where),
        state=state,
        own=own,
        own_in_tree=own_in_tree,
        paths=_count(value, "paths", where),
        size_bytes=_count(value, "size_bytes", where),
        when_s=float(when_s),
        writer=need(value, "writer", str, where),
        message=need(value, "message", str, where),
        info=need(value, "info", dict, where),
    )


def weight(delta: Delta) -> int:
    """Bytes that a delta takes in a record, about."""
    total = 0
    owner = ""
    for path, entry in delta.puts.items():
        total += 14 + len(path) // 2
        key = entry.key
        if key:
            total += 22
            if not owner or not key.startswith(owner):
                owner = key[: key.find("/", 5) + 1]
                total += 26
        if entry.inline:
            total += len(entry.inline) * 4 // 3
    return total + sum(8 + len(path) for path in delta.removed)


def _encode_delta(delta: Delta) -> dict[str, Any]:
    if not delta:
        return {}
    paths = sorted(delta.puts)
    columns = pack(paths, [delta.puts[path] for path in paths])
    value: dict[str, Any] = {}
    if delta.removed:
        value["removed"] = list(delta.removed)
    if columns:
        value["puts"] = columns
    text = spell({"format": FORMAT, **value})
    return (
        value if len(text) <= _PLAIN_BYTES else {"packed": base64.b64encode(deflate(text)).decode()}
    )


def _decode_delta(record: dict[str, Any], name: str, where: str) -> Delta:
    value = need(record, name, dict, where)
    where = f"{where}, {name!r}"
    if "packed" in value:
        try:
            data = base64.b64decode(need(value, "packed", str, where), validate=True)
        except (binascii.Error, ValueError) as error:
            raise RecoveryError(f"{where} is damaged: {error}") from error
        value = inflate(data, where, _INFLATED_BYTES)
    removed = need(value, "removed", list, where) if "removed" in value else []
    if len(removed) > MOST or not set(map(type, removed)) <= {str}:
        raise RecoveryError(f"{where}: member 'removed' has something else than paths")
    try:
        for path in removed:
            if path:
                check_path(path)
    except PathError as error:
        raise RecoveryError(f"{where} removes beyond the dataset: {error}") from error
    columns = need(value, "puts", dict, where) if "puts" in value else {}
    return Delta(dict(Packed(columns, where).items()), tuple(removed))


def _count(value: dict[str, Any], name: str, where: str) -> int:
    found: int = need(value, name, int, where)
    if not 0 <= found < _MOST_SEQ:
        raise RecoveryError(f"{where}: member {name!r} is {str(found)[:50]}")
    return found


__all__ = ["KINDS", "LIMIT_BYTES", "Record", "decode", "digest", "encode", "weight"]
