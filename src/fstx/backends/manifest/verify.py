"""Whether all that a dataset's versions need is there, as it was committed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from fstx.backends.manifest.dataset import Dataset, check_marker
from fstx.backends.manifest.log import Head
from fstx.backends.manifest.names import DATA, LOG, MARKER, NODE, log_key, seq_of, split_attempt
from fstx.backends.manifest.reach import Shown
from fstx.backends.manifest.reports import Problem, Verification
from fstx.backends.manifest.survey import CHANGES, THREADS, alive, read_many
from fstx.errors import RecoveryError
from fstx.state.entries import Entry, checksum
from fstx.state.nodes import NodeRef
from fstx.state.records import Record
from fstx.state.tree import Tree
from fstx.state.view import State

_READ_BYTES = 8 << 20
_TRIES = 3
_SUM = re.compile(r"[cz][0-9a-f]{8}")

Progress = Callable[[int, int], None]


@dataclass
class _Seen:
    """What one pass saw."""

    problems: dict[tuple[str, str], Problem] = field(default_factory=dict)
    records: int = 0
    paths: int = 0
    size_bytes: int = 0
    unchecked: int = 0

    def add(self, key: str, what: str, needed_by: str = "") -> None:
        self.problems.setdefault((key, what), Problem(key, what, needed_by))


class Verifier:
    """One check of one dataset; finds all damage and raises for none.

    Parameters
    ----------
    dataset
        The dataset.
    version
        Only this one; None: all that are kept.
    data
        True: also read all data and compare checksums.
    progress
        Gets (done, total) of paths and objects; the total grows.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        version: int | None = None,
        data: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._dataset = dataset
        self._store = dataset.store
        self._version = version
        self._data = data
        self._progress = progress
        self._sizes: dict[str, int] = {}
        self._done = self._total = 0

    def run(self) -> Verification:
        """Check; a collection that passes meanwhile is no damage."""
        for turn in range(_TRIES):
            found, state = self._pass()
            if found.ok or turn == _TRIES - 1:
                return found
            try:
                now = self._dataset.log.newest().state
            except RecoveryError:
                return found
            if (now.oldest, now.extra) == (state.oldest, state.extra):
                return found
        raise AssertionError("the loop ends by returning")

    def _pass(self) -> tuple[Verification, State]:
        seen = _Seen()
        self._marker(seen)
        heads = self._records(seen)
        newest = heads[max(heads)] if heads else Head()
        chosen = self._choose(seen, heads, newest)
        needed, nodes = self._entries(seen, chosen)
        self._objects(seen, needed, nodes)
        if self._data:
            self._compare(seen, needed)
        changes = [
            s
            for s, head in chosen.items()
            if head.record is not None and head.record.kind in CHANGES
        ]
        return (
            Verification(
                url=f"tx::{self._dataset.url}",
                versions=tuple(changes),
                records=seen.records,
                nodes=len(nodes),
                paths=seen.paths,
                objects=len(needed),
                size_bytes=seen.size_bytes,
                unchecked=seen.unchecked,
                problems=tuple(seen.problems.values()),
            ),
            newest.state,
        )

    def _choose(self, seen: _Seen, heads: dict[int, Head], newest: Head) -> dict[int, Head]:
        if self._version is None:
            return {s: head for s, head in heads.items() if alive(newest.state, s)}
        if self._version not in heads or not alive(newest.state, self._version):
            if self._version:
                seen.add(log_key(self._version), f"there is no version {self._version}")
            return {}
        return {self._version: heads[self._version]}

    # --- the log ------------------------------------------------------------------------------------

    def _marker(self, seen: _Seen) -> None:
        try:
            check_marker(self._store.get(MARKER), MARKER, "dataset")
        except FileNotFoundError:
            seen.add(MARKER, "is missing: readers don't find the dataset by its place")
        except RecoveryError as error:
            seen.add(MARKER, str(error))

    def _records(self, seen: _Seen) -> dict[int, Head]:
        log = self._dataset.log
        seqs = [s for s in (seq_of(i.key) for i in self._store.list(LOG)) if s is not None]
        boundary = log.boundary()
        if not seqs or max(seqs) <= boundary:
            if boundary:
                seen.add(LOG, f"has no record after the boundary {boundary}")
            return {}
        self._expect(max(seqs) - boundary)
        heads: dict[int, Head] = {}
        before: Head | None = None
        for seq, head in read_many(log, range(boundary + 1, max(seqs) + 1)):
            self._tell(1)
            seen.records += 1
            if isinstance(head, RecoveryError):
                seen.add(log_key(seq), str(head))
            elif head is None and log.boundary() < seq:
                seen.add(log_key(seq), "is missing")
            if not isinstance(head, Head):
                before = None
                continue
            if before is not None or seq == 1:
                self._follows(seen, before or Head(), head)
            heads[seq] = before = head
        return heads

    def _follows(self, seen: _Seen, before: Head, head: Head) -> None:
        """Whether a record's state is the state after the record before it."""
        record = head.record
        assert record is not None
        key = log_key(head.seq)
        if record.prev != before.digest:
            seen.add(key, f"does not follow record {before.seq}: one of the two was replaced")
            return
        old, new = before.state, record.state
        if new.oldest < old.oldest or new.floor < old.floor:
            seen.add(key, "takes back what was retired or given up before it")
        if record.kind in CHANGES and (new.oldest, dict(new.fenced)) != (
            old.oldest,
            dict(old.fenced),
        ):
            seen.add(key, "a commit changed what is retired or fenced")
        if record.kind == "restore" or record.own_in_tree or new.root == old.root:
            if record.kind != "restore" and new.root == old.root and new.tail != old.tail:
                seen.add(key, "its state is not the one after the record before it")
            return
        self._flush(seen, key, old, record)

    def _flush(self, seen: _Seen, key: str, old: State, record: Record) -> None:
        """A tree that took up the small changes holds these and nothing else."""
        store, cache = self._store, self._dataset.cache
        fresh = Tree(record.state.root, store.get, cache)
        try:
            changed = list(Tree(old.root, store.get, cache).differences(fresh))
        except (FileNotFoundError, RecoveryError):
            return  # retired and collected, or damaged: told where the nodes are read
        tail = old.tail
        for path, was, now in changed:
            wanted = tail.puts.get(path, None if tail.covers(path) else was)
            if now != wanted:
                seen.add(key, f"its tree is not the one before with its changes: {path!r} differs")
                return
        different = {path for path, _, _ in changed}
        for path, entry in tail.puts.items():
            if path not in different and fresh.get(path) != entry:
                seen.add(key, f"its tree lacks a change of before: {path!r}")
                return

    # --- what versions need ---------------------------------------------------------------------------

    def _entries(
        self, seen: _Seen, chosen: dict[int, Head]
    ) -> tuple[dict[str, tuple[int, str]], set[NodeRef]]:
        """Needed data objects with the least size that they must have, and the nodes that were read."""
        needed: dict[str, tuple[int, str]] = {}
        failed: set[NodeRef] = set()
        version = 0

        def lost(ref: NodeRef, error: Exception) -> None:
            failed.add(ref)
            what = "is missing" if isinstance(error, FileNotFoundError) else str(error)
            at = f"node at {ref.offset}, {ref.length} bytes, of version {version}"
            seen.add(ref.key, what, at)

        shown = Shown(
            self._dataset,
            lambda path, entry: self._need(seen, needed, path, entry),
            lost,
            self._read_paths,
        )
        for head in reversed(chosen.values()):
            version = head.seq
            shown.add(head.state)
            shown.walk()
        return needed, shown.seen - failed

    def _need(
        self, seen: _Seen, needed: dict[str, tuple[int, str]], path: str, entry: Entry
    ) -> None:
        seen.paths += 1
        if not entry.key:
            return
        # whole objects: exactly that size, told apart by the sign
        size = -entry.size_bytes - 1 if entry.offset is None else entry.offset + entry.size_bytes
        old = needed.get(entry.key)
        if old is None or (old[0] >= 0 and size >= 0 and size > old[0]):
            needed[entry.key] = (size, path)
        elif old[0] < 0 and size < 0 and old[0] != size:
            seen.add(entry.key, "two paths give it different sizes", f"{old[1]}, {path}")

    def _objects(
        self, seen: _Seen, needed: dict[str, tuple[int, str]], nodes: set[NodeRef]
    ) -> None:
        """Compare with what the storage lists."""
        left = set(needed)
        for info in self._store.list(DATA):
            wanted = needed.get(info.key)
            if wanted is None:
                continue
            left.discard(info.key)
            self._sizes[info.key] = info.size_bytes
            size, path = wanted
            if (size < 0 and info.size_bytes != -size - 1) or info.size_bytes < size:
                told = -size - 1 if size < 0 else size
                seen.add(info.key, f"has {info.size_bytes} bytes, not {told}", path)
        for key in sorted(left):
            seen.add(key, "is missing", needed[key][1])
        packs = {ref.key for ref in nodes}
        if packs:
            listed = {info.key for info in self._store.list(NODE)}
            for key in sorted(packs - listed):
                seen.add(key, "is not listed, though it can be read")

    # --- data -----------------------------------------------------------------------------------------

    def _compare(self, seen: _Seen, needed: dict[str, tuple[int, str]]) -> None:
        missing = {key for key, _ in seen.problems}
        keys = sorted(key for key in needed if key not in missing)
        self._expect(len(keys))
        with ThreadPoolExecutor(THREADS, thread_name_prefix="fstx-verify") as pool:
            for start in range(0, len(keys), 64):
                part = keys[start : start + 64]
                for key, result in zip(part, pool.map(self._read, part), strict=True):
                    self._tell(1)
                    what, size_bytes = result
                    seen.size_bytes += size_bytes
                    if what == "unchecked":
                        seen.unchecked += 1
                    elif what:
                        seen.add(key, what, needed[key][1])

    def _read(self, key: str) -> tuple[str, int]:
        """What is wrong with an object, and its size. The checksum stands in its name."""
        split = split_attempt(key.rpartition("~")[2])
        wanted = split[1] if split else ""
        total = self._sizes[key]

        def pieces() -> Iterator[bytes]:
            for start in range(0, total, _READ_BYTES):
                yield self._store.get(key, start, min(start + _READ_BYTES, total))

        try:
            if not _SUM.fullmatch(wanted):
                for _ in pieces():
                    pass
                return "unchecked", total
            if wanted[0] == "z":
                value = 0
                for piece in pieces():
                    value = zlib.crc32(piece, value)
                found = f"z{value:08x}"
            else:
                found = checksum(pieces())
        except FileNotFoundError:
            return "is missing", 0
        if found[0] != wanted[0]:
            return "unchecked", total
        return ("" if found == wanted else "is damaged: its checksum is another one"), total

    # --- progress -------------------------------------------------------------------------------------

    def _read_paths(self, count: int) -> None:
        self._expect(count)
        self._tell(count)

    def _expect(self, count: int) -> None:
        self._total += count

    def _tell(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)


__all__ = ["Verifier"]
