"""Layers to be changed in one call: over a store, over calls on files, over a backend; subjects with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from fstx import registry, seams
from fstx.backends.local import LocalBackend
from fstx.backends.manifest.dataset import Dataset
from fstx.ops import Ops
from fstx.protocol import Backend
from fstx.stores import Answer, Info, Proof, Store
from fstx.stores.opening import open_store
from fstx.types import Buffer, Guarantee, OutcomeState, Recovery
from fstx_conformance.injector import Injector
from fstx_conformance.seams.store import FaultStore
from fstx_conformance.subjects.disks import LocalOnDisk, OnDisk
from fstx_conformance.subjects.urls import (
    DatasetRoom,
    DatasetSubject,
    LocalRoom,
    LocalSubject,
    MemoryRoom,
    MemorySubject,
)

Wrap = Callable[[Any], Any]


def same(inner: Any) -> Any:
    """No layer."""
    return inner


# --- layers ---------------------------------------------------------------------------------------------


class OverOps:
    """All calls of `inner`, but for those that a subclass has."""

    is_layer = True

    def __init__(self, inner: Ops) -> None:
        self.inner: Any = inner

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.inner,))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class OverStore:
    """All requests to `inner`, but for those that a subclass has; uploads go by `put`."""

    is_layer = True

    def __init__(self, inner: Store) -> None:
        self.inner: Any = inner

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.inner,))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def url(self) -> str:
        """That of the store below."""
        return str(self.inner.url)

    @property
    def identity(self) -> str:
        """That of the store below."""
        return str(self.inner.identity)

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """As below."""
        answer: Answer = self.inner.put_new(key, data)
        return answer

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        """As below."""
        self.inner.put(key, data, checksum=checksum)

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        """By `put`, at once."""
        done: Future[None] = Future()
        try:
            self.put(key, data, checksum=checksum)
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - the future carries it
            done.set_exception(error)
        return done

    def open(self, key: str, /) -> Any:
        """As below."""
        return self.inner.open(key)

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        """As below."""
        answer: Answer = self.inner.replace_if(key, data, token)
        return answer

    def delete(self, keys: Iterable[str], /) -> None:
        """As below."""
        self.inner.delete(keys)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """As below."""
        data: bytes = self.inner.get(key, start, stop)
        return data

    def list(self, prefix: str, /) -> Iterator[Info]:
        """As below."""
        found: Iterator[Info] = self.inner.list(prefix)
        return found

    def info(self, key: str, /) -> Info | None:
        """As below."""
        found: Info | None = self.inner.info(key)
        return found

    def probe(self) -> Proof:
        """What the store below claims: nobody tries this layer."""
        proof: Proof = self.inner.probe()
        return proof

    def below(self, path: str, /) -> Any:
        """The same layer over a part."""
        return type(self)(self.inner.below(path))


class OverBackend:
    """All calls of another backend, but for those that a subclass has."""

    def __init__(self, inner: Backend) -> None:
        self.inner: Any = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def guarantee(self, **asked: Any) -> Guarantee:
        """As below."""
        found: Guarantee = self.inner.guarantee(**asked)
        return found

    def begin(self, **asked: Any) -> Any:
        """As below."""
        return self.inner.begin(**asked)

    def recover(self, **asked: Any) -> Recovery:
        """As below."""
        found: Recovery = self.inner.recover(**asked)
        return found

    def outcome(self, id: str, /) -> OutcomeState:
        """As below."""
        found: OutcomeState = self.inner.outcome(id)
        return found


# --- subjects ---------------------------------------------------------------------------------------------


class Local(LocalSubject):
    """Local files with layers.

    Parameters
    ----------
    below
        Put under the faults: what the system does wrong.
    above
        Put over the faults: what the backend does wrong.
    backend
        Put over the backend.
    """

    def __init__(
        self,
        url: str,
        *,
        below: Wrap = same,
        above: Wrap = same,
        backend: Wrap = same,
        **options: Any,
    ) -> None:
        super().__init__(url, **options)
        self._below, self._above, self._backend = below, above, backend

    def room(self) -> LocalRoom:
        room = super().room()
        return _LocalRoom(room.folder, self._make, self._below(room.ops(None)), self._above)

    def _make(self, folder: str, ops: Ops) -> Any:
        return self._backend(super()._make(folder, ops))

    def on_disk(self) -> OnDisk:
        def make(ops: Ops, path: str) -> Any:
            return self._backend(LocalBackend([path], joined=False, ops=ops, **self._options))

        return LocalOnDisk(
            make, over=lambda ops: self._above(self._below(ops)), exchange=self._exchange
        )


class _LocalRoom(LocalRoom):
    def __init__(self, folder: str, make: Any, ops: Ops, above: Wrap) -> None:
        super().__init__(folder, make, ops)
        self._above = above

    def ops(self, process: Injector | None) -> Any:
        return self._above(super().ops(process))


class Datasets(DatasetSubject):
    """Datasets with layers, as `Local`; what lies below also stands before the readers.

    `shown`: storage options that it says it has.
    """

    def __init__(
        self,
        url: str,
        *,
        below: Wrap = same,
        above: Wrap = same,
        backend: Wrap = same,
        shown: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(url, **options)
        self._shown = {**options, **(shown or {})}
        self._below, self._above, self._backend = below, above, backend

    @property
    def options(self) -> dict[str, Any]:
        return self._shown

    def room(self) -> DatasetRoom:
        room = super().room()
        return _DatasetRoom(room._inner, self._options, self._below, self._above, self._backend)

    def on_disk(self) -> OnDisk | None:
        plain = self._below is self._above is self._backend is same
        return super().on_disk() if plain else None  # the layers don't go there


class _DatasetRoom(DatasetRoom):
    def __init__(
        self, url: str, options: dict[str, Any], below: Wrap, above: Wrap, backend: Wrap
    ) -> None:
        super().__init__(url, options)
        self._below, self._above, self._backend = below, above, backend

    def open(self, process: Injector | None = None) -> Any:
        def layers(store: Any) -> Any:
            found = self._below(store)
            return self._above(found if process is None else FaultStore(found, process))

        with seams.under(seams.Layers(store=layers)):
            return self._backend(registry.backend([self.url], joined=False, **self._options))

    def dataset(self) -> Dataset:
        return Dataset(self._below(open_store(self._inner, **self._options)).below(".fstx"))


class Memory(MemorySubject):
    """Memory with a layer over the backend."""

    def __init__(self, url: str, *, backend: Wrap = same, **options: Any) -> None:
        super().__init__(url, **options)
        self._backend = backend

    def room(self) -> MemoryRoom:
        room = super().room()
        opened = room.open
        room.open = lambda process=None: self._backend(opened(process))  # type: ignore[method-assign]
        return room
