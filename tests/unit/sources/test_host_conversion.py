"""Conversion of blocks to the host, by protocol."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any

import numpy as np
import pytest

from fstx.errors import UsageError
from fstx.sources import open_source, register_host_copy, to_host
from fstx.sources.device import copy_cupy, settle_cupy
from fstx.sources.host import admit
from support import fakes

VALUES = np.arange(12, dtype="f4").reshape(3, 4)


@pytest.fixture(autouse=True)
def _no_moves() -> None:
    fakes.MOVES.clear()
    fakes.ASKED.clear()


def test_h3_ndarray_is_taken_as_it_is() -> None:
    """H3: a numpy array is not copied."""
    assert to_host(VALUES) is VALUES


@pytest.mark.parametrize("kind", [fakes.FakeDevice, fakes.OldDlpack, fakes.TorchLike])
def test_h3_h5_device_arrays_come_by_protocol(kind: Any) -> None:
    """H3, H5: DLPack to the CPU, .get() or .cpu(), one copy, and never np.asarray."""
    host = to_host(kind(VALUES))
    assert type(host) is np.ndarray
    assert np.array_equal(host, VALUES)
    assert len(fakes.MOVES) == 1
    assert fakes.ASKED == []


def test_h5_no_way_to_the_host_is_refused_with_reasons() -> None:
    """H5: what forbids conversion and offers nothing is refused; np.asarray is not tried."""
    with pytest.raises(UsageError, match=r"NoWayOut.*no export.*register_host_copy"):
        to_host(fakes.NoWayOut(VALUES))
    assert fakes.ASKED == []


def test_h3_registered_copy_comes_first() -> None:
    """H3: a copy registered for the class's package is preferred, and the package not imported."""
    settled: list[Any] = []
    register_host_copy("fastgpu", lambda a: a._copy() + 1, settle=settled.append)
    assert np.array_equal(to_host(fakes.Registered(VALUES)), VALUES + 1)
    assert "fastgpu" not in sys.modules


def test_h3_second_device_of_the_standard() -> None:
    """H6: array-api-strict's second device, where np.asarray raises, is read by DLPack."""
    strict = pytest.importorskip("array_api_strict")
    array = strict.asarray(VALUES, device=strict.Device("device1"))
    with pytest.raises(RuntimeError):
        np.asarray(array)
    assert np.array_equal(to_host(array), VALUES)


def test_h3_opening_imports_no_array_library() -> None:
    """H3: neither cupy, torch, jax nor dask is imported for a numpy array."""
    code = (
        "import sys, numpy as np; from fstx.sources import open_source; open_source(np.zeros(3));"
        "print([m for m in ('cupy', 'torch', 'jax', 'dask') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ([1, 2], "numpy.asarray"),
        (None, "NoneType"),
        ("abc", "str"),
        (np.array([object()]), "Python objects"),
        (np.ma.masked_array([1, 2], [True, False]), "filled"),
    ],
)
def test_h3_unwritable_input_is_refused_at_once(array: Any, words: str) -> None:
    """H3, B9: lists, objects and masked arrays are refused before anything is done."""
    with pytest.raises(UsageError, match=words):
        open_source(array)


def test_block_of_another_shape_or_dtype_is_refused() -> None:
    """A chunk that isn't what its array announced would land wrong; a safe cast is made."""
    with pytest.raises(UsageError, match="shape"):
        admit(VALUES, (4, 3), VALUES.dtype)
    with pytest.raises(UsageError, match="dtype float32"):
        admit(VALUES, VALUES.shape, np.dtype("i2"))
    assert admit(VALUES, VALUES.shape, np.dtype("f8")).dtype == np.dtype("f8")
    swapped = VALUES.astype(VALUES.dtype.newbyteorder())
    assert np.array_equal(admit(swapped, VALUES.shape, VALUES.dtype), VALUES)


class _Log:
    def __init__(self) -> None:
        self.calls: list[str] = []


def _fake_cupy(log: _Log) -> tuple[types.ModuleType, types.ModuleType]:
    class Stream:
        def __init__(self, non_blocking: bool = False) -> None:
            log.calls.append(f"stream non_blocking={non_blocking}")

        def wait_event(self, event: str) -> None:
            log.calls.append(f"wait {event}")

        def synchronize(self) -> None:
            log.calls.append("synchronize")

        def record(self) -> str:
            return "event"

    cupy, cupyx = types.ModuleType("cupy"), types.ModuleType("cupyx")
    current = Stream()
    cupy.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        Stream=Stream, get_current_stream=lambda: current
    )
    cupyx.empty_pinned = lambda shape, dtype: np.empty(shape, dtype)  # type: ignore[attr-defined]
    return cupy, cupyx


class _Device:
    id = 0

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class _Cupy:
    """The surface of a cupy array that the fast path touches."""

    device = _Device()
    flags = types.SimpleNamespace(c_contiguous=True)
    shape, dtype = VALUES.shape, VALUES.dtype

    def __init__(self, log: _Log) -> None:
        self.log = log

    def get(self, *, stream: Any, out: Any, blocking: bool) -> None:
        self.log.calls.append(f"get blocking={blocking}")
        out[...] = VALUES


def test_h4_cupy_copies_through_one_stream_per_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """H4: waits for the producing stream, copies without blocking into pinned memory, waits."""
    log = _Log()
    cupy, cupyx = _fake_cupy(log)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    monkeypatch.setattr("fstx.sources.device._local.streams", {}, raising=False)
    log.calls.clear()
    array = _Cupy(log)
    settle_cupy(array)
    first, second = copy_cupy(array), copy_cupy(array)
    assert np.array_equal(first, VALUES)
    assert first is not second
    once = ["wait event", "get blocking=False", "synchronize"]
    assert log.calls == ["synchronize", "stream non_blocking=True", *once, *once]
