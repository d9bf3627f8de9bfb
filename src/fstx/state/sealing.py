"""One physical line: 32 hex digits of SHA-256, a space, JSON with sorted keys, a line end.

What is read may have been written by anyone who can write to the storage, so it is checked as input.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fstx.errors import RecoveryError

FORMAT = 1

_LOCAL = "Nothing was changed; move the file's directory away to give the transaction up"


def seal(value: dict[str, Any]) -> bytes:
    """Checksum and JSON on one line."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return digest(text).encode() + b" " + text + b"\n"


def unseal(line: bytes, where: str, advice: str = _LOCAL) -> dict[str, Any]:
    """The JSON of a line, after checksum and format.

    Parameters
    ----------
    line
        The whole line with its end.
    where
        Its name, for messages.
    advice
        What to do about a damaged one.

    Raises
    ------
    RecoveryError
        It is damaged, no object, or of a newer format.
    """
    found, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or digest(text[:-1]).encode() != found:
        raise RecoveryError(f"{where} is damaged (its checksum does not fit). {advice}")
    return load(text, where)


def intact(line: bytes) -> bytes | None:
    """The JSON of a line whose checksum fits, not parsed; None where it does not."""
    found, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or digest(text[:-1]).encode() != found:
        return None
    return text[:-1]


def load(text: bytes, where: str) -> dict[str, Any]:
    """A JSON object that says its format; RecoveryError for anything else, and for a newer format."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecoveryError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict) or type(value.get("format")) is not int:
        raise RecoveryError(f"{where} has no format version")
    if value["format"] > FORMAT:
        raise RecoveryError(
            f"{where} has format {value['format']}; this version reads up to {FORMAT}. "
            "Use a newer fstx"
        )
    if value["format"] < 1:
        raise RecoveryError(f"{where} has format {value['format']}; formats begin with 1")
    return value


def digest(data: bytes | memoryview) -> str:
    """First 32 hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]
