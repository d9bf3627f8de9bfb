"""Real storage servers as fixtures: started on first use, ended with the session, also when it is killed.

Use a place: ``def test_x(s3: Place)`` or, over all three object stores, ``remote_place``. Each test gets an
empty bucket and a prefix of its own in it; the bucket has one name, so that fstx probes it once. Through a
proxy that makes faults::

    def test_lost_answer(s3_faulty: Place, fault_proxy: FaultProxy) -> None:
        fault_proxy.rules(Rule("reset_after", method="PUT", path="/log/", times=1))

Any place can be seen through a proxy of its own: ``place.through(proxies(place.port))``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fstx.stores import probe
from fstx_conformance.seams.proxy.control import FaultProxy, Rule
from support.emulators import (
    GCS,
    HOST,
    S3,
    Azure,
    Emulator,
    OwnSftp,
    Place,
    SFTPServer,
)

__all__ = ["FaultProxy", "Place", "Rule"]


@pytest.fixture(scope="session")
def server_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers write what they say."""
    return tmp_path_factory.mktemp("servers")


def _running(emulator: Emulator) -> Iterator[Any]:
    yield emulator
    emulator.server.stop()


@pytest.fixture(scope="session")
def s3_server(server_logs: Path) -> Iterator[S3]:
    """An S3 server."""
    yield from _running(S3(server_logs))


@pytest.fixture(scope="session")
def gcs_server(server_logs: Path) -> Iterator[GCS]:
    """A GCS server."""
    yield from _running(GCS(server_logs))


@pytest.fixture(scope="session")
def azure_server(server_logs: Path) -> Iterator[Azure]:
    """An Azure blob server."""
    yield from _running(Azure(server_logs))


@pytest.fixture(scope="session")
def sftp_server(
    server_logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SFTPServer]:
    """An SFTP server over a folder that holds one folder for each test."""
    server = SFTPServer(tmp_path_factory.mktemp("sftp"), server_logs)
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3) -> Iterator[Place]:
    """An empty place on the S3 server."""
    with s3_server.standing() as place:
        yield place


@pytest.fixture
def gcs(gcs_server: GCS) -> Iterator[Place]:
    """An empty place on the GCS server."""
    with gcs_server.standing() as place:
        yield place


@pytest.fixture
def azure(azure_server: Azure) -> Iterator[Place]:
    """An empty place on the Azure server."""
    with azure_server.standing() as place:
        yield place


@pytest.fixture(params=["s3", "gcs", "azure"])
def remote_place(request: pytest.FixtureRequest) -> Place:
    """Each of the three object stores."""
    place: Place = request.getfixturevalue(request.param)
    return place


@pytest.fixture
def sftp(sftp_server: SFTPServer) -> Place:
    """A fresh folder on the SFTP server."""
    name = uuid.uuid4().hex[:16]
    (sftp_server.folder / name).mkdir()
    options = {"host": HOST, "port": sftp_server.port, "username": "test", "known_hosts": None}
    return Place(f"sftp:///{name}/p", options, "sftp", sftp_server.port)


@pytest.fixture(scope="session")
def _proxies() -> Iterator[Callable[[int, str], FaultProxy]]:
    """Proxies by port behind them and by use, kept for the session."""
    running: dict[tuple[int, str], FaultProxy] = {}
    with ExitStack() as stack:

        def proxy(port: int, use: str) -> FaultProxy:
            if (port, use) not in running:
                running[port, use] = FaultProxy(f"http://{HOST}:{port}")
                stack.callback(running[port, use].stop)
            return running[port, use]

        yield proxy


def _unproven(proxy: FaultProxy, *, good: bool) -> None:
    """What fstx found wanting behind a proxy is found out again; with `good` all that it found."""
    for place, found in list(probe._found.items()):
        kept = found.put_new and found.consistent and found.replace_if
        if f":{proxy.port}" in place and (good or not kept):
            del probe._found[place]


@pytest.fixture
def proxies(_proxies: Callable[[int, str], FaultProxy]) -> Iterator[Callable[..., FaultProxy]]:
    """From a port (and a name, for more than one) to a proxy in front of it, without rules at first."""
    used: list[FaultProxy] = []

    def proxy(port: int, name: str = "") -> FaultProxy:
        found = _proxies(port, f"own-{name}")
        if found not in used:
            _unproven(found, good=False)
            found.clear()
            used.append(found)
        return found

    yield proxy
    for found in used:
        found.clear()


@pytest.fixture
def fault_proxy(s3_server: S3, proxies: Callable[..., FaultProxy]) -> FaultProxy:
    """The proxy in front of the S3 server; without rules it changes nothing."""
    return proxies(s3_server.port)


@pytest.fixture
def s3_faulty(s3: Place, fault_proxy: FaultProxy) -> Place:
    """An empty place seen through `fault_proxy`."""
    return s3.through(fault_proxy)


@pytest.fixture
def faulty_place(remote_place: Place, proxies: Callable[..., FaultProxy]) -> Place:
    """Each of the three object stores, seen through its ``.proxy``."""
    return remote_place.through(proxies(remote_place.port))


def _liar(s3: Place, proxies: Callable[[int, str], FaultProxy], use: str, *rules: Rule) -> Place:
    proxy = proxies(s3.port, use)
    _unproven(proxy, good=True)
    proxy.clear()
    proxy.rules(*rules)
    return s3.through(proxy)


@pytest.fixture
def s3_strip(s3: Place, _proxies: Callable[[int, str], FaultProxy]) -> Place:
    """A server that accepts conditions and ignores them."""
    return _liar(s3, _proxies, "strip", Rule("strip"))


@pytest.fixture
def s3_racy(s3: Place, _proxies: Callable[[int, str], FaultProxy]) -> Place:
    """A server that checks, waits, then writes: honest with one writer, wrong with two."""
    return _liar(s3, _proxies, "racy", Rule("racy", wait_s=0.02))


@pytest.fixture
def s3_lossy(s3: Place, _proxies: Callable[[int, str], FaultProxy]) -> Place:
    """An honest server whose answers to changes get lost: three in ten, after it did what was asked."""
    return _liar(
        s3, _proxies, "lossy", Rule("reset_after", method="PUT,POST,DELETE", chance=0.3, seed=1)
    )


@pytest.fixture(scope="session")
def own_sftp(server_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnSftp]:
    """The project's SFTP server, for transactions by renaming."""
    server = OwnSftp(tmp_path_factory.mktemp("files"), server_logs)
    yield server
    server.stop()
