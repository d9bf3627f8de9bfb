"""Listings that fsspec's file systems keep: forgotten once something else lies there."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def forget_listings(url: str) -> None:
    """Readers of this process that list anew find what lies at `url` now.

    File systems of fsspec remember what they listed, and know only what they changed themselves.
    """
    found = _SCHEME.match(url)
    if found is None or found[1] == "file":
        return
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(found[1])
    except (ImportError, ValueError):
        return
    for fs in list(getattr(kind, "_cache", {}).values()):
        fs.invalidate_cache()


__all__ = ["forget_listings"]
