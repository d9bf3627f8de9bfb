"""Workers and coordinators on an object store: killed, replaced, late."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

import fstx
from fstx.stores.opening import open_store
from support.emulators import Place
from support.places import logical
from support.workerjobs import JOB, UNITS, content, ends, killed_coordinator, receipt_of

DONE = 5


@pytest.mark.parametrize("view", ["plain", "tx"])
def test_another_process_adopts_and_commits(view: str, s3: Place, tmp_path: Path) -> None:
    """E16, I5: SIGKILL of the coordinator; another goes on and commits; zombies are told, nothing is left."""
    url = f"{'tx::' if view == 'tx' else ''}{s3.url}/out"
    killed_coordinator(url, tmp_path, DONE, s3.options)
    late = [receipt_of(tmp_path, n) for n in range(UNITS)]
    assert max(len(pickle.dumps(receipt)) for receipt in late) < 400
    with fstx.begin(url, resume="always", **JOB, **s3.options) as tx:
        assert tx.done_before == {str(n) for n in range(DONE)}
        stager = pickle.loads(pickle.dumps(tx.unit_stager()))
        for n in tx.remaining(range(UNITS)):
            tx.finish(n, [stager.stage(f"u/{n}", content(n))])
    for said in ends(tmp_path):
        assert said.startswith("FencedError: "), said
    found = logical(s3.url, s3.options)
    assert found == {f"out/u/{n}": content(n) for n in range(UNITS)}
    store = open_store(s3.url, **s3.options)
    assert [info.key for info in store.list("") if "/jobs/" in info.key] == []
    assert fstx.jobs(url, **s3.options) == []
