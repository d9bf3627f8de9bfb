"""A transaction in a dictionary, one on a directory, and a plan with one object per block."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fstx.plan import ArraySpec, Grid, Index, StatelessSink, block_slices
from fstx.types import Capability, Guarantee, Promise, Snapshot, StagedObject


def _join(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    return b"".join(bytes(part) for part in data)


class DictStager:
    """Stages into a dictionary, each attempt under its own key."""

    def __init__(self, store: dict[str, bytes], txid: str) -> None:
        self.store, self.txid = store, txid

    def stage(self, path: str, data: Any, /, *, publisher: bool = False) -> StagedObject:
        key = f"{path}#{uuid.uuid4().hex}"
        self.store[key] = _join(data)
        return StagedObject(path, key, len(self.store[key]), self.txid, publisher)

    @contextlib.contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[Any]:
        file = io.BytesIO()
        yield file
        file.receipt = self.stage(path, file.getvalue(), publisher=publisher)  # type: ignore[attr-defined]


@dataclass
class DirStager:
    """Stages into a directory that other processes reach too; pickles."""

    root: str
    txid: str

    def stage(self, path: str, data: Any, /, *, publisher: bool = False) -> StagedObject:
        key = uuid.uuid4().hex
        body = _join(data)
        Path(self.root, key).write_bytes(body)
        return StagedObject(path, key, len(body), self.txid, publisher)


class DictTx:
    """As much of a transaction as the driver, streaming and their plans use."""

    def __init__(self, *, root: Path | None = None) -> None:
        self.id = uuid.uuid4().hex
        self.url = "dict://test"
        self.root = root
        self.staged: dict[str, bytes] = {}
        self.adopted: dict[str, StagedObject] = {}
        self.state = "active"

    @property
    def guarantee(self) -> Guarantee:
        remote = Promise(Capability.REMOTE_STAGING, self.root is not None, "a dictionary is local")
        return Guarantee(self.url, "dict", "create", "none", (remote,))

    def stager(self) -> Any:
        if self.root is not None:
            return DirStager(os.fspath(self.root), self.id)
        return DictStager(self.staged, self.id)

    def stage(self, path: str, data: Any, /, *, publisher: bool = False) -> StagedObject:
        receipt: StagedObject = self.stager().stage(path, data, publisher=publisher)
        self.adopt([receipt])
        return receipt

    def adopt(self, receipts: Any, /) -> None:
        for receipt in receipts:
            self.adopted[receipt.path] = receipt

    def commit(self) -> Snapshot:
        assert self.state == "active"
        self.state = "committed"
        size = sum(r.size_bytes for r in self.adopted.values())
        return Snapshot(self.id, (self.url,), "dict", len(self.adopted), size)

    def rollback(self) -> None:
        self.state = "rolled back"
        self.staged.clear()

    def content(self) -> dict[str, bytes]:
        """What a commit publishes: path -> bytes."""
        if self.root is not None:
            return {p: Path(self.root, r.key).read_bytes() for p, r in self.adopted.items()}
        return {p: self.staged[r.key] for p, r in self.adopted.items()}


@dataclass(frozen=True)
class BlockPlan:
    """One object ``name/i.j`` per block, and ``name/index`` last. `hook` sees every block first."""

    spec: ArraySpec
    grid: Grid
    hook: Callable[[Index, Any], Any] | None = None
    name: str = "out"
    entry: str | None = None
    overwrite_mode: Any = "replace"
    names: tuple[str, ...] = field(default=("out",))

    def replacing(self, existing: Any, /) -> tuple[BlockPlan, tuple[str, ...]]:
        return self, ()

    def write(self, stager: Any, index: Index, block: Any, /) -> tuple[StagedObject, ...]:
        if self.hook is not None:
            self.hook(index, block)
        data = np.ascontiguousarray(block).tobytes()
        return (stager.stage(f"{self.name}/{'.'.join(map(str, index))}", data),)

    def sink(self, stager: Any, /) -> StatelessSink:
        return StatelessSink(self, stager)

    def finish(self, tx: Any, receipts: Any, /) -> None:
        tx.adopt(receipts)
        names = sorted(r.path for r in receipts)
        tx.stage(f"{self.name}/index", "\n".join(names).encode(), publisher=True)

    def read(self, content: dict[str, bytes]) -> np.ndarray[Any, Any]:
        """The array that `content` holds."""
        out = np.zeros(self.spec.shape, self.spec.dtype)
        for index in np.ndindex(*(len(lengths) for lengths in self.grid)):
            region = block_slices(self.grid, index)
            data = content[f"{self.name}/{'.'.join(map(str, index))}"]
            out[region] = np.frombuffer(data, self.spec.dtype).reshape(out[region].shape)
        return out


def regular(shape: tuple[int, ...], block: int) -> Grid:
    """Blocks of length `block`, the last ones cut."""
    axes = []
    for n in shape:
        lengths = [block] * (n // block) + ([n % block] if n % block else [])
        axes.append(tuple(lengths) or (0,))
    return tuple(axes)


def plan_for(source: Any, block: int = 4, hook: Any = None) -> BlockPlan:
    """The plan of a source: its own grid, or blocks of `block`."""
    grid = source.spec.grid or regular(source.spec.shape, block)
    return BlockPlan(source.spec, grid, hook)


@dataclass(frozen=True)
class FailAt:
    """A picklable hook that raises OSError at given blocks."""

    indices: tuple[Index, ...]

    def __call__(self, index: Index, block: Any) -> None:
        if index in self.indices:
            raise OSError(28, "no space", f"block {index}")


class Gauge:
    """How many calls are running, and how many there were at most."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = self.calls = 0

    def __enter__(self) -> Gauge:
        with self.lock:
            self.now += 1
            self.calls += 1
            self.most = max(self.most, self.now)
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1
