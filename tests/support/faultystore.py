"""A store whose k-th call fails, answers UNKNOWN, or runs something first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Literal

from fstx.stores import Answer, Info, Proof, Store, StoreWriter
from fstx.types import Buffer

Fault = Literal["none", "error", "unknown", "unknown-after", "interrupt", "interrupt-after"]


class FaultyStore:
    """Passes calls on to `inner` and counts them.

    Parameters
    ----------
    inner
        The store.
    at
        Number of the call, from 1, that goes wrong; 0: none does.
    fault
        What it does: ``error`` raises, ``unknown`` is the answer to a conditional put (an error for other
        calls), ``interrupt`` is Ctrl-C; with ``-after`` the call was made all the same.
    times
        So many calls from `at` on go wrong.
    act
        Called before each call, with its name, its key and its number; may raise.
    """

    def __init__(
        self,
        inner: Store,
        at: int = 0,
        fault: Fault = "none",
        *,
        times: int = 1,
        act: Callable[[str, str, int], None] = lambda name, key, number: None,
    ) -> None:
        self.inner = inner
        self.at = at
        self.fault = fault
        self.times = times
        self.act = act
        self.calls = 0

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def identity(self) -> str:
        return self.inner.identity

    def _do(self, name: str, key: str, call: Callable[[], Any]) -> Any:
        self.calls += 1
        number = self.calls
        self.act(name, key, number)
        if not self.at or not self.at <= number < self.at + self.times:
            return call()
        if self.fault.endswith("-after"):
            call()
        if self.fault.startswith("interrupt"):
            raise KeyboardInterrupt
        if name in ("put_new", "replace_if") and self.fault.startswith("unknown"):
            return Answer.UNKNOWN
        raise ConnectionError(f"no answer to {name} {key}")

    def put_new(self, key: str, data: bytes, /) -> Answer:
        answer: Answer = self._do("put_new", key, lambda: self.inner.put_new(key, data))
        return answer

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        self._do("put", key, lambda: self.inner.put(key, data, checksum=checksum))

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        done: Future[None] = Future()
        try:
            self.put(key, data, checksum=checksum)
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 - the future carries it
            done.set_exception(error)
        return done

    def open(self, key: str, /) -> StoreWriter:
        found: StoreWriter = self._do("open", key, lambda: self.inner.open(key))
        return found

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        data: bytes = self._do("get", key, lambda: self.inner.get(key, start, stop))
        return data

    def list(self, prefix: str, /) -> Iterator[Info]:
        found: list[Info] = self._do("list", prefix, lambda: list(self.inner.list(prefix)))
        return iter(found)

    def info(self, key: str, /) -> Info | None:
        found: Info | None = self._do("info", key, lambda: self.inner.info(key))
        return found

    def delete(self, keys: Iterable[str], /) -> None:
        self._do("delete", "", lambda: self.inner.delete(keys))

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        answer: Answer = self._do(
            "replace_if", key, lambda: self.inner.replace_if(key, data, token)
        )
        return answer

    def probe(self) -> Proof:
        return self.inner.probe()

    def below(self, path: str, /) -> Store:
        return self.inner.below(path)
