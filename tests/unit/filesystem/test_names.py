"""``tx`` URLs in their parts."""

from __future__ import annotations

import fsspec
import pytest

from fstx.errors import UsageError
from fstx.filesystem import TxFileSystem
from fstx.filesystem.names import options_of, own_part, parse_link, target_part
from support.txplaces import opened


@pytest.mark.parametrize(
    ("bit", "inner", "reference"),
    [
        ("tx://", "", ""),
        ("tx", "", ""),
        ("tx://a/b", "a/b", ""),
        ("tx:///a/b", "/a/b", ""),
        ("tx://@0123.4", "", "0123.4"),
        ("tx://@0123.4/a/b", "a/b", "0123.4"),
        ("s3://bucket", "", ""),
    ],
)
def test_links(bit: str, inner: str, reference: str) -> None:
    """Protects the reading of one link of a chain."""
    link = parse_link(bit)
    assert (link.inner, link.reference) == (inner, reference)


def test_options_of_links() -> None:
    """Protects that a URL carries what an instance has to know: what it joins, where its names lie."""
    assert options_of("tx://") == {}
    assert options_of("tx:///a/b") == {}
    assert options_of("tx://a") == {"inner": True}
    assert options_of("tx://@i.1") == {"join": "i.1"}
    assert options_of("tx://@i.1/a") == {"join": "i.1", "inner": True}


def test_own_and_target_parts() -> None:
    """Protects the stripping of names: the class's part, and the target's."""
    assert own_part("tx://@i.1") == ""
    assert own_part("tx://a/b/") == "a/b"
    assert own_part("tx::s3://bucket/a") == "s3://bucket/a"
    assert own_part("/") == "/"
    assert target_part("tx::s3://bucket/a") == ("s3://bucket/a", "")
    assert target_part("tx://@i.1::s3://bucket/a/b") == ("s3://bucket/a/b", "")
    assert target_part("tx://x::s3://bucket/a") == ("s3://bucket/a", "x")
    assert target_part("/a/b") == ("/a/b", "")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("tx::memory://a/b", "/a/b"),
        ("tx::memory:///a/b/", "/a/b"),
        ("tx://x/y::memory://a/b", "x/y"),
        ("tx:///a/b/c::memory://a/b", "/a/b/c"),
        ("tx::file:///a/b", "/a/b"),
    ],
)
def test_names_are_spelled_as_the_target_does(url: str, path: str) -> None:
    """Protects code that mixes names of both: results look like the target's own."""
    fs, found = opened(url)
    assert isinstance(fs, TxFileSystem)
    assert found == path
    assert fs._strip_protocol(url) == path
    assert fs._strip_protocol([url]) == [path]


def test_urls_of_names_lead_back() -> None:
    """Protects `unstrip_protocol`: a name's URL opens the same name."""
    for url in ("tx::memory://a/b/c", "tx://x/y::memory://a/b"):
        fs, path = opened(url)
        again, path2 = opened(fs.unstrip_protocol(path))
        assert path2 == path
        assert again._session.places.root == fs._session.places.root


def test_a_target_is_needed_and_only_one_tx() -> None:
    """Protects the caller from a chain that leads nowhere."""
    with pytest.raises(UsageError, match="needs a file system below"):
        fsspec.filesystem("tx")
    with pytest.raises(UsageError, match="name it once"):
        opened("tx::tx::memory://a")
    with pytest.raises(UsageError, match="needs the root behind it"):
        fsspec.filesystem("tx", target_protocol="memory", inner=True)
