"""What the size of leaves and the budget of a record cost: bytes, requests and CPU of one change.

    python benchmarks/tree.py [--entries N ...] [--leaf KIB ...] [--budget KIB ...] [--packed]

In memory. Each change gives one random path new content, as a transaction of its own, and is a record; a
record whose changes would exceed the budget puts them into the tree first. Bytes of one change: its record,
and its share of the nodes that were written.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from dataclasses import replace

from fstx.state import growing
from fstx.state.entries import Delta, Entry, data_key
from fstx.state.records import Record, decode, digest, encode, weight
from fstx.state.tree import NodeCache, Tree
from fstx.state.view import State, View


class Objects:
    """Objects in memory that count what is read of them."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.requests = 0
        self.read_bytes = 0

    def fetch(self, key: str, start: int, stop: int | None) -> bytes:
        self.requests += 1
        found = self.held[key][start:stop]
        self.read_bytes += len(found)
        return found

    def new_key(self) -> str:
        return f"node/{len(self.held):032x}-{random.getrandbits(48):012x}"


def entry_at(path: str, txid: str, rng: random.Random, tick: int) -> Entry:
    sum_ = f"c{rng.getrandbits(32):08x}"
    attempt = f"{1_760_000_000_000_000_000 + tick:016x}{rng.getrandbits(24):06x}-{sum_}"
    return Entry(rng.randrange(3000, 4096), data_key(txid, path, attempt), checksum=sum_)


def first_puts(entries: int, packed: bool) -> dict[str, Entry]:
    rng = random.Random(1)
    txid = f"{rng.getrandbits(128):032x}"
    puts = {}
    for i in range(entries):
        path = f"c/{i // 1000}/{i % 1000}"
        if packed:
            key = f"data/{txid}/=pack~{i >> 14:022x}-c{i >> 14:08x}"
            puts[path] = Entry(256, key, offset=256 * (i % (1 << 14)))
        else:
            puts[path] = entry_at(path, txid, rng, i * 70_000 + rng.randrange(60_000))
    return puts


def build(puts: dict[str, Entry]) -> tuple[Objects, State, float]:
    objects = Objects()
    gc.collect()
    began = time.process_time()
    root, packs = Tree(None, objects.fetch).updated(Delta(puts), objects.new_key)
    took = time.process_time() - began
    objects.held.update(packs)
    return objects, State(root=root), took


def cold(objects: Objects, state: State, paths: list[str]) -> tuple[int, int, float]:
    """Requests, bytes and seconds to find one path, the record in hand."""
    taken = []
    for path in random.Random(2).choices(paths, k=9):
        objects.requests = objects.read_bytes = 0
        began = time.perf_counter()
        View(state, objects.fetch, NodeCache()).get(path)
        taken.append(time.perf_counter() - began)
    return objects.requests, objects.read_bytes, statistics.median(taken)


def change(
    objects: Objects, state: State, paths: list[str], changes: int, budget: int
) -> dict[str, float]:
    rng = random.Random(3)
    cache = NodeCache()
    records, nodes, flushes, requests = [], 0, 0, 0
    prev = ""
    began = time.process_time()
    for n in range(1, changes + 1):
        txid = f"{rng.getrandbits(128):032x}"
        path = rng.choice(paths)
        own = Delta({path: entry_at(path, txid, rng, n * 10**9 + rng.randrange(10**9))})
        if weight(state.tail) + weight(own) > budget:
            objects.requests = 0
            root, packs = Tree(state.root, objects.fetch, cache).updated(
                state.tail, objects.new_key
            )
            objects.held.update(packs)
            state = replace(state, root=root, tail=Delta())
            nodes += sum(map(len, packs.values()))
            flushes += 1
            requests += objects.requests
        line = encode(
            Record(n, "commit", txid, txid, n - 1, prev, state, own, paths=1, when_s=1.76e9)
        )
        records.append(len(line))
        prev = digest(line)
        state = decode(line, n, "record").after
    took = time.process_time() - began
    return {
        "record": statistics.mean(records),
        "first": records[0],
        "largest": max(records),
        "nodes": nodes / changes,
        "per flush": changes / max(1, flushes),
        "reads": requests / max(1, flushes),
        "cpu_ms": took / changes * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[1000, 1_000_000])
    parser.add_argument("--leaf", type=int, nargs="+", default=[4, 8, 16, 64, 256], help="KiB")
    parser.add_argument("--budget", type=int, nargs="+", default=[16, 32, 48], help="KiB")
    parser.add_argument("--changes", type=int, default=3000)
    parser.add_argument("--packed", action="store_true", help="small objects, packed in one object")
    given = parser.parse_args()
    print(
        "| entries | leaf, KiB | tree, B per entry | first, CPU s | root, KiB | cold: requests, KiB, ms "
        "| budget, KiB | changes per checkpoint | record, KiB: first, mean, largest | nodes, KiB per change "
        "| one change, KiB | reads of a checkpoint | CPU, ms per change |\n|" + "---|" * 13
    )
    for entries in given.entries:
        puts = first_puts(entries, given.packed)
        paths = list(puts)
        for leaf in given.leaf:
            growing.LEAF_BYTES = leaf << 10
            growing._MOST_ENTRIES = max(1 << 12, leaf << 6)
            objects, state, took = build(puts)
            size = sum(map(len, objects.held.values()))
            assert state.root is not None
            requests, read, seconds = cold(objects, state, paths)
            for budget in given.budget:
                held = dict(objects.held)
                found = change(objects, state, paths, given.changes, budget << 10)
                objects.held = held
                root = state.root.length / 1024
                print(
                    f"| {entries:,} | {leaf} | {size / entries:.1f} | {took:.2f} | {root:.1f} "
                    f"| {requests}, {read / 1024:.0f}, {seconds * 1e3:.1f} | {budget} "
                    f"| {found['per flush']:.0f} | {found['first'] / 1024:.1f}, "
                    f"{found['record'] / 1024:.1f}, {found['largest'] / 1024:.1f} "
                    f"| {found['nodes'] / 1024:.1f} | {(found['record'] + found['nodes']) / 1024:.1f} "
                    f"| {found['reads']:.0f} | {found['cpu_ms']:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
