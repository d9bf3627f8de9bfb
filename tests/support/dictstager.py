"""A transaction in a dict: for tests of layouts, which need names and bytes and no storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fstx.types import Buffer, Data, StagedObject


class DictFile:
    """A staged file under way."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = bytearray()
        self.receipt: StagedObject

    def write(self, data: Buffer) -> int:
        self.data += data
        return len(data)

    def tell(self) -> int:
        return len(self.data)


class DictStager:
    """Stages into `staged`, by key; counts calls in `order`."""

    def __init__(self) -> None:
        self.staged: dict[str, bytes] = {}
        self.order: list[str] = []

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        whole = b"".join(bytes(part) for part in parts)
        key = f"{len(self.staged)}"
        self.staged[key] = whole
        self.order.append(path)
        return StagedObject(path, key, len(whole), "tx", publisher)

    @contextmanager
    def open(self, path: str, /, *, publisher: bool = False) -> Iterator[DictFile]:
        file = DictFile(path)
        yield file
        file.receipt = self.stage(path, bytes(file.data), publisher=publisher)


class DictTransaction(DictStager):
    """Adopts into `adopted`, path to receipt, in the order of adoption."""

    id = "tx"
    url = "dict://"

    def __init__(self) -> None:
        super().__init__()
        self.adopted: dict[str, StagedObject] = {}

    def stage(self, path: str, data: Data, /, *, publisher: bool = False) -> StagedObject:
        receipt = super().stage(path, data, publisher=publisher)
        self.adopt([receipt])
        return receipt

    def stager(self) -> DictStager:
        worker = DictStager()
        worker.staged = self.staged
        return worker

    def adopt(self, receipts: Iterable[StagedObject], /) -> None:
        for receipt in receipts:
            self.adopted[receipt.path] = receipt

    def compose(
        self, path: str, pieces: Sequence[Buffer | StagedObject], /, *, publisher: bool = False
    ) -> StagedObject:
        parts = [
            self.staged.pop(p.key) if isinstance(p, StagedObject) else bytes(p) for p in pieces
        ]
        return self.stage(path, parts, publisher=publisher)

    def remove(self, path: str, /) -> None:
        gone = [p for p in self.adopted if p == path or p.startswith(path + "/")]
        for found in gone:
            del self.adopted[found]

    def read(self, path: str, /, start: int = 0, stop: int | None = None) -> bytes:
        if path not in self.adopted:
            raise FileNotFoundError(path)
        return self.staged[self.adopted[path].key][start:stop]

    def paths(self, prefix: str = "", /) -> Iterator[str]:
        return iter(sorted(p for p in self.adopted if p.startswith(prefix)))

    def dump(self, folder: Path) -> None:
        """Write what is adopted to a real folder, for readers of files."""
        for path in self.adopted:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.read(path))
