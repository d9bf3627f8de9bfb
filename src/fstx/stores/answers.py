"""What a failed request means: one table for all services.

A service's module tells *what* it answered, as a `Cause`: HTTP status and service error code. Never an
``errno``: the clients map these differently from release to release (a failed condition comes as
FileExistsError, EINVAL or EIO).
"""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass

from fstx.stores import Answer


class Verdict(enum.Enum):
    """What follows from a failed request."""

    MISSING = "missing"  # there is no such object
    TAKEN = "taken"  # the condition does not hold: an object is there, or another than expected
    BUSY = "busy"  # certainly not done, and worth the same request again
    REFUSED = "refused"  # certainly not done, and will not be
    UNKNOWN = "unknown"  # may or may not have been done


@dataclass(frozen=True, slots=True)
class Cause:
    """What a service said of one request.

    ``sent`` is False where the request certainly never left; ``status`` is None where no answer came;
    ``repeated`` where the client may have sent it more than once, so that the answer is about the last.
    """

    status: int | None
    code: str = ""
    text: str = ""
    sent: bool = True
    repeated: bool = False


_BY_CODE = {
    # S3
    "PreconditionFailed": Verdict.TAKEN,
    "ConditionalRequestConflict": Verdict.BUSY,
    "OperationAborted": Verdict.BUSY,
    "NoSuchKey": Verdict.MISSING,
    "NoSuchBucket": Verdict.REFUSED,
    "NoSuchUpload": Verdict.REFUSED,
    "NotImplemented": Verdict.REFUSED,
    "InternalError": Verdict.UNKNOWN,
    "RequestTimeout": Verdict.UNKNOWN,  # status 400
    "ServiceUnavailable": Verdict.UNKNOWN,
    "SlowDown": Verdict.UNKNOWN,
    "Throttling": Verdict.UNKNOWN,
    # Azure
    "BlobAlreadyExists": Verdict.TAKEN,
    "BlobNotFound": Verdict.MISSING,
    "ConditionNotMet": Verdict.TAKEN,
    "ContainerBeingDeleted": Verdict.REFUSED,
    "ContainerNotFound": Verdict.REFUSED,
    "OperationTimedOut": Verdict.UNKNOWN,
    "ServerBusy": Verdict.UNKNOWN,
    "TargetConditionNotMet": Verdict.TAKEN,
    "UnauthorizedBlobOverwrite": Verdict.TAKEN,  # status 403: a token that may create, not overwrite
    # GCS
    "conditionNotMet": Verdict.TAKEN,
}

_BY_STATUS = {
    304: Verdict.TAKEN,
    404: Verdict.MISSING,
    408: Verdict.UNKNOWN,
    409: Verdict.BUSY,
    412: Verdict.TAKEN,
    425: Verdict.UNKNOWN,
    429: Verdict.UNKNOWN,
    501: Verdict.REFUSED,
}


def verdict(cause: Cause) -> Verdict:
    """What follows from `cause`."""
    if not cause.sent:
        return Verdict.REFUSED
    if cause.code in _BY_CODE:
        return _BY_CODE[cause.code]
    if cause.status is None:
        return Verdict.UNKNOWN
    if cause.status in _BY_STATUS:
        return _BY_STATUS[cause.status]
    return Verdict.UNKNOWN if cause.status >= 500 or cause.status < 300 else Verdict.REFUSED


def conditional(cause: Cause) -> Answer | None:
    """The answer to a conditional put that failed; None: a certain refusal, to be raised."""
    found = verdict(cause)
    if found is Verdict.TAKEN:
        return Answer.TAKEN
    if found is Verdict.UNKNOWN or cause.repeated:
        return Answer.UNKNOWN  # an earlier attempt may have landed
    return Answer.BUSY if found is Verdict.BUSY else None


def transient(cause: Cause) -> bool:
    """True where a request that may be made twice is worth another try."""
    return verdict(cause) in (Verdict.UNKNOWN, Verdict.BUSY)


def error_of(cause: Cause, place: str, action: str) -> OSError:
    """The OSError for a request about `place` (a URL, or one with a key) that failed for good."""
    said = " ".join(str(p) for p in (cause.status, cause.code) if p)
    message = f"can't {action}: {said}" + (": " if said and cause.text else "") + cause.text
    found = verdict(cause)
    if not cause.sent or (cause.status is None and found is Verdict.UNKNOWN):
        late = "timeout" in cause.code.lower() or "timed out" in cause.text.lower()
        if late:
            return TimeoutError(errno.ETIMEDOUT, message, place)
        return ConnectionError(errno.ECONNABORTED, message, place)
    if cause.status in (401, 403):
        return PermissionError(errno.EACCES, message, place)
    if found is Verdict.MISSING:
        return FileNotFoundError(errno.ENOENT, message, place)
    if found is Verdict.UNKNOWN:
        return ConnectionError(errno.ECONNABORTED, message, place)
    if cause.code in ("NoSuchBucket", "ContainerNotFound"):
        # Not FileNotFoundError: "no such object" would be taken for the end of a log.
        return OSError(errno.ENXIO, message, place)
    return OSError(errno.EIO, message, place)


__all__ = ["Cause", "Verdict", "conditional", "error_of", "transient", "verdict"]
