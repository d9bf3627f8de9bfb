"""What stages the objects of one unit in the coordinator's process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from fstx.backends.localpath import streamed
from fstx.protocol import StagedFile, Stager
from fstx.resuming.summing import SummedFile
from fstx.state.entries import checksum
from fstx.types import Data, Sidecars, StagedObject


class Units(Protocol):
    """What the job decides."""

    def _begin_unit(self, writer: UnitWriter, /) -> None: ...

    def _end_unit(self, writer: UnitWriter, /, *, finished: bool) -> None: ...

    def _may_stage(self, path: str, unit: str, /) -> bool: ...


class UnitWriter:
    """Stages what belongs to one unit; the unit is finished, and kept, when its ``with`` block ends.

    `info` is a dictionary that is kept with the unit and may be filled in the block: plain JSON values.
    """

    def __init__(self, id: str, units: Units, stager: Stager) -> None:
        self.id = id
        self.info: dict[str, Any] = {}
        self._units = units
        self._stager = stager
        self._kept: dict[str, tuple[StagedObject, str]] = {}

    def __enter__(self) -> Self:
        self._units._begin_unit(self)
        self._kept.clear()  # of a block that failed before
        return self

    def __exit__(self, kind: object, error: object, trace: object, /) -> None:
        self._units._end_unit(self, finished=kind is None)

    def __repr__(self) -> str:
        return f"<unit {self.id}: {len(self._kept)} objects>"

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage one whole object of this unit; of two for one path the later counts."""
        last = self._units._may_stage(path, self.id) or publisher
        pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else list(data)
        staged = self._stager.stage(path, data, publisher=last)
        self._kept[path] = (staged, checksum(pieces))
        return staged

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[StagedFile]:
        """A binary writer of one object of this unit; an exception in the block discards it."""
        last = self._units._may_stage(path, self.id) or publisher
        with self._stager.open(path, publisher=last) as file:
            summed = SummedFile(file)
            yield summed
        self._kept[path] = (summed.receipt, str(summed.sum))

    def local_path(
        self, path: str, /, *, sidecars: Sidecars = "refuse"
    ) -> AbstractContextManager[Path]:
        """A local path for a library that writes one file of this unit itself; see `Transaction`."""
        self._units._may_stage(path, self.id)
        return streamed(self.open, path, sidecars=sidecars)

    @property
    def objects(self) -> tuple[tuple[StagedObject, str], ...]:
        """What was staged, each with its checksum where that is known yet."""
        return tuple(self._kept.values())


__all__ = ["UnitWriter"]
