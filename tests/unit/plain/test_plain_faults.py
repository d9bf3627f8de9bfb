"""A kill or a lost answer at every single request: afterwards plain readers find all old or all new."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fstx.backends.plain import PlainBackend, PlainTransaction
from fstx.errors import InDoubtError, TransactionError
from fstx.stores import Store
from fstx.stores.memory import MemoryStore
from fstx.types import Capability, OutcomeState
from support.plainfaults import FaultStore, Killed, Plan, backend, content, control, died

Tree = dict[str, bytes]
SMALL, MIDDLE = b"s" * 100, b"m" * 5000
_used: list[MemoryStore] = []


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fstx.seams._wait", lambda seconds: None)


@dataclass
class Job:
    """One commit: what is there before, what is done, what is there afterwards."""

    old: Tree
    new: Tree
    work: Callable[[PlainTransaction], None]
    begin: dict[str, Any] = field(default_factory=dict)
    entry: str = ""
    parts: Callable[[bytes], Tree] = lambda entry: {}

    def start(self, store: Store) -> PlainTransaction:
        options = {"mode": "update", "durability": "data", "require": frozenset(), **self.begin}
        return backend(store, ["t"]).begin(**options)


def tiles(generation: int) -> Tree:
    return {f"t/{generation}/{i}": bytes([generation, i]) * 2000 for i in range(4)}


def entry_of(generation: int) -> bytes:
    return f"see {generation}".encode()


def _create(tx: PlainTransaction) -> None:
    for path, data in tiles(0).items():
        tx.stage(path.removeprefix("t/"), data)
    tx.stage("index", entry_of(0))


LARGE = b"l" * (9 << 20)


def _large(tx: PlainTransaction) -> None:
    tx.stage("0/large", LARGE)
    tx.stage("index", entry_of(0))


def _switch(tx: PlainTransaction) -> None:
    for path, data in tiles(1).items():
        tx.stage(path.removeprefix("t/"), data)
    tx.remove("0")
    tx.stage("index", entry_of(1))


def _in_place(tx: PlainTransaction) -> None:
    tx.stage("a", MIDDLE)
    tx.stage("b", SMALL)
    tx.remove("c")
    tx.stage("new", MIDDLE)


def _replace(tx: PlainTransaction) -> None:
    for i in range(3):
        tx.stage(f"c/{i}", bytes([i + 50]) * 3000)
    tx.stage("zarr.json", b"{new}", publisher=True)


def _found(entry: bytes) -> Tree:
    return tiles(int(entry[-1:]))


OLD_ZARR = {f"t/c/{i}": bytes([i]) * 3000 for i in range(5)} | {"t/zarr.json": b"{old}"}
NEW_ZARR = {f"t/c/{i}": bytes([i + 50]) * 3000 for i in range(3)} | {"t/zarr.json": b"{new}"}
SWITCH = {"entry": "index", "require": frozenset({Capability.ATOMIC_SET})}
JOBS = {
    "create": Job(
        {},
        {**tiles(0), "t/index": entry_of(0)},
        _create,
        {"mode": "create", "entry": "index"},
        "t/index",
        _found,
    ),
    "large": Job(
        {},
        {"t/0/large": LARGE, "t/index": entry_of(0)},
        _large,
        {"mode": "create", "entry": "index"},
        "t/index",
        lambda entry: {"t/0/large": LARGE},
    ),
    "create without entry": Job({}, NEW_ZARR, _replace, {"mode": "create"}),
    "switch": Job(
        {**tiles(0), "t/index": entry_of(0)},
        {**tiles(1), "t/index": entry_of(1)},
        _switch,
        SWITCH,
        "t/index",
        _found,
    ),
    "in place": Job(
        {"t/a": b"1", "t/b": b"2", "t/c": b"3", "t/keep": b"4"},
        {"t/a": MIDDLE, "t/b": SMALL, "t/new": MIDDLE, "t/keep": b"4"},
        _in_place,
    ),
    "replace": Job(
        OLD_ZARR, NEW_ZARR, _replace, {"mode": "replace", "entry": "zarr.json"}, "t/zarr.json"
    ),
}


def fresh(job: Job) -> Store:
    """The target before the job; a listing of memory looks at all keys, so the job before leaves none."""
    while _used:
        used = _used.pop()
        used.delete([info.key for info in used.list("")])
    store = MemoryStore(f"f-{uuid.uuid4().hex}")
    _used.append(store)
    for key, data in {**job.old, "other/x": b"not ours"}.items():
        store.put(key, data)
    return store


def requests(job: Job) -> int:
    plan = Plan()
    run(job, fresh(job), plan)
    return plan.count


def run(job: Job, store: Store, plan: Plan) -> str:
    """What the writer was told: "committed", "aborted", "in doubt" or "killed"."""
    try:
        tx = job.start(FaultStore(store, plan))
        try:
            job.work(tx)
            tx.commit()
        except Exception:
            if tx._state == "open":
                tx.rollback()
            raise
        return "committed"
    except Killed:
        return "killed"
    except InDoubtError:
        return "in doubt"
    except (TransactionError, OSError) as error:
        return "committed" if getattr(error, "outcome", "") == "committed" else "aborted"


def check(job: Job, store: Store, told: str) -> None:
    """All old or all new, as it was told, and nothing left behind."""
    found = content(store)
    assert found.pop("other/x") == b"not ours"
    if told == "committed":
        assert found == job.new
    elif told == "aborted":
        assert found == job.old
    else:
        assert found in (job.old, job.new)
    assert control(store) <= {"home.json", "log", "boundary"}


def check_reader(job: Job, store: Store) -> None:
    """A reader that starts at the entry finds all that it names, at any moment."""
    if job.entry and (info := store.info(job.entry)) is not None:
        entry = store.get(info.key)
        for key, data in job.parts(entry).items():
            assert store.get(key) == data, f"{key} is missing or another one"


def _recover(store: Store) -> None:
    backend(store, ["t"]).recover()


@pytest.mark.parametrize("name", JOBS)
def test_a_kill_at_every_request(name: str) -> None:
    """Protects A23 and A24 on object stores: all old or all new, nothing left, and a retry works."""
    job = JOBS[name]
    last = requests(job)
    assert last > 8
    ends = set()
    for at in range(1, last + 1):
        store = fresh(job)
        told = run(job, store, Plan(at, "kill"))
        check_reader(job, store)
        died()
        _recover(store)
        check(job, store, told)
        now = content(store)
        now.pop("other/x")
        ends.add("new" if now == job.new else "old")
        if now == job.old:
            assert run(job, store, Plan()) == "committed"
            check(job, store, "committed")
    assert ends == {"old", "new"}


@pytest.mark.parametrize("name", JOBS)
def test_the_next_writer_settles_a_kill(name: str) -> None:
    """Protects A24: nobody has to call `recover`; the next transaction on the target does it."""
    job = JOBS[name]
    for at in range(1, requests(job) + 1):
        store = fresh(job)
        run(job, store, Plan(at, "kill"))
        died()
        with backend(store, ["t"]).begin(
            mode="update", durability="data", require=frozenset()
        ) as tx:
            found = content(store)
            found.pop("other/x")
            assert found in (job.old, job.new)
            tx.stage("later", b"x")
        assert store.get("t/later") == b"x"


@pytest.mark.parametrize("fault", ["unknown", "error", "error-after"])
@pytest.mark.parametrize("name", JOBS)
def test_a_lost_answer_at_every_request(name: str, fault: Any) -> None:
    """Protects that a lost answer never turns a landed commit into an error, nor an error into a commit."""
    job = JOBS[name]
    for at in range(1, requests(job) + 1):
        store = fresh(job)
        told = run(job, store, Plan(at, fault))
        assert told in ("committed", "aborted")
        check_reader(job, store)
        died()
        _recover(store)
        check(job, store, told)


@pytest.mark.parametrize("name", ["create", "switch", "in place", "replace"])
def test_a_second_kill_inside_recovery(name: str) -> None:
    """Protects recovery itself: killed at any request, the next one still finishes."""
    job = JOBS[name]
    last = requests(job)
    for first in range(2, last + 1, 5):
        plan = Plan()
        told, store = _killed_at(job, first)
        _recover_over(FaultStore(store, plan))
        for second in range(1, plan.count + 1, 3):
            told, store = _killed_at(job, first)
            _recover_over(FaultStore(store, Plan(second, "kill")))
            check_reader(job, store)
            died()
            _recover_over(store)
            check(job, store, told)


def _killed_at(job: Job, request: int) -> tuple[str, Store]:
    store = fresh(job)
    told = run(job, store, Plan(request, "kill-after"))
    died()
    return told, store


def _recover_over(store: Store) -> None:
    try:
        backend(store, ["t"]).recover()
    except Killed:
        return


def test_an_outcome_is_told_after_a_kill_at_every_request() -> None:
    """Protects `outcome`: what it says of a killed writer is what plain readers find, and stays so."""
    job = JOBS["switch"]
    job = Job(job.old, job.new, job.work, {**job.begin, "id": "nightly"}, job.entry, job.parts)
    for at in range(1, requests(job) + 1):
        store = fresh(job)
        run(job, store, Plan(at, "kill-after"))
        died()
        fs: PlainBackend = backend(store, ["t"])
        state = fs.outcome("nightly")
        assert state is not OutcomeState.ACTIVE
        fs.recover()
        found = content(store)
        found.pop("other/x")
        new = state in (OutcomeState.COMMITTED, OutcomeState.PENDING)
        assert found == (job.new if new else job.old)
        assert fs.outcome("nightly") is (OutcomeState.COMMITTED if new else OutcomeState.UNKNOWN)


@pytest.mark.parametrize("name", ["switch", "replace"])
def test_several_recover_at_once(name: str) -> None:
    """Protects recovery against itself: who comes at the same time does the same work, once."""
    job = JOBS[name]
    for at in range(4, requests(job) + 1, 3):
        told, store = _killed_at(job, at)
        failures: list[BaseException] = []

        def work(place: Store = store, failed: list[BaseException] = failures) -> None:
            try:
                _recover(place)
            except BaseException as error:  # noqa: BLE001 - looked at below
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        check_reader(job, store)
        _recover(store)
        check(job, store, told)


def test_a_late_part_of_a_dead_writer_goes() -> None:
    """Protects the target from a put that arrives after its writer was given up and cleaned."""
    store = MemoryStore(f"f-{uuid.uuid4().hex}")
    tx = backend(store, ["t"]).begin(
        mode="create", durability="data", require=frozenset(), entry="index"
    )
    tx.stage("part", MIDDLE)
    tx.desk.settle()
    died()
    late = backend(store, ["t"], late_s=60.0)
    late.recover()
    assert not content(store)
    store.put("t/part", MIDDLE)  # it was under way all the time
    with late.begin(mode="create", durability="data", require=frozenset(), entry="index") as second:
        assert not content(store)
        second.stage("index", b"x")
    assert content(store) == {"t/index": b"x"}


def test_in_doubt_is_told_and_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects callers whose storage went away while the record was put: InDoubtError, then `outcome`."""
    real = Plan.next
    for landed in (False, True):
        store = MemoryStore(f"f-{uuid.uuid4().hex}")
        plan = Plan()
        faulty = FaultStore(store, plan)
        tx = backend(faulty, ["t"]).begin(mode="update", durability="data", require=frozenset())
        tx.stage("a", b"1")

        def gone(self: Plan, name: str, landed: bool = landed) -> Any:
            if self.dead:
                raise ConnectionError("unreachable")
            if name.startswith("put_new log/"):
                self.dead = True
                return "unknown-after" if landed else "unknown"
            return real(self, name)

        monkeypatch.setattr(Plan, "next", gone)
        with pytest.raises(InDoubtError, match="outcome"):
            tx.commit()
        monkeypatch.setattr(Plan, "next", real)
        state = backend(store, ["t"]).outcome(tx.id)
        assert state is (OutcomeState.PENDING if landed else OutcomeState.ABORTED)
        _recover(store)
        assert content(store) == ({"t/a": b"1"} if landed else {})


@pytest.mark.parametrize("fault", ["interrupt", "interrupt-after"])
@pytest.mark.parametrize("name", ["create", "switch", "replace"])
def test_ctrl_c_at_every_request(name: str, fault: Any) -> None:
    """Protects A25: an interrupt anywhere; what the transaction says of itself is what lies there."""
    job = JOBS[name]
    for at in range(1, requests(job) + 1):
        store = fresh(job)
        tx: PlainTransaction | None = None
        try:
            tx = job.start(FaultStore(store, Plan(at, fault)))
            with tx:
                job.work(tx)
        except (KeyboardInterrupt, TransactionError):  # in an upload's thread it is a failed upload
            told = "committed" if tx is not None and tx.committed else "aborted"
        else:
            told = "committed"
        if tx is not None and tx._state == "in doubt":
            told = "in doubt"
        check_reader(job, store)
        died()
        _recover(store)
        check(job, store, told)
