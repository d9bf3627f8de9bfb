"""A real cupy.ndarray, over host memory because there is no GPU: which way it takes to the host (H3, H6)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fstx.sources import host, open_source, to_host

cupy = pytest.importorskip("cupy", reason="cupy has wheels for Linux and Windows only")


def borrowed(values: np.ndarray) -> Any:
    memory = cupy.cuda.UnownedMemory(values.ctypes.data, values.nbytes, values, device_id=0)
    return cupy.ndarray(values.shape, values.dtype, cupy.cuda.MemoryPointer(memory, 0))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The registered way of cupy, replaced by one that notes the shape and copies by pointer."""
    seen: list[tuple[int, ...]] = []

    def copy(array: Any) -> np.ndarray:
        seen.append(array.shape)
        import ctypes

        raw = ctypes.string_at(array.data.ptr, array.nbytes)
        return np.frombuffer(raw, array.dtype).reshape(array.shape).copy()

    monkeypatch.setattr(host, "_COPIES", dict(host._COPIES))
    monkeypatch.setattr(host, "_SETTLES", dict(host._SETTLES))
    host.register_host_copy("cupy", copy)
    return seen


def test_a_cupy_array_forbids_implicit_conversion_and_is_accepted() -> None:
    """H3, H5: shape and dtype are read without a conversion, slices stay cupy arrays."""
    values = np.arange(12, dtype="f4").reshape(3, 4)
    array = borrowed(values)
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(array)
    spec = open_source(array).spec
    assert (spec.shape, spec.dtype) == ((3, 4), np.dtype("f4"))
    assert isinstance(array[1:], cupy.ndarray)


def test_a_cupy_block_goes_the_registered_way_once(calls: list[tuple[int, ...]]) -> None:
    """H3, H4: by the module's name, block by block, never through numpy's conversion."""
    values = np.arange(12, dtype="f4").reshape(3, 4)
    assert (to_host(borrowed(values)) == values).all()
    assert calls == [(3, 4)]


def test_without_a_driver_the_runtime_says_so() -> None:
    """H6: the built-in way really calls the CUDA runtime; here that has no driver to talk to."""
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
            to_host(borrowed(np.zeros(3, "f4")))
    else:
        assert (to_host(cupy.arange(3)) == np.arange(3)).all()
