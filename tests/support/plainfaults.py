"""A store whose k-th request goes wrong, and the jobs that are run over it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Literal

from fstx.backends.plain import PlainBackend, owner
from fstx.backends.plain.home import Home
from fstx.backends.plain.names import is_gone
from fstx.stores import Answer, Info, Proof, Store, StoreWriter
from fstx.types import Buffer

Fault = Literal[
    "kill",
    "kill-after",
    "unknown",
    "unknown-after",
    "error",
    "error-after",
    "interrupt",
    "interrupt-after",
]


class Killed(BaseException):
    """The process is gone: this request and all later ones never return."""


class FaultStore:
    """A `Store` over another one that counts requests, and does `fault` at request number `at`.

    ``kill``: that request is not made, nor any later one. ``unknown``: a conditional put says so,
    other requests raise. ``-after``: it was made all the same. Shared by all stores below one.
    """

    def __init__(self, inner: Store, plan: Plan) -> None:
        self.inner = inner
        self.plan = plan

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def identity(self) -> str:
        return self.inner.identity

    def _do(self, name: str, call: Callable[[], Any], *, conditional: bool = False) -> Any:
        fault = self.plan.next(name)
        if fault is None:
            return call()
        if fault.endswith("-after"):
            call()
        if fault.startswith("kill"):
            raise Killed(name)
        if fault.startswith("interrupt"):
            raise KeyboardInterrupt(name)
        if conditional and fault != "error":  # an error of theirs says that nothing was done
            return Answer.UNKNOWN
        raise ConnectionError(f"no answer to {name}")

    def put_new(self, key: str, data: bytes, /) -> Answer:
        answer: Answer = self._do(
            f"put_new {key}", lambda: self.inner.put_new(key, data), conditional=True
        )
        return answer

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        answer: Answer = self._do(
            f"replace_if {key}", lambda: self.inner.replace_if(key, data, token), conditional=True
        )
        return answer

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        self._do(f"put {key}", lambda: self.inner.put(key, data, checksum=checksum))

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        done: Future[None] = Future()
        try:
            self.put(key, data, checksum=checksum)
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - the future carries it
            done.set_exception(error)
        return done

    def open(self, key: str, /) -> StoreWriter:
        return _Writer(self, key)

    def open_if(self, key: str, token: str | None, /) -> _ConditionalWriter:
        return _ConditionalWriter(self, key, token)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        data: bytes = self._do(f"get {key}", lambda: self.inner.get(key, start, stop))
        return data

    def list(self, prefix: str, /) -> Iterator[Info]:
        yield from self._do(f"list {prefix}", lambda: list(self.inner.list(prefix)))

    def info(self, key: str, /) -> Info | None:
        found: Info | None = self._do(f"info {key}", lambda: self.inner.info(key))
        return found

    def delete(self, keys: Iterable[str], /) -> None:
        for key in list(keys):  # a batch may be cut anywhere
            self._do(f"delete {key}", lambda key=key: self.inner.delete([key]))

    def probe(self) -> Proof:
        return self.inner.probe()

    def below(self, path: str, /) -> Store:
        return FaultStore(self.inner.below(path), self.plan)


class Plan:
    """What goes wrong, and when. ``at`` 0: nothing, requests are counted."""

    def __init__(self, at: int = 0, fault: Fault = "kill") -> None:
        self.at = at
        self.fault: Fault = fault
        self.count = 0
        self.names: list[str] = []
        self.dead = False
        self._lock = threading.Lock()

    def next(self, name: str) -> Fault | None:
        with self._lock:
            if self.dead:
                raise Killed(name)
            self.count += 1
            self.names.append(name)
            if self.count != self.at:
                return None
            self.dead = self.fault.startswith("kill")
            return self.fault


class _Writer:
    def __init__(self, store: FaultStore, key: str) -> None:
        self._store, self._key = store, key
        self._pieces: list[bytes] = []

    def write(self, data: Buffer, /) -> None:
        self._pieces.append(bytes(data))

    def close(self) -> None:
        self._store.put(self._key, b"".join(self._pieces))

    def abort(self) -> None:
        self._pieces = []


class _ConditionalWriter(_Writer):
    def __init__(self, store: FaultStore, key: str, token: str | None) -> None:
        super().__init__(store, key)
        self._token = token

    def close(self) -> Answer:  # type: ignore[override]
        answer = Answer.BUSY
        for _ in range(3):
            answer = self._store.replace_if(self._key, b"".join(self._pieces), self._token)
            if answer in (Answer.DONE, Answer.TAKEN):
                break
        return answer


def backend(store: Store, names: list[str], **given: Any) -> PlainBackend:
    """A backend that knows nothing of what happened before in this process."""
    options = {"joined": False, "late_s": 0.0, **given}
    return PlainBackend(store, names, home=Home(store), **options)


def died() -> None:
    """Every transaction of this process is a dead one's from here on."""
    owner._open.clear()


def content(store: Store) -> dict[str, bytes]:
    """What plain readers find."""
    keys = [i.key for i in store.list("") if not i.key.startswith(".fstx/")]
    return {key: store.get(key) for key in keys}


def control(store: Store) -> set[str]:
    """The kinds of objects that are left in the home."""
    keys = [i.key for i in store.list(".fstx/") if not is_gone(i.key)]
    return {key.split("/")[1] for key in keys}
