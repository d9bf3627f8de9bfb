"""``tx::``: datasets with transactions and versions, for code that uses fsspec."""

from fstx.filesystem.core import TxFileSystem
from fstx.filesystem.notices import EachCallCommitsWarning

__all__ = ["EachCallCommitsWarning", "TxFileSystem"]
