"""Where a test kit may stand: between a backend and its storage, and in place of waiting.

In use nothing stands there. The conformance kit puts fault-injecting layers under backends that it opens by
URL, also under a third party's, makes pauses short, and ends simulated processes.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layers:
    """What is put around each store, and around the calls of the operating system."""

    store: Callable[[Any], Any] | None = None
    ops: Callable[[Any], Any] | None = None


_NONE = Layers()
_layers: ContextVar[Layers] = ContextVar("fstx_layers", default=_NONE)
_endings: list[Callable[[], object]] = []
_wait: Callable[[float], object] = time.sleep
_hex: Callable[[int], str] = secrets.token_hex
_clock: Callable[[], int] = time.time_ns


@contextlib.contextmanager
def under(layers: Layers) -> Iterator[None]:
    """Backends that are opened within the block get these layers."""
    token = _layers.set(layers)
    try:
        yield
    finally:
        _layers.reset(token)


def around_store(store: T) -> T:
    """`store`, or the layer over it."""
    return _over(_layers.get().store, store)


def around_ops(ops: T) -> T:
    """`ops`, or the layer over it."""
    return _over(_layers.get().ops, ops)


def _over(layer: Callable[[Any], T] | None, inner: T) -> T:
    return inner if layer is None or getattr(inner, "is_layer", False) else layer(inner)


def pause(seconds: float) -> None:
    """Wait between two tries."""
    _wait(seconds)


async def pause_async(seconds: float) -> None:
    """As `pause`, for coroutines: other work of the event loop goes on."""
    import asyncio  # a coroutine runs: it is there already

    if _wait is time.sleep:
        await asyncio.sleep(seconds)
    else:
        _wait(seconds)
        await asyncio.sleep(0)


@contextlib.contextmanager
def waiting(wait: Callable[[float], object]) -> Iterator[None]:
    """Within the block pauses of the whole process call `wait` instead of sleeping."""
    global _wait
    before, _wait = _wait, wait
    try:
        yield
    finally:
        _wait = before


def token_hex(count: int) -> str:
    """`count` bytes that nobody else draws, in hex: names of transactions, attempts, temporary files."""
    return _hex(count)


def time_ns() -> int:
    """The time that names carry; nothing is decided by it."""
    return _clock()


@contextlib.contextmanager
def drawing(draw: Callable[[int], str], clock: Callable[[], int] = time.time_ns) -> Iterator[None]:
    """Within the block names of the whole process come from these, so that a run can be repeated."""
    global _hex, _clock
    before, (_hex, _clock) = (_hex, _clock), (draw, clock)
    try:
        yield
    finally:
        _hex, _clock = before


def at_end_of_process(forget: Callable[[], object]) -> None:
    """Register what forgets the state that a module keeps for this process."""
    _endings.append(forget)


def end_of_process() -> None:
    """From here on this process knows nothing of what it did before, as one that has just begun.

    Transactions that it had open count as a dead process's.
    """
    for forget in _endings:
        forget()
