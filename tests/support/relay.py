"""A TCP relay on the loopback address that loses connections when it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Literal

HOST = "127.0.0.1"
Loss = Literal["request", "answer"]


class Relay:
    """Passes bytes between clients and a port; `lose` makes it drop what comes next, and the connection."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._server = socket.create_server((HOST, 0))
        self.port: int = self._server.getsockname()[1]
        self.lost = 0
        self._loss: Loss | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, what: Loss) -> None:
        """The next request does not arrive, or arrives and its answer does not."""
        with self._lock:
            self._loss = what

    def stop(self) -> None:
        self._server.close()
        for one in list(self._open):
            _reset(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            server = socket.create_connection((HOST, self._behind))
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open |= {client, server}
            for source, sink, what in ((client, server, "request"), (server, client, "answer")):
                threading.Thread(target=self._pass, args=(source, sink, what), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, what: str) -> None:
        try:
            while data := source.recv(1 << 16):
                with self._lock:
                    losing = self._loss == what
                    if losing:
                        self._loss = None
                        self.lost += 1
                if losing:
                    break
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            _reset(one)
            self._open.discard(one)


def _reset(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    one.close()
