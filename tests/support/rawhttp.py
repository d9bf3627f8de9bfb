"""Requests to storage servers without any client library: exactly one request each, no retries."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from support.emulators import AZURE_ACCOUNT, AZURE_KEY, HOST, Place


@dataclass(frozen=True)
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Call:
    """A request that can be made many times."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)

    def head(self, size_bytes: int) -> bytes:
        """The raw head of this request with a body of this size."""
        headers = {"Host": HOST, "Content-Length": str(size_bytes), "Connection": "close"}
        lines = [f"{name}: {value}" for name, value in {**headers, **self.headers}.items()]
        return "\r\n".join([f"{self.method} {self.path} HTTP/1.1", *lines, "", ""]).encode()


def ask(port: int, call: Call, body: bytes = b"", *, timeout_s: float = 20) -> Reply:
    """One request on a connection of its own. Errors of the connection are raised as they come."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    try:
        connection.request(call.method, call.path, body, call.headers)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, headers, answer.read())
    finally:
        connection.close()


class Objects:
    """One service's requests for the objects of a place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.port = place.port
        self._prefix = place.path.partition("/")[2]
        self._signature = _signature(place.bucket) if place.kind == "azure" else ""

    def put(self, name: str, *, absent: bool = False, token: str | None = None) -> Call:
        """A put: unconditional, if absent, or if the object has this token."""
        if self.place.kind == "gcs":
            query = f"uploadType=media&name={quote(self._key(name), safe='')}"
            if absent or token is not None:
                query += f"&ifGenerationMatch={0 if absent else token}"
            return Call("POST", f"/upload/storage/v1/b/{self.place.bucket}/o?{query}")
        headers = {"x-ms-blob-type": "BlockBlob"} if self._signature else {}
        if absent:
            headers["If-None-Match"] = "*"
        if token is not None:
            headers["If-Match"] = token
        return Call("PUT", self._path(name), headers)

    def get(self, name: str) -> Call:
        """A get."""
        if self.place.kind == "gcs":
            key = quote(self._key(name), safe="")
            return Call("GET", f"/storage/v1/b/{self.place.bucket}/o/{key}?alt=media")
        return Call("GET", self._path(name))

    def token(self, reply: Reply) -> str:
        """What an answer to `get` says of the object's version."""
        return reply.headers["x-goog-generation" if self.place.kind == "gcs" else "etag"]

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _path(self, name: str) -> str:
        if self._signature:
            where = f"/{AZURE_ACCOUNT}/{self.place.bucket}/{self._key(name)}"
            return f"{where}?{self._signature}"
        return f"/{self.place.bucket}/{self._key(name)}"


def burst(port: int, calls: Sequence[Call], bodies: Sequence[bytes]) -> list[Reply]:
    """All requests at the same time, each from a thread of its own."""
    barrier = threading.Barrier(len(calls))

    def one(call: Call, body: bytes) -> Reply:
        barrier.wait()
        return ask(port, call, body)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls, bodies))


def split(port: int, calls: Sequence[Call], bodies: Sequence[bytes]) -> list[int]:
    """All requests half-sent, then all second halves: catches checks made before the body has come."""
    connections = []
    try:
        for call, body in zip(calls, bodies, strict=True):
            connection = socket.create_connection((HOST, port), timeout=20)
            connections.append(connection)
            connection.sendall(call.head(len(body)) + body[: len(body) // 2])
        for connection, body in zip(connections, bodies, strict=True):
            connection.sendall(body[len(body) // 2 :])
        return [int(_first_line(c).split()[1]) for c in connections]
    finally:
        for connection in connections:
            connection.close()


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The results of `count` threads that start at the same time."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def statuses(replies: Sequence[Reply]) -> Mapping[int, int]:
    """How often each status came."""
    counted: dict[int, int] = {}
    for reply in replies:
        counted[reply.status] = counted.get(reply.status, 0) + 1
    return counted


def _first_line(connection: socket.socket) -> str:
    with connection.makefile("rb") as stream:
        return stream.readline().decode("latin1")


def _signature(container: str) -> str:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    return str(
        generate_container_sas(
            AZURE_ACCOUNT,
            container,
            AZURE_KEY,
            permission=ContainerSasPermissions(read=True, write=True, create=True, delete=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
    )
