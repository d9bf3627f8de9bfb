"""The `memory` strategy over fsspec's memory file system: one dictionary swap under a lock.

Serves tests, and as the oracle of every other backend: the smallest code that keeps the contract.
Readers are plain ``memory://`` readers of the same process. Nothing outlives the process, so there is
nothing to recover and DURABLE is not promised.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from fstx.backends.base import BaseTransaction, refuse_missing
from fstx.backends.depots import StoreDepots
from fstx.backends.given import as_buffers
from fstx.errors import (
    ConflictError,
    PathError,
    StateError,
    StorageError,
    TargetExistsError,
)
from fstx.paths import CONTROL_NAME, check_path, is_below, is_covered, parents
from fstx.stores.memory import MemoryStore
from fstx.types import (
    Buffer,
    Capability,
    Data,
    Durability,
    Guarantee,
    Mode,
    OutcomeState,
    Promise,
    Recovery,
    Snapshot,
    StagedObject,
)

_COMMIT = threading.Lock()
_CLAIMS: set[str] = set()
_KEYED: dict[str, OutcomeState] = {}  # target + id -> what became of it

_PROMISES = (
    Promise(Capability.ATOMIC_OBJECT, True, "objects enter the dictionary whole"),
    Promise(Capability.ATOMIC_SET, True, "all paths change in one dictionary operation"),
    Promise(Capability.NO_GAP, True, "a path is overwritten, never deleted first"),
    Promise(Capability.DURABLE, False, "memory does not outlive the process"),
    Promise(
        Capability.RECOVERABLE, True, "staging dies with the process; the store is never between"
    ),
    Promise(
        Capability.CONFLICT_DETECTED, True, "identity of touched objects compared under the lock"
    ),
    Promise(Capability.FENCED, True, "a writer can't outlive the store"),
    Promise(Capability.REMOTE_STAGING, False, "other processes don't see this memory"),
    Promise(Capability.SNAPSHOTS, False, "plain paths hold one version"),
)


def open_backend(urls: Sequence[str], *, joined: bool = False, **options: object) -> MemoryBackend:
    """Entry point of scheme ``memory``. `joined`: paths begin with the name of a target."""
    if options:
        raise PathError(f"memory:// takes no options, got {', '.join(sorted(options))}")
    return MemoryBackend([_key(u) for u in urls], joined=joined)


def _key(url: str) -> str:
    path = url.removeprefix("memory://").strip("/")
    return check_path(path)


class MemoryBackend:
    """One or several targets in the process's memory file system."""

    def __init__(self, targets: Sequence[str], *, joined: bool) -> None:
        self._targets = tuple(targets)
        self._joined = joined
        names = [t.rpartition("/")[2] for t in targets]
        if len(set(names)) != len(names):
            raise PathError(f"targets of one transaction need different names, got {names}")

    @property
    def url(self) -> str:
        return "memory://" + self._targets[0]

    def __repr__(self) -> str:
        return f"MemoryBackend({', '.join(self._targets)})"

    def guarantee(
        self, *, mode: Mode, durability: Durability, entry: str | None = None
    ) -> Guarantee:
        return Guarantee(self.url, "memory", mode, durability, _PROMISES)

    def begin(
        self,
        *,
        mode: Mode,
        durability: Durability,
        require: frozenset[Capability],
        entry: str | None = None,
        id: str | None = None,
    ) -> MemoryTransaction:
        guarantee = self.guarantee(mode=mode, durability=durability, entry=entry)
        refuse_missing(guarantee, require)
        return MemoryTransaction(self, guarantee, mode, entry, id, require)

    def recover(self) -> Recovery:
        return Recovery(self.url)

    def depots(self, entry: str | None = None, /) -> StoreDepots:
        """Where unfinished jobs of these targets are kept, for as long as the process lives."""
        parent = self._targets[0].rpartition("/")[0]
        return StoreDepots(MemoryStore(f"{parent}/{CONTROL_NAME}"), self._targets)

    def outcome(self, id: str, /) -> OutcomeState:
        return _KEYED.get(f"{self.url} {id}", OutcomeState.UNKNOWN)

    def locate(self, path: str) -> str:
        """The store's key of a logical path."""
        if not self._joined:
            return f"/{self._targets[0]}/{path}"
        name, _, rest = path.partition("/")
        for target in self._targets:
            if target.rpartition("/")[2] == name:
                return f"/{target}/{rest}" if rest else f"/{target}"
        raise PathError(f"{path!r} lies in none of the targets")

    @property
    def roots(self) -> tuple[str, ...] | None:
        return tuple(t.rpartition("/")[2] for t in self._targets) if self._joined else None

    @property
    def places(self) -> tuple[str, ...]:
        return tuple("/" + t for t in self._targets)


class _MemoryFile(io.BytesIO):
    """A binary file whose content is taken when its ``with`` block ends, also if it was closed before."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.content: bytes | None = None
        self._receipt: StagedObject | None = None

    def close(self) -> None:
        if self.content is None:
            self.content = self.getvalue()
        super().close()

    @property
    def receipt(self) -> StagedObject:
        if self._receipt is None:
            raise StateError(
                f"{self.path!r} is not complete; its receipt comes when the block ends"
            )
        return self._receipt


class MemoryStager:
    """Stages into a dictionary of the transaction; threads of this process only."""

    def __init__(self, txid: str, staged: dict[str, bytes]) -> None:
        self._txid = txid
        self._staged = staged

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        with self.open(path, publisher=publisher) as file:
            for piece in as_buffers(path, data):
                file.write(piece)
        return file.receipt

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[_MemoryFile]:
        check_path(path)
        file = _MemoryFile(path)
        yield file
        file.close()
        key = secrets.token_hex(8)
        content = self._staged[key] = file.content or b""
        file._receipt = StagedObject(path, key, len(content), self._txid, publisher)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "memory:// can't be staged to from another process; use a thread scheduler or a "
            "target on storage"
        )


class MemoryTransaction(BaseTransaction):
    """A transaction over fsspec's memory file system."""

    def __init__(
        self,
        backend: MemoryBackend,
        guarantee: Guarantee,
        mode: Mode,
        entry: str | None,
        id: str | None,
        require: frozenset[Capability],
    ) -> None:
        super().__init__(
            txid=id or secrets.token_hex(16),
            url=backend.url,
            guarantee=guarantee,
            mode=mode,
            entry=entry,
            roots=backend.roots,
            require=require,
        )
        self._backend = backend
        self._staged_bytes: dict[str, bytes] = {}
        self._stager = MemoryStager(self._area_id(), self._staged_bytes)
        self._touched: dict[str, MemoryFile | None] = {}
        self._trees: dict[str, dict[str, MemoryFile]] = {}  # removed: what was below then
        self._register = f"{backend.url} {id}" if id is not None else None
        with _COMMIT:
            self._enter()

    def _area_id(self) -> str:
        return hashlib.sha256(self._id.encode()).hexdigest()[:32]

    def _enter(self) -> None:
        if self._register is not None:
            state = _KEYED.get(self._register)
            if state is OutcomeState.COMMITTED:
                self._state = "committed"
                return
            if state is OutcomeState.ACTIVE:
                raise ConflictError(f"transaction {self._id!r} is active already", txid=self._id)
        if self._mode == "create":
            for place in self._backend.places:
                if place in _CLAIMS:
                    raise ConflictError(
                        f"another transaction is creating memory:/{place}", txid=self._id
                    )
                self._must_be_absent(place)
            _CLAIMS.update(self._backend.places)
        if self._register is not None:
            _KEYED[self._register] = OutcomeState.ACTIVE
        self._base = {
            place: self._contents(place)
            for place in self._backend.places
            if self._mode == "replace"
        }

    def _must_be_absent(self, place: str) -> None:
        for key in MemoryFileSystem.store:
            if is_below(key, place):
                raise TargetExistsError(
                    f"memory:/{place} exists; use overwrite or another mode",
                    txid=self._id,
                    outcome="aborted",
                )

    @staticmethod
    def _contents(place: str) -> dict[str, MemoryFile]:
        return {k: f for k, f in MemoryFileSystem.store.copy().items() if is_below(k, place)}

    def stager(self) -> MemoryStager:
        return self._stager

    def _adopted(self, receipt: StagedObject, displaced: StagedObject | None) -> None:
        content = self._staged_bytes.get(receipt.key)
        if content is None or len(content) != receipt.size_bytes:
            raise StorageError(f"the staged bytes of {receipt.path!r} are not there", txid=self._id)
        if displaced is not None:
            self._drop([displaced])

    def _drop(self, receipts: Iterable[StagedObject]) -> None:
        for receipt in receipts:
            self._staged_bytes.pop(receipt.key, None)

    def _concatenate(
        self, path: str, pieces: Sequence[Buffer | StagedObject], publisher: bool
    ) -> StagedObject:
        for piece in pieces:
            if isinstance(piece, StagedObject) and piece.key not in self._staged_bytes:
                raise StateError(f"the piece {piece.path!r} was used up already", txid=self._id)
        data = [self._staged_bytes[p.key] if isinstance(p, StagedObject) else p for p in pieces]
        return self._stager.stage(path, data, publisher=publisher)

    def _read_staged(self, receipt: StagedObject, start: int, stop: int | None) -> bytes:
        return self._staged_bytes[receipt.key][start:stop]

    def _read_base(self, path: str, start: int, stop: int | None) -> bytes:
        file = MemoryFileSystem.store.get(self._backend.locate(path))
        if file is None:
            raise FileNotFoundError(f"{path!r} is not in {self._url}")
        return bytes(file.getbuffer()[start:stop])

    def _base_paths(self, prefix: str) -> Iterable[str]:
        roots = self._backend.roots
        for place in self._backend.places:
            name = place.rpartition("/")[2]
            for key in list(MemoryFileSystem.store):
                if not is_below(key, place):
                    continue
                rest = key[len(place) + 1 :]
                if roots is None:
                    if rest:
                        yield rest
                else:
                    yield f"{name}/{rest}" if rest else name

    def _exists_in_base(self, path: str) -> bool:
        where = self._backend.locate(path)
        return any(is_below(key, where) for key in list(MemoryFileSystem.store))

    def _touch(self, path: str) -> None:
        if path not in self._touched:
            self._touched[path] = MemoryFileSystem.store.get(self._backend.locate(path))

    def _touch_tree(self, path: str) -> None:
        self._touch(path)
        self._trees.setdefault(path, self._contents(self._backend.locate(path)))

    def _publish(self) -> Snapshot:
        changes = self._changes
        with _COMMIT:
            try:
                self._check_base()
                new = {
                    self._backend.locate(path): self._staged_bytes[receipt.key]
                    for path, receipt in changes.staged.items()
                }
                self._swap({k: MemoryFile(None, k, v) for k, v in new.items()})
            except BaseException:
                self._leave(OutcomeState.ABORTED)
                raise
            self._leave(OutcomeState.COMMITTED)
        urls = tuple("memory:/" + p for p in self._backend.places)
        return Snapshot(self._id, urls, "memory", len(changes.staged), changes.size_bytes)

    def _check_base(self) -> None:
        if self._mode == "create":
            for place in self._backend.places:
                self._must_be_absent(place)
        for place, before in getattr(self, "_base", {}).items():
            if _identities(self._contents(place)) != _identities(before):
                raise ConflictError(f"memory:/{place} was changed meanwhile", txid=self._id)
        for path, before in self._trees.items():
            if _identities(self._contents(self._backend.locate(path))) != _identities(before):
                raise ConflictError(f"{path!r} was changed by another writer", txid=self._id)
        for path, before_file in self._touched.items():
            if MemoryFileSystem.store.get(self._backend.locate(path)) is not before_file:
                raise ConflictError(f"{path!r} was changed by another writer", txid=self._id)
        if self._mode != "replace":
            self._check_kinds()

    def _check_kinds(self) -> None:
        """PathError where a staged file would be a directory of the base, or the reverse."""
        files = set(MemoryFileSystem.store)
        folders = {folder for key in files for folder in parents(key)}
        for path in self._changes.staged:
            where = self._backend.locate(path)
            if self._changes.gone(path):
                continue
            clash = (
                where if where in folders else next((p for p in parents(where) if p in files), None)
            )
            if clash is not None:
                raise PathError(f"{path!r}: a path can't be a file and a directory ({clash})")

    def _swap(self, new: dict[str, MemoryFile]) -> None:
        store = MemoryFileSystem.store
        going = {self._backend.locate(p) for p in self._changes.removed}
        if self._mode == "replace" and self._changes.staged:
            tops = {p.partition("/")[0] for p in self._changes.staged}
            going.update(
                place
                for place in self._backend.places
                if self._backend.roots is None or place.rpartition("/")[2] in tops
            )
        if not any(is_covered(key, going) for key in store):
            store.update(new)  # one C call: readers see all of it or none
            return
        after = {k: f for k, f in store.items() if not is_covered(k, going)}
        after.update(new)
        MemoryFileSystem.store = after

    def _leave(self, state: OutcomeState) -> None:
        if self._mode == "create":
            _CLAIMS.difference_update(self._backend.places)
        if self._register is not None and state is OutcomeState.COMMITTED:
            _KEYED[self._register] = state
        elif self._register is not None:
            _KEYED.pop(self._register, None)  # the id is free again
        self._staged_bytes.clear()

    def _give_up(self) -> None:
        with _COMMIT:
            self._leave(OutcomeState.ABORTED)

    def __del__(self, claims: set[str] = _CLAIMS, keyed: dict[str, OutcomeState] = _KEYED) -> None:
        # A transaction that was begun and dropped must not hold its claim or its id for ever. Bound
        # here, both are still there when the interpreter ends and the module's names are gone. No
        # lock: a finalizer may run inside any other call, also one that holds it.
        if getattr(self, "_state", "") == "open" and hasattr(self, "_base"):
            claims.difference_update(self._backend.places if self._mode == "create" else ())
            if self._register is not None:
                keyed.pop(self._register, None)


def _identities(files: Mapping[str, MemoryFile]) -> dict[str, int]:
    return {key: id(file) for key, file in files.items()}


__all__ = ["MemoryBackend", "MemoryTransaction", "open_backend"]
