"""Stores, and clients of stores, that do one thing wrong: layers over a right one.

Some stand under the faults: the storage is wrong. The others stand over them: its client is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from fstx.stores import Answer, Info
from fstx.types import Buffer
from fstx_conformance.broken.over import OverStore


def _part(key: str) -> str:
    """The first part of a key of a dataset: ``log``, ``data``, ``boundary``."""
    return key.removeprefix(".fstx/").partition("/")[0]


class Lying(OverStore):
    """Put if absent answers DONE whatever is there, and overwrites it."""

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """Never taken."""
        self.inner.put(key, data)
        return Answer.DONE


class Racy(OverStore):
    """Put if absent looks first and writes then: two may find nothing."""

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """Two requests."""
        if self.inner.info(key) is not None:
            return Answer.TAKEN
        try:
            self.inner.put(key, data)
        except ConnectionError:
            return Answer.UNKNOWN
        return Answer.DONE


class Lagging(OverStore):
    """An object is listed only some requests after it was put; reading it by name finds it at once."""

    LAG = 12
    _clock = 0
    _since: ClassVar[dict[str, int]] = {}

    def _tick(self) -> int:
        Lagging._clock += 1
        return Lagging._clock

    def _put(self, key: str) -> None:
        self._since.setdefault(f"{self.url}/{key}", self._tick())

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """Note when."""
        answer = super().put_new(key, data)
        if answer is Answer.DONE:
            self._put(key)
        return answer

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        """Note when."""
        super().put(key, data, checksum=checksum)
        self._put(key)

    def list(self, prefix: str, /) -> Iterator[Info]:
        """Without what is too new."""
        now = self._tick()
        for info in super().list(prefix):
            if now - self._since.get(f"{self.url}/{info.key}", -self.LAG) >= self.LAG:
                yield info


class RollsBack(OverStore):
    """No answer counts as a refusal, so the transaction is given up and its data deleted."""

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """UNKNOWN becomes an error that says: certainly not done."""
        answer = super().put_new(key, data)
        if answer is Answer.UNKNOWN:
            raise ConnectionError(f"no answer from {self.url}")
        return answer


class BlindRetry(OverStore):
    """A request without an answer is made again, and the refusal by one's own object is believed."""

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """As many clients do inside."""
        answer = super().put_new(key, data)
        if answer is Answer.UNKNOWN:
            answer = super().put_new(key, data)
            if answer is Answer.TAKEN:
                raise FileExistsError(f"{self.url}/{key} is there already")
        return answer


class Partial(OverStore):
    """A new object appears half written, and is completed by a second request."""

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """Two requests."""
        answer = super().put_new(key, data[: len(data) // 2])
        if answer is Answer.DONE:
            self.inner.put(key, data)
        return answer


class DataLast(OverStore):
    """Data are put when the record that names them is: the index before its parts."""

    def __init__(self, inner: object) -> None:
        super().__init__(inner)  # type: ignore[arg-type]
        self._held: dict[str, bytes] = {}

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        """Held back."""
        if _part(key) == "data":
            self._held[key] = bytes(data)
        else:
            super().put(key, data, checksum=checksum)

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """The record, then the data."""
        answer = super().put_new(key, data)
        if _part(key) == "log":
            for held, content in self._held.items():
                super().put(held, content)
            self._held.clear()
        return answer


class NoBoundary(OverStore):
    """A record that was acknowledged is believed: nobody looks whether the boundary has passed it."""

    _believes = False

    def put_new(self, key: str, data: bytes, /) -> Answer:
        """Done is done."""
        answer = super().put_new(key, data)
        self._believes = answer is Answer.DONE and _part(key) == "log"
        return answer

    def list(self, prefix: str, /) -> Iterator[Info]:
        """No boundary, for the look that follows an acknowledgement."""
        believes, self._believes = self._believes, False
        return iter(()) if believes and _part(prefix) == "boundary" else super().list(prefix)


class KeepsAll(OverStore):
    """Staged data that nobody needs stay for ever."""

    def delete(self, keys: Iterable[str], /) -> None:
        """All but data."""
        super().delete([key for key in keys if _part(key) != "data"])


class InPlace(OverStore):
    """All contents of one path are kept under one key, so a new version overwrites the old one's bytes."""

    @staticmethod
    def _fixed(key: str) -> str:
        if _part(key) != "data":
            return key
        before, _, after = key.partition("data/")
        return f"{before}data/{'0' * 32}/{after.partition('/')[2].rpartition('~')[0]}"

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        """At the path's own key."""
        super().put(self._fixed(key), data, checksum=checksum)

    def open(self, key: str, /) -> object:
        """At the path's own key."""
        return super().open(self._fixed(key))

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        """Whatever is there by now."""
        return super().get(self._fixed(key), start, stop)

    def info(self, key: str, /) -> Info | None:
        """Whatever is there by now."""
        return super().info(self._fixed(key))

    def delete(self, keys: Iterable[str], /) -> None:
        """Nobody knows whether data are needed."""
        super().delete([key for key in keys if _part(key) != "data"])
