"""The finished units of a job, by id, and who wrote which path."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, KeysView, Mapping
from typing import Any

from fstx.resuming.units import Unit, decode_records, text_in, unit_of
from fstx.types import StagedObject

_BATCH = 1000


class Ledger(Mapping[str, Unit]):
    """A job may have 10^5 units, so each is kept as the text of its record and made when it is asked for.

    Text is nothing that the garbage collector looks at, again and again, while the job goes on.
    """

    def __init__(self, token: str) -> None:
        self._token = token
        self._texts: dict[str, bytes] = {}
        self._owner: dict[str, str] = {}

    def copy(self) -> Ledger:
        """As it is now."""
        made = Ledger(self._token)
        made._texts, made._owner = dict(self._texts), dict(self._owner)
        return made

    def add(self, value: Mapping[str, Any], text: bytes) -> None:
        """Take the record of a unit that is not here."""
        id = value["unit"]
        self._texts[id] = text
        for row in value["objects"]:
            self._owner[row[0]] = id

    def keep(self, id: str, objects: Iterable[StagedObject], line: bytes) -> None:
        """Take a unit that was finished, and its line."""
        self._texts[id] = text_in(line)
        for one in objects:
            self._owner[one.path] = id

    def drop(self, id: str) -> list[StagedObject]:
        """Forget a unit; what it had."""
        unit = self[id]
        del self._texts[id]
        for kept in unit.objects:
            if self._owner.get(kept.object.path) == id:
                del self._owner[kept.object.path]
        return [kept.object for kept in unit.objects]

    def owner(self, path: str) -> str | None:
        """The unit that wrote a path."""
        return self._owner.get(path)

    def paths(self) -> list[str]:
        """Of all that units wrote."""
        return list(self._owner)

    def objects(self) -> Iterator[StagedObject]:
        """What all units have."""
        texts = iter(list(self._texts.values()))
        while batch := list(itertools.islice(texts, _BATCH)):
            for value in json.loads(b"[" + b",".join(batch) + b"]"):
                for path, key, size_bytes, _, publisher in value["objects"]:
                    yield StagedObject(path, key, size_bytes, self._token, publisher)

    def __getitem__(self, id: str) -> Unit:
        return unit_of(json.loads(self._texts[id]), self._token)

    def keys(self) -> KeysView[str]:
        """The ids; a view, which is quick to ask."""
        return self._texts.keys()

    def __contains__(self, id: object) -> bool:
        return id in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"<{len(self)} units>"


def sizes_of(lines: Iterable[bytes]) -> dict[str, int]:
    """Bytes of each unit that lines name, by id."""
    return {v["unit"]: sum(row[2] for row in v["objects"]) for v, _ in decode_records(lines)}


__all__ = ["Ledger", "sizes_of"]
