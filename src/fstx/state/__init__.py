"""The state of a dataset as pure data: entries, deltas, the tree of nodes, and records.

No I/O: what must be read comes in by a callable, what must be written comes out as bytes.
"""
