"""Depots of resumable jobs in a `Store`: of object stores, of ``tx::`` datasets and of memory.

Below ``jobs/<name>/``: ``job.json``, objects under ``data/``, one small object ``u/...`` for each finished
unit, and ``s/...`` that holds the records of many units. Nothing is ever overwritten. ``job.json`` is put
before all else and removed before all else: what lies there without it is of a job that is over.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fstx import seams
from fstx.backends.manifest.staging import ObjectStager
from fstx.errors import FencedError
from fstx.protocol import Transaction
from fstx.stores import Answer, Store
from fstx.types import StagedObject

JOBS = "jobs/"
RECORDS_A_SEGMENT = 512
_THREADS = 8
_ASKED = 10
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

    def sweep(self) -> list[str]:
        found = []
        for name in self.names():
            depot = self.open(name)
            if depot.is_over():
                depot.remove()
                found.append(depot.url)
        return found


class DepotStager(ObjectStager):
    """Stages into a depot, and learns afterwards that the job is over: then nothing is left of it.

    In the coordinator's process `over` costs nothing; elsewhere it is one question for each object.
    """

    def __init__(self, store: Store, token: str, over: Callable[[], bool] | None = None) -> None:
        super().__init__(store, token, "")
        self._over = over or (lambda: _is_over(store))

    def __reduce__(self) -> tuple[Any, ...]:
        super().__reduce__()  # refuses a storage that other processes don't see
        return (DepotStager, (self.store, self.txid))

    def receipt(self, path: str, key: str, size_bytes: int, publisher: bool) -> StagedObject:
        # After the put: whoever removes the depot lists it after the record went, so one of both sees it.
        with self.failing(path):
            over = self._over()
        if over:
            with contextlib.suppress(OSError):
                self.store.delete([key])
            raise FencedError(
                f"the job that {path!r} was staged for is over: committed, given up, or dropped; nothing of "
                f"it is kept in {self.store.url}",
                txid=self.txid,
                outcome="aborted",
            )
        return super().receipt(path, key, size_bytes, publisher)


class StoreDepot:
    """One job's depot in a store."""

    quick = False

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self.name = name
        self.token = name.partition("-")[2]
        self._lock = threading.Lock()
        self._removed = False
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

    def stager(self) -> DepotStager:
        return DepotStager(self._store, self.token, lambda: self._removed)

    def is_over(self) -> bool:
        """Whether the job's record is gone, and with it all that the depot may hold."""
        return _is_over(self._store)

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
        self._removed = True
        self._store.delete(["job.json"])  # first: what is left is no job any more
        self._store.delete([info.key for info in self._store.list("")])

    def decide(self, value: bytes, /) -> bytes:
        for _ in range(_ASKED):
            answer = self._store.put_new("decision", value)
            found = self.decided()
            if found is not None:
                if self.is_over():  # removed, with an earlier decision, before this one was put
                    self._store.delete(["decision"])
                    raise FileNotFoundError(f"{self.url}/job.json")
                return found
            if answer is Answer.DONE:
                raise FileNotFoundError(f"{self.url}/decision")
        raise TimeoutError(f"{self.url}/decision: the storage does not say what was decided")

    def decided(self) -> bytes | None:
        try:
            return self._store.get("decision")
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Nothing to do: each record is durable with its put."""

    def moved(self) -> bool:
        return False  # objects are whole or not there, and durable with their put


def _is_over(store: Store) -> bool:
    return store.info("job.json") is None


def _stamp() -> str:
    return f"{seams.time_ns():016x}{seams.token_hex(3)}"


__all__ = ["JOBS", "DepotStager", "StoreDepot", "StoreDepots", "check_name"]
