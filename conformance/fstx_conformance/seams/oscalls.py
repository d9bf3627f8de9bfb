"""Faults under any Python code that writes local files: functions of `os` and `open`, below one directory.

For what can't be given an `Ops`: other libraries, as they are. The functions are replaced for the length of
a block, in this process, and only calls that touch `root` are counted. A write that tears is there by half.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from fstx_conformance.injector import Call, Injector

_ONE = ("unlink", "remove", "mkdir", "rmdir")
_TWO = ("rename", "replace", "link", "symlink")


@contextmanager
def injected(injector: Injector, root: str) -> Iterator[None]:
    """Within the block what happens below `root` goes through the injector; temporary files lie there too."""
    with ExitStack() as stack:
        for name in _ONE + _TWO:
            stack.enter_context(
                mock.patch.object(os, name, _named(injector, root, name, getattr(os, name)))
            )
        stack.enter_context(mock.patch.object(os, "fsync", _synced(injector, os.fsync)))
        opened = _opened(injector, root, io.open)
        stack.enter_context(mock.patch.object(builtins, "open", opened))
        stack.enter_context(mock.patch.object(io, "open", opened))
        scratch = os.path.join(root, "tmp")
        os.makedirs(scratch, exist_ok=True)
        stack.enter_context(mock.patch.object(tempfile, "tempdir", scratch))
        yield


def _call(
    injector: Injector,
    op: str,
    key: str,
    perform: Callable[[], Any],
    torn: Callable[[], Any] | None = None,
) -> Any:
    def error() -> OSError:
        return OSError(errno.EIO, os.strerror(errno.EIO), key)

    def ambiguous() -> Any:
        raise error()

    return injector.call(Call(op, key, perform, True, ambiguous, error, torn))


def _below(root: str, path: Any) -> str | None:
    try:
        full = os.path.abspath(os.fsdecode(path))
    except TypeError:
        return None  # a descriptor
    return os.path.relpath(full, root) if full.startswith(f"{root}{os.sep}") else None


def _named(injector: Injector, root: str, op: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        told = [_below(root, path) for path in args[: 2 if op in _TWO else 1]]
        if not any(told):
            return real(*args, **kwargs)
        key = " ".join(name or "outside" for name in told)
        return _call(injector, op, key, lambda: real(*args, **kwargs))

    return call


def _synced(injector: Injector, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(fd: Any) -> Any:
        return _call(injector, "fsync", "", lambda: real(fd))

    return call


def _opened(injector: Injector, root: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        name = _below(root, file)
        writes = set(mode) & set("wxa+")
        if isinstance(file, int) or name is None or not writes:
            return real(file, mode, *args, **kwargs)

        def perform() -> Any:
            made = real(file, mode, *args, **kwargs)
            injector.on_death.append(made.close)  # as the kernel does, also where nobody got it
            return made

        return _File(injector, _call(injector, "open", name, perform), name)

    return call


class _File:
    """A file that is written through the injector. What is buffered is lost when the process dies."""

    def __init__(self, injector: Injector, file: Any, name: str) -> None:
        self._injector, self._file, self._name = injector, file, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def write(self, data: Any) -> Any:
        """One write; flushed, so that each write is a step."""

        def whole() -> Any:
            count = self._file.write(data)
            self._file.flush()
            return count

        def half() -> None:
            self._file.write(data[: len(data) // 2])
            self._file.flush()

        return _call(self._injector, "write", self._name, whole, half)

    def close(self) -> None:
        """The end of it; a dead process closes too, but writes nothing more."""
        self._file.close()


__all__ = ["injected"]
