"""A store of a third party, over SQLite: right by the kit, durable and shared as it says."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fstx.backends.manifest import ManifestBackend
from fstx.stores import Answer
from fstx.types import Capability
from fstx_conformance.broken.table import RIGHT, judge
from fstx_conformance.results import Level, Verdict
from fstx_conformance.subjects import subject_of
from fstx_conformance.subjects.sqlite import SqliteSubject, TableStore

_PUTS = """
import sys
from fstx_conformance.subjects.sqlite import TableStore
store = TableStore(sys.argv[1])
sys.stdin.readline()
print(sum(store.put_new(f"k{n}", sys.argv[2].encode()).value == "done" for n in range(60)))
"""


def test_it_passes() -> None:
    """A right store passes; the kit finds by itself that it goes through a store."""
    levels = (Level.SEMANTICS, Level.HYGIENE)
    found = judge(RIGHT["tx:: on SQLite"], only=levels)
    for level in levels:
        failed = [(c.id, c.failures[:1]) for c in found.cases if c.verdict is Verdict.FAIL]
        assert found.level(level) is Verdict.PASS, (level, failed)


def test_a_url_names_it(tmp_path: Path) -> None:
    """``sqlite://`` and a path is a subject; closed, it leaves an empty table."""
    path = str(tmp_path / "objects.db")
    subject = subject_of(f"sqlite://{path}")
    assert isinstance(subject, SqliteSubject)
    assert subject.seam == "store"
    room = subject.room()
    with room.begin(mode="create") as tx:
        tx.stage("a", b"a")
    assert room.read() == {"a": b"a"}
    assert list(TableStore(path).list(""))
    subject.close()
    assert not list(TableStore(path).list(""))


def test_each_statement_is_synced(tmp_path: Path) -> None:
    """DURABLE is promised because every connection syncs fully."""
    store = TableStore(str(tmp_path / "o.db"))
    assert store._table().execute("pragma synchronous").fetchone() == (2,)
    assert store._table().execute("pragma journal_mode").fetchone() == ("delete",)
    promised = ManifestBackend(store.below(".fstx")).guarantee(mode="update", durability="data")
    assert Capability.DURABLE in promised
    store.close()


def test_processes_share_it(tmp_path: Path) -> None:
    """STORE-1: of two processes that put the same 60 keys each key is one's; both find the same."""
    path = str(tmp_path / "o.db")
    TableStore(path).close()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _PUTS, path, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    told = [int(writer.communicate(timeout=120)[0]) for writer in writers]
    store = pickle.loads(pickle.dumps(TableStore(path)))
    found = [store.get(f"k{n}") for n in range(60)]
    assert told == [found.count(b"one"), found.count(b"two")]
    assert store.put_new("k0", b"late") is Answer.TAKEN
    store.close()


def test_what_sqlite_refuses_is_told_with_the_file(tmp_path: Path) -> None:
    """STORE-18: a file that is no database is an OSError that names it; else UNKNOWN."""
    path = tmp_path / "o.db"
    path.write_bytes(b"no database at all " * 100)
    with pytest.raises(OSError, match=str(path)):
        TableStore(str(path))
    store = TableStore(str(tmp_path / "p.db"))
    store._table().execute("pragma query_only = on")
    assert store.put_new("a", b"a") is Answer.UNKNOWN
    with pytest.raises(OSError, match=r"p\.db") as caught:
        store.put("a", b"a")
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    store.close()
