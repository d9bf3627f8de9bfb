"""Which process it was, and whether it is there, as far as the system tells."""

from __future__ import annotations

import os


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


__all__ = ["boot_id", "namespace", "stat_of"]
