"""SFTP calls, over the connection that `sshfs.SSHFileSystem` makes (asyncssh).

Facts: draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL. A plain RENAME refuses a taken name,
``posix-rename@openssh.com`` is rename(2), ``fsync@openssh.com`` is for files alone; OpenSSH answers
SSH_FX_FAILURE to whatever has no code of its own, so that the reason is found by looking. There is no inode
number, and times are seconds: see `fstx.ops.Stat`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import posixpath
import stat
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, BinaryIO, TypeVar, cast

from fstx.errors import UsageError
from fstx.ops import FileKind, LockHandle, Stat
from fstx.ops._sftpfile import SftpFile, kind_of, translated
from fstx.ops.remote import BEAT_S, LEASE_S, Arrivals, LeasedLocks

T = TypeVar("T")
Call = Callable[[Any], Coroutine[Any, Any, T]]

_TRIES = 3
_SECRET = ("password", "passphrase")
_DEFAULT_PORT = 22
_READ, _WRITE, _CREATE, _EXCLUSIVE = 0x01, 0x02, 0x08, 0x20  # pflags of SSH_FXP_OPEN
LOST = errno.EIO


class SftpOps:
    """`fstx.ops.Ops` on an SFTP server.

    The connection is opened at the first call, in each process anew, and again after it was lost. A call that
    changes something and whose answer was lost raises OSError(EIO) or OSError(ETIMEDOUT): it may have taken
    effect.

    Parameters
    ----------
    host
        The server.
    timeout_s
        How long a request may take.
    lease_s, beat_s
        Of the locks: `fstx.ops.remote.LeasedLocks`.
    **options
        For `sshfs.SSHFileSystem`: ``port``, ``username``, ``password``, ``client_keys``, ``known_hosts``, ...
        A password does not go into a pickle: a worker in another process needs a key or an agent.
    """

    name = "sftp"
    leased = True

    def __init__(
        self,
        host: str,
        *,
        timeout_s: float = 60.0,
        lease_s: float = LEASE_S,
        beat_s: float = BEAT_S,
        **options: Any,
    ) -> None:
        self._host = host
        self._options = options
        self._settings = {"timeout_s": timeout_s, "lease_s": lease_s, "beat_s": beat_s}
        self._timeout_s = timeout_s
        port = options.get("port") or _DEFAULT_PORT
        self.place = f"sftp://{host}" + (f":{port}" if port != _DEFAULT_PORT else "")
        self._locks = LeasedLocks(self, lease_s=lease_s, beat_s=beat_s)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._fs: Any = None
        self._client: Any = None
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[object, ...]:
        options = {k: v for k, v in self._options.items() if k not in _SECRET}
        if not _are_paths(options.get("client_keys", ())):
            del options["client_keys"]  # keys themselves
        return _make, (self._host, {**options, **self._settings})

    def __repr__(self) -> str:
        return f"<SftpOps {self.place}>"

    # --- the connection -----------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection; the next call opens one again."""
        with self._lock:
            fs, self._fs, self._client = self._fs, None, None
        if fs is not None:
            _close(fs)

    def _connected(self) -> Any:
        if self._pid != os.getpid():
            self._start()  # a forked child has no thread to speak through its parent's
        with self._lock:
            if self._client is None:
                self._fs, self._client = self._connect()
            return self._client

    def _connect(self) -> tuple[Any, Any]:
        import asyncssh
        from fsspec.asyn import FSTimeoutError, sync

        try:
            from sshfs import SSHFileSystem
        except ImportError as error:
            raise OSError(errno.ENOSYS, "sftp:// needs sshfs: pip install 'fstx[sftp]'") from error
        try:
            fs = SSHFileSystem(self._host, skip_instance_cache=True, **self._options)
            try:
                client = sync(
                    fs.loop,
                    fs.client.start_sftp_client,
                    path_errors="surrogateescape",
                    timeout=self._timeout_s,
                )
            except BaseException:
                _close(fs)
                raise
        except TypeError as error:
            raise UsageError(f"{self.place}: sshfs does not take an option: {error}") from error
        except (asyncssh.PermissionDenied, PermissionError) as error:
            raise PermissionError(
                errno.EACCES, "the server does not let this user in", self.place
            ) from error
        except (asyncssh.Error, OSError, FSTimeoutError) as error:
            raise ConnectionRefusedError(
                errno.ECONNREFUSED, f"no connection ({error or type(error).__name__})", self.place
            ) from error
        return fs, client

    def _lose(self, client: Any) -> None:
        """Make nothing more of a connection whose answers can't be told any more."""
        with self._lock:
            if self._client is not client:
                return
            fs, self._fs, self._client = self._fs, None, None
        if fs is not None:
            with contextlib.suppress(RuntimeError):
                fs.loop.call_soon_threadsafe(fs.client.abort)
            _close(fs)

    def call(self, do: Call[T], path: str, *, client: Any = None) -> T:
        """Make requests; errors come out as OSError.

        A request that certainly was not sent is made once more, on a new connection; not so with a `client`
        given, which holds what the requests are about.
        """
        if sys.is_finalizing():  # the thread that speaks to the server has ended
            raise OSError(LOST, "the process ends", path)
        import asyncssh
        from fsspec.asyn import FSTimeoutError, sync

        for turn in range(_TRIES):
            used = client or self._connected()
            try:
                return cast(T, sync(used._handler._loop, do, used, timeout=self._timeout_s))
            except asyncssh.SFTPNoConnection as error:
                self._lose(used)
                if client is None and turn < _TRIES - 1:
                    continue
                raise OSError(LOST, "the connection is lost", path) from error
            except asyncssh.SFTPConnectionLost as error:
                self._lose(used)
                raise OSError(LOST, "the connection was lost before the answer", path) from error
            except asyncssh.SFTPError as error:
                raise translated(error, path) from error
            except (FSTimeoutError, TimeoutError) as error:
                self._lose(used)
                raise OSError(
                    errno.ETIMEDOUT, f"no answer within {self._timeout_s:.0f} s", path
                ) from error
            except (asyncssh.Error, OSError, EOFError, asyncio.CancelledError) as error:
                self._lose(used)
                raise OSError(LOST, "the connection was lost before the answer", path) from error
            except KeyboardInterrupt:
                self._lose(used)  # or the request would go on behind our back
                raise
        raise AssertionError("unreachable")

    def _ask(self, do: Call[T], path: str) -> T:
        """As `call`, for requests that change nothing: made again after a lost answer."""
        try:
            return self.call(do, path)
        except OSError as error:
            if error.errno not in (LOST, errno.ETIMEDOUT):
                raise
        return self.call(do, path)

    # --- contents ---------------------------------------------------------------------------

    def open_new(self, path: str) -> BinaryIO:
        flags = _READ | _WRITE | _CREATE | _EXCLUSIVE
        return self._exclusively(lambda: self._open(path, flags), path)

    def open_again(self, path: str) -> BinaryIO:
        return self._open(path, _READ | _WRITE)

    def open_read(self, path: str) -> BinaryIO:
        return self._open(path, _READ)

    def _open(self, path: str, flags: int) -> BinaryIO:
        async def do(client: Any) -> tuple[Any, Any]:
            return client, await client.open(path, flags, encoding=None)

        client, file = self.call(do, path)
        return cast(BinaryIO, SftpFile(self, client, file, path))

    def read_file(self, path: str, limit_bytes: int) -> bytes:
        async def do(client: Any) -> bytes:
            file = await client.open(path, _READ, encoding=None)
            try:
                return bytes(await file.read(limit_bytes + 1, 0))
            finally:
                await file.close()

        found = self.lstat(path)
        if found is not None and found.kind is FileKind.LINK:
            raise OSError(errno.ELOOP, "is a link", path)
        content = self._ask(do, path)
        if len(content) > limit_bytes:
            raise OSError(errno.EFBIG, f"longer than {limit_bytes} bytes", path)
        return content

    def sync_file(self, file: BinaryIO) -> None:
        """By ``fsync@openssh.com``; nothing where the server has no such call."""
        cast(SftpFile, file).sync()

    def begin_sync(self, file: BinaryIO) -> None:
        """Nothing: the server writes back by itself."""

    def sync_dir(self, path: str) -> None:
        """Nothing: SFTP has no such call, and DURABLE is not promised for that reason."""

    def open_fs(self, path: str) -> int | None:
        return None

    def sync_fs(self, fd: int) -> None:
        raise OSError(errno.ENOSYS, "SFTP has no call that makes a whole file system durable")

    def close_fs(self, fd: int) -> None:
        """Nothing: `open_fs` opens nothing."""

    # --- names --------------------------------------------------------------------------------

    def resolve(self, path: str) -> str:
        path = posixpath.normpath("/" + path.lstrip("/"))
        found = self.lstat(path)
        if found is None or found.kind is not FileKind.LINK:
            return path

        async def do(client: Any) -> str:
            return str(await client.realpath(path))

        return self._ask(do, path)

    def mkdir(self, path: str) -> None:
        self._exclusively(lambda: self.call(lambda client: client.mkdir(path), path), path)

    def rmdir(self, path: str) -> None:
        try:
            self.call(lambda client: client.rmdir(path), path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOENT):
                raise
            found = self.lstat(path)
            if found is not None and found.kind is not FileKind.TREE:
                raise NotADirectoryError(errno.ENOTDIR, "is no directory", path) from error
            if found is not None and next(self.scandir(path), None) is not None:
                raise OSError(errno.ENOTEMPTY, "is not empty", path) from error
            raise

    def unlink(self, path: str) -> None:
        try:
            self.call(lambda client: client.remove(path), path)
        except OSError as error:
            found = self.lstat(path) if error.errno == errno.EPERM else None
            if found is not None and found.kind is FileKind.TREE:
                raise IsADirectoryError(errno.EISDIR, "is a directory", path) from error
            raise

    def share(self, path: str, like: str) -> None:
        import asyncssh

        async def do(client: Any) -> None:
            wanted = (await client.stat(like)).permissions
            if wanted is not None:
                mode = stat.S_IMODE(wanted)
                await client.setstat(path, asyncssh.SFTPAttrs(permissions=mode))

        self.call(do, path)

    def may_write(self, path: str) -> bool:
        return True  # the server knows, and only a try tells

    def set_mtime(self, path: str, mtime_ns: int) -> None:
        import asyncssh

        seconds = mtime_ns // 10**9
        attrs = asyncssh.SFTPAttrs(atime=seconds, mtime=seconds)
        self.call(lambda client: client.setstat(path, attrs), path)

    def rename(self, src: str, dst: str) -> None:
        try:
            self.call(lambda client: client.posix_rename(src, dst), src)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOENT):  # to OpenSSH ENOTDIR is ENOENT
                raise
            raise self._why_not(error, src, dst) from error

    def replace_file(self, src: str, dst: str) -> None:
        self.rename(
            src, dst
        )  # rename(2) refuses a directory in the place of a file, and the reverse

    def rename_new(self, src: str, dst: str) -> None:
        try:
            self.call(lambda client: client.rename(src, dst), src)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            if self.lstat(src) is not None and self.lstat(dst) is not None:
                raise FileExistsError(errno.EEXIST, "exists", dst) from error
            raise

    def exchange(self, a: str, b: str) -> None:
        raise OSError(errno.ENOSYS, "SFTP can't exchange two entries", a)

    def link_new(self, src: str, dst: str) -> None:
        self._exclusively(lambda: self.call(lambda client: client.link(src, dst), src), dst)

    def lstat(self, path: str) -> Stat | None:
        try:
            found = self._ask(lambda client: client.lstat(path), path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        mtime_ns = (found.mtime or 0) * 10**9 + (getattr(found, "mtime_ns", None) or 0)
        mode = found.permissions or 0
        return Stat(kind_of(found), 0, 0, found.size or 0, mtime_ns, mode)

    def scandir(self, path: str) -> Iterator[tuple[str, FileKind]]:
        found = self._ask(lambda client: client.readdir(path), path)
        for entry in found:
            if entry.filename not in (".", ".."):
                yield str(entry.filename), kind_of(entry.attrs)

    # --- locks --------------------------------------------------------------------------------

    def lock(self, path: str, *, wait_s: float) -> LockHandle | None:
        return self._locks.lock(path, wait_s=wait_s)

    # --- reasons --------------------------------------------------------------------------------

    def _exclusively(self, make: Callable[[], T], path: str) -> T:
        """The result of `make`, which creates `path`. A refusal without a reason may be EEXIST: look.

        What was in the way may have gone by the time that we look: then it is tried again.
        """
        for turn in range(_TRIES):
            try:
                return make()
            except OSError as error:
                if error.errno != errno.EPERM:
                    raise
                if self.lstat(path) is not None:
                    raise FileExistsError(errno.EEXIST, "exists", path) from error
                if turn == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _why_not(self, error: OSError, src: str, dst: str) -> OSError:
        """Why rename(2) failed, by what lies there; it says so itself where the source is missing."""
        source, found = self.lstat(src), self.lstat(dst)
        if source is None and error.errno == errno.EPERM:
            # The kernel compares mounts before it looks the name up, and ENOENT has a code of its own.
            return OSError(errno.EXDEV, "is on another file system", src)
        if source is None or found is None:
            return error
        if source.kind is FileKind.TREE:
            number = errno.ENOTEMPTY if found.kind is FileKind.TREE else errno.ENOTDIR
        else:
            number = errno.EISDIR if found.kind is FileKind.TREE else errno.EPERM
        return OSError(number, f"{os.strerror(number)} ({error.strerror})", dst)


def _are_paths(keys: Any) -> bool:
    listed = keys if isinstance(keys, list | tuple) else [keys]
    return all(isinstance(key, str | os.PathLike) for key in listed)


_arrivals = Arrivals(SftpOps)


def _make(host: str, options: dict[str, Any]) -> SftpOps:
    return cast(SftpOps, _arrivals.of(host, options))


def _close(fs: Any) -> None:
    """Close a connection from any thread but the loop's; one that hangs is left to end by itself."""
    from fsspec.asyn import sync

    async def close() -> None:
        with contextlib.suppress(Exception):
            await fs._pool.close()
        with contextlib.suppress(Exception):
            await fs._stack.aclose()

    with contextlib.suppress(Exception):
        sync(fs.loop, close, timeout=5)
