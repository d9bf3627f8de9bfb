"""The threads in which storage is waited for, so that no event loop ever is."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from fsspec.asyn import AsyncFileSystem

_P = ParamSpec("_P")
_T = TypeVar("_T")

THREADS = 32
_pool: ThreadPoolExecutor | None = None


def _forget() -> None:
    global _pool
    _pool = None  # its threads are not in the child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fstx-tx")
    return _pool


async def aside(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run `function` in another thread, in the caller's context: it belongs to the same transaction."""
    context = contextvars.copy_context()
    call = functools.partial(context.run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads(), call)


async def to_the_end(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """As `aside`, for what must not be left half done: a cancelled caller waits for it."""
    task = asyncio.ensure_future(aside(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def waited(name: str) -> Callable[..., Any]:
    """The synchronous face of the coroutine method `name`.

    An interrupt cancels it and is raised once it has stopped: nothing goes on writing afterwards, as it does
    under fsspec's own ``sync``.
    """

    @functools.wraps(getattr(AsyncFileSystem, name, None) or waited)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        loop = self.loop
        if loop is None or asyncio._get_running_loop() is loop:
            raise RuntimeError(f"an event loop must not wait for itself: await fs.{name}(...)")
        done: Future[Any] = Future()
        tasks: list[asyncio.Task[Any]] = []

        async def run() -> None:
            tasks.append(asyncio.current_task())  # type: ignore[arg-type]
            try:
                done.set_result(await getattr(self, name)(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                done.set_exception(error)

        asyncio.run_coroutine_threadsafe(run(), loop)
        while True:
            try:
                return done.result(1)
            except TimeoutError:
                if done.done():
                    raise
            except KeyboardInterrupt:
                if not done.done() and tasks:
                    loop.call_soon_threadsafe(tasks[0].cancel)
                    done.exception()
                raise

    call.__name__ = name.removeprefix("_")
    return call


__all__ = ["THREADS", "aside", "to_the_end", "waited"]
