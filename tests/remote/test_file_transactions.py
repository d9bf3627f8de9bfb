"""Transactions over SFTP, on the project's own server; on real sshd and smbd: tests/files."""

from __future__ import annotations

import pytest

from support.emulators import FilePlace, OwnSftp
from support.filetests import LeaseTests


class TestAsyncssh(LeaseTests):
    """asyncssh's server."""

    stride = 8

    @pytest.fixture
    def place(self, own_sftp: OwnSftp) -> FilePlace:
        return own_sftp.place()
