"""One physical line: 32 hex digits of SHA-256, a space, JSON with sorted keys, a line end.

What is read may have been written by anyone who can write to the storage, so it is checked as input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from fstx.errors import RecoveryError

FORMAT = 1

_LOCAL = "Nothing was changed; move the file's directory away to give the transaction up"


def seal(value: dict[str, Any]) -> bytes:
    """Checksum and JSON on one line."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return seal_text(text.encode())


def seal_text(text: bytes) -> bytes:
    """The line of such JSON."""
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


def intact(lines: Iterable[bytes]) -> list[bytes]:
    """The JSON of those lines whose checksum fits, not parsed."""
    found, sha256 = [], hashlib.sha256
    for line in lines:
        text = line[33:-1]
        sealed = sha256(text).hexdigest()[:32].encode() + b" "
        if line.startswith(sealed) and line.endswith(b"\n"):
            found.append(text)
    return found


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
