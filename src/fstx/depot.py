"""The contract of resumable jobs: where finished units of work wait for the commit. No code.

A `Depot` belongs to one job. It lies beside the target, under names that no reader looks for, and outlives
the process. What it holds is never published from there: the commit takes it over into a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from fstx.protocol import Stager, Transaction
from fstx.types import StagedObject


class Depot(Protocol):
    """Objects of finished units, a record for each unit, and the job's configuration. Thread-safe."""

    @property
    def name(self) -> str:
        """Its name among the depots of the place."""

    @property
    def quick(self) -> bool:
        """True where `give` is a call of the system or two: threads would only cost."""

    @property
    def url(self) -> str:
        """Where it lies, for messages."""

    def put_job(self, data: bytes, /) -> None:
        """Put the record of the configuration: whole, or as it was."""

    def get_job(self) -> bytes:
        """That record; FileNotFoundError where there is none."""

    def stager(self) -> Stager:
        """Stages objects here, from any thread; pickled, from where REMOTE_STAGING is promised."""

    def append(self, line: bytes, /) -> None:
        """Keep the record of one unit. Costs the same for the first and the last one."""

    def lines(self) -> Iterator[bytes]:
        """All records, oldest first; one that was cut off by a kill is left out."""

    def sizes(self) -> dict[str, int]:
        """Key and length of every object that is whole."""

    def read(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of an object, as a slice would give them."""

    def give(self, transaction: Transaction, kept: StagedObject, /) -> StagedObject:
        """Stage an object in `transaction`, by a link where there are links; it stays here, too."""

    def delete(self, keys: Iterable[str], /) -> None:
        """These objects are gone."""

    def decide(self, value: bytes, /) -> bytes:
        """Put a decision if there is none; the one that counts. FileNotFoundError: the depot is gone."""

    def decided(self) -> bytes | None:
        """The decision; None before."""

    def close(self) -> None:
        """All records are durable; the depot stays."""

    def remove(self) -> None:
        """Nothing of it is left."""

    def moved(self) -> bool:
        """True where a loss of power may have come since the job began: lengths alone prove nothing."""


@runtime_checkable
class Depots(Protocol):
    """The depots of one place, for a backend's targets. A backend that has them lets jobs resume."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The backend's targets, as they are named in this place."""

    def names(self) -> list[str]:
        """Names of all depots here, sorted."""

    def open(self, name: str, /) -> Depot:
        """The depot of that name, which need not exist. Nothing is read or written yet."""

    def sweep(self) -> list[str]:
        """Remove what is left of jobs that are over (late objects of their workers); URLs of what went."""
