"""From a URL, or a file system that the caller has, to a `Store`."""

from __future__ import annotations

import os
import re
from typing import Any

from fstx import seams
from fstx.errors import CapabilityError, PathError
from fstx.stores import Store
from fstx.stores.hiding import scrub

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+._-]*)://")


_NO_SMB = (
    "no log and no cache can be kept on smb://: its fsspec client looks for a file first and writes then, "
    "so that two writers can both be told that they were first. Ways out: smb:// without tx::, or sftp:// "
    "on the same server"
)


def open_store(url: str | os.PathLike[str], **storage_options: Any) -> Store:
    """The store whose root is `url`.

    Parameters
    ----------
    url
        ``s3://bucket/path``, ``gs://``, ``az://``, ``memory://``, ``file://``, a plain path, or any
        other protocol of fsspec.
    **storage_options
        As fsspec takes them. ``durable=False`` for local files leaves out the syncs.

    Returns
    -------
    Store
        Nothing was read or written yet.
    """
    text = os.fspath(url)
    if "::" in text:
        shown = scrub(text, frozenset())
        raise PathError(f"{shown!r} is a chained URL; a store needs the storage itself")
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else "file"
    if scheme in ("file", "local"):
        path = text[found.end() :] if found else text
        return seams.around_store(_local(path, **storage_options))
    if scheme == "smb":
        raise CapabilityError(_NO_SMB)
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(text, **storage_options)  # also takes host and user out of the URL
    except ValueError as error:
        if "not known" not in str(error):
            raise
        raise PathError(f"{scheme}:// is no storage that fsspec knows ({text})") from error
    return store_of(fs, path)


def store_of(fs: Any, path: str) -> Store:
    """The store whose root is `path` on the fsspec file system `fs`.

    The caller's instance is not changed; where a store needs other options (no listings cache, more
    connections) it makes an instance of its own.
    """
    return seams.around_store(_store_of(fs, path))


def _store_of(fs: Any, path: str) -> Store:
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.implementations.memory import MemoryFileSystem

    if isinstance(fs, LocalFileSystem):
        return _local(fs._strip_protocol(path))
    stripped = fs._strip_protocol(path)
    if isinstance(fs, MemoryFileSystem):
        from fstx.stores.memory import MemoryStore

        return MemoryStore(stripped, fs)
    from fstx.stores.remote import remote_store

    known = remote_store(fs, stripped)
    if known is not None:
        return known
    if "smb" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol):
        raise CapabilityError(_NO_SMB)
    from fstx.stores.generic import GenericStore

    return GenericStore(fs, stripped)


def _local(path: str, *, durable: bool = True, **other: Any) -> Store:
    from fstx.stores.local import LocalStore

    if unknown := sorted(set(other) - {"auto_mkdir", "use_listings_cache", "skip_instance_cache"}):
        raise PathError(f"local files take no options {', '.join(unknown)}")
    if not path:
        raise PathError("the path is empty")
    return LocalStore(os.path.expanduser(path), durable=durable)


__all__ = ["open_store", "store_of"]
