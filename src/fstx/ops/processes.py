"""Which process it was, and whether it is there, as far as the system tells."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any


def boot_id() -> str:
    """Identity of this kernel's life, empty where the system doesn't tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def namespace() -> str:
    """The name space of process numbers, empty where unknown: one number is another process in each."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def stat_of(pid: int) -> tuple[str, str] | None:
    """State and start, in ticks since boot, of a process (proc(5)); None where it is not seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), fields[19].decode()
    except (OSError, IndexError):
        return None


def here() -> dict[str, Any]:
    """This process, named so that another one can't be taken for it."""
    return {
        "host": platform.node(),
        "boot": boot_id(),
        "pids": namespace(),
        "pid": os.getpid(),
        "start": start_of(os.getpid()),
    }


def lives(who: Mapping[str, Any]) -> bool | None:
    """Whether a process that `here` named is there; None where it can't be seen from here."""
    own = here()
    if not own["boot"] or any(who.get(key) != own[key] for key in ("host", "boot", "pids")):
        return None
    pid = who.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return None
    return start_of(pid) == who.get("start")


def start_of(pid: int) -> int | None:
    """When a process began, in ticks since boot; None where it is not, or is a zombie."""
    found = stat_of(pid)
    return None if found is None or found[0] in "ZX" else int(found[1])


__all__ = ["boot_id", "here", "lives", "namespace", "start_of", "stat_of"]
