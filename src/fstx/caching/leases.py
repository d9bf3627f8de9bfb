"""Who computes an entry, on storage without locks: numbered records, each put only if absent.

The holder is who put the highest number. While it computes it puts its record again, with a counter that
grows. One who waits takes the next number

* if it can see that the holder is dead: same host and boot, and no such process; else
* if the record did not change while it watched, for as long as the lease, by its own monotonic clock.

Of many who give a holder up at once one gets the next number. A holder that was given up and comes back
does no harm: entries are put whole. On storage that has no put-if-absent, or lies about it, more than one
may compute, and nothing else goes wrong.
"""

from __future__ import annotations

import contextlib
import errno
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from fstx import seams
from fstx.ops.processes import here, lives
from fstx.stores import Answer, Store

BEATS = 3
"""Times that a holder says within one lease that it lives."""

_PAUSE_S = 0.02
_LONGEST_S = 1.0
_MOST = 1000


class Beat:
    """A thread that calls `say` every so often, until it is stopped. What storage refuses is let pass."""

    def __init__(self, say: Callable[[], object], every_s: float) -> None:
        self._say, self._every_s = say, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fstx-cache-beat", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            with contextlib.suppress(OSError):
                self._say()

    def stop(self) -> None:
        """Afterwards nothing is said any more."""
        self._stop.set()
        self._thread.join()


class Lease:
    """A turn that this process has."""

    def __init__(
        self, store: Store, name: str, number: int, record: dict[str, Any], lease_s: float
    ):
        self._store, self._name, self._number = store, name, number
        self._record = record
        self._beat: Beat | None = Beat(self._say, lease_s / BEATS)

    def _say(self) -> None:
        self._record["beats"] += 1
        self._store.put(_key(self._name, self._number), _bytes(self._record))

    def release(self) -> None:
        """Take the record away, and those of holders that were given up before."""
        beat, self._beat = self._beat, None
        if beat is None:
            return
        beat.stop()
        with contextlib.suppress(OSError):  # what stays counts as a dead one's
            self._store.delete([_key(self._name, n) for n in range(self._number, -1, -1)])


class NoTurn:
    """A turn where the storage can't give any: everybody has it."""

    def release(self) -> None:
        """Nothing was held."""


class LeaseTurns:
    """Attempts of one caller to get the turn of one entry."""

    def __init__(
        self,
        store: Store,
        name: str,
        lease_s: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._name, self._lease_s = store, name, lease_s
        self._monotonic = monotonic
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._number = 0
        self._pause_s = _PAUSE_S

    def take(self) -> Lease | NoTurn | None:
        """The turn, if nobody who may be alive has it."""
        record = {**here(), "nonce": seams.token_hex(8), "beats": 0}
        for number in range(_MOST):
            self._number = number
            try:
                if self._create(number, record):
                    return Lease(self._store, self._name, number, record, self._lease_s)
            except OSError as error:
                if error.errno in (errno.ENOTSUP, errno.ENOSYS):
                    return NoTurn()
                raise
            if self._look(number) is not False:
                return None
        return NoTurn()

    def wait(self) -> None:
        """Until the holder has let go, or is given up."""
        while True:
            seams.pause(self._pause_s)
            self._pause_s = min(self._pause_s * 1.5, _LONGEST_S, self._lease_s / BEATS)
            if not self._look(self._number):
                return

    def _create(self, number: int, record: dict[str, Any]) -> bool:
        key, data = _key(self._name, number), _bytes(record)
        for _ in range(BEATS):
            answer = self._store.put_new(key, data)
            if answer is Answer.DONE:
                return True
            if answer is not Answer.BUSY:
                break
            seams.pause(_PAUSE_S)
        else:
            return False
        try:
            return self._store.get(key) == data  # an answer that got lost
        except FileNotFoundError:
            return False

    def _look(self, number: int) -> bool | None:
        """True: its holder may live. False: it is given up. None: it has let go."""
        try:
            found = self._store.get(_key(self._name, number))
        except FileNotFoundError:
            self._seen.pop(number, None)
            return None
        if lives(_parse(found)) is False:
            return False
        now_s = self._monotonic()
        before, since_s = self._seen.setdefault(number, (found, now_s))
        if before != found:
            self._seen[number] = (found, now_s)
            return True
        return now_s - since_s < self._lease_s


def _key(name: str, number: int) -> str:
    return f"leases/{name}-{number}"


def _bytes(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True).encode()


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


__all__ = ["BEATS", "Beat", "Lease", "LeaseTurns", "NoTurn"]
