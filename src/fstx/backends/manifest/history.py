"""A dataset's versions as callers see them: log, snapshots, restore, collection, verification."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from fstx.backends.manifest.collect import OLDER_THAN_S, Collector
from fstx.backends.manifest.dataset import Dataset, Version
from fstx.backends.manifest.keeping import Keep
from fstx.backends.manifest.pins import TTL_S, Holder, Pin, drop_pin, gone, pins_of, put_pin
from fstx.backends.manifest.reference import write_reference
from fstx.backends.manifest.reports import (
    Collection,
    LogEntries,
    LogEntry,
    Pinned,
    Verification,
)
from fstx.backends.manifest.restore import restore
from fstx.backends.manifest.survey import CHANGES, alive, read_many
from fstx.backends.manifest.verify import Progress, Verifier
from fstx.errors import RecoveryError, UsageError
from fstx.paths import check_path
from fstx.state.entries import Entry
from fstx.types import Snapshot

_BATCH = 16


class OpenSnapshot:
    """One version of a dataset: it never changes.

    ``with dataset.snapshot(3) as s:`` pins it: it stays readable in the block whatever is committed and
    collected. A pin needs write access. Without the block it can be read as long as the version is kept.
    Pickles; whoever unpickles it relies on the pin of the block, or on what is kept.
    """

    def __init__(
        self,
        dataset: Dataset,
        version: Version,
        *,
        prefix: str = "",
        url: str = "",
        options: Mapping[str, Any] | None = None,
        ttl_s: float = TTL_S,
    ) -> None:
        self._dataset = dataset
        self._view = version
        self._prefix = prefix
        self._url = url or f"tx::{dataset.url}"
        self._options = dict(options or {})
        self._ttl_s = ttl_s
        self._holders: list[Holder] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        held = ", pinned" if self._holders else ""
        return f"<snapshot {self.version} of {self._url}{held}>"

    def __reduce__(self) -> tuple[Any, ...]:
        store = self._dataset.store
        return (_snapshot, (store, self.version, self._prefix, self._url, self._options))

    @property
    def version(self) -> int:
        """Its number; 0: nothing was committed yet."""
        return self._view.version

    @property
    def url(self) -> str:
        """For fsspec, together with `storage_options`: ``fsspec.open(s.url + "/a", **s.storage_options)``."""
        return self._url

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options by which fsspec reads this version at `url`; they hold what the dataset was opened with."""
        own = {**self._options.get("tx", {}), "version": self.version}
        return {**self._options, "tx": own}

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of a path.

        Raises
        ------
        FileNotFoundError
            The version has no such path, or it was retired and collected, as the message says.
        """
        entry = self._view.get(self._full(check_path(path)))
        if entry is None or entry.directory:
            raise FileNotFoundError(f"{path!r} is not in version {self.version} of {self._url}")
        with _Reading(self):
            return self._dataset.read(entry, start, stop)

    def paths(self, prefix: str = "") -> Iterator[str]:
        """Paths of the files at `prefix` and below, sorted."""
        for path, entry in self.items(prefix):
            if not entry.directory:
                yield path

    def items(self, prefix: str = "") -> Iterator[tuple[str, Entry]]:
        """Paths and entries (`size_bytes`, ...) at `prefix` and below, sorted; also empty directories."""
        where = self._full(check_path(prefix)) if prefix else self._prefix
        skip = len(self._prefix) + 1 if self._prefix else 0
        with _Reading(self):
            for path, entry in self._view.items(where):
                if len(path) > skip or not skip:
                    yield path[skip:], entry

    def children(self, directory: str = "") -> Iterator[tuple[str, Entry | None]]:
        """Names directly below, sorted; None for a directory that holds something."""
        where = self._full(check_path(directory)) if directory else self._prefix
        with _Reading(self):
            yield from self._view.children(where)

    def get(self, path: str) -> Entry | None:
        """The entry of a path, or None."""
        with _Reading(self):
            return self._view.get(self._full(check_path(path)))

    def itself(self) -> Entry | None:
        """The entry of the place that paths are relative to, where that is a file."""
        with _Reading(self):
            return self._view.get(self._prefix) if self._prefix else None

    def is_dir(self, path: str = "") -> bool:
        """Whether something lies below `path`."""
        with _Reading(self):
            return self._view.is_dir(self._full(check_path(path)) if path else self._prefix)

    def __contains__(self, path: str) -> bool:
        return self.get(path) is not None

    def __enter__(self) -> OpenSnapshot:
        """Pin it."""
        holder = Holder(self._dataset, self.version, self._ttl_s)
        with self._lock:
            self._holders.append(holder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        with self._lock:
            holder = self._holders.pop()
        try:
            holder.release()
        except OSError as failed:
            if error is None:
                raise
            error.add_note(f"the pin was left; it expires by itself: {failed}")

    def _full(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _explain(self) -> str | None:
        """Why something of this version is not there, where it was retired."""
        lost = next((h.lost for h in self._holders if h.lost is not None), None)
        if lost is not None:
            return str(lost)
        head = self._dataset.refresh().head
        if self.version and not alive(head.state, self.version):
            return gone(self._dataset, self.version, head.seq)
        return None


class _Reading:
    """Says of an object that is not there whether its version was retired."""

    def __init__(self, snapshot: OpenSnapshot) -> None:
        self._snapshot = snapshot

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, FileNotFoundError):
            why = self._snapshot._explain()
            if why is not None:
                raise FileNotFoundError(why) from error


def _snapshot(
    store: Any, version: int, prefix: str, url: str, options: Mapping[str, Any]
) -> OpenSnapshot:
    from fstx.backends.manifest.dataset import dataset_of

    dataset = dataset_of(store)
    return OpenSnapshot(dataset, dataset.view(version), prefix=prefix, url=url, options=options)


class VersionedDataset:
    """The versions of one dataset. Reads the log anew at each call.

    Parameters
    ----------
    dataset
        The dataset.
    prefix
        The place in it that paths are relative to; versions are those of the whole dataset.
    url
        As the caller gave it.
    options
        Storage options that it was opened with, as fsspec takes them.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        prefix: str = "",
        url: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._dataset = dataset
        self._prefix = prefix
        self._url = url or f"tx::{dataset.url}"
        self._options = dict(options or {})

    def __repr__(self) -> str:
        return f"<dataset {self._url}, version {self.version}>"

    @property
    def url(self) -> str:
        """As it was given, with ``tx::``."""
        return self._url

    @property
    def prefix(self) -> str:
        """The place in the dataset that paths are relative to; "" for its root."""
        return self._prefix

    @property
    def root(self) -> str:
        """URL of the dataset's root, without ``tx::``."""
        return self._dataset.url

    @property
    def version(self) -> int:
        """Number of the newest version; 0: nothing was committed yet."""
        head = self._dataset.refresh().head
        while head.record is not None and head.record.kind not in CHANGES:
            before = self._dataset.log.read(head.seq - 1) if head.seq > 1 else None
            if before is None or not alive(head.state, before.seq):
                break
            head = before
        return head.seq

    def log(self, limit: int | None = None, *, retired: bool = False) -> LogEntries:
        """Versions, newest first.

        Parameters
        ----------
        limit
            At most so many.
        retired
            True: also those that can't be read any more, as far as the log still has them.
        """
        if limit is not None and limit < 0:
            raise UsageError(f"limit={limit}; it is a number of versions")
        head = self._dataset.refresh().head
        boundary = self._dataset.log.boundary()
        rows: list[LogEntry] = []
        seqs = range(head.seq, boundary, -1)
        for start in range(0, len(seqs), _BATCH):
            if limit is not None and len(rows) >= limit:
                break
            for seq, found in read_many(self._dataset.log, seqs[start : start + _BATCH]):
                if isinstance(found, RecoveryError):
                    raise found
                record = None if found is None else found.record
                kept = alive(head.state, seq)
                if record is not None and record.kind in CHANGES and (kept or retired):
                    rows.append(
                        LogEntry(
                            seq,
                            record.when_s,
                            record.writer,
                            record.message,
                            record.paths,
                            record.size_bytes,
                            record.txid,
                            record.kind,
                            not kept,
                        )
                    )
        return LogEntries(rows if limit is None else rows[:limit])

    def snapshot(self, version: int | None = None, *, ttl_s: float = TTL_S) -> OpenSnapshot:
        """A handle to one version, the newest one by default.

        Parameters
        ----------
        version
            Its number.
        ttl_s
            How long the pin of a ``with`` block outlives its reader, should that be killed.

        Raises
        ------
        FileNotFoundError
            There is no such version, or it was retired.
        """
        return OpenSnapshot(
            self._dataset,
            self._dataset.view(version),
            prefix=self._prefix,
            url=self._url,
            options=self._options,
            ttl_s=ttl_s,
        )

    def restore(self, version: int, *, message: str | None = None) -> Snapshot:
        """Commit what a version holds as the newest one. Nothing is copied, and no version goes.

        Ids of transactions that were committed since stay known: a job that ran is not run again.

        Raises
        ------
        ConflictError
            Something was committed while this ran.
        FileNotFoundError
            There is no such version, or it was retired.
        UsageError
            The handle is one of a part of the dataset.
        """
        if self._prefix:
            raise UsageError(
                f"{self._url} is a part of the dataset {self.root}; a version is restored as a whole: "
                f"open tx::{self.root}"
            )
        return restore(self._dataset, version, message)

    def collect(
        self,
        keep: Keep = None,
        *,
        older_than_s: float = OLDER_THAN_S,
        dry_run: bool = True,
        progress: Progress | None = None,
    ) -> Collection:
        """Remove what no kept or pinned version needs; by default only say what would be removed.

        Writers and readers may go on meanwhile. Retired versions can't be read any more, but for those
        who pinned them. Interrupted at any moment, the next call finishes it.

        Parameters
        ----------
        keep
            So many newest versions, those of a ``timedelta``, or a list of versions; the newest one always
            stays. None: no version goes, only what unfinished and dead writers left.
        older_than_s
            Writers that staged nothing for so long are given up: should one live, its commit raises
            `FencedError`.
        dry_run
            False: do it.
        progress
            Gets (done, total).

        Returns
        -------
        Collection
            What was, or would be, removed; as text a summary.
        """
        collector = Collector(
            self._dataset, keep=keep, older_than_s=older_than_s, progress=progress
        )
        return collector.plan() if dry_run else collector.run()

    def verify(
        self, version: int | None = None, *, data: bool = False, progress: Progress | None = None
    ) -> Verification:
        """Check that all is there as it was committed. Damage is reported, never raised.

        Parameters
        ----------
        version
            Only this one; by default all that are kept.
        data
            True: read all data and compare checksums. Otherwise sizes are compared.
        progress
            Gets (done, total).
        """
        return Verifier(self._dataset, version=version, data=data, progress=progress).run()

    def reference(self, version: int | None = None) -> str:
        """Write one version as a document for plain ``reference://`` readers; returns its URL.

        Good up to about 100,000 paths. It can be read as long as the version is kept.
        """
        return write_reference(self._dataset, version, self._prefix)

    # --- pins ---------------------------------------------------------------------------------------

    def pin(self, version: int | None = None, *, ttl_s: float = TTL_S) -> Pin:
        """Hold a version for `ttl_s` seconds, or until `unpin`. Needs write access.

        A ``with`` block of `snapshot` also renews it.
        """
        return put_pin(self._dataset, self.version if version is None else version, ttl_s)

    def unpin(self, pin: Pin) -> None:
        """Let a version go."""
        drop_pin(self._dataset, pin)

    def pins(self) -> tuple[Pinned, ...]:
        """All pins that lie in the storage."""
        return tuple(Pinned(p.version, str(p), p.reader) for p in pins_of(self._dataset))


__all__ = ["OpenSnapshot", "VersionedDataset"]
