"""A real sshd and a real smbd as fixtures. Collected in ``nox -s files`` only, which installs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.emulators import Smbd, Sshd

collect_ignore_glob = [] if os.environ.get("FSTX_FILES") else ["test_*.py"]


@pytest.fixture(scope="session")
def sshd(server_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """OpenSSH's server."""
    server = Sshd(tmp_path_factory.mktemp("sshd"), server_logs)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def smbd(server_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smbd]:
    """Samba's server."""
    server = Smbd(tmp_path_factory.mktemp("smbd"), server_logs)
    yield server
    server.stop()
