"""Logical paths: what may be staged (rules PATH-1 to PATH-4 of the specification)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container
from functools import lru_cache

from fstx.errors import PathError

CONTROL_NAME = ".fstx"

_BAD = re.compile(r"[\x00-\x1f\x7f\\]")


def check_path(path: str) -> str:
    """Return `path` if it may be staged, else raise `PathError` naming it (PATH-1, PATH-4)."""
    if not isinstance(path, str):
        raise PathError(f"a path must be a str, not {type(path).__name__}: {path!r}")
    return _check(path)


@lru_cache(maxsize=8192)  # a path is checked wherever it enters: several times on its way
def _check(path: str) -> str:
    if not path:
        raise PathError("the path is empty; name a file below the target")
    if _BAD.search(path):
        raise PathError(f"the path {path!r} contains a control character or a backslash; use '/'")
    if path[0] == "/" or (len(path) > 1 and path[1] == ":" and path[0].isalpha()):
        raise PathError(f"the path {path!r} is absolute; paths are relative to the target")
    parts = path.split("/")
    if ".." in parts or "." in parts:
        raise PathError(f"the path {path!r} has a '.' or '..' part; name the place itself")
    if "" in parts:
        raise PathError(f"the path {path!r} has an empty part ('//' or a '/' at the end)")
    for part in parts:
        if part.casefold() == CONTROL_NAME:
            raise PathError(
                f"the path {path!r} lies in {CONTROL_NAME}/, which is the library's own"
            )
        try:
            length_bytes = len(part.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            raise PathError(f"the path {path!r} is no text that a file name can hold") from None
        if length_bytes > 255:
            raise PathError(f"a part of the path {path[:80]!r}... is longer than 255 bytes")
    return path


def fold(path: str) -> str:
    """Equal for paths that a case-insensitive or normalising file system takes for one (PATH-3)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def parents(path: str) -> list[str]:
    """Proper ancestors, nearest first: ``a/b/c`` gives ``a/b``, ``a``."""
    found = []
    while "/" in path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found


def is_covered(path: str, tops: Container[str]) -> bool:
    """True when `path` is one of `tops` or lies below one; as many look-ups as it has parts."""
    return path in tops or any(parent in tops for parent in parents(path))


def is_below(path: str, ancestor: str) -> bool:
    """True when `path` is `ancestor` or lies below it."""
    return path == ancestor or path.startswith(ancestor + "/")
