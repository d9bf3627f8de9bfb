"""Server processes, and the places there that tests write to; the fixtures are in `support.servers`."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec

from fstx_conformance.seams.proxy.control import FaultProxy
from servers import file_servers, install

HOST = "127.0.0.1"
START_S = 60.0
TESTS = Path(__file__).parents[1]
_readers: dict[tuple[int, str, str], Any] = {}

AZURE_ACCOUNT = "devstoreaccount1"
# the same for every emulator, and documented
AZURE_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

ENVIRONMENT = {
    # else gcsfs tries gRPC for a minute on the first use of a bucket
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    "AWS_DEFAULT_REGION": "us-east-1",
    # tests never see a developer's own accounts
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    # nothing here goes through a proxy of the network
    "NO_PROXY": f"{HOST},localhost",
    "no_proxy": f"{HOST},localhost",
}


class Server:
    """A server process on a free port of the loopback address.

    Parameters
    ----------
    name
        For messages and the log file.
    command
        From a port to the command that listens there.
    folder
        Where its output goes.
    environment
        From a port to further variables.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int], list[str]],
        folder: Path,
        environment: Callable[[int], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self.name = name
        self._log = folder / f"{name}-{uuid.uuid4().hex[:6]}.log"
        for _attempt in range(3):  # another process may take the free port first
            self.port = _free_port()
            self._start(command(self.port), environment(self.port))
            if self._answers():
                return
            self.stop()
        raise RuntimeError(f"{name} does not start:\n{self._log.read_text()[-4000:]}")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One plain HTTP request; status and body of the answer."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self) -> None:
        """The process has ended afterwards."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(30)

    def _start(self, command: list[str], environment: Mapping[str, str]) -> None:
        leash = [sys.executable, "-I", "-S", str(TESTS / "servers" / "leash.py")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=TESTS,  # `-m servers.X` is found from here
                env={**os.environ, **environment},
                start_new_session=True,  # an interrupt is for the tests; they end the server
            )

    def _answers(self) -> bool:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.alive:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return self.alive
            time.sleep(0.02)
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _own(module: str, *arguments: str) -> Callable[[int], list[str]]:
    """The command of a server of ours."""
    return lambda port: [sys.executable, "-m", f"servers.{module}", str(port), *arguments]


class SFTPServer(Server):
    """An SFTP server over `folder`."""

    def __init__(self, folder: Path, logs: Path) -> None:
        super().__init__("sftp_server", _own("sftp_server", str(folder)), logs)
        self.folder = folder


@dataclass(frozen=True)
class Place:
    """Where a test may write: an empty prefix of its own."""

    url: str
    options: dict[str, Any]
    kind: str
    port: int = 0
    proxy: FaultProxy | None = field(default=None, compare=False)

    @property
    def bucket(self) -> str:
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def fs(self) -> Any:
        """A filesystem that shares no cache with fstx, and remembers nothing: one for a server's options."""
        protocol = self.url.partition("://")[0]
        key = (os.getpid(), protocol, repr(sorted(self.options.items())))
        if key not in _readers:  # a client of S3 takes a tenth of a second
            _readers[key] = fsspec.filesystem(protocol, skip_instance_cache=True, **self.options)
        _readers[key].invalidate_cache()
        return _readers[key]

    @property
    def path(self) -> str:
        """The URL as `fs` takes it."""
        return self.url.partition("://")[2]

    def names(self) -> list[str]:
        """Everything that lies there, relative and sorted."""
        head = self.path.rstrip("/") + "/"
        found = self.fs.find(self.path)
        return sorted(p.lstrip("/").removeprefix(head.lstrip("/")) for p in found)

    def through(self, proxy: FaultProxy) -> Place:
        """The same place, reached through a proxy, which is its `proxy` then."""
        old, new = f"//{HOST}:{self.port}", f"//{HOST}:{proxy.port}"
        options = {
            k: v.replace(old, new) if isinstance(v, str) else v for k, v in self.options.items()
        }
        return replace(self, options=options, port=proxy.port, proxy=proxy)


class Emulator:
    """A server of object storage and how to make buckets there. Ended by `stop`."""

    kind = ""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._open = 0
        self._standing = ""

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def url(self) -> str:
        return self.server.url

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A fresh bucket; after the last one in use the server forgets everything."""
        name = f"b{uuid.uuid4().hex[:16]}"
        self.create(name)
        self._open += 1
        try:
            yield self.at(name)
        finally:
            self._open -= 1
            self.forget(name, last=self._open == 0)

    @contextmanager
    def standing(self) -> Iterator[Place]:
        """A fresh prefix in a bucket of one name, empty at the start, which fstx then probes once.

        Where it is in use already, another bucket.
        """
        if self._open:
            with self.place() as place:
                yield place
            return
        if not self._standing:
            self._standing = f"b{uuid.uuid4().hex[:16]}"
        self.create(self._standing)
        self._open += 1
        try:
            yield self.at(self._standing, f"p{uuid.uuid4().hex[:8]}")
        finally:
            self._open -= 1
            self.forget(self._standing, last=self._open == 0)

    def create(self, bucket: str) -> None:
        """A new bucket."""
        raise NotImplementedError

    def at(self, bucket: str, prefix: str = "p") -> Place:
        """A place in a bucket."""
        raise NotImplementedError

    def forget(self, bucket: str, *, last: bool) -> None:
        """Memory is freed, at the latest when no bucket is in use."""
        raise NotImplementedError


class S3(Emulator):
    """ministack: conditions on PUT and CompleteMultipartUpload are exact, signatures are not checked."""

    kind = "s3"

    def __init__(self, folder: Path) -> None:
        def environment(port: int) -> dict[str, str]:
            return {"GATEWAY_PORT": str(port), "BIND_HOST": HOST}

        command = install.ministack()
        super().__init__(Server("ministack", lambda _: command, folder, environment))

    def create(self, bucket: str) -> None:
        status, body = self.server.request("PUT", f"/{bucket}")
        assert status == 200, body

    def at(self, bucket: str, prefix: str = "p") -> Place:
        options = {"key": "test", "secret": "this-is-no-secret", "endpoint_url": self.url}
        return Place(f"s3://{bucket}/{prefix}", options, self.kind, self.port)

    def forget(self, bucket: str, *, last: bool) -> None:
        if last:
            self.server.request("POST", "/_ministack/reset")


class GCS(Emulator):
    """`servers.gcs_server`."""

    kind = "gcs"

    def __init__(self, folder: Path) -> None:
        super().__init__(Server("gcs_server", _own("gcs_server"), folder))

    def create(self, bucket: str) -> None:
        body = json.dumps({"name": bucket}).encode()
        status, answer = self.server.request("POST", "/storage/v1/b?project=test", body)
        assert status == 200, answer

    def at(self, bucket: str, prefix: str = "p") -> Place:
        options = {"token": "anon", "project": "test", "endpoint_url": self.url}
        return Place(f"gs://{bucket}/{prefix}", options, self.kind, self.port)

    def forget(self, bucket: str, *, last: bool) -> None:
        if last:
            self.server.request("POST", "/_reset")


class Azure(Emulator):
    """azurite, in memory."""

    kind = "azure"

    def __init__(self, folder: Path) -> None:
        fixed = ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        program = install.azurite()

        def command(port: int) -> list[str]:
            return [*program, "--blobHost", HOST, "--blobPort", str(port), *fixed]

        super().__init__(Server("azurite", command, folder))

    @property
    def _connection(self) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};"
            f"BlobEndpoint={self.url}/{AZURE_ACCOUNT};"
        )

    def create(self, bucket: str) -> None:
        from azure.core.exceptions import ResourceExistsError

        # The name is ours alone: where it exists, the SDK asked again after a lost answer.
        with self._client() as client, contextlib.suppress(ResourceExistsError):
            client.create_container(bucket)

    def at(self, bucket: str, prefix: str = "p") -> Place:
        options = {"account_name": AZURE_ACCOUNT, "connection_string": self._connection}
        return Place(f"az://{bucket}/{prefix}", options, self.kind, self.port)

    def forget(self, bucket: str, *, last: bool) -> None:
        with self._client() as client:
            client.delete_container(bucket)

    def _client(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self._connection)


class Ceph(Emulator):
    """Ceph's S3 gateway in memory: see `servers/mini_ceph.sh`. It checks signatures."""

    kind = "ceph"

    def __init__(self, folder: Path) -> None:
        home = folder / "ceph"
        script = str(TESTS / "servers" / "mini_ceph.sh")
        super().__init__(
            Server("radosgw", lambda port: ["bash", script, str(port), str(home)], folder)
        )
        end = time.monotonic() + START_S
        while not (home / "ready").exists():  # it listens before its user is there
            if time.monotonic() > end or not self.server.alive:
                self.server.stop()
                raise RuntimeError(f"radosgw does not start; see {home / 'log'}")
            time.sleep(0.1)

    def client(self) -> Any:
        """A client of botocore that makes each request once."""
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="testtest",
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=64),
        )

    def create(self, bucket: str) -> None:
        self.client().create_bucket(Bucket=bucket)

    def at(self, bucket: str, prefix: str = "p") -> Place:
        options = {"key": "test", "secret": "testtest", "endpoint_url": self.url}
        return Place(f"s3://{bucket}/{prefix}", options, self.kind, self.port)

    def forget(self, bucket: str, *, last: bool) -> None:
        """Nothing: what is stored is gone with the server."""


@dataclass(frozen=True)
class FilePlace:
    """A folder on a file server, and the same folder as plain readers on the server's host see it."""

    kind: str
    url: str
    options: dict[str, Any]
    root: Path
    port: int

    def at(self, *names: str) -> Any:
        """The URL of one target, or those of several."""
        urls = [f"{self.url}/{name}" for name in names]
        return urls[0] if len(urls) == 1 else urls

    def through(self, port: int) -> FilePlace:
        """The same place by another port, such as that of a relay."""
        return replace(self, url=self.url.replace(f":{self.port}/", f":{port}/"), port=port)


class OwnSftp(Server):
    """The project's SFTP server (asyncssh)."""

    kind = "asyncssh"

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder = folder
        super().__init__(self.kind, _own("sftp_server", str(folder)), logs)

    def place(self) -> FilePlace:
        name = uuid.uuid4().hex[:12]
        (self.folder / name).mkdir()
        options = {"username": "test", "known_hosts": None}
        url = f"sftp://{HOST}:{self.port}/{name}"
        return FilePlace(self.kind, url, options, self.folder / name, self.port)


class Sshd(Server):
    """OpenSSH."""

    kind = "sshd"

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder, self._home = folder, logs / "sshd"
        super().__init__(self.kind, lambda port: file_servers.sshd(self._home, port), logs)

    def place(self) -> FilePlace:
        root = self.folder / uuid.uuid4().hex[:12]
        root.mkdir()
        options = {"client_keys": [str(self._home / "user")], "known_hosts": None}
        url = f"sftp://{getpass.getuser()}@{HOST}:{self.port}{root}"
        return FilePlace(self.kind, url, options, root, self.port)


class Smbd(Server):
    """Samba."""

    kind = "smbd"

    def __init__(self, folder: Path, logs: Path) -> None:
        self.folder = folder

        def command(port: int) -> list[str]:
            return file_servers.smbd(logs / "smbd", port, folder)

        super().__init__(self.kind, command, logs)

    def place(self) -> FilePlace:
        name = uuid.uuid4().hex[:12]
        (self.folder / name).mkdir()
        options = {
            "username": file_servers.SMB_USER,
            "password": file_servers.SMB_PASSWORD,
            "patience_s": 0.5,
        }
        url = f"smb://{HOST}:{self.port}/share/{name}"
        return FilePlace(self.kind, url, options, self.folder / name, self.port)
