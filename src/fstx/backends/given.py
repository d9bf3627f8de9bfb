"""What callers give to a transaction: bytes in their many forms, and writers used the right way."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import NoReturn

from fstx.errors import UsageError
from fstx.protocol import StagedFile
from fstx.types import Data


def as_buffers(path: str, data: Data) -> list[memoryview]:
    """Flat views of `data`, one for each buffer, nothing copied.

    Raises
    ------
    UsageError
        Text, an array that is not contiguous or holds objects, or no bytes at all.
    """
    if isinstance(data, list | tuple):
        return [_view(path, piece) for piece in data]
    return [_view(path, data)]


def _view(path: str, piece: object) -> memoryview:
    if isinstance(piece, str):
        raise UsageError(f"{path!r}: text has no bytes of its own; pass .encode()")
    try:
        view = memoryview(piece)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(
            f"{path!r}: a {type(piece).__name__} holds no bytes; pass bytes, a buffer such as a numpy "
            "array, or a list of them"
        ) from None
    if "O" in view.format:
        raise UsageError(f"{path!r}: an array of Python objects has no bytes to write")
    if not view.c_contiguous:
        raise UsageError(
            f"{path!r}: the array is not contiguous; pass numpy.ascontiguousarray(array)"
        )
    return view.cast("B") if view.nbytes else memoryview(b"")


class Opening(AbstractContextManager[StagedFile]):
    """What ``tx.open(path)`` returns: enter it by ``with`` to get the writer."""

    def __init__(self, manager: AbstractContextManager[StagedFile], path: str) -> None:
        self._manager = manager
        self._path = path

    def __enter__(self) -> StagedFile:
        return self._manager.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> bool | None:
        return self._manager.__exit__(kind, error, trace)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"an object is opened by a with block: with tx.open({self._path!r}) as file: file.{name}"
        )

    def __repr__(self) -> str:
        return f"<to be entered: with tx.open({self._path!r}) as file: ...>"
