"""From system errors to reasons, events and the library's errors; and that errors pickle (design.md 5)."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

import fstx.errors as module
from fstx.backends.base import note_other, wrap_storage_error
from fstx.backends.local.causes import event_of, reason_of
from fstx.errors import CommitError, ConflictError, StorageError, TransactionError
from fstx.machines.vocabulary import Refused, Unknown

ALL = [
    kind
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, TransactionError)
]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EEXIST, "exists"), (errno.ENOTEMPTY, "exists"), (errno.EISDIR, "exists"),
        (errno.ENOENT, "gone"), (errno.EXDEV, "cross-device"), (errno.EINVAL, "unsupported"),
        (errno.ENOSYS, "unsupported"), (errno.EOPNOTSUPP, "unsupported"), (errno.EBUSY, "busy"),
        (errno.ENOSPC, "failed"), (errno.EDQUOT, "failed"), (errno.EACCES, "failed"),
        (errno.EROFS, "failed"), (errno.EIO, "failed"),
    ],
)  # fmt: skip
def test_reasons(number: int, reason: str) -> None:
    """rename.md 5, error map."""
    assert reason_of(OSError(number, "x")) == reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [(80, "exists"), (183, "exists"), (32, "busy"), (33, "busy"), (17, "cross-device"),
     (50, "unsupported"), (2, "gone")],
)  # fmt: skip
def test_reasons_of_windows(code: int, reason: str) -> None:
    """rename.md 5, error map: the Windows code counts, not the errno that Python made of it."""
    error = OSError(errno.EACCES, "x")
    error.winerror = code  # type: ignore[attr-defined]
    assert reason_of(error) == reason


def test_events() -> None:
    """An answer that may have been lost is no refusal: EIO anywhere, ENOENT and EEXIST over a network."""
    assert event_of(OSError(errno.ENOSPC, ""), network=False) == Refused("failed")
    assert event_of(OSError(errno.EIO, ""), network=False) == Unknown()
    assert event_of(OSError(errno.ESTALE, ""), network=False) == Unknown()
    for number in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
        assert isinstance(event_of(OSError(number, ""), network=False), Refused)
        assert event_of(OSError(number, ""), network=True) == Unknown()


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_errors_pickle(kind: type[TransactionError]) -> None:
    """design.md 5: errors cross processes with everything they carry."""
    error = kind("what happened", txid="x", outcome="aborted", others=(ValueError("second"),))
    error.add_note("a note")
    if isinstance(error, OSError):
        error.errno = errno.ENOSPC
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), again.txid, again.outcome) == ("what happened", "x", "aborted")
        assert str(again.others[0]) == "second"
        assert again.__notes__ == ["a note"]
        assert again.retryable == error.retryable
        if isinstance(error, OSError):
            assert again.errno == errno.ENOSPC


def test_family() -> None:
    """design.md 5: what a caller may catch without knowing the library."""
    assert issubclass(module.UsageError, ValueError)
    assert issubclass(module.StorageError, OSError)
    assert issubclass(module.TargetExistsError, FileExistsError)
    assert issubclass(module.TargetExistsError, CommitError)
    assert ConflictError("x").retryable
    assert not CommitError("x").retryable
    assert not ConflictError("x", retryable=False).retryable


def test_storage_error_keeps_the_errno() -> None:
    """The system's number and words survive, and the path is named."""
    cause = OSError(errno.ENOSPC, "No space left on device", "/a/b")
    made = wrap_storage_error(cause, "staging 'x' failed", "id")
    assert isinstance(made, StorageError)
    assert (made.errno, made.txid, made.outcome) == (errno.ENOSPC, "id", "aborted")
    assert str(made) == "staging 'x' failed: No space left on device"


def test_others_are_kept() -> None:
    """A14: further failures stay with the first, as a member or as a note."""
    first, foreign = StorageError("first"), KeyError("foreign")
    for n in range(2):
        note_other(first, ValueError(n))
        note_other(foreign, ValueError(n))
    assert [str(e) for e in first.others] == ["0", "1"]
    assert len(foreign.__notes__) == 2
