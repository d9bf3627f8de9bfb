"""Files in one SQLite database: a file system for fsspec, and a backend for fstx."""

from sqlitefs.filesystem import SqliteFileSystem
from sqlitefs.store import SqliteStore

__all__ = ["SqliteFileSystem", "SqliteStore"]
