"""Backends whose depots of unfinished jobs do one thing wrong."""

from __future__ import annotations

from typing import Any

from fstx.backends.manifest.staging import ObjectStager
from fstx.errors import ResumeError
from fstx.resuming.units import decode_job, decode_units
from fstx.state.entries import data_key
from fstx.types import StagedObject
from fstx_conformance.broken.over import OverBackend


class OverDepot:
    """All of another depot, but for what a subclass has."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _OverDepots(OverDepot):
    def __init__(self, inner: Any, kind: type[OverDepot]) -> None:
        super().__init__(inner)
        self._kind = kind

    def open(self, name: str) -> Any:
        return self._kind(self.inner.open(name))


class _With(OverBackend):
    kind: type[OverDepot] = OverDepot

    def depots(self, entry: str | None = None, /) -> Any:
        """Depots of the wrong kind."""
        return _OverDepots(self.inner.depots(entry), self.kind)


# --- what is wrong ----------------------------------------------------------------------------------------


class _Late(OverDepot):
    """Keeps the lines of units in memory until the next one."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._waiting: list[bytes] = []

    def append(self, line: bytes) -> None:
        for before in self._waiting:
            self.inner.append(before)
        self._waiting = [line]


class _Missing(OverDepot):
    """A record that can't be read is said to be missing."""

    def get_job(self) -> bytes:
        data: bytes = self.inner.get_job()
        try:
            decode_job(data, self.inner.url)
        except ResumeError as error:
            raise FileNotFoundError(self.inner.url) from error
        return data


class _Trusting(OverDepot):
    """What a line names is there, without a look."""

    def sizes(self) -> dict[str, int]:
        units = decode_units(self.inner.lines(), self.inner.name.partition("-")[2])
        return {k.object.key: k.object.size_bytes for unit in units for k in unit.objects}


class _Deaf(OverDepot):
    """Its stagers never ask whether the job is over."""

    def stager(self) -> Any:
        return ObjectStager(self.inner.stager().store, self.inner.token, "")


class _ByPath(ObjectStager):
    """An object's name is its path: the second attempt overwrites the first one."""

    def key_of(self, path: str, sum_: str) -> str:
        return data_key(self.txid, self.full(path), "0")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_ByPath, (self.store, self.txid, ""))

    def receipt(self, path: str, key: str, size_bytes: int, publisher: bool) -> StagedObject:
        return StagedObject(path, key, size_bytes, self.txid, publisher)


class _OneName(OverDepot):
    def stager(self) -> Any:
        return _ByPath(self.inner.stager().store, self.inner.token, "")


class KeepsLate(_With):
    """A unit is kept when the next one is finished."""

    kind = _Late


class TakesForMissing(_With):
    """A damaged configuration counts as none, so the job begins anew."""

    kind = _Missing


class Trusts(_With):
    """A unit counts as its line says."""

    kind = _Trusting


class NeverTells(_With):
    """Workers of a job that is over are not told."""

    kind = _Deaf


class OneNameAPath(_With):
    """Attempts have no names of their own."""

    kind = _OneName
