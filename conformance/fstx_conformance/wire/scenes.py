"""What is written, how it is read with nothing of fstx where that can be, and what may lie there afterwards.

Each scene has an old state, an attempt to bring the next one, and readers and recovery that go to the
server itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fsspec

import fstx
from fstx.errors import InDoubtError, TransactionError
from fstx.stores import Store
from fstx.stores.opening import open_store
from fstx.types import Mode, OutcomeState
from fstx_conformance.wire.services import service_of

SIZE_BYTES = 5000  # more than a record takes in
LARGE_BYTES = 1 << 20  # from here on content is streamed
UPLOAD_BYTES = (8 << 20) + 1000  # two parts of an upload
_OUTCOMES = {"committed": "committed", "pending": "committed", "unknown": "doubt"}


@dataclass(frozen=True, slots=True)
class Where:
    """One place: its URL, and the options by which it is reached directly and through the proxy."""

    url: str
    honest: Mapping[str, Any]
    faulty: Mapping[str, Any]

    @property
    def protocol(self) -> str:
        return self.url.partition("://")[0]

    @property
    def path(self) -> str:
        """The URL as its file system takes it."""
        return self.url.partition("://")[2].rstrip("/")

    @property
    def store(self) -> Store:
        """The objects there, past the proxy; nothing is cached, each call is one request."""
        return open_store(self.url, **self.honest)

    @property
    def fs(self) -> Any:
        """A file system that caches no listings and goes to the server itself."""
        return fsspec.filesystem(self.protocol, use_listings_cache=False, **self.honest)


@dataclass(frozen=True, slots=True)
class Told:
    """What a writer was told: ``committed``, ``aborted``, ``doubt``; ``lost``: an error not of fstx."""

    kind: str
    id: str = ""
    pending: bool = False
    text: str = ""


def told_of(error: Exception, id: str) -> Told:
    """What an error says."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, InDoubtError):
        return Told("doubt", id, text=text)
    if isinstance(error, TransactionError):
        return Told(_OUTCOMES.get(str(error.outcome), "aborted"), id, text=text)
    return Told("lost", id, text=text)


class Scene:
    """A target of fstx. Subclasses say what is written and how it is read.

    Parameters
    ----------
    where
        A fresh place.
    id
        The caller's, if it chooses one.
    """

    name = ""
    chained: bool | None = False  # of subjects tx::, of others (False), of any (None)
    below = ""  # where the target lies in the place
    mode: Mode = "update"
    entry: str | None = None
    require: tuple[str, ...] = ("ATOMIC_SET",)
    starts = "old"  # what a reader finds at first
    mixes = False  # until it is recovered, a reader may find a mixture

    def __init__(self, where: Where, id: str | None = None) -> None:
        self.where = where
        self.id = id
        self.url = self.below.format(where.url)
        self.before = "nothing"  # what the fresh commit found

    def files(self, value: str) -> dict[str, bytes]:
        """What is written for a value."""
        raise NotImplementedError

    def found(self) -> dict[str, bytes]:
        """What a reader finds by going in where readers do; empty: nothing."""
        raise NotImplementedError

    # --- writing --------------------------------------------------------------------------------------

    def prepare(self, *, known: bool = False) -> None:
        """The old state, written without faults; with `known` the writer's client has seen one before it."""
        base = "nothing"
        if known and self.starts == "old":
            self.write("older", base, self.where.honest)
            base = "older"
        if known:
            self._begin(self.where.faulty, self.mode, None).rollback()
        if self.starts == "old":
            self.write("old", base, self.where.honest)

    def attempt(self, value: str) -> Told:
        """Write through the proxy."""
        known = ""
        try:
            tx = self._begin(self.where.faulty, self.mode, self.id)
            known = tx.id
            with tx:
                self._stage(tx, value, self.starts)
                snapshot = tx.commit()
        except Exception as error:  # noqa: BLE001 - judged by the caller
            return told_of(error, known)
        return Told("committed", known, snapshot.pending, snapshot.reason)

    def write(
        self, value: str, base: str, options: Mapping[str, Any], *, mode: Mode | None = None
    ) -> None:
        """Write over `base`; what goes wrong is raised."""
        tx = self._begin(options, mode or self.mode, None)
        with tx:
            self._stage(tx, value, base)

    def again(self, value: str) -> None:
        """A fresh commit after all that was, directly. It removes nothing.

        A name that one transaction made and a later one removed is open to late requests of the first:
        a stated limit of plain names.
        """
        self.before = self.look()
        self.write(value, "nothing", self.where.honest)

    def _begin(self, options: Mapping[str, Any], mode: Mode, id: str | None) -> Any:
        return fstx.begin(
            self.url, mode=mode, entry=self.entry, require=self.require, id=id, **options
        )

    def _stage(self, tx: Any, value: str, base: str) -> None:
        files = self.files(value)
        if base != "nothing" and self.mode == "update":
            for path in self.files(base):
                if path not in files:
                    tx.remove(path)
        for path in sorted(files, key=lambda path: path == self.entry):
            data = files[path]
            if len(data) < LARGE_BYTES:
                tx.stage(path, data)
                continue
            with tx.open(path) as file:
                for start in range(0, len(data), LARGE_BYTES):
                    file.write(data[start : start + LARGE_BYTES])

    # --- afterwards -----------------------------------------------------------------------------------

    def look(self) -> str:
        """``old``, ``new``, ``newer``, ``nothing``, or what a mixture is made of."""
        found = self.found()
        for value in ("older", "old", "new", "newer"):
            if found == self.files(value):
                return value
        if not found:
            return "nothing"
        left = self.files(self.before) if self.before in ("old", "new") else {}
        if found == {**left, **self.files("newer")}:
            return "newer"
        return "a mixture: " + ", ".join(f"{p} {_named(d)}" for p, d in sorted(found.items()))

    def outcome(self, id: str) -> OutcomeState:
        """What the storage says became of it."""
        return fstx.outcome(self.url, id, **self.where.honest)

    def recover(self, **options: Any) -> None:
        """Settle what was left."""
        fstx.recover(self.url, **self.where.honest, **options)

    def tidy(self) -> None:
        """All that nobody needs goes, nothing being on its way any more."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Objects that nothing needs, and uploads that are open."""
        return [*self.unneeded(), *open_uploads(self.where)]

    def unneeded(self) -> list[str]:
        """Objects that nothing needs."""
        raise NotImplementedError


def _named(data: bytes) -> str:
    return data[:12].decode(errors="replace")


def body(value: str, name: str, size_bytes: int = SIZE_BYTES) -> bytes:
    """Content that says of which value it is; no two values share a block."""
    line = f"{value}|{name}|".encode()
    return (line * (size_bytes // len(line) + 1))[:size_bytes]


class Versioned(Scene):
    """A dataset of ``tx::``: own objects, a small one, and one record."""

    name, chained, below = "versions", True, "tx::{}"

    def files(self, value: str) -> dict[str, bytes]:
        made = {name: body(value, name) for name in ("a", "d/b")}
        return {**made, f"d/{value}": body(value, "own", 3000), "small": value.encode()}

    def found(self) -> dict[str, bytes]:
        found = fstx.dataset(self.url, **self.where.honest).snapshot()
        return {path: found.read(path) for path in found.paths()}

    def tidy(self) -> None:
        found = fstx.dataset(self.url, **self.where.honest)
        found.collect(keep=1, older_than_s=0, dry_run=False)

    def unneeded(self) -> list[str]:
        dataset = fstx.dataset(self.url, **self.where.honest)
        needed = {f".fstx/{entry.key}" for _, entry in dataset.snapshot().items()}
        found = [info.key for info in self.where.store.list(".fstx/data/")]
        return [key for key in found if key not in needed]


class Plain(Scene):
    """Plain names: read with the storage's own client."""

    @property
    def target(self) -> str:
        return self.url.rpartition("/")[2]

    def tidy(self) -> None:
        self.recover(lease_s=0, late_s=0)

    def unneeded(self) -> list[str]:
        """What lies beside the content: in the home only the marker and the log."""
        before = [] if self.before == "nothing" else self.files(self.before)
        own = {f"{self.target}/{name}" for name in (*self.found(), *before)}
        kept = (".fstx/log/", ".fstx/boundary/", ".fstx/home.json")
        found = [info.key for info in self.where.store.list("")]
        found = [key for key in found if not key.endswith("/=gone")]  # goes after a day
        return [key for key in found if key not in own and not key.startswith(kept)]

    def _read(self, name: str) -> bytes | None:
        try:
            return self.where.store.get(f"{self.target}/{name}")
        except FileNotFoundError:
            return None


class EntryDocument(Plain):
    """An index that names its parts by names of their own: published by one put."""

    name, below, entry = "entry", "{}/scene", "index.json"

    def files(self, value: str) -> dict[str, bytes]:
        parts = [f"{value}/{n}" for n in range(2)]
        made = {name: body(value, name) for name in parts}
        return {**made, "index.json": json.dumps({"value": value, "parts": parts}).encode()}

    def found(self) -> dict[str, bytes]:
        index = self._read("index.json")
        if index is None:
            return {}
        found = {"index.json": index}
        for name in json.loads(index)["parts"]:
            found[name] = self._read(name) or b"missing"
        return found


class RootLast(Plain):
    """A new directory whose root document is put last."""

    name, below, entry = "create", "{}/tree", "root.json"
    mode, starts = "create", "nothing"

    def files(self, value: str) -> dict[str, bytes]:
        made = {name: body(value, name) for name in ("c/0", "c/1")}
        return {**made, "root.json": json.dumps({"value": value}).encode()}

    def found(self) -> dict[str, bytes]:
        if self._read("root.json") is None:
            return {}
        return {name: self._read(name) or b"missing" for name in self.files("old")}

    def again(self, value: str) -> None:
        self.before = self.look()
        if self.before == "nothing":
            self.write(value, "nothing", self.where.honest)
        else:  # a tree that is there is replaced in place only
            self.require = ("RECOVERABLE",)
            self.write(value, "nothing", self.where.honest, mode="replace")


class InPlace(Plain):
    """Names that stay: each object is whole, the set may mix until it is finished or recovered."""

    name, below = "in-place", "{}/files"
    require, mixes = ("RECOVERABLE",), True

    def files(self, value: str) -> dict[str, bytes]:
        return {name: body(value, name) for name in ("a", "b", "d/c")}

    def found(self) -> dict[str, bytes]:
        found = {name: self._read(name) for name in self.files("old")}
        return {name: data for name, data in found.items() if data is not None}


class StreamedVersions(Versioned):
    """A dataset with an object of several parts."""

    name = "streamed-versions"

    def files(self, value: str) -> dict[str, bytes]:
        return {"big": body(value, "big", UPLOAD_BYTES), "small": value.encode()}


class StreamedEntry(EntryDocument):
    """Parts of an index, one of them an object of several parts."""

    name = "streamed-entry"

    def files(self, value: str) -> dict[str, bytes]:
        name = f"{value}/big"
        index = json.dumps({"value": value, "parts": [name]}).encode()
        return {name: body(value, name, UPLOAD_BYTES), "index.json": index}


def open_uploads(where: Where) -> list[str]:
    """Uploads that hold parts and were neither completed nor aborted (S3)."""
    if service_of(where.url) != "s3":
        return []
    bucket, _, prefix = where.path.partition("/")
    fs = where.fs
    answer = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
    found = []
    for upload in answer.get("Uploads") or ():
        named = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
        if fs.call_s3("list_parts", **named).get("Parts"):  # without one it holds nothing
            found.append(f"open upload of {upload['Key']}")
    return found


SCENES = (Versioned, EntryDocument, RootLast, InPlace)
STREAMED = (StreamedVersions, StreamedEntry)

__all__ = [
    "SCENES",
    "STREAMED",
    "EntryDocument",
    "InPlace",
    "Plain",
    "RootLast",
    "Scene",
    "StreamedEntry",
    "StreamedVersions",
    "Told",
    "Versioned",
    "Where",
    "body",
    "open_uploads",
    "told_of",
]
