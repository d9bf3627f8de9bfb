"""A dataset with a Zarr group, and what plain ``reference://`` readers find of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fstx.backends.manifest import ManifestBackend
from fstx.backends.manifest.dataset import Dataset
from fstx.stores import Store


def write_cubes(store: Store) -> tuple[Dataset, dict[int, Any]]:
    """A dataset of two versions, and what each holds."""
    import xarray as xr

    from fstx.zarr_store import TransactionStore

    dataset = Dataset(store)
    versions = {}
    for n in (1, 2):
        cube = xr.Dataset(
            {
                "a": (("y", "x"), np.arange(4000.0).reshape(50, 80) * n),
                "b": (("y",), np.arange(50, dtype="int32")),
            }
        )
        with ManifestBackend(dataset).begin(
            mode="update", durability="data", require=frozenset()
        ) as tx:
            encoding = {"a": {"chunks": (10, 40), "shards": (20, 80)}}
            cube.to_zarr(TransactionStore(tx), mode="w", consolidated=False, encoding=encoding)
        assert tx.snapshot is not None
        versions[int(tx.snapshot.version or 0)] = cube
    return dataset, versions
