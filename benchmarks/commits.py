"""What a commit costs as a dataset grows: seconds, bytes and requests, on local disk.

    python benchmarks/commits.py [--entries 1000 10000 100000 1000000] [--changes N] [--dir PLACE]

For each size: the first commit of that many small entries, opening, reading one path by a reader that knows
nothing, and the change of one chunk, repeated; bytes and requests by the store's own calls.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from fstx.backends.manifest import Dataset, ManifestBackend
from fstx.stores.opening import open_store
from harness import quartiles


class Counting:
    """A store that counts what it is asked for."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.calls: Counter[str] = Counter()
        self.written_bytes: Counter[str] = Counter()

    def reset(self) -> None:
        self.calls.clear()
        self.written_bytes.clear()

    def put_new(self, key: str, data: bytes) -> Any:
        self._note("put_new", key, data)
        return self.store.put_new(key, data)

    def put(self, key: str, data: Any, *, checksum: str = "") -> None:
        self._note("put", key, data)
        self.store.put(key, data, checksum=checksum)

    def start_put(self, key: str, data: Any, *, checksum: str = "") -> Future[None]:
        self._note("put", key, data)
        return self.store.start_put(key, data, checksum=checksum)  # type: ignore[no-any-return]

    def _note(self, call: str, key: str, data: Any) -> None:
        self.calls[call] += 1
        self.written_bytes[key.partition("/")[0]] += len(data)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.store, name)
        if name not in ("get", "list", "info", "delete", "open"):
            return found

        def counted(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            return found(*args, **options)

        return counted


def begin(dataset: Dataset) -> Any:
    return ManifestBackend(dataset).begin(mode="update", durability="data", require=frozenset())


def requests(store: Counting) -> int:
    return sum(store.calls.values())


def measure(entries: int, changes: int, place: Path) -> dict[str, str]:
    root = open_store(str(place / f"d{entries}"))
    store = Counting(root.below(".fstx"))
    dataset = Dataset(store)
    dataset.proof()
    names = [f"c/{i // 1000}/{i % 1000}" for i in range(entries)]
    tx = begin(dataset)
    began = time.perf_counter()
    for name in names:
        tx.stage(name, b"0123456789abcdef")
    staged_s = time.perf_counter() - began
    gc.collect()
    began = time.perf_counter()
    tx.commit()
    first_s = time.perf_counter() - began
    tree_bytes = store.written_bytes["node"]
    del tx
    gc.collect()

    opening, reading = [], []
    for i in range(9):
        store.reset()
        fresh = Dataset(store)
        began = time.perf_counter()
        view = fresh.view()
        opening.append(time.perf_counter() - began)
        store.reset()
        began = time.perf_counter()
        fresh.read(view.get(names[(i * 7919) % entries]))  # type: ignore[arg-type]
        reading.append(time.perf_counter() - began)
    read_requests = requests(store)

    taken, records, beside = [], [], []
    rng = np.random.default_rng(1)
    chunk = rng.bytes(4096)
    node_bytes = 0
    for _ in range(changes):
        store.reset()
        name = names[int(rng.integers(entries))]
        began = time.perf_counter()
        with begin(dataset) as tx:
            tx.stage(name, chunk)
        taken.append(time.perf_counter() - began)
        records.append(store.written_bytes["log"])
        node_bytes += store.written_bytes["node"]
        if not store.written_bytes["node"]:
            beside.append(requests(store) - 1)  # the chunk itself
    low, middle, high = quartiles([t * 1e3 for t in taken])
    store.reset()
    fresh = Dataset(store)
    fresh._proof = dataset.proof()
    with begin(fresh) as tx:
        tx.stage(names[0], chunk)
    return {
        "entries": f"{entries:,}",
        "staging, s": f"{staged_s:.2f}",
        "first commit, s": f"{first_s:.2f}",
        "tree, B per entry": f"{tree_bytes / entries:.1f}",
        "open, ms": f"{statistics.median(opening) * 1e3:.1f}",
        "read one path, ms (requests)": f"{statistics.median(reading) * 1e3:.1f} ({read_requests})",
        "one chunk changed, ms (quartiles)": f"{middle:.1f} ({low:.1f}-{high:.1f})",
        "its record, KiB (largest)": f"{statistics.median(records) / 1024:.1f} ({max(records) / 1024:.1f})",
        "tree, KiB per change": f"{node_bytes / changes / 1024:.1f}",
        "requests beside the chunk": f"{statistics.mode(beside)} (at most {max(beside)}), "
        f"just opened {requests(store) - 1}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--entries", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--dir")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=given.dir) as folder:
        for entries in given.entries:
            rows.append(measure(entries, given.changes, Path(folder)))
    for name in rows[0]:
        print("| " + " | ".join([name, *(row[name] for row in rows)]) + " |")
        if name == "entries":
            print("|" + "---|" * (len(rows) + 1))


if __name__ == "__main__":
    main()
