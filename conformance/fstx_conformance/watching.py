"""Watching calls: errors, receipts and bytes that go by; stagers and files that are checked."""

from __future__ import annotations

import contextlib
import pickle
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, TypeVar

from fstx.errors import (
    CommitError,
    InDoubtError,
    PathError,
    TransactionError,
)
from fstx.paths import check_path
from fstx.protocol import StagedFile, Stager
from fstx.types import (
    Buffer,
    Data,
    StagedObject,
)

T = TypeVar("T")
Side = Literal["caller", "backend"]
Reader = Callable[[], Mapping[str, bytes]]

_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s:@]+@")
_OUTCOMES = (None, "aborted", "committed", "pending", "unknown")


class ContractError(AssertionError):
    """One side broke the contract.

    Attributes
    ----------
    side
        ``"caller"`` or ``"backend"``.
    rule
        The number of the rule.
    """

    def __init__(self, side: Side, rule: str, message: str) -> None:
        super().__init__(f"the {side} broke {rule}: {message}")
        self.side, self.rule, self.message = side, rule, message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.side, self.rule, self.message)


class Watch:
    """What all wrappers of one backend share."""

    def __init__(self, strict: bool, reader: Reader | None, secrets: Sequence[str]) -> None:
        self.strict, self.reader, self.secrets = strict, reader, tuple(secrets)

    def backend(self, holds: object, rule: str, message: str) -> None:
        """A fault of the backend, unless it holds."""
        if not holds:
            raise ContractError("backend", rule, message)

    def caller(self, holds: object, rule: str, message: str) -> None:
        """A fault of the caller, unless it holds; who is not strict leaves refusing to the backend."""
        if not holds and self.strict:
            raise ContractError("caller", rule, message)

    def call(self, what: str, make: Callable[[], T], *others: type[Exception]) -> T:
        """Make a call; what it raises has to be an error of the contract."""
        try:
            return make()
        except ContractError:
            raise
        except Exception as error:
            self.raised(what, error, others)
            raise

    def raised(self, what: str, error: Exception, others: Sequence[type[Exception]] = ()) -> None:
        """Look at an error that came out of a call."""
        told = f"{what} raised {type(error).__name__}: {error}"
        self.shown(told)
        if isinstance(error, tuple(others)):
            return
        if not isinstance(error, TransactionError):
            raise ContractError("backend", "BACKEND-29", f"{told}; it is none of fstx's") from error
        self.backend(error.outcome in _OUTCOMES, "BACKEND-29", f"{told}; outcome {error.outcome!r}")
        if isinstance(error, CommitError):
            honest = error.outcome in (None, "aborted")
            self.backend(honest, "BACKEND-25", f"{told}; its outcome is {error.outcome}")
        if isinstance(error, InDoubtError):
            honest = error.outcome not in ("aborted", "committed")
            self.backend(honest, "BACKEND-26", f"{told}; its outcome is {error.outcome}")
        self.backend(_pickles(error), "BACKEND-29", f"{told}; it does not pickle whole")

    def shown(self, text: str) -> None:
        """Look for credentials in a text that people get to see."""
        found = _PASSWORD.search(text) or any(s in text for s in self.secrets)
        self.backend(not found, "BACKEND-44", "a credential is in a text that people get to see")


def _pickles(error: TransactionError) -> bool:
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever it is, the error did not pickle
        return False
    same = (copy.args, copy.txid, copy.outcome) == (error.args, error.txid, error.outcome)
    return type(copy) is type(error) and same


def is_path(path: object) -> bool:
    """Whether it may be staged by its form."""
    try:
        return isinstance(path, str) and check_path(path) == path
    except PathError:
        return False


class Sum:
    """Length and check sum of bytes that went by."""

    def __init__(self, data: Data | None = None) -> None:
        self.size = self.crc = 0
        pieces: Sequence[Any] = (
            [data] if isinstance(data, bytes | bytearray | memoryview) else data or ()
        )
        for piece in pieces:
            self.add(piece)

    def add(self, piece: Buffer) -> None:
        """Add a piece."""
        self.size += memoryview(piece).nbytes
        self.crc = zlib.crc32(piece, self.crc)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sum) and (self.size, self.crc) == (other.size, other.crc)

    __hash__ = None  # type: ignore[assignment]


class Owner(Protocol):
    """The checked transaction of a stager."""

    def using(self, what: str) -> AbstractContextManager[None]: ...
    def writing(self, step: int) -> None: ...
    def received(self, receipt: object, path: str, sum: Sum, publisher: bool) -> None: ...


class CheckedStager:
    """A stager whose calls are checked. Its pickle is that of the stager alone."""

    def __init__(self, watch: Watch, inner: Stager, owner: Owner) -> None:
        self._watch, self._inner, self._owner = watch, inner, owner

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self._inner,)

    def __repr__(self) -> str:
        return repr(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not yet there, while it is being made
            raise AttributeError(name)
        return getattr(self._inner, name)

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        """As the stager's; the receipt fits the path and the bytes."""
        watch, before = self._watch, Sum(data)
        with self._owner.using("stage"):
            receipt = watch.call(
                "stage", lambda: self._inner.stage(path, data, publisher=publisher)
            )
        watch.backend(is_path(path), "BACKEND-4", f"stage took the path {path!r}")
        same = Sum(data) == before
        watch.caller(same, "BACKEND-9", f"the buffer of {path!r} changed while it was staged")
        self._owner.received(receipt, path, before, publisher)
        return receipt

    @contextlib.contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[StagedFile]:
        """As the stager's; the receipt fits the path and what was written."""
        watch = self._watch
        with self._owner.using("open"):
            opened = watch.call("open", lambda: self._inner.open(path, publisher=publisher))
            inner = watch.call("open", opened.__enter__)
            watch.backend(is_path(path), "BACKEND-4", f"open took the path {path!r}")
            file = CheckedFile(watch, inner)
            self._owner.writing(+1)
            try:
                yield file
            except BaseException as error:
                swallowed = opened.__exit__(type(error), error, error.__traceback__)
                watch.backend(not swallowed, "BACKEND-10", f"open({path!r}) swallowed {error!r}")
                raise
            else:
                watch.call("the end of open", lambda: opened.__exit__(None, None, None))
            finally:
                self._owner.writing(-1)
        receipt = watch.call("receipt", lambda: inner.receipt)
        self._owner.received(receipt, path, file.sum, publisher)


def _itself(stager: Stager) -> Stager:
    return stager


class CheckedFile:
    """A file whose writes are counted."""

    def __init__(self, watch: Watch, inner: StagedFile) -> None:
        self._watch, self._inner, self.sum = watch, inner, Sum()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: Buffer, /) -> int:
        """As the file's; all of it is written."""
        count = memoryview(data).nbytes
        piece = bytes(data)
        written = self._watch.call("write", lambda: self._inner.write(data), ValueError)
        self._watch.backend(
            written == count, "BACKEND-9", f"write of {count} bytes returned {written!r}"
        )
        self.sum.add(piece)
        return written

    def tell(self) -> int:
        """As the file's: how much was written."""
        told = self._inner.tell()
        self._watch.backend(
            told == self.sum.size, "BACKEND-9", f"tell gives {told!r} after {self.sum.size} bytes"
        )
        return told

    @property
    def receipt(self) -> StagedObject:
        """As the file's."""
        return self._watch.call("receipt", lambda: self._inner.receipt)


__all__ = ["CheckedFile", "CheckedStager", "ContractError", "Sum", "Watch", "is_path"]
