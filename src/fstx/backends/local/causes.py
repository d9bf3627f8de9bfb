"""From an operating-system error to the reason a machine understands: the one place where this is done.

Table: EINVAL counts as "no such call here" because paths are checked before (a directory into itself
is the other meaning, rename(2)).
"""

from __future__ import annotations

import errno

from fstx.machines.vocabulary import Event, Reason, Refused, Unknown

_EXISTS = {errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR}
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY}
_BUSY = {errno.EBUSY, errno.ETXTBSY}
_AMBIGUOUS = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)}

_WIN_EXISTS = {80, 183, 145}
_WIN_BUSY = {32, 33}  # 5 only where it outlasted the patience: then errno is EBUSY
_WIN_UNSUPPORTED = {1, 50, 87}
_WIN_GONE = {2, 3}
_WIN_AMBIGUOUS = {59, 64, 121}  # the network share went away before it answered


def reason_of(error: OSError) -> Reason:
    """Why storage refused."""
    code = getattr(error, "winerror", None)
    if code is not None:
        for reason, codes in _WINDOWS:
            if code in codes:
                return reason
    number = error.errno
    if number in _EXISTS:
        return "exists"
    if number == errno.ENOENT:
        return "gone"
    if number == errno.EXDEV:
        return "cross-device"
    if number in _UNSUPPORTED:
        return "unsupported"
    return "busy" if number in _BUSY else "failed"


_WINDOWS: tuple[tuple[Reason, set[int]], ...] = (
    ("exists", _WIN_EXISTS),
    ("busy", _WIN_BUSY),
    ("unsupported", _WIN_UNSUPPORTED),
    ("gone", _WIN_GONE),
    ("cross-device", {17}),
)


def event_of(error: OSError, *, network: bool) -> Event:
    """Refused, or Unknown where the answer doesn't tell whether the rename took place.

    On a network file system a lost reply makes success look like ENOENT or EEXIST.
    """
    code = getattr(error, "winerror", None)
    if code in _WIN_AMBIGUOUS:
        return Unknown()
    if code is None and (
        error.errno in _AMBIGUOUS
        or (network and error.errno in {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EINTR})
    ):
        return Unknown()
    return Refused(reason_of(error))
