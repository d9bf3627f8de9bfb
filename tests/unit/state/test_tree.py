"""The tree against a dictionary."""

from __future__ import annotations

import bisect
import random
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fstx.errors import RecoveryError
from fstx.state import growing
from fstx.state.entries import OWN, Delta, Entry, data_key
from fstx.state.nodes import Child, NodeRef, encode_inner, encode_leaf
from fstx.state.sealing import digest
from fstx.state.tree import NodeCache, Tree
from support import statekit as kit

T = "ab" * 16


def plain(path: str, n: int = 0) -> Entry:
    return Entry(4096, data_key(T, path, f"{n:022x}-c{n:08x}"), checksum=f"c{n:08x}")


def many(n: int) -> dict[str, Entry]:
    return {f"c/{i // 100}/{i % 100}": plain(f"c/{i // 100}/{i % 100}", i) for i in range(n)}


def children_of(model: dict[str, Entry], directory: str) -> dict[str, Entry | None]:
    above = f"{directory}/" if directory else ""
    found: dict[str, Entry | None] = {}
    for path in sorted(model):
        if path.startswith(above) and path != directory:
            name, slash, _ = path[len(above) :].partition("/")
            found[name] = None if slash else model[path]
    return found


@settings(deadline=None, max_examples=75)
@given(st.lists(kit.deltas(30), min_size=1, max_size=5), st.lists(kit.paths, max_size=5))
def test_a_tree_holds_what_a_dictionary_holds(changes: list[Delta], asked: list[str]) -> None:
    """Protects reading and changing: after any changes every question is answered as by a dictionary."""
    with kit.small_nodes():
        objects = kit.Objects()
        model: dict[str, Entry] = {}
        root: NodeRef | None = None
        for delta in changes:
            model = kit.applied(model, delta)
            root = objects.grown(root, delta)
        tree = objects.tree(root)
        assert list(tree.items()) == sorted(model.items())
        assert tree.count == len(model)
        for path in [*asked, *list(model)[:5], ""]:
            assert tree.get(path) == model.get(path)
            wanted = sorted(p for p in model if not path or p == path or p.startswith(f"{path}/"))
            assert sorted(p for p, _ in tree.items(path)) == wanted
            found = list(objects.tree(root).children(path))
            assert len(dict(found)) == len(found)
            assert dict(found) == children_of(model, path)
            start, stop = sorted([path, asked[0] if asked else "b"])
            keys = sorted(model)
            span = keys[bisect.bisect_left(keys, start) : bisect.bisect_left(keys, stop)]
            assert tree.count_in((start, stop)) == len(span)
            assert [p for p, _ in tree.within((start, stop))] == span


@settings(deadline=None, max_examples=75)
@given(kit.deltas(40), kit.deltas(6), kit.deltas(6))
def test_differences_are_those_of_dictionaries(base: Delta, one: Delta, two: Delta) -> None:
    """Protects comparing versions: what differs is found, in order, and nothing else."""
    with kit.small_nodes():
        objects = kit.Objects()
        root = objects.grown(None, base)
        left, right = objects.grown(root, one), objects.grown(root, two)
        a, b = kit.applied(dict(base.puts), one), kit.applied(dict(base.puts), two)
        wanted = [
            (p, a.get(p), b.get(p)) for p in sorted(a.keys() | b.keys()) if a.get(p) != b.get(p)
        ]
        assert list(objects.tree(left).differences(objects.tree(right))) == wanted
        assert list(objects.tree(left).differences(objects.tree(left))) == []
        everything = [(p, None, e) for p, e in sorted(a.items())]
        assert list(objects.tree(None).differences(objects.tree(left))) == everything


def test_shared_nodes_are_not_read_when_comparing() -> None:
    """Protects comparing large datasets: one changed path costs its leaves, not the tree."""
    objects = kit.Objects()
    root = objects.grown(None, Delta(many(50_000)))
    path = "c/77/7"
    other = objects.grown(root, Delta({path: plain(path, 99)}))
    objects.reads.clear()
    found = list(objects.tree(root).differences(objects.tree(other)))
    assert [f[0] for f in found] == [path]
    assert len(objects.reads) == 4  # two roots, two leaves


def test_a_path_of_many_is_found_by_two_reads() -> None:
    """Protects opening: root and one leaf, however many paths there are."""
    objects = kit.Objects()
    root = objects.grown(None, Delta(many(60_000)))
    objects.reads.clear()
    assert objects.tree(root).get("c/500/50") == plain("c/500/50", 50_050)
    assert len(objects.reads) == 2
    read = sum((stop or 0) - start for _, start, stop in objects.reads)
    assert read < 32 << 10


def test_one_change_writes_one_leaf_and_the_root() -> None:
    """Protects the cost of a change: nodes that don't change are shared."""
    objects = kit.Objects()
    root = objects.grown(None, Delta(many(60_000)))
    before = dict(objects.held)
    objects.grown(root, Delta({"c/500/50": plain("c/500/50", 1)}))
    new = {k: v for k, v in objects.held.items() if k not in before}
    assert len(new) == 1
    assert sum(map(len, new.values())) < 3 * growing.LEAF_BYTES


def test_nothing_new_writes_nothing() -> None:
    """Protects idle commits: a change without effect gives the same root and no packs."""
    objects = kit.Objects()
    for n in (3, 30_000):
        root = objects.grown(None, Delta(many(n)))
        assert objects.tree(root).updated(Delta({}, ("no/such",)), objects.new_key) == (root, {})
        assert objects.tree(root).updated(Delta(), objects.new_key) == (root, {})


def test_leaves_keep_their_size_under_random_changes() -> None:
    """Protects against decay: many small insertions and removals leave no crumbs and no giants."""
    rng = random.Random(5)
    with kit.small_nodes(leaf_bytes=1 << 10, fan_out=4096, sample=64):
        objects = kit.Objects()
        root = objects.grown(None, Delta(many(5000)))
        model = many(5000)
        for _ in range(25):
            gone = tuple(rng.sample(sorted(model), 100))
            names = [f"c/{rng.randrange(50)}/{rng.randrange(10**6)}" for _ in range(70)]
            delta = Delta({p: plain(p, rng.getrandbits(32)) for p in names}, gone)
            model = {p: e for p, e in model.items() if p not in gone} | dict(delta.puts)
            root = objects.grown(root, delta)
        tree = objects.tree(root)
        assert dict(tree.items()) == model
        node = tree._root(root)  # type: ignore[arg-type]
        sizes = sorted(child.ref.length for child in node.children)  # type: ignore[union-attr]
        assert sizes[-1] <= 2 * growing.LEAF_BYTES
        assert sum(s < growing.LEAF_BYTES / 4 for s in sizes) <= len(sizes) / 10


def test_a_removed_tree_is_dropped_unread() -> None:
    """Protects large removals: leaves that go as a whole are not read."""
    objects = kit.Objects()
    inside = {f"d/{i}": plain(f"d/{i}", i) for i in range(30_000)}
    root = objects.grown(None, Delta({**inside, "a": plain("a"), "z": plain("z")}))
    objects.reads.clear()
    root = objects.grown(root, Delta({}, ("d",)))
    assert len(objects.reads) <= 4
    assert [p for p, _ in objects.tree(root).items()] == ["a", "z"]
    assert objects.grown(root, Delta({}, ("",))) is None


def test_marks_survive_the_removal_of_everything() -> None:
    """Protects chosen ids in the tree: a replacement of all content keeps them."""
    objects = kit.Objects()
    mark = f"{OWN}id/k-{'1' * 32}"
    root = objects.grown(None, Delta({**many(5000), mark: Entry(7, inline=b"")}))
    root = objects.grown(root, Delta({"n": plain("n")}, ("",)))
    assert [p for p, _ in objects.tree(root).items()] == [mark, "n"]


def test_leaves_that_lie_together_are_read_together() -> None:
    """Protects listings over a network: a fresh tree takes few requests, a first name two."""
    objects = kit.Objects()
    root = objects.grown(None, Delta(many(60_000)))
    objects.reads.clear()
    assert sum(1 for _ in objects.tree(root).items()) == 60_000
    assert len(objects.reads) < 20
    objects.reads.clear()
    assert next(objects.tree(root).children("c")) == ("0", None)
    assert len(objects.reads) == 2


def test_directories_are_listed_without_reading_what_lies_in_them() -> None:
    """Protects `ls` of a large dataset: a subtree of many leaves is skipped."""
    objects = kit.Objects()
    inside = {f"d/{i}": plain(f"d/{i}", i) for i in range(50_000)}
    root = objects.grown(None, Delta({**inside, "a": plain("a"), "z": plain("z")}))
    objects.reads.clear()
    found = list(objects.tree(root).children())
    assert found == [("a", plain("a")), ("d", None), ("z", plain("z"))]
    assert len(objects.reads) <= 3


def test_scattered_leaves_are_read_at_the_same_time() -> None:
    """Protects checkpoints over a network: leaves that change are read by several threads."""
    objects = kit.Objects()
    root = objects.grown(None, Delta(many(60_000)))
    rng = random.Random(1)
    paths = [f"c/{i // 100}/{i % 100}" for i in rng.sample(range(60_000), 40)]
    two = threading.Barrier(2)

    def fetch(key: str, start: int, stop: int | None) -> bytes:
        if objects.reads:
            two.wait(timeout=20)  # passes only if another read is under way
        return objects.fetch(key, start, stop)

    delta = Delta({p: plain(p, 1) for p in paths[:2]})
    new, _ = Tree(root, fetch).updated(delta, objects.new_key)
    assert new != root
    assert len(objects.reads) >= 3


def test_packs_are_of_a_size_that_one_request_can_put() -> None:
    """Protects large commits: packs have 16 MiB at most, and each is named by a key of its own."""
    objects = kit.Objects()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "PACK_BYTES", 32 << 10)
        root = objects.grown(None, Delta(many(40_000)))
    assert len(objects.held) > 3
    assert all(len(pack) <= 32 << 10 for pack in objects.held.values())
    assert objects.tree(root).count == 40_000


def test_large_content_makes_small_leaves() -> None:
    """Protects leaves with inline content beside plain entries: they are cut by their bytes."""
    rng = random.Random(2)
    puts = many(2000)
    for i in range(0, 2000, 3):
        puts[f"c/{i // 100}/{i % 100}"] = Entry(2000, inline=rng.randbytes(2000))
    objects = kit.Objects()
    root = objects.grown(None, Delta(puts))
    tree = objects.tree(root)
    assert dict(tree.items()) == puts
    sizes = [c.ref.length for c in tree._root(root).children]  # type: ignore[arg-type,union-attr]
    assert max(sizes) <= 2 * growing.LEAF_BYTES


def test_the_cache_keeps_what_was_used_last() -> None:
    """Protects memory: beyond its limit the nodes used longest ago go."""
    objects = kit.Objects()
    root = objects.grown(None, Delta(many(50_000)))
    cache = NodeCache(limit_bytes=400_000)
    tree = Tree(root, objects.fetch, cache)
    assert sum(1 for _ in tree.items()) == 50_000
    assert cache._size_bytes <= 400_000
    assert cache._size_bytes == sum(size for _, size in cache._nodes.values())
    objects.reads.clear()
    last = "c/99/99"
    tree.get(last)
    objects.reads.clear()
    tree.get(last)
    assert not objects.reads


# --- hostile nodes ----------------------------------------------------------------------------------


def stored(objects: kit.Objects, data: bytes) -> NodeRef:
    key = objects.new_key()
    objects.held[key] = data
    return NodeRef(key, 0, len(data), digest(data))


def wrong_parents() -> Iterator[tuple[str, list[Child], int]]:
    objects = kit.Objects()
    leaf = stored(objects, encode_leaf(["b", "c"], [plain("b"), plain("c")]))
    inner = stored(objects, encode_inner(1, [Child("b", leaf, 2)]))
    yield "too late a first path", [Child("c", leaf, 2)], 1
    yield "another number", [Child("b", leaf, 3)], 1
    yield "beyond the next one", [Child("a", leaf, 2), Child("c", leaf, 2)], 1
    yield "another level", [Child("b", leaf, 2)], 2
    yield "an inner node as a leaf", [Child("b", inner, 2)], 1
    wrong_parents.objects = objects  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", range(5))
def test_children_that_don_t_fit_their_parent_are_refused(case: int) -> None:
    """Protects readers from forged trees: order, number and level are compared, and loops end."""
    what, children, level = list(wrong_parents())[case]
    objects: kit.Objects = wrong_parents.objects  # type: ignore[attr-defined]
    root = stored(objects, encode_inner(level, children))
    with pytest.raises(RecoveryError, match="node/") as caught:
        list(objects.tree(root).items())
    assert str(caught.value), what


def test_a_node_with_other_bytes_is_refused_by_name() -> None:
    """Protects against damage: each flipped byte of a pack is noticed, and the pack is named."""
    objects = kit.Objects()
    root = objects.grown(None, Delta(many(2000)))
    assert root is not None
    for key, pack in list(objects.held.items()):
        for at in range(0, len(pack), 997):
            flipped = bytearray(pack)
            flipped[at] ^= 1
            objects.held[key] = bytes(flipped)
            with pytest.raises(RecoveryError, match=key):
                list(objects.tree(root).items())
        objects.held[key] = pack[:-1]
        with pytest.raises(RecoveryError, match=key):
            list(objects.tree(root).items())
        objects.held[key] = pack
