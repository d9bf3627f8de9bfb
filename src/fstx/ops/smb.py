"""SMB calls, over `smbclient` (smbprotocol): the rules of Windows, on a server.

Open handles block a replacement; a lock is a handle that nobody shares, which the server drops with the
connection. Paths are ``/share/folder/name``.

Facts: MS-SMB2, MS-FSCC (status codes of a rename), MS-ERREF (status codes as Windows error codes).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

from fstx.errors import UsageError
from fstx.ops._wincrt import StatLike
from fstx.ops.remote import Arrivals
from fstx.ops.windows import DENIED, SHARING, WindowsOps, winerror

T = TypeVar("T")

_EXISTS = 183
_LOST = 64  # as Windows says it: the network name is no longer available
_SECRET = ("password",)
_DEFAULT_PORT = 445
_PART_BYTES = 1 << 20
_EPOCH = 116444736000000000  # 1970 in 100 ns since 1601
_DIRECTORY, _READ_ONLY, _REPARSE = 0x10, 0x1, 0x400

# Status codes, with the code that a Windows client would see, and errno.
_CODES: dict[int, tuple[int, int]] = {
    0xC0000034: (2, errno.ENOENT),  # name not found
    0xC000003A: (3, errno.ENOENT),  # path not found
    0xC000000F: (2, errno.ENOENT),  # no such file
    0xC0000035: (_EXISTS, errno.EEXIST),
    0xC0000022: (DENIED, errno.EACCES),
    0xC0000056: (DENIED, errno.EACCES),  # delete pending
    0xC0000121: (DENIED, errno.EACCES),  # can't be deleted
    0xC00000BA: (DENIED, errno.EISDIR),
    0xC0000043: (SHARING, errno.EACCES),
    0xC0000054: (33, errno.EACCES),
    0xC0000101: (145, errno.ENOTEMPTY),
    0xC0000103: (267, errno.ENOTDIR),
    0xC00000D4: (17, errno.EXDEV),
    0xC000007F: (112, errno.ENOSPC),
    0xC0000044: (1816, errno.EDQUOT),
    0xC0000033: (123, errno.EINVAL),
    0xC000000D: (87, errno.EINVAL),
    0xC0000010: (1, errno.ENOSYS),
    0xC00000BB: (50, errno.ENOSYS),
    0xC00000A2: (19, errno.EROFS),
    0xC000006D: (1326, errno.EACCES),  # logon failure
    0xC00000CC: (67, errno.ENOENT),  # no such share
    0xC00000B5: (121, errno.EIO),  # timed out
    0xC00000C9: (_LOST, errno.EIO),
    0xC000020C: (_LOST, errno.EIO),
    0xC0000203: (_LOST, errno.EIO),
    0xC000035C: (_LOST, errno.EIO),  # session expired
    0xC0000128: (_LOST, errno.EIO),  # file closed: its connection is gone
}


class SmbOps(WindowsOps):
    """`fstx.ops.Ops` on an SMB server.

    The connection is opened at the first call, in each process anew, and again after it was lost; locks go
    with it. Then another writer takes this one for dead, and settles it before it commits.

    Parameters
    ----------
    host
        The server.
    patience_s
        How long a call waits for another program to let go.
    **options
        For `smbclient`: ``port``, ``username``, ``password``, ``encrypt``, ``auth_protocol``, ... A password
        does not go into a pickle: a worker in another process needs Kerberos, or `smbclient.ClientConfig`.
    """

    leased = True

    def __init__(self, host: str, *, patience_s: float = 5.0, **options: Any) -> None:
        self._host, self._options, self._patience_s = host, options, patience_s
        self._smb = SmbCrt(host, options)
        super().__init__(self._smb, patience_s=patience_s)
        port = options.get("port") or _DEFAULT_PORT
        self.place = f"smb://{host}" + (f":{port}" if port != _DEFAULT_PORT else "")

    def __reduce__(self) -> tuple[object, ...]:
        options = {k: v for k, v in self._options.items() if k not in _SECRET}
        return _make, (self._host, {**options, "patience_s": self._patience_s})

    def __repr__(self) -> str:
        return f"<SmbOps {self.place}>"

    def close(self) -> None:
        """Close the connection; the next call opens one again."""
        self._smb.close()

    def resolve(self, path: str) -> str:
        return posixpath.normpath("/" + path.lstrip("/"))

    def sync_file(self, file: BinaryIO) -> None:
        cast(SmbFile, file).sync()

    def _try_lock(self, path: str) -> BinaryIO | None:
        try:
            return self._smb.open(path, "a+b", alone=True)
        except OSError as error:
            if winerror(error) == SHARING:
                return None
            if winerror(error) == DENIED and self._taken(path):
                return None  # its last holder is deleting it
            raise

    def _drop_lock(self, file: BinaryIO, path: str) -> None:
        """As on Windows; a file that stays, because the connection is lost, is nobody's lock any more."""
        with contextlib.suppress(OSError):
            file.close()
        for _ in range(2):
            with contextlib.suppress(OSError):
                super()._drop_lock(file, path)
                return


class SmbCrt:
    """`smbclient`, as `fstx.ops.windows` wants the calls of the system."""

    def __init__(self, host: str, options: dict[str, Any]) -> None:
        self._host, self._options = host, options
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._cache: dict[str, Any] = {}
        weakref.finalize(self, _disconnect, self._cache, self._pid)

    def close(self) -> None:
        _disconnect(self._cache, self._pid)

    def _session(self) -> dict[str, Any]:
        """What each call of smbclient gets; the connection is there afterwards."""
        try:
            import smbclient
        except ImportError as error:
            raise OSError(
                errno.ENOSYS, "smb:// needs smbprotocol: pip install 'fstx[smb]'"
            ) from error
        if self._pid != os.getpid():
            self._start()  # a forked child has no thread to hear its parent's connection
        options = {"port": _DEFAULT_PORT, **self._options, "connection_cache": self._cache}
        if not options.get("password"):
            options |= _settings(options.get("username"))
        with self._lock:
            try:
                smbclient.register_session(self._host, **options)
            except TypeError as error:
                raise UsageError(f"smb://{self._host}: an option is not known: {error}") from error
            except Exception as error:
                raise _unreachable(error, self._host) from error
        return options

    def call(
        self, do: Callable[..., T], path: str, *more: str, again: bool = False, **how: Any
    ) -> T:
        """One call of smbclient; errors come out as those of Windows. `again`: it changes nothing, so a lost
        answer is asked for once more."""
        if sys.is_finalizing():  # the thread that hears the server has ended
            raise _as_windows(_LOST, errno.EIO, "the process ends", path)
        options = self._session()
        try:
            return do(*(self._unc(p) for p in (path, *more)), **how, **options)
        except Exception as error:
            told = _translated(error, path)
            if winerror(told) != _LOST:
                raise told from error
            self.close()
            if not again:
                raise told from error
        return self.call(do, path, *more, **how)

    def _do(self, name: str, path: str, *more: str, again: bool = False, **how: Any) -> Any:
        """`call` of what smbclient has under this name."""
        if sys.is_finalizing():  # the thread that hears the server has ended
            raise _as_windows(_LOST, errno.EIO, "the process ends", path)
        self._session()
        import smbclient

        return self.call(getattr(smbclient, name), path, *more, again=again, **how)

    def _unc(self, path: str) -> str:
        return f"\\\\{self._host}" + path.replace("/", "\\")

    # --- the calls --------------------------------------------------------------------------------

    def open(self, path: str, mode: str, *, alone: bool = False) -> BinaryIO:
        share = None if alone else "rw"
        try:
            file = self._do("open_file", path, mode=mode, buffering=0, share_access=share)
        except IsADirectoryError as error:  # Samba looks at the kind of what is there first
            if "x" not in mode:
                raise
            text = "a directory has this name"
            raise _as_windows(_EXISTS, errno.EEXIST, text, path) from error
        return cast(BinaryIO, SmbFile(file, path))

    def open_shared(self, path: str) -> BinaryIO:
        how = {"mode": "rb", "buffering": 0, "share_access": "rwd"}
        file = self._do("open_file", path, again=True, **how)
        return cast(BinaryIO, SmbFile(file, path))

    def fsync(self, fd: int, /) -> None:
        raise OSError(errno.ENOSYS, "files of a share have no descriptor")

    def lock(self, fd: int, /) -> bool:
        raise OSError(errno.ENOSYS, "files of a share have no descriptor")

    def rename(self, src: str, dst: str) -> None:
        self._do("rename", src, dst)

    def replace(self, src: str, dst: str) -> None:
        self._do("replace", src, dst)

    def link(self, src: str, dst: str) -> None:
        self._do("link", src, dst)

    def remove(self, path: str) -> None:
        self._do("remove", path)

    def rmdir(self, path: str) -> None:
        self._do("rmdir", path)

    def mkdir(self, path: str) -> None:
        self._do("mkdir", path)

    def chmod(self, path: str, mode: int) -> None:
        """Nothing: smbclient takes the read-only attribute away where it deletes."""

    def lstat(self, path: str) -> StatLike:
        return self.call(_looked_at, path, again=True)

    def scandir(self, path: str) -> Iterator[tuple[str, StatLike]]:
        def listed(place: str, **options: Any) -> list[tuple[str, StatLike]]:
            import smbclient

            entries = smbclient.scandir(place, **options)
            infos = [(e.name, e.smb_info) for e in entries]
            return [(n, _Entry.of(i.file_attributes, i.file_id, i.end_of_file)) for n, i in infos]

        return iter(self.call(listed, path, again=True))

    def is_remote(self, path: str) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the server tells of an entry."""

    st_mode: int
    st_ino: int
    st_size: int
    st_mtime_ns: int
    st_dev: int = 1  # of one share

    @classmethod
    def of(cls, attributes: Any, file_id: Any, size_bytes: Any, written: Any = None) -> _Entry:
        """`written`: as smbprotocol tells it, a time or 100 ns since 1601."""
        bits = int(getattr(attributes, "value", attributes))
        kind = stat.S_IFDIR if bits & _DIRECTORY else stat.S_IFREG
        kind = stat.S_IFLNK if bits & _REPARSE else kind
        mode = kind | (0o444 if bits & _READ_ONLY else 0o666)
        return cls(mode, int(file_id), int(size_bytes), _ns(written))


def _ns(written: Any) -> int:
    if written is None:
        return 0
    if hasattr(written, "timestamp"):
        return int(round(written.timestamp() * 10**6) * 1000)
    return (int(written) - _EPOCH) * 100


class SmbFile(io.RawIOBase):
    """A file on the server, by a handle; of use only as long as its connection."""

    buffer_bytes = _PART_BYTES

    def __init__(self, file: Any, path: str) -> None:
        self.name = path
        self._file = file

    def _call(self, do: Callable[[], T]) -> T:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if self._file.closed:
            raise _as_windows(_LOST, errno.EIO, "its connection is lost", self.name)
        try:
            return do()
        except Exception as error:
            raise _translated(error, self.name) from error

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return bool(self._file.writable())

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")[:_PART_BYTES]
        return int(self._call(lambda: self._file.readinto(view)))

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            part = view[done : done + _PART_BYTES]
            done += int(self._call(lambda part=part: self._file.write(part)))  # type: ignore[misc]
        return done

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return int(self._call(lambda: self._file.seek(offset, whence)))

    def tell(self) -> int:
        return int(self._file.tell())

    def truncate(self, size: int | None = None, /) -> int:
        size = self.tell() if size is None else size
        return int(self._call(lambda: self._file.truncate(size)))

    def sync(self) -> None:
        """Contents durable, as far as the server keeps the word of FLUSH."""
        self._call(self._file.fd.flush)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        if not self._file.closed:
            try:
                self._file.close()
            except Exception as error:
                raise _translated(error, self.name) from error

    def __del__(self) -> None:
        # Not by a request: the collector may run in the thread that would have to hear the answer.
        with contextlib.suppress(Exception):
            io.RawIOBase.close(self)
            self._file.fd._connected = False


def _looked_at(place: str, **options: Any) -> StatLike:
    """As `smbclient.lstat`, by three messages instead of seven: most of a file is told when it is opened."""
    from smbclient._io import SMBFileTransaction, SMBRawIO, query_info
    from smbprotocol.file_info import FileInternalInformation
    from smbprotocol.open import CreateOptions, FilePipePrinterAccessMask

    raw = SMBRawIO(
        place,
        mode="r",
        share_access="rwd",
        desired_access=FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES,
        create_options=CreateOptions.FILE_OPEN_REPARSE_POINT,
        **options,
    )
    with SMBFileTransaction(raw) as transaction:
        query_info(transaction, FileInternalInformation)
    (internal,) = transaction.results
    return _Entry.of(
        raw.fd.file_attributes,
        internal["index_number"].get_value(),
        raw.fd.end_of_file,
        raw.fd.last_write_time,
    )


_arrivals = Arrivals(SmbOps)


def _make(host: str, options: dict[str, Any]) -> SmbOps:
    return cast(SmbOps, _arrivals.of(host, options))


def _disconnect(cache: dict[str, Any], pid: int) -> None:
    if pid == os.getpid() and cache:
        import smbclient

        with contextlib.suppress(Exception):
            smbclient.reset_connection_cache(fail_on_error=False, connection_cache=cache)


def _settings(username: str | None) -> dict[str, Any]:
    """Who the settings of smbclient log in, where that is the same user or none was named."""
    from smbclient import ClientConfig

    config = ClientConfig()
    if not config.password or username not in (None, config.username):
        return {}
    return {"username": config.username, "password": config.password}


def _as_windows(code: int, number: int, text: str, path: str) -> OSError:
    error = OSError(number, text, path)
    error.winerror = code  # type: ignore[attr-defined,unused-ignore]
    return error


def _translated(error: Exception, path: str) -> OSError:
    """As Windows would say it; a connection that broke means that the answer was lost."""
    if winerror(cast(OSError, error)) is not None:
        return cast(OSError, error)
    status = getattr(error, "ntstatus", None) or getattr(error, "status", None)
    if isinstance(status, int):
        code, number = _CODES.get(status, (31, errno.EPERM))
        text = f"{os.strerror(number)} (status 0x{status:08x})"
        return _as_windows(code, number, text, path)
    if isinstance(error, OSError) and error.errno == errno.ENOSYS:
        return error
    return _as_windows(_LOST, errno.EIO, f"the connection was lost ({type(error).__name__})", path)


def _unreachable(error: Exception, host: str) -> OSError:
    from smbprotocol.exceptions import SMBAuthenticationError

    place = f"smb://{host}"
    if isinstance(error, SMBAuthenticationError) or "LOGON" in str(error).upper():
        return PermissionError(errno.EACCES, "the server does not let this user in", place)
    return ConnectionRefusedError(
        errno.ECONNREFUSED, f"no connection ({type(error).__name__})", place
    )


__all__ = ["SmbCrt", "SmbFile", "SmbOps"]
