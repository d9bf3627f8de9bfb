"""Reads the file of an entry into memory; the checksum of a large one is computed on the way, in pieces.

Two threads take the pieces, each the next one that nobody has. Where no second processor is free the helper
takes none, and nobody waits for it: then it costs its start, some 30 microseconds.
"""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fstx.caching.entries import TAIL_BYTES, room_for
from fstx.caching.places import Raw
from fstx.state.entries import checksum

ReadAt: TypeAlias = Callable[[Any, int], int]
"""Reads into memory from a place in the file; returns the bytes read, 0 at its end."""

LARGE_BYTES = 4 << 20
"""Up to this size an entry is read at once."""

PIECE_BYTES = 1 << 20
_POLYNOMIALS = {"c": 0x82F63B78, "z": 0xEDB88320}  # reflected, of CRC32C and CRC32


def read_whole(read_at: ReadAt, size_bytes: int) -> Raw:
    """All bytes, by one call as a rule; fewer where the file became shorter."""
    raw = room_for(size_bytes)
    return Raw(raw[: _fill(read_at, raw, 0)])


def read_summed(read_at: ReadAt, size_bytes: int, *, helped: bool) -> Raw:
    """As `read_whole`, with the checksum of all but the tail.

    `helped`: `read_at` may be called by two threads at once, and for places in any order.
    """
    reading = _Reading(read_at, size_bytes)
    if helped:
        with contextlib.suppress(RuntimeError):  # no thread can be started: alone, then
            _thread.start_new_thread(reading.help, ())
    try:
        reading.work()
    finally:
        reading.close()
    return reading.result()


class _Reading:
    """One entry on its way into memory."""

    def __init__(self, read_at: ReadAt, size_bytes: int) -> None:
        self._read_at = read_at
        self._raw = room_for(size_bytes)
        self._summed = size_bytes - TAIL_BYTES
        self._starts = iter(range(0, self._summed, PIECE_BYTES))
        self._sums: dict[int, str] = {}
        self._ends = size_bytes  # of what is there
        self._lock = threading.Lock()
        self._door = threading.Lock()  # held by the helper while it works
        self._closed = False
        self._error: BaseException | None = None

    def help(self) -> None:
        """In the helper's thread."""
        with self._door:
            if self._closed:
                return
            try:
                self.work()
            except BaseException as error:  # noqa: BLE001 - raised by `result`, in the caller's thread
                self._error = error

    def work(self) -> None:
        """Take pieces until none is left."""
        while (start := self._next()) is not None:
            end = start + PIECE_BYTES
            last = end >= self._summed
            piece = self._raw[start:] if last else self._raw[start:end]
            count = _fill(self._read_at, piece, start)
            if count < piece.size:
                with self._lock:
                    self._ends = min(self._ends, start + count)
            covered: Any = piece[: self._summed - start] if last else piece
            self._sums[start] = checksum([covered])

    def _next(self) -> int | None:
        with self._lock:
            return next(self._starts, None)

    def close(self) -> None:
        """No piece is taken from here on, and none is under way."""
        with self._lock:
            self._starts = iter(range(0))
        with self._door:
            self._closed = True

    def result(self) -> Raw:
        if self._error is not None:
            raise self._error
        if self._ends < self._raw.size:
            return Raw(self._raw[: self._ends])
        sums = [self._sums[start] for start in sorted(self._sums)]
        return Raw(self._raw, _joined(sums, self._summed - max(self._sums)))


def _fill(read_at: ReadAt, into: NDArray[np.uint8], offset: int) -> int:
    done = 0
    while done < into.size and (count := read_at(into[done:], offset + done)):
        done += count
    return done


def _joined(sums: list[str], last_bytes: int) -> str:
    """The checksum of pieces one behind the other, all of `PIECE_BYTES` but the last one."""
    kind, total = sums[0][0], int(sums[0][1:], 16)
    tables = _shift(PIECE_BYTES, kind)
    for sum_ in sums[1:-1]:
        total = _shifted(total, tables) ^ int(sum_[1:], 16)
    if len(sums) > 1:
        power = _power(last_bytes, _POLYNOMIALS[kind])
        total = _times(power, total, _POLYNOMIALS[kind]) ^ int(sums[-1][1:], 16)
    return f"{kind}{total:08x}"


def _shifted(value: int, tables: Any) -> int:
    """The checksum as if zeros had followed, but for its two inversions, which cancel in the sum."""
    low, second, third, high = tables
    found: int = (
        low[value & 255] ^ second[value >> 8 & 255] ^ third[value >> 16 & 255] ^ high[value >> 24]
    )
    return found


@cache
def _shift(size_bytes: int, kind: str) -> tuple[list[int], ...]:
    """`_times` by the power for so many bytes, byte by byte of the other factor."""
    polynomial = _POLYNOMIALS[kind]
    power = _power(size_bytes, polynomial)
    bits = [_times(power, 1 << bit, polynomial) for bit in range(32)]
    tables = []
    for byte in range(4):
        table = [0]
        for bit in bits[8 * byte : 8 * byte + 8]:
            table += [known ^ bit for known in table]
        tables.append(table)
    return tuple(tables)


def _power(size_bytes: int, polynomial: int) -> int:
    """x to so many bits, modulo the polynomial; the highest bit stands for 1."""
    found = 1 << 31
    for bit, square in enumerate(_squares(polynomial)):
        if 8 * size_bytes >> bit & 1:
            found = _times(square, found, polynomial)
    return found


@cache
def _squares(polynomial: int) -> tuple[int, ...]:
    """x to 1, 2, 4, 8 bits and so on, enough for a piece."""
    found = [1 << 30]
    while len(found) < (8 * PIECE_BYTES).bit_length():
        found.append(_times(found[-1], found[-1], polynomial))
    return tuple(found)


def _times(a: int, b: int, polynomial: int) -> int:
    """The product of two polynomials over GF(2), modulo a third."""
    found, bit = 0, 1 << 31
    while bit:
        if a & bit:
            found ^= b
        b = b >> 1 ^ polynomial if b & 1 else b >> 1
        bit >>= 1
    return found


__all__ = ["LARGE_BYTES", "PIECE_BYTES", "read_summed", "read_whole"]
