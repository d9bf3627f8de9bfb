"""Keys: what may be one, and where it lies below a store's root."""

from __future__ import annotations

import re

from fstx import seams
from fstx.errors import PathError

_BAD = re.compile(r"[\x00-\x1f\x7f\\]")
_TEMP = re.compile(r"\.fstx-[0-9a-f]{32}\.tmp$")


def check_key(key: str) -> str:
    """Return `key` if it may name an object, else raise `PathError` naming it."""
    if not isinstance(key, str) or not key:
        raise PathError(f"a key is a text that is not empty, not {key!r}")
    if _BAD.search(key) or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise PathError(
            f"the key {key!r} is absolute, or has an empty, '.' or '..' part, "
            "a control character or a backslash"
        )
    if is_temp(key):
        raise PathError(f"the key {key!r} has the form of the store's own temporary files")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it may begin keys: as a key, but also empty, and it may end anywhere."""
    if prefix:
        check_key(prefix.removesuffix("/") + ("x" if prefix.endswith(".") else ""))
    return prefix


def is_temp(key: str) -> bool:
    """True for the name of a file that is still being written."""
    return _TEMP.search(key) is not None


def temp_name() -> str:
    """A name that no listing shows and no key may have."""

    return f".fstx-{seams.token_hex(16)}.tmp"


def below(root: str, key: str) -> str:
    """`key` below `root`; `root` has no slash at its end, or is empty."""
    return f"{root}/{key}" if root else key


def span(size_bytes: int, start: int, stop: int | None) -> tuple[int, int]:
    """Absolute first and last-plus-one byte of a range as `Store.get` takes it."""
    if start < 0:
        if stop is not None:
            raise ValueError("a range from the end has no stop")
        return max(0, size_bytes + start), size_bytes
    last = size_bytes if stop is None else min(stop, size_bytes)
    return min(start, last), last
