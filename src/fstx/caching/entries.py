"""The bytes of one entry: its content, the key, and a footer with lengths and a checksum.

    content | key | footer: content length u64, key length u32, kind, algorithm, checksum u32, mark

An array's content is a ``.npy`` file, and readers of those don't look at what follows: ``numpy.load`` opens
the entry as it is. The checksum covers all that lies in front of it. Whole numbers are little-endian.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from tokenize import TokenError
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fstx.errors import UsageError
from fstx.layouts.npy import check_dtype, npy_header, raw_bytes
from fstx.state.entries import checksum, matches
from fstx.types import Buffer

Value: TypeAlias = NDArray[Any] | bytes
"""What a cache keeps."""

MARK = b"\x93fstx-c1"
_HEAD = struct.Struct("<QI1s1s")
_TAIL = struct.Struct("<I8s")
FOOTER_BYTES = _HEAD.size + _TAIL.size
TAIL_BYTES = _TAIL.size
"""At the end: what the checksum does not cover."""

_ALIGNED = 64
_LONGEST_HEADER = 1 << 24
_NO_HEADER = (ValueError, TypeError, SyntaxError, LookupError, OverflowError, TokenError)


class CorruptError(ValueError):
    """Bytes that are no whole entry, or another key's; the message says why."""


def normal(value: Any) -> Value:
    """`value` as the cache will give it back: a plain array, or bytes.

    Raises
    ------
    UsageError
        It would come back as something else.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        array = np.asarray(value)
        check_dtype(array.dtype)
        return array
    kind = type(value)
    raise UsageError(
        f"a cache keeps numpy arrays and bytes, not {kind.__module__}.{kind.__qualname__}; "
        "convert it (numpy.asarray, or bytes of your own)"
    )


def pack(value: Value, key: bytes) -> list[Buffer]:
    """The bytes of an entry, piece by piece; an array's memory is not copied where it is contiguous."""
    if isinstance(value, bytes):
        kind, content = b"b", [value]
    else:
        array = value if value.flags.forc else np.ascontiguousarray(value)
        fortran = array.flags.f_contiguous and not array.flags.c_contiguous
        kind, content = b"a", [npy_header(array.dtype, array.shape, fortran=fortran)]
        content.append(_readable(raw_bytes(array)))
    size = sum(memoryview(piece).nbytes for piece in content)
    told = checksum([b""])[0].encode()
    pieces = [*content, key, _HEAD.pack(size, len(key), kind, told)]
    value_of = int(checksum(pieces)[1:], 16)
    return [*pieces, _TAIL.pack(value_of, MARK)]


def unpack(
    raw: NDArray[np.uint8], key: bytes | None, *, verify: bool = True, known: str = ""
) -> Value:
    """The value in an entry's bytes.

    Parameters
    ----------
    raw
        The bytes. An array's value is a part of them, and a copy only where they can't be written to.
    key
        The key that it has to be of; None takes any.
    verify
        False leaves the checksum out; lengths and key are compared all the same.
    known
        The checksum of all but the tail, where it was computed while reading.

    Raises
    ------
    CorruptError
        It is not what was put there.
    """
    size = len(raw)
    if size < FOOTER_BYTES:
        raise CorruptError(f"{size} bytes are no entry")
    content, kind, found = _footer(bytes(raw[size - FOOTER_BYTES :]), size)
    if key is not None and bytes(raw[content : content + len(key) + FOOTER_BYTES]) != key + found:
        raise CorruptError("it is another key's")
    if verify:
        _check(raw, found, known)
    if kind == b"b":
        return bytes(raw[:content])
    return _array(raw, content)


def key_of(end: bytes, size_bytes: int) -> bytes | int:
    """The spelled key in an entry of `size_bytes` of which `end` are the last bytes.

    Returns
    -------
    bytes or int
        The key; or how many bytes are needed, where `end` is too short.
    """
    if len(end) < FOOTER_BYTES:
        raise CorruptError(f"{size_bytes} bytes are no entry")
    content, _, _ = _footer(end[len(end) - FOOTER_BYTES :], size_bytes)
    length = size_bytes - content
    return bytes(end[len(end) - length : -FOOTER_BYTES]) if length <= len(end) else length


def room_for(size_bytes: int) -> NDArray[np.uint8]:
    """An array of bytes to read an entry into.

    It begins at a multiple of 64: the arrays in it are aligned, and the copy out of the system's page is not
    slowed down by addresses that differ a little in their last 12 bits (more than twice for large entries).
    """
    room = np.empty(size_bytes + _ALIGNED, np.uint8)
    start = -room.__array_interface__["data"][0] % _ALIGNED
    return room[start : start + size_bytes]


def _footer(found: bytes, size: int) -> tuple[int, bytes, bytes]:
    """Where the content ends, the kind of entry, and the footer itself."""
    content, key_length, kind, _ = _HEAD.unpack_from(found)
    if not found.endswith(MARK):
        raise CorruptError("it does not end as an entry does")
    if content + key_length + FOOTER_BYTES != size:
        raise CorruptError("its length is not what it says")
    if kind not in (b"a", b"b"):
        raise CorruptError(f"it is of an unknown kind {kind!r}")
    return content, kind, found


def _check(raw: NDArray[np.uint8], footer: bytes, known: str) -> None:
    value, _ = _TAIL.unpack(footer[_HEAD.size :])
    algorithm = footer[_HEAD.size - 1 : _HEAD.size].decode("latin-1")
    if algorithm not in "cz":
        raise CorruptError(f"its checksum is of an unknown kind {algorithm!r}")
    wanted = f"{algorithm}{value:08x}"
    covered: Any = raw[: raw.size - TAIL_BYTES]
    if known != wanted if known[:1] == algorithm else not matches(covered, wanted):
        raise CorruptError("its checksum does not match")


def _array(raw: NDArray[np.uint8], content: int) -> NDArray[Any]:
    try:
        version, start = bytes(raw[:8]), 10
        length = int.from_bytes(raw[8:10], "little")
        if version[6] > 1:
            length, start = int.from_bytes(raw[8:12], "little"), 12
        start += length
        if start > content:
            raise ValueError("the header is longer than the content")
        dtype, shape, fortran, size = _described(bytes(raw[:start]))
        if start + size != content:
            raise ValueError(f"{content - start} bytes of data, {size} are described")
        array: NDArray[Any] = np.ndarray(shape, dtype, raw, start, order="F" if fortran else "C")
    except _NO_HEADER as error:
        raise CorruptError(f"it holds no array: {error}") from error
    return array if array.flags.writeable else array.copy(order="K")


@lru_cache(maxsize=256)
def _described(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Dtype, shape, order and size of data of a ``.npy`` header."""
    file = io.BytesIO(header)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version}")
    shape, fortran, dtype = readers[version](file, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    count = 1
    for axis in shape:
        count *= axis
    return dtype, shape, fortran, count * dtype.itemsize


def _readable(data: Buffer) -> Any:
    """The same memory in a form that the checksum takes without a copy."""
    return np.frombuffer(data, np.uint8)


__all__ = [
    "FOOTER_BYTES",
    "MARK",
    "TAIL_BYTES",
    "CorruptError",
    "Value",
    "key_of",
    "normal",
    "pack",
    "room_for",
    "unpack",
]
