"""Records of units: read many at a time, kept as text, made when they are asked for."""

from __future__ import annotations

import gc
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fstx.resuming.ledger import Ledger, sizes_of
from fstx.resuming.units import Kept, Unit, decode_records, decode_units, encode_unit
from fstx.state.sealing import FORMAT, seal
from fstx.types import StagedObject

TOKEN = "0" * 16
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v, max_size=2)
)
OBJECTS = st.lists(
    st.builds(
        Kept,
        st.builds(
            StagedObject,
            st.text(),
            st.text(),
            st.integers(0, 2**60),
            st.just(TOKEN),
            st.booleans(),
        ),
        st.text(max_size=9),
    ),
    max_size=3,
)
UNITS = st.builds(
    Unit, st.text(), OBJECTS.map(tuple), st.dictionaries(st.text(), PLAIN, max_size=2)
)


def _unit(n: int) -> Unit:
    return Unit(str(n), (Kept(StagedObject(f"p/{n}", f"a/{n}", n, TOKEN), "c1"),))


@given(UNITS)
def test_a_line_says_what_the_unit_was(unit: Unit) -> None:
    """RESUME-1: a line is the sealed JSON of its fields, with sorted keys, and gives the unit back."""
    line = encode_unit(unit)
    rows = [
        [k.object.path, k.object.key, k.object.size_bytes, k.checksum, k.object.publisher]
        for k in unit.objects
    ]
    fields = {"format": FORMAT, "unit": unit.id, "objects": rows, "info": unit.info}
    assert line == seal(fields)
    assert list(decode_units([line], TOKEN)) == [unit]


DAMAGED = {
    "cut": lambda line: line[:-5],
    "no end": lambda line: line[:-1],
    "a bit": lambda line: line[:40] + bytes([line[40] ^ 1]) + line[41:],
    "its sum": lambda line: b"0" * 32 + line[32:],
    "no space": lambda line: line[:32] + b"_" + line[33:],
    "empty": lambda line: b"\n",
    "no JSON": lambda line: _sealed(b"{"),
    "two values": lambda line: _sealed(b"1,2"),
    "closes": lambda line: _sealed(b"1],[2"),
    "a list": lambda line: _sealed(b"[]"),
    "a newer format": lambda line: seal({"format": 2, "unit": "x", "objects": [], "info": {}}),
    "an odd id": lambda line: seal({"format": 1, "unit": 3, "objects": [], "info": {}}),
    "an odd size": lambda line: seal({"format": 1, "unit": "x", "objects": [["p", "k", "1", "", False]]}),
    "a short row": lambda line: seal({"format": 1, "unit": "x", "objects": [["p", "k"]]}),
}  # fmt: skip


def _sealed(text: bytes) -> bytes:
    from fstx.state.sealing import seal_text

    return seal_text(text)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_left_out(damage: str) -> None:
    """RESUME-2: among 1200 lines a damaged one counts as nothing, and all others count."""
    lines = [encode_unit(_unit(n)) for n in range(1200)]
    lines[600] = DAMAGED[damage](lines[600])
    found = [(value["unit"], json.loads(text)) for value, text in decode_records(lines)]
    assert [id for id, _ in found] == [str(n) for n in range(1200) if n != 600]
    assert all(value["unit"] == id for id, value in found)


def test_units_are_made_when_they_are_asked_for() -> None:
    """A ledger is a mapping of units that holds no object for each, so the collector has nothing to do."""
    ledger = Ledger(TOKEN)
    gc.collect()
    before = len(gc.get_objects())
    for n in range(2000):
        ledger.keep(str(n), [k.object for k in _unit(n).objects], encode_unit(_unit(n)))
    assert len(gc.get_objects()) - before < 100
    assert (len(ledger), ledger["7"], "7" in ledger, "x" in ledger) == (2000, _unit(7), True, False)
    assert list(ledger.values()) == [_unit(n) for n in range(2000)]
    assert list(ledger.objects()) == [_unit(n).objects[0].object for n in range(2000)]
    assert (ledger.owner("p/3"), ledger.owner("p/x")) == ("3", None)
    then = ledger.copy()
    assert ledger.drop("3") == [_unit(3).objects[0].object]
    assert ("3" in ledger, ledger.owner("p/3"), len(then)) == (False, None, 2000)


def test_sizes_count_the_last_record_of_a_unit() -> None:
    """RESUME-2: of two lines for one unit the later one says its size."""
    lines = [encode_unit(_unit(5)), encode_unit(Unit("5")), encode_unit(_unit(7))]
    assert sizes_of(lines) == {"5": 0, "7": 7}
