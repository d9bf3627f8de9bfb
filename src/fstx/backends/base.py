"""What every transaction does alike: its life, adoption, the view after commit, the ``with`` block.

A backend's transaction says how to stage, publish and give up; this class says when.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from fstx.backends.given import Opening
from fstx.backends.localpath import LocalPaths
from fstx.changes import Changes
from fstx.errors import CapabilityError, PathError, StateError, StorageError, TransactionError
from fstx.paths import check_path, parents
from fstx.protocol import StagedFile, Stager
from fstx.types import Buffer, Capability, Data, Guarantee, Mode, Snapshot, StagedObject


class BaseTransaction(LocalPaths, ABC):
    """Open, then committed or rolled back; never both, never twice."""

    def __init__(
        self,
        *,
        txid: str,
        url: str,
        guarantee: Guarantee,
        mode: Mode,
        entry: str | None,
        roots: tuple[str, ...] | None,
        require: frozenset[Capability],
    ) -> None:
        self._id = txid
        self._url = url
        self._guarantee = guarantee
        self._mode: Mode = mode
        self._entry = None if entry is None else check_path(entry)
        self._roots = roots  # names a path must begin with, or None: one tree
        self._require = require
        self._changes = Changes()
        self._lock = threading.RLock()
        self._state = "open"
        self._snapshot: Snapshot | None = None
        self._failure: BaseException | None = None

    # --- what a backend fills in -------------------------------------------------------------

    @abstractmethod
    def stager(self) -> Stager: ...

    @abstractmethod
    def _adopted(self, receipt: StagedObject, displaced: StagedObject | None) -> None:
        """Verify and place one adopted object; StorageError if its bytes are not all there."""

    @abstractmethod
    def _drop(self, receipts: Iterable[StagedObject]) -> None:
        """Staged objects that are no longer wanted. Best effort."""

    @abstractmethod
    def _concatenate(
        self, path: str, pieces: Sequence[Buffer | StagedObject], publisher: bool
    ) -> StagedObject: ...

    @abstractmethod
    def _read_staged(self, receipt: StagedObject, start: int, stop: int | None) -> bytes: ...

    @abstractmethod
    def _read_base(self, path: str, start: int, stop: int | None) -> bytes: ...

    @abstractmethod
    def _base_paths(self, prefix: str) -> Iterable[str]: ...

    @abstractmethod
    def _exists_in_base(self, path: str) -> bool: ...

    @abstractmethod
    def _touch(self, path: str) -> None:
        """Remember the base identity of a path that the commit depends on."""

    def _touch_tree(self, path: str) -> None:
        """As `_touch`, for a path that goes with all that it holds."""
        self._touch(path)

    @abstractmethod
    def _publish(self) -> Snapshot: ...

    @abstractmethod
    def _give_up(self) -> None: ...

    # --- the contract --------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The transaction's id: the caller's, or drawn at random."""
        return self._id

    @property
    def url(self) -> str:
        """The target."""
        return self._url

    @property
    def guarantee(self) -> Guarantee:
        """What is promised here, and what proved it."""
        return self._guarantee

    @property
    def mode(self) -> Mode:
        """``create``, ``replace`` or ``update``."""
        return self._mode

    @property
    def committed(self) -> bool:
        """True once published, also by an earlier run with the same id."""
        return self._state == "committed"

    @property
    def snapshot(self) -> Snapshot | None:
        """What `commit` published; None before."""
        return self._snapshot

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """Stage and adopt one whole object.

        Raises
        ------
        PathError
            The path can't be staged; nothing changed.
        StorageError
            Storage failed; only `rollback` is left, and the target is as it was.
        """
        with self._storage(f"staging {path!r}"):
            self._before_staging(path)
            receipt = self.stager().stage(path, data, publisher=self._ranks_last(path, publisher))
        self.adopt([receipt])
        return receipt

    def open(self, path: str, /, *, publisher: bool = False) -> AbstractContextManager[StagedFile]:
        """Open a binary writer for one object: ``with tx.open(path) as file: file.write(...)``.

        Leaving the block completes and adopts the object; an exception in the block discards it, and the
        transaction goes on as if it had never been opened.
        """
        return Opening(self._opened(path, publisher), path)

    @contextmanager
    def _opened(self, path: str, publisher: bool) -> Iterator[StagedFile]:
        with self._storage(f"staging {path!r}"):
            self._before_staging(path)
            opened: AbstractContextManager[StagedFile] = self.stager().open(
                path, publisher=self._ranks_last(path, publisher)
            )
        try:
            with opened as file:
                yield file
        except StorageError as error:
            self._failure = self._failure or error
            raise
        self.adopt([file.receipt])

    def adopt(self, receipts: Iterable[StagedObject], /) -> None:
        """Take objects that stagers staged; of two receipts for one path the later wins.

        Raises
        ------
        StateError
            A receipt belongs to another transaction, or this one is over.
        StorageError
            A staged object is missing or has another length than its receipt says.
        """
        with self._lock, self._storage("adopting what was staged"):
            self._must_be_open()
            for receipt in receipts:
                if receipt.txid != self._area_id():
                    raise StateError(
                        f"the receipt of {receipt.path!r} belongs to transaction {receipt.txid}, "
                        f"not to {self._area_id()}",
                        txid=self._id,
                    )
                self._allowed(receipt.path)
                self._changes.check(receipt.path)
                if self._changes.staged.get(receipt.path) == receipt:
                    continue  # the same receipt delivered twice
                self._touch(receipt.path)
                displaced = self._changes.staged.get(receipt.path)
                self._adopted(receipt, displaced)
                self._changes.add(receipt)

    def compose(
        self, path: str, pieces: Sequence[Buffer | StagedObject], /, *, publisher: bool = False
    ) -> StagedObject:
        """Stage and adopt one object made of buffers and of staged, unadopted objects in this order.

        The staged pieces are used up.
        """
        with self._storage(f"staging {path!r}"):
            self._before_staging(path)
        for piece in pieces:
            if isinstance(piece, StagedObject) and piece.txid != self._area_id():
                raise StateError(
                    f"the piece {piece.path!r} belongs to transaction {piece.txid}", txid=self._id
                )
        receipt = self._concatenate(path, pieces, self._ranks_last(path, publisher))
        self.adopt([receipt])
        self._drop(p for p in pieces if isinstance(p, StagedObject))
        return receipt

    def remove(self, path: str, /) -> None:
        """Remove a file or a whole tree at commit.

        Raises
        ------
        FileNotFoundError
            Neither staged nor in the base; of a replacement nothing is in the base.
        """
        with self._lock, self._storage(f"looking at {path!r}"):
            self._must_be_open()
            self._allowed(check_path(path), removing=True)
            staged = bool(self._changes.below(path))
            # Of a replacement the base is no part; only a whole target of several can be removed.
            hidden = self._mode == "replace" and path not in (self._roots or ())
            gone = self._changes.gone(path)  # removed before, and staged anew since
            based = not hidden and not gone and self._exists_in_base(path)
            if not staged and not based:
                raise FileNotFoundError(f"{path!r} is neither staged nor in {self._url}")
            if based:
                self._touch_tree(path)
                self._drop(self._changes.remove(path))
            else:
                self._drop(self._changes.remove(path))
                if not gone:
                    self._changes.removed.pop(path, None)

    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes `start` to `stop` of a file as it would be after commit; negative counts from the end.

        What is read of the base counts as depended upon: if it changes before commit, commit fails.
        """
        with self._lock:
            self._must_be_open()
            receipt = self._changes.staged.get(check_path(path))
            if receipt is not None:
                return self._read_staged(receipt, start, stop)
            if self._hidden(path):
                raise FileNotFoundError(f"{path!r} is not in {self._url} after this transaction")
            with self._storage(f"looking at {path!r}", fails=False):
                self._touch(path)
        with self._storage(f"reading {path!r}", fails=False):
            return self._read_base(path, start, stop)

    def paths(self, prefix: str = "", /) -> Iterator[str]:
        """Paths of all files below `prefix` as they would be after commit, sorted."""
        with self._lock:
            self._must_be_open()
            with self._storage(f"listing {prefix!r}", fails=False):
                base = [p for p in self._base_paths(prefix.rstrip("/")) if not self._replaces(p)]
            return self._changes.view(base, prefix)

    def commit(self) -> Snapshot:
        """Publish everything staged, or nothing.

        Returns
        -------
        Snapshot
            What was published; ``pending`` tells that recovery has to finish it.

        Raises
        ------
        CommitError
            Not published; the target is as it was.
        InDoubtError
            Storage did not say; ask `fstx.outcome`.
        StateError
            Already over, or staging had failed (then everything is rolled back first).
        """
        with self._lock:
            if self._state == "committed" and self._snapshot is not None:
                return self._snapshot
            self._must_be_open()
            if self._failure is not None:
                failure = self._failure
                made = StateError(
                    f"staging failed before ({failure}), so the transaction was rolled back",
                    txid=self._id,
                    outcome="aborted",
                )
                try:
                    self.rollback()
                except Exception as second:  # noqa: BLE001 - the first failure is the one to raise (A15)
                    made.add_note(f"rolling back failed as well: {second!r}")
                raise made from failure
            if self._mode == "replace" and self._is_empty():
                self.rollback()
                raise self._nothing_staged()
            try:
                self._snapshot = self._publish()
            except BaseException as error:
                if self._state == "open":  # an interrupted commit may have settled otherwise
                    self._state = (
                        "in doubt"
                        if getattr(error, "outcome", None) == "unknown"
                        else "rolled back"
                    )
                raise
            self._state = "committed"
            return self._snapshot

    def rollback(self) -> None:
        """Give up: everything staged goes, the target is as it was. Again: nothing happens."""
        with self._lock:
            if self._state == "rolled back":
                return
            self._must_be_open()
            self._state = "rolled back"
            self._give_up()

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
        roll_back(self.rollback, error, self._id)

    def __repr__(self) -> str:
        with self._lock:
            return (
                f"<Transaction {self._id[:12]} {self._state} on {self._url}: mode {self._mode}, "
                f"{self._guarantee.strategy}, {len(self._changes.staged)} staged, "
                f"{len(self._changes.removed)} removed>"
            )

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "a Transaction stays with its coordinator; send tx.stager() to workers and give their "
            "receipts to tx.adopt()"
        )

    # --- shared pieces -------------------------------------------------------------------------

    def _area_id(self) -> str:
        return self._id

    def _must_be_open(self) -> None:
        if self._state != "open":
            hint = (
                "; it was committed by an earlier run with the same id: test tx.committed first"
                if self._state == "committed" and self._snapshot is None
                else ""
            )
            raise StateError(f"transaction {self._id} is {self._state}{hint}", txid=self._id)

    def _is_empty(self) -> bool:
        """True where nothing was staged or removed, by anyone."""
        return not self._changes

    def _nothing_staged(self) -> StateError:
        return StateError(
            f"nothing was staged for {self._url}, so it was left as it is; to empty a target remove "
            "its paths in mode 'update'",
            txid=self._id,
            outcome="aborted",
        )

    def _before_staging(self, path: str) -> None:
        with self._lock:
            self._must_be_open()
            self._changes.check(path)
            self._allowed(path)
            self._touch(path)

    @contextmanager
    def _storage(self, doing: str, *, fails: bool = True) -> Iterator[None]:
        """What storage refuses becomes a StorageError; if it `fails`, only rollback is left.

        That a path holds no file is an answer, and comes out as it is.
        """
        try:
            yield
        except StorageError as error:
            self._failure = (self._failure or error) if fails else self._failure
            raise
        except TransactionError:
            raise
        except OSError as error:
            answers = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
            if isinstance(error, answers) and (not fails or error.errno is None):
                raise
            made = wrap_storage_error(error, f"{doing} at {self._url} failed", self._id)
            if fails:
                self._failure = self._failure or made
            raise made from error

    def _allowed(self, path: str, *, removing: bool = False) -> None:
        if self._roots is not None and path.partition("/")[0] not in self._roots:
            raise PathError(
                f"{path!r} lies in none of the targets; paths begin with one of "
                + ", ".join(repr(r) for r in self._roots)
            )
        if (
            not removing
            and self._entry is not None
            and Capability.ATOMIC_SET in self._require
            and path != self._entry
            and self._mode == "update"
            and self._exists_in_base(path)
            and path not in self._changes.staged
        ):
            raise PathError(
                f"{path!r} exists; where readers enter by {self._entry!r}, parts need new names, or a "
                "reader could meet old and new parts together (or begin with a lower require=)"
            )

    def _ranks_last(self, path: str, publisher: bool) -> bool:
        return publisher or path == self._entry

    def _replaces(self, path: str) -> bool:
        """True when the target of `path` is replaced whole: something is staged for it."""
        if self._mode != "replace":
            return False
        if self._roots is None:
            return bool(self._changes.staged)
        return self._changes.holds(path.partition("/")[0])

    def _hidden(self, path: str) -> bool:
        """True when what the base holds at `path` is not there any more after commit."""
        return (
            self._replaces(path)
            or self._changes.gone(path)
            or any(p in self._changes.staged for p in parents(path))
        )


def roll_back(undo: Callable[[], object], error: BaseException | None, txid: str) -> None:
    """Undo after `error`, which is the one to raise: a failure in that becomes a note of it (A15)."""
    try:
        undo()
    except Exception as second:  # noqa: BLE001 - see above
        if error is not None:
            error.add_note(f"rolling back transaction {txid} failed as well: {second!r}")


def wrap_storage_error(error: OSError, doing: str, txid: str | None = None) -> StorageError:
    """The storage's error with the path named; raise it ``from error``."""
    made = StorageError(f"{doing}: {error.strerror or error}", txid=txid, outcome="aborted")
    made.errno = error.errno
    return made


@contextmanager
def storage_errors(doing: str, txid: str | None = None) -> Iterator[None]:
    """What storage refuses within the block becomes a StorageError that says what was done."""
    try:
        yield
    except TransactionError:
        raise
    except OSError as error:
        raise wrap_storage_error(error, doing, txid) from error


def note_other(error: BaseException, other: BaseException) -> None:
    """Keep a further failure with the first one (A14)."""
    if isinstance(error, TransactionError):
        error.others = (*error.others, other)
    else:
        error.add_note(f"another failure: {other!r}")


def refuse_missing(promised: Guarantee, require: frozenset[Capability]) -> None:
    """CapabilityError naming what is missing, why, and the ways out."""
    missing = sorted(require - promised.capabilities)
    if missing:
        raise CapabilityError(
            f"{promised.url} (strategy {promised.strategy}, mode {promised.mode}) does not promise "
            + ", ".join(missing)
            + ": "
            + "; ".join(promised[c].reason for c in missing)
            + ". Ways out: another target or mode, or a lower require="
        )


def key_of(id: str) -> str:
    """Name on disk of a caller's id."""
    return "k-" + hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:32]
