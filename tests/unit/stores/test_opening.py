"""From a URL, or a file system, to a store."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

import fstx
from fstx.errors import PathError
from fstx.stores import Answer
from fstx.stores.generic import GenericStore
from fstx.stores.local import LocalStore
from fstx.stores.memory import MemoryStore
from fstx.stores.opening import open_store, store_of


def test_schemes_choose_the_store(tmp_path: Path) -> None:
    """Protects the choice by scheme, and that one place has one identity however it is named."""
    assert isinstance(open_store(tmp_path), LocalStore)
    same = {
        open_store(url).identity
        for url in (tmp_path, str(tmp_path), f"file://{tmp_path}", f"local://{tmp_path}/")
    }
    assert len(same) == 1
    fs = fsspec.filesystem("file")
    assert store_of(fs, str(tmp_path)).identity in same
    assert isinstance(open_store("memory://a/b"), MemoryStore)


def test_what_is_no_store_is_refused() -> None:
    """Protects from surprises: chains, options that mean nothing, empty paths."""
    for url, options in (
        ("tx::s3://b/k", {}),
        ("file:///tmp/x", {"key": "v"}),
        ("", {}),
    ):
        with pytest.raises(PathError):
            open_store(url, **options)
    with pytest.raises(ValueError, match="nosuchscheme"):
        open_store("nosuchscheme://x")


def test_smb_keeps_no_log() -> None:
    """A share is refused before anything connects: its client can't tell who was first."""
    for call in (
        lambda: open_store("smb://nowhere/share/d"),
        lambda: fstx.begin("tx::smb://nowhere/share/d"),
        lambda: fstx.cache("smb://nowhere/share/d"),
    ):
        with pytest.raises(fstx.CapabilityError, match=r"smb:// without tx::"):
            call()


def test_other_file_systems_are_not_trusted(tmp_path: Path) -> None:
    """Protects data on file systems of no known kind: written in place, create by looking first."""
    store = store_of(fsspec.filesystem("dir", path=str(tmp_path), target_protocol="file"), "/r")
    assert isinstance(store, GenericStore)
    store.put("a/b", b"12")
    assert store.get("a/b", 1) == b"2"
    assert [i.key for i in store.list("")] == ["a/b"]
    writer = store.open("big")
    writer.write(b"12345")
    assert store.info("big") is None
    writer.close()
    info = store.info("big")
    assert info is not None
    assert info.size_bytes == 5
    with pytest.raises(PathError):
        store.get("a//b")
    writer = store.open("gone")
    writer.abort()
    proof = store.probe()
    assert not proof.put_new
    assert not {c: k for c, k, _, _ in proof.promises}["ATOMIC_OBJECT"]
    store.delete(["a/b", "big", "absent"])
    assert list(store.list("")) == []


def test_clients_that_look_first_are_refused_at_once() -> None:
    """Protects from a race that a probe may miss: these clients are known."""
    from fstx.stores.naming import InPlace

    names = InPlace(None, "ftp")
    assert "looks for the file first" in names.untrusted
    with pytest.raises(NotImplementedError):
        names.put_new("k", b"")


def test_a_writer_of_one_more_kind_answers(tmp_path: Path) -> None:
    """Protects put-if-absent where a client does raise FileExistsError."""
    fs = fsspec.filesystem("dir", path=str(tmp_path), target_protocol="memory")
    store = store_of(fs, "/r")
    assert store.put_new("k", b"1") is Answer.DONE
    assert store.put_new("k", b"2") is Answer.TAKEN


def test_an_unknown_protocol_is_named() -> None:
    """Protects from fsspec's own error: what is wrong with the URL is said, as for any bad URL."""
    with pytest.raises(PathError, match="nosuch://"):
        open_store("nosuch://a/b")
