"""Transactions on datasets: a log of numbered write-once records over any `Store`."""

from fstx.backends.manifest.backend import ManifestBackend, join, open_backend
from fstx.backends.manifest.dataset import Dataset, Version, dataset_of
from fstx.backends.manifest.joined import JoinedTransaction
from fstx.backends.manifest.over import backend_over
from fstx.backends.manifest.transaction import ManifestTransaction

__all__ = [
    "Dataset",
    "JoinedTransaction",
    "ManifestBackend",
    "ManifestTransaction",
    "Version",
    "backend_over",
    "dataset_of",
    "join",
    "open_backend",
]
