"""The transaction that `begin_across` gives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from fstx.across.publishing import REMOVE, published
from fstx.across.records import COMMIT, About, Member, forget_all, id_of
from fstx.backends.base import roll_back, storage_errors
from fstx.errors import FencedError, InDoubtError, PathError, StateError, TransactionError
from fstx.paths import check_path
from fstx.protocol import StagedFile
from fstx.resuming import ResumableTransaction
from fstx.types import Data, Guarantee, Snapshot


class TransactionAcross:
    """Changes of several targets, wherever they are: all of them come, or none. Leaving ``with`` commits.

    Paths begin with the last name of a target. Made by `begin_across`.
    """

    def __init__(self, members: Sequence[Member], about: About, guarantee: Guarantee) -> None:
        self._members = {m.name: m for m in members}
        self._order = list(members)
        self._about = about
        self._state = "open"
        self._snapshot: Snapshot | None = None
        self.guarantee = guarantee

    @property
    def id(self) -> str:
        """Drawn at random."""
        return self._about.id

    @property
    def urls(self) -> tuple[str, ...]:
        """The targets, in the order in which they are published."""
        return self._about.urls

    @property
    def committed(self) -> bool:
        """True once it is decided: nothing can undo it."""
        return self._state == "committed"

    def __repr__(self) -> str:
        return f"<TransactionAcross {self.id} {self._state} on {', '.join(self.urls)}>"

    # --- staging -----------------------------------------------------------------------------------

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> None:
        """Stage one whole object. Each path is staged once."""
        with self.open(path, publisher=publisher) as file:
            pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else data
            for piece in pieces:
                file.write(piece)

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[StagedFile]:
        """A binary writer of one object; an exception in the block discards it."""
        job = self._job_of(path)
        if job.is_done(id_of(path)):
            raise PathError(f"{path!r} is staged already; each path is staged once here")
        with (
            job.unit(id_of(path)) as unit,
            unit.open(path, publisher=publisher or path == self._about.entry) as file,
        ):
            yield file

    def remove(self, path: str, /) -> None:
        """Remove a file or a tree at commit. FileNotFoundError where there is none."""
        job = self._job_of(path)
        job.remove(path)
        with job.unit(REMOVE + id_of(path)) as unit:
            unit.info["remove"] = path

    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes as they would be after commit."""
        return self._job_of(path).read(path, start, stop)

    def paths(self, prefix: str = "", /) -> Iterator[str]:
        """Paths of all files below `prefix` as they would be after commit, sorted."""
        self._must_be_open()
        found: set[str] = set()
        for member in self._order:
            assert member.job is not None
            if not prefix or prefix.partition("/")[0] == member.name:
                found.update(member.job.paths(prefix))
        return iter(sorted(found))

    def _job_of(self, path: str) -> ResumableTransaction:
        self._must_be_open()
        member = self._members.get(check_path(path).partition("/")[0])
        if member is None or member.job is None:
            raise PathError(
                f"{path!r} lies in none of the targets; paths begin with one of "
                + ", ".join(map(repr, self._members))
            )
        return member.job

    def _must_be_open(self) -> None:
        if self._state != "open":
            raise StateError(f"transaction {self.id} is {self._state}", txid=self.id)

    # --- the end -----------------------------------------------------------------------------------

    def commit(self) -> Snapshot:
        """Decide, then publish one target after the other, the home last.

        Returns
        -------
        Snapshot
            ``pending`` where a storage refused to publish now: it is decided, and `recover_across` goes on.

        Raises
        ------
        FencedError
            It was given up for dead; all targets are as they were.
        StorageError
            Nothing was decided; all targets are as they were.
        InDoubtError
            The home did not say what was decided; `recover_across` settles it.
        """
        if self._snapshot is not None:
            return self._snapshot
        self._must_be_open()
        home = self._order[-1].job
        assert home is not None
        try:
            for member in self._order:
                assert member.job is not None
                with storage_errors(f"keeping what was staged for {member.url} failed", self.id):
                    member.job.depot.close()  # what was kept is durable before it is decided
        except BaseException:
            self.rollback()
            raise
        try:
            decided = home.depot.decide(COMMIT)
        except FileNotFoundError as error:
            self._state = "rolled back"
            raise self._fenced() from error
        except (OSError, TransactionError) as error:
            self._state = "in doubt"
            self._leave()
            raise InDoubtError(
                f"{self._about.urls[-1]} did not say what was decided on transaction {self.id} ({error}); "
                "fstx.recover_across(urls) settles it",
                txid=self.id,
                outcome="unknown",
            ) from error
        if decided != COMMIT:
            self.rollback()
            raise self._fenced()
        self._state = "committed"
        self._snapshot = self._publish()
        return self._snapshot

    def _fenced(self) -> FencedError:
        return FencedError(
            f"transaction {self.id} was given up for dead; all targets are as they were",
            txid=self.id,
            outcome="aborted",
        )

    def _publish(self) -> Snapshot:
        paths = size_bytes = 0
        reason = ""
        for member in self._order:
            try:
                done = published(member, self._about)
            except (TransactionError, OSError) as error:
                reason = f"{member.url} is not published yet: {error}; fstx.recover_across goes on"
                break
            except BaseException as error:
                error.add_note(f"transaction {self.id} is decided; fstx.recover_across finishes it")
                self._leave()
                raise
            paths, size_bytes = paths + done[0], size_bytes + done[1]
        if reason:
            self._leave()
        else:
            forget_all(self._order, self.id)
        return Snapshot(
            self.id, self.urls, "across", paths, size_bytes, pending=bool(reason), reason=reason
        )

    def _leave(self) -> None:
        """What is not published stays where it is kept."""
        for member in self._order:
            job, member.job = member.job, None
            if job is not None:
                with contextlib.suppress(OSError, TransactionError):
                    job.suspend()

    def rollback(self) -> None:
        """Give up: all targets are as they were, and nothing is left."""
        if self._state != "open":
            return
        self._state = "rolled back"
        for member in self._order:
            if member.job is not None:
                member.job.rollback()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        if self._state != "open":
            return
        if kind is None:
            self.commit()
            return
        roll_back(self.rollback, error, self.id)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a transaction stays with its coordinator")
