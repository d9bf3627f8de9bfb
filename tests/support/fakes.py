"""Arrays that live on a device that isn't there: numpy underneath, with a device's manners."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

MOVES: list[tuple[tuple[int, ...], str]] = []
"""Shape and thread of every copy to the host, in order. Tests clear it."""

ASKED: list[str] = []
"""One entry for every forbidden implicit conversion that was tried. Tests clear it."""

CUDA = (2, 0)


class FakeDevice:
    """Forbids implicit conversion; exports by DLPack where the host is asked for."""

    def __init__(self, values: Any) -> None:
        self._values = np.asarray(values)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._values.dtype

    @property
    def ndim(self) -> int:
        return self._values.ndim

    def __getitem__(self, key: Any) -> Any:
        return type(self)(self._values[key])

    def __array__(self, *_: Any, **__: Any) -> Any:
        ASKED.append(type(self).__name__)
        raise TypeError("implicit conversion to a host array is forbidden")

    def _copy(self) -> np.ndarray[Any, Any]:
        MOVES.append((self.shape, threading.current_thread().name))
        return self._values.copy()

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA

    def __dlpack__(self, *, dl_device: Any = None, **options: Any) -> Any:
        if dl_device != (1, 0):
            raise BufferError("only the host is served")
        return self._copy().__dlpack__(**options)


class OldDlpack(FakeDevice):
    """A producer from before ``dl_device``, with the CUDA interface and ``.get()``."""

    def __dlpack__(self, stream: Any = None) -> Any:  # type: ignore[override]
        raise BufferError("the memory is on a device")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (1, True), "version": 3}

    def get(self) -> np.ndarray[Any, Any]:
        return self._copy()


class TorchLike(FakeDevice):
    """No ``dl_device``, its own dtype objects, and ``.cpu()``."""

    def __dlpack__(self, stream: Any = None) -> Any:  # type: ignore[override]
        raise TypeError("unexpected device")

    @property
    def dtype(self) -> Any:
        return f"torchlike.{self._values.dtype}"

    def cpu(self) -> Any:
        return self._copy()


class NoWayOut(FakeDevice):
    """A device array that offers no way to the host."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("no export")


class Registered(FakeDevice):
    """An array of the made-up package ``fastgpu``."""

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("the registered copy comes first")


Registered.__module__ = "fastgpu.core"
