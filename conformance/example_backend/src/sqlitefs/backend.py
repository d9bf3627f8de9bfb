"""The entry point of the group ``fstx.backends``: from URLs to a backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fstx.backends.manifest import backend_over
from fstx.errors import PathError
from sqlitefs.database import split
from sqlitefs.store import SqliteStore


def open_backend(urls: Sequence[str], *, joined: bool = False, policy: Any = "rebase") -> Any:
    """The backend of targets in one database; options are keyword arguments, others are refused."""
    try:
        places = [split(url) for url in urls]
    except ValueError as error:
        raise PathError(str(error)) from None
    databases = {database for database, _ in places}
    if len(databases) > 1:
        raise PathError(
            f"targets of one transaction lie in one database; got {', '.join(sorted(databases))}"
        )
    store = SqliteStore(databases.pop())
    return backend_over(store, [path for _, path in places], joined=joined, policy=policy)
