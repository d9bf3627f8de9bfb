"""Columns and nodes: round trips, and hostile bytes."""

from __future__ import annotations

import base64
import json
import random
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fstx.errors import PathError, RecoveryError
from fstx.state import nodes
from fstx.state.columns import Packed, check_key, pack
from fstx.state.entries import OWN, Entry, data_key
from fstx.state.nodes import (
    Child,
    Inner,
    Leaf,
    NodeRef,
    decode,
    encode_inner,
    encode_leaf,
    inflate,
)
from fstx.state.sealing import digest
from support import statekit as kit

KEY = f"node/{'0' * 32}-{'1' * 12}"


def read(data: bytes) -> nodes.Node:
    return decode(data, NodeRef(KEY, 5, len(data), digest(data)))


def reading(columns: dict[str, Any]) -> nodes.Node:
    return read(zlib.compress(json.dumps(columns).encode()))


def leaf_columns() -> dict[str, Any]:
    puts = {
        "a/b": Entry(3, data_key("f" * 32, "a/b", "1-c00000001"), checksum="c00000001"),
        "a/c": Entry(4, data_key("e" * 32, "a/c", "2-c00000002"), checksum="c00000002"),
        "d": Entry(5, data_key("e" * 32, "=pack", "3--"), offset=7),
        "e": Entry(2, inline=b"hi"),
        "f": Entry(0, directory=True),
    }
    return json.loads(zlib.decompress(encode_leaf(list(puts), list(puts.values()))))


def inner_columns() -> dict[str, Any]:
    children = [
        Child("a", NodeRef(KEY, 0, 100, "0" * 32), 3),
        Child("b/c", NodeRef(KEY, 100, 50, "1" * 32), 4),
    ]
    return json.loads(zlib.decompress(encode_inner(1, children)))


@settings(deadline=None)
@given(kit.deltas(40))
def test_entries_come_back_from_columns(delta: Any) -> None:
    """Protects every kind of entry, one by one and all at once, at every kind of path."""
    found = dict(sorted(delta.puts.items()))
    packed = Packed(json.loads(json.dumps(pack(list(found), list(found.values())))), "here")
    assert packed.items() == list(found.items())
    assert [packed.entry(i) for i in range(len(packed))] == list(found.values())
    for start in range(0, len(found), 7):
        assert packed.items(start, start + 20) == list(found.items())[start : start + 20]
    if found:
        node = read(encode_leaf(list(found), list(found.values())))
        assert isinstance(node, Leaf)
        assert (node.first, node.last, node.count) == (min(found), max(found), len(found))


@settings(deadline=None)
@given(st.lists(st.tuples(kit.paths, st.integers(1, 1 << 20), st.integers(0, 1 << 30)), min_size=1))
def test_children_come_back_from_columns(given_: list[tuple[str, int, int]]) -> None:
    """Protects inner nodes: places in several packs, in any order."""
    rng = random.Random(len(given_))
    children = [
        Child(
            path,
            NodeRef(f"node/{n % 3}-{n % 3}", offset, length, f"{rng.getrandbits(128):032x}"),
            length,
        )
        for n, (path, (_, length, offset)) in enumerate({g[0]: g for g in sorted(given_)}.items())
    ]
    node = read(encode_inner(2, children))
    assert isinstance(node, Inner)
    assert node.children == children
    assert node.level == 2
    assert node.count == sum(c.paths for c in children)


def test_keys_that_follow_from_paths_take_no_room() -> None:
    """Protects the size of leaves: of such a key only time and chance are written."""
    found = {f"c/{i}": Entry(9, data_key("f" * 32, f"c/{i}", f"{i:x}--")) for i in range(100, 200)}
    columns = pack(list(found), list(found.values()))
    assert columns["at"] == [f"data/{'f' * 32}/"]
    assert columns["in"] == 0
    assert columns["stem"].split(" ")[0] == "64"
    assert columns["size"] == 9
    assert "offset" not in columns


@pytest.mark.parametrize(
    "path", ["../a", "a/../b", "/a", "a//b", "a/", ".fstx/log", "a/.FSTX/b", ""]
)
def test_paths_that_leave_the_dataset_are_not_written(path: str) -> None:
    """Protects readers from a writer with a defect: such a path never gets into a node."""
    with pytest.raises(PathError):
        pack([path], [Entry(1, inline=b"x")])


HOSTILE_PATHS = [
    "..",
    "a/..",
    "../a",
    "a/../b",
    "./a",
    "/a",
    "a//b",
    "a/",
    "a\\b",
    "a\0b",
    "C:/x",
    "",
    ".fstx/x",
    "a/.fstx",
    ".FsTx/id/k",
    f"{OWN}id/",
    f"{OWN}id/a/b",
    f"{OWN}log/1",
    "\ud800",
    "x" * 300,
    "a\x7f",
    ".fſtx/a",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_paths_that_leave_the_dataset_are_refused(path: str) -> None:
    """Protects readers and their disks: a path from a node is one that may be staged."""
    directory, _, name = path.rpartition("/")
    shapes = [
        {"dirs": [directory], "dir": [0], "run": [1], "names": name},
        {"dirs": [""], "dir": [0], "run": [path.count("/") + 1], "names": path},
        {"dirs": ["", "a", directory], "dir": [0, 2], "run": [1, 1], "names": f"!/{name}"},
    ]
    if path == "/a":
        del shapes[0], shapes[1]  # these spell "a"
    for shape in shapes[: 1 if "/" in path.strip("/") and len(path) < 300 else 3]:
        columns = {"format": 1, "level": 0, **shape, "size": 1, "at": [""], "in": 0}
        with pytest.raises(RecoveryError, match="node/"):
            reading(columns)


@pytest.mark.parametrize(
    "key",
    [
        "data/../log/1",
        "../data/x",
        "/data/x",
        "log/00000000000000000001",
        "data/",
        "data",
        "data//x",
        "data/x y",
        "data/x\n",
        "node/./x",
        "datax/y",
        "data/ü",
        7,
        None,
        ["data/x"],
    ],
)
def test_keys_beyond_the_data_are_refused(key: Any) -> None:
    """Protects everything beside the data: no entry can name the log, another dataset or a file outside."""
    with pytest.raises(RecoveryError, match="here"):
        check_key(key, "here")
    columns = leaf_columns()
    columns["at"][0] = key
    with pytest.raises(RecoveryError, match="node/"):
        reading(columns)


WRONG: list[Any] = [
    None,
    True,
    -1,
    1 << 70,
    1.5,
    "",
    "x",
    "a b c d e f g",
    [],
    [0],
    [-1] * 5,
    [0, 0, 0, 0, "x"],
    [True] * 5,
    [1 << 63] * 5,
    [9] * 5,
    [[0, 1]],
    [[0, "x"]],
    [[99, ""]],
    [[0, "eA=="], [0, "eA=="]],
    {},
    {"a": 1},
    ["x"],
    [None] * 5,
    [99],
    "0" * 64,
    "g" * 64,
]


@pytest.mark.parametrize("make", [leaf_columns, inner_columns])
def test_wrong_members_are_refused(make: Any) -> None:
    """Protects readers from any JSON: each member missing, of another type or size; never another error."""
    good = make()
    reading(good)
    survived = set()
    for name in good:
        missing = {k: v for k, v in good.items() if k != name}
        for columns in [missing, *({**good, name: wrong} for wrong in WRONG)]:
            said = kit.refusal(lambda columns=columns: reading(columns))
            if said is None:
                survived.add(name)
            assert said is None or KEY in said
    # what reads nevertheless says something else that is well-formed: other sizes, checksums, offsets
    leaf = {"size", "sum", "offset", "inline", "made", "in"}
    assert survived <= leaf | {"count", "length", "gap", "digest"}


def test_a_node_cut_anywhere_is_refused() -> None:
    """Protects against torn objects: any prefix, also one whose digest was forged to fit."""
    data = zlib.compress(json.dumps(leaf_columns()).encode())
    ref = NodeRef(KEY, 0, len(data), digest(data))
    for n in range(len(data)):
        with pytest.raises(RecoveryError, match="node/"):
            decode(data[:n], ref)
        with pytest.raises(RecoveryError, match="node/"):
            read(data[:n])
    with pytest.raises(RecoveryError, match="node/"):
        read(data + b"x")


def test_flipped_bits_are_refused_even_with_a_digest_that_fits() -> None:
    """Protects the decoder itself: no bytes lead to another error than RecoveryError."""
    for make in (leaf_columns, inner_columns):
        text = json.dumps(make()).encode()
        for at in range(len(text)):
            for bit in (1, 32):
                flipped = bytearray(text)
                flipped[at] ^= bit
                said = kit.refusal(lambda data=bytes(flipped): read(zlib.compress(data)))
                assert said is None or KEY in said


def test_bombs_are_refused_before_they_are_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: a node of 100 KB that would hold 100 MB is refused at the limit."""
    monkeypatch.setattr(nodes, "INFLATED_BYTES", 1 << 20)
    bomb = zlib.compress(b" " * (100 << 20))
    with pytest.raises(RecoveryError, match="holds more than 1048576 bytes"):
        inflate(bomb, "here", nodes.INFLATED_BYTES)
    many = {**leaf_columns(), "names": "/" * (1 << 23)}
    with pytest.raises(RecoveryError, match="more than"):
        reading(many)
    with pytest.raises(RecoveryError, match="fit together"):
        reading({**leaf_columns(), "run": [1 << 40, 1, 1, 1, 1]})


def test_deep_json_is_refused() -> None:
    """Protects the stack: nesting beyond reason is damage."""
    with pytest.raises(RecoveryError, match="node/"):
        read(zlib.compress(b'{"format":1,"x":' + b"[" * 200_000))


@pytest.mark.parametrize(
    ("offset", "length"), [(-1, 9), (0, 0), (0, -5), (0, 1 << 30), (1 << 50, 9)]
)
def test_absurd_places_are_refused_unread(offset: int, length: int) -> None:
    """Protects against reading gigabytes because a node says so."""
    with pytest.raises(RecoveryError, match="nobody writes"):
        nodes.check_ref(NodeRef(KEY, offset, length, "0" * 32), "here")
    columns = inner_columns()
    columns["gap"][0], columns["length"][0] = offset, length
    with pytest.raises(RecoveryError, match="node/"):
        reading(columns)


def test_content_of_another_size_than_it_says_is_refused() -> None:
    """Protects readers of inline content: size and bytes agree."""
    columns = leaf_columns()
    columns["inline"] = [[3, base64.b64encode(b"longer").decode()]]
    with pytest.raises(RecoveryError, match="another size"):
        reading(columns)


@pytest.mark.parametrize("level", [-1, 8, 99, "1", None, True, 10**30])
def test_levels_that_nobody_writes_are_refused(level: Any) -> None:
    """Protects against endless descents."""
    with pytest.raises(RecoveryError, match="level"):
        reading({**inner_columns(), "level": level})


def test_a_newer_node_is_refused_by_an_older_reader() -> None:
    """Protects the future: both versions are named, and what to do."""
    with pytest.raises(
        RecoveryError, match=r"node/.* has format 2; this version reads up to 1.*newer"
    ):
        reading({**leaf_columns(), "format": 2})
    for wrong in (0, -1, "1", None, 1.0):
        with pytest.raises(RecoveryError, match="format"):
            reading({**leaf_columns(), "format": wrong})
