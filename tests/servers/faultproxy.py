"""An HTTP/1.1 proxy that makes faults on purpose: ``python -m servers.faultproxy LISTEN_PORT UPSTREAM_PORT``.

Control, on the same port: ``POST /__rules__`` (a JSON list of rules; the log starts afresh),
``GET /__log__``, ``POST /__release__/NAME`` (opens a gate of ``hold``), ``POST /__clear__`` (no rules, no
log, no stale answers, all gates open). `support.servers.FaultProxy` does this from tests.

Of the rules, the first one that matches a request and has uses left decides (`Rule`). Actions, where
APPLIED means that the server has done what was asked:

=================== =======================================================================================
reset_before        connection reset; the server saw nothing
reset_mid_request   half of the body goes to the server, then both connections are cut
reset_after         APPLIED, then a reset instead of the answer
truncate            APPLIED; all headers, half of the answer's body, then end of file
status              answer `code` without asking the server
status_after        APPLIED, then answer `code`
delay, delay_after  wait `wait_s` before asking the server, or after APPLIED
stall               no answer for `wait_s`; with `applied` the server is asked first
duplicate           APPLIED twice; the client gets answer number `answer` (0 or 1)
zombie              APPLIED, reset at once, and APPLIED again after `wait_s`: a late repetition
hold                wait until the gate `name` is opened (or `wait_s`), then ask the server
strip               drop the headers in `names`: a server that ignores conditions
racy                check the condition by a HEAD, wait `wait_s`, ask without it: check-then-act
stale               the previous 200 answer to the same method and path
corrupt             one bit of the answer's body flipped
=================== =======================================================================================
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from servers.wire import (
    HOST,
    LIMIT_BYTES,
    Answer,
    Request,
    Upstream,
    cut,
    read_body,
    read_head,
    refusal,
)

STALE_BYTES = 1 << 16  # longer answers are not kept for `stale`


@dataclass
class Rule:
    """Which requests get which fault. Empty `method`, `path`, `header` match all."""

    do: str
    method: str = ""  # one or several, with commas between
    path: str = ""  # regular expression, searched in path and query
    header: str = ""  # the request has this header
    skip: int = 0  # so many matching requests pass first
    times: int | None = None  # uses
    chance: float = 1.0  # of each matching request, by a generator seeded with `seed`
    seed: int = 0
    code: int | None = None  # default: 503, of `status_after` 500
    wait_s: float | None = None  # each action has its own default
    applied: bool = False
    answer: int = 0
    name: str = "gate"
    names: tuple[str, ...] = ("if-match", "if-none-match")
    _seen: int = field(default=0, init=False, repr=False)
    _used: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.do not in ACTIONS:
            raise ValueError(f"no action {self.do!r}; there are {', '.join(ACTIONS)}")
        self._random = random.Random(self.seed)

    def takes(self, request: Request) -> bool:
        """Whether this rule decides; counts matches and uses."""
        if self.method and request.method not in self.method.split(","):
            return False
        if self.header and self.header.lower() not in request.headers:
            return False
        if not re.search(self.path, request.path):
            return False
        self._seen += 1
        spent = self.times is not None and self._used >= self.times
        if self._seen <= self.skip or spent or self._random.random() >= self.chance:
            return False
        self._used += 1
        return True

    def seconds(self, default: float) -> float:
        """How long to wait."""
        return default if self.wait_s is None else self.wait_s


@dataclass
class Exchange:
    """One request on its way. An action returns whether the client's connection goes on."""

    proxy: Proxy
    request: Request
    writer: asyncio.StreamWriter
    rule: Rule | None
    entry: dict[str, Any]

    async def ask(self) -> Answer:
        """Ask the server; the status is logged, and the answer kept for `stale`."""
        answer = await self.proxy.upstream.ask(self.request)
        self.entry["status"] = answer.status
        if answer.status == 200 and self.request.method in ("GET", "HEAD"):
            self.proxy.keep(self.request, answer)
        return answer

    async def give(self, answer: Answer) -> bool:
        """Give this answer to the client."""
        self.writer.write(answer.head + answer.body)
        await self.writer.drain()
        return answer.keeps_alive

    def reset(self) -> bool:
        """Cut the client's connection."""
        cut(self.writer)
        return False


class Proxy:
    """Listens, matches rules, logs."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream = Upstream(upstream_port)
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.kept: dict[tuple[str, str], Answer] = {}
        self._rules: list[Rule] = []
        self._log: list[dict[str, Any]] = []

    async def start(self, port: int = 0) -> int:
        """Listen on the loopback address; returns the port."""
        server = await asyncio.start_server(self._client, HOST, port, limit=LIMIT_BYTES)
        self._server = server
        return int(server.sockets[0].getsockname()[1])

    def keep(self, request: Request, answer: Answer) -> None:
        """Remember an answer for `stale`."""
        key = request.method, request.path
        self.kept.pop(key, None)
        if len(answer.body) < STALE_BYTES:
            self.kept[key] = answer

    def gate(self, name: str) -> asyncio.Event:
        """The gate of this name, closed at first."""
        return self.gates.setdefault(name, asyncio.Event())

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                continue
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
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
        rule = next((r for r in self._rules if r.takes(request)), None)
        entry = {
            "time_s": time.time(),
            "method": method,
            "path": path,
            "headers": headers,
            "size_bytes": len(request.body),
            "do": rule.do if rule else None,
        }
        self._log.append(entry)
        exchange = Exchange(self, request, writer, rule, entry)
        if rule is None:
            return await exchange.give(await exchange.ask())
        return await ACTIONS[rule.do](exchange, rule)

    async def _control(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        text, status = "{}", "200 OK"
        if request.path == "/__log__":
            text = json.dumps(self._log)
        elif request.path == "/__rules__":
            self._rules = [Rule(**rule) for rule in json.loads(request.body or b"[]")]
            self._log.clear()
        elif request.path == "/__clear__":
            self._rules = []
            self._log.clear()
            self.kept.clear()
            for gate in self.gates.values():
                gate.set()
            self.gates.clear()
        elif request.path.startswith("/__release__/"):
            self.gate(request.path.rsplit("/", 1)[1]).set()
        else:
            status = "404 Not Found"
        body = text.encode()
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return True


async def _reset_before(x: Exchange, rule: Rule) -> bool:
    return x.reset()


async def _reset_mid_request(x: Exchange, rule: Rule) -> bool:
    _, writer = await x.proxy.upstream.connect()
    writer.write(x.request.head + x.request.body[: len(x.request.body) // 2])
    await writer.drain()
    await asyncio.sleep(rule.seconds(0.05))
    cut(writer)
    return x.reset()


async def _reset_after(x: Exchange, rule: Rule) -> bool:
    await x.ask()
    return x.reset()


async def _truncate(x: Exchange, rule: Rule) -> bool:
    answer = await x.ask()
    await x.give(replace(answer, body=answer.body[: len(answer.body) // 2]))
    x.writer.close()
    return False


async def _status(x: Exchange, rule: Rule) -> bool:
    return await x.give(refusal(rule.code or 503))


async def _status_after(x: Exchange, rule: Rule) -> bool:
    await x.ask()
    return await x.give(refusal(rule.code or 500))


async def _delay(x: Exchange, rule: Rule) -> bool:
    await asyncio.sleep(rule.seconds(1))
    return await x.give(await x.ask())


async def _delay_after(x: Exchange, rule: Rule) -> bool:
    answer = await x.ask()
    await asyncio.sleep(rule.seconds(1))
    return await x.give(answer)


async def _stall(x: Exchange, rule: Rule) -> bool:
    if rule.applied:
        await x.ask()
    await asyncio.sleep(rule.seconds(3600))
    return x.reset()


async def _duplicate(x: Exchange, rule: Rule) -> bool:
    answers = [await x.ask(), await x.proxy.upstream.ask(x.request)]
    x.entry["second"] = answers[1].status
    return await x.give(answers[rule.answer])


async def _zombie(x: Exchange, rule: Rule) -> bool:
    await x.ask()

    async def again() -> None:
        await asyncio.sleep(rule.seconds(0.5))
        x.entry["second"] = (await x.proxy.upstream.ask(x.request)).status

    task = asyncio.create_task(again())
    x.proxy.tasks.add(task)  # the loop itself holds tasks weakly
    task.add_done_callback(x.proxy.tasks.discard)
    return x.reset()


async def _hold(x: Exchange, rule: Rule) -> bool:
    gate = x.proxy.gate(rule.name)
    await asyncio.wait([asyncio.ensure_future(gate.wait())], timeout=rule.seconds(30))
    return await x.give(await x.ask())


async def _strip(x: Exchange, rule: Rule) -> bool:
    x.request = x.request.without(rule.names)
    return await x.give(await x.ask())


async def _racy(x: Exchange, rule: Rule) -> bool:
    headers = x.request.headers
    if "if-none-match" in headers or "if-match" in headers:
        look = f"HEAD {x.request.path} HTTP/1.1\r\nhost: {headers.get('host', HOST)}\r\n\r\n"
        found = await x.proxy.upstream.ask(Request("HEAD", x.request.path, {}, look.encode()))
        code = _condition(headers, found)
        if code:
            return await x.give(refusal(code))
        await asyncio.sleep(rule.seconds(0.003))
    return await _strip(x, rule)


def _condition(headers: dict[str, str], found: Answer) -> int:
    """The status of a condition that does not hold; 0 if it does."""
    there = found.status == 200
    if there and headers.get("if-none-match") == "*":
        return 412
    if "if-match" not in headers:
        return 0
    tag = re.search(rb"(?i)\r\netag:\s*([^\r]*)", found.head)
    same = tag is not None and tag[1].decode().strip('"') == headers["if-match"].strip('"')
    return 404 if not there else 0 if same else 412


async def _stale(x: Exchange, rule: Rule) -> bool:
    old = x.proxy.kept.get((x.request.method, x.request.path))
    if old is None:  # not kept from here: what is stale is what was seen before this rule
        return await x.give(await x.proxy.upstream.ask(x.request))
    x.entry["status"] = old.status
    return await x.give(old)


async def _corrupt(x: Exchange, rule: Rule) -> bool:
    answer = await x.ask()
    body = bytearray(answer.body)
    if body:
        body[len(body) // 2] ^= 1
    return await x.give(replace(answer, body=bytes(body)))


ACTIONS: dict[str, Callable[[Exchange, Rule], Awaitable[bool]]] = {
    "reset_before": _reset_before,
    "reset_mid_request": _reset_mid_request,
    "reset_after": _reset_after,
    "truncate": _truncate,
    "status": _status,
    "status_after": _status_after,
    "delay": _delay,
    "delay_after": _delay_after,
    "stall": _stall,
    "duplicate": _duplicate,
    "zombie": _zombie,
    "hold": _hold,
    "strip": _strip,
    "racy": _racy,
    "stale": _stale,
    "corrupt": _corrupt,
}


async def serve(port: int, upstream_port: int) -> None:
    """Serve until the process ends."""
    proxy = Proxy(upstream_port)
    await proxy.start(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
