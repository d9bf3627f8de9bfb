"""A writer as it is often written: data, then a manifest that is created, and a rollback on any error.

The yardstick of the sweep on the wire: the client repeats a request whose answer was lost, is told that the
manifest is there already, and the rollback deletes the data of a manifest that was published.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

import fsspec

from fstx.types import OutcomeState
from fstx_conformance.wire.scenes import Scene, Told, body


class NaiveManifest(Scene):
    """Data objects under names of their own, then ``manifests/<n>.json`` by ``pipe_file(mode="create")``.

    The newest manifest counts. Whatever is raised before the end rolls back.
    """

    name, chained, below = "naive-manifest", None, "{}"

    def files(self, value: str) -> dict[str, bytes]:
        return {name: body(value, name) for name in ("a", "b", "c")}

    def found(self) -> dict[str, bytes]:
        fs = self.where.fs
        newest = max(self._manifests(fs), default=None)
        if newest is None:
            return {}
        named = json.loads(fs.cat_file(f"{self.where.path}/manifests/{newest}"))
        return {name: fs.cat_file(key) if fs.exists(key) else b"" for name, key in named.items()}

    def write(
        self, value: str, base: str, options: Mapping[str, Any], *, mode: object = None
    ) -> None:
        fs = fsspec.filesystem(self.where.protocol, use_listings_cache=False, **options)
        mine = secrets.token_hex(8)
        put: list[str] = []
        try:
            number = len(self._manifests(fs)) + 1
            named = {}
            for name, data in self.files(value).items():
                named[name] = f"{self.where.path}/data/{mine}/{name}"
                fs.pipe_file(named[name], data)
                put.append(named[name])
            manifest = f"{self.where.path}/manifests/{number:08}.json"
            fs.pipe_file(manifest, json.dumps(named).encode(), mode="create")
        except Exception:
            if put:
                fs.rm(put)
            raise

    def attempt(self, value: str) -> Told:
        try:
            self.write(value, self.starts, self.where.faulty)
        except Exception as error:  # noqa: BLE001 - it rolled back, whatever it was
            return Told("aborted", text=f"{type(error).__name__}: {error}")
        return Told("committed")

    def _manifests(self, fs: Any) -> list[str]:
        folder = f"{self.where.path}/manifests"
        found = fs.find(folder)
        return [path.rpartition("/")[2] for path in found]

    # --- it has no recovery ---------------------------------------------------------------------------

    def outcome(self, id: str) -> OutcomeState:
        return OutcomeState.UNKNOWN

    def recover(self, **options: Any) -> None:
        return None

    def tidy(self) -> None:
        return None

    def unneeded(self) -> list[str]:
        return []  # what it leaves behind is not held against it


__all__ = ["NaiveManifest"]
