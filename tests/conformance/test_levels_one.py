"""The levels primitives and semantics pass over what is right, and fail over what is wrong."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from fstx.backends.local import native_ops
from fstx.backends.manifest import ManifestBackend
from fstx.backends.memory import MemoryTransaction
from fstx.stores import Answer, Info
from fstx.stores.memory import MemoryStore
from fstx.types import Capability
from fstx_conformance.machine import machine_for
from fstx_conformance.results import CaseResult, Level, Verdict
from fstx_conformance.run import run
from fstx_conformance.subjects import subject_of
from fstx_conformance.subjects.base import Subject
from fstx_conformance.subjects.hooks import Hooks, HookSubject
from fstx_conformance.subjects.urls import LocalRoom

LEVELS = (Level.PRIMITIVES.value, Level.SEMANTICS.value)


def judged(subject: Subject, *only: str) -> dict[str, CaseResult]:
    """What the cases came to."""
    try:
        return {c.id: c for c in run(subject, only=only).cases}
    finally:
        subject.close()


def told(cases: dict[str, CaseResult]) -> list[str]:
    """What did not pass and was not n/a, with its first failure."""
    return [
        f"{c.id}: {c.verdict} {c.reason} {c.failures[0] if c.failures else ''}"
        for c in cases.values()
        if c.verdict not in (Verdict.PASS, Verdict.NOT_APPLICABLE)
    ]


def passed(cases: dict[str, CaseResult], level: Level) -> int:
    """How many cases of a level passed."""
    return sum(c.verdict is Verdict.PASS for c in cases.values() if c.level is level)


@pytest.mark.parametrize("view", ["{}", "tx::{}", "memory://levels", "tx::memory://levels"])
def test_what_is_right_passes(view: str, tmp_path: Path) -> None:
    """No case of the two levels fails over local files, memory, and datasets in both."""
    cases = judged(subject_of(view.format(tmp_path)), *LEVELS)
    assert told(cases) == []
    assert passed(cases, Level.SEMANTICS) >= 18
    assert passed(cases, Level.PRIMITIVES) >= (0 if view == "memory://levels" else 7)


# --- stores that are wrong --------------------------------------------------------------------------------


_NUMBERS = itertools.count()  # datasets are remembered by the place of their store


class Wrong(MemoryStore):
    """A memory store; each way to be wrong overrides a call."""

    way: str = ""

    def below(self, path: str, /) -> Any:
        made = type(self)(super().below(path)._root)
        made.way = self.way
        return made

    def put_new(self, key: str, data: bytes, /) -> Answer:
        if self.way == "overwrites" and "kit-" in self._root:
            self.put(key, data)
            return Answer.DONE
        if self.way == "taken by nobody" and self.info(key) is None and "kit-" in self._root:
            super().put_new(key, data)
            return Answer.TAKEN
        return super().put_new(key, data)

    def get(self, key: str, /, start: int = 0, stop: int | None = None) -> bytes:
        if self.way == "negative starts" and start < 0:
            return super().get(key, 0, -start)
        if self.way == "missing is empty" and self.info(key) is None:
            return b""
        return super().get(key, start, stop)

    def info(self, key: str, /) -> Info | None:
        found = super().info(key)
        if self.way == "constant tokens" and found is not None:
            return dataclasses.replace(found, token="same")
        return found

    def list(self, prefix: str, /) -> Iterator[Info]:
        found = list(super().list(prefix))
        if self.way == "unsorted":
            found.reverse()
        if self.way == "prefix of parts":
            found = [i for i in found if i.key == prefix or prefix[-1:] in ("", "/")]
        return iter(found)

    def delete(self, keys: Any, /) -> None:
        told = list(keys)
        if self.way == "absent is an error" and any(self.info(k) is None for k in told):
            raise FileNotFoundError(errno.ENOENT, "no such object", self.url)
        if self.way == "deletes below":
            told += [i.key for k in told for i in self.list(f"{k}/")]
        super().delete(told)

    def open(self, key: str, /) -> Any:
        writer = super().open(key)
        if self.way == "seen at once":
            self.put(key, b"")
        return writer

    def probe(self) -> Any:
        proof = super().probe()
        if self.way == "probe leaves":
            self.put(".probe", b"")
        if self.way == "no reasons":
            return dataclasses.replace(proof, put_new_reason="")
        return proof


@pytest.mark.parametrize(
    ("way", "case"),
    [
        ("overwrites", "put-new"),
        ("overwrites", "put-new-crowd"),
        ("taken by nobody", "put-new"),
        ("negative starts", "get"),
        ("missing is empty", "get"),
        ("missing is empty", "put"),
        ("constant tokens", "replace-if"),
        ("unsorted", "list"),
        ("prefix of parts", "list"),
        ("absent is an error", "delete"),
        ("deletes below", "delete"),
        ("seen at once", "writer"),
        ("probe leaves", "probe"),
        ("no reasons", "probe"),
    ],
)
def test_a_wrong_store_fails(way: str, case: str) -> None:
    """Each way in which a store can be wrong is found by the case whose rule it breaks."""

    def make(url: str) -> ManifestBackend:
        store = Wrong(f"/wrong/{next(_NUMBERS)}")
        store.way = way
        return ManifestBackend(store)

    subject = HookSubject("", Hooks(make, remove=lambda url: None), name="wrong")
    assert subject.seam == "store"
    found = judged(subject, f"primitives.{case}")[f"primitives.{case}"]
    assert found.verdict is Verdict.FAIL, found.reason


# --- calls on files that are wrong ------------------------------------------------------------------------


class WrongOps:
    """Native calls; one of them is replaced."""

    def __init__(self, **calls: Callable[..., Any]) -> None:
        self._inner, self._calls = native_ops(), calls

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if name in self._calls:
            return lambda *given, **more: self._calls[name](inner, *given, **more)
        return inner


def _rename_over(inner: Any, src: str, dst: str) -> None:
    native_ops().rename(src, dst)


def _copied(inner: Any, src: str, dst: str) -> None:
    ops = native_ops()
    if Path(src).is_file():
        Path(dst).write_bytes(Path(src).read_bytes())
        ops.unlink(src)
    else:
        inner(src, dst)


def _rmtree(inner: Any, path: str) -> None:
    for entry in Path(path).iterdir() if Path(path).is_dir() else ():
        entry.unlink()
    inner(path)


def _open_over(inner: Any, path: str) -> Any:
    Path(path).unlink(missing_ok=True)
    return inner(path)


class Unlocked:
    """A lock that is none."""

    def release(self) -> None:
        """Nothing."""


def _gap(inner: Any, src: str, dst: str) -> None:
    if Path(dst).exists():
        native_ops().unlink(dst)
        time.sleep(0.002)
    inner(src, dst)


@pytest.mark.parametrize(
    ("case", "calls"),
    [
        ("rename-new", {"rename_new": _rename_over}),
        ("rename", {"rename": _copied}),
        ("rename", {"replace_file": _gap}),
        ("links", {"link_new": lambda inner, a, b: Path(b).write_bytes(Path(a).read_bytes())}),
        ("removing", {"rmdir": _rmtree}),
        ("removing", {"scandir": lambda inner, path: iter(list(inner(path))[:100])}),
        ("contents", {"read_file": lambda inner, path, limit: inner(path, 1 << 30)}),
        ("contents", {"open_new": _open_over}),
        ("locks", {"lock": lambda inner, path, wait_s: Unlocked()}),
    ],
)
def test_wrong_calls_fail(
    case: str, calls: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way in which calls on files can be wrong is found by the case whose rule it breaks."""
    monkeypatch.setattr(LocalRoom, "ops", lambda self, process: WrongOps(**calls))
    found = judged(subject_of(str(tmp_path)), f"primitives.{case}")[f"primitives.{case}"]
    assert found.verdict is Verdict.FAIL, found.reason


# --- transactions that are wrong --------------------------------------------------------------------------


def _leaks(tx: Any, path: str, data: Any, **more: Any) -> Any:
    from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

    key = tx._backend.locate(path)
    MemoryFileSystem.store[key] = MemoryFile(None, key, bytes(data))
    return _STAGE(tx, path, data, **more)


_STAGE = MemoryTransaction.stage
_COMMIT = MemoryTransaction.commit


def _forgets_conflicts(tx: Any) -> None:
    tx._touched.clear()


def _exit_swallows(tx: Any, kind: Any, error: Any, trace: Any) -> bool:
    tx.rollback() if kind else tx.commit()
    return True


def _keeps_removed(tx: Any, path: str) -> None:
    if not list(tx.paths(path)):
        raise FileNotFoundError(path)


WRONG: list[tuple[str, str, Callable[..., Any]]] = [
    ("semantics.invisible", "stage", _leaks),
    ("semantics.given-up", "rollback", lambda tx: _COMMIT(tx)),
    ("semantics.given-up", "__exit__", _exit_swallows),
    ("semantics.over", "_must_be_open", lambda tx: None),
    ("semantics.removal", "remove", _keeps_removed),
    ("semantics.conflict", "_check_base", _forgets_conflicts),
    ("semantics.receipts", "adopt", lambda tx, receipts: None),
    ("semantics.reads-own", "_read_base", lambda tx, path, start, stop: b"other"),
]


@pytest.mark.parametrize(
    ("case", "name", "call"), WRONG, ids=lambda v: v if isinstance(v, str) else ""
)
def test_wrong_transactions_fail(
    case: str, name: str, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way in which a transaction can be wrong is found by the case whose rule it breaks."""
    monkeypatch.setattr(MemoryTransaction, name, call)
    found = judged(subject_of("memory://wrong"), case)[case]
    assert found.verdict is Verdict.FAIL, found.reason


@pytest.mark.parametrize(
    ("name", "call"), [("remove", _keeps_removed), ("_check_base", _forgets_conflicts)]
)
def test_drawn_programs_find_what_is_wrong(
    name: str, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine finds a removal that does nothing, and a conflict that nobody is told of."""
    monkeypatch.setattr(MemoryTransaction, name, call)
    chosen = settings(
        max_examples=600,
        stateful_step_count=50,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    made = seed(1)(machine_for(subject_of("memory://wrong")))
    with pytest.raises(AssertionError) as found:
        run_state_machine_as_test(made, settings=chosen)
    assert any("state = " in note for note in found.value.__notes__)


def test_promises_that_are_not_kept_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost conflict counts as a broken promise, so the report says so."""
    monkeypatch.setattr(MemoryTransaction, "_check_base", _forgets_conflicts)
    subject = subject_of("memory://wrong")
    result = run(subject, only=("semantics.conflict",))
    subject.close()
    row = next(p for p in result.promises if p.capability == Capability.CONFLICT_DETECTED)
    assert (row.declared, row.observed) == (True, "broken")
