"""Errors, grouped by what the caller does next.

Every error states what is true afterwards. The storage's own exception is ``__cause__``. All pickle.
"""

from __future__ import annotations

from typing import Any


class TransactionError(Exception):
    """Root of the library's errors.

    Attributes
    ----------
    txid
        The transaction, or None where none had begun.
    outcome
        ``"aborted"`` (the target is as it was), ``"committed"``, ``"pending"``, ``"unknown"`` or None.
    retryable
        True when the same call may succeed later without a change.
    others
        Further failures of the same transaction, in the order of time; the raised one came first.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        txid: str | None = None,
        outcome: str | None = None,
        retryable: bool | None = None,
        others: tuple[BaseException, ...] = (),
    ) -> None:
        super().__init__(message)
        self.txid = txid
        self.outcome = outcome
        self.others = others
        if retryable is not None:
            self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        state = self.__dict__.copy()
        if isinstance(
            self, OSError
        ):  # kept by the interpreter outside of the instance's dictionary
            state["errno"] = self.errno
        return (_rebuild, (type(self), self.args, state))


def _rebuild(
    cls: type[TransactionError], args: tuple[Any, ...], state: dict[str, Any]
) -> TransactionError:
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    if isinstance(error, OSError):
        error.errno = state.pop("errno", None)
    error.__dict__.update(state)
    return error


class UsageError(TransactionError, ValueError):
    """Fix the call. Nothing was changed."""


class PathError(UsageError):
    """A path that can't be staged or a URL that can't be a target; the message names it."""


class StateError(UsageError):
    """The call does not fit the transaction's state (committed, rolled back, another owner)."""


class CapabilityError(UsageError):
    """The storage can't promise what was required. Raised by `begin`, before a byte is written."""


class StorageError(TransactionError, OSError):
    """Storage failed while staging. The transaction can only be rolled back; the target is as it was."""


class CommitError(TransactionError):
    """Not published. The target is as it was."""


class ConflictError(CommitError):
    """Another commit won, or another writer holds the target: re-read and retry."""

    retryable = True


class FencedError(CommitError):
    """This writer was given up for dead and its staging taken away: stop."""


class TargetExistsError(CommitError, FileExistsError):
    """The target exists and the mode is ``create``, or a path that must be new is taken."""


class TargetBusyError(CommitError):
    """Another program holds the target open (Windows, network shares); everything was rolled back."""

    retryable = True


class InDoubtError(TransactionError):
    """Storage did not say whether the commit took place. Don't retry; ask `fstx.outcome(url, id)`."""


class ResumeError(TransactionError):
    """An interrupted transaction can't be continued: missing, unreadable, or configured otherwise."""


class RecoveryError(TransactionError):
    """Recovery met a state that it won't guess about; nothing was changed and the message says why."""
