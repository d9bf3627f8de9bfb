"""Records: one line, checked; and a golden one of format 1 that stays readable for ever (REC-1 to 4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstx.backends.local.records import Entry, RecordBody, Root, decode, encode, seal, unseal
from fstx.errors import RecoveryError
from fstx.machines.vocabulary import Item, Kind

ENTRY = Entry(Kind.PUBLISH, "", "scene", "tiles/0.tif", 0, False, True, (1, 2, 3, 4), (1, 5, 6, 7))
BODY = RecordBody(
    txid="00112233445566778899aabbccddeeff",
    strategy="redo",
    how="",
    strict=True,
    keyed=False,
    durability="data",
    entries=(
        ENTRY,
        Entry(Kind.PUBLISH, "/other", "new", "", 1, True, False, (1, 8, 0, 0), None),
        Entry(Kind.REMOVE, "", "scene", "old", 0, True, True, None, (1, 9, 0, 0)),
    ),
    roots=(Root("", "scene", (1, 10, 0, 0)),),
)
GOLDEN = (
    b'e3186acc039b33665ea4171f9ebb7ae7 {"durability":"data","format":1,"how":"","items":[{"bas'
    b'e":[1,5,6,7],"kind":"publish","name":"scene","new":[1,2,3,4],"occupied":true,"parent":""'
    b',"rest":"tiles/0.tif","root":0,"tree":false},{"base":null,"kind":"publish","name":"new",'
    b'"new":[1,8,0,0],"occupied":false,"parent":"/other","rest":"","root":1,"tree":true},{"bas'
    b'e":[1,9,0,0],"kind":"remove","name":"scene","new":null,"occupied":true,"parent":"","rest'
    b'":"old","root":0,"tree":true}],"keyed":false,"roots":[{"base":[1,10,0,0],"name":"scene",'
    b'"parent":""}],"strategy":"redo","strict":true,"txid":"00112233445566778899aabbccddeeff"}'
    b"\n"
)


def test_golden() -> None:
    """Format 1 as it was first written: the bytes don't change, and they decode to the same body."""
    assert encode(BODY) == GOLDEN
    assert decode(GOLDEN, "golden") == BODY
    assert GOLDEN.count(b"\n") == 1
    assert GOLDEN.endswith(b"\n")


def test_items() -> None:
    """What the machine gets of an entry, and how the entry is called in messages."""
    assert ENTRY.item == Item(Kind.PUBLISH, occupied=True, tree=False)
    assert ENTRY.logical == "scene/tiles/0.tif"
    assert replace(ENTRY, rest="").logical == "scene"


TEXT = st.text(
    st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters="/\\:"),
    min_size=1,
    max_size=8,
).filter(lambda t: t not in (".", "..") and t.casefold() != ".fstx" and t.strip())
NUMBER = st.integers(0, 1 << 64)
IDENTITY = st.tuples(NUMBER, NUMBER, NUMBER, NUMBER)
ENTRIES = st.builds(
    Entry,
    kind=st.sampled_from(Kind),
    parent=st.sampled_from(["", "/a/b", "/ü"]),
    name=TEXT,
    rest=st.one_of(st.just(""), st.lists(TEXT, min_size=1, max_size=3).map("/".join)),
    root=st.integers(0, 1000),
    tree=st.booleans(),
    occupied=st.booleans(),
    new=st.none() | IDENTITY,
    base=st.none() | IDENTITY,
)


@given(st.lists(ENTRIES, max_size=4), st.sampled_from(["swap", "redo"]), st.booleans())
def test_round_trip(entries: list[Entry], strategy: str, flag: bool) -> None:
    """Whatever names there are: one line, and the same body again."""
    roots = tuple(Root(e.parent, e.name, (1, 2, 0, 0)) for e in entries if e.rest)
    body = replace(
        BODY, entries=tuple(entries), roots=roots, strategy=strategy, strict=flag, keyed=not flag
    )
    line = encode(body)
    assert line.count(b"\n") == 1
    assert decode(line, "x") == body


@given(st.binary(max_size=200))
def test_garbage_is_refused_by_name(line: bytes) -> None:
    """REC-2: any bytes at all end in RecoveryError that names the file, never in another exception."""
    with pytest.raises(RecoveryError, match="/some/where"):
        decode(line, "/some/where")


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists and objects of what there is already."""
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4), nested, max_leaves=6
)


def complaint(line: bytes) -> str:
    """What is said of a record in /some/where; any other exception is a failure."""
    try:
        return f"/some/where is fine: {decode(line, '/some/where')}"
    except RecoveryError as error:
        return str(error)


@given(st.sampled_from(["items", "txid", "how", "keyed", "strategy", "durability", "format"]), JSON)
def test_any_value_of_a_member(member: str, value: object) -> None:
    """REC-2: a member of any JSON value is taken or refused by name."""
    line = seal({**unseal(GOLDEN, "x"), member: value})
    assert "/some/where" in complaint(line)


@given(JSON)
def test_any_item(value: object) -> None:
    """REC-2: the same for an item, and for each member of one."""
    known = unseal(GOLDEN, "x")
    for item in (value, *({**known["items"][0], m: value} for m in known["items"][0])):
        assert "/some/where" in complaint(seal({**known, "items": [item]}))


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ({"parent": "/other", "name": "scene", "base": [1, 2, 0, 0]}, "root that no item lies in"),
        ({"parent": "", "name": "../scene", "base": [1, 2, 0, 0]}, "root that no item lies in"),
        ({"parent": "", "name": "scene", "base": None}, "root 0 has no identity"),
        ({"parent": "", "name": "scene"}, "lacks the member 'base'"),
        ("scene", "root 0 is not an object"),
    ],
)
def test_odd_roots(root: object, says: str) -> None:
    """REC-2, PATH-5: a root is the target of an item, with an identity; no other place is looked at."""
    assert says in complaint(seal({**unseal(GOLDEN, "x"), "roots": [root]}))


@given(JSON)
def test_any_root(value: object) -> None:
    """REC-2: a root of any JSON value is taken or refused by name."""
    assert "/some/where" in complaint(seal({**unseal(GOLDEN, "x"), "roots": [value]}))


def test_newer_format() -> None:
    """REC-3: both versions are named."""
    with pytest.raises(RecoveryError, match=r"format 2; this version reads up to 1"):
        decode(seal({**unseal(GOLDEN, "x"), "format": 2}), "x")
