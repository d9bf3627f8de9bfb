"""The suite that ``--fstx-url`` runs."""

from __future__ import annotations

from fstx_conformance.suite import BackendSuite


class TestStorage(BackendSuite):
    """What `fstx.begin` opens at the URL of the command line."""
