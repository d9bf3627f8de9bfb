"""Entries as columns: what they share is written once, what is left compresses well.

A column of equal values is that value. Keys are written in full only where they don't follow from
the path: see `fstx.state.entries.data_key`. Everything decoded is checked as hostile input.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import partial
from itertools import chain, groupby, repeat
from operator import add, itemgetter, lt, sub
from typing import Any, TypeAlias

from fstx.errors import PathError, RecoveryError
from fstx.paths import CONTROL_NAME, check_path
from fstx.state.entries import OWN, Entry, escape, escape_all

Columns: TypeAlias = dict[str, Any]

MOST = 1 << 22
"""Entries of one node or record, at most."""

_ODD = re.compile(r"[^ -9;-\[\]-~]")  # control characters, a backslash, a colon, beyond ASCII
_SUSPECT = re.compile(
    r"[\x00-\x1f\x7f\\]|(?:^|/)(?:\.{1,2}|\.[fF][sS][tT][xX]|[A-Za-z]:[^/]*)?(?:/|$)"
)
_KEY = re.compile(r"(?:data|node)(?:/[A-Za-z0-9._=~+-]+)+/?")
_STEM = re.compile(r"[A-Za-z0-9._=~+-]*")
_STEMS = re.compile(r"[A-Za-z0-9._=~+ -]*")
_SUMS = re.compile(r"[A-Za-z0-9:._=+/ -]*")
_MOST_BYTES = 1 << 62
_MANY = 16
_new_entry = partial(tuple.__new__, Entry)


# --- paths ------------------------------------------------------------------------------------------


def pack_paths(paths: Sequence[str]) -> Columns:
    """Sorted paths as runs of names in one directory each."""
    parts = [path.rpartition("/") for path in paths]
    dirs: dict[str, int] = {}
    where, run = [], []
    for directory, group in groupby(parts, itemgetter(0)):
        where.append(dirs.setdefault(directory, len(dirs)))
        run.append(len(list(group)))
    return {
        "dirs": list(dirs),
        "dir": where,
        "run": run,
        "names": "/".join([part[2] for part in parts]),
    }


def unpack_paths(columns: Columns, where: str) -> list[str]:
    """The paths, each one that may be staged or one of the library's own, strictly ascending."""
    text = need(columns, "names", str, where)
    dirs = need(columns, "dirs", list, where)
    at, run = ints(columns, "dir", where), ints(columns, "run", where)
    if len(at) != len(run) or len(dirs) > MOST or not set(map(type, dirs)) <= {str}:
        raise RecoveryError(f"{where}: its paths don't fit together")
    if text.count("/") >= MOST:
        raise RecoveryError(f"{where}: it has more than {MOST} paths")
    names = text.split("/") if run else []
    if sum(run) != len(names) or (at and max(at) >= len(dirs)) or (text and not run):
        raise RecoveryError(f"{where}: its paths don't fit together")
    paths: list[str] = []
    start = 0
    for index, length in zip(at, run, strict=True):
        part = names[start : start + length]
        start += length
        above = dirs[index]
        paths += [f"{above}/{name}" for name in part] if above else part
    if not all(map(lt, paths, paths[1:])):
        raise RecoveryError(f"{where}: its paths are not in order")
    try:
        _check_paths(paths, dirs, text)
    except PathError as error:
        raise RecoveryError(f"{where} has a path that would leave the dataset: {error}") from error
    return paths


def check_logical(path: str) -> None:
    """PathError unless `path` may be staged, or is one of the library's own (``.fstx/id/<mark>``)."""
    if path.startswith(OWN):
        kind, slash, name = path[len(OWN) :].partition("/")
        if kind != "id" or not slash or "/" in name:
            raise PathError(
                f"the path {path!r} lies in {CONTROL_NAME}/, which is the library's own"
            )
        path = name
    check_path(path)


def _check_paths(paths: Sequence[str], dirs: Sequence[str], names: str) -> None:
    for directory in dirs:
        if directory and directory != f"{OWN}id":
            check_path(directory)
    if not paths:
        return
    plain = names.isascii() and not _ODD.search(names) and names[:1] not in ("", ".", "/")
    if not plain or "/." in names or "//" in names or names[-1] == "/":
        plain = names.isascii() and not _SUSPECT.search(names)
    short = len(names) <= 255 or max(map(len, names.split("/"))) <= 255
    if plain and short:
        return
    for path in paths:
        check_logical(path)


# --- entries ----------------------------------------------------------------------------------------


def pack(paths: Sequence[str], entries: Sequence[Entry]) -> Columns:
    """Columns of entries at sorted paths; both have the same length."""
    if not paths:
        return {}
    columns = pack_paths(paths)
    if "" in columns["dirs"] and any(path.startswith("/") for path in paths):
        raise PathError("a path is absolute; paths are relative to the dataset")
    _check_paths(paths, columns["dirs"], columns["names"])
    sizes, keys, offsets, sums, inline, made = zip(*entries, strict=True)
    columns["size"] = _uniform(sizes)
    if any(sums):
        columns["sum"] = " ".join(sums)
    if offsets.count(None) < len(paths):
        columns["offset"] = _relative(offsets, sizes)
    if inline.count(None) < len(paths):
        columns["inline"] = [
            [i, base64.b64encode(content).decode()]
            for i, content in enumerate(inline)
            if content is not None
        ]
    if any(made):
        columns["made"] = [i for i, directory in enumerate(made) if directory]
    _pack_keys(columns, paths, keys, sums)
    for place in columns["at"]:
        check_key(place, "an entry to be written")
    return columns


def _uniform(values: Sequence[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else list(values)


def _relative(offsets: Sequence[int | None], sizes: Sequence[int]) -> list[int | None]:
    """Each offset as its distance from the end of the one before."""
    if None not in offsets:
        return list(map(sub, offsets, chain((0,), map(add, offsets, sizes))))
    found: list[int | None] = []
    end = 0
    for offset, size in zip(offsets, sizes, strict=True):
        if offset is None:
            found.append(None)
        else:
            found.append(offset - end)
            end = offset + size
    return found


def _pack_keys(
    columns: Columns, paths: Sequence[str], keys: Sequence[str], sums: Sequence[str]
) -> None:
    """A table of places, for each entry which one, and what is left of keys that follow from paths."""
    table: dict[str, int] = {}
    which: list[int] = []
    stems: list[str] = []
    found = _split_all(keys, paths, sums)
    if found is not None:
        table[found[0]] = 0
        which, stems = [0] * len(keys), found[1]
    else:
        for key, escaped, sum_ in zip(keys, escape_all(paths), sums, strict=True):
            index = table.get(key)
            if index is None:
                place, stem = _split(key, escaped, sum_)
                index = table.setdefault(place, len(table))
                if stem is not None:
                    stems.append(stem)
            which.append(index)
    columns["at"] = list(table)
    columns["in"] = _uniform(which)
    if stems:
        columns["stem"] = " ".join(stems)


def _split(key: str, escaped: str, sum_: str) -> tuple[str, str | None]:
    """Place and stem of a key that follows from its path, else the key itself and None."""
    head, _, attempt = key.rpartition("~")
    tail = f"-{sum_ or '-'}"
    if head.endswith(f"/{escaped}") and key.startswith("data/") and attempt.endswith(tail):
        stem = attempt[: -len(tail)]
        if _STEM.fullmatch(stem):
            return head[: -len(escaped)], stem
    return key, None


def _split_all(
    keys: Sequence[str], paths: Sequence[str], sums: Sequence[str]
) -> tuple[str, list[str]] | None:
    """As `_split` for all keys at once, where all follow from their paths and lie in one place."""
    escaped = escape_all(paths[:1])
    place, stem = _split(keys[0], escaped[0], sums[0])
    if stem is None or not keys[-1].startswith(place):
        return None
    escaped = escape_all(paths)
    base = len(place) + 1
    attempts = [key[base + len(e) :] for key, e in zip(keys, escaped, strict=True)]
    stems = [a[: -len(s) - 1] if s else a[:-2] for a, s in zip(attempts, sums, strict=True)]
    if _joined(place, escaped, stems, sums) != list(keys):
        return None
    text = " ".join(stems)
    return (place, stems) if _STEMS.fullmatch(text) and text.count(" ") == len(stems) - 1 else None


def _joined(
    place: str, escaped: Sequence[str], stems: Sequence[str], sums: Sequence[str]
) -> list[str]:
    return [f"{place}{e}~{t}-{s or '-'}" for e, t, s in zip(escaped, stems, sums, strict=True)]


class Packed:
    """Decoded columns: paths at once, entries as they are asked for.

    Parameters
    ----------
    columns
        As `pack` gives them, from anywhere.
    where
        Their name, for messages.
    """

    __slots__ = ("_at", "_in", "_inline", "_made", "_offsets", "_sizes", "_stems", "_sums", "paths")

    def __init__(self, columns: Columns, where: str) -> None:
        if not columns:
            columns = {
                "dirs": [],
                "dir": [],
                "run": [],
                "names": "",
                "size": [],
                "at": [],
                "in": [],
            }
        self.paths = unpack_paths(columns, where)
        n = len(self.paths)
        self._sizes = _column(columns, "size", n, where)
        self._sums = _words(columns, "sum", n, _SUMS, where)
        self._offsets = self._absolute(columns, n, where)
        self._inline = _contents(columns, self.paths, self._sizes, where)
        made = ints(columns, "made", where) if "made" in columns else []
        if made and (max(made) >= n or len(made) > n):
            raise RecoveryError(f"{where}: member 'made' has a number beyond its {n} paths")
        self._made = frozenset(made)
        self._at = need(columns, "at", list, where)
        for place in self._at:
            check_key(place, where)
        self._in = _column(columns, "in", n, where)
        if n and max(self._in) >= len(self._at):
            raise RecoveryError(f"{where}: member 'in' names a place beyond its {len(self._at)}")
        self._stems = self._spread(columns, n, where)

    def __len__(self) -> int:
        return len(self.paths)

    def entry(self, index: int) -> Entry:
        """The entry of the path at `index`."""
        key = self._at[self._in[index]]
        sum_ = self._sums[index] if self._sums else ""
        if key.endswith("/"):
            key = f"{key}{escape(self.paths[index])}~{self._stems[index]}-{sum_ or '-'}"
        return Entry(
            self._sizes[index],
            key,
            self._offsets[index] if self._offsets else None,
            sum_,
            self._inline.get(index),
            index in self._made,
        )

    def items(self, start: int = 0, stop: int | None = None) -> list[tuple[str, Entry]]:
        """Paths and entries of a range."""
        start, stop, _ = slice(start, stop).indices(len(self.paths))
        if stop - start < _MANY:
            return [(self.paths[i], self.entry(i)) for i in range(start, stop)]
        paths = self.paths[start:stop]
        sums = self._sums[start:stop] or repeat("")
        columns = (
            self._sizes[start:stop],
            self._keys(start, stop),
            self._offsets[start:stop] or repeat(None),
            sums,
            map(self._inline.get, range(start, stop)) if self._inline else repeat(None),
            map(self._made.__contains__, range(start, stop)) if self._made else repeat(False),
        )
        return list(zip(paths, map(_new_entry, zip(*columns, strict=False)), strict=True))

    def _keys(self, start: int, stop: int) -> list[str]:
        where = self._in[start:stop]
        if not self._stems:
            return [self._at[i] for i in where]
        sums = self._sums[start:stop] or [""] * (stop - start)
        stems, escaped = self._stems[start:stop], escape_all(self.paths[start:stop])
        if len(self._at) == 1:
            return _joined(self._at[0], escaped, stems, sums)
        return [
            f"{place}{e}~{t}-{s or '-'}" if (place := self._at[i]).endswith("/") else place
            for i, e, t, s in zip(where, escaped, stems, sums, strict=True)
        ]

    def _absolute(self, columns: Columns, n: int, where: str) -> list[int | None]:
        if "offset" not in columns:
            return []
        found = need(columns, "offset", list, where)
        if len(found) != n or not set(map(type, found)) <= {int, type(None)}:
            raise RecoveryError(f"{where}: member 'offset' does not hold {n} numbers")
        sizes = self._sizes
        offsets: list[int | None] = []
        end = 0
        for distance, size in zip(found, sizes, strict=True):
            if distance is None:
                offsets.append(None)
                continue
            offset = end + distance
            if not 0 <= offset < _MOST_BYTES:
                raise RecoveryError(f"{where}: member 'offset' leads to {offset}")
            offsets.append(offset)
            end = offset + size
        return offsets

    def _spread(self, columns: Columns, n: int, where: str) -> list[str]:
        """Stems at the indices of the entries that have one."""
        follows = [place.endswith("/") for place in self._at]
        count = sum(map(follows.__getitem__, self._in)) if any(follows) else 0
        stems = _words(columns, "stem", count, _STEMS, where)
        if not count:
            return []
        if not stems:
            raise RecoveryError(f"{where} lacks the member 'stem'")
        if count == n:
            return stems
        left = iter(stems)
        return [next(left) if follows[i] else "" for i in self._in]


# --- checks -----------------------------------------------------------------------------------------


def need(columns: Columns, name: str, kind: type, where: str) -> Any:
    """A member of that type; RecoveryError otherwise."""
    found = columns.get(name)
    if type(found) is not kind:
        raise RecoveryError(f"{where}: member {name!r} is missing or no {kind.__name__}")
    return found


def ints(columns: Columns, name: str, where: str) -> list[int]:
    """A list of counts: whole numbers from 0 on."""
    found: list[int] = need(columns, name, list, where)
    if not set(map(type, found)) <= {int} or (
        found and (min(found) < 0 or max(found) >= _MOST_BYTES)
    ):
        raise RecoveryError(f"{where}: member {name!r} has something else than counts")
    return found


def check_key(key: Any, where: str) -> str:
    """`key` if it names an object of the dataset (or, with "/" at its end, a place of them), or is empty."""
    if type(key) is not str or (
        key and (not _KEY.fullmatch(key) or "/../" in f"{key}/" or "/./" in f"{key}/")
    ):
        raise RecoveryError(f"{where} names the key {str(key)[:200]!r}, which no object can have")
    return key


def _column(columns: Columns, name: str, n: int, where: str) -> list[int]:
    found = columns.get(name)
    if type(found) is int:
        if not 0 <= found < _MOST_BYTES:
            raise RecoveryError(f"{where}: member {name!r} is {found}")
        return [found] * n
    counts = ints(columns, name, where)
    if len(counts) != n:
        raise RecoveryError(f"{where}: member {name!r} has {len(counts)} values for {n} paths")
    return counts


def _words(columns: Columns, name: str, n: int, allowed: re.Pattern[str], where: str) -> list[str]:
    """Words of a text of `n` words with one space between; none where there is no such member."""
    if name not in columns:
        return []
    text: str = need(columns, name, str, where)
    if text.count(" ") != max(n - 1, 0) or not allowed.fullmatch(text) or (text and not n):
        raise RecoveryError(f"{where}: member {name!r} does not hold {n} words")
    return text.split(" ") if n else []


def _contents(
    columns: Columns, paths: Sequence[str], sizes: Sequence[int], where: str
) -> dict[int, bytes]:
    if "inline" not in columns:
        return {}
    found: dict[int, bytes] = {}
    for pair in need(columns, "inline", list, where):
        if type(pair) is not list or len(pair) != 2 or list(map(type, pair)) != [int, str]:
            raise RecoveryError(f"{where}: member 'inline' holds something else than pairs")
        index, text = pair
        try:
            content = base64.b64decode(text, validate=True)
        except ValueError as error:
            raise RecoveryError(f"{where}: member 'inline' is damaged: {error}") from error
        if not 0 <= index < len(paths) or index in found:
            raise RecoveryError(f"{where}: member 'inline' has the number {index}")
        if len(content) != sizes[index] and not paths[index].startswith(OWN):
            raise RecoveryError(
                f"{where}: content of {paths[index]!r} has another size than it says"
            )
        found[index] = content
    return found
