"""Keys of a home, and how its parts are told from each other."""

from __future__ import annotations

import re

from fstx import seams
from fstx.backends.manifest.names import DATA, OTHER_MARKER, mark_of

MARKER = OTHER_MARKER
KIND = "plain"
_TXID = re.compile(r"[0-9a-f]{32}")
_NAMES = "=names-"
_OPS = "=ops-"
_OPENS = "=opens-"
_GONE = "=gone"


def is_txid(text: object) -> bool:
    """Whether `text` may name a transaction."""
    return isinstance(text, str) and _TXID.fullmatch(text) is not None


def staged_prefix(txid: str) -> str:
    """What the keys of a transaction's objects begin with."""
    return f"{DATA}{txid}/"


def notice_key(txid: str) -> str:
    """A new key for a notice: which names are about to be taken."""
    return f"{staged_prefix(txid)}{_NAMES}{seams.token_hex(8)}"


def opens_key(txid: str) -> str:
    """A new key for a note: at which name an upload of several parts is about to begin."""
    return f"{staged_prefix(txid)}{_OPENS}{seams.token_hex(8)}"


def ops_key(txid: str) -> str:
    """A new key for the steps of a large commit."""
    return f"{staged_prefix(txid)}{_OPS}{seams.token_hex(8)}"


def gone_key(txid: str) -> str:
    """Where it says, to workers that outlived their coordinator, that a transaction was given up."""
    return f"{staged_prefix(txid)}{_GONE}"


def is_gone(key: str) -> bool:
    return key.rpartition("/")[2] == _GONE


def is_notice(key: str) -> bool:
    return key.rpartition("/")[2].startswith(_NAMES)


def is_opens(key: str) -> bool:
    return key.rpartition("/")[2].startswith(_OPENS)


def is_ops(key: str) -> bool:
    return key.rpartition("/")[2].startswith(_OPS)


def mark_for(id: str, names: tuple[str, ...]) -> str:
    """Under this name a caller's id is remembered: for these targets only."""
    return mark_of("\n".join([id, *sorted(names)]))


def told_for(id: str, name: str) -> str:
    """Under this name it is remembered that a caller's id committed to a target, alone or with others."""
    return mark_of("\n".join(["told", id, name]))


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> str | None:
    """A name that both have, or None."""
    return next((name for name in one if name in other), None)
