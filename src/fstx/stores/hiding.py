"""Keeps credentials out of texts: URLs, messages, causes."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_NAMES = re.compile(
    r"(?i)key|secret|token|passw|passphrase|credential|connection_string|sas|user|auth|cert"
)
_IN_TEXT = re.compile(
    r"(?i)((?:sig|upload_id|x-amz-(?:signature|credential|security-token)|access_token"
    r"|accountkey|sharedaccesssignature|authorization)\s*[=:]\s*)[^\s&;\"'<>]+"
)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_SHORT = 6  # shorter values are words that may stand anywhere


def secrets_of(options: Any, *, named: bool = False) -> frozenset[str]:
    """Values among storage options that must not be shown, at any depth."""
    found: set[str] = set()
    if isinstance(options, Mapping):
        for name, value in options.items():
            found |= secrets_of(value, named=named or bool(_NAMES.search(str(name))))
    elif isinstance(options, list | tuple):
        for value in options:
            found |= secrets_of(value, named=named)
    elif named and isinstance(options, str) and len(options) >= _SHORT:
        found.add(options)
        # A connection string or a token is also shown in pieces.
        found |= {p for p in re.split(r"[;&]|(?<=[a-z])=", options) if len(p) >= 16}
    return frozenset(found)


def scrub(text: str, secrets: frozenset[str]) -> str:
    """`text` with what is secret replaced."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _USERINFO.sub("***@", text)
    return _IN_TEXT.sub(r"\1***", text)


def shows(error: BaseException, secrets: frozenset[str]) -> bool:
    """True when the error, or one that it came from, tells something secret."""
    seen: BaseException | None = error
    while seen is not None:
        for text in (str(seen), repr(seen), _pickled(seen)):
            if scrub(text, secrets) != text:
                return True
        seen = seen.__cause__ or seen.__context__
    return False


def _pickled(error: BaseException) -> str:
    """The error as it would go to another process: some take requests along, with their URLs."""
    try:
        return pickle.dumps(error).decode("latin-1")
    except Exception:  # noqa: BLE001 - what can't be pickled goes nowhere
        return ""


def without_user(url: str) -> str:
    """The URL without what stands before the host: it may be a password."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" if rest else url


def plain_url(url: str) -> str:
    """An endpoint's URL without user, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


__all__ = ["plain_url", "scrub", "secrets_of", "shows", "without_user"]
