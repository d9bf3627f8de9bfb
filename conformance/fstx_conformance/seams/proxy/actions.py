"""What the fault proxy does to a request; `rules` says what each action is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fstx_conformance.seams.proxy.rules import Rule
from fstx_conformance.seams.proxy.wire import HOST, Answer, Request, cut, refusal

if TYPE_CHECKING:
    from fstx_conformance.seams.proxy.server import Proxy

_FOREVER_S = 3600.0


@dataclass
class Exchange:
    """One request on its way. An action returns whether the client's connection goes on."""

    proxy: Proxy
    request: Request
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    entry: dict[str, Any]

    async def ask(self) -> Answer:
        """Ask the server; the status is logged, and the answer kept for `stale`."""
        answer = await self.proxy.upstream.ask(self.request)
        self.entry["status"] = answer.status
        self.proxy.keep(self.request, answer)
        return answer

    async def give(self, answer: Answer) -> bool:
        """Give this answer to the client."""
        self.writer.write(answer.head + answer.body)
        await self.writer.drain()
        return answer.keeps_alive

    async def gone(self, timeout_s: float) -> None:
        """Wait until the client has gone, or so long."""
        waiting = asyncio.ensure_future(self.reader.read(1))
        await asyncio.wait([waiting], timeout=timeout_s)
        waiting.cancel()

    def reset(self) -> bool:
        """Cut the client's connection."""
        cut(self.writer)
        return False


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
    await x.gone(rule.seconds(_FOREVER_S))
    return x.reset()


async def _duplicate(x: Exchange, rule: Rule) -> bool:
    answers = [await x.ask(), await x.proxy.upstream.ask(x.request)]
    x.entry["second"] = answers[1].status
    return await x.give(answers[rule.answer])


async def _late(x: Exchange, rule: Rule) -> bool:
    x.proxy.park(x.request, x.entry, rule.wait_s)
    return x.reset()


async def _zombie(x: Exchange, rule: Rule) -> bool:
    await x.ask()
    return await _late(x, rule)


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
    x.entry["stale"] = True
    return await x.give(old)


async def _corrupt(x: Exchange, rule: Rule) -> bool:
    answer = await x.ask()
    body = bytearray(answer.body)
    if body:
        body[len(body) // 2] ^= 1
    return await x.give(replace(answer, body=bytes(body)))


PERFORM: dict[str, Callable[[Exchange, Rule], Awaitable[bool]]] = {
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
    "late": _late,
    "zombie": _zombie,
    "hold": _hold,
    "strip": _strip,
    "racy": _racy,
    "stale": _stale,
    "corrupt": _corrupt,
}

__all__ = ["PERFORM", "Exchange"]
