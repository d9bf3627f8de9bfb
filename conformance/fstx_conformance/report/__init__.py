"""Reports: what a result looks like for people and for machines.

`write` puts JSON, JUnit XML and a page into a directory, as one transaction.
"""

from __future__ import annotations

from fstx_conformance.report.publish import write

__all__ = ["write"]
