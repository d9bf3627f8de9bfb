"""Each fault of the proxy is what its name says: what the server did, and what the client sees."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fstx.errors import UsageError
from fstx_conformance.schedule import Fault, parse
from fstx_conformance.seams.proxy.actions import PERFORM
from fstx_conformance.seams.proxy.control import FaultProxy
from fstx_conformance.seams.proxy.faults import HTTP_ACTIONS, rule_of
from fstx_conformance.seams.proxy.rules import ACTIONS, Rule
from support.emulators import HOST, TESTS, Place, Server
from support.rawhttp import Call, Objects, Reply, ask

BODY = b"0123456789" * 1000


class Both:
    """One object seen through the proxy and directly."""

    def __init__(self, s3: Place, proxy: FaultProxy) -> None:
        self._server, self._proxy = s3.port, proxy.port
        self._objects = Objects(s3)

    def put(
        self, body: bytes = BODY, name: str = "a", *, timeout_s: float = 20, **condition: Any
    ) -> Reply:
        """Put through the proxy."""
        call = self._objects.put(name, **condition)
        return ask(self._proxy, call, body, timeout_s=timeout_s)

    def get(self, name: str = "a", *, timeout_s: float = 20) -> Reply:
        """Get through the proxy."""
        return ask(self._proxy, self._objects.get(name), timeout_s=timeout_s)

    def stored(self, name: str = "a") -> bytes | None:
        """What the server has; None if nothing."""
        reply = ask(self._server, self._objects.get(name))
        return reply.body if reply.status == 200 else None

    def store(self, body: bytes, name: str = "a") -> None:
        """Put directly."""
        assert ask(self._server, self._objects.put(name), body).status == 200


@pytest.fixture
def both(s3: Place, fault_proxy: FaultProxy) -> Both:
    """The object of these tests."""
    return Both(s3, fault_proxy)


def within(timeout_s: float, holds: Callable[[], bool]) -> bool:
    """Whether it holds in time."""
    end = time.monotonic() + timeout_s
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def test_without_rules_nothing_changes(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects all tests through the proxy: what passes is what was sent, and is in the log."""
    assert both.put().status == 200
    assert both.get().body == BODY == both.stored()
    log = fault_proxy.log()
    assert [(e["method"], e["status"], e["do"]) for e in log] == [
        ("PUT", 200, None),
        ("GET", 200, None),
    ]
    assert log[0]["size_bytes"] == len(BODY)
    assert log[0]["path"].endswith("/a")


def test_reset_before(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: the connection is cut and the server saw nothing."""
    fault_proxy.rules(Rule("reset_before"))
    with pytest.raises(ConnectionResetError):
        both.put()
    assert both.stored() is None
    assert "status" not in fault_proxy.log()[0]


def test_reset_mid_request(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: half of the body went up, and the old object stays."""
    both.store(b"old")
    fault_proxy.rules(Rule("reset_mid_request"))
    with pytest.raises(ConnectionResetError):
        both.put()
    assert both.stored() == b"old"


def test_reset_after(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: the put was done, the answer is lost."""
    fault_proxy.rules(Rule("reset_after"))
    with pytest.raises(ConnectionResetError):
        both.put()
    assert both.stored() == BODY
    assert fault_proxy.log()[0]["status"] == 200


def test_truncate(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: half of the content, with headers that promise all."""
    both.store(BODY)
    fault_proxy.rules(Rule("truncate"))
    with pytest.raises(http.client.IncompleteRead) as caught:
        both.get()
    assert caught.value.partial == BODY[: len(BODY) // 2]


def test_corrupt(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: as long as before, with one bit flipped."""
    both.store(BODY)
    fault_proxy.rules(Rule("corrupt"))
    found = both.get().body
    assert [a ^ b for a, b in zip(found, BODY, strict=True) if a != b] == [1]


@pytest.mark.parametrize(
    ("code", "name"), [(500, b"InternalError"), (503, b"SlowDown"), (409, b"Conflict")]
)
def test_status(both: Both, fault_proxy: FaultProxy, code: int, name: bytes) -> None:
    """Protects its name: the answer is made up, the server saw nothing."""
    fault_proxy.rules(Rule("status", code=code))
    reply = both.put()
    assert (reply.status, name in reply.body) == (code, True)
    assert both.stored() is None


def test_status_after(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: the put was done and is answered with an error; 500 without a code."""
    fault_proxy.rules(Rule("status_after", times=1), Rule("status_after", code=503))
    assert [both.put(name=n).status for n in "ab"] == [500, 503]
    assert [both.stored(n) for n in "ab"] == [BODY, BODY]


@pytest.mark.parametrize("do", ["delay", "delay_after"])
def test_delays(both: Both, fault_proxy: FaultProxy, do: str) -> None:
    """Protects their names: the answer is late; the put is done after or before the wait."""
    fault_proxy.rules(Rule(do, wait_s=0.6))
    with ThreadPoolExecutor(1) as pool:
        start = time.monotonic()
        late = pool.submit(both.put)
        fault_proxy.wait_for(do, finished=do == "delay_after")
        assert (both.stored() is None) == (do == "delay")
        assert late.result().status == 200
    assert time.monotonic() - start > 0.5
    assert both.stored() == BODY


@pytest.mark.parametrize("applied", [False, True])
def test_stall(both: Both, fault_proxy: FaultProxy, applied: bool) -> None:
    """Protects its name: no answer comes; the put is done or not, as the rule says."""
    fault_proxy.rules(Rule("stall", applied=applied, method="PUT", wait_s=0.5))
    with ThreadPoolExecutor(1) as pool:
        never = pool.submit(both.put)
        fault_proxy.wait_for("stall", finished=applied)
        assert both.stored() == (BODY if applied else None)
        with pytest.raises(ConnectionResetError):
            never.result()


def test_stall_outlasts_a_client(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects tests of timeouts: without `wait_s` the client gives up first."""
    fault_proxy.rules(Rule("stall"))
    with pytest.raises(TimeoutError):
        both.get(timeout_s=0.3)


@pytest.mark.parametrize(("answer", "status"), [(0, 200), (1, 412)])
def test_duplicate(both: Both, fault_proxy: FaultProxy, answer: int, status: int) -> None:
    """Protects its name: done twice; the client gets the first or the second answer."""
    fault_proxy.rules(Rule("duplicate", answer=answer))
    assert both.put(absent=True).status == status
    (entry,) = fault_proxy.log()
    assert (entry["status"], entry["second"]) == (200, 412)


def test_zombie(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects tests of fencing: an unanswered put is done, and again after others have written."""
    fault_proxy.rules(Rule("zombie", times=1, wait_s=0.5))
    with pytest.raises(ConnectionResetError):
        both.put(b"old")
    assert both.stored() == b"old"
    both.store(b"new")
    assert within(5, lambda: "second" in fault_proxy.log()[0])
    assert both.stored() == b"old"


def test_hold_and_release(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects tests of interleavings: a request waits, others pass, until its gate is opened."""
    fault_proxy.rules(
        Rule("hold", path="/a$", name="first"), Rule("hold", path="/b$", name="second")
    )
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(both.put), pool.submit(both.put, name="b")
        fault_proxy.wait_for("hold", count=2)
        assert both.put(name="c").status == 200
        fault_proxy.release("second")
        assert second.result().status == 200
        assert not first.done()
        assert both.stored() is None
        fault_proxy.release("first")
        assert first.result().status == 200
    assert both.put().status == 200, "an open gate stays open"


def test_hold_ends_by_itself(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects the suite from hanging: a gate that nobody opens lets go after `wait_s`."""
    fault_proxy.rules(Rule("hold", wait_s=0.2))
    assert both.put().status == 200


def test_clear_opens_all_gates(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects the next test: nothing waits any more, no rule is left, the log is empty."""
    fault_proxy.rules(Rule("hold", method="PUT"))
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(both.put)
        fault_proxy.wait_for("hold")
        fault_proxy.clear()
        assert held.result().status == 200
    assert fault_proxy.log() == []
    fault_proxy.rules(Rule("hold", method="PUT", wait_s=0.4))
    start = time.monotonic()
    both.put()
    assert time.monotonic() - start > 0.3, "a gate used before is closed again"


def test_strip(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: the server never sees the condition, or other headers that are named."""
    both.store(b"old")
    fault_proxy.rules(Rule("strip", names=("if-none-match",)))
    assert both.put(b"new", absent=True).status == 200
    assert both.put(b"newer", token='"wrong"').status == 412
    assert both.stored() == b"new"


def test_racy(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: two writers that check before either has written both win."""
    fault_proxy.rules(Rule("racy", wait_s=0.3))
    start = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(both.put, bytes([i]), absent=True) for i in range(2)]
        assert [f.result().status for f in found] == [200, 200]
    assert time.monotonic() - start > 0.2
    assert both.put(absent=True).status == 412


def test_stale(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: the answer that was seen last before the rule, whatever the server has now."""
    both.store(b"old")
    assert both.get().body == b"old"
    both.store(b"new")
    fault_proxy.rules(Rule("stale", times=2))
    assert [both.get().body for _ in range(3)] == [b"old", b"old", b"new"]


def test_stale_has_nothing_at_first(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects its name: without an earlier answer the server is asked."""
    both.store(b"new")
    fault_proxy.rules(Rule("stale"))
    assert both.get().body == b"new"


def test_rules_choose_requests(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects tests that aim: method, path, header, skip and times; the first rule that takes it decides."""
    fault_proxy.rules(
        Rule("status", code=500, method="PUT", path="/a$", skip=1, times=1),
        Rule("status", code=409, header="If-None-Match"),
        Rule("status", code=400, method="GET,HEAD"),
    )
    assert [both.put().status for _ in range(3)] == [200, 500, 200]
    assert both.put(name="b").status == 200
    assert both.put(name="b", absent=True).status == 409
    assert both.get().status == 400
    assert [e["do"] for e in fault_proxy.log()] == [None, "status", None, None, "status", "status"]


def test_chance_is_seeded(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects repeatable campaigns: the same seed strikes the same requests, another one others."""

    def struck(seed: int) -> list[int]:
        fault_proxy.rules(Rule("status", chance=0.5, seed=seed))
        return [both.get().status for _ in range(20)]

    first = struck(1)
    assert set(first) == {404, 503}
    assert struck(1) == first
    assert struck(2) != first


def test_many_at_once(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects load through the proxy: answers are not mixed up."""
    names = [f"n{i}" for i in range(64)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: both.put(n.encode() * 100, n), names))
        assert list(pool.map(lambda n: both.get(n).body, names)) == [
            n.encode() * 100 for n in names
        ]


def test_chunks_pass(s3: Place, fault_proxy: FaultProxy, both: Both) -> None:
    """Protects clients that send a body of unknown length, or wait for 100-continue."""
    path = Objects(s3).put("a").path
    connection = http.client.HTTPConnection(HOST, fault_proxy.port, timeout=20)
    pieces = iter([b"one ", b"two"])
    connection.request("PUT", path, pieces, {"Expect": "100-continue"}, encode_chunked=True)
    assert connection.getresponse().read() is not None
    connection.close()
    assert both.stored() == b"one two"


def test_unknown_actions_are_refused() -> None:
    """Protects against rules that silently do nothing."""
    with pytest.raises(ValueError, match="no action 'rest_after'"):
        Rule("rest_after")
    assert set(PERFORM) == ACTIONS


def test_other_services_pass_too(faulty_place: Place) -> None:
    """Protects tests of faults on GCS and Azure: conditions are kept, answers can be lost."""
    assert faulty_place.proxy is not None
    objects, port = Objects(faulty_place), faulty_place.port
    assert ask(port, objects.put("a", absent=True), BODY).status in (200, 201)
    faulty_place.proxy.rules(Rule("reset_after", times=1))
    with pytest.raises(ConnectionResetError):
        ask(port, objects.put("b", absent=True), BODY)
    assert ask(port, objects.put("b", absent=True), BODY).status in (409, 412)
    assert ask(port, objects.get("b")).body == BODY


def test_control_is_not_logged(fault_proxy: FaultProxy) -> None:
    """Protects assertions on the log: only requests for the server are in it; unknown control is refused."""
    assert fault_proxy.request("GET", "/__nonsense__")[0] == 404
    assert fault_proxy.log() == []
    assert ask(fault_proxy.port, Call("GET", "/")).status == 200
    assert len(fault_proxy.log()) == 1


def test_late(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects tests of fencing: an unanswered put is done when late requests are delivered, not before."""
    fault_proxy.rules(Rule("late", method="PUT", times=1))
    with pytest.raises(ConnectionResetError):
        both.put(b"late")
    assert both.stored() is None
    assert both.put(b"new").status == 200
    assert fault_proxy.deliver() == [200]
    assert both.stored() == b"late"
    assert fault_proxy.log()[0]["second"] == 200
    assert fault_proxy.deliver() == []


def test_zombie_waits_for_delivery(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects replays: without `wait_s` the repetition comes when it is asked for; `clear` forgets it."""
    fault_proxy.rules(Rule("zombie", times=2))
    for body in (b"old", b"older"):
        with pytest.raises(ConnectionResetError):
            both.put(body, absent=True)
    both.store(b"new")
    assert fault_proxy.deliver() == [412, 412]
    fault_proxy.rules(Rule("late"))
    with pytest.raises(ConnectionResetError):
        both.put(b"never")
    fault_proxy.clear()
    assert fault_proxy.deliver() == []
    assert both.stored() == b"new"


def test_stale_may_be_an_absence(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects tests of slow visibility: what was seen last may be that there is nothing."""
    assert both.get().status == 404
    both.store(b"new")
    fault_proxy.rules(Rule("stale", times=1))
    assert [both.get().status for _ in range(2)] == [404, 200]


def test_each_rule_counts_for_itself(both: Both, fault_proxy: FaultProxy) -> None:
    """Protects schedules: an entry's number counts matching requests, whatever other entries did to them."""
    fault_proxy.faults(parse("proxy: PUT#1=status-500; proxy: +[*/a]#2=status-429").faults)
    assert [both.put().status for _ in range(3)] == [500, 429, 200]
    assert [e["rule"] for e in fault_proxy.log()] == [0, 1, None]


@pytest.mark.parametrize("action", sorted(HTTP_ACTIONS))
def test_every_action_of_a_schedule_can_be_done(
    both: Both, fault_proxy: FaultProxy, action: str
) -> None:
    """Protects replays: each name does something to the second put of that key, and to no other request."""
    fault = Fault("PUT", 2, action, key="*/a", agent="proxy")
    assert parse(str(fault)).faults == (fault,)
    rule = rule_of(fault)
    rule.wait_s = 0.1
    fault_proxy.rules(rule)
    assert both.put().status == 200
    assert both.put(name="b").status == 200
    try:
        both.put(timeout_s=5)
    except (OSError, http.client.HTTPException):
        assert rule.do not in ("status", "status_after", "duplicate", "stale", "strip", "racy")
    assert both.put().status == 200
    assert [e["do"] for e in fault_proxy.log()] == [None, None, rule.do, None]


def test_a_sticky_entry_stays() -> None:
    """Protects outages: with ``!`` the rule has no end; other agents' entries make no rule."""
    (fault,) = parse("proxy: GET[*list*]#3=reset-before!").faults
    rule = rule_of(fault)
    assert (rule.skip, rule.times, rule.method, rule.key) == (2, None, "GET", "*list*")
    with pytest.raises(UsageError, match="a proxy can't kill"):
        rule_of(Fault("PUT", 1, "kill", agent="proxy"))


OWNER = """
import sys, time
from pathlib import Path
from fstx_conformance.seams.proxy.control import FaultProxy
from support.emulators import GCS
print({start}.port, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("start", ["FaultProxy('http://127.0.0.1:1')", "GCS(Path(sys.argv[1]))"])
def test_servers_end_with_a_killed_owner(tmp_path: Path, start: str) -> None:
    """Protects machines from servers left behind by a test run that was killed."""
    command = [sys.executable, "-c", OWNER.format(start=start), str(tmp_path)]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline())
        assert ask(port, Call("GET", "/__log__")).status in (200, 404)
        owner.kill()

    def gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, port)) != 0

    assert within(10, gone)


def test_a_stopped_proxy_is_gone() -> None:
    """Protects the end of each session: after `stop` nothing listens there."""
    with FaultProxy("http://127.0.0.1:1") as proxy:
        assert proxy.alive
    assert not proxy.alive
    with pytest.raises(ConnectionRefusedError):
        ask(proxy.port, Call("GET", "/"))


def test_a_proxy_that_does_not_start_says_why() -> None:
    """Protects whoever gives a wrong address: the reason is in the error."""
    with pytest.raises(RuntimeError, match="is no http:// or https:// address"):
        FaultProxy("127.0.0.1:80")


def test_servers_that_do_not_start_say_why(tmp_path: Path) -> None:
    """Protects whoever reads a failed session: the server's own words are in the error."""
    with pytest.raises(RuntimeError, match="No module named nonsense"):
        Server("nonsense", lambda _: [sys.executable, "-m", "nonsense"], tmp_path)
