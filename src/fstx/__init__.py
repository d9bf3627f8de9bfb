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

from fstx.across import TransactionAcross, begin_across, recover_across
from fstx.batching import Batch, Batches, BatchReport, PostProcessing, batches
from fstx.caching import Cache, CacheCheck, CacheWarning, cache
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
from fstx.front import begin, chunk_writer, guarantee, jobs, outcome, recover, write
from fstx.protocol import Backend, StagedFile, Stager, Transaction
from fstx.resuming import Fingerprint, Job, ResumableTransaction, fingerprint
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
