"""Which transactions are open here, and which one the running code belongs to.

State lies in a context variable and a registry, never on a file system instance: threads and coroutines
that did not begin a transaction are not in it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

from fstx import seams

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_CURRENT: ContextVar[Mapping[str, Any]] = ContextVar("fstx_current", default=_NOTHING)
_open: WeakValueDictionary[str, Any] = WeakValueDictionary()
_lock = threading.Lock()

_REFERENCE = re.compile(r"([0-9a-f]{32})\.(\d{1,20})")


seams.at_end_of_process(_open.clear)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()  # whoever held it is not in this process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def current(identity: str) -> Any | None:
    """The transaction on this dataset that the running code belongs to, or None."""
    found = _CURRENT.get().get(identity)
    return found if found is not None and found.is_open else None


def enter(identity: str, transaction: Any) -> None:
    """From here on the running context belongs to `transaction`."""
    _CURRENT.set({**_CURRENT.get(), identity: transaction})


def leave(identity: str, transaction: Any, outer: Any | None = None) -> None:
    """The running context does not belong to `transaction` any more; again to `outer`, if there is one."""
    left = dict(_CURRENT.get())
    if left.get(identity) is transaction:
        del left[identity]
        if outer is not None:
            left[identity] = outer
        _CURRENT.set(left)


@contextmanager
def belonging(identity: str, transaction: Any) -> Iterator[None]:
    """Within the block the running context belongs to `transaction`, to none if that is None."""
    before = _CURRENT.get()
    now = {k: t for k, t in before.items() if k != identity}
    if transaction is not None:
        now[identity] = transaction
    _CURRENT.set(now)
    try:
        yield
    finally:
        _CURRENT.set(before)


def register(txid: str, transaction: Any) -> None:
    """Make an open transaction known to this process."""
    with _lock:
        _open[txid] = transaction


def find(txid: str) -> Any | None:
    """The transaction that is open in this process under `txid`, or None."""
    with _lock:
        found = _open.get(txid)
    return found if found is not None and found.is_open else None


def reference(txid: str, begun: int) -> str:
    """What a URL carries of a transaction: its name and the version that it began on."""
    return f"{txid}.{begun}"


def parse_reference(text: str) -> tuple[str, int] | None:
    """Name and version of `reference`; None for what is none."""
    found = _REFERENCE.fullmatch(text)
    return (found[1], int(found[2])) if found else None
