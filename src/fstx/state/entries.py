"""What a dataset holds at a path, and what a transaction changes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from fstx.types import Buffer

OWN = ".fstx/"
"""Paths that begin so are the library's own: kept by every removal, hidden from every reader."""

_PLAIN = re.compile(r"[A-Za-z0-9._/-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9._/\n-]")
_ESCAPED = re.compile(r"[^A-Za-z0-9._-]")
_LONG = 150
_FEW = 4


class Entry(NamedTuple):
    """One path of a dataset.

    Parameters
    ----------
    size_bytes
        Length of the content.
    key
        Of the object that holds it, relative to the dataset's control directory, ``data/<T>/...``;
        empty for inline content and for directories.
    offset
        Where the content begins in the object; None: the content is the whole object.
    checksum
        As `checksum` gives it, or "" where it is not known.
    inline
        The content itself, of small objects.
    directory
        An empty directory that was made on purpose.
    """

    size_bytes: int
    key: str = ""
    offset: int | None = None
    checksum: str = ""
    inline: bytes | None = None
    directory: bool = False


@dataclass(frozen=True)
class Delta:
    """Changes of a state: what goes, then what comes.

    ``removed`` names files or whole trees; "" is everything but the library's own paths (``.fstx/...``),
    which no removal covers. An entry of ``puts`` is there afterwards also below a removed path.
    """

    puts: Mapping[str, Entry] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.puts or self.removed)

    def then(self, later: Delta) -> Delta:
        """One delta with the effect of this one and then `later`."""
        if not later:
            return self
        if not self:
            return later
        if not later.removed:
            return Delta({**self.puts, **later.puts}, self.removed)
        covers = later.covers
        kept = {p: e for p, e in self.puts.items() if not covers(p)}
        kept.update(later.puts)
        return Delta(kept, (*(r for r in self.removed if not later._tops_cover(r)), *later.removed))

    def covers(self, path: str) -> bool:
        """True when what was at `path` before goes."""
        return bool(self.removed) and self._tops_cover(path) and not path.startswith(OWN)

    @cached_property
    def _tops(self) -> frozenset[str]:
        return frozenset(self.removed)

    def _tops_cover(self, path: str) -> bool:
        tops = self._tops
        if "" in tops or path in tops:
            return True
        if len(tops) <= _FEW:
            return any(path.startswith(top) and path[len(top)] == "/" for top in tops)
        at = path.find("/")
        while at >= 0:
            if path[:at] in tops:
                return True
            at = path.find("/", at + 1)
        return False


def escape(path: str) -> str:
    """`path` as one part of a key: other than ``A-Za-z0-9._-`` as ``=XX``; long paths as ``=`` and a hash."""
    if _PLAIN.fullmatch(path):
        text = path.replace("/", "=2F")
    else:
        text = _ESCAPED.sub(
            lambda m: "".join(f"={b:02X}" for b in m[0].encode("utf-8", "surrogateescape")), path
        )
    if len(text) <= _LONG:
        return text
    import hashlib

    return "=" + hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def escape_all(paths: Sequence[str]) -> list[str]:
    """`escape` of each."""
    text = "\n".join(paths)
    if paths and not _UNSAFE.search(text):
        names = text.replace("/", "=2F").split("\n")
        if max(map(len, names)) <= _LONG:
            return names
    return [escape(path) for path in paths]


def unescape(name: str) -> str | None:
    """The path that `escape` made `name` of, or None where it is a hash."""
    if re.match(r"=[0-9a-f]{40}$", name):
        return None
    try:
        given = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None  # no name of ours
    raw = re.sub(rb"=([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), given)
    return raw.decode("utf-8", "surrogateescape")


def data_key(txid: str, path: str, attempt: str) -> str:
    """Key of one attempt to stage `path`."""
    return f"data/{txid}/{escape(path)}~{attempt}"


@cache
def _crc32c() -> Any:
    try:
        import google_crc32c
    except ImportError:
        return None
    return google_crc32c


def checksum(pieces: Iterable[Buffer]) -> str:
    """``c`` and the CRC32C in hex where a native library is there, else ``z`` and zlib's CRC32."""
    found = RunningChecksum()
    for piece in pieces:
        found.add(piece)
    return str(found)


class RunningChecksum:
    """`checksum` of pieces that come one by one; its text is that of all so far."""

    def __init__(self) -> None:
        self._library = _crc32c()
        self._value = 0

    def add(self, piece: Buffer, /) -> None:
        """The next piece."""
        if self._library is None:
            self._value = zlib.crc32(piece, self._value)
            return
        try:
            self._value = self._library.extend(self._value, piece)
        except (TypeError, ValueError, BufferError):  # takes some kinds of buffers as they are
            self._value = self._library.extend(self._value, bytes(piece))

    def __str__(self) -> str:
        return f"{'z' if self._library is None else 'c'}{self._value:08x}"


def matches(data: Buffer, wanted: str) -> bool:
    """Whether `data` has that checksum; True where it is unknown or can't be computed here."""
    if not wanted or (wanted[0] == "c" and _crc32c() is None):
        return True
    if wanted[0] == "z":
        return f"z{zlib.crc32(data):08x}" == wanted
    return checksum([data]) == wanted
