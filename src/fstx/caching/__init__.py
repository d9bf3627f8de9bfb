"""A cache of arrays and bytes, shared by processes and hosts, on local and object stores."""

from fstx.caching.core import Cache, CacheWarning
from fstx.caching.keys import Key
from fstx.caching.opening import cache
from fstx.caching.upkeep import CacheCheck

__all__ = ["Cache", "CacheCheck", "CacheWarning", "Key", "cache"]
