"""Stagers that compute checksums of what passes through them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fstx.protocol import StagedFile, Stager
from fstx.state.entries import RunningChecksum, checksum
from fstx.types import Buffer, Data, StagedObject


class SummedFile:
    """A `StagedFile` that sums what is written to it."""

    def __init__(self, file: StagedFile) -> None:
        self._file = file
        self.sum = RunningChecksum()

    def write(self, data: Buffer, /) -> int:
        """Write; the checksum is that of the same bytes."""
        written = self._file.write(data)
        self.sum.add(data)
        return written

    def tell(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    @property
    def receipt(self) -> StagedObject:
        """Of the file below."""
        return self._file.receipt


class SummingStager:
    """Stages by another stager and keeps the checksum of each object, by key, until it is asked for."""

    def __init__(self, stager: Stager) -> None:
        self._stager = stager
        self._sums: dict[str, str] = {}

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage one whole object."""
        pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else list(data)
        staged = self._stager.stage(path, data, publisher=publisher)
        self._sums[staged.key] = checksum(pieces)
        return staged

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[StagedFile]:
        """A writer of one object."""
        with self._stager.open(path, publisher=publisher) as file:
            summed = SummedFile(file)
            yield summed
        self._sums[summed.receipt.key] = str(summed.sum)

    def take(self, receipt: StagedObject, /) -> str:
        """The checksum of an object, once."""
        return self._sums.pop(receipt.key, "")


__all__ = ["SummedFile", "SummingStager"]
