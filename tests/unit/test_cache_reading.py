"""How a large entry is read: in pieces, by two threads, with the checksum that one would have computed."""

from __future__ import annotations

import _thread
import random
import threading
from typing import Any

import pytest

from fstx.caching import reading
from fstx.caching.entries import TAIL_BYTES
from fstx.caching.reading import PIECE_BYTES, read_summed
from fstx.state import entries
from fstx.state.entries import checksum


class File:
    """Bytes that are read as a file's, with who read which place."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read: list[tuple[int, int]] = []

    def read_at(self, into: Any, offset: int) -> int:
        self.read.append((threading.get_ident(), offset))
        found = self.data[offset : offset + into.size]
        into[: len(found)] = memoryview(found)
        return len(found)


SIZES = [
    1,
    100,
    PIECE_BYTES - 1,
    PIECE_BYTES,
    PIECE_BYTES + 1,
    2 * PIECE_BYTES,
    3 * PIECE_BYTES + 777,
]


@pytest.mark.parametrize("native", [True, False], ids=["crc32c", "crc32"])
@pytest.mark.parametrize("helped", [True, False])
def test_pieces_sum_up(helped: bool, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checksum of pieces, put together, is that of the whole, and each place is read once."""
    if not native:
        monkeypatch.setattr(entries, "_crc32c", lambda: None)
    for size in SIZES:
        file = File(random.Random(size).randbytes(size + TAIL_BYTES))
        found = read_summed(file.read_at, len(file.data), helped=helped)
        assert found.data.tobytes() == file.data
        assert found.known == checksum([file.data[:size]])
        assert sorted(at for _, at in file.read) == list(range(0, size, PIECE_BYTES))


def test_two_threads_read() -> None:
    """A helper reads while the caller does: each waits here until the other has a piece."""
    file = File(bytes(4 * PIECE_BYTES))
    both = threading.Barrier(2)

    def read_at(into: Any, offset: int) -> int:
        both.wait(60)
        return file.read_at(into, offset)

    read_summed(read_at, len(file.data), helped=True)
    assert sorted(at for _, at in file.read) == list(range(0, 4 * PIECE_BYTES, PIECE_BYTES))
    assert len({who for who, _ in file.read}) == 2


@pytest.mark.parametrize("failing", ["caller", "helper"])
def test_an_error_of_either_thread_is_raised(failing: str) -> None:
    """What storage says is raised in the caller's thread, and no thread reads afterwards."""
    file = File(bytes(40 * PIECE_BYTES))
    caller, both = threading.get_ident(), threading.Barrier(2)

    def read_at(into: Any, offset: int) -> int:
        who = "caller" if threading.get_ident() == caller else "helper"
        if offset < 2 * PIECE_BYTES:
            both.wait(60)
        if who == failing:
            raise OSError("the disk has lost it")
        return file.read_at(into, offset)

    with pytest.raises(OSError, match="lost it"):
        read_summed(read_at, len(file.data), helped=True)
    assert len(file.read) == len(set(file.read))


def test_a_late_helper_reads_nothing() -> None:
    """A helper that gets no processor before the end finds nothing to do: the file may be closed."""
    file = File(bytes(2 * PIECE_BYTES))
    late = reading._Reading(file.read_at, len(file.data))
    late.work()
    late.close()
    before = len(file.read)
    late.help()
    assert len(file.read) == before == 2
    unfinished = reading._Reading(file.read_at, len(file.data))
    unfinished.close()
    unfinished.help()
    assert len(file.read) == before


def test_without_a_thread_the_caller_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread the entry is read all the same."""

    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    file = File(random.Random(1).randbytes(2 * PIECE_BYTES))
    found = read_summed(file.read_at, len(file.data), helped=True)
    assert found.data.tobytes() == file.data


@pytest.mark.parametrize("there", [0, 5, PIECE_BYTES, 2 * PIECE_BYTES + 3])
def test_a_file_that_became_shorter(there: int) -> None:
    """What is not there any more is left out, and no checksum is told."""
    file = File(bytes(there))
    found = read_summed(file.read_at, 3 * PIECE_BYTES, helped=True)
    assert (found.data.size, found.known) == (there, "")
