"""fstx: transactions for any fsspec URL."""

__version__ = "0.1.0"
