"""A store whose process dies at the k-th call: half of a batch is done, later calls do nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fstx.stores import Answer, Info, Store


class Died(BaseException):
    """The process died here."""


class DyingStore:
    """Passes calls on to `inner`; counts them.

    Parameters
    ----------
    inner
        The store.
    die_at
        Number of the call, from 1, at which the process dies; None: never.
    act
        Is called before each call, with its name and number.
    """

    def __init__(
        self,
        inner: Store,
        die_at: int | None = None,
        act: Callable[[str, int], None] | None = None,
    ) -> None:
        self._inner = inner
        self._die_at = die_at
        self._act = act
        self.calls = 0

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def identity(self) -> str:
        return f"{self._inner.identity} {id(self)}"

    def _step(self, name: str, torn: Callable[[], Any] = lambda: None) -> None:
        self.calls += 1
        if self._act is not None:
            self._act(name, self.calls)
        if self._die_at is not None and self.calls >= self._die_at:
            if self.calls == self._die_at:
                torn()
            raise Died(name)

    def put_new(self, key: str, data: bytes, /) -> Answer:
        # dies after it took effect: the harder half
        self._step("put_new", lambda: self._inner.put_new(key, data))
        return self._inner.put_new(key, data)

    def put(self, key: str, data: Any, /, *, checksum: str = "") -> None:
        self._step("put")
        self._inner.put(key, data, checksum=checksum)

    def start_put(self, key: str, data: Any, /, *, checksum: str = "") -> Any:
        self._step("put")
        return self._inner.start_put(key, data, checksum=checksum)

    def open(self, key: str, /) -> Any:
        self._step("open")
        return self._inner.open(key)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        self._step("get")
        return self._inner.get(key, start, stop)

    def list(self, prefix: str, /) -> Iterator[Info]:
        self._step("list")
        return self._inner.list(prefix)

    def info(self, key: str, /) -> Info | None:
        self._step("info")
        return self._inner.info(key)

    def delete(self, keys: Iterable[str], /) -> None:
        whole = list(keys)
        self._step("delete", lambda: self._inner.delete(whole[: len(whole) // 2]))
        self._inner.delete(whole)

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        self._step("replace_if")
        return self._inner.replace_if(key, data, token)

    def probe(self) -> Any:
        return self._inner.probe()

    def below(self, path: str, /) -> Store:
        return self._inner.below(path)
