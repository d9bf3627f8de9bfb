"""Objects on any other fsspec file system; what it can't do well is refused, not imitated.

SFTP servers have a rename that refuses a taken name, and one that replaces: with these an object appears
whole. Elsewhere files are written in place, and `pipe_file(mode="create")` is tried but not trusted:
most clients look first and write then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from fstx.stores import Answer, Info, Proof
from fstx.stores.hiding import scrub, secrets_of, shows
from fstx.stores.keys import below, check_key, check_prefix, is_temp, span
from fstx.stores.naming import InPlace, Names, names_of
from fstx.stores.syncing import Workers
from fstx.types import Buffer

T = TypeVar("T")

_CERTAIN = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
_LOST = (ConnectionError, TimeoutError, EOFError)
_SPOOL_BYTES = 8 << 20
_TRIES = 20


class GenericStore:
    """A `Store` over an fsspec file system of no known kind.

    Parameters
    ----------
    fs
        The caller's file system; each thread uses an instance of its own where fsspec shares none.
    root
        Path of the root on it.
    """

    rounds = 10  # races of the probe: look-then-write wins most of them

    def __init__(self, fs: Any, root: str) -> None:
        options = {k: v for k, v in fs.storage_options.items() if k not in ("loop", "asynchronous")}
        self._made = (type(fs), fs.storage_args, options)
        self._root = root.rstrip("/")
        self._protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
        self._secrets = secrets_of([fs.storage_args, options])
        self._here = threading.local()
        self._workers = Workers()

    @property
    def url(self) -> str:
        host = self._made[2].get("host", "")
        return f"{self._protocol}://{host}{self._root}"

    @property
    def place(self) -> str:
        """Protocol, host and account: what a proof is about."""
        options = self._made[2]
        host = f"{options.get('host', '')}:{options.get('port', '')}"
        base = options.get("base_url") or options.get("endpoint") or ""
        user = options.get("username") or options.get("user") or ""
        # Users may have roots of their own on one host; a name is told by its hash.
        account = hashlib.sha256(str(user).encode()).hexdigest()[:8]
        return scrub(f"{self._protocol}:{host}{base}:{account}", self._secrets)

    @property
    def identity(self) -> str:
        return f"{self.place}:{self._root}"

    @property
    def durability(self) -> tuple[bool, str]:
        """Whether what was put survives a loss of power, and why."""
        return False, "the protocol gives no way to sync that is used here"

    @property
    def whole(self) -> tuple[bool, str]:
        """Whether an object appears whole, and why."""
        names = self._names
        return names.whole, names.reason

    def __repr__(self) -> str:
        return f"<GenericStore {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_make, (*self._made, self._root))

    # --- writing -------------------------------------------------------------------------------

    def put_new(self, key: str, data: bytes, /) -> Answer:
        path = self._path(key)
        try:
            return self._in_directory(path, lambda: self._names.put_new(path, data))
        except Exception as error:  # noqa: BLE001 - what is there decides
            failed = error
        if isinstance(failed, TypeError | NotImplementedError):
            raise OSError(errno.ENOTSUP, "no put-if-absent here", self._place(key)) from failed
        if isinstance(failed, FileExistsError):
            return Answer.TAKEN
        if isinstance(failed, _CERTAIN):
            raise self._error(failed, "create", key)
        if isinstance(failed, _LOST):
            return Answer.UNKNOWN
        with contextlib.suppress(OSError):
            if self.info(key) is not None:
                return Answer.TAKEN  # also a client that says "failure" for all
        return Answer.UNKNOWN

    def put(self, key: str, data: Buffer, /, *, checksum: str = "") -> None:
        path = self._path(key)
        self._guarded(
            lambda: self._in_directory(path, lambda: self._names.put(path, bytes(data))),
            "put",
            key,
        )

    def start_put(self, key: str, data: Buffer, /, *, checksum: str = "") -> Future[None]:
        check_key(key)
        return self._workers.submit(self.put, key, data)

    def open(self, key: str, /) -> SpoolWriter:
        return SpoolWriter(self, check_key(key))

    def replace_if(self, key: str, data: bytes, token: str | None, /) -> Answer:
        if token is None:
            return self.put_new(key, data)
        raise OSError(errno.ENOTSUP, "files can't be replaced on a condition", self._place(key))

    def delete(self, keys: Iterable[str], /) -> None:
        parents = set()
        for key in keys:
            path = self._path(key)
            try:
                self._fs.rm_file(path)
            except Exception as error:  # noqa: BLE001 - what is there decides
                failed: Exception | None = error
            else:
                failed = None
            if failed is not None and self.info(key) is not None:
                raise self._error(failed, "delete", key)
            parents.add(key.rpartition("/")[0])
        for parent in sorted(parents, reverse=True):
            self._prune(parent)

    def _prune(self, parent: str) -> None:
        """Remove directories that are empty now, where the protocol refuses those that are not."""
        while parent and ("/" in parent or parent.startswith(".probe-")):
            try:
                if not self._names.remove_empty(below(self._root, parent)):
                    return
            except Exception:  # noqa: BLE001 - not empty, gone, or in use: somebody else's business
                return
            parent = parent.rpartition("/")[0]

    # --- reading -------------------------------------------------------------------------------

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        path = self._path(key)
        return self._guarded(lambda: self._read(path, start, stop), "read", key)

    def _read(self, path: str, start: int, stop: int | None) -> bytes:
        if not start and stop is None:
            whole: bytes = self._fs.cat_file(path)
            return whole
        # Some clients ignore the range of cat_file; none ignores a seek.
        with self._fs.open(path, "rb") as file:
            if start < 0 or stop is None:
                start, stop = span(int(self._fs.info(path)["size"]), start, stop)
            file.seek(start)
            pieces = []
            while start < stop and (piece := file.read(stop - start)):
                pieces.append(bytes(piece))
                start += len(piece)
        return b"".join(pieces)

    def list(self, prefix: str, /) -> Iterator[Info]:
        check_prefix(prefix)
        directory = prefix.rpartition("/")[0]
        top = below(self._root, directory) if directory else self._root
        found = self._guarded(lambda: self._find(top or "/"), "list", prefix)
        infos = []
        for name, told in found.items():
            key = name[len(self._root) :].strip("/") if name.startswith(self._root) else name
            if key.startswith(prefix) and not is_temp(key) and told.get("type") == "file":
                infos.append(_info(key, told))
        yield from sorted(infos, key=lambda info: info.key)

    def _find(self, top: str) -> dict[str, Any]:
        self._fs.invalidate_cache()
        try:
            found: dict[str, Any] = self._fs.find(top, detail=True)
        except FileNotFoundError:
            return {}
        return found

    def info(self, key: str, /) -> Info | None:
        path = self._path(key)

        def look() -> Any:
            self._fs.invalidate_cache()
            try:
                return self._fs.info(path)
            except (FileNotFoundError, NotADirectoryError):
                return None

        told = self._guarded(look, "look at", key)
        return None if told is None or told.get("type") != "file" else _info(key, told)

    # --- what it is ----------------------------------------------------------------------------

    def probe(self) -> Proof:
        from fstx.stores.probe import prove

        return prove(self)

    def tidy(self, older_than_s: float) -> int:
        """Remove temporary files that killed writers left; returns how many."""
        before_s = time.time() - older_than_s
        count = 0
        for name, told in self._guarded(lambda: self._find(self._root or "/"), "list", "").items():
            found = _info(name, told)
            if is_temp(name) and found.modified_s is not None and found.modified_s < before_s:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(name)
                    count += 1
        return count

    @property
    def untrusted(self) -> str:
        """Why put-if-absent is refused without a try; "" where it may be tried."""
        return self._names.untrusted

    def below(self, path: str, /) -> GenericStore:
        return _make(*self._made, below(self._root, check_key(path)))

    @property
    def _fs(self) -> Any:
        # A file system that fsspec does not share between threads is made once per thread.
        if getattr(self._here, "pid", 0) != os.getpid():
            cls, args, options = self._made
            self._here.fs = cls(*args, **options)
            self._here.pid = os.getpid()
        return self._here.fs

    @property
    def _names(self) -> Names:
        return names_of(self._fs) or InPlace(self._fs, self._protocol)

    def _path(self, key: str) -> str:
        return below(self._root, check_key(key))

    def _place(self, key: str) -> str:
        return f"{self.url}/{key}"

    def _in_directory(self, path: str, call: Callable[[], T]) -> T:
        """The result of `call`, which writes at `path`; its directory is made where it is missing."""
        for turn in range(_TRIES):
            try:
                return call()
            except FileNotFoundError:
                if turn == _TRIES - 1:
                    raise
            with contextlib.suppress(FileExistsError):
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        raise AssertionError("unreachable")

    def _guarded(self, call: Callable[[], T], action: str, key: str) -> T:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - every client has its own kinds
            failed = error
        raise self._error(failed, action, key) from (
            None if shows(failed, self._secrets) else failed
        )

    def _error(self, failed: Exception, action: str, key: str) -> OSError:
        text = f"can't {action}: {scrub(str(failed) or type(failed).__name__, self._secrets)}"
        place = self._place(key)
        if isinstance(failed, OSError) and failed.errno:
            return OSError(failed.errno, text, place)  # of the same kind again
        for kind, number in (
            (FileNotFoundError, errno.ENOENT),
            (PermissionError, errno.EACCES),
            (TimeoutError, errno.ETIMEDOUT),
        ):
            if isinstance(failed, kind):
                return kind(number, text, place)
        return ConnectionError(errno.ECONNABORTED, text, place)


class SpoolWriter:
    """Collects one object in a local temporary file; `close` puts it."""

    def __init__(self, store: GenericStore, key: str) -> None:
        self._store, self._key = store, key
        self._spool: Any = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115

    def write(self, data: Buffer, /) -> None:
        if self._spool is None:
            raise ValueError(f"the writer of {self._key} is closed")
        self._spool.write(data)

    def close(self) -> None:
        spool, self._spool = self._spool, None
        if spool is None:
            return
        with spool:
            spool.seek(0)
            store = self._store
            path = store._path(self._key)

            def put() -> None:
                spool.seek(0)
                store._names.put_file(path, spool)

            store._guarded(lambda: store._in_directory(path, put), "put", self._key)

    def abort(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            with contextlib.suppress(OSError):
                spool.close()


def _info(key: str, told: dict[str, Any]) -> Info:
    modified: Any = None
    for name in ("mtime", "last_modified", "LastModified", "modified", "modify"):
        modified = told.get(name) or modified
    if hasattr(modified, "timestamp"):
        modified = modified.timestamp()
    modified_s = float(modified) if isinstance(modified, int | float) else None
    return Info(key, int(told.get("size") or 0), modified_s, None)


def _make(cls: Any, args: Any, options: Any, root: str) -> GenericStore:
    return GenericStore(cls(*args, **options), root)


__all__ = ["GenericStore", "SpoolWriter"]
