"""Records that nobody of ours wrote: refused by name, nothing outside touched (I10, PATH-5, REC-1..4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fstx
from fstx.backends.local import LocalBackend, records
from fstx.backends.local.records import seal
from fstx.backends.local.transaction import LocalTransaction
from fstx.errors import RecoveryError, TransactionError
from support.killer import Killed, KillerOps
from support.trees import plant, tree

TXID = "ab" * 16
ITEM: dict[str, Any] = {
    "kind": "publish", "parent": "", "name": "t", "rest": "a", "root": 0, "tree": False,
    "occupied": True, "new": [1, 2, 3, 4], "base": [1, 2, 3, 4],
}  # fmt: skip
RECORD: dict[str, Any] = {
    "format": 1, "txid": TXID, "strategy": "redo", "how": "", "strict": False, "keyed": False,
    "durability": "data", "items": [ITEM], "roots": [],
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A target, a dead area beside it, and a victim that nothing may touch."""
    plant(
        tmp_path,
        {
            "root/t/a": b"1", "root/t/s/b": b"2", "victim/x": b"v", "victim/a": b"v",
            f"root/.fstx/{TXID}/s/0/a": b"evil", f"root/.fstx/{TXID}/a/": b"",
            f"root/.fstx/{TXID}/s/0/x": b"evil",
        },
    )  # fmt: skip
    return tmp_path / "root"


def put(root: Path, line: bytes, kind: str = "commit") -> None:
    (root / ".fstx" / TXID / kind).write_bytes(line)


def refused(root: Path, says: str) -> None:
    before = tree(root.parent)
    with pytest.raises(RecoveryError, match=says) as caught:
        fstx.recover(root / "t")
    assert str(root.parent) in str(caught.value)
    after = {k.replace(".fenced/", "/"): v for k, v in tree(root.parent).items()}
    assert after == before


@pytest.mark.parametrize(
    ("member", "value", "says"),
    [
        ("name", "..", "leave its target"),
        ("name", "../victim", "leave its target"),
        ("name", "/etc", "leave its target"),
        ("name", "", "leave its target"),
        ("name", "x/y", "name with '/'"),
        ("name", ".fstx", "leave its target"),
        ("name", "a\0b", "leave its target"),
        ("rest", "../../victim/x", "leave its target"),
        ("rest", "s/../../../victim/x", "leave its target"),
        ("rest", "/etc/passwd", "leave its target"),
        ("rest", "s//b", "leave its target"),
        ("root", -1, "root -1"),
        ("root", 1 << 40, "root"),
        ("root", True, "no int"),
        ("kind", "delete", "not one of"),
        ("tree", 1, "no bool"),
        ("new", [1, 2, 3], "no identity"),
        ("new", "x", "no list"),
        ("base", [1, 2, 3, 1.5], "no identity"),
        ("parent", 3, "no str"),
    ],
)
def test_hostile_items(root: Path, member: str, value: Any, says: str) -> None:
    """I10: traversal, wrong types and absurd values in an item."""
    put(root, seal({**RECORD, "items": [{**ITEM, member: value}]}))
    refused(root, says)


@pytest.mark.parametrize("parent", ["{victim}", "/", "relative", "{root}/t", "{root}/../victim"])
def test_parent_that_does_not_agree(root: Path, parent: str) -> None:
    """PATH-5: a parent counts only if its own .ref names this control directory."""
    given = parent.replace("{victim}", str(root.parent / "victim")).replace("{root}", str(root))
    for kind in ("publish", "remove"):
        item = {**ITEM, "parent": given, "name": "x", "rest": "", "kind": kind}
        put(root, seal({**RECORD, "items": [item]}))
        refused(root, "not agree")


def test_ref_that_names_another(root: Path) -> None:
    """PATH-5: a .ref that names another control directory is no agreement."""
    victim = root.parent / "victim"
    ref = victim / ".fstx" / f"{TXID}.ref"
    plant(victim, {f".fstx/{TXID}.ref": b""})
    item = {**ITEM, "parent": str(victim), "name": "x", "rest": ""}
    put(root, seal({**RECORD, "items": [item]}))
    for line, says in [
        (seal({"format": 1, "txid": TXID, "control": str(victim / ".fstx")}), "not agree"),
        (seal({"format": 1, "txid": "cd" * 16, "control": str(root / ".fstx")}), "name a control"),
        (seal({"format": 9, "txid": TXID, "control": str(root / ".fstx")}), "format 9"),
        (b"garbage\n", "damaged"),
    ]:
        ref.write_bytes(line)
        refused(root, says)


@pytest.mark.parametrize("place", ["t", "t/s"])
def test_symbolic_link_on_the_way(root: Path, place: str) -> None:
    """PATH-5: a record is not followed through a link that was put on its way."""
    if place == "t":
        (root / "t").rename(root.parent / "moved")
        (root / "t").symlink_to(root.parent / "victim")
        rest = "x"
    else:
        (root / "t" / "s").rename(root.parent / "moved")
        (root / "t" / "s").symlink_to(root.parent / "victim")
        rest = "s/x"
    put(root, seal({**RECORD, "items": [{**ITEM, "rest": rest}]}))
    before = tree(root.parent)
    with pytest.raises(RecoveryError, match="symbolic link"):
        LocalBackend([str(root / "other")], joined=True, ops=KillerOps()).recover()
    assert tree(root.parent) == before


@pytest.mark.parametrize("member", sorted(RECORD))
def test_missing_member(root: Path, member: str) -> None:
    """REC-2: each missing member is refused by its name."""
    put(root, seal({k: v for k, v in RECORD.items() if k != member}))
    refused(root, "format" if member == "format" else member)


@pytest.mark.parametrize("member", sorted(ITEM))
def test_missing_member_of_an_item(root: Path, member: str) -> None:
    """REC-2: the same for the items."""
    put(root, seal({**RECORD, "items": [{k: v for k, v in ITEM.items() if k != member}]}))
    refused(root, member)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "damaged"),
        (b"\n", "damaged"),
        (b"x" * 100, "damaged"),
        (seal(RECORD)[:-1], "damaged"),
        (seal(RECORD)[:-20], "damaged"),
        (seal(RECORD).replace(b'"redo"', b'"swap"'), "damaged"),
        (seal(RECORD) + seal(RECORD), "damaged"),
        (seal({**RECORD, "format": 2}), "format 2.*up to 1.*newer fstx"),
        (seal({**RECORD, "format": "1"}), "no format"),
        (seal([1]), "no format"),  # type: ignore[arg-type]
        (seal({**RECORD, "txid": "cd" * 16}), "is of cdcd"),
        (seal({**RECORD, "strategy": "magic"}), "not one of"),
        (seal({**RECORD, "durability": "some"}), "not one of"),
        (seal({**RECORD, "items": {}}), "no list"),
        (seal({**RECORD, "items": [3]}), "not an object"),
        (seal({**RECORD, "strategy": "rename", "items": [ITEM, ITEM], "how": "place"}), "rename"),
        (seal({**RECORD, "strategy": "rename", "how": "burn"}), "how"),
    ],
)
def test_damaged_records(root: Path, line: bytes, says: str) -> None:
    """REC-2, REC-3: checksum, truncation, newer format, and what does not fit together."""
    put(root, line)
    refused(root, says)


def test_endless_record_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REC-4: more than the limit is refused unread (the real one is 64 MiB)."""
    assert records.LIMIT_BYTES == 64 << 20
    with (root / ".fstx" / TXID / "commit").open("wb") as file:
        file.truncate(records.LIMIT_BYTES + 1)
    with pytest.raises(RecoveryError, match="longer than"):
        fstx.recover(root / "t")


def test_deeply_nested_json(root: Path) -> None:
    """I10: JSON that is nested beyond reason is refused, not a crash."""
    import hashlib

    text = b"[" * 200_000 + b"]" * 200_000
    put(root, hashlib.sha256(text).hexdigest()[:32].encode() + b" " + text + b"\n")
    refused(root, "JSON|no format")


def test_two_items_at_one_place(root: Path) -> None:
    """I10: two items that would undo each other never move a stranger's content out of the target."""
    put(root, seal({**RECORD, "strict": True, "items": [ITEM, ITEM]}))
    with pytest.raises(RecoveryError):
        fstx.recover(root / "t")
    assert tree(root / "t") == {"a": b"1", "s/b": b"2"}


def test_records_that_are_links(root: Path) -> None:
    """I10: a record that is a symbolic link is not followed."""
    (root.parent / "victim" / "record").write_bytes(seal(RECORD))
    (root / ".fstx" / TXID / "commit").symlink_to(root.parent / "victim" / "record")
    with pytest.raises(RecoveryError, match="commit"):
        fstx.recover(root / "t")


def test_trash_with_links_out(root: Path) -> None:
    """PATH-5: what is deleted is deleted without following links."""
    trash = root / ".fstx" / ("cd" * 16 + ".trash")
    trash.mkdir()
    (trash / "out").symlink_to(root.parent / "victim")
    report = fstx.recover(root / "t")
    assert str(trash) in report.removed
    assert tree(root.parent / "victim") == {"x": b"v", "a": b"v"}
    assert not trash.exists()


def test_strangers_in_the_control_directory(tmp_path: Path) -> None:
    """PATH-5: what has no name of ours is left alone."""
    strange = {".fstx/notes/x": b"n", ".fstx/readme": b"r", ".fstx/zz.alive": b"", "t/a": b"1"}
    plant(tmp_path, strange)
    with fstx.begin(tmp_path / "t") as tx:
        tx.stage("b", b"2")
    fstx.recover(tmp_path / "t")
    assert tree(tmp_path) == {**strange, "t/b": b"2"}


def test_a_neighbours_trouble_does_not_block(root: Path) -> None:
    """A damaged area of another target is no trouble of this one; recover still names it."""
    owner = {"format": 1, "txid": TXID, "targets": [str(root / "t")], "parents": []}
    (root / ".fstx" / TXID / "owner.json").write_bytes(seal(owner))
    put(root, b"garbage\n")
    with fstx.begin(root / "u") as tx:
        tx.stage("x", b"x")
    assert (root / "u" / "x").read_bytes() == b"x"
    with pytest.raises(RecoveryError, match="damaged"):
        fstx.begin(root / "t")
    with pytest.raises(RecoveryError, match="damaged"):
        fstx.recover(root / "u")


def test_others_are_settled_before_trouble_is_raised(root: Path) -> None:
    """recover: the first trouble is raised after all others were settled."""
    put(root, b"garbage\n")
    other = root / ".fstx" / ("cd" * 16)
    plant(other, {"a/x": b"staged", "s/": b""})
    with pytest.raises(RecoveryError, match=TXID):
        fstx.recover(root / "t")
    assert not other.exists()


@pytest.mark.parametrize("byte", [0, 31, 33, 80, -2])
def test_every_flipped_bit_is_noticed(
    tmp_path: Path, byte: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REC-2: a real record with one damaged byte is refused, and repaired it is followed."""
    plant(tmp_path, {"t/a": b"1", "t/b": b"2"})
    monkeypatch.delattr(LocalTransaction, "__del__")
    at = None
    for k in range(1, 200):
        ops = KillerOps(kill_at=k)
        backend = LocalBackend([str(tmp_path / "t")], joined=False, ops=ops)
        try:
            with backend.begin(mode="update", durability="none", require=frozenset()) as tx:
                tx.stage("a", b"A")
                tx.stage("b", b"B")
        except Killed:
            found = list((tmp_path / ".fstx").glob("*/commit"))
            if found:
                at = found[0]
                break
            fstx.recover(tmp_path / "t")
    assert at is not None
    line = at.read_bytes()
    assert json.loads(line.partition(b" ")[2])["strategy"] == "redo"
    damaged = bytearray(line)
    damaged[byte] ^= 4
    at.write_bytes(damaged)
    with pytest.raises(TransactionError, match="damaged"):
        fstx.recover(tmp_path / "t")
    assert (tmp_path / "t" / "a").read_bytes() == b"1"
    next((tmp_path / ".fstx").glob("*/commit")).write_bytes(line)
    assert [s.state.value for s in fstx.recover(tmp_path / "t").settled] == ["committed"]
    assert tree(tmp_path) == {"t/a": b"A", "t/b": b"B"}
