"""What stages the objects of one unit in the coordinator's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from fstx.backends.localpath import streamed
from fstx.protocol import StagedFile, Stager
from fstx.resuming.summing import SummedFile
from fstx.state.entries import checksum
from fstx.types import Data, Sidecars, StagedObject


class UnitWriter:
    """Stages what belongs to one unit; the unit is finished, and kept, when its ``with`` block ends.

    `info` is a dictionary that is kept with the unit and may be filled in the block: plain JSON values.
    """

    def __init__(self, id: str, stager: Stager, check: Callable[[str], bool]) -> None:
        self.id = id
        self.info: dict[str, Any] = {}
        self._stager = stager
        self._check = check
        self._kept: dict[str, tuple[StagedObject, str]] = {}

    def __repr__(self) -> str:
        return f"<unit {self.id}: {len(self._kept)} objects>"

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage one whole object of this unit; of two for one path the later counts."""
        last = self._check(path) or publisher
        pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else list(data)
        staged = self._stager.stage(path, data, publisher=last)
        self._kept[path] = (staged, checksum(pieces))
        return staged

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[StagedFile]:
        """A binary writer of one object of this unit; an exception in the block discards it."""
        last = self._check(path) or publisher
        with self._stager.open(path, publisher=last) as file:
            summed = SummedFile(file)
            yield summed
        self._kept[path] = (summed.receipt, str(summed.sum))

    def local_path(
        self, path: str, /, *, sidecars: Sidecars = "refuse"
    ) -> AbstractContextManager[Path]:
        """A local path for a library that writes one file of this unit itself; see `Transaction`."""
        self._check(path)
        return streamed(self.open, path, sidecars=sidecars)

    @property
    def objects(self) -> tuple[tuple[StagedObject, str], ...]:
        """What was staged, each with its checksum where that is known yet."""
        return tuple(self._kept.values())


__all__ = ["UnitWriter"]
