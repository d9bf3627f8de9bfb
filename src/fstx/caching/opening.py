"""From a URL to a cache."""

from __future__ import annotations

from typing import Any

from fstx import registry
from fstx.caching.core import LEASE_S, Cache, Verify
from fstx.registry import URL


def cache(
    url: URL,
    max_bytes: int | None = None,
    *,
    verify: Verify = "always",
    lease_s: float = LEASE_S,
    **storage_options: Any,
) -> Cache:
    """A cache of arrays and bytes at `url`. Nothing is read or written before the first call.

    Parameters
    ----------
    url
        A directory or a prefix of an object store: a plain path, ``s3://``, ``gs://``, ``az://``, ``memory://``
        or any other protocol of fsspec. Made when the first value is put.
    max_bytes
        Bound on the size of all entries together: what was used least recently goes. None for no bound.
        Give the same in every process: uses are noted by those that have a bound.
    verify
        ``"always"`` compares the checksum of what is read; ``"never"`` its lengths and key only.
    lease_s
        How long a process that computes a value may give no sign of life before another takes over. One
        that died on this host is seen at once.
    **storage_options
        Of the storage, as fsspec takes them. ``durable=True`` for local files syncs every entry; without it
        an entry that a loss of power tore is found by its checksum and computed again.

    Returns
    -------
    Cache
        It has ``get``, ``put``, ``get_or_compute``, ``remove``, ``keys`` and ``check``.

    Raises
    ------
    PathError
        The URL is chained, or of no storage that fsspec knows.

    Examples
    --------
    >>> nulls = fstx.cache("cache/nulls", max_bytes=10**9)
    >>> nulls.get_or_compute(("null", n, k, seed), lambda: draw(n, k, seed))
    """
    from fstx.stores.opening import open_store

    text = registry.as_url(url)
    if registry.scheme_of(text) in ("file", "local"):
        storage_options.setdefault("durable", False)
    return Cache(
        open_store(text, **storage_options), max_bytes=max_bytes, verify=verify, lease_s=lease_s
    )


__all__ = ["cache"]
