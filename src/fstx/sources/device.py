"""The fast way from a cupy array to the host. cupy is imported only where the array is one.

Each worker thread has one non-blocking stream per device; the target is page-locked memory of
cupy's pool, which takes it back when the block is dropped, so that a worker reuses few buffers.
Written for a GPU; without one only its calls are tested.
"""

from __future__ import annotations

import threading
from typing import Any

from fstx.plan import Host

_local = threading.local()


def settle_cupy(array: Any) -> None:
    """Wait for the caller's stream: worker threads have streams of their own and don't see it."""
    import cupy

    with array.device:
        cupy.cuda.get_current_stream().synchronize()


def copy_cupy(array: Any) -> Host:
    """A copy of a cupy block in page-locked host memory; complete when this returns."""
    import cupy
    import cupyx

    with array.device as device:
        streams = _local.__dict__.setdefault("streams", {})
        stream = streams.get(device.id)
        if stream is None:
            stream = streams[device.id] = cupy.cuda.Stream(non_blocking=True)
        # A chunk that this thread has just computed may still be in its current stream's queue.
        stream.wait_event(cupy.cuda.get_current_stream().record())
        if not array.flags.c_contiguous:
            with stream:
                array = cupy.ascontiguousarray(array)
        host: Host = cupyx.empty_pinned(array.shape, dtype=array.dtype)
        array.get(stream=stream, out=host, blocking=False)
        stream.synchronize()
        return host
