"""Locks for storage that has none which die with their holder: leases, kept in files.

A lock is a file that exists: created exclusively, with one line that says who holds it, and behind that line
one more byte for every few seconds that the holder lived. Another client may take it away

* if it can see that the holder is dead: same host and boot, and no such process; else
* if nothing was added while it watched, for as long as the lease, by its own monotonic clock.

Clocks of two hosts are never compared. A holder that stalls for longer than the lease loses its locks, and
does not know it at once; `Ops.leased` says so, and what depends on it is told in the guarantee.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from fstx import seams
from fstx.ops.processes import here, lives

LEASE_S = 30.0
BEAT_S = 3.0  # a reader learns within this that a holder lives
_LIMIT_BYTES = 1 << 20
_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5

_held: set[str] = set()  # nonces of this process; others of its pid are what a lost answer left
_keepers: weakref.WeakSet[LeasedLocks] = weakref.WeakSet()


def forget_all() -> None:
    """As the end of this process would: nothing is held any more, and nothing is renewed."""
    _held.clear()
    for keeper in list(_keepers):
        keeper.forget()


seams.at_end_of_process(forget_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_all)


class Arrivals:
    """Calls that came to this process by pickle: one connection for all tasks that bring the same.

    `make` gets what `of` gets. The last few are kept.
    """

    def __init__(self, make: Callable[..., Any], keep: int = 8) -> None:
        self._make, self._keep = make, keep
        self._found: dict[str, Any] = {}
        self._lock = threading.Lock()

    def of(self, host: str, options: dict[str, Any]) -> Any:
        """The calls for these options, made at the first time."""
        key = repr((host, sorted(options.items())))
        with self._lock:
            found = self._found.pop(key, None) or self._make(host, **options)
            self._found[key] = found  # the newest is the last
            while len(self._found) > self._keep:
                self._found.pop(next(iter(self._found)))
            return found


class Files(Protocol):
    """What leases need of storage; a part of `fstx.ops.Ops`."""

    def open_new(self, path: str) -> BinaryIO: ...
    def open_again(self, path: str) -> BinaryIO: ...
    def read_file(self, path: str, limit_bytes: int) -> bytes: ...
    def unlink(self, path: str) -> None: ...
    def rename(self, src: str, dst: str) -> None: ...
    def rename_new(self, src: str, dst: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, as the file says. ``size_bytes`` grows while the holder lives."""

    nonce: str
    who: dict[str, Any]
    size_bytes: int

    @property
    def beat_s(self) -> float:
        """How often this holder says that it lives."""
        told = self.who.get("beat_s")
        return float(told) if isinstance(told, int | float) and 0 < told < 3600 else BEAT_S


@dataclass(slots=True)
class _Watched:
    holder: Holder
    since_s: float  # when it was first seen like this
    alive_s: float | None = None  # when it was last seen to grow


@dataclass(eq=False)
class Lease:
    """A held lock."""

    keeper: LeasedLocks
    path: str
    nonce: str
    file: BinaryIO | None
    size_bytes: int
    renewed_s: float
    over: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def release(self) -> None:
        """Remove the lock file if it is still ours, then let go."""
        self.keeper.drop(self)

    def forget(self) -> None:
        """What the end of the process does: the file stays, and nobody renews it."""
        self.over = True
        _held.discard(self.nonce)
        self.keeper.held.discard(self)

    def renew(self) -> None:
        """One more byte; through a new handle where the connection was lost."""
        with self._lock:
            if self.over:
                return
            if self.file is None:
                holder = _parse(self.keeper.files.read_file(self.path, _LIMIT_BYTES))
                if holder.nonce != self.nonce:
                    raise FileNotFoundError(errno.ENOENT, "the lock is another's", self.path)
                self.file = self.keeper.files.open_again(self.path)
                self.size_bytes = self.file.seek(0, os.SEEK_END)
            before_s = self.keeper.monotonic()
            try:
                self.file.write(b".")
            except (OSError, ValueError):
                self.close()
                raise
            self.renewed_s = before_s

    def close(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            with contextlib.suppress(OSError, ValueError):
                file.close()


class LeasedLocks:
    """Locks in files, over storage that creates exclusively.

    Parameters
    ----------
    files
        The storage. OSError(EIO) or OSError(ETIMEDOUT) means that the answer was lost.
    lease_s
        How long a lock of another host must stay unchanged, while it is watched, to count as a dead one's.
        Longer than any stall of a client that one wants to survive.
    beat_s
        How often held locks are renewed.
    """

    def __init__(
        self,
        files: Files,
        *,
        lease_s: float = LEASE_S,
        beat_s: float = BEAT_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = seams.pause,
    ) -> None:
        if not 0 < 2 * beat_s <= lease_s:
            raise ValueError(f"a lease of {lease_s} s is too short for a beat of {beat_s} s")
        self.files = files
        self.lease_s, self.beat_s = lease_s, beat_s
        self.monotonic, self.sleep = monotonic, sleep
        self.held: set[Lease] = set()
        self._seen: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        _keepers.add(self)

    def forget(self) -> None:
        """As the end of the process would."""
        for lease in list(self.held):
            lease.forget()
        self._lock = threading.Lock()
        self._thread = None
        self._stop.set()
        self._stop = threading.Event()
        self._seen.clear()

    def lock(self, path: str, *, wait_s: float) -> Lease | None:
        """Take the lock; None if a living holder kept it for `wait_s`.

        Whether a holder on another host lives takes up to one of its beats to see, and up to the lease if
        it does not.
        """
        deadline_s = self.monotonic() + wait_s
        pause_s = _PAUSE_S
        while True:
            try:
                return self._create(path)
            except FileExistsError:
                pass
            alive = self._look(path)
            if alive is None:  # it has just gone
                continue
            if alive is True and self.monotonic() >= deadline_s:
                return None
            self.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def drop(self, lease: Lease) -> None:
        """Let a lock go, and delete its file if it can only be ours."""
        with lease._lock:
            if lease.over:
                return
            sure = self.monotonic() - lease.renewed_s < self.lease_s / 2
            lease.close()
            for certain in (sure, False):  # after a lost answer it may be another's by now
                try:
                    if certain or _parse(self._read(lease.path)).nonce == lease.nonce:
                        self.files.unlink(lease.path)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    continue  # if it stays, it counts as a dead one's
            lease.over = True  # when it was interrupted before, the next call finishes it
        _held.discard(lease.nonce)
        self.held.discard(lease)

    # --- taking ----------------------------------------------------------------------------------

    def _create(self, path: str) -> Lease:
        nonce = secrets.token_hex(8)
        line = _line(nonce, self.beat_s)
        before_s = self.monotonic()
        _held.add(nonce)
        try:
            file = self.files.open_new(path)
            file.write(line)
        except BaseException:
            _held.discard(nonce)  # if it landed all the same, it counts as a dead one's
            raise
        lease = Lease(self, path, nonce, file, len(line), before_s)
        self.held.add(lease)
        self._seen.pop(path, None)
        self._renew_from_now_on()
        return lease

    def _look(self, path: str) -> bool | None:
        """True: its holder lives. False: not known yet. None: the lock is free by now, or was freed."""
        try:
            holder = _parse(self._read(path))
        except FileNotFoundError:
            return None
        known = _judge(holder)
        if known is not None:
            if known is False:
                self._break(path, holder)
                return None
            return True
        now_s = self.monotonic()
        seen = self._seen.get(path)
        if seen is None or seen.holder.nonce != holder.nonce:
            self._seen[path] = _Watched(holder, now_s)
            return False
        if seen.holder.size_bytes != holder.size_bytes:
            self._seen[path] = _Watched(holder, now_s, now_s)
            return True
        if now_s - seen.since_s >= max(self.lease_s, 4 * holder.beat_s):
            self._break(path, holder)
            return None
        return seen.alive_s is not None and now_s - seen.alive_s < self.lease_s / 2

    def _read(self, path: str) -> bytes:
        return self.files.read_file(path, _LIMIT_BYTES)

    def _break(self, path: str, holder: Holder) -> None:
        """Take a dead one's lock away. Renamed first, so that one of several does it.

        One at a time: what was judged is looked at again under a lock for that, or a second breaker could
        take away what the first one's successor has made meanwhile.
        """
        self._seen.pop(path, None)
        guard = f"{path}-breaking.tmp"
        try:
            own = self._create(guard)
        except FileExistsError:
            if self._look_at_guard(guard):
                self.sleep(_PAUSE_S)
            return
        try:
            away = f"{path}-{secrets.token_hex(4)}.tmp"
            with contextlib.suppress(FileNotFoundError):
                if _same(_parse(self._read(path)), holder):
                    self.files.rename(path, away)
                    if _parse(self._read(away)).nonce != holder.nonce:
                        with contextlib.suppress(FileExistsError):
                            self.files.rename_new(away, path)  # another's: give it back
                            return
                    self.files.unlink(away)
        finally:
            own.release()

    def _look_at_guard(self, guard: str) -> bool:
        """True while another breaks; one that died at it is put out of the way."""
        try:
            holder = _parse(self._read(guard))
        except FileNotFoundError:
            return False
        known = _judge(holder)
        seen = self._seen.get(guard)
        now_s = self.monotonic()
        if known is None and (seen is None or not _same(seen.holder, holder)):
            self._seen[guard] = _Watched(holder, now_s)
            return True
        stale = seen is not None and now_s - seen.since_s >= max(self.lease_s, 4 * holder.beat_s)
        if known is False or (known is None and stale):
            self._seen.pop(guard, None)
            with contextlib.suppress(FileNotFoundError):
                self.files.unlink(guard)
            return False
        return True

    # --- renewing --------------------------------------------------------------------------------

    def _renew_from_now_on(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=_renew,
                    args=(weakref.ref(self), self._stop, self.beat_s),
                    name="fstx-leases",
                    daemon=True,
                )
                self._thread.start()


def _renew(ref: weakref.ref[LeasedLocks], stop: threading.Event, beat_s: float) -> None:
    while not stop.wait(beat_s):
        keeper = ref()
        if keeper is None:
            return
        with keeper._lock:
            if not keeper.held:
                keeper._thread = None
                return
        for lease in list(keeper.held):
            # A lost connection comes back at the next beat; a lost lock is found by the rename that fails.
            with contextlib.suppress(OSError, ValueError):
                lease.renew()
        del keeper


def _line(nonce: str, beat_s: float) -> bytes:
    value = {**here(), "nonce": nonce, "beat_s": beat_s}
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def _parse(content: bytes) -> Holder:
    """The holder that a lock names; nameless while the line is not whole."""
    line, whole, _ = content.partition(b"\n")
    try:
        who = json.loads(line) if whole else {}
    except ValueError:
        who = {}
    who = who if isinstance(who, dict) else {}
    return Holder(str(who.get("nonce", "")), who, len(content))


def _same(a: Holder, b: Holder) -> bool:
    return (a.nonce, a.size_bytes) == (b.nonce, b.size_bytes)


def _judge(holder: Holder) -> bool | None:
    """Whether a holder lives, where its process can be looked at from here; None elsewhere."""
    living = lives(holder.who)
    if living and holder.who.get("pid") == os.getpid():
        return holder.nonce in _held
    return living
