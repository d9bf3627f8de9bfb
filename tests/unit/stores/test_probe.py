"""The probe against stores that lie in one way each."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fstx.stores import Answer, Info, localproof, probe
from fstx.stores.local import LocalStore
from fstx.stores.memory import MemoryStore


class Named(MemoryStore):
    """A memory store that can be proven like a remote one."""

    @property
    def place(self) -> str:
        return f"test:{self.url}"


class Known(Named):
    @property
    def place(self) -> str:
        return "s3:https://s3.eu-central-1.amazonaws.com:bucket"


class Ignores(Named):
    def put_new(self, key: str, data: bytes, /) -> Answer:
        self.put(key, data)
        return Answer.DONE


class Races(Named):
    def put_new(self, key: str, data: bytes, /) -> Answer:
        if self.info(key) is not None:
            return Answer.TAKEN
        time.sleep(0.005)
        self.put(key, data)
        return Answer.DONE


class SaysNoAndOverwrites(Named):
    def put_new(self, key: str, data: bytes, /) -> Answer:
        answer = super().put_new(key, data)
        self.put(key, data)
        return answer


class ListsLate(Named):
    def list(self, prefix: str, /) -> Iterator[Info]:
        return (i for i in super().list(prefix) if time.time() - (i.modified_s or 0) > 0.2)


class LosesAnswers(Named):
    turns = 0

    def put_new(self, key: str, data: bytes, /) -> Answer:
        answer = super().put_new(key, data)
        LosesAnswers.turns += 1
        return Answer.UNKNOWN if LosesAnswers.turns % 3 == 0 else answer


class IgnoresTokens(Named):
    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        self.put(key, data)
        return Answer.DONE


class Unreachable(Named):
    def put_new(self, key: str, data: bytes, /) -> Answer:
        raise ConnectionError("no way there")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    probe.forget()
    yield
    probe.forget()


def _new(kind: type[Named]) -> Named:
    return kind(uuid.uuid4().hex)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Ignores, "ignores the condition"),
        (Races, "concurrent writers"),
        (SaysNoAndOverwrites, "its content became"),
    ],
)
def test_lies_about_put_new_are_found_out(kind: type[Named], reason: str) -> None:
    """Protects data from stores that say one thing and do another."""
    store = _new(kind)
    proof = probe.prove(store)
    assert not proof.put_new
    assert reason in proof.put_new_reason


def test_honest_stores_are_believed_also_when_answers_get_lost() -> None:
    """Protects good stores, also behind a bad network; nothing stays of the probe."""
    for kind in (Named, LosesAnswers):
        store = _new(kind)
        proof = probe.prove(store)
        assert proof.put_new, proof.put_new_reason
        assert proof.replace_if
        assert proof.consistent
        assert list(store.list("")) == []


def test_known_services_are_tried_once_and_not_raced() -> None:
    """Protects the bill of users of documented services, and still finds what is refused there."""
    proof = probe.prove(_new(Known))
    assert proof.put_new
    assert "user guide" in proof.put_new_reason
    assert "races" not in proof.put_new_reason
    assert proof.durable
    assert not any("not on the list" in note for note in proof.notes)


def test_other_lies() -> None:
    """Protects readers from late listings and writers from tokens that don't count."""
    late = probe.prove(_new(ListsLate))
    assert not late.consistent
    assert "listing" in late.consistent_reason
    swaps = probe.prove(_new(IgnoresTokens))
    assert swaps.put_new
    assert not swaps.replace_if
    assert any("token of old" in note for note in swaps.notes)


def test_a_failure_to_reach_is_no_finding() -> None:
    """Protects from a verdict that is none: an unreachable store is asked again next time."""
    store = _new(Unreachable)
    with pytest.raises(ConnectionError):
        probe.prove(store)
    assert probe._found == {}


def test_a_place_is_probed_once() -> None:
    """Protects the first seconds of every later transaction."""
    store = _new(Named)
    first = probe.prove(store)
    store.put_new = None  # type: ignore[method-assign, assignment]
    assert probe.prove(store) is first


def test_unknown_file_systems_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects odd mounts: where the name tells nothing, links are raced; nothing stays."""
    monkeypatch.setattr(localproof, "_name", lambda place: "")
    proof = LocalStore(tmp_path / "not" / "yet").probe()
    assert proof.put_new, proof.put_new_reason
    assert "16 writers" in proof.put_new_reason
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(localproof, "_name", lambda place: "tmpfs")
    assert not LocalStore(tmp_path).probe().durable
