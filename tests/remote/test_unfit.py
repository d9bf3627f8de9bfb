"""Protocols on which no transaction can be kept: refused, and the fact behind the refusal."""

from __future__ import annotations

import ftplib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fstx
from support.emulators import HOST, Server


@pytest.mark.parametrize("scheme", ["ftp", "ftps", "webdav", "http", "https"])
def test_refused_with_ways_out(scheme: str) -> None:
    """UNFIT-1: begin says why the protocol can't carry a transaction and what to use; no password shows."""
    url = f"{scheme}://me:hidden@{HOST}:1/d/t"
    for call in (fstx.begin, fstx.guarantee, fstx.recover):
        with pytest.raises(fstx.CapabilityError, match="Ways out: sftp://") as raised:
            call(url)
        assert "hidden" not in str(raised.value)
    assert ("replaces" if "ftp" in scheme else "check a condition") in str(raised.value)


@pytest.fixture
def ftp(tmp_path: Path, server_logs: Path) -> Iterator[int]:
    """The port of an FTP server over `tmp_path`."""
    fixed = ["-i", HOST, "-w", "-u", "u", "-P", "p", "-d", str(tmp_path)]

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "pyftpdlib", "-p", str(port), *fixed]

    server = Server("ftp", command, server_logs)
    yield server.port
    server.stop()


def test_a_rename_by_ftp_replaces(ftp: int, tmp_path: Path) -> None:
    """UNFIT-2: the fact behind the refusal: of two renames to one name both are told that they did it."""
    clients = []
    for data in (b"1", b"2"):
        client = ftplib.FTP()
        client.connect(HOST, ftp)
        client.login("u", "p")
        client.storbinary(f"STOR {data.decode()}", io.BytesIO(data))
        clients.append(client)
    answers = [c.rename(name, "commit") for c, name in zip(clients, "12", strict=True)]
    assert all(answer.startswith("250") for answer in answers)
    assert (tmp_path / "commit").read_bytes() == b"2"
    for client in clients:
        client.quit()
