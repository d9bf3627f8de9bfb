"""Resumable generation of parquet datasets: one part for each batch of rows, one unit for each part.

`values` is what goes in and out, `run` the loop over batches, `opening` decides what a call goes on with.
"""

from fstx.batching.opening import batches
from fstx.batching.run import Batches, PostProcessing
from fstx.batching.values import Batch, BatchReport

__all__ = ["Batch", "BatchReport", "Batches", "PostProcessing", "batches"]
