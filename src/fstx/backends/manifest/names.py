"""Keys of a dataset's control directory (section 5 of the specification)."""

from __future__ import annotations

import re

from fstx import seams
from fstx.backends.base import key_of
from fstx.state.entries import escape

MARKER = "dataset.json"
OTHER_MARKER = "home.json"
"""Of the plain view: where it lies no dataset can be made."""

LOG = "log/"
BOUNDARY = "boundary/"
DATA = "data/"
NODE = "node/"
PIN = "pin/"
REFS = "refs/"
IDS = ".fstx/id/"
"""Paths of the tree under which chosen ids are remembered; no path of a caller lies there."""

_SEQ = re.compile(r"(?:log|boundary)/(\d{20})")
_ATTEMPT = re.compile(r"([0-9a-f]{22})-(rm|-|[cz][0-9a-f]{8})")


def log_key(seq: int) -> str:
    return f"{LOG}{seq:020d}"


def boundary_key(seq: int) -> str:
    return f"{BOUNDARY}{seq:020d}"


def seq_of(key: str) -> int | None:
    """The number in the key of a record or a boundary; None for a name that is neither."""
    found = _SEQ.fullmatch(key)
    return int(found[1]) if found else None


def mark_of(id: str) -> str:
    """Under this name a caller's id is remembered: ``k-`` and 32 hex digits of its hash."""
    return key_of(id)


def new_txid() -> str:
    """Names one run of a transaction and owns what it stages; two runs with one id have two."""
    return seams.token_hex(16)


def joined_key(txid: str, path: str, attempt: str) -> str:
    """Key of an object staged by one who joined by URL: found by listing when the coordinator commits."""
    return f"{joined_prefix(txid)}{escape(path)}~{attempt}"


def joined_prefix(txid: str) -> str:
    return f"{DATA}{txid}/+/"


def new_attempt(checksum: str) -> str:
    """The name of one attempt: sorts after older ones as clocks agree; ends with a checksum or ``-``."""
    return f"{seams.time_ns():016x}{seams.token_hex(3)}-{checksum or '-'}"


def removal_attempt() -> str:
    """The name of an empty object that tells of a removal."""
    return new_attempt("rm")


def split_attempt(attempt: str) -> tuple[str, str] | None:
    """Order and checksum (``rm``: a removal) of an attempt's name; None for what is none."""
    found = _ATTEMPT.fullmatch(attempt)
    if not found:
        return None
    return found[1], "" if found[2] == "-" else found[2]


def node_key(txid: str) -> str:
    return f"{NODE}{txid}-{seams.token_hex(6)}"


def owner_of(key: str) -> str | None:
    """The transaction that an object under ``data/`` or ``node/`` belongs to."""
    if key.startswith(DATA):
        return key.split("/")[1]
    if key.startswith(NODE):
        return key[len(NODE) :].rpartition("-")[0]
    return None
