"""Samples: on a dear storage a case tries few points, the same ones each time, and says so."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest

from fstx.backends.manifest.dataset import Dataset
from fstx.stores.opening import open_store
from fstx_conformance.lab import Lab
from fstx_conformance.report.text import told
from fstx_conformance.results import Result, Verdict
from fstx_conformance.run import run
from fstx_conformance.sampling import Sample, divided, musts, pick
from fstx_conformance.subjects import subject_of
from fstx_conformance.subjects.listed import ListedStore

DEAR = 50.0


@pytest.fixture
def dear() -> Any:
    """A dataset in memory that counts as one on a server."""
    subject = subject_of("tx::memory://sampled")
    subject.cost = DEAR
    yield subject
    subject.close()


@pytest.mark.parametrize("many", [1, 2, 5, 40, 163, 164, 500])
def test_a_pick_has_what_must_be_and_spreads_the_rest(many: int) -> None:
    """So many numbers are picked, no more than there are; those that must be come first, in their order."""
    wanted = [80, 81, 1, 164]
    found = pick(164, many, wanted, random.Random(7))
    assert found == sorted(set(found)) == pick(164, many, wanted, random.Random(7))
    assert len(found) == min(many, 164)
    assert set(found) <= set(range(1, 165))
    assert set(wanted[: min(many, 4)]) <= set(found)
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert many < 40 or max(gaps) <= 2 * -(-164 // many) + 1


def test_of_a_sweep_ends_and_moments_are_tried_by_turns() -> None:
    """Sweeps of one point each try, one after the other, a moment that matters, the first and the last."""
    firsts = [musts([1, 9], [4, 5], turn)[0] for turn in range(4)]
    assert firsts == [4, 1, 9, 5]
    assert all(set(musts([1, 9], [4, 5], turn)) == {1, 4, 5, 9} for turn in range(4))


def test_sweeps_are_left_out_where_trials_are_few() -> None:
    """Each sweep that is made has as many trials as it needs at least; which ones the seed says."""
    sweeps = list("abcdef")
    assert divided(sweeps, 18, 3, random.Random(1)) == sweeps
    few = divided(sweeps, 7, 3, random.Random(1))
    assert len(few) == 2
    assert few == sorted(few)
    assert few == divided(sweeps, 7, 3, random.Random(1))
    assert {divided(sweeps, 1, 3, random.Random(n))[0] for n in range(40)} == set(sweeps)


def test_a_sample_says_what_was_left_out() -> None:
    """What was tried, of how much, in how many sweeps of how many."""
    whole = Sample(of=1)
    whole.add(22, 22)
    assert whole.whole
    assert str(whole) == "all 22 points"
    some = Sample(of=1)
    some.add(41, 164)
    assert not some.whole
    assert str(some) == "41 of 164 points"
    assert str(Sample(3, 14, 2, 12)) == "3 of 14 points, in 2 of 12 sweeps"


def test_a_dear_storage_is_tried_at_a_stated_sample(dear: Any) -> None:
    """The report says how much was tried; the same seed tries the same, and another one something else."""

    def tried(seed: int) -> tuple[Result, Counter[str]]:
        schedules: Counter[str] = Counter()
        only = ("crash.kill", "ambiguity.lost", "liveness.after-a-kill")
        found = run(dear, seed=seed, only=only, progress=lambda _, text: schedules.update([text]))
        return found, schedules

    first, one = tried(0)
    assert first.verdict is Verdict.PASS
    for case in first.cases:
        assert case.sample is not None, case.id
        assert 0 < case.sample.tried <= case.runs <= 10, case.id
    assert str(first.cases[0].sample) in told(first)
    assert [c.sample for c in Result.from_json(first.to_json()).cases] == [
        c.sample for c in first.cases
    ]
    again = subject_of("tx::memory://sampled")
    again.cost = DEAR
    dear, kept = again, dear
    _, two = tried(0)
    assert {s for s in two if "=" in s} == {s for s in one if "=" in s}
    _, other = tried(3)
    assert other != two
    kept.close()


def test_exhaustive_leaves_out_nothing(dear: Any) -> None:
    """In the profile exhaustive the cost of a storage is no matter: every call is killed."""
    lab = Lab(dear, "crash.kill", "exhaustive")
    lab.sweep(lab.scenes("create"), ["kill"])
    assert lab.sample.whole
    assert lab.sample.tried == lab.fired["kill"] > 2
    assert not lab.failures


def test_one_listing_tells_readers_all_that_is_new() -> None:
    """Objects that have not changed are not read again; those that have, are gone or are new are told."""
    inner = open_store("memory://listed-store")
    asked: Counter[str] = Counter()

    class Counting:
        def __getattr__(self, name: str) -> Any:
            def call(*args: Any) -> Any:
                asked[name] += 1
                return getattr(inner, name)(*args)

            return inner.url if name == "url" else call

    contents: dict[str, tuple[str, bytes]] = {}
    inner.put("a", b"one")
    inner.put("d/b", b"two")
    first = ListedStore(Counting(), contents)
    assert (first.get("a"), first.get("d/b", 1, 2)) == (b"one", b"w")
    assert [i.key for i in first.list("d/")] == ["d/b"]
    inner.put("a", b"uno")
    inner.delete(["d/b"])
    inner.put("c", b"three")
    asked.clear()
    second = ListedStore(Counting(), contents)
    assert (second.get("a"), second.get("c")) == (b"uno", b"three")
    assert second.info("d/b") is None
    with pytest.raises(FileNotFoundError):
        second.get("d/b")
    assert asked == {"list": 1, "get": 2}
    asked.clear()
    assert ListedStore(Counting(), contents).get("c") == b"three"
    assert asked == {"list": 1}
    with pytest.raises(PermissionError):
        second.put("c", b"four")
    inner.delete(["a", "c"])


def test_a_listed_dataset_reads_as_the_dataset_does() -> None:
    """The newest version is found and read by a listing as by requests."""
    subject = subject_of("tx::memory://listed-dataset")
    try:
        room: Any = subject.room()
        for n in range(3):
            with room.begin() as tx:
                tx.stage(f"f{n}", bytes([n]) * 6000)
        store = open_store(room.url.removeprefix("tx::"))
        listed = Dataset(ListedStore(store, {}).below(".fstx"))
        view = listed.view()
        assert {p: listed.read(e) for p, e in view.items()} == room.read()
        assert len(room.read()) == 3
    finally:
        subject.close()
