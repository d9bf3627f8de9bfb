"""What lies where: details of names, listings, searches; of a dataset, or of the target outside of one."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from fstx.filesystem.places import Place
from fstx.filesystem.sessions import Seen, Session
from fstx.paths import CONTROL_NAME
from fstx.state.entries import Entry

Info = dict[str, Any]


def missing(name: str) -> FileNotFoundError:
    return FileNotFoundError(2, "no such file or directory", name)


def directory_info(name: str) -> Info:
    return {"name": name, "size": 0, "type": "directory"}


def file_info(name: str, entry: Entry, version: int | None) -> Info:
    """Details of a file. ``etag`` changes whenever the path is written, ``version`` is that of the reader."""
    found: Info = {"name": name, "size": entry.size_bytes, "type": "file", "etag": etag(entry)}
    if version is not None:
        found["version"] = version
    return found


def etag(entry: Entry) -> str:
    """Names the content: equal after a copy or move, another after each write."""
    if entry.inline is not None:
        return hashlib.sha256(entry.inline).hexdigest()[:32]
    text = f"{entry.key}:{entry.offset or 0}:{entry.size_bytes}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def staged_s(seen: Seen, entry: Entry) -> float:
    """When the content was staged, as the name of its object tells; else when the version was committed."""
    attempt = entry.key.rpartition("~")[2][:16]
    try:
        return int(attempt, 16) / 1e9
    except ValueError:
        record = getattr(getattr(seen.view, "head", None), "record", None)
        return record.when_s if record is not None else time.time()


def info(session: Session, place: Place) -> Info:
    """Details of one name.

    Raises
    ------
    FileNotFoundError
        Nothing is there.
    """
    if place.dataset is None:
        fs = session.places.target.fs
        fs.invalidate_cache()
        found: Info = dict(fs.info(place.real))
        return found
    seen = session.seen(place)
    entry = seen.view.get(place.path) if place.path else None
    if entry is not None and not entry.directory:
        return file_info(place.name, entry, seen.version)
    if entry is not None or is_directory(seen, place.path):
        return directory_info(place.name)
    raise missing(place.name)


def is_directory(seen: Seen, path: str) -> bool:
    """Whether `path` is a directory; the root is one as soon as the dataset is there."""
    if not path:
        return seen.present
    return bool(seen.view.is_dir(path))


def ls(session: Session, place: Place) -> list[Info]:
    """What lies directly below a directory; of a file the file itself."""
    if place.dataset is None:
        fs = session.places.target.fs
        fs.invalidate_cache()
        return [dict(i) for i in fs.ls(place.real, detail=True) if not hidden(i["name"])]
    seen = session.seen(place)
    if place.path:
        entry = seen.view.get(place.path)
        if entry is not None and not entry.directory:
            return [file_info(place.name, entry, seen.version)]
    found = _children(seen, place)
    if not found and not is_directory(seen, place.path):
        raise missing(place.name)
    return found


def _children(seen: Seen, place: Place) -> list[Info]:
    base = f"{place.path}/" if place.path else ""
    rows = []
    for child, entry in seen.view.children(place.path):
        name = place.within(base + child)
        if entry is None or entry.directory:
            rows.append(directory_info(name))
        else:
            rows.append(file_info(name, entry, seen.version))
    return rows


def find(
    session: Session, place: Place, maxdepth: int | None, withdirs: bool, prefix: str
) -> dict[str, Info]:
    """All files at or below a name, by name, sorted; with the directories on demand.

    Parameters
    ----------
    prefix
        Only names that begin so below `place`; a glob up to its first wildcard.
    """
    if place.dataset is None:
        fs = session.places.target.fs
        fs.invalidate_cache()
        plain = fs.find(place.real, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        return {n: dict(i) for n, i in plain.items() if not hidden(n)}
    seen = session.seen(place)
    entry = seen.view.get(place.path) if place.path else None
    if entry is not None and not entry.directory:
        return {place.name: file_info(place.name, entry, seen.version)}
    if maxdepth == 1:
        found = {i["name"]: i for i in _children(seen, place)}
        if prefix:
            start = place.within(f"{place.path}/{prefix}" if place.path else prefix)
            found = {n: i for n, i in found.items() if n.startswith(start)}
        if not withdirs:
            found = {n: i for n, i in found.items() if i["type"] == "file"}
    else:
        found = _below(seen, place, maxdepth, withdirs, prefix)
    if withdirs and place.name and (found or is_directory(seen, place.path)):
        found[place.name] = directory_info(place.name)
    return dict(sorted(found.items()))


def _below(
    seen: Seen, place: Place, maxdepth: int | None, withdirs: bool, prefix: str
) -> dict[str, Info]:
    found: dict[str, Info] = {}
    start = len(place.path) + 1 if place.path else 0
    base = place.within(place.path)
    top = f"{base}/" if base else ""
    last = ""
    for path, entry in seen.view.items(place.path):
        below = path[start:]
        if not below or (prefix and not below.startswith(prefix)):
            continue
        parts = below.split("/")
        above = below.rpartition("/")[0]
        if withdirs and above and above != last:
            last = above
            for depth in range(1, len(parts)):
                if maxdepth is None or depth <= maxdepth:
                    name = top + "/".join(parts[:depth])
                    if name not in found:
                        found[name] = directory_info(name)
        if maxdepth is not None and len(parts) > maxdepth:
            continue
        name = top + below
        if not entry.directory:
            found[name] = file_info(name, entry, seen.version)
        elif withdirs:
            found[name] = directory_info(name)
    return found


def hidden(name: str) -> bool:
    """Whether a name is the library's own."""
    return CONTROL_NAME in name.split("/")


__all__ = [
    "Info",
    "directory_info",
    "etag",
    "file_info",
    "find",
    "hidden",
    "info",
    "is_directory",
    "ls",
]
