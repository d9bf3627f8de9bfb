"""Arrays of any kind as blocks in host memory: the only code that knows dask, cupy and such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.plan import Source
from fstx.sources.blocks import BlockSource
from fstx.sources.host import register_host_copy, to_host

__all__ = ["lazy", "open_source", "register_host_copy", "to_host"]


def open_source(array: Any, *, scheduler: Any = None) -> Source:
    """The source for `array`: decides how its blocks are computed and brought to the host.

    Parameters
    ----------
    array
        numpy, ``np.memmap``, a device array, a dask array of either, an xarray object, or anything
        with ``shape``, ``dtype`` and slicing. Nothing is computed, copied or converted here.
    scheduler
        For dask arrays what ``dask.compute(scheduler=)`` takes; for others ``"threads"`` or
        ``"synchronous"``.

    Raises
    ------
    UsageError
        For lists, masked arrays, object dtypes and unknown chunk sizes.
    """
    if hasattr(array, "dims") and hasattr(array, "data") and hasattr(array, "coords"):
        array = array.data  # xarray: its array, lazy or not
    if hasattr(array, "data_vars"):
        raise UsageError(
            "a Dataset is several arrays: write one, fstx.write(ds['name'], ...), or all of them in one "
            "transaction, ds.to_zarr(TransactionStore(tx)) of fstx.zarr_store"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError("a masked array would lose its mask; pass array.filled(value)")
    if hasattr(array, "__dask_graph__") and array.__dask_graph__() is not None:
        if not hasattr(array, "chunks"):
            raise UsageError(
                f"a {type(array).__module__}.{type(array).__qualname__} has no chunks; "
                "pass a dask array"
            )
        from fstx.sources.dask_ import DaskSource

        return DaskSource(array, scheduler)
    if isinstance(array, (list, tuple, str, bytes, int, float, complex)) or array is None:
        raise UsageError(
            f"array is a {type(array).__name__}; pass an array, such as numpy.asarray(...)"
        )
    if isinstance(array, np.generic):
        array = np.asarray(array)
    if not all(hasattr(array, name) for name in ("shape", "dtype", "__getitem__")):
        array = to_host(array)
    return BlockSource(array, scheduler)


def lazy(call: Callable[[], Any]) -> Any:
    """A dask ``Delayed`` that runs `call` when computed; see `fstx.sources.dask_.lazy`."""
    from fstx.sources.dask_ import lazy as delayed

    return delayed(call)
