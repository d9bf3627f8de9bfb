"""fsspec's abstract suite over ``tx::s3://``, outside and inside of a transaction; one commit for zarr.

Patterns are the file system's, whatever the storage: here each is tried once, in memory with each
of the calls, outside and inside.
"""

from __future__ import annotations

from typing import Any

import pytest
from fsspec.tests import abstract

from support.emulators import Place
from support.txabstract import Fixtures, third
from support.txplaces import opened


class S3(Fixtures):
    """A fresh prefix of a bucket."""

    @pytest.fixture
    def target(self, s3: Place) -> tuple[str, dict[str, Any]]:
        return s3.url + "/ds", {"s3": s3.options}


class TestS3Copy(abstract.AbstractCopyTests, S3):
    test_copy_glob_edge_cases = third(abstract.AbstractCopyTests.test_copy_glob_edge_cases, 0)


class TestS3Get(abstract.AbstractGetTests, S3):
    test_get_glob_edge_cases = third(abstract.AbstractGetTests.test_get_glob_edge_cases, 1)


class TestS3Put(abstract.AbstractPutTests, S3):
    test_put_glob_edge_cases = third(abstract.AbstractPutTests.test_put_glob_edge_cases, 2)


class TestS3Open(abstract.AbstractOpenTests, S3):
    pass


class TestS3Pipe(abstract.AbstractPipeTests, S3):
    pass


class TestS3CopyInside(abstract.AbstractCopyTests, S3):
    inside = True
    test_copy_glob_edge_cases = None


class TestS3GetInside(abstract.AbstractGetTests, S3):
    inside = True
    test_get_glob_edge_cases = None


class TestS3PutInside(abstract.AbstractPutTests, S3):
    inside = True
    test_put_glob_edge_cases = None


class TestS3OpenInside(abstract.AbstractOpenTests, S3):
    inside = True


class TestS3PipeInside(abstract.AbstractPipeTests, S3):
    inside = True


@pytest.mark.parametrize("remote", ["s3", "gcs", "azure"])
def test_zarr_in_one_commit(remote: str, request: pytest.FixtureRequest) -> None:
    """Protects zarr on object stores: written in a block it is one version, and read as one."""
    xr = pytest.importorskip("xarray")
    place: Place = request.getfixturevalue(remote)
    options = {place.url.partition("://")[0]: place.options}
    url = f"tx::{place.url}/cube.zarr"
    data = xr.Dataset({"a": (("y", "x"), [[1.0, 2.0], [3.0, 4.0]])})
    fs, root = opened(url, **options)
    for n in (1, 2):
        with fs.transaction as block:
            (data * n).to_zarr(url, mode="w", storage_options=options, consolidated=False)
        assert block.snapshot is not None
        assert block.snapshot.version == n
    with xr.open_zarr(url, storage_options=options, consolidated=False) as found:
        assert float(found["a"].sum()) == 20.0
    assert fs.isfile(f"{root}/zarr.json")


@pytest.mark.parametrize("remote", ["s3", "gcs", "azure"])
def test_one_object_is_written_in_place(remote: str, request: pytest.FixtureRequest) -> None:
    """Protects single objects on object stores: whole under their own name, or not at all."""
    place: Place = request.getfixturevalue(remote)
    options = {place.url.partition("://")[0]: place.options}
    fs, path = opened(f"tx::{place.url}/x.bin", **options)
    with pytest.raises(RuntimeError), fs.open(path, "wb") as file:
        file.write(b"half")
        raise RuntimeError
    assert not place.fs.exists(place.url + "/x.bin")
    fs.pipe_file(path, b"whole", mode="create")
    with pytest.raises(FileExistsError):
        fs.pipe_file(path, b"again", mode="create")
    with fs.open(path, "ab") as file:
        file.write(b"!")
    assert place.fs.cat_file(place.url + "/x.bin") == b"whole!"
