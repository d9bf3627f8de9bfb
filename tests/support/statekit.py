"""States for tests: paths and entries by hypothesis, trees of small nodes, a plain dictionary as model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from fstx.errors import RecoveryError
from fstx.state import growing
from fstx.state.entries import OWN, Delta, Entry, data_key
from fstx.state.tree import NodeRef, Tree

OWNERS = ["0123456789abcdef" * 2, "f" * 32, "00ff" * 8 + "/+"]

names = st.one_of(
    st.sampled_from(["a", "a-", "a.b", "a!", "b", "c", "0", "00", "10", "2", "zarr.json", "A"]),
    st.sampled_from(["ü", "é", "a b", "a=~b", "10:00", "\udc80", "x" * 170, "..a", "日本"]),
)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
marks = st.sampled_from(["k-" + "1" * 32, "k-" + "2" * 32])


@st.composite
def entries_at(draw: st.DrawFn, path: str) -> Entry:
    """An entry of any kind that a transaction may commit at `path`."""
    kind = draw(st.sampled_from(["own", "own", "own", "link", "pack", "inline", "directory"]))
    size = draw(st.integers(0, 1 << 50))
    sum_ = draw(st.sampled_from(["", "c0123abcd", "zffffffff"]))
    owner = draw(st.sampled_from(OWNERS))
    if kind == "own":
        order = draw(st.integers(0, (1 << 88) - 1))
        return Entry(size, data_key(owner, path, f"{order:022x}-{sum_ or '-'}"), checksum=sum_)
    if kind == "link":
        return Entry(size, data_key(owner, "else/where", "1-" + (sum_ or "-")), checksum=sum_)
    if kind == "pack":
        offset = draw(st.integers(0, 1 << 40))
        return Entry(size, data_key(owner, "=pack", "2--"), offset=offset, checksum=sum_)
    if kind == "inline":
        content = draw(st.binary(max_size=40))
        return Entry(len(content), inline=content, checksum=sum_)
    return Entry(0, directory=True)


@st.composite
def contents(draw: st.DrawFn, max_size: int = 30) -> dict[str, Entry]:
    """Paths with entries."""
    found = draw(st.lists(paths, max_size=max_size, unique=True))
    return {path: draw(entries_at(path)) for path in found}


@st.composite
def deltas(draw: st.DrawFn, max_size: int = 20) -> Delta:
    """A change, now and then with removals and a mark."""
    puts = draw(contents(max_size))
    if draw(st.booleans()):
        puts[f"{OWN}id/{draw(marks)}"] = Entry(draw(st.integers(0, 99)), inline=b"")
    gone = draw(st.lists(st.one_of(paths, st.just("")), max_size=3))
    return Delta(puts, tuple(gone))


def applied(model: dict[str, Entry], delta: Delta) -> dict[str, Entry]:
    """What `delta` makes of a dictionary, said plainly."""
    kept = {
        path: entry
        for path, entry in model.items()
        if path.startswith(OWN)
        or not any(top in ("", path) or path.startswith(f"{top}/") for top in delta.removed)
    }
    return {**kept, **delta.puts}


def refusal(call: Callable[[], Any]) -> str | None:
    """What `call` says when it refuses its input; None where it takes it. Any other error comes through."""
    try:
        call()
    except RecoveryError as error:
        return str(error)
    return None


@contextmanager
def small_nodes(leaf_bytes: int = 300, fan_out: int = 3, sample: int = 4) -> Iterator[None]:
    """Trees of a few paths get several levels."""
    with (
        mock.patch.object(growing, "LEAF_BYTES", leaf_bytes),
        mock.patch.object(growing, "FAN_OUT", fan_out),
        mock.patch.object(growing, "_SAMPLE", sample),
    ):
        yield


class Objects:
    """Objects in memory; counts and remembers what is read."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.reads: list[tuple[str, int, int | None]] = []
        self._numbers = itertools.count()

    def fetch(self, key: str, start: int, stop: int | None) -> bytes:
        self.reads.append((key, start, stop))
        return self.held[key][start:stop]

    def new_key(self) -> str:
        return f"node/{'0' * 32}-{next(self._numbers):012x}"

    def tree(self, root: NodeRef | None = None) -> Tree:
        """A tree that knows nothing yet."""
        return Tree(root, self.fetch)

    def grown(self, root: NodeRef | None, delta: Delta) -> NodeRef | None:
        """The root after a change; its packs are put."""
        found, packs = self.tree(root).updated(delta, self.new_key)
        assert not packs.keys() & self.held.keys()
        self.held.update(packs)
        return found
