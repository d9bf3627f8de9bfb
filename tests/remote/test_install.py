"""Servers that can't be installed say what to do, and those that are there are left alone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from servers import install


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without servers."""
    monkeypatch.setenv("FSTX_SERVERS", str(tmp_path))
    return tmp_path


def test_without_node(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects whoever has no node: the message names it and the command."""
    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(install.InstallError, match=r"node and npm.*tests/servers/install\.py"):
        install.azurite()


def test_without_registries(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects whoever has no network: the message names the command and what it said."""

    def fails(command: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "no route to host")

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(install.InstallError, match=r"(?s)tests/servers/install\.py.*no route"):
        install.ministack()


def test_what_is_there_is_left_alone(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the speed of each session: with the servers there nothing is run."""
    for name in ("s3_server", "azure_server"):
        request.getfixturevalue(name)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("an installer was run")

    monkeypatch.setattr(subprocess, "run", never)
    for command in (install.ministack(), install.azurite()):
        assert Path(command[-1]).exists()


def test_half_installed_is_installed_again(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from an installation that was killed: leftovers do not count as a server."""
    leftover = empty / "ministack" / "lib" / "python3" / "site-packages" / "hypercorn"
    leftover.mkdir(parents=True)
    run: list[Any] = []

    def records(command: Any, **_: Any) -> subprocess.CompletedProcess[str]:
        run.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", records)
    install.ministack()
    assert not leftover.exists()
    assert f"ministack=={install.MINISTACK}" in run[-1]
