"""Large objects that are put on condition: on each service, with what lies there already."""

from __future__ import annotations

import pytest

from fstx.stores import Answer
from fstx.stores.opening import open_store
from fstx.stores.remote import RemoteStore
from support.emulators import Place

LARGE = bytes(range(256)) * (50 << 10)  # 12.5 MiB: two parts


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # of Azure's client
@pytest.mark.parametrize("size", [0, 100, 8 << 20, len(LARGE)])
def test_only_on_condition(remote_place: Place, size: int) -> None:
    """Protects other programs' objects from large ones: absent, as known, or not at all."""
    store = open_store(remote_place.url, **remote_place.options)
    assert isinstance(store, RemoteStore)
    for other in (False, True):
        key = f"k{int(other)}"
        data = LARGE[:size]
        writer = store.open_if(key, None)
        writer.write(data)
        if other:
            store.put(key, b"theirs")
        assert writer.close() is (Answer.TAKEN if other else Answer.DONE)
        assert store.get(key) == (b"theirs" if other else data)
        before = store.info(key)
        assert before is not None
        writer = store.open_if(key, None)
        writer.write(data)
        assert writer.close() is Answer.TAKEN
        writer = store.open_if(key, before.token)
        writer.write(data[1:] + b"new")
        assert writer.close() is Answer.DONE
        assert store.get(key) == data[1:] + b"new"
        writer = store.open_if(key, before.token)
        writer.write(data)
        assert writer.close() is Answer.TAKEN
        assert store.get(key) == data[1:] + b"new"
    if hasattr(store.link.service, "open_uploads"):
        assert store.tidy(-10) == 0  # none is left open
