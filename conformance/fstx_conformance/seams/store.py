"""Faults at the requests to a store: a layer over any `fstx.stores.Store`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from fstx.stores import Answer, Info, Proof, Store
from fstx.types import Buffer
from fstx_conformance.injector import Call, Injector

_ROOM = re.compile(
    r".*fstx-conformance-[0-9a-f]+/r\d+/"
)  # keys in schedules mean the same elsewhere
_CONDITIONAL = frozenset({"put_new", "replace_if"})


class FaultStore:
    """One process over `inner`; each request can fail, be lost, doubled or late, or kill it.

    Uploads that the library starts and does not wait for are made at once, in the order of the calls, so that
    a schedule means the same each time. Of a batch of deletions each one is a request.
    """

    is_layer = True

    def __init__(self, inner: Store, injector: Injector) -> None:
        self.inner = inner
        self.injector = injector
        self._before: dict[tuple[str, str], Any] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)  # abilities that some stores have besides
        if name == "open_if":
            return lambda key, token: FaultWriter(self, key, found, token)
        return found

    def __repr__(self) -> str:
        return f"FaultStore({self.inner!r}, {self.injector.agent})"

    @property
    def url(self) -> str:
        """That of the store below."""
        return self.inner.url

    @property
    def identity(self) -> str:
        """Of this process alone: what a process knows of a place, another one does not."""
        return f"{self.inner.identity}#{id(self.injector)}"

    def _call(
        self,
        op: str,
        key: str,
        perform: Callable[[], Any],
        *,
        changing: bool = True,
        torn: Callable[[], Any] | None = None,
    ) -> Any:
        def error() -> OSError:
            return ConnectionError(f"no answer to {op} {self.url}/{key}")

        def refusal() -> OSError:
            return PermissionError(f"{op} {self.url}/{key} refused")

        def ambiguous() -> Any:
            if op in _CONDITIONAL:
                return Answer.UNKNOWN
            raise error()

        def stale() -> Any:
            known = (op, key)
            return self._before[known] if known in self._before else perform()

        def remembered() -> Any:
            found = perform()
            if not changing:
                self._before[(op, key)] = found
            return found

        return self.injector.call(
            Call(op, _ROOM.sub("", key), remembered, changing, ambiguous, refusal, torn, stale)
        )

    # --- writing ------------------------------------------------------------------------------------

    def put_new(self, key: str, data: bytes, /) -> Answer:
        answer: Answer = self._call("put_new", key, lambda: self.inner.put_new(key, data))
        return answer

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        whole = bytes(data)  # a late request must not see what the caller does to its buffer
        self._call("put", key, lambda: self.inner.put(key, whole, checksum=checksum))

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        done: Future[None] = Future()
        try:
            self.put(key, data, checksum=checksum)
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - the future carries it
            done.set_exception(error)
        return done

    def open(self, key: str, /) -> FaultWriter:
        return FaultWriter(self, key)

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        answer: Answer = self._call(
            "replace_if", key, lambda: self.inner.replace_if(key, data, token)
        )
        return answer

    def delete(self, keys: Iterable[str], /) -> None:
        for key in list(keys):
            self._call("delete", key, partial(self.inner.delete, [key]))

    # --- reading ------------------------------------------------------------------------------------

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        data: bytes = self._call(
            "get", key, lambda: self.inner.get(key, start, stop), changing=False
        )
        return data

    def list(self, prefix: str, /) -> Iterator[Info]:
        found: list[Info] = self._call(
            "list", prefix, lambda: list(self.inner.list(prefix)), changing=False
        )
        return iter(found)

    def info(self, key: str, /) -> Info | None:
        found: Info | None = self._call("info", key, lambda: self.inner.info(key), changing=False)
        return found

    # --- what it is ---------------------------------------------------------------------------------

    def probe(self) -> Proof:
        return self.inner.probe()  # with 16 threads: no schedule could mean the same twice

    def below(self, path: str, /) -> FaultStore:
        return FaultStore(self.inner.below(path), self.injector)


class FaultWriter:
    """A large object in pieces; opening, each piece and the end are requests."""

    def __init__(
        self,
        store: FaultStore,
        key: str,
        opened: Callable[..., Any] | None = None,
        *condition: str | None,
    ) -> None:
        self._store, self._key = store, key
        make = opened or store.inner.open
        self._inner = store._call("open", key, lambda: make(key, *condition))
        store.injector.on_death.append(self._forget)

    def _forget(self) -> None:
        if hasattr(self._inner, "abandon"):
            self._inner.abandon()

    def write(self, data: Buffer, /) -> None:
        """One piece."""
        piece = bytes(data)
        half = piece[: len(piece) // 2]
        self._store._call(
            "write",
            self._key,
            lambda: self._inner.write(piece),
            torn=lambda: self._inner.write(half),
        )

    def close(self) -> Any:
        """The object is there afterwards, whole; the answer, where it was opened on a condition."""
        return self._store._call("close", self._key, self._inner.close)

    def abort(self) -> None:
        """Nothing is there afterwards; a dead process aborts nothing."""
        if not self._store.injector.dead:
            self._inner.abort()


__all__ = ["FaultStore", "FaultWriter"]
