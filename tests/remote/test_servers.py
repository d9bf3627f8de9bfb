"""The servers do what later tests rely on."""

from __future__ import annotations

from support.servers import Place


def test_roundtrip(remote_place: Place) -> None:
    """Protects all tests: what is written through the client is read back."""
    fs = remote_place.fs
    fs.pipe_file(remote_place.path + "/a", b"x" * 1000)
    assert fs.cat_file(remote_place.path + "/a") == b"x" * 1000
    assert remote_place.names() == ["a"]


def test_roundtrip_faulty(faulty_place: Place) -> None:
    """Protects all tests: what is written through the client is read back."""
    fs = faulty_place.fs
    fs.pipe_file(faulty_place.path + "/a", b"x" * 1000)
    assert fs.cat_file(faulty_place.path + "/a") == b"x" * 1000
    assert faulty_place.names() == ["a"]
    assert faulty_place.proxy.log()


def test_sftp(sftp: Place) -> None:
    """Protects all tests: what is written through the client is read back."""
    fs = sftp.fs
    fs.makedirs(sftp.path)
    fs.pipe_file(sftp.path + "/a", b"x" * 1000)
    assert fs.cat_file(sftp.path + "/a") == b"x" * 1000
    assert sftp.names() == ["a"]
