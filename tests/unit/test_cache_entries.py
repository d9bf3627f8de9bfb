"""The bytes of one entry: what is read is what was put, or it is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fstx.caching.entries import CorruptError, key_of, normal, pack, room_for, unpack
from fstx.errors import UsageError
from fstx.state.entries import checksum

KEY = b"i7;"


def packed(value: Any, key: bytes = KEY) -> bytes:
    return b"".join(bytes(piece) for piece in pack(normal(value), key))


def raw(data: bytes) -> NDArray[np.uint8]:
    """As a local place reads it: bytes that may be changed."""
    room = room_for(len(data))
    room[:] = np.frombuffer(data, np.uint8)
    return room


ARRAYS: dict[str, NDArray[Any]] = {
    "numbers": np.arange(24, dtype="f4").reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(6, dtype="i2").reshape(2, 3)),
    "scattered": np.arange(24).reshape(4, 6)[::2, ::3],
    "swapped": np.arange(3, dtype=">f8"),
    "one number": np.array(3.5),
    "none": np.zeros((0, 3), "u1"),
    "texts": np.array(["a", "longer"]),
    "bytes": np.array([b"ab", b"c"]),
    "no width": np.zeros(2, "S0"),
    "times": np.array(["2024-01-01"], "M8[D]"),
    "complex": np.array([1 + 2j]),
    "records": np.array([(1, 2.5)], [("a", "u1"), ("b", "<f8")]),
    "truths": np.array([True, False]),
    "many fields": np.zeros(1, [(f"field_{n:05}", "u1") for n in range(4000)]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back(name: str) -> None:
    """Values, dtype, shape and order are those that were put; the array is one's own."""
    array = ARRAYS[name]
    data = packed(array)
    for source in (raw(data), np.frombuffer(data, np.uint8)):
        found = unpack(source, KEY)
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert found.flags.writeable
        assert found.flags.aligned
    if array.size > 1 and name == "fortran":
        assert found.flags.f_contiguous
    np.testing.assert_array_equal(np.load(io.BytesIO(data), max_header_size=1 << 20), array)


def test_bytes_come_back() -> None:
    """Bytes are kept as they are, also none, and all kinds of buffers."""
    for value in (b"", b"abc", bytearray(b"abc"), memoryview(b"abc")):
        found = unpack(raw(packed(value)), KEY)
        assert type(found) is bytes
        assert found == bytes(value)


@pytest.mark.parametrize("value", [b"some bytes", np.arange(5, dtype="u2")], ids=["bytes", "array"])
def test_an_entry_that_was_cut_anywhere_is_refused(value: Any) -> None:
    """C6: truncated at any byte, from none to all but one; also without the checksum."""
    data = packed(value)
    for verify in (True, False):
        for length in range(len(data)):
            with pytest.raises(CorruptError):
                unpack(raw(data[:length]), KEY, verify=verify)


@pytest.mark.parametrize("value", [b"some bytes", np.arange(5, dtype="u2")], ids=["bytes", "array"])
def test_a_changed_byte_anywhere_is_found(value: Any) -> None:
    """C5: what was written is what is read, to the bit, or it is refused."""
    data = packed(value)
    for position in range(len(data)):
        for bit in (1, 128):
            changed = bytearray(data)
            changed[position] ^= bit
            with pytest.raises(CorruptError):
                unpack(raw(bytes(changed)), KEY)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x00" * 200,
        b"x" * 25,
        b"\x93NUMPY\x01\x00" + b"\x00" * 100,
        packed(b"a") + b"\n",
        b"\n" + packed(b"a"),
        packed(b"a") + packed(b"a"),
    ],
    ids=["empty", "zeros", "short", "numpy only", "more behind", "more in front", "two"],
)
def test_garbage_is_refused(junk: bytes) -> None:
    """C6: wrong marks, wrong lengths, other files."""
    with pytest.raises(CorruptError):
        unpack(raw(junk), KEY)
    with pytest.raises(CorruptError):
        unpack(raw(junk), None, verify=False)


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**9,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000,), }",
        b"{'descr': 'nothing', 'fortran_order': False, 'shape': (1,), }",
        b"(((((",
        b"\xff\xff",
    ],
)
def test_a_whole_entry_with_a_hostile_array_is_refused(header: bytes) -> None:
    """No pickle is opened and no size is believed, also where length and checksum are right."""
    head = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    pieces: list[Any] = [head + b"12345678", KEY]
    size = len(pieces[0])
    pieces.append(size.to_bytes(8, "little") + len(KEY).to_bytes(4, "little") + b"a")
    pieces[-1] += checksum([b""])[:1].encode()
    tail = int(checksum(pieces)[1:], 16).to_bytes(4, "little") + b"\x93fstx-c1"
    with pytest.raises(CorruptError, match="no array"):
        unpack(raw(b"".join([*pieces, tail])), KEY)


def test_another_keys_entry_is_refused() -> None:
    """An entry that was copied to another's name is not taken for it."""
    data = raw(packed(b"value", b"i7;"))
    for other in (b"i8;", b"i77;", b"", b"7;"):
        with pytest.raises(CorruptError, match="key"):
            unpack(data, other)


def test_without_the_checksum_a_changed_byte_passes() -> None:
    """What `verify="never"` gives up is the checksum, and only that."""
    data = bytearray(packed(b"some bytes"))
    data[0] ^= 1
    assert unpack(raw(bytes(data)), KEY, verify=False) == b"rome bytes"


def test_the_key_is_read_from_the_end() -> None:
    """Listings read a few bytes of each entry, and more where the key is long."""
    key = b"s5000:" + b"x" * 5000
    data = packed(b"value", key)
    needed = key_of(data[-100:], len(data))
    assert isinstance(needed, int)
    assert key_of(data[-needed:], len(data)) == key
    assert key_of(data, len(data)) == key


def test_the_format_stays() -> None:
    """Entries that an older version wrote are read for ever: these bytes are of the first one."""
    old = bytes.fromhex("76616c756569373b050000000000000003000000627af157879d93667374782d6331")
    assert unpack(raw(old), KEY) == b"value"
    assert len(packed(b"value")) == len(old)


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        "text",
        [1, 2],
        None,
        np.float64(2),
        np.array([object()]),
        np.ma.masked_array([1, 2], [True, False]),
        {"a": np.arange(2)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_something_else_is_refused(value: Any) -> None:
    """Arrays and bytes are kept; nothing is pickled, and a mask is not dropped."""
    with pytest.raises(UsageError):
        normal(value)
