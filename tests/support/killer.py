"""The system's calls that count what changes something, and stop, fail or watch at the k-th.

`KillerOps` stands for one process: at its k-th changing call it dies. That call raises `Killed`, after
half of its bytes where it writes, and every later call raises too, so that no clean-up runs; locks and
descriptors go as the kernel would let them go.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from fstx.ops import FileKind, LockHandle, Stat

if sys.platform == "win32":
    from fstx.ops.windows import WindowsOps

    class SystemOps(WindowsOps):
        """Without much patience: nobody else holds a test's files for long."""

        def __init__(self) -> None:
            super().__init__(patience_s=0.5)

    def forget(lock: Any) -> None:
        """As the kernel does when the process dies: let go, delete nothing."""
        lock._drop.args[0].close()

else:
    from fstx.ops.posix import PosixOps as SystemOps

    def forget(lock: Any) -> None:
        """As the kernel does when the process dies: let go, delete nothing."""
        lock.forget()


class Killed(BaseException):
    """The process died here."""


class _File(io.FileIO):
    """A new file whose writes through the object are counted and can tear."""

    ops: KillerOps

    def write(self, data: Any, /) -> int:
        half = memoryview(data)[: len(data) // 2]
        self.ops.step("write", str(self.name), torn=lambda: io.FileIO.write(self, half))
        return io.FileIO.write(self, data)


class _Lock:
    def __init__(self, ops: KillerOps, inner: Any, path: str) -> None:
        self.ops, self.inner, self.path = ops, inner, path

    def release(self) -> None:
        try:
            self.ops.step("release", self.path)
        except OSError:
            forget(self.inner)  # the file could not be removed; a lock is let go in any case
        except KeyboardInterrupt:
            forget(self.inner)
            raise
        else:
            self.inner.release()
        self.ops.held.discard(self)


class KillerOps(SystemOps):
    """One process over the real calls.

    Parameters
    ----------
    kill_at
        Number of the changing call at which the process dies; counted from 1.
    fail_at, error
        Number of the changing call that raises OSError(`error`) instead, before it takes effect;
        with `after`, once it took effect. `sticky`: all later changing calls raise as well.
    exchange
        False: no such call (ENOSYS), as on many network and FUSE mounts.
    """

    def __init__(
        self,
        *,
        kill_at: int | None = None,
        fail_at: int | None = None,
        error: int = errno.ENOSPC,
        sticky: bool = False,
        after: bool = False,
        exchange: bool = True,
        act: Callable[[str, str], None] | None = None,
    ) -> None:
        super().__init__()
        self.kill_at, self.fail_at, self.error = kill_at, fail_at, error
        self.sticky, self.after, self.has_exchange = sticky, after, exchange
        self.act = act
        self.calls: list[tuple[str, str]] = []
        self.dead = False
        self.failed = False
        self.held: set[_Lock] = set()
        self.files: list[BinaryIO] = []
        self.fds: set[int] = set()

    # --- the fault ---

    def step(self, name: str, path: str, torn: Callable[[], object] | None = None) -> None:
        """One changing call is about to take effect."""
        self.live()
        self.calls.append((name, path))
        if self.act is not None:
            self.act(name, path)
        if len(self.calls) == self.kill_at:
            if torn is not None:
                torn()
            self.die()
            raise Killed(f"{name} {path}")
        if not self.after:
            self._maybe_fail(path)

    def done(self, path: str) -> None:
        if self.after:
            self._maybe_fail(path)

    def _maybe_fail(self, path: str) -> None:
        number = len(self.calls)
        if self.fail_at is not None and (
            number == self.fail_at or (self.sticky and number > self.fail_at)
        ):
            self.failed = True
            raise OSError(self.error, os.strerror(self.error), path)

    def die(self) -> None:
        """What the kernel does at the end of a process."""
        self.dead = True
        for lock in list(self.held):
            forget(lock.inner)
        for file in self.files:
            file.close()
        for fd in self.fds:
            os.close(fd)

    def live(self) -> None:
        if self.dead:
            raise Killed("dead already")

    # --- the calls ---

    def open_new(self, path: str) -> BinaryIO:
        self.step("open_new", path)
        file = _File(path, "x+b")
        file.ops = self
        self.files.append(file)  # type: ignore[arg-type]
        return file  # type: ignore[return-value]

    def read_file(self, path: str, limit_bytes: int) -> bytes:
        self.live()
        return super().read_file(path, limit_bytes)

    def sync_file(self, file: BinaryIO) -> None:
        self.step("sync_file", str(file.name))
        super().sync_file(file)
        self.done(str(file.name))

    def sync_dir(self, path: str) -> None:
        self.step("sync_dir", path)
        super().sync_dir(path)
        self.done(path)

    def open_fs(self, path: str) -> int | None:
        self.live()
        fd = super().open_fs(path)
        if fd is not None:
            self.fds.add(fd)
        return fd

    def sync_fs(self, fd: int) -> None:
        self.step("sync_fs", "")
        super().sync_fs(fd)
        self.done("")

    def close_fs(self, fd: int) -> None:
        self.live()
        self.fds.discard(fd)
        super().close_fs(fd)

    def mkdir(self, path: str) -> None:
        self.step("mkdir", path)
        super().mkdir(path)
        self.done(path)

    def rmdir(self, path: str) -> None:
        self.step("rmdir", path)
        super().rmdir(path)
        self.done(path)

    def unlink(self, path: str) -> None:
        self.step("unlink", path)
        super().unlink(path)
        self.done(path)

    def rename(self, src: str, dst: str) -> None:
        self.step("rename", src + " -> " + dst)
        super().rename(src, dst)
        self.done(src)

    def replace_file(self, src: str, dst: str) -> None:
        self.step("replace_file", src + " -> " + dst)
        super().replace_file(src, dst)
        self.done(src)

    def rename_new(self, src: str, dst: str) -> None:
        self.step("rename_new", src + " -> " + dst)
        super().rename_new(src, dst)
        self.done(src)

    def exchange(self, a: str, b: str) -> None:
        if not self.has_exchange:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), a)
        self.step("exchange", a + " <-> " + b)
        super().exchange(a, b)
        self.done(a)

    def link_new(self, src: str, dst: str) -> None:
        self.step("link_new", src + " -> " + dst)
        super().link_new(src, dst)
        self.done(src)

    def lstat(self, path: str) -> Stat | None:
        self.live()
        return super().lstat(path)

    def scandir(self, path: str) -> Iterator[tuple[str, FileKind]]:
        self.live()
        return super().scandir(path)

    def lock(self, path: str, *, wait_s: float) -> LockHandle | None:  # type: ignore[override]
        self.step("lock", path)
        inner = super().lock(path, wait_s=wait_s)
        if inner is None:
            return None
        lock = _Lock(self, inner, path)
        self.held.add(lock)
        return lock
