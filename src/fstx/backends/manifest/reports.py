"""What the functions of a dataset's history give back; each reads well as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

_UNITS = ((1000**4, "TB"), (1000**3, "GB"), (1000**2, "MB"), (1000, "kB"))


def size_text(size_bytes: int) -> str:
    """Bytes for people, in powers of 1000."""
    for factor, unit in _UNITS:
        if size_bytes >= 0.99995 * factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def span_text(seconds: float) -> str:
    """A length of time for people."""
    for factor, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.0f} s"


def count_text(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One version: what one commit did.

    Parameters
    ----------
    version
        Its number. Numbers grow; some are missing, as the log also holds records that change no path.
    when_s, writer, message
        As its writer said; decides nothing.
    paths, size_bytes
        Of what the commit wrote.
    txid
        Of its transaction.
    kind
        ``"commit"`` or ``"restore"``.
    retired
        True: it can't be read any more.
    """

    version: int
    when_s: float
    writer: str
    message: str
    paths: int
    size_bytes: int
    txid: str
    kind: str = "commit"
    retired: bool = False

    @property
    def when(self) -> datetime:
        """`when_s` in UTC."""
        try:
            return datetime.fromtimestamp(self.when_s, UTC)
        except (OverflowError, OSError, ValueError):
            return datetime.fromtimestamp(0, UTC)

    def __str__(self) -> str:
        wrote = f"{count_text(self.paths, 'path'):>12} {size_text(self.size_bytes):>9}"
        text = f"{self.version:>7}  {self.when:%Y-%m-%d %H:%M:%S}  {wrote}  {one_line(self.writer)}"
        if self.message:
            text += f"  {one_line(self.message)}"
        return text + ("  (retired)" if self.retired else "")


def one_line(text: str) -> str:
    """`text` without line ends and other control characters: it may come from anyone."""
    return "".join(c if c.isprintable() else " " for c in text)


class LogEntries(tuple[LogEntry, ...]):
    """Versions, newest first; as text a table."""

    __slots__ = ()

    def __new__(cls, rows: Iterable[LogEntry] = ()) -> LogEntries:
        return super().__new__(cls, tuple(rows))

    def __str__(self) -> str:
        if not self:
            return "nothing was committed yet"
        head = f"{'version':>7}  {'when (UTC)':19}  {'wrote':>22}  by"
        return "\n".join([head, *map(str, self)])

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pin that holds a version."""

    version: int
    name: str
    reader: str
    expired: bool = False

    def __str__(self) -> str:
        return f"{self.version} by {one_line(self.reader) or '?'}" + (" (expired)" * self.expired)


@dataclass(frozen=True)
class Collection:
    """What `collect` did, or with ``dry_run`` would do.

    Parameters
    ----------
    kept, retired
        Versions that stay readable, and those that don't; pinned ones are among the retired, but their
        objects stay until the pin goes.
    pins
        Those that count.
    fenced
        Transactions that are given up for dead, with the seconds since they last staged something.
    waiting
        Unfinished transactions that are left alone.
    data, nodes, records, other
        Keys that are removed: staged and superseded data, nodes of trees, records and boundaries, and of
        expired pins and reference documents of retired versions.
    size_bytes
        Of `data` and `nodes`.
    """

    url: str
    dry_run: bool
    kept: tuple[int, ...] = ()
    retired: tuple[int, ...] = ()
    pins: tuple[Pinned, ...] = ()
    fenced: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    size_bytes: int = 0
    uploads: int = 0

    def __bool__(self) -> bool:
        """True when there is something to do, or something was done."""
        return bool(
            self.retired
            or self.fenced
            or self.data
            or self.nodes
            or self.records
            or self.other
            or self.uploads
        )

    def __str__(self) -> str:
        would = "would be " if self.dry_run else ""
        lines = [f"{self.url}: {'plan of a collection' if self.dry_run else 'collected'}"]
        lines.append(f"  kept     {count_text(len(self.kept), 'version')}{_few(self.kept)}")
        if self.retired:
            lines.append(
                f"  retired  {count_text(len(self.retired), 'version')} {would}retired{_few(self.retired)}"
            )
        lines += [f"  pinned   {pin}" for pin in self.pins]
        lines += [
            f"  fenced   {txid}: idle for {span_text(idle_s)}, {would}given up"
            for txid, idle_s in self.fenced.items()
        ]
        lines += [
            f"  waiting  {txid}: staged something {span_text(idle_s)} ago, left alone"
            for txid, idle_s in self.waiting.items()
        ]
        removed = [
            count_text(len(self.data), "data object"),
            count_text(len(self.nodes), "node pack"),
            count_text(len(self.records), "record"),
        ]
        if self.other:
            removed.append(count_text(len(self.other), "other object"))
        if self.uploads:
            removed.append(count_text(self.uploads, "unfinished upload"))
        lines.append(f"  removed  {', '.join(removed)}, {size_text(self.size_bytes)}")
        if self.dry_run:
            lines[-1] = lines[-1].replace("  removed  ", "  would remove ")
        return "\n".join(lines)


def _few(versions: tuple[int, ...]) -> str:
    if not versions:
        return ""
    if len(versions) > 6:
        return f": {versions[0]}, {versions[1]}, ... {versions[-2]}, {versions[-1]}"
    return ": " + ", ".join(map(str, versions))


@dataclass(frozen=True, slots=True)
class Problem:
    """Damage: an object, what is wrong with it, and paths or versions that need it."""

    key: str
    what: str
    needed_by: str = ""

    def __str__(self) -> str:
        return f"{self.key}: {self.what}" + (f" ({self.needed_by})" if self.needed_by else "")


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Parameters
    ----------
    versions
        That were looked at.
    records, nodes, paths, objects
        How many were checked.
    size_bytes
        Of the data that was read, with ``data=True``.
    unchecked
        Objects without a checksum, or with one that can't be computed here.
    problems
        All damage.
    """

    url: str
    versions: tuple[int, ...] = ()
    records: int = 0
    nodes: int = 0
    paths: int = 0
    objects: int = 0
    size_bytes: int = 0
    unchecked: int = 0
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        text = (
            f"{self.url}: {count_text(len(self.versions), 'version')}, {count_text(self.records, 'record')}, "
            f"{count_text(self.nodes, 'node')}, {count_text(self.paths, 'path')}, "
            f"{count_text(self.objects, 'object')}"
        )
        if self.size_bytes:
            text += f", {size_text(self.size_bytes)} of data compared"
        if self.unchecked:
            text += f", {count_text(self.unchecked, 'object')} without a checksum"
        if self.ok:
            return f"{text}: all as it was committed"
        return "\n".join(
            [
                f"{text}: {count_text(len(self.problems), 'problem')}",
                *(f"  {p}" for p in self.problems),
            ]
        )
