"""HTTP/1.1 as raw bytes: what the fault proxy reads from a client and asks of a server."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import time
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

HOST = "127.0.0.1"
LIMIT_BYTES = 1 << 20  # of a head or a chunk's length line
IDLE_S = 1.0  # a kept connection older than this may be closed by the server at any moment

CODES = {
    400: "RequestTimeout",
    404: "NoSuchKey",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}


@dataclass(frozen=True)
class Request:
    """One request as it came; `head` and `body` are raw bytes, with any framing of chunks."""

    method: str
    path: str
    headers: dict[str, str]
    head: bytes
    body: bytes = b""

    def without(self, names: tuple[str, ...]) -> Request:
        """The same request without these headers."""
        head = self.head
        for name in names:
            head = re.sub(rb"(?i)\r\n" + name.encode() + rb":[^\r]*", b"", head)
        return replace(self, head=head)


@dataclass(frozen=True)
class Answer:
    """One answer as raw bytes."""

    status: int
    head: bytes
    body: bytes

    @property
    def keeps_alive(self) -> bool:
        return b"\r\nconnection: close" not in self.head.lower()


def refusal(code: int) -> Answer:
    """An S3 error of the proxy's own making."""
    name = CODES.get(code, "Error")
    text = f"<Error><Code>{name}</Code><Message>injected</Message></Error>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()
    head = (
        f"HTTP/1.1 {code} X\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\nx-fault: 1\r\n\r\n"
    )
    return Answer(code, head.encode(), body)


async def read_head(reader: asyncio.StreamReader) -> tuple[bytes, str, dict[str, str]]:
    """Raw head, first line, headers with names in lower case."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return head, first, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def read_body(
    reader: asyncio.StreamReader, headers: dict[str, str], *, to_end: bool = False
) -> bytes:
    """The raw body; without a length it is empty, or goes to the end of the stream."""
    if "chunked" in headers.get("transfer-encoding", ""):
        return await _read_chunks(reader)
    length = headers.get("content-length")
    if length is not None:
        return await reader.readexactly(int(length))
    return await reader.read() if to_end else b""


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while True:
        line = await reader.readuntil(b"\r\n")
        parts.append(line)
        size = int(line.split(b";")[0], 16)
        if size == 0:
            while line != b"\r\n":  # trailers
                line = await reader.readuntil(b"\r\n")
                parts.append(line)
            return b"".join(parts)
        parts.append(await reader.readexactly(size + 2))


def cut(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset: what lies in buffers is thrown away."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(
            socket.SOL_SOCKET,
            socket.SO_LINGER,
            struct.pack("hh" if os.name == "nt" else "ii", 1, 0),
        )
    writer.transport.abort()


class Upstream:
    """The server behind, with connections kept for further requests."""

    def __init__(self, url: str) -> None:
        found = urlsplit(url)
        if found.scheme not in ("http", "https") or not found.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// address of a server")
        self._tls = found.scheme == "https"
        self._host = found.hostname
        self._port = found.port or (443 if self._tls else 80)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        return await asyncio.open_connection(
            self._host, self._port, limit=LIMIT_BYTES, ssl=self._tls or None
        )

    async def ask(self, request: Request) -> Answer:
        """The server's answer to this request."""
        while True:
            kept = self._take()
            reader, writer = kept or await self.connect()
            try:
                writer.write(request.head + request.body)
                return await self._answer(request, reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                if kept is None:
                    raise

    def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            reader, writer, since = self._idle.pop()
            fresh = time.monotonic() - since < IDLE_S
            if fresh and not writer.is_closing() and not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def _answer(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer:
        status = 100
        while status == 100:
            head, first, headers = await read_head(reader)
            status = int(first.split()[1])
        empty = request.method == "HEAD" or status in (204, 304)
        body = b"" if empty else await read_body(reader, headers, to_end=True)
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((reader, writer, time.monotonic()))
        return Answer(status, head, body)
