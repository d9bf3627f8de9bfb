"""The connection of remote stores: an own fsspec instance, its loop, waiting and repeating."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import logging
import os
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from fstx import seams
from fstx.stores import Answer
from fstx.stores.answers import Cause, conditional, error_of, transient
from fstx.stores.hiding import scrub, secrets_of, shows
from fstx.stores.services import Service

T = TypeVar("T")

_log = logging.getLogger("fstx.stores")
_TRIES = 6
_FIRST_S, _LONGEST_S = 0.1, 5.0
_SLOWEST_BYTES_S = 250_000  # an attempt may take as long as this rate needs, on top of the limit
_AT_ONCE = 32
_NO_MATTER = frozenset({"loop", "asynchronous", "skip_instance_cache", "use_listings_cache"})
_BUGS = (TypeError, ValueError, AttributeError, NotImplementedError)


class Link:
    """One bucket of one service, shared by all stores below one root.

    Parameters
    ----------
    fs
        The caller's file system. It is not used itself: the link makes an instance of its own, in a
        forked or unpickling process anew.
    service
        The class of the service's calls.
    bucket
        Bucket or container.
    limit_s
        Seconds for one attempt, not counting the time that its bytes need.
    """

    def __init__(self, fs: Any, service: Any, bucket: str, *, limit_s: float = 60.0) -> None:
        self._given = (type(fs), fs.storage_args, dict(fs.storage_options))
        self._service_class = service
        self._bucket = bucket
        self._limit_s = limit_s
        self._pid = 0
        self._endpoint = ""
        self._lock = threading.Lock()
        self._first = fs
        self.secrets = secrets_of([self._given[1], self._given[2]])

    @property
    def token(self) -> str:
        """Of the options, credentials among them; tells nothing of them."""
        cls, args, options = self._given
        kept = sorted((k, repr(v)) for k, v in options.items() if k not in _NO_MATTER)
        return hashlib.sha256(repr((cls.__qualname__, args, kept)).encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        return (_remake, (*self._given, self._service_class, self._bucket, self._limit_s))

    @property
    def service(self) -> Any:
        """The service's calls, over an instance that belongs to this process."""
        if self._pid != os.getpid():
            if self._pid:  # forked: the parent's lock may be held by a thread that is not here
                self._lock = threading.Lock()
            with self._lock:
                if self._pid != os.getpid():
                    cls, args, options = self._given
                    fs = self._first
                    if fs is None:
                        options = {
                            k: v for k, v in options.items() if k not in ("loop", "asynchronous")
                        }
                        fs = cls(*args, **options)
                    self._service = self._service_class(
                        self._service_class.instance(fs), self._bucket
                    )
                    self._first = None  # a child of a fork can't use it
                    self._gate = asyncio.Semaphore(_AT_ONCE)
                    self._pid = os.getpid()
        return self._service

    def typed(self) -> Service:
        """`service`, for the type checker."""
        service: Service = self.service
        return service

    def endpoint(self) -> str:
        """Where the service is, as its client found out from options, environment and files."""
        if not self._endpoint:
            service = self.typed()
            try:
                self.wait(service.connect())
            except Exception as error:  # noqa: BLE001 - only the client's settings are asked for
                _log.debug("no client yet: %s", type(error).__name__)
                return service.endpoint()
            self._endpoint = service.endpoint()
        return self._endpoint

    # --- waiting -------------------------------------------------------------------------------

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the file system's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.service.fs.loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; an interrupt cancels it before it goes on to the caller."""
        loop = self.service.fs.loop
        try:
            running: Any = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is loop:
            work.close()
            raise RuntimeError("a store was called from the event loop that serves it")
        return self.result(asyncio.run_coroutine_threadsafe(work, loop))

    def result(self, future: Future[T]) -> T:
        """The result of a `submit`; an interrupt cancels it before it goes on to the caller."""
        try:
            while not future.done():
                concurrent.futures.wait([future], timeout=1.0)  # some systems interrupt no lock
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                # The cancellation has reached the coroutine when a later call has been served.
                later = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.service.fs.loop)
                concurrent.futures.wait([later], timeout=1.0)
            raise

    # --- requests ------------------------------------------------------------------------------

    async def again(
        self,
        make: Callable[[], Awaitable[T]],
        action: str,
        place: str,
        *,
        size_bytes: int = 0,
    ) -> T:
        """The result of a request that may be made more than once."""
        pause_s = _FIRST_S
        for turn in range(_TRIES):
            try:
                async with self._gate:
                    return await asyncio.wait_for(make(), self._within_s(size_bytes))
            except Exception as error:  # noqa: BLE001 - looked at below
                failed = error
            cause = self.service.explain(failed)
            if turn == _TRIES - 1 or not transient(cause) or type(failed) in _BUGS:
                break
            _log.debug("%s %s: %s %s, again", action, place, cause.status, cause.code)
            await seams.pause_async(pause_s * (0.5 + random.random()))
            pause_s = min(pause_s * 2, _LONGEST_S)
        raise self.failure(cause, place, action) from self.showable(failed)

    async def once(
        self, make: Callable[[], Awaitable[None]], action: str, place: str, size_bytes: int
    ) -> Answer:
        """The answer to a conditional request, made once."""
        try:
            async with self._gate:
                await asyncio.wait_for(make(), self._within_s(size_bytes))
            return Answer.DONE
        except Exception as error:  # noqa: BLE001 - looked at below
            failed = error
        cause = self.service.explain(failed)
        answer = conditional(cause)
        if answer is None:
            raise self.failure(cause, place, action) from self.showable(failed)
        _log.debug("%s %s: %s %s, %s", action, place, cause.status, cause.code, answer.name)
        return answer

    def _within_s(self, size_bytes: int) -> float:
        return self._limit_s + size_bytes / _SLOWEST_BYTES_S

    def failure(self, cause: Cause, place: str, action: str) -> OSError:
        """The error that the caller gets; nothing secret in it."""
        text = scrub(cause.text, self.secrets).strip()
        return error_of(Cause(cause.status, cause.code, text, cause.sent), place, action)

    def showable(self, error: BaseException) -> BaseException | None:
        """`error` as a cause, or None where a traceback of it would show a credential."""
        return None if shows(error, self.secrets) else error


def _remake(cls: Any, args: Any, options: Any, service: Any, bucket: str, limit_s: float) -> Link:
    options = {k: v for k, v in options.items() if k not in ("loop", "asynchronous")}
    return Link(cls(*args, **options), service, bucket, limit_s=limit_s)


__all__ = ["Link"]
