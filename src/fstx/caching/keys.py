"""Keys of a cache: one spelling for each, the same in every process, and the name of its entry.

A key is made of None, booleans, whole numbers, floats, texts, bytes, tuples of keys and dictionaries of
keys. The spelling carries type and length in front of each value, so that two keys never share one;
dictionaries are spelled in the order of their spelled keys. A list counts as a tuple, a number of numpy as
Python's. ``1``, ``1.0``, ``True`` and ``"1"`` are four keys.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, TypeAlias

import numpy as np

from fstx.errors import UsageError

Key: TypeAlias = (
    bool
    | int
    | float
    | str
    | bytes
    | np.generic
    | tuple[Any, ...]
    | list[Any]
    | dict[Any, Any]
    | None
)
"""What may name an entry."""

VERSION = b"fstx-key-1\n"
"""In front of what is hashed: another spelling gives other names."""

LIMIT_BYTES = 1 << 16
_DEPTH = 50


def spell(key: Key) -> bytes:
    """The one spelling of `key`.

    Raises
    ------
    UsageError
        A value without one, such as an array or an object; the message says which.
    """
    pieces: list[bytes] = []
    try:
        _spell(key, pieces, 0)
    except UnicodeEncodeError as error:
        raise UsageError(f"a text in the key {key!r} is no Unicode: {error}") from None
    spelled = b"".join(pieces)
    if len(spelled) > LIMIT_BYTES:
        raise UsageError(
            f"the key has {len(spelled)} bytes, more than {LIMIT_BYTES}; "
            "put a digest of its large parts in it, not the parts"
        )
    return spelled


def name_of(spelled: bytes) -> str:
    """The file name of an entry: a digest of its key."""
    return hashlib.sha256(VERSION + spelled).hexdigest()


def read(spelled: bytes) -> Key:
    """The key of a spelling; ValueError where it is none."""
    try:
        key: Key
        key, end = _read(spelled, 0, 0)
    except (IndexError, KeyError, UnicodeDecodeError, struct.error, TypeError) as error:
        raise ValueError(f"no spelled key: {error}") from error
    if end != len(spelled):
        raise ValueError("bytes follow the spelled key")
    return key


def _spell(key: Any, into: list[bytes], depth: int) -> None:
    kind = type(key)
    if kind is str:
        text = key.encode()
        into.append(b"s%d:%b" % (len(text), text))
    elif kind is int:
        into.append(b"i%d;" % key)
    elif kind is float:
        into.append(b"f" + struct.pack(">d", key if key == key else float("nan")))
    elif kind is bytes:
        into.append(b"b%d:%b" % (len(key), key))
    elif kind is bool:
        into.append(b"T" if key else b"F")
    elif key is None:
        into.append(b"N")
    elif depth > _DEPTH:
        raise UsageError(f"the key is nested more than {_DEPTH} deep, or contains itself")
    elif kind is tuple or kind is list:
        into.append(b"(")
        for value in key:
            _spell(value, into, depth + 1)
        into.append(b")")
    elif kind is dict:
        _spell_pairs(key, into, depth + 1)
    elif isinstance(key, np.generic) and type(value := key.item()) in _PLAIN:
        _spell(value, into, depth)
    else:
        raise UsageError(
            f"{kind.__module__}.{kind.__qualname__} can't be part of a key; use None, numbers, texts, "
            "bytes, and tuples and dictionaries of these. For an array or an object put a digest "
            "of its content there, for a path its text"
        )


def _spell_pairs(key: dict[Any, Any], into: list[bytes], depth: int) -> None:
    pairs: dict[bytes, Any] = {}
    for name, value in key.items():
        spelled: list[bytes] = []
        _spell(name, spelled, depth)
        pairs[b"".join(spelled)] = value
    if len(pairs) < len(key):
        raise UsageError(f"two of the dictionary's keys are spelled alike: {list(key)!r}")
    into.append(b"{")
    for name in sorted(pairs):
        into.append(name)
        _spell(pairs[name], into, depth)
    into.append(b"}")


_PLAIN = frozenset({bool, int, float, str, bytes})
_SINGLE = {"N": None, "T": True, "F": False}


def _read(text: bytes, at: int, depth: int) -> tuple[Any, int]:
    mark = chr(text[at])
    at += 1
    if mark in _SINGLE:
        return _SINGLE[mark], at
    if mark == "f":
        return struct.unpack_from(">d", text, at)[0], at + 8
    if mark == "i":
        end = text.index(b";", at)
        return int(text[at:end]), end + 1
    if mark in "sb":
        end = text.index(b":", at)
        start, stop = end + 1, end + 1 + int(text[at:end])
        if stop > len(text):
            raise ValueError("a part of the spelled key is cut")
        return (text[start:stop].decode() if mark == "s" else text[start:stop]), stop
    if mark not in "({" or depth > _DEPTH:
        raise ValueError(f"{mark!r} begins no part of a key")
    parts, close = [], ord(")" if mark == "(" else "}")
    while text[at] != close:
        part, at = _read(text, at, depth + 1)
        parts.append(part)
    if mark == "(":
        return tuple(parts), at + 1
    return dict(zip(parts[::2], parts[1::2], strict=True)), at + 1


__all__ = ["LIMIT_BYTES", "VERSION", "Key", "name_of", "read", "spell"]
