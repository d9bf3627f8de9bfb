"""Faults at the methods of any fsspec file system: a layer over an instance, or under a whole protocol.

`FaultFiles` is the layer. `under` puts it under every file system that is made for a protocol within a block,
so that a backend of a third party meets it without knowing; the process is the one that `stands` there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import fsspec
from fsspec.registry import get_filesystem_class
from fsspec.spec import AbstractFileSystem

from fstx_conformance.injector import Call, Injector

_CHANGING = (
    "pipe_file",
    "pipe",
    "put_file",
    "rm_file",
    "rm",
    "_rm",
    "mv",
    "mv_file",
    "move",
    "rename",
    "cp_file",
    "copy",
    "mkdir",
    "makedirs",
    "rmdir",
    "touch",
)
_READING = (
    "cat_file",
    "cat",
    "info",
    "ls",
    "find",
    "exists",
    "isfile",
    "isdir",
    "get_file",
    "size",
)
_process: ContextVar[Injector | None] = ContextVar("fstx_files_process", default=None)


class FaultFiles(AbstractFileSystem):  # type: ignore[misc]
    """An fsspec file system whose calls can fail, be lost, doubled or late, or kill the process.

    Parameters
    ----------
    inner
        The file system.
    process
        The process; None: the one that stands there when a call is made.
    """

    cachable = False

    def __init__(self, inner: Any, process: Injector | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.process = process
        self.protocol = inner.protocol
        self.root_marker = inner.root_marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (FaultFiles, (self.inner,))

    @property
    def fsid(self) -> str:
        """That of the file system below."""
        return str(self.inner.fsid)

    def _strip_protocol(self, path: Any) -> Any:
        return self.inner._strip_protocol(path)

    def _call(
        self,
        op: str,
        key: str,
        perform: Callable[[], Any],
        *,
        changing: bool = True,
        torn: Callable[[], Any] | None = None,
    ) -> Any:
        process = self.process or _process.get()
        if process is None:
            return perform()

        def error() -> OSError:
            return ConnectionError(f"no answer to {op} {key}")

        def refusal() -> OSError:
            return PermissionError(f"{op} {key} refused")

        def ambiguous() -> Any:
            raise error()

        return process.call(Call(op, key, perform, changing, ambiguous, refusal, torn))

    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        """A file; one that is written is counted at each write and at its end."""
        if "r" in mode and "+" not in mode:
            return self._call(
                "open", path, lambda: self.inner.open(path, mode, **kwargs), changing=False
            )
        made = self._call("open", path, lambda: self.inner.open(path, mode, **kwargs))
        return _File(self, made, path)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return self.open(path, mode, **kwargs)


def _method(name: str, changing: bool) -> Callable[..., Any]:
    def call(self: FaultFiles, *args: Any, **kwargs: Any) -> Any:
        key = " ".join(a for a in args[:2] if isinstance(a, str))
        return self._call(
            name.strip("_"),
            key,
            lambda: getattr(self.inner, name)(*args, **kwargs),
            changing=changing,
        )

    call.__name__ = name
    return call


for _name in _CHANGING:
    setattr(FaultFiles, _name, _method(_name, True))
for _name in _READING:
    setattr(FaultFiles, _name, _method(_name, False))


class _File:
    def __init__(self, fs: FaultFiles, file: Any, path: str) -> None:
        self._fs, self._file, self._path = fs, file, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is None:
            self.close()

    def write(self, data: Any) -> Any:
        """One write; it can tear."""
        return self._fs._call(
            "write",
            self._path,
            lambda: self._file.write(data),
            torn=lambda: self._file.write(data[: len(data) // 2]),
        )

    def close(self) -> None:
        """The end of the object."""
        self._fs._call("close", self._path, self._file.close)


@contextmanager
def stands(process: Injector | None) -> Iterator[None]:
    """Within the block calls are those of this process."""
    token = _process.set(process)
    try:
        yield
    finally:
        _process.reset(token)


@contextmanager
def under(protocol: str) -> Iterator[None]:
    """Within the block each new file system of a protocol has the layer over it."""
    real = get_filesystem_class(protocol)

    class Layered(FaultFiles):
        """The layer over the protocol's own class."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(real(*args, **kwargs))

        @classmethod
        def _strip_protocol(cls, path: Any) -> Any:
            return real._strip_protocol(path)

        @staticmethod
        def _get_kwargs_from_urls(path: str) -> Any:
            return real._get_kwargs_from_urls(path)

    Layered.protocol = real.protocol
    fsspec.register_implementation(protocol, Layered, clobber=True)
    try:
        yield
    finally:
        fsspec.register_implementation(protocol, real, clobber=True)


__all__ = ["FaultFiles", "stands", "under"]
