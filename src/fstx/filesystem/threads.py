"""The threads in which storage is waited for, so that no event loop ever is."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

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


__all__ = ["THREADS", "aside"]
