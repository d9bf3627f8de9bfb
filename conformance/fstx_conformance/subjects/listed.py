"""What lies below a root, as one listing tells it: readers on a server ask again only for what is another.

A listing gives the token of each object, and that is another one as soon as the content is. So a whole state
is read with one request and one more for each object that was not read before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future

from fstx.stores import Answer, Info, Proof, Store, StoreWriter
from fstx.types import Buffer

Contents = dict[str, tuple[str, bytes]]
"""By URL: the token that an object had, and its content then."""


class ListedStore:
    """The objects of `inner` at the moment when this is made. Nothing can be written.

    Parameters
    ----------
    inner
        Asked for one listing, and for each object that `contents` does not know.
    contents
        What was read before, added to.
    """

    def __init__(self, inner: Store, contents: Contents) -> None:
        self._inner, self._contents = inner, contents
        self._infos = {info.key: info for info in inner.list("")}

    def __repr__(self) -> str:
        return f"ListedStore({self._inner!r}, {len(self._infos)} objects)"

    @property
    def url(self) -> str:
        return self._inner.url

    @property
    def identity(self) -> str:
        return self._inner.identity

    def list(self, prefix: str, /) -> Iterator[Info]:
        return (info for key, info in self._infos.items() if key.startswith(prefix))

    def info(self, key: str, /) -> Info | None:
        return self._infos.get(key)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        return self._whole(key)[start:stop]

    def _whole(self, key: str) -> bytes:
        info = self._infos.get(key)
        if info is None:
            raise FileNotFoundError(f"{self.url}/{key}")
        name = f"{self.url}/{key}"
        known = self._contents.get(name)
        if known is not None and info.token is not None and known[0] == info.token:
            return known[1]
        data = self._inner.get(key)
        if info.token is not None:
            self._contents[name] = (info.token, data)
        return data

    def below(self, path: str, /) -> Store:
        found = object.__new__(ListedStore)
        found._inner, found._contents = self._inner.below(path), self._contents
        top = f"{path}/"
        found._infos = {
            key[len(top) :]: Info(key[len(top) :], info.size_bytes, info.modified_s, info.token)
            for key, info in self._infos.items()
            if key.startswith(top)
        }
        return found

    # --- what readers don't do ------------------------------------------------------------------------

    def _refuse(self) -> PermissionError:
        return PermissionError(f"{self.url} is only read here")

    def put_new(self, key: str, data: bytes, /) -> Answer:
        raise self._refuse()

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        raise self._refuse()

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        raise self._refuse()

    def open(self, key: str, /) -> StoreWriter:
        raise self._refuse()

    def delete(self, keys: Iterable[str], /) -> None:
        raise self._refuse()

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        raise self._refuse()

    def probe(self) -> Proof:
        raise self._refuse()


__all__ = ["Contents", "ListedStore"]
