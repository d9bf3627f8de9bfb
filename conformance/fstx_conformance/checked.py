"""An always-on validator: a backend between a caller and the contract, which watches both.

``Checked(backend)`` is a backend. Whatever breaks the contract raises `ContractError`, which names the side
and the rule; everything else passes through, so that it can stay in place while a program is developed::

    with Checked(registry.backend(["out/scene"])).begin(mode="update", ...) as tx:
        ...
"""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, get_args

from fstx.protocol import Backend, StagedFile, Transaction
from fstx.types import (
    Buffer,
    Capability,
    Data,
    Durability,
    Guarantee,
    Mode,
    OutcomeState,
    Recovery,
    Snapshot,
    StagedObject,
)
from fstx_conformance.watching import (
    CheckedFile,
    CheckedStager,
    ContractError,
    Reader,
    Sum,
    Watch,
    is_path,
)

_MEMBERS = [name for name in vars(Transaction) if not name.startswith("_")]


class Checked:
    """A backend whose calls are checked, those that it gets and those that it answers.

    Parameters
    ----------
    backend
        What is watched.
    reader
        Gives what readers find; asked at begin, before and after commit. Only for one writer at a time.
    strict
        False: what a caller does wrong is left to the backend, which has to refuse it.
    secrets
        Texts that may be nowhere in what people get to see.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        reader: Reader | None = None,
        strict: bool = True,
        secrets: Sequence[str] = (),
    ) -> None:
        self.inner = backend
        self._watch = Watch(strict, reader, secrets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"Checked({self.inner!r})"

    def guarantee(
        self, *, mode: Mode, durability: Durability, entry: str | None = None
    ) -> Guarantee:
        """As the backend's; every capability is named once, with a reason."""
        self._asked(mode, durability, entry)
        found = self._watch.call(
            "guarantee",
            lambda: self.inner.guarantee(mode=mode, durability=durability, entry=entry),
        )
        _guarantee(self._watch, found)
        same = (found.mode, found.durability) == (mode, durability)
        self._watch.backend(same, "BACKEND-1", f"guarantee answers another question: {found!r}")
        return found

    def begin(
        self,
        *,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability] = frozenset(),
        entry: str | None = None,
        id: str | None = None,
    ) -> CheckedTransaction:
        """As the backend's; what is required is promised."""
        watch = self._watch
        self._asked(mode, durability, entry)
        known = all(isinstance(c, Capability) for c in require)
        watch.caller(known, "BACKEND-3", f"require={require!r} is no set of capabilities")
        watch.caller(id is None or id, "BACKEND-31", "an id is a text that is not empty")
        tx = watch.call(
            "begin",
            lambda: self.inner.begin(
                mode=mode, durability=durability, require=require, entry=entry, id=id
            ),
        )
        # Asked of the class: to look at `url` gives a transaction away, which changes how it stages.
        whole = all(hasattr(type(tx), name) for name in _MEMBERS)
        watch.backend(whole, "BACKEND-1", f"begin returned {tx!r}, which is no transaction")
        _guarantee(watch, tx.guarantee)
        missing = require - tx.guarantee.capabilities
        watch.backend(not missing, "BACKEND-3", f"begin took require={sorted(missing)} for kept")
        watch.backend(id is None or tx.id == id, "BACKEND-31", f"id {id!r} became {tx.id!r}")
        early = tx.committed and id is None
        watch.backend(not early, "BACKEND-24", "committed is true of a transaction that just began")
        watch.shown(f"{tx!r} {tx.guarantee} {self.inner!r}")
        return CheckedTransaction(watch, tx, keyed=id is not None)

    def _asked(self, mode: Mode, durability: Durability, entry: str | None) -> None:
        self._watch.caller(mode in get_args(Mode), "BACKEND-1", f"there is no mode {mode!r}")
        known = durability in get_args(Durability)
        self._watch.caller(known, "BACKEND-1", f"there is no durability {durability!r}")
        good = entry is None or is_path(entry)
        self._watch.caller(good, "BACKEND-4", f"the entry {entry!r} is no path")

    def recover(self) -> Recovery:
        """As the backend's."""
        found = self._watch.call("recover", self.inner.recover)
        self._watch.backend(isinstance(found, Recovery), "BACKEND-38", f"recover gave {found!r}")
        return found

    def outcome(self, id: str, /) -> OutcomeState:
        """As the backend's."""
        found = self._watch.call("outcome", lambda: self.inner.outcome(id))
        self._watch.backend(
            isinstance(found, OutcomeState), "BACKEND-30", f"outcome gave {found!r}"
        )
        return found


def _guarantee(watch: Watch, found: Guarantee) -> None:
    watch.backend(isinstance(found, Guarantee), "BACKEND-1", f"guarantee gave {found!r}")
    named = sorted(p.capability for p in found.promises)
    watch.backend(named == sorted(Capability), "BACKEND-1", f"guarantee names {', '.join(named)}")
    dumb = [p.capability for p in found.promises if not p.reason.strip()]
    watch.backend(not dumb, "BACKEND-1", f"guarantee gives no reason for {', '.join(dumb)}")


class CheckedTransaction:
    """A transaction whose calls are checked."""

    def __init__(self, watch: Watch, inner: Any, *, keyed: bool) -> None:
        self._watch, self.inner = watch, inner
        self._keyed = (
            keyed  # an earlier run may have committed it: what it staged, nobody counts here
        )
        self._lock = threading.Lock()
        self._busy = self._writers = 0
        self._txid: str | None = None
        self._sums: dict[str, Sum] = {}  # by key of a receipt
        self._staged: dict[str, Sum] = {}  # by path: what counts now
        self._over = bool(inner.committed)
        self._snapshot: Snapshot | None = None
        self._base = watch.reader() if watch.reader is not None else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return repr(self.inner)

    def __reduce__(self) -> NoReturn:
        with contextlib.suppress(TypeError, pickle.PicklingError):
            pickle.dumps(self.inner)
            raise ContractError("backend", "BACKEND-12", "a transaction pickles")
        raise TypeError("a transaction stays with its coordinator; its stager goes to workers")

    # --- what the wrappers tell -------------------------------------------------------------------------

    @contextlib.contextmanager
    def using(self, what: str) -> Iterator[None]:
        """A call that stages is under way; after the end there has to be none that works."""
        over = self._over
        self._watch.caller(not over, "BACKEND-34", f"{what} after the end of the transaction")
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
        self._watch.backend(not over, "BACKEND-34", f"{what} worked after the end")

    def writing(self, step: int) -> None:
        """An object is being written, or is no more."""
        with self._lock:
            self._writers += step

    def received(self, receipt: object, path: str, sum: Sum, publisher: bool) -> None:
        """A receipt came for these bytes."""
        watch = self._watch
        if not isinstance(receipt, StagedObject):
            raise ContractError("backend", "BACKEND-7", f"no receipt but {receipt!r} for {path!r}")
        fits = (receipt.path, receipt.size_bytes) == (path, sum.size)
        watch.backend(fits, "BACKEND-7", f"{receipt!r} for {sum.size} bytes of {path!r}")
        with self._lock:
            self._txid = self._txid or receipt.txid
            known = self._sums.get(receipt.key)
            self._sums[receipt.key] = sum
        own = receipt.txid and receipt.txid == self._txid
        watch.backend(
            own, "BACKEND-8", f"{receipt!r} is of another transaction than {self._txid!r}"
        )
        watch.backend(known is None, "BACKEND-9", f"two attempts have the key {receipt.key!r}")
        if publisher:
            watch.backend(receipt.publisher, "BACKEND-23", f"{receipt!r} forgot that it publishes")
        copy = pickle.loads(pickle.dumps(receipt))
        watch.backend(copy == receipt, "BACKEND-7", f"{receipt!r} pickles to {copy!r}")

    def _own(self) -> CheckedStager:
        return CheckedStager(self._watch, self.inner, self)

    def _count(self, path: str, sum: Sum) -> None:
        self._staged[path] = sum

    # --- the transaction --------------------------------------------------------------------------------

    @property
    def committed(self) -> bool:
        """As the transaction's: true only after a commit."""
        told = bool(self.inner.committed)
        early = told and not self._over
        self._watch.backend(not early, "BACKEND-24", "committed is true before commit")
        return told

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """As the transaction's."""
        receipt = self._own().stage(path, data, publisher=publisher)
        self._count(path, self._sums[receipt.key])
        return receipt

    @contextlib.contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[StagedFile]:
        """As the transaction's."""
        with self._own().open(path, publisher=publisher) as file:
            yield file
        assert isinstance(file, CheckedFile)
        self._count(path, file.sum)

    @contextlib.contextmanager
    def local_path(self, path: str, /, **how: Any) -> Iterator[Path]:
        """As the transaction's; the bytes are a library's, so they aren't compared."""
        self.writing(1)
        try:
            with self.using("local_path"), self.inner.local_path(path, **how) as local:
                yield local
        finally:
            self.writing(-1)
        for known in [p for p in self._staged if p.startswith(path)]:  # with its sidecars
            del self._staged[known]

    def stager(self) -> CheckedStager:
        """As the transaction's, checked."""
        return CheckedStager(self._watch, self.inner.stager(), self)

    def adopt(self, receipts: Iterable[StagedObject], /) -> None:
        """As the transaction's; another's receipt is refused."""
        watch, told = self._watch, list(receipts)
        for receipt in told:
            watch.caller(
                isinstance(receipt, StagedObject), "BACKEND-8", f"{receipt!r} is no receipt"
            )
        foreign = [r for r in told if self._txid is not None and r.txid != self._txid]
        watch.caller(not foreign, "BACKEND-8", f"{foreign[:1]} is another transaction's receipt")
        with self.using("adopt"):
            watch.call("adopt", lambda: self.inner.adopt(told))
        watch.backend(not foreign, "BACKEND-8", f"adopt took {foreign[:1]}")
        for receipt in told:
            if receipt.key in self._sums:
                self._count(receipt.path, self._sums[receipt.key])
            else:
                self._staged.pop(receipt.path, None)  # staged elsewhere: its bytes were not seen

    def compose(
        self, path: str, pieces: Sequence[Buffer | StagedObject], /, *, publisher: bool = False
    ) -> StagedObject:
        """As the transaction's; the receipt is as long as the pieces."""
        with self.using("compose"):
            receipt: StagedObject = self._watch.call(
                "compose", lambda: self.inner.compose(path, pieces, publisher=publisher)
            )
        size = sum(
            p.size_bytes if isinstance(p, StagedObject) else memoryview(p).nbytes for p in pieces
        )
        fits = (receipt.path, receipt.size_bytes) == (path, size)
        self._watch.backend(fits, "BACKEND-7", f"{receipt!r} for {size} bytes of {path!r}")
        self._staged.pop(path, None)
        return receipt

    def remove(self, path: str, /) -> None:
        """As the transaction's."""
        with self.using("remove"):
            self._watch.call("remove", lambda: self.inner.remove(path), FileNotFoundError)
        for known in [p for p in self._staged if p == path or p.startswith(f"{path}/")]:
            del self._staged[known]

    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """As the transaction's; of what was staged here it gives those bytes."""
        with self.using("read"):
            found: bytes = self._watch.call(
                "read", lambda: self.inner.read(path, start, stop), FileNotFoundError
            )
        self._watch.backend(
            isinstance(found, bytes), "BACKEND-6", f"read gave {type(found).__name__}"
        )
        known = self._staged.get(path)
        if known is not None and start >= 0:
            length = len(range(known.size)[start:stop])
            right = len(found) == length and (length != known.size or Sum(found) == known)
            self._watch.backend(
                right, "BACKEND-6", f"read({path!r}, {start}, {stop}) is not what was staged"
            )
        return found

    def paths(self, prefix: str = "", /) -> Iterator[str]:
        """As the transaction's; sorted, each once, with what was staged."""
        with self.using("paths"):
            found = self._watch.call("paths", lambda: list(self.inner.paths(prefix)))
        ordered = found == sorted(set(found))
        self._watch.backend(ordered, "BACKEND-6", f"paths are not sorted, or doubled: {found[:9]}")
        if not prefix:
            missing = sorted(set(self._staged) - set(found))
            self._watch.backend(not missing, "BACKEND-6", f"paths lack {', '.join(missing[:5])}")
        return iter(found)

    # --- its end ------------------------------------------------------------------------------------------

    def commit(self) -> Snapshot:
        """As the transaction's; before it nothing is seen, after it everything."""
        self._watch.caller(
            not self._writers, "BACKEND-9", "commit while an object is being written"
        )
        self._unseen()
        try:
            snapshot: Snapshot = self._watch.call("commit", self.inner.commit)
        except BaseException:
            self._over = True
            raise
        self._over = True
        self._committed(snapshot)
        return snapshot

    def _unseen(self) -> None:
        if self._over or self._watch.reader is None:
            return
        found = dict(self._watch.reader())
        self._watch.backend(found == self._base, "BACKEND-5", "readers find a change before commit")

    def _committed(self, snapshot: object) -> None:
        watch = self._watch
        if not isinstance(snapshot, Snapshot):
            raise ContractError("backend", "BACKEND-34", f"commit returned {snapshot!r}")
        again = self._snapshot is None or self._snapshot == snapshot
        watch.backend(
            again, "BACKEND-34", f"commit again gave {snapshot!r}, not {self._snapshot!r}"
        )
        watch.backend(self.inner.committed, "BACKEND-24", "committed is false after commit")
        watch.shown(repr(snapshot))
        if self._snapshot is None and not self._keyed:
            seen = snapshot.paths >= len(self._staged)
            watch.backend(seen, "BACKEND-7", f"{snapshot!r} counts fewer than was staged")
            least = sum(s.size for s in self._staged.values())
            full = snapshot.size_bytes >= least
            watch.backend(full, "BACKEND-7", f"{snapshot!r} counts less than {least} bytes")
            self._seen(snapshot)
        self._snapshot = snapshot

    def _seen(self, snapshot: Snapshot) -> None:
        if self._watch.reader is None or snapshot.pending:
            return
        found = self._watch.reader()
        for path, wanted in self._staged.items():
            there = path in found and Sum(found[path]) == wanted
            self._watch.backend(there, "BACKEND-24", f"after commit readers don't find {path!r}")

    def rollback(self) -> None:
        """As the transaction's; readers find what they found."""
        was_over = self._over
        self._over = True
        self._watch.call("rollback", self.inner.rollback)
        if not was_over:
            self._watch.backend(not self.inner.committed, "BACKEND-32", "committed after rollback")
            if self._watch.reader is not None:
                same = dict(self._watch.reader()) == self._base
                self._watch.backend(same, "BACKEND-32", "readers find a change after rollback")

    def __enter__(self) -> Self:
        entered = self.inner.__enter__()
        self._watch.backend(entered is self.inner, "BACKEND-32", "`with` gives another object")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        was_over = self._over
        if kind is None and not was_over:
            self._watch.caller(not self._writers, "BACKEND-9", "the end while an object is written")
            self._unseen()
        self._over = True
        swallowed = self._watch.call(
            "the end of `with`", lambda: self.inner.__exit__(kind, error, trace)
        )
        self._watch.backend(
            not swallowed or kind is None, "BACKEND-32", f"`with` swallowed {error!r}"
        )
        if was_over:
            return
        if kind is None:
            self._watch.backend(
                self.inner.committed, "BACKEND-24", "committed is false after `with`"
            )
        else:
            kept = not self.inner.committed
            self._watch.backend(kept, "BACKEND-32", "committed after an exception in the block")


__all__ = ["Checked", "CheckedFile", "CheckedStager", "CheckedTransaction", "ContractError"]
