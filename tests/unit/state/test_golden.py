"""Files of every format version, read for ever; and a change of the format needs a new number.

To add files of a new format: ``python tests/unit/state/test_golden.py`` writes ``tests/golden/manifest-<n>/``
where that folder is not there yet.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fstx.state import records
from fstx.state.entries import Delta, Entry, data_key
from fstx.state.nodes import Child, Inner, Leaf, NodeRef, decode, encode_inner, encode_leaf
from fstx.state.records import KINDS, Record, encode
from fstx.state.sealing import FORMAT, digest
from fstx.state.view import State

GOLDEN = Path(__file__).parents[2] / "golden"
NOW = GOLDEN / f"manifest-{FORMAT}"

T, U, MARK = "0123456789abcdef" * 2, "fedcba9876543210" * 2, "k-" + "5" * 32
PACK = f"node/{T}-0123456789ab"
ROOT = NodeRef(PACK, 4096, 1234, "00112233445566778899aabbccddeeff")


def entry(path: str, owner: str, n: int, sum_: str = "") -> Entry:
    attempt = f"{0x18700000 + n:016x}{n * 7919:06x}-{sum_ or '-'}"
    return Entry(1000 + n, data_key(owner, path, attempt), checksum=sum_)


def leaf_entries() -> dict[str, Entry]:
    found = {
        f".fstx/id/{MARK}": Entry(0, inline=b""),
        "c/0": entry("c/0", T, 1, "c00000001"),
        "c/1": entry("c/1", T, 2, "c0000000a"),
        "c/1-x": Entry(77, data_key(U, "=pack", "17-c0badcafe"), offset=1234),
        "c/1/deep": Entry(78, data_key(U, "=pack", "17-c0badcafe"), offset=1311),
        "c/2": entry("c/2", U, 3, "zffffffff"),
        "empty": Entry(0, directory=True),
        "link": Entry(9, data_key(U, "elsewhere", "1--")),
        "zarr.json": Entry(2, inline=b"{}", checksum="c12345678"),
        "Ångström/a b~c=d": entry("Ångström/a b~c=d", f"{T}/+", 4, "c00000004"),
        "\udcff" + "y" * 160: entry("\udcff" + "y" * 160, T, 5),
    }
    return dict(sorted(found.items()))


def children() -> list[Child]:
    return [
        Child(".fstx/id/k-1", NodeRef(PACK, 0, 8000, "0" * 32), 400),
        Child("c/1", NodeRef(PACK, 8000, 8100, "1" * 32), 401),
        Child("c/2/0", NodeRef(f"node/{U}-000000000000", 16, 7900, "2" * 32), 399),
        Child("é", NodeRef(PACK, 16100, 8200, "3" * 32), 402),
    ]


def record(kind: str) -> Record:
    seq = 7 + KINDS.index(kind)
    some = {f"t/{n}": entry(f"t/{n}", T, 100 + n, f"c{n:08x}") for n in range(40)}
    puts = {**leaf_entries(), **some} if kind == "restore" else {"a": entry("a", T, 6)}
    tail = Delta(puts, ("old", "c/9"))
    state = State(ROOT, tail, {U: 4}, 3, 2, {"plain": {"entry": "index.json"}})
    own = Delta({"b/c": entry("b/c", U, 7, "c00000007")}, ("b",)) if kind == "commit" else Delta()
    if kind == "claim":
        state = State()
    return Record(
        seq, kind, U, T, 5, "f" * 32, state, own, kind == "restore", len(own.puts), 1007,
        1764078000.25, "someone@host:42", "a message, ünïcode", {"reason": kind},
    )  # fmt: skip


FILES: dict[str, Callable[[], bytes]] = {
    "leaf.node": lambda: encode_leaf(list(leaf_entries()), list(leaf_entries().values())),
    "inner.node": lambda: encode_inner(1, children()),
    **{f"{kind}.record": lambda kind=kind: encode(record(kind)) for kind in KINDS},
}


def same_zlib() -> bool:
    """Whether zlib compresses here as it did where the files were written: its bytes are no promise."""
    text = json.dumps([[i * i, str(i)] for i in range(500)]).encode()
    return digest(zlib.compress(text, 2)) == (NOW / "zlib.txt").read_text().strip()


@pytest.mark.parametrize("name", FILES)
def test_the_format_is_as_it_was(name: str) -> None:
    """Protects every reader that is out there: other bytes for the same state need a new format number."""
    golden, now = (NOW / name).read_bytes(), FILES[name]()
    if name.endswith(".node"):
        assert zlib.decompress(now) == zlib.decompress(golden)
    if same_zlib():
        assert now == golden


@pytest.mark.parametrize("place", sorted(GOLDEN.glob("manifest-*")), ids=lambda p: p.name)
def test_files_of_every_format_are_read(place: Path) -> None:
    """Protects old datasets: what any version wrote is read by this one, and written again as it was."""
    data = (place / "leaf.node").read_bytes()
    leaf = decode(data, NodeRef(PACK, 0, len(data), digest(data)))
    assert isinstance(leaf, Leaf)
    assert dict(leaf.packed.items()) == leaf_entries()
    data = (place / "inner.node").read_bytes()
    inner = decode(data, NodeRef(PACK, 0, len(data), digest(data)))
    assert isinstance(inner, Inner)
    assert inner.children == children()
    for kind in KINDS:
        line = (place / f"{kind}.record").read_bytes()
        found = records.decode(line, record(kind).seq, kind)
        assert found == record(kind)
        if place == NOW and same_zlib():
            assert encode(found) == line


def test_golden_files_are_complete() -> None:
    """Protects the rule: a format number without its files, or files without a test, don't pass."""
    assert {p.name for p in GOLDEN.glob("manifest-*")} == {
        f"manifest-{n}" for n in range(1, FORMAT + 1)
    }
    assert b'"tail":{"packed":' in (NOW / "restore.record").read_bytes()
    assert {p.name for p in NOW.iterdir()} == {*FILES, "zlib.txt"}


if __name__ == "__main__":
    NOW.mkdir(parents=True)
    for file, make in FILES.items():
        (NOW / file).write_bytes(make())
    text_ = json.dumps([[i * i, str(i)] for i in range(500)]).encode()
    (NOW / "zlib.txt").write_text(digest(zlib.compress(text_, 2)) + "\n")
