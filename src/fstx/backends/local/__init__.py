"""Transactions on local file systems: `rename`, `swap` and `redo` over operating-system calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fstx import seams
from fstx.backends.local.backend import LocalBackend
from fstx.errors import PathError
from fstx.ops import Ops

__all__ = ["LocalBackend", "native_ops", "open_backend"]


def native_ops() -> Ops:
    """The calls of this operating system."""
    if sys.platform == "win32":
        from fstx.ops.windows import WindowsOps

        return WindowsOps()
    from fstx.ops.posix import PosixOps

    return PosixOps()


def open_backend(
    urls: Sequence[str], *, joined: bool = False, syncfs: bool = True, ops: Ops | None = None
) -> LocalBackend:
    """Entry point of the schemes ``file`` and ``local`` and of plain paths.

    Parameters
    ----------
    urls
        Plain paths or ``file://`` URLs.
    joined
        Logical paths begin with the name of a target.
    syncfs
        False forbids syncfs(2).
    """
    return LocalBackend(
        [_path_of(u) for u in urls],
        joined=joined,
        ops=seams.around_ops(ops or native_ops()),
        syncfs=syncfs,
    )


def _path_of(url: str) -> str:
    if "\x00" in url:
        raise PathError(f"the path {url!r} contains NUL")
    path = url
    for scheme in ("file://", "local://"):
        if url.startswith(scheme):
            path = url.removeprefix(scheme)  # as fsspec reads it: nothing is unquoted
    if not path:
        raise PathError(f"{url!r} names no path")
    return os.path.abspath(os.path.expanduser(path))
