"""The steps that bring a decided transaction to its plain names, as data."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fstx.errors import PathError, RecoveryError
from fstx.paths import check_path
from fstx.state.sealing import seal, unseal
from fstx.stores import Info

Kind = Literal["part", "publisher", "remove"]
_KINDS = ("part", "publisher", "remove")
_LARGEST = 1 << 50


@dataclass(frozen=True, slots=True)
class Op:
    """One object that comes, is replaced, or goes.

    Parameters
    ----------
    kind
        A part, a publisher (put after all parts), or a removal.
    path
        Where, relative to the parent of the targets.
    base
        Stamp of what was there when the transaction was decided; "" for nothing.
    size_bytes, checksum
        Of the new content.
    source
        Key of the staged object in the home; "" where the content is in `inline`.
    """

    kind: Kind
    path: str
    base: str = ""
    size_bytes: int = 0
    checksum: str = ""
    source: str = ""
    inline: bytes | None = None


def stamp(info: Info | None) -> str:
    """Names the content at a place as well as the storage can; "" for nothing there."""
    if info is None:
        return ""
    if info.token is not None:
        return info.token
    return f"?{info.size_bytes}-{info.modified_s}"


def encode(ops: Iterable[Op]) -> list[list[Any]]:
    """As JSON."""
    return [
        [
            op.kind,
            op.path,
            op.base,
            op.size_bytes,
            op.checksum,
            op.source,
            None if op.inline is None else base64.b64encode(op.inline).decode(),
        ]
        for op in ops
    ]


def decode(found: object, txid: str, names: Sequence[str], where: str) -> tuple[Op, ...]:
    """Checked as what a stranger may have written.

    Raises
    ------
    RecoveryError
        Not steps of `txid` on targets `names`: nothing outside of them is ever touched.
    """
    if not isinstance(found, list):
        raise _damaged(where, "its steps are no list")
    return tuple(_op(row, txid, names, where) for row in found)


def _op(row: object, txid: str, names: Sequence[str], where: str) -> Op:
    if not isinstance(row, list) or len(row) != 7:
        raise _damaged(where, "a step has not 7 fields")
    kind, path, base, size_bytes, checksum, source, text = row
    if kind not in _KINDS or not all(isinstance(t, str) for t in (path, base, checksum, source)):
        raise _damaged(where, "a step has a field of a wrong kind")
    if isinstance(size_bytes, bool) or not isinstance(size_bytes, int):
        raise _damaged(where, "a size is no number")
    if not 0 <= size_bytes <= _LARGEST:
        raise _damaged(where, f"the size {size_bytes} is absurd")
    try:
        check_path(path)
    except PathError as error:
        raise _damaged(where, str(error)) from error
    if path.partition("/")[0] not in names:
        raise _damaged(where, f"the path {path!r} lies in none of the targets {', '.join(names)}")
    if source and (not source.startswith(f"data/{txid}/") or ".." in source.split("/")):
        raise _damaged(where, f"{source!r} is no object of transaction {txid}")
    inline = None
    if text is not None:
        try:
            inline = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise _damaged(where, "a content is not base64") from error
        if len(inline) != size_bytes:
            raise _damaged(where, f"the content of {path!r} has another length than it says")
    elif kind != "remove" and not source:
        raise _damaged(where, f"{path!r} has no content")
    return Op(kind, path, base, size_bytes, checksum, source, inline)


def _damaged(where: str, what: str) -> RecoveryError:
    return RecoveryError(
        f"{where} is damaged or was not written by fstx: {what}. Nothing was changed; see what lies in the "
        "home of these targets (.fstx beside them) before anything is removed"
    )


def pack(ops: Sequence[Op]) -> bytes:
    """The content of an object that holds the steps of a large commit."""
    return seal({"format": 1, "ops": encode(ops)})


def unpack(data: bytes, txid: str, names: Sequence[str], where: str) -> tuple[Op, ...]:
    """The steps out of `pack`, checked."""
    return decode(unseal(data, where).get("ops"), txid, names, where)


__all__ = ["Kind", "Op", "decode", "encode", "pack", "stamp", "unpack"]
