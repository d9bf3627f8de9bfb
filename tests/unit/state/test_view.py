"""Views: tree and tail together against a dictionary."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from fstx.state.entries import OWN, Delta, Entry
from fstx.state.spans import OWN_END, below, covered, only, without
from fstx.state.view import State, View
from support import statekit as kit


def visible(model: dict[str, Entry]) -> dict[str, Entry]:
    return {p: model[p] for p in sorted(model) if not p.startswith(OWN)}


def children_of(model: dict[str, Entry], directory: str) -> dict[str, Entry | None]:
    above = f"{directory}/" if directory else ""
    found: dict[str, Entry | None] = {}
    for path in sorted(model):
        if path.startswith(above) and path != directory:
            name, slash, _ = path[len(above) :].partition("/")
            found[name] = None if slash else model[path]
    return found


@settings(deadline=None, max_examples=75)
@given(
    kit.deltas(30), st.lists(kit.deltas(8), max_size=3), st.lists(kit.paths, min_size=1, max_size=4)
)
def test_a_view_answers_as_a_dictionary(base: Delta, tail: list[Delta], asked: list[str]) -> None:
    """Protects readers: the tail over the tree looks as if all had been written to one dictionary."""
    with kit.small_nodes():
        objects = kit.Objects()
        state = State(root=objects.grown(None, base))
        model = kit.applied({}, base)
        for delta in tail:
            state = state.then(delta)
            model = kit.applied(model, delta)
        view = View(state, objects.fetch)
        seen = visible(model)
        assert list(view.items()) == list(seen.items())
        assert view.count == len(seen)
        for path in [*asked, *list(seen)[:4], *(p.rpartition("/")[0] for p in asked)]:
            inside = {p: e for p, e in seen.items() if p.startswith(f"{path}/") or not path}
            if path:
                assert view.get(path) == seen.get(path)
            assert dict(view.items(path)) == {p: e for p, e in seen.items() if p == path} | inside
            names = list(view.children(path))
            assert [n for n, _ in names] == sorted(children_of(seen, path))
            assert dict(names) == children_of(seen, path)
            made = path in seen and seen[path].directory
            assert view.is_dir(path) == (bool(inside) or bool(made))
        for path, entry in model.items():
            if path.startswith(OWN):
                assert view.get(path) is None
                assert view.mark(path.removeprefix(f"{OWN}id/")) == entry.size_bytes


def test_marks_are_hidden_and_remembered() -> None:
    """Protects chosen ids: no reader lists them, and removing everything keeps them, in tree and tail."""
    objects = kit.Objects()
    one, two = "k-" + "1" * 32, "k-" + "2" * 32
    root = objects.grown(None, Delta({f"{OWN}id/{one}": Entry(4, inline=b"")}))
    state = State(root=root).then(Delta({f"{OWN}id/{two}": Entry(0, inline=b"")}))
    view = View(state.then(Delta({}, ("",))), objects.fetch)
    assert view.mark(one) == 4
    assert view.mark(two) == 0
    assert view.mark("k-" + "3" * 32) is None
    assert list(view.items()) == list(view.children()) == []
    assert view.count == 0
    assert not view.is_dir("")
    assert not view.is_dir(".fstx")


def test_an_empty_view_is_empty() -> None:
    """Protects a dataset without a commit."""
    view = View(State(), kit.Objects().fetch)
    assert list(view.items("a")) == list(view.children()) == []
    assert view.get("a") is None
    assert view.count == 0


def test_asking_for_a_directory_reads_one_leaf() -> None:
    """Protects `isdir` and `exists` in large datasets: a few reads, whatever lies below."""
    objects = kit.Objects()
    puts = {f"d/{i}": Entry(1, inline=b"x") for i in range(20_000)}
    view = View(State(root=objects.grown(None, Delta(puts))), objects.fetch)
    objects.reads.clear()
    assert view.is_dir("d")
    assert not view.is_dir("e")
    assert len(objects.reads) <= 3


spans = st.tuples(
    st.sampled_from("abcdef"), st.one_of(st.none(), st.sampled_from("bcdefg"))
).filter(lambda s: s[1] is None or s[0] < s[1])


@given(st.lists(st.one_of(kit.paths, st.just("")), max_size=6), kit.paths)
def test_spans_cover_what_removals_cover(removed: list[str], path: str) -> None:
    """Protects removals in the tree: spans and deltas agree on what goes, and spans are disjoint."""
    found = covered(removed)
    inside = any(a <= path and (b is None or path < b) for a, b in found)
    assert inside == Delta({}, tuple(removed)).covers(path)
    assert not any(a <= f"{OWN}id/x" and (b is None or b > f"{OWN}id/x") for a, b in found)
    for one, two in itertools.pairwise(found):
        assert one[1] is not None
        assert one[1] < two[0]


@given(spans, st.lists(st.one_of(kit.paths), max_size=5), st.sampled_from("abcdefg"))
def test_what_is_left_of_a_span(
    span: tuple[str, str | None], removed: list[str], point: str
) -> None:
    """Protects readers under removals: a span without holes is exactly the rest."""
    holes = covered(removed)
    left = list(without(span, holes))
    for path in [point, f"{point}/x", *removed, *(f"{r}/y" for r in removed)]:
        inside = span[0] <= path and (span[1] is None or path < span[1])
        gone = any(a <= path and (b is None or path < b) for a, b in holes)
        assert any(a <= path and (b is None or path < b) for a, b in left) == (inside and not gone)


def test_a_name_and_what_lies_below_it_are_apart() -> None:
    """Protects siblings such as ``a-b`` and ``a.txt``: they lie between ``a`` and ``a/...``."""
    assert sorted(["a", "a-b", "a.txt", "a/b", "a0"]) == ["a", "a-b", "a.txt", "a/b", "a0"]
    assert only("a") == ("a", "a\0")
    assert below("a") == ("a/", "a0")
    assert OWN_END == ".fstx0"
