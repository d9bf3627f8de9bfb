"""Who computes: locks and leases, holders that die, fall silent or are only slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx import seams
from fstx.backends.local import native_ops
from fstx.caching import keys
from fstx.caching.flight import MISSING, Missing, fly
from fstx.caching.leases import LeaseTurns
from fstx.caching.local import LockTurns
from fstx.ops.processes import here, start_of
from fstx.stores import Answer
from fstx.stores.local import LocalStore
from fstx.stores.memory import MemoryStore
from support.dyingstore import DyingStore

NAME = keys.name_of(keys.spell("a"))
LONG_S = 3600.0


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(f"c-{uuid.uuid4().hex}")


def turns(store: Any, lease_s: float = LONG_S) -> LeaseTurns:
    return LeaseTurns(store, NAME, lease_s)


def leases(store: MemoryStore) -> list[str]:
    return [info.key for info in store.list("leases/")]


def elsewhere(**more: Any) -> bytes:
    """The record of a holder on another host."""
    return json.dumps({**here(), "host": "another", "nonce": "n", "beats": 0, **more}).encode()


def test_one_has_the_turn_until_it_lets_go(store: MemoryStore) -> None:
    """C9: a second one gets it afterwards, and nothing is left behind."""
    first = turns(store).take()
    assert first is not None
    assert turns(store).take() is None
    first.release()
    first.release()
    second = turns(store).take()
    assert second is not None
    second.release()
    assert leases(store) == []


def test_a_dead_process_of_this_host_is_seen_at_once(store: MemoryStore) -> None:
    """C9: its number is passed over without waiting for the lease, also of a number that is used again."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        dead = {**here(), "pid": process.pid, "start": start_of(process.pid)}
        store.put(f"leases/{NAME}-0", json.dumps(dead).encode())
        assert turns(store).take() is None
    reused = {**here(), "start": here()["start"] + 1}
    store.put(f"leases/{NAME}-1", json.dumps(reused).encode())
    turn = turns(store).take()
    assert turn is not None
    assert leases(store)[-1] == f"leases/{NAME}-2"
    turn.release()
    assert leases(store) == []


class Clock:
    """Time that passes when it is told to, and in pauses."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_silent_holder_is_given_up_after_the_lease(store: MemoryStore) -> None:
    """C9: one of another host that says nothing while it is watched for the lease, and not before."""
    clock = Clock()
    store.put(f"leases/{NAME}-0", elsewhere())
    mine = LeaseTurns(store, NAME, 30, monotonic=clock)
    assert mine.take() is None
    clock.wait(29)
    assert mine.take() is None
    with seams.waiting(clock.wait):
        mine.wait()
    assert 1030 <= clock.now_s < 1032
    turn = mine.take()
    assert turn is not None
    turn.release()


def test_a_holder_that_beats_is_waited_for(store: MemoryStore) -> None:
    """C9: each sign of life begins the lease anew, however long it takes altogether."""
    clock = Clock()
    mine = LeaseTurns(store, NAME, 30, monotonic=clock)
    for beats in range(10):
        store.put(f"leases/{NAME}-0", elsewhere(beats=beats))
        assert mine.take() is None
        clock.wait(20)
    clock.wait(30)
    turn = mine.take()
    assert turn is not None
    turn.release()


def test_a_record_that_is_no_record_is_given_up_after_the_lease(store: MemoryStore) -> None:
    """Garbage at a lease's name stops nobody for ever."""
    for junk in (b"", b"[1]", b"\xff", b'{"pid": "x"}'):
        store.put(f"leases/{NAME}-0", junk)
        mine = turns(store, lease_s=0.01)
        assert mine.take() is None
        mine.wait()
        turn = mine.take()
        assert turn is not None
        turn.release()


def test_one_of_many_gets_the_number_of_a_dead_one(store: MemoryStore) -> None:
    """C9: of sixteen that give up one holder at the same moment one computes."""
    store.put(f"leases/{NAME}-0", elsewhere())
    gate, found, done = threading.Barrier(16), [], threading.Event()

    def work() -> None:
        mine = turns(store, lease_s=0.05)
        mine.take()
        mine.wait()
        gate.wait(20)
        turn = mine.take()
        found.append(turn)
        if turn is None:
            return
        done.wait(20)
        turn.release()

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    while len(found) < 16:
        time.sleep(0.001)
    assert sum(turn is not None for turn in found) == 1
    done.set()
    for thread in threads:
        thread.join(20)
    assert leases(store) == []


def test_a_holder_beats_while_it_computes(store: MemoryStore) -> None:
    """C9: its record changes again and again, and not any more when it has let go."""
    turn = turns(store, lease_s=0.01).take()
    assert turn is not None
    seen: set[bytes] = set()
    while len(seen) < 4:
        seen.add(store.get(f"leases/{NAME}-0"))
        time.sleep(0.001)
    turn.release()
    assert not [t for t in threading.enumerate() if t.name == "fstx-cache-beat"]
    assert leases(store) == []


def test_one_that_gets_the_turn_looks_again(store: MemoryStore) -> None:
    """C9: what was put between the miss and the turn is read, not computed again."""

    class Late(LeaseTurns):
        def take(self) -> Any:
            turn = super().take()
            store.put("value", b"theirs")  # by the one that had the turn until now
            return turn

    def look() -> bytes | Missing:
        return store.get("value") if store.info("value") else MISSING

    def never() -> bytes:
        raise AssertionError("computed again")

    assert isinstance(look(), Missing)
    assert fly(Late(store, NAME, LONG_S), look, never) == b"theirs"
    assert leases(store) == []


class Lying:
    """A store whose answers to put-if-absent are taken from a list."""

    def __init__(self, inner: MemoryStore, answers: Iterator[Any]) -> None:
        self._inner, self._answers = inner, answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def put_new(self, key: str, data: bytes, /) -> Answer:
        said = next(self._answers, None)
        if isinstance(said, OSError):
            raise said
        if said is Answer.BUSY:
            return said
        answer = self._inner.put_new(key, data)
        return answer if said is None else said


def test_a_lost_answer_is_read_back(store: MemoryStore) -> None:
    """The turn is one's own where one's record lies there, whatever the answer was."""
    for said in (Answer.UNKNOWN, Answer.TAKEN):
        turn = turns(Lying(store, iter([said]))).take()
        assert turn is not None
        turn.release()
    turn = turns(Lying(store, iter([Answer.BUSY, Answer.BUSY]))).take()
    assert turn is not None
    assert turns(Lying(store, iter([Answer.UNKNOWN]))).take() is None
    turn.release()


def test_without_put_if_absent_everybody_computes(store: MemoryStore) -> None:
    """A cache works there all the same; other refusals are raised."""
    import errno

    refusal = OSError(errno.ENOTSUP, "no put-if-absent here")
    cache = fstx.Cache(Below(store, [refusal]))
    assert cache.get_or_compute("a", lambda: b"one") == b"one"
    assert cache.get("a") == b"one"
    cache = fstx.Cache(Below(store, [PermissionError(errno.EACCES, "no")]))
    with pytest.raises(PermissionError):
        cache.get_or_compute("b", lambda: b"one")


class Below:
    """A store whose parts refuse."""

    def __init__(self, inner: MemoryStore, answers: list[Any]) -> None:
        self._inner, self._answers = inner, answers
        self.url = inner.url

    def below(self, path: str, /) -> Any:
        return Lying(self._inner.below(path), iter(self._answers))


def test_what_a_given_up_holder_puts_late_does_no_harm(store: MemoryStore) -> None:
    """C9: both values are whole, the last one counts, and both records go."""
    cache = fstx.Cache(store, lease_s=0.05)
    begun, go = threading.Event(), threading.Event()
    found: list[Any] = []

    def late() -> bytes:
        begun.set()
        go.wait(20)
        return b"late"

    zombie = threading.Thread(target=lambda: found.append(cache.get_or_compute("a", late)))
    zombie.start()
    assert begun.wait(20)
    name = f"v1/leases/{NAME}-0"
    store.put(name, elsewhere())  # it was stopped: its record stays as it is
    assert fstx.Cache(Silent(store), lease_s=0.05).get_or_compute("a", lambda: b"new") == b"new"
    go.set()
    zombie.join(20)
    assert found == [b"late"]
    assert cache.get("a") == b"late"
    assert [info.key for info in store.list("v1/leases/")] == []


class Silent:
    """The same objects, as seen by one whom no sign of life reaches."""

    def __init__(self, inner: MemoryStore) -> None:
        self._inner, self.url = inner, inner.url

    def below(self, path: str, /) -> Any:
        part = self._inner.below(path)
        old = elsewhere()

        class Part:
            def __getattr__(self, name: str) -> Any:
                return getattr(part, name)

            def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
                return old if key.endswith(f"{NAME}-0") else part.get(key, start, stop)

        return Part()


def test_a_dying_store_leaves_a_turn_that_others_get(store: MemoryStore) -> None:
    """Whatever request fails in a computation, the next one computes."""
    from support.dyingstore import Died

    for die_at in range(1, 12):
        dying = DyingStore(store.below(f"x{die_at}/v1"), die_at=die_at)
        mine = LeaseTurns(dying, NAME, 0.05)
        try:
            turn = mine.take()
            if turn is not None:
                turn.release()
        except Died:
            pass_on = fstx.Cache(store.below(f"x{die_at}"), lease_s=0.05)
            assert pass_on.get_or_compute("a", lambda: b"one") == b"one"
            continue
        assert die_at > 2
        return
    raise AssertionError("it never ran through")


# --- locks of local files ----------------------------------------------------------------------


def lock_of(cache: fstx.Cache) -> str:
    folder = Path(cache.url.removeprefix("file://")) / "v1" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / NAME)


def test_a_stopped_holder_of_a_lock_is_given_up_after_the_lease(tmp_path: Path) -> None:
    """C9: a lock that the system still holds and whose file shows no sign of life is passed over."""
    cache = fstx.cache(tmp_path / "c", lease_s=0.2)
    held = native_ops().lock(lock_of(cache), wait_s=0)
    assert held is not None
    began_s = time.monotonic()
    assert cache.get_or_compute("a", lambda: b"one") == b"one"
    assert time.monotonic() - began_s >= 0.2
    held.release()
    assert os.listdir(tmp_path / "c/v1/locks") == []


def test_a_lock_with_signs_of_life_is_waited_for(tmp_path: Path) -> None:
    """C9: each change of its file's time begins the lease anew; without one the lock loses its name."""
    cache = fstx.cache(tmp_path / "c")
    path, clock = lock_of(cache), Clock()
    held = native_ops().lock(path, wait_s=0)
    assert held is not None
    store = LocalStore(tmp_path / "c" / "v1")
    mine = LockTurns(native_ops(), store, NAME, 30, None, monotonic=clock)
    with seams.waiting(lambda seconds: None):
        for number in range(10):
            os.utime(path, (number, number))
            mine.wait()
            clock.wait(29)
            mine.wait()
            assert mine.take() is None
        clock.wait(1)
        mine.wait()
    turn = mine.take()
    assert turn is not None
    held.release()
    assert os.listdir(tmp_path / "c/v1/locks") == [NAME]
    turn.release()
    assert os.listdir(tmp_path / "c/v1/locks") == []


def test_a_lock_shows_signs_of_life_while_its_holder_computes(tmp_path: Path) -> None:
    """C9: the time of its file is set again and again."""
    cache = fstx.cache(tmp_path / "c", lease_s=0.01)
    path = lock_of(cache)

    def compute() -> bytes:
        for _ in range(3):
            os.utime(path, (1, 1))
            while os.stat(path).st_mtime == 1:
                time.sleep(0.001)
        return b"one"

    assert cache.get_or_compute("a", compute) == b"one"
    assert os.listdir(tmp_path / "c/v1/locks") == []


def test_where_locks_are_refused_leases_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount without locks: records in files instead, and none is left."""
    import errno

    cache = fstx.cache(tmp_path / "c")
    ops = type(native_ops())

    def refuse(self: Any, path: str, *, wait_s: float) -> Any:
        raise OSError(errno.ENOLCK, "No locks available", path)

    monkeypatch.setattr(ops, "lock", refuse)
    seen: list[list[str]] = []

    def compute() -> bytes:
        seen.append(os.listdir(tmp_path / "c/v1/leases"))
        return b"one"

    assert cache.get_or_compute("a", compute) == b"one"
    assert seen == [[f"{NAME}-0"]]
    assert os.listdir(tmp_path / "c/v1/leases") == []


def test_waiting_pauses_grow_and_stay_short(tmp_path: Path) -> None:
    """One that waits asks often at first and then twenty times a second: no storm, no long sleep."""
    cache = fstx.cache(tmp_path / "c")
    held = native_ops().lock(lock_of(cache), wait_s=0)
    assert held is not None
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 10:
            held.release()

    with seams.waiting(wait):
        assert cache.get_or_compute("a", lambda: b"one") == b"one"
    assert pauses == sorted(pauses)
    assert (len(pauses), pauses[0], pauses[-1]) == (10, 0.001, 0.05)
