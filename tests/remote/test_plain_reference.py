"""A version of a dataset on S3 through plain ``reference://``."""

from __future__ import annotations

import pytest

from fstx.backends.manifest.reference import write_reference
from fstx.stores.opening import open_store
from support.emulators import Place
from support.refjobs import write_cubes


def test_xarray_reads_a_version_on_s3(s3: Place) -> None:
    """Protects fsspec.md 6: absolute URLs, whole objects and ranges, by an asynchronous file system."""
    xr = pytest.importorskip("xarray")
    store = open_store(s3.url, **s3.options).below("cube.zarr/.fstx")
    dataset, versions = write_cubes(store)
    for number, cube in versions.items():
        options = {
            "fo": write_reference(dataset, number),
            "target_options": s3.options,
            "remote_protocol": "s3",
            "remote_options": {**s3.options, "asynchronous": True},
        }
        with xr.open_zarr("reference://", storage_options=options, consolidated=False) as found:
            xr.testing.assert_equal(found.load(), cube)
