"""fstx: transactions for any fsspec URL.

A job that writes many files publishes all of them or none; a killed job leaves nothing that a reader
can see and nothing that a retry stumbles over.

    import fstx

    with fstx.begin("out/scene", entry="index.json") as tx:
        tx.stage("tiles/0_0.bin", data)
        tx.stage("index.json", b"{}")

    fstx.write(array, "out/dem.vrt", crs="EPSG:4326", transform=...)
    fstx.write(array, "s3://bucket/dem.zarr")

    with fstx.begin("tx::s3://bucket/cube.zarr"):
        xarray_dataset.to_zarr("tx::s3://bucket/cube.zarr")
    fstx.dataset("tx::s3://bucket/cube.zarr").log()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fstx.errors import (
    CapabilityError,
    CommitError,
    ConflictError,
    FencedError,
    InDoubtError,
    PathError,
    RecoveryError,
    ResumeError,
    StateError,
    StorageError,
    TargetBusyError,
    TargetExistsError,
    TransactionError,
    UsageError,
)

if TYPE_CHECKING:
    from fstx.across import TransactionAcross, begin_across, recover_across
    from fstx.arrays import chunk_writer, write
    from fstx.batching import Batch, Batches, BatchReport, PostProcessing, batches
    from fstx.caching import Cache, CacheCheck, CacheWarning, cache
    from fstx.front import begin, guarantee, jobs, outcome, recover
    from fstx.protocol import Backend, StagedFile, Stager, Transaction
    from fstx.resuming import Job, ResumableTransaction
    from fstx.resuming.fingerprint import Fingerprint, fingerprint
    from fstx.streaming import ChunkReport, ChunkWriter, process_chunks
    from fstx.types import (
        Capability,
        Guarantee,
        OutcomeState,
        Promise,
        Recovery,
        Settled,
        Snapshot,
        StagedObject,
    )
    from fstx.versions import (
        Collection,
        LogEntry,
        OpenSnapshot,
        Verification,
        VersionedDataset,
        dataset,
    )

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "Batch",
    "BatchReport",
    "Batches",
    "Cache",
    "CacheCheck",
    "CacheWarning",
    "Capability",
    "CapabilityError",
    "ChunkReport",
    "ChunkWriter",
    "Collection",
    "CommitError",
    "ConflictError",
    "FencedError",
    "Fingerprint",
    "Guarantee",
    "InDoubtError",
    "Job",
    "LogEntry",
    "OpenSnapshot",
    "OutcomeState",
    "PathError",
    "PostProcessing",
    "Promise",
    "Recovery",
    "RecoveryError",
    "ResumableTransaction",
    "ResumeError",
    "Settled",
    "Snapshot",
    "StagedFile",
    "StagedObject",
    "Stager",
    "StateError",
    "StorageError",
    "TargetBusyError",
    "TargetExistsError",
    "Transaction",
    "TransactionAcross",
    "TransactionError",
    "UsageError",
    "Verification",
    "VersionedDataset",
    "__version__",
    "batches",
    "begin",
    "begin_across",
    "cache",
    "chunk_writer",
    "dataset",
    "fingerprint",
    "guarantee",
    "jobs",
    "outcome",
    "process_chunks",
    "recover",
    "recover_across",
    "write",
]

# a name is imported when it is first asked for: a process has of numpy and asyncio what it uses
_NAMES = {
    "across": "TransactionAcross begin_across recover_across",
    "arrays": "chunk_writer write",
    "batching": "Batch BatchReport Batches PostProcessing batches",
    "caching": "Cache CacheCheck CacheWarning cache",
    "front": "begin guarantee jobs outcome recover",
    "protocol": "Backend StagedFile Stager Transaction",
    "resuming": "Fingerprint Job ResumableTransaction fingerprint",
    "streaming": "ChunkReport ChunkWriter process_chunks",
    "types": "Capability Guarantee OutcomeState Promise Recovery Settled Snapshot StagedObject",
    "versions": "Collection LogEntry OpenSnapshot Verification VersionedDataset dataset",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker knows which names there are

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name in _NAMES:  # fstx.types and the like
            return import_module(f"fstx.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"fstx.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
