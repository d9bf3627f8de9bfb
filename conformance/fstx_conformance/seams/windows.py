"""A simulated Windows over a real directory: enough of it to test what renames and deletes meet.

`SimDisk` is the machine: open handles with their share modes, names whose deletion is pending,
locks, other programs, a scripted virus scanner. `WinSim` is one process on it and has the calls of
`fstx.ops._wincrt.Crt`, so that ``WindowsOps(disk.process())`` is a Windows on any system.
A process can be killed at its k-th call that changes something: that call raises `Killed`, its handles
and locks go, and every later call raises too. It can also be interrupted, as by Ctrl-C: that call
raises KeyboardInterrupt, and the process goes on.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, BinaryIO

from fstx_conformance.injector import Killed

__all__ = ["Handle", "Killed", "SimDisk", "SimFile", "WinSim", "windows_error"]

ERRNO = {
    2: errno.ENOENT,
    3: errno.ENOENT,
    5: errno.EACCES,
    17: errno.EXDEV,
    32: errno.EACCES,
    33: errno.EACCES,
    145: errno.ENOTEMPTY,
    183: errno.EEXIST,
    267: errno.ENOTDIR,
}
RESERVED = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}


def windows_error(code: int, path: str) -> OSError:
    """The error that Windows raises with this code."""
    error = OSError(ERRNO.get(code, errno.EINVAL), f"WinError {code}", path)
    error.winerror = code  # type: ignore[attr-defined]
    return error


@dataclass(eq=False)
class Handle:
    """An open file or directory. ``share``: which of r, w, d others may have meanwhile."""

    path: str
    share: str = "rw"
    left: int | None = None  # calls until it is closed by itself
    owner: object = None

    def below(self, tree: str) -> bool:
        return self.path.startswith(tree + os.sep)


@dataclass(eq=False)
class SimDisk:
    """One machine with a disk at `root`.

    Parameters
    ----------
    root
        A real directory: the disk's only one.
    antivirus_calls
        For so many changing calls a scanner holds each new name, granting `antivirus_share`.
    posix_delete
        Deleted names go at once, handles or not (Windows 10 1809 and later on NTFS).
    posix_rename
        A rename may replace a file that is open. CPython's os.replace does not ask for it.
    volumes
        Directories that are mount points of other volumes.
    remote
        The disk is a network share.
    script
        Codes with which the next changing calls fail; 0 lets one pass.
    """

    root: str
    antivirus_calls: int = 0
    antivirus_share: str = "rw"
    posix_delete: bool = True
    posix_rename: bool = False
    handles: list[Handle] = field(default_factory=list)
    pending: set[str] = field(default_factory=set)
    locks: dict[str, Handle] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    remote: bool = False
    script: list[int] = field(default_factory=list)
    guard: Any = field(default_factory=threading.RLock)

    processes: list[WinSim] = field(default_factory=list)

    def process(self, kill_at: int | None = None, interrupt_at: int | None = None) -> WinSim:
        """Start a process."""
        self.processes.append(WinSim(self, kill_at, interrupt_at))
        return self.processes[-1]

    def shut_down(self) -> None:
        """All processes and programs end."""
        for process in self.processes:
            process.die()
        for handle in list(self.handles):
            self.let_go(handle)

    def hold(self, path: str, *, share: str = "rw") -> Handle:
        """Another program opens `path`."""
        handle = Handle(self.find(path), share)
        self.handles.append(handle)
        return handle

    def let_go(self, handle: Handle) -> None:
        """Close a handle; a name whose deletion waited for it goes."""
        with self.guard:
            self.handles.remove(handle)
            self.locks = {k: h for k, h in self.locks.items() if h is not handle}
            if handle.path in self.pending and not self.on(handle.path):
                self.pending.discard(handle.path)
                (os.rmdir if os.path.isdir(handle.path) else os.unlink)(handle.path)

    def on(self, path: str) -> list[Handle]:
        """Who has this path open."""
        return [h for h in self.handles if h.path == path]

    def tick(self) -> None:
        """One changing call has gone by: handles that close by themselves come nearer to it."""
        for handle in [h for h in self.handles if h.left is not None]:
            assert handle.left is not None
            handle.left -= 1
            if handle.left < 0:
                self.let_go(handle)

    def scan(self, path: str) -> None:
        """The scanner opens a new name."""
        if self.antivirus_calls:
            self.handles.append(Handle(path, self.antivirus_share, self.antivirus_calls))

    def volume(self, path: str) -> str:
        """The volume that a path lies on."""
        inside = [v for v in self.volumes if (path + os.sep).startswith(v + os.sep)]
        return max(inside, key=len, default="")

    def find(self, path: str) -> str:
        """The real path for a name as Windows reads it; the last part need not exist."""
        here = os.path.abspath(self.root)
        parts = os.path.relpath(path, here).split(os.sep)
        assert parts[0] != os.pardir, f"outside the simulated disk: {path}"
        for part in parts:
            name = part if part == os.curdir else part.rstrip(". ")
            if set(name) & set('<>:"|?*\\') or any(c < " " for c in name) or not name:
                raise windows_error(123, path)
            if name.split(".")[0].casefold() in RESERVED:
                raise windows_error(123, path)
            if name == os.curdir:
                continue
            if not os.path.isdir(here):
                raise windows_error(3, path)
            if not os.path.lexists(os.path.join(here, name)):
                same = (e for e in os.listdir(here) if e.casefold() == name.casefold())
                name = next(same, name)
            here = os.path.join(here, name)
        return here


class SimFile(io.FileIO):
    """A file of a simulated process."""

    sim: WinSim
    handle: Handle

    def write(self, data: Any, /) -> int:
        with self.sim.disk.guard:
            try:
                self.sim.change()
            except Killed:
                if not self.closed:  # torn: half of it reached the disk
                    super().write(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
                self.sim.die()
                raise
            return super().write(data)

    def close(self) -> None:
        handle = getattr(self, "handle", None)
        super().close()
        if handle is not None and handle in self.sim.disk.handles:
            self.sim.disk.let_go(handle)


class WinSim:
    """One process, killed or interrupted at one of its changing calls, counted from 1."""

    def __init__(
        self, disk: SimDisk, kill_at: int | None = None, interrupt_at: int | None = None
    ) -> None:
        self.disk = disk
        self.kill_at = kill_at
        self.interrupt_at = interrupt_at
        self.calls = 0
        self.dead = False
        self.files: list[SimFile] = []

    def change(self) -> None:
        """Every call that changes something begins here."""
        self.alive()
        self.calls += 1
        if self.calls == self.kill_at:
            self.dead = True
            raise Killed(f"at call {self.calls}")
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        self.disk.tick()

    def alive(self) -> None:
        if self.dead:
            raise Killed("is dead")

    def die(self) -> None:
        """Handles and locks go with the process."""
        self.dead = True
        for file in self.files:
            file.close()

    def _begin(self, path: str) -> None:
        try:
            self.change()
        except Killed:
            self.die()
            raise
        if self.disk.script and (code := self.disk.script.pop(0)):
            raise windows_error(code, path)

    # --- the C runtime: errno only -------------------------------------------------------------

    def open(self, path: str, mode: str) -> BinaryIO:
        with self.disk.guard:
            if mode == "rb":
                self.alive()
            else:
                self._begin(path)
            try:
                return self._open(path, mode, "rw")
            except OSError as error:
                raise OSError(error.errno, "open", path) from None

    def open_shared(self, path: str) -> BinaryIO:
        with self.disk.guard:
            self.alive()
            return self._open(path, "rb", "rwd")

    def _open(self, path: str, mode: str, share: str) -> SimFile:
        disk, real = self.disk, self.disk.find(path)
        exists, writes = os.path.lexists(real), mode != "rb"
        if real in disk.pending:
            raise windows_error(5, path)
        if exists and mode.startswith("x"):
            raise windows_error(183, path)
        if not exists and mode in ("rb", "r+b"):
            raise windows_error(2, path)
        if exists and (os.path.isdir(real) or (writes and read_only(real))):
            raise windows_error(5, path)
        wanted = {"r"} | ({"w"} if writes else set())
        if any(wanted - set(h.share) for h in disk.on(real)):
            raise windows_error(32, path)
        file = SimFile(real, mode)
        file.sim, file.handle = self, Handle(real, share, owner=self)
        disk.handles.append(file.handle)
        self.files.append(file)
        if not exists:
            disk.scan(real)
        return file

    def fsync(self, fd: int, /) -> None:
        with self.disk.guard:
            self._begin(f"fd {fd}")
            if not self._file(fd).writable():
                raise OSError(errno.EACCES, "fsync of a handle that can't write")

    def _file(self, fd: int) -> SimFile:
        return next(f for f in self.files if not f.closed and f.fileno() == fd)

    def lock(self, fd: int, /) -> bool:
        with self.disk.guard:
            self.alive()
            handle = self._file(fd).handle
            return self.disk.locks.setdefault(handle.path, handle) is handle

    # --- the Win32 calls -------------------------------------------------------------------------

    def rename(self, src: str, dst: str) -> None:
        self._move(src, dst, replace=False)

    def replace(self, src: str, dst: str) -> None:
        self._move(src, dst, replace=True)

    def _move(self, src: str, dst: str, *, replace: bool) -> None:
        disk = self.disk
        with disk.guard:
            self._begin(src)
            old, new = disk.find(src), disk.find(dst)
            if not os.path.lexists(old):
                raise windows_error(2, src)
            if (new + os.sep).startswith(old + os.sep) and new != old:
                raise windows_error(87, dst)
            if old in disk.pending:
                raise windows_error(5, src)
            if disk.volume(old) != disk.volume(new):
                raise windows_error(17, dst)
            if any("d" not in h.share for h in disk.on(old)):
                raise windows_error(32, src)
            if any(h.below(old) for h in disk.handles):
                raise windows_error(5, src)
            new = os.path.join(os.path.dirname(new), _spelling(dst)) if new == old else new
            if os.path.lexists(new) and new != old:
                if not replace:
                    raise windows_error(183, dst)
                self._may_replace(new, dst)
                if os.path.isdir(old):
                    os.unlink(new)  # what makes os.replace dangerous with directories
            os.replace(old, new)
            for handle in disk.on(old):
                handle.path = new
            disk.scan(new)

    def _may_replace(self, real: str, path: str) -> None:
        disk = self.disk
        if os.path.isdir(real) or read_only(real) or real in disk.pending:
            raise windows_error(5, path)
        holders = disk.on(real)
        if holders and not (disk.posix_rename and all("d" in h.share for h in holders)):
            raise windows_error(5, path)
        for handle in holders:
            handle.path = ""

    def remove(self, path: str) -> None:
        with self.disk.guard:
            self._begin(path)
            real = self._existing(path)
            if os.path.isdir(real) or read_only(real) or real in self.disk.pending:
                raise windows_error(5, path)
            self._delete(real, path, os.unlink)

    def rmdir(self, path: str) -> None:
        with self.disk.guard:
            self._begin(path)
            real = self._existing(path)
            if not os.path.isdir(real):
                raise windows_error(267, path)
            if real in self.disk.pending:
                raise windows_error(5, path)
            if os.listdir(real):  # names with a pending deletion count
                raise windows_error(145, path)
            self._delete(real, path, os.rmdir)

    def _delete(self, real: str, path: str, call: Any) -> None:
        holders = self.disk.on(real)
        if any("d" not in h.share for h in holders):
            raise windows_error(32, path)
        if holders and not self.disk.posix_delete:
            self.disk.pending.add(real)
            return
        call(real)
        for handle in holders:
            handle.path = ""

    def _existing(self, path: str) -> str:
        real = self.disk.find(path)
        if not os.path.lexists(real):
            raise windows_error(2, path)
        return real

    def mkdir(self, path: str) -> None:
        with self.disk.guard:
            self._begin(path)
            real = self.disk.find(path)
            if os.path.lexists(real):
                raise windows_error(5 if real in self.disk.pending else 183, path)
            os.mkdir(real)
            self.disk.scan(real)

    def link(self, src: str, dst: str) -> None:
        with self.disk.guard:
            self._begin(src)
            old, new = self._existing(src), self.disk.find(dst)
            if os.path.isdir(old):
                raise windows_error(5, src)
            if self.disk.volume(old) != self.disk.volume(new):
                raise windows_error(17, dst)
            if os.path.lexists(new):
                raise windows_error(183, dst)
            os.link(old, new)
            self.disk.scan(new)

    def chmod(self, path: str, mode: int) -> None:
        with self.disk.guard:
            self._begin(path)
            real = self._existing(path)
            if not os.path.isdir(real):
                os.chmod(real, 0o666 if mode & stat.S_IWRITE else 0o444)

    def lstat(self, path: str) -> Any:
        with self.disk.guard:
            self.alive()
            return self._look(self._existing(path))

    def _look(self, real: str) -> Any:
        found = os.lstat(real)
        ino = 0 if real in self.disk.pending else found.st_ino
        return SimpleNamespace(
            st_mode=found.st_mode,
            st_dev=found.st_dev,
            st_ino=ino,
            st_size=found.st_size,
            st_mtime_ns=found.st_mtime_ns,
        )

    def scandir(self, path: str) -> Iterator[tuple[str, Any]]:
        with self.disk.guard:
            self.alive()
            real = self._existing(path)
            if not os.path.isdir(real):
                raise windows_error(267, path)
            names = sorted(os.listdir(real))
            return iter([(name, self._look(os.path.join(real, name))) for name in names])

    def is_remote(self, path: str) -> bool:
        return self.disk.remote


def read_only(real: str) -> bool:
    return not os.path.isdir(real) and not os.lstat(real).st_mode & stat.S_IWRITE


def _spelling(path: str) -> str:
    return os.path.basename(path).rstrip(". ")
