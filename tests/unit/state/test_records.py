"""Records of the log: round trips, and hostile bytes."""

from __future__ import annotations

import base64
import json
import random
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fstx.errors import RecoveryError
from fstx.state import records
from fstx.state.entries import Delta, Entry, data_key
from fstx.state.nodes import NodeRef
from fstx.state.records import KINDS, Record, decode, digest, encode, weight
from fstx.state.sealing import seal
from fstx.state.view import State
from support import statekit as kit

WHERE = "s3://bucket/ds/.fstx/log/00000000000000000009"
ROOT = NodeRef(f"node/{'a' * 32}-{'b' * 12}", 7, 900, "0123456789abcdef" * 2)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def one(n: int, path: str = "") -> dict[str, Entry]:
    path = path or f"c/{n // 100}/{n % 100}"
    txid = f"{n * 2654435761 % (1 << 128):032x}"
    sum_ = f"c{n * 48271 % (1 << 32):08x}"
    attempt = f"{1_760_000_000 + n:016x}{n * 7919 % (1 << 24):06x}-{sum_}"
    return {path: Entry(4096, data_key(txid, path, attempt), checksum=sum_)}


def sample() -> Record:
    tail = Delta({**one(1), **one(2), "i": Entry(2, inline=b"hi")}, ("old", "x/y"))
    state = State(ROOT, tail, {"f" * 32: 3}, 2, 1, {"plain": {"entry": "index.json"}})
    return Record(
        9, "commit", "a" * 32, "b" * 32, 7, "c" * 32, state, Delta(one(3), ("z",)), False,
        1, 4096, 1.76e9, "me@here:1", "first", {"n": 1},
    )  # fmt: skip


def members() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(encode(sample()).partition(b" ")[2])
    return found


def reading(value: dict[str, Any]) -> Record:
    return decode(seal(value), 9, WHERE)


@settings(deadline=None)
@given(
    kit.deltas(30), kit.deltas(10), st.sampled_from(KINDS), st.booleans(), texts, st.floats(0, 2e9)
)
def test_records_come_back(
    tail: Delta, own: Delta, kind: str, in_tree: bool, text: str, when_s: float
) -> None:
    """Protects the log: whatever a record says is read as it was written."""
    own = Delta() if in_tree else own
    state = State(ROOT if in_tree else None, tail, {text: 8}, 3, 2, {text: [text]})
    record = Record(
        9, kind, text, text, 8, text, state, own, in_tree, 5, 6, when_s, text, text, {"t": text}
    )
    found = decode(encode(record), 9, WHERE)
    assert found == record
    assert encode(found) == encode(record)
    assert found.after == state.then(own)
    assert found.after.tail == tail.then(own)


def test_a_record_of_one_change_is_small() -> None:
    """Protects the cost of a small commit: under 1 KiB beside what the state carries."""
    record = replace(sample(), state=State(ROOT), own=Delta(one(5)))
    assert len(encode(record)) < 1 << 10


@pytest.mark.parametrize("n", [1, 20, 200, 500])
def test_weight_is_about_what_a_record_grows_by(n: int) -> None:
    """Protects the budget: about right for changes of many transactions, of one, and inline."""
    empty = len(encode(replace(sample(), state=State(), own=Delta())))
    rng = random.Random(n)
    mixed: dict[str, Entry] = {}
    for i in range(n):
        mixed.update(one(i * 37))
    txid = "d" * 32
    alike = {
        f"c/{i}/{i}": Entry(9, data_key(txid, f"c/{i}/{i}", f"{rng.getrandbits(60):022x}--"))
        for i in range(n)
    }
    inline = {
        f"c/{i}": Entry(600, inline=zlib.compress(bytes(str(i), "ascii")) * 60) for i in range(n)
    }
    inline = {p: Entry(len(e.inline or b""), inline=e.inline) for p, e in inline.items()}
    for puts in (mixed, alike):
        delta = Delta(puts)
        line = encode(replace(sample(), state=State(tail=delta), own=Delta()))
        grown = len(line) - empty
        assert 0.5 * grown - 100 < weight(delta) < 2 * grown + 100
    line = encode(replace(sample(), state=State(tail=Delta(inline)), own=Delta()))
    assert weight(Delta(inline)) > (len(line) - empty) / 2


def test_a_record_cut_anywhere_is_refused() -> None:
    """Protects against torn records: every prefix is refused by name, and so is anything behind the end."""
    line = encode(sample())
    for n in range(len(line)):
        with pytest.raises(RecoveryError, match=r"log/0{19}9"):
            decode(line[:n], 9, WHERE)
    with pytest.raises(RecoveryError, match=r"log/0{19}9"):
        decode(line + b"x", 9, WHERE)


def test_flipped_bits_are_refused() -> None:
    """Protects against damage: the checksum notices each, and forged ones lead to no other error."""
    line = encode(sample())
    text = line[33:-1]
    for at in range(len(line)):
        flipped = bytearray(line)
        flipped[at] ^= 4
        with pytest.raises(RecoveryError, match=r"log/0{19}9"):
            decode(bytes(flipped), 9, WHERE)
    for at in range(len(text)):
        for bit in (1, 16):
            flipped = bytearray(text)
            flipped[at] ^= bit
            forged = digest(bytes(flipped)).encode() + b" " + bytes(flipped) + b"\n"
            said = kit.refusal(lambda line=forged: decode(line, 9, WHERE))
            assert said is None or WHERE in said


WRONG: list[Any] = [
    None, True, -1, 10**30, 10**4000, 1.5, float("inf"), "", "x", "log/1", [], [1], [[]],
    ["x"], {}, {"a": "b"},
    ["node/x-1", 0, 10, "0" * 32], ["data/../x", 0, 10, "0" * 32], ["node/x-1", -1, 10, "0" * 32],
    ["node/x-1", 0, 1 << 40, "0" * 32], ["node/x-1", 0, 10, "Z" * 32], ["node/x-1", 0, 10, ""],
    {"packed": "!"}, {"packed": "AAAA"}, {"packed": 7}, {"removed": ["../x"]}, {"removed": [7]},
    {"removed": "x"}, {"removed": [".fstx/id/k-1"]}, {"puts": []}, {"puts": {"names": "a"}},
]  # fmt: skip


def test_wrong_members_are_refused() -> None:
    """Protects readers from any JSON: each member missing or wrong; never another error."""
    good = members()
    assert reading(good) == sample()
    for name in good:
        missing = {k: v for k, v in good.items() if k != name}
        for value in [missing, *({**good, name: wrong} for wrong in WRONG)]:
            said = kit.refusal(lambda value=value: reading(value))
            assert said is None or WHERE in said
            assert said is not None or name not in ("format", "seq", "kind"), value[name]
    for name in set(good) - {"root"}:
        with pytest.raises(RecoveryError, match=name):
            reading({k: v for k, v in good.items() if k != name})


def test_what_does_not_fit_together_is_refused() -> None:
    """Protects the order of the log: another number, a beginning after the record, a change told twice."""
    with pytest.raises(RecoveryError, match="says that it is record 9"):
        decode(encode(sample()), 8, WHERE)
    with pytest.raises(RecoveryError, match="after itself"):
        reading({**members(), "begun": 9})
    with pytest.raises(RecoveryError, match="in the tree and beside it"):
        reading({**members(), "own_in_tree": True})


def test_absurd_sizes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: a record beyond the limit, and a bomb in a packed change."""
    bomb = base64.b64encode(zlib.compress(b" " * (80 << 20))).decode()
    with pytest.raises(RecoveryError, match=r"log/.*holds more than"):
        reading({**members(), "tail": {"packed": bomb}})
    monkeypatch.setattr(records, "LIMIT_BYTES", 500)
    with pytest.raises(RecoveryError, match=r"log/.*no record has more than"):
        decode(b"x" * 501, 9, WHERE)
    with pytest.raises(RecoveryError, match="500 are allowed"):
        encode(sample())


def test_an_older_reader_refuses_a_newer_record() -> None:
    """Protects the future: both versions are named, what to do, and nothing else of the record matters."""
    wanted = r"log/0{19}9 has format 2; this version reads up to 1.*newer fstx"
    with pytest.raises(RecoveryError, match=wanted):
        reading({"format": 2, "anything": "else"})
    with pytest.raises(RecoveryError, match="format 2; this version reads up to 1"):
        packed = zlib.compress(json.dumps({"format": 2}).encode())
        reading({**members(), "own": {"packed": base64.b64encode(packed).decode()}})


def test_what_an_older_writer_never_wrote_is_ignored() -> None:
    """Protects small additions: unknown members change nothing for a reader of the same format."""
    assert reading({**members(), "hint": 1}) == sample()
