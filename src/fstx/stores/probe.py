"""Finds out what a store keeps of its promises, by doing it: one at a time, then by many at once.

Some servers accept a condition and ignore it; others keep it as long as nobody else writes at that
moment. Everything happens below one scratch prefix and is removed. What was found is kept for the
process, by service, endpoint and bucket.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fstx.stores import Answer, Proof, Store
from fstx.stores.known import Known, known_service
from fstx.types import Capability

WRITERS = 16
ROUNDS = 3
_SIZE_BYTES = 48 << 10  # more than one read of a server, so that bodies arrive in turns
_PART_BYTES = 5 << 20  # the smallest that S3 takes
_TRIES = 6

_found: dict[str, Proof] = {}
_locks: dict[str, threading.Lock] = {}


class _LieError(Exception):
    """The store does not keep what it said."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether one thing holds, and what proved or disproved it."""

    kept: bool
    text: str


@dataclass(slots=True)
class _Findings:
    put_new: Outcome = field(default_factory=lambda: Outcome(False, "not tried"))
    consistent: Outcome = field(default_factory=lambda: Outcome(False, "not tried"))
    replace_if: Outcome = field(default_factory=lambda: Outcome(False, "not tried"))
    large: Outcome = field(default_factory=lambda: Outcome(False, "not tried"))
    notes: list[str] = field(default_factory=list)


def prove(store: Any) -> Proof:
    """The proof of a remote store; probes its bucket at the first call in this process.

    Raises
    ------
    OSError
        The store can't be reached or may not be written: nothing is known then.
    """
    place = store.place
    with _locks.setdefault(place, threading.Lock()):
        if place not in _found:
            _found[place] = _proof(store, known_service(place))
        return _found[place]


def forget() -> None:
    """Probe anew at the next call."""
    _found.clear()


def _proof(store: Any, known: Known | None) -> Proof:
    found = examine(store, races=known is None)
    how = f"tried once; {known.source}" if known else ""
    put_new, consistent = found.put_new, found.consistent
    durable, why = getattr(store, "durability", (True, known.durability if known else _TRUSTED))
    whole, reason = getattr(store, "whole", (True, _WHOLE))
    if known is None and not found.large.kept:
        whole, reason = False, found.large.text
    promises = (
        (Capability.ATOMIC_OBJECT, whole, reason, how or (_READ_BACK if whole else "")),
        (Capability.DURABLE, durable, why, known.source if known else ""),
        (Capability.CONFLICT_DETECTED, put_new.kept, put_new.text, how),
        (Capability.FENCED, put_new.kept, put_new.text, how),
        (Capability.REMOTE_STAGING, True, "every process reaches the same objects", ""),
    )
    notes = list(found.notes)
    if known is None:
        notes.append(
            "the service is not on the list of known ones: what held in the probe is shown, "
            "that it always holds can't be"
        )
    if not found.replace_if.kept:
        notes.append(f"replace on a condition: {found.replace_if.text}")
    return Proof(
        promises=promises,
        put_new=put_new.kept,
        put_new_reason=f"{put_new.text}; {how}" if how else put_new.text,
        consistent=consistent.kept,
        consistent_reason=f"{consistent.text}; {how}" if how else consistent.text,
        replace_if=found.replace_if.kept,
        durable=durable,
        durable_reason=why,
        shared=True,
        notes=tuple(notes),
    )


_WHOLE = "an object appears when all of it has arrived"
_READ_BACK = "read back whole; readers during an overwrite were not tried"
_TRUSTED = (
    "taken on the service's word: it acknowledges what it has stored, which nothing here can prove"
)


def examine(store: Store, *, races: bool = True) -> _Findings:
    """Try everything that a store offers; afterwards the scratch keys are gone."""
    found = _Findings()
    scratch = f".probe-{secrets.token_hex(16)}"
    try:
        found.put_new = _tried(lambda: _try_put_new(store, f"{scratch}/new"))
        found.consistent = _tried(lambda: _try_consistency(store, scratch))
        if races and found.put_new.kept:
            told = _tried(lambda: _race_put_new(store, f"{scratch}/race"))
            text = f"{found.put_new.text}; {told.text}" if told.kept else told.text
            found.put_new = Outcome(told.kept, text)
        found.replace_if = _tried(lambda: _try_replace(store, f"{scratch}/swap", races))
        if races:
            found.large = _tried(lambda: _try_large(store, f"{scratch}/large"))
    finally:
        with _noting(found.notes, "scratch keys were left behind"):
            store.delete([info.key for info in store.list(f"{scratch}/")])
    return found


def race(store: Store, operation: str) -> Outcome:
    """Only ``"put_new"``: one at a time, then by many at once."""
    if operation != "put_new":
        raise ValueError(f"no race of {operation!r}")
    found = examine(store)
    return found.put_new


def _tried(attempt: Callable[[], str]) -> Outcome:
    try:
        return Outcome(True, attempt())
    except _LieError as error:
        return Outcome(False, str(error))
    except (ConnectionError, TimeoutError, PermissionError):
        raise  # says nothing of the store's promises
    except OSError as error:
        if error.errno == errno.ENXIO:  # no such bucket
            raise
        return Outcome(False, f"refused: {error.strerror or error}")


@contextlib.contextmanager
def _noting(notes: list[str], text: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        notes.append(f"{text}: {error.strerror or error}")


def _settled(call: Callable[[], Answer]) -> Answer:
    """DONE or TAKEN; repeats what was busy or lost."""
    pause_s = 0.05
    for _ in range(_TRIES):
        answer = call()
        if answer in (Answer.DONE, Answer.TAKEN):
            return answer
        time.sleep(pause_s)
        pause_s *= 2
    raise ConnectionError("the store gave no clear answer, again and again")


def _create(store: Store, key: str, data: bytes) -> None:
    """Put where nothing is; TAKEN is fine if it was this data (an answer that got lost)."""
    if _settled(lambda: store.put_new(key, data)) is Answer.TAKEN and store.get(key) != data:
        raise _LieError("a new key was said to be taken")


def _try_put_new(store: Store, key: str) -> str:
    _create(store, key, b"first")
    if _settled(lambda: store.put_new(key, b"second")) is Answer.DONE:
        raise _LieError("accepted a second put-if-absent of the same key: it ignores the condition")
    if (kept := store.get(key)) != b"first":
        raise _LieError(f"refused the second PUT of a key, but its content became {kept!r}")
    store.delete([key])
    _create(store, key, b"third")
    if store.get(key) != b"third":
        raise _LieError("a key that was deleted and put again has other content")
    return "a second put of the same key was refused and changed nothing"


def _try_consistency(store: Store, scratch: str) -> str:
    keys = [f"{scratch}/c/{n:02}" for n in range(3)]
    for key in keys:
        store.put(key, key.encode())
        if store.get(key) != key.encode():
            raise _LieError("an object that was just put reads otherwise")
        if key not in [info.key for info in store.list(f"{scratch}/c/")]:
            raise _LieError("a listing does not show an object that was just put")
    for n in range(3):
        store.put(keys[0], b"%d" % n)
        if store.get(keys[0]) != b"%d" % n:
            raise _LieError("a read after an overwrite gave the old content")
    if [info.key for info in store.list(f"{scratch}/c/")] != keys:
        raise _LieError("a listing is not sorted by key")
    store.delete(keys)
    if store.info(keys[0]) is not None or list(store.list(f"{scratch}/c/")):
        raise _LieError("objects that were deleted are still there")
    return "reads and listings show what was just put, overwritten and deleted"


def _race_put_new(store: Store, key: str) -> str:
    rounds = getattr(store, "rounds", ROUNDS)
    for turn in range(rounds):
        place = f"{key}-{turn}"
        contents = [bytes([number]) * _SIZE_BYTES for number in range(WRITERS)]
        answers = _at_once([partial(store.put_new, place, data) for data in contents])
        _one_winner(store, place, answers, contents, "put-if-absent")
    return f"{rounds} races of {WRITERS} writers for one key had one winner each"


def _try_replace(store: Store, key: str, races: bool) -> str:
    store.put(key, b"one")
    token = _token(store, key)
    if _settled(lambda: store.replace_if(key, b"two", token)) is Answer.TAKEN:
        other = getattr(
            getattr(getattr(store, "link", None), "service", None), "other_quotes", None
        )
        if store.get(key) != b"two":
            if other is None:
                raise _LieError("the right token was refused")
            other()
            if _settled(lambda: store.replace_if(key, b"two", token)) is Answer.TAKEN:
                other()
                raise _LieError("the right token was refused, in quotes and without")
    if _settled(lambda: store.replace_if(key, b"three", token)) is Answer.DONE:
        raise _LieError("accepted a put with a token of old: it ignores the condition")
    if store.get(key) != b"two":
        raise _LieError("refused a token of old, but the content changed")
    if not races:
        return "a put with a token of old was refused"
    for turn in range(ROUNDS):
        token = _token(store, key)
        contents = [b"%d-%d" % (turn, number) for number in range(WRITERS)]
        answers = _at_once([partial(store.replace_if, key, data, token) for data in contents])
        _one_winner(store, key, answers, contents, "compare-and-swap")
    return (
        f"a token of old was refused; {ROUNDS} races of {WRITERS} writers with one token "
        "had one winner each"
    )


def _token(store: Store, key: str) -> str:
    info = store.info(key)
    if info is None or not info.token:
        raise _LieError("objects have no token")
    return info.token


def _try_large(store: Store, key: str) -> str:
    writer = _small_parts(store, key)
    piece = bytes(range(256)) * 4096
    for _ in range(6):
        writer.write(piece)
    if store.info(key) is not None:
        writer.abort()
        raise _LieError("an object is there before its upload is complete")
    writer.close()
    info = store.info(key)
    if info is None or info.size_bytes != 6 * len(piece) or store.get(key, -256) != piece[-256:]:
        raise _LieError("an object of several parts is not what was written")
    return "an object of two parts appeared when it was complete"


def _small_parts(store: Store, key: str) -> Any:
    writer: Any = store.open(key)
    if hasattr(writer, "_part_bytes"):
        writer._part_bytes = _PART_BYTES
    return writer


def _at_once(calls: list[Callable[[], Answer]]) -> list[Answer | None]:
    """The answers of calls that were let go together; None for one that was refused."""
    answers: list[Answer | None] = [None] * len(calls)
    failed: list[BaseException] = []
    gate = threading.Barrier(len(calls))

    def work(number: int) -> None:
        try:
            gate.wait(30)
            answers[number] = calls[number]()
        except OSError:
            answers[number] = None
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return answers


def _one_winner(
    store: Store, key: str, answers: list[Answer | None], contents: list[bytes], what: str
) -> None:
    winners = [n for n, answer in enumerate(answers) if answer is Answer.DONE]
    if len(winners) > 1:
        raise _LieError(
            f"{len(winners)} of {len(answers)} concurrent writers of one key were told that theirs "
            f"landed: {what} holds one at a time only"
        )
    kept = store.get(key)
    if winners and kept != contents[winners[0]]:
        raise _LieError(f"one of {len(answers)} concurrent writers won, another's content is there")
    if not winners and kept not in contents:
        raise _LieError(f"none of {len(answers)} concurrent writers won")


__all__ = ["Outcome", "examine", "forget", "prove", "race"]
