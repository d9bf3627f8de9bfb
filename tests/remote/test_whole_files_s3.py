"""On S3, by plain URLs and through ``tx::``: files of libraries, regions and appends."""

from __future__ import annotations

import tempfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

import fstx
from fstx.errors import CapabilityError
from support.emulators import Place

h5py = pytest.importorskip("h5py")
zarr = pytest.importorskip("zarr")

VALUES = np.arange(16 * 12, dtype="f4").reshape(16, 12)


@pytest.mark.parametrize("prefix", ["", "tx::"])
def test_a_library_writes_and_updates_a_file(
    prefix: str, s3: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H9: an HDF5 file of several parts is uploaded when its block ends, and updated from what is there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    url, big = f"{prefix}{s3.url}/set", np.random.default_rng(0).random(1_200_000)
    with fstx.begin(url, **s3.options) as tx:
        with tx.local_path("a.h5") as local, h5py.File(local, "w") as file:
            file["big"] = big
        tx.stage("index.json", b"{}")
    with (
        fstx.begin(url, **s3.options) as tx,
        tx.local_path("a.h5", copy=True) as local,
        h5py.File(local, "r+") as file,
    ):
        file["small"] = [1, 2, 3]
    assert not list(tmp_path.iterdir())
    options = {"s3": s3.options} if prefix else s3.options
    fs, path = fsspec.url_to_fs(url, **options)
    fs.get_file(f"{path}/a.h5", str(tmp_path / "copy.h5"))
    with h5py.File(tmp_path / "copy.h5") as file:
        assert file["small"][:].tolist() == [1, 2, 3]
        np.testing.assert_array_equal(file["big"][:], big)


@pytest.mark.parametrize("prefix", ["", "tx::"])
def test_regions_and_appends(prefix: str, s3: Place) -> None:
    """G2: a region and an append land on S3; in place they need a lower promise, an append doesn't."""
    url, options = f"{prefix}{s3.url}/a.zarr", {"storage_options": s3.options}
    fstx.write(VALUES, url, chunks=(4, 6), **options)
    region = (slice(4, 8), slice(0, 12))
    part = VALUES[4:8] * np.repeat([0, 2], 6).astype("f4")
    if not prefix:
        with pytest.raises(CapabilityError, match="ATOMIC_SET"):
            fstx.write(part, url, region=region, **options)
    done = fstx.write(part, url, region=region, require="RECOVERABLE", **options)
    assert not done.pending
    fstx.write(VALUES[:6], url, append_dim=0, **options)
    asked = {"s3": s3.options} if prefix else s3.options
    store = zarr.storage.FsspecStore.from_url(url, storage_options=asked, read_only=True)
    found = np.asarray(zarr.open_array(store, mode="r")[...])
    wanted = np.concatenate([VALUES[:4], part, VALUES[8:], VALUES[:6]])
    np.testing.assert_array_equal(found, wanted)
