"""The fault proxy as a test sees it: a child process, its rules and its log."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from fstx_conformance.schedule import Fault
from fstx_conformance.seams.proxy.faults import rules_of
from fstx_conformance.seams.proxy.rules import Rule
from fstx_conformance.seams.proxy.wire import HOST


class FaultProxy:
    """A proxy that makes faults, in front of the server at `upstream`.

    It listens on a free port of the loopback address and ends with this process, also when that is killed.

    Parameters
    ----------
    upstream
        ``http://host:port`` or ``https://host:port``.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fstx_conformance.seams.proxy.server", upstream],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,  # an interrupt is for the tests; they end the proxy
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")[-4000:]
            self.stop()
            raise RuntimeError(f"the fault proxy does not start:\n{said}")
        self.port = int(line)

    def __repr__(self) -> str:
        return f"<FaultProxy {self.url} in front of {self.upstream}>"

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """The process has ended afterwards."""
        for stream in (self._process.stdin, self._process.stdout, self._said):
            assert stream is not None
            stream.close()
        self._process.terminate()
        self._process.wait(30)

    # --- what goes wrong ---------------------------------------------------------------------------

    def rules(self, *rules: Rule) -> None:
        """These rules instead of the former; the log starts afresh."""
        public = [{k: v for k, v in asdict(r).items() if not k.startswith("_")} for r in rules]
        self._control("POST", "/__rules__", json.dumps(public).encode())

    def faults(self, faults: Iterable[Fault], agent: str = "proxy") -> None:
        """The entries of a schedule that name this agent; in the log ``rule`` counts those."""
        self.rules(*rules_of(faults, agent))

    def deliver(self) -> list[int]:
        """Late requests arrive now, in order; the statuses of their answers."""
        found: list[int] = json.loads(self._control("POST", "/__deliver__"))
        return found

    def release(self, name: str = "gate") -> None:
        """Open a gate: requests that ``hold`` stopped there go on, also later ones."""
        self._control("POST", f"/__release__/{name}")

    def clear(self) -> None:
        """No rules, an empty log, nothing late, all gates open."""
        self._control("POST", "/__clear__")

    # --- what happened -----------------------------------------------------------------------------

    def log(self) -> list[dict[str, Any]]:
        """All requests since the last `rules` or `clear`: method, path, headers, do, status, second, ..."""
        found: list[dict[str, Any]] = json.loads(self._control("GET", "/__log__"))
        return found

    def wait_for(
        self, do: str, *, count: int = 1, finished: bool = False, timeout_s: float = 20
    ) -> list[dict[str, Any]]:
        """The log's entries of an action, as soon as there are `count` (that the server has answered)."""
        end = time.monotonic() + timeout_s
        while True:
            log = self.log()
            found = [e for e in log if e["do"] == do and ("status" in e or not finished)]
            if len(found) >= count:
                return found
            if time.monotonic() > end:
                raise TimeoutError(f"{len(found)} of {count} requests met {do}: {log}")
            time.sleep(0.01)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One plain HTTP request; status and body of the answer."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _control(self, method: str, path: str, body: bytes | None = None) -> bytes:
        status, answer = self.request(method, path, body)
        if status != 200:
            raise RuntimeError(f"{self!r} said {status} to {method} {path}: {answer!r}")
        return answer


def shown(log: Sequence[dict[str, Any]]) -> list[str]:
    """A log as lines for people: what was asked, what the proxy did, what the server said."""
    lines = []
    for entry in log:
        line = f"{entry['method']} {entry['path']}"
        line += f" -> {entry['do']}" if entry["do"] else ""
        line += f" {entry['status']}" if "status" in entry else ""
        lines.append(line + (f", then {entry['second']}" if "second" in entry else ""))
    return lines


__all__ = ["FaultProxy", "Rule", "shown"]
