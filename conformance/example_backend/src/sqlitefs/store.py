"""The store: five calls, and what they promise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fstx.stores import Answer, Info
from fstx.stores.simple import SimpleStore
from fstx.types import Buffer
from sqlitefs.database import Database


class SqliteStore(SimpleStore):
    """The objects of one database."""

    durable = True  # SQLite syncs its journal before a statement returns

    def __init__(self, path: str) -> None:
        self.database = Database(path)

    @property
    def url(self) -> str:
        """Of the database."""
        return f"sqlitefs://{self.database.path}"

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """One statement: of many callers for one key SQLite lets one through."""
        try:
            return Answer.DONE if self.database.add(key, data) else Answer.TAKEN
        except TimeoutError:
            return Answer.BUSY  # others held the file, nothing was done
        except PermissionError:
            raise  # nor here
        except OSError:
            return Answer.UNKNOWN  # the disk failed in the middle: fstx looks what is there

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        """Put, whatever is there."""
        self.database.put(key, bytes(data))

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of an object, as a slice of them."""
        return self.database.get(key)[start:stop]

    def list(self, prefix: str, /) -> Iterator[Info]:
        """Every object whose key begins with `prefix`, sorted."""
        return (Info(key, size, time_s) for key, size, time_s in self.database.find(prefix))

    def delete(self, keys: Iterable[str], /) -> None:
        """Afterwards none of them is there."""
        self.database.remove(keys)
