"""The sweep on the wire: what it finds in a naive writer, that it finds nothing in fstx, and its tools."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fstx_conformance.broken.naive_manifest import NaiveManifest
from fstx_conformance.cases import wire as cases
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.schedule import parse
from fstx_conformance.subjects.base import Subject
from fstx_conformance.subjects.urls import subject_of
from fstx_conformance.wire.scenes import EntryDocument, Scene, Versioned
from fstx_conformance.wire.services import endpoint_of, impatient, through
from fstx_conformance.wire.sweep import Wire
from support.emulators import Place

YARDSTICK = (
    "reset-before",
    "reset-middle",
    "reset-after",
    "status-409",
    "status-503",
    "status-500-after",
    "status-503-after",
    "duplicate",
    "zombie",
    "stall-after",
)


@pytest.fixture
def versions(s3: Place) -> Iterator[Subject]:
    """Datasets in a bucket of their own."""
    yield from _subject(f"tx::{s3.url}", s3)


@pytest.fixture
def plain(s3: Place) -> Iterator[Subject]:
    """Plain targets in a bucket of their own."""
    yield from _subject(s3.url, s3)


def _subject(url: str, place: Place) -> Iterator[Subject]:
    subject = subject_of(url, **place.options)
    yield subject
    subject.close()
    assert place.fs.find(place.bucket) == []


def yardstick(subject: Subject, scene: type[Scene]) -> Lab:
    """The same faults at each request that changes something."""
    lab = Lab(subject, "yardstick")
    Wire(lab).sweep([scene], YARDSTICK, late=("after",))
    return lab


@pytest.mark.timeout(900)
def test_a_naive_writer_fails(plain: Subject) -> None:
    """The yardstick: of 50 runs 6 end with a manifest whose data its writer has deleted."""
    lab = yardstick(plain, NaiveManifest)
    shown = [f.message for f in lab.failures]
    assert (lab.runs, lab.failing_runs) == (50, 6), shown
    assert all("a mixture" in text and "told aborted" in text for text in shown)


@pytest.mark.timeout(900)
def test_a_dataset_passes_what_the_naive_writer_fails(versions: Subject) -> None:
    """The same sweep finds nothing in a commit to a dataset: what was told stays true."""
    lab = yardstick(versions, Versioned)
    assert (lab.failing_runs, lab.failures) == (0, [])
    assert lab.runs == 50
    assert set(lab.fired) == set(YARDSTICK)


@pytest.mark.parametrize("case", ["lost", "late"])
@pytest.mark.parametrize("kind", ["versions", "plain"])
def test_quick_cases_pass(case: str, kind: str, request: pytest.FixtureRequest) -> None:
    """What every user of the kit runs first finds nothing on an honest server, and did let faults fire."""
    lab = Lab(request.getfixturevalue(kind), f"ambiguity.wire-{case}")
    getattr(cases, case)(lab)
    assert lab.failures == []
    assert sum(lab.fired.values()) >= 4
    assert lab.seen["committed"] >= 4


def test_a_failure_is_replayed_by_its_text(plain: Subject) -> None:
    """Protects reports: the schedule that a failure prints shows the same failure again, and no other."""
    lab = Lab(plain, "yardstick")
    Wire(lab).sweep([NaiveManifest], ["reset-after"])
    (failure,) = lab.failures
    again = Lab(plain, "yardstick", replay=parse(failure.schedule))
    Wire(again).sweep([NaiveManifest, EntryDocument], ["status-403"])
    assert again.runs == 1
    assert [f.message for f in again.failures] == [failure.message]
    assert _asked(again.failures[0].history) == _asked(failure.history)


def _asked(history: tuple[str, ...]) -> list[str]:
    """Requests without the number of their room and the names that its writer draws."""
    lines = [line for line in history if line.split(" ")[0] in ("GET", "HEAD", "PUT", "POST")]
    return [re.sub(r"(/|%2F)(r\d+|[0-9a-f]{16})(/|%2F)", "/", line) for line in lines]


def test_uploads_of_the_dead_are_aborted(versions: Subject) -> None:
    """Protects the bill: an upload that its writer could not abort goes with the next collection."""
    faults = "scene=streamed-versions; extra=before; proxy: +#3=reset-before!"
    lab = Lab(versions, "hygiene.wire-uploads", replay=parse(faults))
    cases.uploads(lab)
    assert lab.fired["reset-before"] > 5
    assert (lab.runs, lab.failures) == (2, [])
    assert lab.seen["aborted"] == 2


def test_uploads_at_plain_names_are_aborted(plain: Subject) -> None:
    """Protects the bill: at plain names too, by who recovers; the note of the dead writer tells which."""
    faults = "scene=streamed-entry; extra=after; proxy: +#5=reset-before!"
    lab = Lab(plain, "hygiene.wire-uploads", replay=parse(faults))
    cases.uploads(lab)
    assert lab.fired["reset-before"] > 5
    assert (lab.runs, lab.failures) == (2, [])


def test_local_storage_has_no_wire(tmp_path: Path) -> None:
    """Protects other storage: what names no server is not applicable, with the reason."""
    with pytest.raises(NotApplicable, match="name no server"):
        cases.lost(Lab(subject_of(str(tmp_path)), "ambiguity.wire-lost"))


@pytest.mark.parametrize(
    ("url", "options", "endpoint"),
    [
        ("s3://b", {"endpoint_url": "http://h:1"}, "http://h:1"),
        ("tx::s3://b/p", {"client_kwargs": {"endpoint_url": "https://h:2/"}}, "https://h:2"),
        ("gs://b", {"endpoint_url": "http://h:3"}, "http://h:3"),
        ("az://b", {"connection_string": "A=b;BlobEndpoint=http://h:4/acc;"}, "http://h:4"),
        ("s3://b", {"key": "k"}, None),
        ("az://b", {"account_name": "a"}, None),
        ("sftp://b", {"endpoint_url": "http://h:5"}, None),
    ],
)
def test_options_name_a_server(url: str, options: dict[str, Any], endpoint: str | None) -> None:
    """Protects the way to the proxy: the server is found in the options of each service, and replaced."""
    assert endpoint_of(url, options) == endpoint
    if endpoint is None:
        with pytest.raises(ValueError, match="name no server"):
            through(url, options, "http://127.0.0.1:9")
        return
    moved = impatient(url, through(url, options, "http://127.0.0.1:9"), 0.5)
    assert endpoint_of(url, moved) == "http://127.0.0.1:9"
    assert endpoint not in str(moved)
    assert "0.5" in str(moved)


@pytest.mark.parametrize("nth", [14, 16])
def test_a_refusal_at_commit_is_an_error_of_fstx(plain: Subject, nth: int) -> None:
    """Found by the sweep: a listing that was refused at a plain commit came out as the client's own error."""
    faults = f"scene=entry; extra=after; proxy: GET#{nth}=status-403"
    lab = Lab(plain, "ambiguity.wire-reads", replay=parse(faults))
    cases.reads(lab)
    assert (lab.runs, lab.failures) == (1, [])
    assert lab.fired["status-403"] == 1
