"""Calls of a storage of files that die, or lose their connection, at the k-th that changes something."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from fstx.ops import FileKind, Ops, Stat


class Killed(BaseException):
    """The process died here."""


class DyingOps:
    """One process: at its `kill_at`-th changing call it dies, and makes no call afterwards.

    Parameters
    ----------
    inner
        The real calls.
    kill_at
        Number of that call, from 1.
    before
        Called instead of dying, just before the call: to cut a connection, for example.
    after
        Called just after the call took effect.
    end
        What the end of the process does to `inner`: its locks are let go as the server or the next process
        would find out.
    """

    def __init__(
        self,
        inner: Any,
        *,
        kill_at: int | None = None,
        before: Callable[[], object] | None = None,
        after: Callable[[], object] | None = None,
        end: Callable[[], object] = lambda: None,
    ) -> None:
        self.inner: Ops = inner
        self.kill_at, self.before, self.after, self.end = kill_at, before, after, end
        self.calls: list[str] = []
        self.dead = False
        self.name, self.place, self.leased = inner.name, inner.place, inner.leased

    def step(
        self, text: str, call: Callable[[], Any], torn: Callable[[], object] | None = None
    ) -> Any:
        """Make a changing call, unless the process dies at it."""
        self.live()
        self.calls.append(text)
        if len(self.calls) != self.kill_at:
            return call()
        if self.before is not None:
            self.before()
            return call()
        if self.after is not None:
            done = call()
            self.after()
            return done
        if torn is not None:
            torn()
        self.dead = True
        self.end()
        raise Killed(text)

    def live(self) -> None:
        if self.dead:
            raise Killed("dead already")

    # --- calls that look ---

    def resolve(self, path: str) -> str:
        self.live()
        return self.inner.resolve(path)

    def lstat(self, path: str) -> Stat | None:
        self.live()
        return self.inner.lstat(path)

    def scandir(self, path: str) -> Iterator[tuple[str, FileKind]]:
        self.live()
        return self.inner.scandir(path)

    def read_file(self, path: str, limit_bytes: int) -> bytes:
        self.live()
        return self.inner.read_file(path, limit_bytes)

    def open_read(self, path: str) -> Any:
        self.live()
        return self.inner.open_read(path)

    def open_again(self, path: str) -> Any:
        self.live()
        return self.inner.open_again(path)

    def may_write(self, path: str) -> bool:
        self.live()
        return self.inner.may_write(path)

    def begin_sync(self, file: Any) -> None:
        self.live()

    def sync_dir(self, path: str) -> None:
        self.live()
        self.inner.sync_dir(path)

    def open_fs(self, path: str) -> int | None:
        self.live()
        return self.inner.open_fs(path)

    # --- calls that change ---

    def open_new(self, path: str) -> Any:
        return _File(self, self.step(f"open_new {path}", lambda: self.inner.open_new(path)))

    def sync_file(self, file: Any) -> None:
        self.live()
        self.inner.sync_file(getattr(file, "inner", file))

    def mkdir(self, path: str) -> None:
        self.step(f"mkdir {path}", lambda: self.inner.mkdir(path))

    def rmdir(self, path: str) -> None:
        self.step(f"rmdir {path}", lambda: self.inner.rmdir(path))

    def unlink(self, path: str) -> None:
        self.step(f"unlink {path}", lambda: self.inner.unlink(path))

    def share(self, path: str, like: str) -> None:
        self.step(f"share {path}", lambda: self.inner.share(path, like))

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        self.step(f"set_mtime {path}", lambda: self.inner.set_mtime(path, mtime_ns))

    def rename(self, src: str, dst: str) -> None:
        self.step(f"rename {src} -> {dst}", lambda: self.inner.rename(src, dst))

    def replace_file(self, src: str, dst: str) -> None:
        self.step(f"replace_file {src} -> {dst}", lambda: self.inner.replace_file(src, dst))

    def rename_new(self, src: str, dst: str) -> None:
        self.step(f"rename_new {src} -> {dst}", lambda: self.inner.rename_new(src, dst))

    def exchange(self, a: str, b: str) -> None:
        self.live()
        self.inner.exchange(a, b)

    def link_new(self, src: str, dst: str) -> None:
        self.step(f"link_new {src} -> {dst}", lambda: self.inner.link_new(src, dst))

    def lock(self, path: str, *, wait_s: float) -> Any:
        handle = self.step(f"lock {path}", lambda: self.inner.lock(path, wait_s=wait_s))
        return None if handle is None else _Lock(self, handle, path)


class _Lock:
    def __init__(self, ops: DyingOps, inner: Any, path: str) -> None:
        self.ops, self.inner, self.path = ops, inner, path

    def release(self) -> None:
        self.ops.step(f"release {self.path}", self.inner.release)


class _File(io.RawIOBase):
    def __init__(self, ops: DyingOps, inner: Any) -> None:
        self.ops, self.inner, self.name = ops, inner, inner.name

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return int(self.inner.readinto(buffer))

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return int(self.inner.seek(offset, whence))

    def write(self, data: Any, /) -> int:
        half = bytes(data)[: len(data) // 2]
        text = f"write {self.name}"
        return int(
            self.ops.step(text, lambda: self.inner.write(data), lambda: self.inner.write(half))
        )

    def close(self) -> None:
        if not self.closed:
            super().close()
            if not self.ops.dead:
                self.inner.close()
