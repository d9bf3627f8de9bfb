"""The file system for fsspec: ``sqlitefs:///path/file.db/dir/name``."""

from __future__ import annotations

import errno
import io
from typing import Any

from fsspec.spec import AbstractFileSystem

from sqlitefs.database import Database, split


class SqliteFileSystem(AbstractFileSystem):
    """Files in SQLite databases. Directories are there as long as something is in them.

    Reads and writes each file whole; a file appears when it is closed.
    """

    protocol = "sqlitefs"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """From the root on: a database's path is absolute."""
        if isinstance(path, list):
            return [cls._strip_protocol(p) for p in path]
        return "/" + str(path).removeprefix("sqlitefs://").strip("/")

    def _at(self, path: str) -> tuple[Database, str]:
        path = self._strip_protocol(path)
        try:
            database, key = split(path)
        except ValueError as error:
            raise FileNotFoundError(errno.ENOENT, str(error), path) from None
        return Database(database), key

    # --- reading ----------------------------------------------------------------------------------

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What lies directly in a directory; of a file, the file."""
        database, key = self._at(path)
        top = f"{database.path}/{key}".rstrip("/")
        found: dict[str, dict[str, Any]] = {}
        for name, size, modified_s in database.find(key):
            below = name.removeprefix(key).lstrip("/") if key else name
            if name == key:
                found[top] = _file(top, size, modified_s)
            elif not key or name.startswith(f"{key}/"):
                first, deeper, _rest = below.partition("/")
                full = f"{top}/{first}"
                found[full] = _directory(full) if deeper else _file(full, size, modified_s)
        if not found and key:
            raise FileNotFoundError(errno.ENOENT, "no such file or directory", top)
        return [found[n] for n in sorted(found)] if detail else sorted(found)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """One file or directory."""
        path = self._strip_protocol(path)
        for told in self.ls(path):
            if told["name"] == path:
                return dict(told)
        return _directory(path)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """The bytes of a file, or a slice of them."""
        database, key = self._at(path)
        return database.get(key)[start:end]

    # --- writing ----------------------------------------------------------------------------------

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Put a file; with mode "create" only where none is, whoever else tries at the same time."""
        database, key = self._at(path)
        if not key:
            raise IsADirectoryError(errno.EISDIR, "a database is a directory", path)
        if mode != "create":
            database.put(key, bytes(value))
        elif not database.add(key, bytes(value)):
            raise FileExistsError(errno.EEXIST, "there is such a file", path)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        database, key = self._at(path)
        database.get(key)
        database.remove([key])

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files; a directory goes with the last of its files."""
        for found in self.expand_path(path, recursive=recursive, maxdepth=maxdepth):
            if self.isfile(found):
                self.rm_file(found)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file."""
        if self.isfile(path1):
            self.pipe_file(path2, self.cat_file(path1))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if mode == "rb":
            return io.BytesIO(self.cat_file(path))
        if mode in ("wb", "xb"):
            return _Written(self, path, "create" if mode == "xb" else "overwrite")
        raise ValueError(f"mode {mode!r}: files are read (rb), written (wb) or created (xb)")


class _Written(io.BytesIO):
    """A file that is put when it is closed."""

    def __init__(self, fs: SqliteFileSystem, path: str, mode: str) -> None:
        super().__init__()
        self._fs, self._path, self._mode = fs, path, mode

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.close()
        else:
            super().close()  # what was half written is nobody's file

    def close(self) -> None:
        """Put it, once."""
        if not self.closed:
            value = self.getvalue()
            super().close()
            self._fs.pipe_file(self._path, value, mode=self._mode)

    def __del__(self) -> None:
        super().close()


def _file(name: str, size: int, modified_s: float) -> dict[str, Any]:
    return {"name": name, "size": size, "type": "file", "mtime": modified_s}


def _directory(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}
