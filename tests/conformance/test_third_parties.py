"""A store that a third party brings: told apart, held and collected as the kit's own are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fstx.backends.manifest import backend_over
from fstx.errors import UsageError
from fstx.stores.opening import open_store
from fstx_conformance.results import Verdict
from fstx_conformance.run import run
from fstx_conformance.subjects.hooks import Hooks, HookSubject


def _subject(folder: Path, *, one: bool = False) -> HookSubject:
    """Targets in a folder; `one`: whatever the URL, the same target."""

    def make(url: str) -> Any:
        return backend_over(open_store(str(folder)), ["mine" if one else url])

    return HookSubject("", Hooks(make), name="folder")


def test_targets_that_share_a_dataset_are_refused(tmp_path: Path) -> None:
    """Protects what lies there: the suite would clear a dataset away that it did not make."""
    (tmp_path / "mine" / ".fstx").mkdir(parents=True)
    theirs = tmp_path / "mine" / ".fstx" / "other"
    theirs.write_bytes(b"theirs")
    with pytest.raises(UsageError, match="lie in one dataset"):
        _subject(tmp_path, one=True)
    assert theirs.read_bytes() == b"theirs"


def test_versions_of_a_third_party_are_held_and_collected(tmp_path: Path) -> None:
    """Protects the verdict: cases about versions are not left out as if there were none."""
    subject = _subject(tmp_path)
    found = run(subject, only=["isolation.readers", "liveness.dead-collector"])
    assert {c.id: c.verdict for c in found.cases} == {
        "isolation.readers": Verdict.PASS,
        "liveness.dead-collector": Verdict.PASS,
    }
    assert subject.strategy == "manifest"
