"""The contract between writers, transactions and backends. One page; no code.

Authority is split. A `Stager` may write bytes that nobody sees and gives back receipts; it pickles
and goes to workers. Only the `Transaction` may publish; it stays with the coordinator. A `Backend` is
one place and the strategy that commits there. Paths are logical: relative, ``/``-separated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from fstx.types import (
    Buffer,
    Capability,
    Data,
    Durability,
    Guarantee,
    Mode,
    OutcomeState,
    Recovery,
    Sidecars,
    Snapshot,
    StagedObject,
)

if TYPE_CHECKING:
    from pathlib import Path


class StagedFile(Protocol):
    """A binary writer of one staged object; its bytes are invisible until commit."""

    def write(self, data: Buffer, /) -> int: ...
    def tell(self) -> int: ...
    @property
    def receipt(self) -> StagedObject:
        """The receipt; there once the ``with`` block was left without an exception."""


class Stager(Protocol):
    """Stages objects, from any thread; where REMOTE_STAGING is promised, from any process."""

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage one whole object and return its receipt."""

    def open(self, path: str, /, *, publisher: bool = False) -> AbstractContextManager[StagedFile]:
        """Open a writer; leaving the block completes the object, an exception discards it."""


@runtime_checkable
class Transaction(Protocol):
    """A set of staged changes that is published whole or not at all. Leaving ``with`` commits.

    ``stage`` and ``open`` of a transaction also adopt what they staged; a later object of the same
    path wins over an earlier one.
    """

    @property
    def id(self) -> str:
        """The caller's id, or one drawn at random."""

    @property
    def url(self) -> str: ...
    @property
    def guarantee(self) -> Guarantee:
        """What is promised here, and what proved it."""

    @property
    def committed(self) -> bool:
        """True once published, also by an earlier run with the same id."""

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage and adopt one whole object: bytes, a buffer, or a list of them."""

    def open(self, path: str, /, *, publisher: bool = False) -> AbstractContextManager[StagedFile]:
        """``with tx.open(path) as file``: stage and adopt what is written; an exception discards it."""

    def local_path(
        self,
        path: str,
        /,
        *,
        copy: bool = False,
        sidecars: Sidecars = "refuse",
        publisher: bool = False,
    ) -> AbstractContextManager[Path]:
        """A path of this machine for a library that writes one file itself; staged when the block ends."""

    def stager(self) -> Stager:
        """A handle for workers: its receipts count only once `adopt` took them."""

    def adopt(self, receipts: Iterable[StagedObject], /) -> None:
        """Take objects that stagers staged; of two receipts for one path the later wins."""

    def compose(
        self, path: str, pieces: Sequence[Buffer | StagedObject], /, *, publisher: bool = False
    ) -> StagedObject:
        """Stage one object out of buffers and staged, unadopted objects, which are used up."""

    def remove(self, path: str, /) -> None:
        """Remove a file or a whole tree at commit, and forget what was staged there."""

    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes as they would be after commit. FileNotFoundError where there would be none."""

    def paths(self, prefix: str = "", /) -> Iterator[str]:
        """Paths of the files below `prefix` as they would be after commit, sorted."""

    def commit(self) -> Snapshot:
        """Publish all or nothing. CommitError: as it was. InDoubtError: ask `fstx.outcome`."""

    def rollback(self) -> None:
        """Give up: what was staged goes, the target is as it was."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None: ...


class Backend(Protocol):
    """One place, and the strategy that commits to it. Made by an entry point of ``fstx.backends``."""

    def guarantee(
        self, *, mode: Mode, durability: Durability, entry: str | None = None
    ) -> Guarantee:
        """What a transaction of this mode would keep here, probed; leaves nothing behind."""

    def begin(
        self,
        *,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability],
        entry: str | None = None,
        id: str | None = None,
    ) -> Transaction:
        """Begin, or raise `CapabilityError` before a byte is written."""

    def recover(self) -> Recovery:
        """Settle what dead writers left here: wholly old or wholly new."""

    def outcome(self, id: str, /) -> OutcomeState: ...
