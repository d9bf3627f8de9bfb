"""TIFF tags and the header around them: one directory, classic or BigTIFF, little-endian.

TIFF 6.0 section 2, BigTIFF as in libtiff. A `Header` is packed once per block size and then patched
with the few numbers that differ from tile to tile: packing it anew would cost more than a fast codec.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from fstx.errors import UsageError

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE, LONG8 = 1, 2, 3, 4, 5, 7, 12, 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8}
_LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q", 17: "q"}
_ALIGN = 16

TILE_OFFSETS, TILE_BYTE_COUNTS = 324, 325
MODEL_PIXEL_SCALE, MODEL_TIE_POINT, MODEL_TRANSFORMATION = 33550, 33922, 34264
GEO_KEYS, GEO_DOUBLES, GEO_ASCII = 34735, 34736, 34737
GDAL_METADATA, GDAL_NODATA = 42112, 42113

OWN_CODES = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 283, 284, 296, 317, 322, 323}
    | {324, 325, 330, 338, 339, MODEL_PIXEL_SCALE, MODEL_TIE_POINT, MODEL_TRANSFORMATION}
    | {GEO_KEYS, GEO_DOUBLES, GEO_ASCII, GDAL_METADATA, GDAL_NODATA}
)
"""Tags that the writer sets itself, or that would make readers misunderstand the file."""


class Tag(NamedTuple):
    """One directory entry with its value spelled out."""

    code: int
    kind: int
    length: int
    payload: bytes


def numbers(code: int, kind: int, *values: float) -> Tag:
    """A tag of plain numbers."""
    return Tag(code, kind, len(values), struct.pack(f"<{len(values)}{_LETTERS[kind]}", *values))


def text(code: int, value: str) -> Tag:
    """An ASCII tag; other characters go as UTF-8, which GDAL reads."""
    payload = value.encode("utf-8") + b"\0"
    return Tag(code, ASCII, len(payload), payload)


def rational(code: int, value: float) -> Tag:
    """A RATIONAL tag. Raises UsageError where the value has no such spelling."""
    if not math.isfinite(value) or value < 0 or value >= 2**32:
        raise UsageError(f"resolution: {value!r} can't be a TIFF resolution")
    ratio = Fraction(value).limit_denominator(1_000_000 if value < 4000 else 1)
    return Tag(code, RATIONAL, 1, struct.pack("<II", ratio.numerator, ratio.denominator))


def parse_extra_tags(value: object) -> tuple[Tag, ...]:
    """Read ``(code, type, count, value)`` tuples as tifffile and xarray-spatial use them.

    ``type`` is the TIFF type number; ``count`` may be None. A fifth element is ignored. Raises UsageError
    for a tag that the writer sets itself, a double, or a value that doesn't fit its type.
    """
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise UsageError("extra_tags= must be a list of (code, type, count, value)")
    tags: dict[int, Tag] = {}
    for entry in value:
        if not isinstance(entry, Sequence) or len(entry) not in (4, 5):
            raise UsageError(f"extra_tags: {entry!r} is not (code, type, count, value)")
        tag = _extra_tag(*entry[:4])
        if tag.code in OWN_CODES:
            raise UsageError(f"extra_tags: tag {tag.code} is set by the writer; use its own option")
        if tag.code in tags:
            raise UsageError(f"extra_tags: tag {tag.code} is given twice")
        tags[tag.code] = tag
    return tuple(tags.values())


def _extra_tag(code: Any, kind: Any, count: Any, value: Any) -> Tag:
    try:
        code, kind = int(code), int(kind)
        if not 0 < code < 65536 or kind not in _SIZES:
            raise ValueError("code or type out of range")
        if kind == ASCII:
            payload = value.encode("utf-8") if isinstance(value, str) else bytes(value)
            tag = Tag(code, kind, len(payload.rstrip(b"\0")) + 1, payload.rstrip(b"\0") + b"\0")
        elif isinstance(value, bytes):
            tag = Tag(code, kind, len(value) // _SIZES[kind], value)
        elif kind == UNDEFINED:
            tag = Tag(code, kind, len(bytes(value)), bytes(value))
        else:
            items = list(value) if isinstance(value, Sequence) else [value]
            letter = {5: "I", 10: "i"}.get(kind) or _LETTERS[kind]
            payload = struct.pack(f"<{len(items)}{letter}", *items)
            tag = Tag(code, kind, len(payload) // _SIZES[kind], payload)
    except (TypeError, ValueError, struct.error) as error:
        raise UsageError(
            f"extra_tags: tag {code!r} has no value of type {kind!r}: {error}"
        ) from error
    if count is not None and kind != ASCII and int(count) != tag.length:
        raise UsageError(f"extra_tags: tag {code} has {tag.length} values, not {count}")
    return tag


@dataclass(frozen=True, slots=True)
class Header:
    """Packed bytes of everything before the pixels, and where the varying values lie in it."""

    packed: bytes
    places: dict[int, int]
    big: bool

    def filled(self, sizes: Sequence[int], values: dict[int, tuple[float, ...]]) -> bytearray:
        """A copy for tiles of these byte counts, with the DOUBLE tags in `values` replaced."""
        head = bytearray(self.packed)
        letter = "Q" if self.big else "I"
        offsets, at = [], len(head)
        for size in sizes:
            offsets.append(at)
            at += size
        form = f"<{len(sizes)}{letter}"
        struct.pack_into(form, head, self.places[TILE_OFFSETS], *offsets)
        struct.pack_into(form, head, self.places[TILE_BYTE_COUNTS], *sizes)
        for code, doubles in values.items():
            struct.pack_into(f"<{len(doubles)}d", head, self.places[code], *doubles)
        return head


def pack_header(tags: Sequence[Tag], tiles: int, *, big: bool) -> Header:
    """Pack `tags` and room for the offsets and byte counts of `tiles` tiles."""
    word, inline, letter = (8, 8, "Q") if big else (4, 4, "I")
    room = Tag(0, LONG8 if big else LONG, tiles, bytes(word * tiles))
    entries = sorted(
        [*tags, room._replace(code=TILE_OFFSETS), room._replace(code=TILE_BYTE_COUNTS)]
    )
    start, entry_size, count_letter = (16, 20, "Q") if big else (8, 12, "H")
    values_at = start + struct.calcsize("<" + count_letter) + entry_size * len(entries) + word
    directory = bytearray(struct.pack("<" + count_letter, len(entries)))
    values = bytearray()
    places: dict[int, int] = {}
    for tag in entries:
        directory += struct.pack(f"<HH{letter}", tag.code, tag.kind, tag.length)
        if len(tag.payload) <= inline:
            places[tag.code] = start + len(directory)
            directory += tag.payload.ljust(inline, b"\0")
        else:
            values += bytes(-(values_at + len(values)) % 8)
            places[tag.code] = values_at + len(values)
            directory += struct.pack("<" + letter, places[tag.code])
            values += tag.payload
    directory += bytes(word)  # no further directory
    magic = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    )
    packed = magic + directory + values
    return Header(packed + bytes(-len(packed) % _ALIGN), places, big)
