"""``with fs.transaction:`` one commit for everything that the block does through the file system."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from fstx.backends.manifest import joining
from fstx.errors import StateError, UsageError
from fstx.filesystem.files import must_be_closed, open_files_of
from fstx.filesystem.places import Place
from fstx.filesystem.sessions import COVERED, Session, give_up
from fstx.filesystem.threads import aside
from fstx.types import Snapshot


class TransactionBlock:
    """A transaction on the dataset of a file system, for the running context.

    It covers open, pipe, put, cp, mv, rm, mkdir and touch, of this instance and of any other one that
    reaches the dataset, in this context: this thread or coroutine, and what is started from it with its
    context. Leaving the block commits; an exception rolls back and leaves nothing.
    """

    def __init__(self, fs: Any) -> None:
        self.fs = fs
        self._tx: Any = None
        self._place: Place | None = None
        self.snapshot: Snapshot | None = None

    @classmethod
    def running(cls, fs: Any) -> TransactionBlock:
        """The block that was started in this context.

        Raises
        ------
        StateError
            None was.
        """
        block = cls(fs)
        places = fs._session.places
        place = places.root_place(places.dataset_root())
        tx = joining.current(place.dataset.identity)
        if tx is None:
            raise StateError("no transaction was started in this context")
        block._place, block._tx = place, tx
        return block

    def __repr__(self) -> str:
        return f"<transaction of {self.fs!r}: {self._tx!r}>"

    @property
    def id(self) -> str:
        """The transaction's id."""
        return str(self._running().id)

    @property
    def url(self) -> str:
        """``tx://@ID::TARGET``: whoever writes there, from any thread or process, joins this transaction."""
        tx = self._running()
        tx.dataset.create()  # others find the root by its marker
        return str(tx.url)

    def start(self) -> None:
        """Begin, for the running context.

        Raises
        ------
        StateError
            A transaction on this dataset is running in this context already.
        UsageError
            The file system knows no dataset.
        """
        self._set(*self._begin())

    def complete(self, commit: bool = True) -> None:
        """Commit, or roll back."""
        self._leave()
        self._end(None if commit else _RollBackError())

    def __enter__(self) -> TransactionBlock:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._leave()
        self._end(error)

    async def __aenter__(self) -> TransactionBlock:
        self._set(*await aside(self._begin))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._leave()
        await aside(self._end, error)

    # --- pieces ---------------------------------------------------------------------------------

    @property
    def _session(self) -> Session:
        session: Session = self.fs._session
        return session

    def _running(self) -> Any:
        if self._tx is None:
            raise StateError("the transaction begins with its block: with fs.transaction as t: ...")
        return self._tx

    def _begin(self) -> tuple[Place, Any]:
        session = self._session
        session.writable()
        if session.reference:
            raise StateError(
                "this file system joins a transaction already, which ends where it was begun"
            )
        places = session.places
        root = places.dataset_root()
        place = places.root_place(root)
        assert place.dataset is not None
        outer = joining.current(place.dataset.identity)
        if outer is not None:
            raise StateError(
                f"transaction {outer.id} is running here on {places.target.url(root)}, and covers what this "
                "block does; leave out the inner one",
                txid=outer.id,
            )
        if places.target.token in COVERED.get():
            raise UsageError("a transaction of this file system is running on another dataset")
        return place, session.begin(place, "rebase")

    def _set(self, place: Place, tx: Any) -> None:
        self._place, self._tx = place, tx
        assert place.dataset is not None
        self._session.places.target.remember(place.root)
        joining.enter(place.dataset.identity, tx)
        self._session.transaction(place)
        COVERED.set(COVERED.get() | {self._session.places.target.token})

    def _leave(self) -> None:
        tx = self._running()
        joining.leave(tx.dataset.identity, tx)
        COVERED.set(COVERED.get() - {self._session.places.target.token})

    def _end(self, error: BaseException | None) -> None:
        tx, place = self._running(), self._place
        assert place is not None
        if error is None:
            try:
                must_be_closed(tx)
            except StateError as still_open:
                error = still_open
        if error is None:
            self._session.commit(place, tx)
            self.snapshot = tx.snapshot
            return
        for file in list(open_files_of(tx)):
            file.discard(error)
        give_up(tx, error)
        self._session.moved(place)
        if not tx.dataset.exists():
            self._session.places.target.unremember(place.root)
        if isinstance(error, StateError) and error.txid == tx.txid:
            raise error


class _RollBackError(Exception):
    """Stands for the error of a transaction that is ended without one."""


__all__ = ["TransactionBlock"]
