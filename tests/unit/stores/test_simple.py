"""A store out of five calls carries transactions; one that lies is refused."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator

import pytest

from fstx.backends.manifest import Dataset, ManifestBackend
from fstx.errors import CapabilityError, PathError
from fstx.stores import Answer, Info, Store
from fstx.stores.simple import SimpleStore
from fstx.types import Buffer


class Dictionary(SimpleStore):
    """Objects in a dictionary; `lies`: the condition is ignored."""

    def __init__(self, *, lies: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.lies = lies
        self.name = uuid.uuid4().hex
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"dictionary://{self.name}"

    def put_new(self, key: str, data: bytes, /) -> Answer:
        with self.lock:
            if key in self.objects and not self.lies:
                return Answer.TAKEN
            self.objects[key] = data
            return Answer.DONE

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        self.objects[key] = bytes(data)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key][start:stop]

    def list(self, prefix: str, /) -> Iterator[Info]:
        found = sorted(k for k in list(self.objects) if k.startswith(prefix))
        return (Info(k, len(self.objects[k])) for k in found)

    def delete(self, keys: Iterable[str], /) -> None:
        for key in keys:
            self.objects.pop(key, None)


def test_five_calls_are_enough() -> None:
    """Protects third parties: the contract is met, and a transaction lands, large objects included."""
    store = Dictionary()
    assert isinstance(store, Store)
    backend = ManifestBackend(store.below("ds/.fstx"))
    with backend.begin(mode="update", durability="data", require=frozenset()) as tx:
        tx.stage("a", b"one")
        with tx.open("big") as file:
            for _ in range(5):
                file.write(bytes(4 << 20))
    dataset = Dataset(store.below("ds/.fstx"))
    assert {p: e.size_bytes for p, e in dataset.view().items()} == {"a": 3, "big": 20 << 20}
    assert not any("probe" in key for key in store.objects)


def test_a_lie_is_found_out() -> None:
    """Protects data: a store that overwrites when it must not is refused before a byte is staged."""
    store = Dictionary(lies=True)
    with pytest.raises(CapabilityError, match="no transaction can be committed here"):
        ManifestBackend(store).begin(mode="update", durability="data", require=frozenset())
    assert store.objects == {}


def test_what_was_proven_is_known_for_all_parts_of_a_store() -> None:
    """Protects commits from being slow: one process tries a store once, whichever part it asks about."""
    store = Dictionary()
    tried: list[str] = []
    put_new = store.put_new
    store.put_new = lambda key, data: tried.append(key) or put_new(key, data)  # type: ignore[method-assign]
    proof = store.below("a/.fstx").probe()
    assert proof.put_new
    assert len(tried) > 40
    count = len(tried)
    assert store.below("b/.fstx").probe() is proof
    assert store.probe() is proof
    assert len(tried) == count
    assert Dictionary().probe() is not proof


def test_keys_that_may_not_be_are_refused_for_every_store() -> None:
    """Protects third parties: their store need not check keys, none that is absolute or climbs reaches it."""
    store = Dictionary()
    part = store.below("a")
    for key in ("", "/a", "a/../b", "a//b", "a\x00"):
        with pytest.raises(PathError, match="key"):
            part.put(key, b"")
        with pytest.raises(PathError, match="key"):
            part.put_new(key, b"")
        with pytest.raises(PathError, match="key"):
            part.get(key)
    assert store.objects == {}
