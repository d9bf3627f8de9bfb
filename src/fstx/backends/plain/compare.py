"""Whether what lies at a plain name is what was put there: by a token that tells, else by its bytes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from fstx.state.entries import checksum, matches
from fstx.stores import Info, Store
from fstx.types import Buffer

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_READ_BYTES = 8 << 20
TAIL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Content:
    """What an object holds: its length and checksum, and its MD5 where the service tells that of objects.

    ``tail``: checksum of the last `TAIL_BYTES` of a large object, which saves reading all of it.
    """

    size_bytes: int
    checksum: str
    md5: str = ""
    tail: str = ""


class Running:
    """The content of an object that is written piece by piece."""

    def __init__(self) -> None:
        self._size_bytes = 0
        self._last = b""

    def add(self, piece: Buffer) -> None:
        """`piece` comes next."""
        self._size_bytes += len(piece)
        self._last = (self._last + bytes(piece[-TAIL_BYTES:]))[-TAIL_BYTES:]

    def content(self) -> Content:
        """Of all that was added."""
        return Content(self._size_bytes, "", "", checksum([self._last]))


def content_of(data: Buffer, store: Store) -> Content:
    """The content of `data`, with what `store` tells of its objects."""
    md5 = ""
    if store.url.startswith("s3://"):
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Content(len(data), checksum([data]), md5)


def told(info: Info, content: Content) -> bool | None:
    """Whether `info` is an object of this content; None where only its bytes can tell."""
    if info.size_bytes != content.size_bytes:
        return False
    found = _MD5.fullmatch(info.token or "")
    # Another token proves nothing: an encrypted or composed object has one of another kind.
    return True if content.md5 and found and found[1] == content.md5 else None


def holds(store: Store, key: str, info: Info | None, content: Content) -> bool:
    """Whether the object that `info` tells of has this content; reads it where nothing else tells."""
    if info is None:
        return False
    known = told(info, content)
    if known is not None:
        return known
    try:
        return same_bytes(store, key, content)
    except FileNotFoundError:
        return False


def same_bytes(store: Store, key: str, content: Content) -> bool:
    """Compare by reading, a few MiB at a time; of a large object with a known end, that."""
    if content.tail:
        return matches(
            store.get(key, max(0, content.size_bytes - TAIL_BYTES), content.size_bytes),
            content.tail,
        )
    pieces = (
        store.get(key, start, min(start + _READ_BYTES, content.size_bytes))
        for start in range(0, content.size_bytes, _READ_BYTES)
    )
    if content.size_bytes <= _READ_BYTES:
        return matches(b"".join(pieces), content.checksum)
    if not content.checksum or content.checksum[0] != checksum([])[0]:
        return True  # of this length, and its checksum can't be computed here
    return checksum(pieces) == content.checksum


__all__ = ["TAIL_BYTES", "Content", "Running", "content_of", "holds", "same_bytes", "told"]
