"""Plain objects at the names that the user chose, published by a log beside them."""

from fstx.backends.plain.backend import PlainBackend, open_backend
from fstx.backends.plain.transaction import PlainTransaction

__all__ = ["PlainBackend", "PlainTransaction", "open_backend"]
