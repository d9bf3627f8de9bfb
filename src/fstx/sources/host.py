"""Any array's block as a host ndarray: by protocol, without importing the array's library.

The order is: ndarray as it is, a copy registered for the array's package, DLPack,
``__cuda_array_interface__`` with ``.get()``, and only then ``np.asarray``, never called for
an array that lives on a device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fstx.errors import UsageError
from fstx.plan import Host
from fstx.sources.device import copy_cupy, settle_cupy

_HOST_DEVICES = frozenset({1, 3, 11})  # DLPack: CPU, and host memory pinned by CUDA or ROCm
_COPIES: dict[str, Callable[[Any], Host]] = {"cupy": copy_cupy}
_SETTLES: dict[str, Callable[[Any], None]] = {"cupy": settle_cupy}


def register_host_copy(
    package: str, copy: Callable[[Any], Host], *, settle: Callable[[Any], None] | None = None
) -> None:
    """Use `copy` for every array whose class comes from the top-level `package`.

    Parameters
    ----------
    package
        Top-level module name of the array's class, ``"cupy"`` for ``cupy.ndarray``. Not imported.
    copy
        Takes one block and returns it as an ndarray; called in the worker thread, once per block.
    settle
        Called once with the whole array, in the caller's thread, before the first block: waits
        until the values are computed, for libraries whose work is queued per thread.
    """
    _COPIES[package] = copy
    if settle is None:
        _SETTLES.pop(package, None)
    else:
        _SETTLES[package] = settle


def settle(array: Any) -> None:
    """Wait for work queued on `array` where its package registered how."""
    wait = _SETTLES.get(_package(array))
    if wait is not None:
        wait(array)


def on_device(array: Any) -> bool:
    """True where the values of `array` are known to lie in a device's memory."""
    where = getattr(array, "__dlpack_device__", None)
    if where is not None:
        return int(where()[0]) not in _HOST_DEVICES
    return hasattr(array, "__cuda_array_interface__")


def to_host(array: Any) -> Host:
    """`array` as an ndarray in host memory, copied at most once and never modified.

    Raises
    ------
    UsageError
        For masked and object arrays, and for arrays that offer no way to the host.
    """
    if type(array) is not np.ndarray:
        array = _convert(array)
    if array.dtype.hasobject:
        raise UsageError(
            f"an array of dtype {array.dtype} holds Python objects and has no bytes to write; "
            "convert it with .astype(...)"
        )
    return array  # type: ignore[no-any-return]


def admit(block: Any, shape: tuple[int, ...] | None, dtype: np.dtype[Any]) -> Host:
    """`block` on the host, proven to be what its array said: `shape` (None: any) and `dtype`.

    A dtype that casts safely is cast; a wrong shape would land in the wrong place and is refused.
    """
    host = to_host(block)
    if shape is not None and host.shape != shape:
        raise UsageError(
            f"a block has shape {host.shape}, its array announced {shape}; "
            "correct the chunks (dask: map_blocks(..., chunks=...))"
        )
    if host.dtype != dtype:
        if not np.can_cast(host.dtype, dtype, "safe"):
            raise UsageError(
                f"a block has dtype {host.dtype}, its array announced {dtype}; "
                "correct the dtype (dask: map_blocks(..., dtype=...)) or use .astype"
            )
        host = host.astype(dtype)
    return host


def dtype_of(array: Any) -> np.dtype[Any]:
    """The numpy dtype of `array`, found without moving its values."""
    try:
        dtype: np.dtype[Any] = np.dtype(array.dtype)
    except TypeError:  # torch, array-api-strict: their own dtype objects
        empty = array[tuple(slice(0, 0) for _ in array.shape)] if array.shape else array
        dtype = to_host(empty).dtype
    return dtype


def _package(array: Any) -> str:
    return type(array).__module__.partition(".")[0]


def _convert(array: Any) -> Host:
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError("a masked array would lose its mask; pass array.filled(value)")
    if isinstance(array, np.ndarray):
        return array.view(np.ndarray)
    copy = _COPIES.get(_package(array))
    if copy is not None:
        return copy(array)
    reasons: list[str] = []
    device = on_device(array)
    ways: list[tuple[str, Callable[[Any], Any]]] = []
    if hasattr(array, "__dlpack__") and hasattr(array, "__dlpack_device__"):
        ways.append(("DLPack", _dlpack_from_device if device else np.from_dlpack))
    if device and hasattr(array, "__cuda_array_interface__") and hasattr(array, "get"):
        ways.append((".get()", lambda a: a.get()))
    if device and hasattr(array, "to_device"):
        ways.append((".to_device('cpu')", lambda a: _off_device(a.to_device("cpu"))))
    if device and hasattr(array, "cpu"):
        ways.append((".cpu()", lambda a: _off_device(a.cpu())))
    if not device and _readable(array):
        ways.append(("np.asarray", np.asarray))
    for name, way in ways:
        try:
            host = way(array)
        except (BufferError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            reasons.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if isinstance(host, np.ndarray):
                return host.view(np.ndarray) if type(host) is not np.ndarray else host
            reasons.append(f"{name} gave a {type(host).__name__}")
    raise UsageError(
        f"no way to copy a {type(array).__module__}.{type(array).__qualname__} to host memory"
        + (f" ({'; '.join(reasons)})" if reasons else "")
        + "; pass a numpy array, or teach it with fstx.sources.register_host_copy"
    )


def _readable(array: Any) -> bool:
    return isinstance(array, np.generic) or any(
        hasattr(array, name) for name in ("__array__", "__array_interface__")
    )


def _off_device(array: Any) -> Host:
    if isinstance(array, np.ndarray):
        return array
    if on_device(array):
        raise TypeError("the copy is still on the device")
    return np.from_dlpack(array)


class _AskedForHost:
    """Presents a device array as one whose DLPack export goes to the host.

    numpy before 2.1 can't ask for a device; this asks in its place and works for every version.
    """

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **options: Any) -> Any:
        options.pop("dl_device", None)
        if options.get("copy") is None:
            options.pop("copy", None)
        options.pop("stream", None)
        try:
            return self.array.__dlpack__(dl_device=(1, 0), **options)
        except TypeError:
            if not options:
                raise
            return self.array.__dlpack__(dl_device=(1, 0))


def _dlpack_from_device(array: Any) -> Host:
    return np.from_dlpack(_AskedForHost(array))
