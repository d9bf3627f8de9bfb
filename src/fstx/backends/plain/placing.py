"""Parts put straight at their final names, where nobody looks before the entry is there.

Each is put if absent, so nothing is ever overwritten; and before it is put, a *notice* in the home names it
with its content, so that whoever cleans up after a killed writer removes what is ours and nothing else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fstx import seams
from fstx.backends.plain.compare import Content, holds
from fstx.backends.plain.names import gone_key, is_notice, notice_key, staged_prefix
from fstx.errors import ConflictError, FencedError, PathError, RecoveryError
from fstx.paths import check_path
from fstx.state.sealing import seal, unseal
from fstx.stores import Answer, Store

_THREADS = 16
_TRIES = 8
_BATCH = 16
_BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One object at its final name: where, and what it holds."""

    path: str
    content: Content


def notice(parts: Sequence[Part]) -> bytes:
    """The content of a notice."""
    rows = [
        [p.path, p.content.size_bytes, p.content.checksum, p.content.md5, p.content.tail]
        for p in parts
    ]
    return seal({"format": 1, "parts": rows})


def opens(path: str) -> bytes:
    """The content of a note that an upload is about to begin at `path`."""
    return seal({"format": 1, "path": path})


def read_opens(data: bytes, names: Sequence[str], where: str) -> str:
    """The path of such a note, checked as what a stranger may have written."""
    path = unseal(data, where).get("path")
    if not isinstance(path, str):
        raise RecoveryError(f"{where} is damaged: it names no path. Nothing was removed")
    _check_place(path, names, where)
    return path


def read_notice(data: bytes, names: Sequence[str], where: str) -> list[Part]:
    """The parts that a notice names, checked as what a stranger may have written."""
    rows = unseal(data, where).get("parts")
    if not isinstance(rows, list):
        raise RecoveryError(f"{where} is damaged: it names no parts. Nothing was removed")
    parts = []
    for row in rows:
        if (
            not isinstance(row, list)
            or len(row) != 5
            or not isinstance(row[1], int)
            or not all(isinstance(t, str) for t in (row[0], *row[2:]))
        ):
            raise RecoveryError(f"{where} is damaged: a part has other fields. Nothing was removed")
        _check_place(row[0], names, where)
        parts.append(Part(row[0], Content(row[1], row[2], row[3], row[4])))
    return parts


def _check_place(path: str, names: Sequence[str], where: str) -> None:
    try:
        check_path(path)
    except PathError as error:
        raise RecoveryError(f"{where} is damaged: {error}. Nothing was removed") from error
    if path.partition("/")[0] not in names:
        raise RecoveryError(
            f"{where} is damaged: {path!r} lies in none of the targets. Nothing was removed"
        )


def noticed(
    home: Store, txid: str, names: Sequence[str], *, skip: Iterable[str] = ()
) -> dict[str, list[Part]]:
    """All parts of a transaction that may lie at their final names, by path."""
    left = set(skip)
    found: dict[str, list[Part]] = {}
    for info in list(home.list(staged_prefix(txid))):
        if not is_notice(info.key) or info.key in left:
            continue
        try:
            data = home.get(info.key)
        except FileNotFoundError:
            continue
        for part in read_notice(data, names, f"{home.url}/{info.key}"):
            found.setdefault(part.path, []).append(part)
    return found


def put_part(parent: Store, part: Part, data: bytes, txid: str) -> None:
    """Put one part where nothing is. Afterwards it is there, by this call or by an earlier try.

    Raises
    ------
    ConflictError
        Something else lies there.
    OSError
        Storage refused, or did not say for too long.
    """
    answer = Answer.BUSY
    for turn in range(_TRIES):
        if turn:
            seams.pause(min(2.0, 0.02 * 2**turn))
        answer = parent.put_new(part.path, data)
        if answer is Answer.DONE:
            return
        if answer is Answer.TAKEN:
            info = parent.info(part.path)
            if holds(parent, part.path, info, part.content):
                return
            if info is not None:
                raise taken(parent, part.path, txid)
    raise OSError(
        f"{parent.url}/{part.path} could not be put ({answer.value} after {_TRIES} tries)"
    )


def taken(parent: Store, path: str, txid: str) -> ConflictError:
    """Somebody else's object lies where a part was to go."""
    return ConflictError(
        f"{parent.url}/{path} was written by another program meanwhile; nothing of it was touched",
        txid=txid,
        outcome="aborted",
    )


class Placer:
    """Puts parts in the background, in batches with one notice each.

    Parameters
    ----------
    parent, home
        Where the targets lie, and their home.
    txid
        The transaction.
    """

    def __init__(self, parent: Store, home: Store, txid: str) -> None:
        self._parent = parent
        self._home = home
        self._txid = txid
        self._lock = threading.Lock()
        self._waiting: list[tuple[Part, bytes, Future[None]]] = []
        self._waiting_bytes = 0
        self._pool: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self.notices: set[str] = set()
        self.parts: dict[str, Part] = {}  # certainly ours
        self.doubtful: set[str] = set()  # may come late

    def start(self, part: Part, data: bytes) -> Future[None]:
        """Put soon; the future tells how it went."""
        future: Future[None] = Future()
        with self._lock:
            self._waiting.append((part, data, future))
            self._waiting_bytes += len(data)
            full = len(self._waiting) >= _BATCH or self._waiting_bytes >= _BATCH_BYTES
        if full:
            self.flush()
        return future

    def flush(self) -> None:
        """Nothing waits any more for its batch to fill."""
        with self._lock:
            batch, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not batch:
            return
        try:
            self._executor().submit(self._announce, batch)
        except BaseException as error:
            for _, _, future in batch:
                future.set_exception(error)
            raise

    def close(self) -> None:
        """No thread is left."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)

    def now(self, part: Part, data: bytes) -> None:
        """Put one part, its notice before it, and wait."""
        key = notice_key(self._txid)
        self._home.put(key, notice([part]))
        try:
            self._must_live()
        except FencedError:
            with suppress(OSError):
                self._home.delete([key])
            raise
        self._put(part, data)

    def complete(self, part: Part, writer: Any) -> None:
        """Complete a large part that was written by ``open_if``, its notice before it.

        Raises
        ------
        ConflictError
            Something else lies there.
        """
        key = notice_key(self._txid)
        self.notices.add(key)
        self._home.put(key, notice([part]))
        self._must_live()
        self.doubtful.add(part.path)
        answer: Answer = writer.close()
        if answer is not Answer.DONE:
            info = self._parent.info(part.path)
            if info is not None and not holds(self._parent, part.path, info, part.content):
                self.doubtful.discard(part.path)
                raise taken(self._parent, part.path, self._txid)
            if info is None:
                raise OSError(f"{self._parent.url}/{part.path} could not be put ({answer.value})")
        self.parts[part.path] = part
        self.doubtful.discard(part.path)

    def _must_live(self) -> None:
        """FencedError where the transaction is over: asked after the notice, before the put."""
        if self._home.info(gone_key(self._txid)) is not None:
            raise FencedError(
                f"transaction {self._txid} is over, or was given up for dead; nothing more is put for it",
                txid=self._txid,
                outcome="aborted",
            )

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fstx-plain")
            return self._pool

    def _announce(self, batch: list[tuple[Part, bytes, Future[None]]]) -> None:
        key = notice_key(self._txid)
        try:
            self.notices.add(key)
            self._home.put(key, notice([part for part, _, _ in batch]))
            self._must_live()
        except BaseException as error:  # noqa: BLE001 - the futures carry it
            for _, _, future in batch:
                future.set_exception(error)
            return
        start = getattr(self._parent, "start_put_new", None)
        for part, data, future in batch:
            self.doubtful.add(part.path)
            if start is None:
                self._submit(part, data, future)
                continue
            try:
                asked: Future[Answer] = start(part.path, data)
            except OSError as error:
                future.set_exception(error)
                continue
            asked.add_done_callback(partial(self._answered, part, data, future))

    def _answered(
        self, part: Part, data: bytes, future: Future[None], asked: Future[Answer]
    ) -> None:
        """Runs where the store's requests run, so it never waits."""
        if not asked.cancelled() and asked.exception() is None and asked.result() is Answer.DONE:
            self.parts[part.path] = part
            self.doubtful.discard(part.path)
            future.set_result(None)
        else:
            self._submit(part, data, future)  # asks again, and looks what lies there

    def _submit(self, part: Part, data: bytes, future: Future[None]) -> None:
        try:
            self._executor().submit(_into(future, self._put), part, data)
        except RuntimeError as error:  # the pool was closed: given up meanwhile
            future.set_exception(error)

    def _put(self, part: Part, data: bytes) -> None:
        self.doubtful.add(part.path)
        try:
            put_part(self._parent, part, data, self._txid)
        except ConflictError:
            self.doubtful.discard(part.path)
            raise
        self.parts[part.path] = part
        self.doubtful.discard(part.path)


def _into(
    future: Future[None], call: Callable[[Part, bytes], None]
) -> Callable[[Part, bytes], None]:
    def run(part: Part, data: bytes) -> None:
        try:
            call(part, data)
        except BaseException as error:  # noqa: BLE001 - the future carries it
            future.set_exception(error)
            return
        future.set_result(None)

    return run


__all__ = ["Part", "Placer", "notice", "noticed", "put_part", "read_notice"]
