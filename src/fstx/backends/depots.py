"""Depots of resumable jobs in a `Store`: of object stores, of ``tx::`` datasets and of memory.

Below ``jobs/<name>/``: ``job.json``, objects under ``data/``, one small object ``u/...`` for each finished
unit, and ``s/...`` that holds the records of many units. Nothing is ever overwritten.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from fstx import seams
from fstx.backends.manifest.staging import ObjectStager
from fstx.protocol import Transaction
from fstx.stores import Store
from fstx.types import StagedObject

JOBS = "jobs/"
RECORDS_A_SEGMENT = 512
_THREADS = 8
_WHOLE_BYTES = 8 << 20
_NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")


def check_name(name: str) -> str:
    """A depot's name: digest of the targets, a hyphen, the job's token."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a depot")
    return name


class StoreDepots:
    """The depots of a place in a store."""

    def __init__(self, store: Store, targets: Sequence[str]) -> None:
        self._store = store
        self.targets = tuple(targets)

    def names(self) -> list[str]:
        found = {info.key[len(JOBS) :].partition("/")[0] for info in self._store.list(JOBS)}
        return sorted(name for name in found if _NAME.fullmatch(name))

    def open(self, name: str, /) -> StoreDepot:
        return StoreDepot(self._store.below(JOBS + check_name(name)), name)


class StoreDepot:
    """One job's depot in a store."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.name = name
        self.token = name.partition("-")[2]
        self._lock = threading.Lock()
        self._loose: list[tuple[str, bytes]] = []  # records that no segment holds yet

    def __repr__(self) -> str:
        return f"<depot {self.url}>"

    @property
    def url(self) -> str:
        return self._store.url

    def put_job(self, data: bytes, /) -> None:
        self._store.put("job.json", data)

    def get_job(self) -> bytes:
        return self._store.get("job.json")

    def stager(self) -> ObjectStager:
        return ObjectStager(self._store, self.token, "")

    def append(self, line: bytes, /) -> None:
        key = f"u/{_stamp()}"
        self._store.put(key, line)
        with self._lock:
            self._loose.append((key, line))
            if len(self._loose) < RECORDS_A_SEGMENT:
                return
            full, self._loose = self._loose, []
        self._gather(full)

    def _gather(self, records: list[tuple[str, bytes]]) -> None:
        self._store.put(f"s/{records[-1][0][2:]}", b"".join(line for _, line in records))
        self._store.delete([key for key, _ in records])

    def lines(self) -> Iterator[bytes]:
        segments = [info.key for info in self._store.list("s/")]
        loose = [info.key for info in self._store.list("u/")]
        with ThreadPoolExecutor(_THREADS) as pool:
            for data in pool.map(self._present, segments):
                yield from data.splitlines(keepends=True)
            found = list(zip(loose, pool.map(self._present, loose), strict=True))
        yield from (line for _, line in found)
        with self._lock:  # a killed run's go into the next segment
            known = {key for key, _ in self._loose}
            self._loose += [(key, line) for key, line in found if line and key not in known]

    def _present(self, key: str) -> bytes:
        try:
            return self._store.get(key)
        except FileNotFoundError:  # gathered meanwhile
            return b""

    def sizes(self) -> dict[str, int]:
        return {info.key: info.size_bytes for info in self._store.list("data/")}

    def read(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        return self._store.get(key, start, stop)

    def give(self, transaction: Transaction, kept: StagedObject, /) -> StagedObject:
        stager = transaction.stager()
        if kept.size_bytes <= _WHOLE_BYTES:
            data = self._store.get(kept.key) if kept.size_bytes else b""
            return stager.stage(kept.path, data, publisher=kept.publisher)
        with stager.open(kept.path, publisher=kept.publisher) as file:
            for start in range(0, kept.size_bytes, _WHOLE_BYTES):
                stop = min(start + _WHOLE_BYTES, kept.size_bytes)
                file.write(self._store.get(kept.key, start, stop))
        return file.receipt

    def delete(self, keys: Iterable[str], /) -> None:
        self._store.delete(list(keys))

    def remove(self) -> None:
        self._store.delete(["job.json"])  # first: what is left is no job any more
        self._store.delete([info.key for info in self._store.list("")])

    def close(self) -> None:
        """Nothing to do: each record is durable with its put."""

    def moved(self) -> bool:
        return False  # objects are whole or not there, and durable with their put


def _stamp() -> str:
    return f"{seams.time_ns():016x}{seams.token_hex(3)}"


__all__ = ["JOBS", "StoreDepot", "StoreDepots", "check_name"]
