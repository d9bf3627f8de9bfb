"""What failed requests mean, and that texts hide what is secret."""

from __future__ import annotations

import errno
import pickle

import pytest

from fstx.stores import Answer
from fstx.stores.answers import Cause, Verdict, conditional, error_of, transient, verdict
from fstx.stores.hiding import plain_url, scrub, secrets_of, shows
from fstx.stores.keys import check_key, check_prefix, span
from fstx.stores.known import known_service
from fstx.stores.services import without_answer

CONDITIONAL = [
    (Cause(412, "PreconditionFailed"), Answer.TAKEN),
    (Cause(412), Answer.TAKEN),
    (Cause(409, "BlobAlreadyExists"), Answer.TAKEN),
    (Cause(409, "ConditionalRequestConflict"), Answer.BUSY),
    (Cause(409), Answer.BUSY),
    (Cause(403, "UnauthorizedBlobOverwrite"), Answer.TAKEN),
    (Cause(400, "RequestTimeout"), Answer.UNKNOWN),
    (Cause(408), Answer.UNKNOWN),
    (Cause(429), Answer.UNKNOWN),
    (Cause(500, "InternalError"), Answer.UNKNOWN),
    (Cause(503, "SlowDown"), Answer.UNKNOWN),
    (Cause(504), Answer.UNKNOWN),
    (Cause(None, "ClientPayloadError"), Answer.UNKNOWN),
    (Cause(None, "Timeout"), Answer.UNKNOWN),
    (Cause(200, "truncated"), Answer.UNKNOWN),
    (Cause(403, "AccessDenied"), None),
    (Cause(404, "NoSuchBucket"), None),
    (Cause(404, "ContainerNotFound"), None),
    (Cause(400, "InvalidArgument"), None),
    (Cause(501, "NotImplemented"), None),
    (Cause(None, "NoCredentialsError", sent=False), None),
    (Cause(403, "ExpiredToken", repeated=True), Answer.UNKNOWN),
    (Cause(412, repeated=True), Answer.TAKEN),
    (Cause(409, repeated=True), Answer.UNKNOWN),
]


@pytest.mark.parametrize(("cause", "answer"), CONDITIONAL, ids=lambda v: str(v)[:60])
def test_the_table(cause: Cause, answer: Answer | None) -> None:
    """Protects the one place where an answer of a service becomes ours."""
    assert conditional(cause) is answer


def test_what_is_tried_again() -> None:
    """Protects from giving up early, and from asking again what was refused."""
    assert transient(Cause(503))
    assert transient(Cause(409, "OperationAborted"))
    assert transient(Cause(None, "ServerDisconnectedError"))
    assert not transient(Cause(403))
    assert not transient(Cause(404))
    assert not transient(Cause(None, "NoCredentialsError", sent=False))
    assert verdict(Cause(404)) is Verdict.MISSING


@pytest.mark.parametrize(
    ("cause", "kind", "number"),
    [
        (Cause(404, "NoSuchKey"), FileNotFoundError, errno.ENOENT),
        (Cause(404, "NoSuchBucket"), OSError, errno.ENXIO),
        (Cause(403), PermissionError, errno.EACCES),
        (Cause(503), ConnectionError, errno.ECONNABORTED),
        (Cause(None, "Timeout"), TimeoutError, errno.ETIMEDOUT),
        (Cause(None, "ClientOSError", "reset"), ConnectionError, errno.ECONNABORTED),
        (Cause(400, "BadDigest", "other"), OSError, errno.EIO),
    ],
    ids=str,
)
def test_errors_are_of_their_kind(cause: Cause, kind: type[OSError], number: int) -> None:
    """Protects callers that tell errors apart, also after a pickle; a missing bucket is no missing object."""
    error = error_of(cause, "s3://b/k", "read")
    assert isinstance(error, kind)
    assert error.errno == number
    assert "s3://b/k" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert kind is FileNotFoundError or not isinstance(error, FileNotFoundError)


def test_causes_without_an_answer() -> None:
    """Protects the difference between "never sent" and "nobody knows"."""
    assert without_answer(TimeoutError()).code == "Timeout"
    assert without_answer(RuntimeError("x")).sent
    assert not without_answer(type("NoCredentialsError", (Exception,), {})()).sent


def test_secrets_are_found_at_any_depth_and_hidden() -> None:
    """Protects credentials in options: names decide, values and their pieces are replaced."""
    options = {
        "key": "AKIDEXAMPLE",
        "endpoint_url": "http://host:9000",
        "client_kwargs": {"aws_secret_access_key": "verysecretvalue"},
        "connection_string": "AccountName=acct;AccountKey=0123456789abcdef0123==;Endpoint=http://x",
    }
    secrets = secrets_of(options)
    assert {"AKIDEXAMPLE", "verysecretvalue"} <= secrets
    assert "http://host:9000" not in secrets
    text = "AKIDEXAMPLE at http://host:9000 with verysecretvalue and 0123456789abcdef0123=="
    shown = scrub(text, secrets)
    assert "http://host:9000" in shown
    for secret in ("AKIDEXAMPLE", "verysecretvalue", "0123456789abcdef0123"):
        assert secret not in shown
    signed = "https://acct.blob.core.windows.net/c/b?sv=1&sig=aBc%2F123&se=2 http://u:pw@host/x"
    assert "aBc" not in scrub(signed, frozenset())
    assert "u:pw" not in scrub(signed, frozenset())
    assert "upload_id=AAAB" not in scrub("PUT /o?upload_id=AAAB", frozenset())


def test_a_cause_that_tells_a_secret_is_known() -> None:
    """Protects tracebacks: an error, or one that it came from, that shows a credential is left out."""
    inner = ValueError("with verysecretvalue")
    outer = OSError("failed")
    outer.__cause__ = inner
    assert shows(outer, frozenset({"verysecretvalue"}))
    assert not shows(OSError("failed"), frozenset({"verysecretvalue"}))


def test_endpoints_are_plain() -> None:
    """Protects identities from what stands in an endpoint's URL."""
    assert plain_url("http://user:pw@host:9000/base/?sig=1") == "http://host:9000/base"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("s3:https://s3.amazonaws.com:bucket", "Amazon S3"),
        ("s3:https://s3.eu-west-1.amazonaws.com:bucket", "Amazon S3"),
        ("s3:https://s3.amazonaws.com.evil.example:bucket", None),
        ("s3:http://127.0.0.1:9000:bucket", None),
        ("gcs:https://storage.googleapis.com:bucket", "Google Cloud Storage"),
        ("gcs:http://storage.googleapis.com.example:bucket", None),
        ("azure:https://account.blob.core.windows.net:container", "Azure Blob Storage"),
        ("azure:http://127.0.0.1:10000/devstoreaccount1:container", None),
    ],
)
def test_known_services_are_known_by_their_host(place: str, name: str | None) -> None:
    """Protects from trusting a host that looks like a known service."""
    known = known_service(place)
    assert (known.name if known else None) == name


def test_keys_and_ranges() -> None:
    """Protects the root: no key leads out of it; ranges end where the object ends."""
    assert check_key("a/b c/ü#?") == "a/b c/ü#?"
    for prefix in ("", "a", "a/", "a/b", ".fstx", ".probe-1/"):
        assert check_prefix(prefix) == prefix
    for bad in ("/", "/a", "../", "a//", "a\\"):
        with pytest.raises(ValueError, match="key"):
            check_prefix(bad)
    assert span(5, 1, 3) == (1, 3)
    assert span(5, 9, None) == (5, 5)
    assert span(5, -9, None) == (0, 5)
    with pytest.raises(ValueError, match="no stop"):
        span(5, -1, 3)
