"""From a URL to the versions of the dataset there."""

from __future__ import annotations

from typing import Any

from fstx import registry
from fstx.backends.manifest.history import OpenSnapshot, VersionedDataset
from fstx.backends.manifest.reports import (
    Collection,
    LogEntries,
    LogEntry,
    Problem,
    Verification,
)
from fstx.backends.manifest.resolve import find, parse, split_options
from fstx.errors import PathError
from fstx.registry import URL

__all__ = [
    "Collection",
    "LogEntries",
    "LogEntry",
    "OpenSnapshot",
    "Problem",
    "Verification",
    "VersionedDataset",
    "dataset",
]


def dataset(url: URL, **storage_options: Any) -> VersionedDataset:
    """The versions of the dataset at or above `url`.

    Parameters
    ----------
    url
        ``tx::s3://bucket/cube.zarr``; ``tx::`` may be left out. Below the root of a dataset paths are
        relative to `url`; versions are those of the dataset.
    **storage_options
        Of the storage, as fsspec takes them.

    Raises
    ------
    PathError
        There is no dataset.
    """
    text = registry.as_url(url).rstrip("/")
    part = parse(text if text.partition("::")[1] else f"tx::{text}")
    if part.reference:
        raise PathError(f"{text} names an open transaction; a dataset's URL has no @ID")
    own, storage = split_options(dict(storage_options), part.target)
    root = own.get("root") or (part.target if part.rooted else None)
    place = f"{part.target}/{part.inner}" if part.inner else part.target
    found, prefix, marked = find(place, storage, root=root)
    if not marked and not found.exists():
        raise PathError(
            f"there is no dataset at or above {place}; one is made by the first write through "
            f"tx::{part.target}"
        )
    return VersionedDataset(found, prefix=prefix, url=f"tx::{place}", options=storage_options)
