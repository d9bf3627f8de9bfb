"""Ctrl-C at every call of the local backend, on the calls of this system."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import pytest

from fstx.backends.local import native_ops
from support.localjobs import JOBS, Place

CHANGING = (
    {"open_new", "sync_file", "sync_dir", "mkdir", "rmdir", "unlink", "lock"}  # contents
    | {"rename", "replace_file", "rename_new", "link_new", "exchange"}  # names
)


class Interrupted:
    """The system's calls; the k-th that changes something raises KeyboardInterrupt instead."""

    def __init__(self, interrupt_at: int, exchange: bool) -> None:
        self._ops: Any = native_ops()
        self._left = interrupt_at
        self._exchange = exchange

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._ops, name)
        if name not in CHANGING:
            return call

        def counted(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt
            if name == "exchange" and not self._exchange:
                raise OSError(errno.ENOSYS, "no exchange here")
            return call(*args, **options)

        return counted


class Native(Place):
    def ops(self, **faults: Any) -> Any:
        return Interrupted(**faults)


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "no-exchange"])
@pytest.mark.parametrize("name", list(JOBS))
def test_interrupt_at_every_call(
    name: str, exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A25: Ctrl-C leaves the old or the new state whole, nothing beside it, and says which."""
    monkeypatch.setattr("fstx.backends.local.probe._seen", {})
    job = JOBS[name]
    for k in itertools.count(1):
        place = Native(tmp_path / str(k))
        place.put(job.old)
        try:
            job.run(place, interrupt_at=k, exchange=exchange)
        except KeyboardInterrupt as interrupt:
            found = place.found()
            assert found in (job.old, job.new), (k, found)
            said = "committed" in "".join(getattr(interrupt, "__notes__", []))
            assert said == (found == job.new), k
        else:
            assert k > 10
            assert place.found() == job.new
            break
