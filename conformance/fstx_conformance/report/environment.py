"""Where a result was made: versions, system and file system. No host, user or path is told."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import fstx

_LIBRARIES = ("s3fs", "gcsfs", "adlfs", "sshfs", "smbprotocol", "obstore", "zarr", "hypothesis")
_MOUNTS = Path("/proc/self/mountinfo")


def environment(place: str | os.PathLike[str] | None = None, *, kit: str = "") -> dict[str, str]:
    """What a report says of its surroundings.

    Parameters
    ----------
    place
        A local path that the run writes to; its file system is told.
    kit
        The suite's version, if it is not that of fstx.
    """
    told = {
        "kit": kit or fstx.__version__,
        "fstx": fstx.__version__,
        "fsspec": version("fsspec"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if place is not None:
        told["file system"] = file_system(place)
    for name in _LIBRARIES:
        if name in sys.modules:
            try:
                told[name] = version(name)
            except PackageNotFoundError:
                told[name] = "not installed as a package"
    return told


def file_system(place: str | os.PathLike[str]) -> str:
    """The type of the file system that a path lies on, or ``"unknown"``; the path may not be there yet."""
    if not _MOUNTS.exists():
        return "unknown"
    real = os.path.realpath(place)
    best, found = "", "unknown"
    for line in _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        mount, kind = parse_mount(line)
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):  # of two mounts at one place the later one counts
            best, found = mount, kind
    return found


def parse_mount(line: str) -> tuple[str, str]:
    """Mount point and type of a line of mountinfo, proc(5); blanks are spelled as octal escapes there."""
    before, _, after = line.partition(" - ")
    point = before.split(" ")[4]
    kind = after.split(" ")[0]
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), point), kind


__all__ = ["environment", "file_system"]
