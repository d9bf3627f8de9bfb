"""The fault proxy: ``python -m fstx_conformance.seams.proxy.server UPSTREAM_URL`` says its port and serves.

It ends when its standard input does. Control, on the same port: ``POST /__rules__`` (a JSON list of rules;
the log starts afresh), ``GET /__log__``, ``POST /__release__/NAME`` (opens a gate of ``hold``),
``POST /__deliver__`` (late requests arrive now; statuses of the answers), ``POST /__clear__`` (no rules, no
log, no stale answers, nothing late, all gates open). `control.FaultProxy` does this.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from dataclasses import replace
from typing import Any

from fstx_conformance.seams.proxy.actions import PERFORM, Exchange
from fstx_conformance.seams.proxy.rules import Rule, choose
from fstx_conformance.seams.proxy.wire import (
    HOST,
    LIMIT_BYTES,
    Answer,
    Request,
    Upstream,
    read_body,
    read_head,
)

STALE_BYTES = 1 << 16  # longer answers are not kept for `stale`
_GONE = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError)


class Proxy:
    """Listens, matches rules, logs."""

    def __init__(self, upstream: str) -> None:
        self.upstream = Upstream(upstream)
        self.gates: dict[str, asyncio.Event] = {}
        self.kept: dict[tuple[str, str], Answer] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._late: list[tuple[Request, dict[str, Any]]] = []
        self._rules: list[Rule] = []
        self._log: list[dict[str, Any]] = []

    async def start(self, port: int = 0) -> int:
        """Listen on the loopback address; returns the port."""
        server = await asyncio.start_server(self._client, HOST, port, limit=LIMIT_BYTES)
        self._server = server
        return int(server.sockets[0].getsockname()[1])

    def keep(self, request: Request, answer: Answer) -> None:
        """Remember an answer to a read for `stale`."""
        if request.method not in ("GET", "HEAD") or answer.status not in (200, 206, 404):
            return
        key = request.method, request.path
        self.kept.pop(key, None)
        if len(answer.body) < STALE_BYTES:
            self.kept[key] = answer

    def gate(self, name: str) -> asyncio.Event:
        """The gate of this name, closed at first."""
        return self.gates.setdefault(name, asyncio.Event())

    # --- late requests ----------------------------------------------------------------------------

    def park(self, request: Request, entry: dict[str, Any], wait_s: float | None) -> None:
        """Let a request arrive after `wait_s`; None: when late requests are delivered."""
        if wait_s is None:
            self._late.append((request, entry))
            return

        async def arrive() -> None:
            await asyncio.sleep(wait_s)
            await self._arrive(request, entry)

        task = asyncio.create_task(arrive())
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _arrive(self, request: Request, entry: dict[str, Any]) -> int:
        try:
            entry["second"] = (await self.upstream.ask(request)).status
        except _GONE:
            entry["second"] = 0
        return int(entry["second"])

    async def deliver(self) -> list[int]:
        """What was parked arrives now, in order; the statuses, 0 where the server gave no answer."""
        late, self._late = self._late, []
        return [await self._arrive(request, entry) for request, entry in late]

    # --- clients ----------------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                continue
        except _GONE:
            return  # the client has gone
        finally:
            if not writer.is_closing():
                writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head, first, headers = await read_head(reader)
        method, path, _ = first.split(" ", 2)
        request = Request(method, path, headers, head)
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request = request.without(("expect",))
        request = replace(request, body=await read_body(reader, headers))
        if path.startswith("/__"):
            return await self._control(request, writer)
        rule = choose(self._rules, request)
        entry = {
            "time_s": time.time(),
            "method": method,
            "path": path,
            "headers": headers,
            "size_bytes": len(request.body),
            "do": rule.do if rule else None,
            "rule": self._rules.index(rule) if rule else None,
        }
        self._log.append(entry)
        exchange = Exchange(self, request, reader, writer, entry)
        if rule is None:
            return await exchange.give(await exchange.ask())
        return await PERFORM[rule.do](exchange, rule)

    async def _control(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        text, status = "{}", "200 OK"
        if request.path == "/__log__":
            text = json.dumps(self._log)
        elif request.path == "/__rules__":
            self._rules = [Rule(**rule) for rule in json.loads(request.body or b"[]")]
            self._log = []
        elif request.path == "/__deliver__":
            text = json.dumps(await self.deliver())
        elif request.path == "/__clear__":
            self._clear()
        elif request.path.startswith("/__release__/"):
            self.gate(request.path.rsplit("/", 1)[1]).set()
        else:
            status = "404 Not Found"
        body = text.encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return True

    def _clear(self) -> None:
        self._rules, self._log, self._late = [], [], []
        self.kept.clear()
        for gate in self.gates.values():
            gate.set()
        self.gates.clear()


async def serve(upstream: str) -> None:
    """Say the port, then serve until the process ends."""
    proxy = Proxy(upstream)
    print(await proxy.start(), flush=True)
    await asyncio.Event().wait()


def _end_with_owner() -> None:
    sys.stdin.buffer.read()  # returns at end of file: the owner has closed it, or has died
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_owner, daemon=True).start()
    asyncio.run(serve(sys.argv[1]))
