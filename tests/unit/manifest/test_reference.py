"""A version as a document of ``reference://``: read by plain fsspec, zarr and xarray."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from fstx.backends.manifest import ManifestBackend
from fstx.backends.manifest.dataset import Dataset
from fstx.backends.manifest.reference import reference_json, write_reference
from fstx.stores.local import LocalStore
from support.refjobs import write_cubes


def test_xarray_reads_each_version(tmp_path: Path) -> None:
    """Protects design 3, reference: old and new version by plain readers, shards and small chunks too."""
    xr = pytest.importorskip("xarray")
    dataset, versions = write_cubes(LocalStore(tmp_path / "cube.zarr" / ".fstx"))
    for number, cube in versions.items():
        url = write_reference(dataset, number)
        with xr.open_zarr(f"reference::{url}", consolidated=False) as found:
            xr.testing.assert_equal(found.load(), cube)


def test_inline_packed_and_odd_contents(tmp_path: Path) -> None:
    """Protects bytes that JSON can't hold, and texts that the format would take for something else."""
    contents = {
        "text": b"hello",
        "binary": bytes(range(256)),
        "empty": b"",
        "template": b"{{u}}",
        "base64": b"base64:aGk=",
        "d/large": bytes(range(256)) * 40,
        **{f"packed/{i}": bytes([i]) * 900 for i in range(20)},
    }
    dataset = Dataset(LocalStore(tmp_path / "ds" / ".fstx"))
    with ManifestBackend(dataset).begin(
        mode="update", durability="none", require=frozenset()
    ) as tx:
        for path, data in contents.items():
            tx.stage(path, data)
    fs = fsspec.filesystem("reference", fo=write_reference(dataset))
    assert sorted(fs.find("")) == sorted(contents)
    for path, data in contents.items():
        assert fs.cat_file(path) == data
    assert fs.cat_file("d/large", start=256, end=300) == contents["d/large"][256:300]


def test_a_part_of_a_dataset(tmp_path: Path) -> None:
    """Protects `prefix`: paths relative to it, nothing else."""
    dataset = Dataset(LocalStore(tmp_path / "ds" / ".fstx"))
    with ManifestBackend(dataset).begin(
        mode="update", durability="none", require=frozenset()
    ) as tx:
        tx.stage("a/x", b"1")
        tx.stage("ab/x", b"2")
    found = json.loads(reference_json(dataset.view(), dataset.url, "a"))
    assert found == {"version": 1, "refs": {"x": "1"}}
