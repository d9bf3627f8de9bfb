"""Level "semantics": publishers, versions, errors, secrets, neighbours and strangers."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

from fstx.errors import (
    ConflictError,
    PathError,
    RecoveryError,
    StateError,
    TargetExistsError,
    TransactionError,
)
from fstx.types import Capability
from fstx_conformance.cases import case
from fstx_conformance.checks import MODES, OLD, another, create, place, refused, same
from fstx_conformance.injector import Call, Injector
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.results import Level
from fstx_conformance.scenes import BIG, SCENES, stage_all, text, tiles
from fstx_conformance.schedule import Fault, Schedule
from fstx_conformance.subjects import raw
from fstx_conformance.subjects.base import Process, Room
from fstx_conformance.trial import Trial, diff, perform


@case(
    Level.SEMANTICS,
    "publishers",
    "BACKEND-23",
    seams=("ops", "store", "files"),
    sees=("committed",),
)
def publishers(lab: Lab) -> None:
    """Whoever finds the entry finds all that it leads to, at every call of the commit."""
    for scene in (SCENES["create index"], SCENES["index"]):
        lab.runs += 1
        with lab.room() as room, Process.alone():
            if scene.old:
                with room.begin(mode="create", entry=scene.index) as tx:
                    stage_all(tiles(1))(tx)
            seen: list[str] = []
            process = Injector()

            def look(call: Call, room: Room = room, scene: Any = scene, seen: Any = seen) -> None:
                if call.changing and scene.shown(room.read()) is None:
                    seen.append(f"before {call.op} {call.key}")

            with room.begin(process, **scene.begin()) as tx:
                scene.work(tx)
                process.before = look
            process.before = lambda call: None
            lab.seen["committed"] += 1
            lab.check(not seen, f"{scene.name}: the entry leads to what is not there: {seen[:3]}")
            same(lab, room, scene.new, f"after {scene.name}")


@case(Level.SEMANTICS, "snapshots", "BACKEND-22", sees=("committed",))
def snapshots(lab: Lab) -> None:
    """A reader that holds a version reads it whole while others commit; older ones stay readable."""
    with place(lab) as room:
        if Capability.SNAPSHOTS not in room.open().guarantee(mode="update", durability="data"):
            raise NotApplicable("SNAPSHOTS is not promised")
        held = raw.holder(room)
        if held is None:
            raise NotApplicable("the kit knows no reader that holds a version of this storage")
        known = [room.read()]
        for n in range(3):
            with room.begin() as tx:
                tx.stage("a", b"version %d" % n)
                tx.stage("b", text(f"version {n}", BIG))
                tx.stage(f"more/{n}", text(f"more {n}", BIG))
                if n == 1:
                    tx.remove("d")
            lab.seen["committed"] += 1
            known.append(room.read())
            found = held()
            lab.check(
                found == OLD,
                f"a held version changed under its reader: {diff(found, OLD)}",
                Capability.SNAPSHOTS,
            )
        kept = raw.versions(room)
        lab.check(
            kept is not None and kept[-4:] == known,
            "the versions that were committed are not what is read of them",
            Capability.SNAPSHOTS,
        )
    lab.kept.add(Capability.SNAPSHOTS)


@case(Level.SEMANTICS, "errors", "BACKEND-29")
def errors(lab: Lab) -> None:
    """Errors are the library's, pickle whole, and name what they are about."""
    with place(lab) as room:
        tx, stale = room.begin(), another(room)
        foreign = stale.stager().stage("q", b"foreign")
        stale.stage("a", b"stale")
        found = [
            (refused(lab, PathError, lambda: tx.stage("../out", b""), "stage"), "../out"),
            (refused(lab, StateError, lambda: tx.adopt([foreign]), "adopt"), "q"),
            (refused(lab, TargetExistsError, lambda: create(room, b""), "create"), "t"),
        ]
        tx.stage("a", b"first")
        tx.commit()
        lab.seen["committed"] += 1
        found.append(
            (refused(lab, StateError, lambda: tx.stage("b", b""), "stage at the end"), tx.id)
        )
        if Capability.CONFLICT_DETECTED in stale.guarantee:
            found.append((refused(lab, ConflictError, stale.commit, "stale commit"), "a"))
            lab.seen["conflict"] += 1
        else:
            stale.rollback()
        for error, named in found:
            if error is not None:
                _whole(lab, error, named)


def _whole(lab: Lab, error: BaseException, named: str) -> None:
    told = f"{type(error).__name__}: {error}"
    lab.check(isinstance(error, TransactionError), f"{told} is none of fstx's errors")
    lab.check(named in str(error), f"{told!r} does not name {named!r}")
    try:
        copy: Any = pickle.loads(pickle.dumps(error))
    except Exception as failure:  # noqa: BLE001 - whatever it is, it must not be
        lab.problem(f"{told} does not pickle: {failure!r}")
        return
    for name in ("txid", "outcome", "retryable", "args"):
        lab.check(
            type(copy) is type(error) and getattr(copy, name, 0) == getattr(error, name, 1),
            f"{told}: its pickle has another {name}",
        )


@case(Level.SEMANTICS, "neighbours", "BACKEND-45", "PATH-5")
def neighbours(lab: Lab) -> None:
    """Nothing is written, changed or removed beside the target and its control directory."""
    with place(lab, {}) as room:
        write = raw.stranger(room)
        strangers = {"t2/a": b"1", "s/t/a": b"2", "tt": b"3"} if write is not None else {}
        for name, content in strangers.items():
            assert write is not None
            write(name, content)
        if raw.listing(room) is None:
            raise NotApplicable("the kit knows no way to see what lies beside the target")
        for mode in MODES:
            with room.begin(mode=mode) as tx:
                stage_all(OLD)(tx)
            lab.seen["committed"] += 1
            tx = room.begin()
            tx.remove("d")
            tx.rollback()
            lab.seen["aborted"] += 1
            room.recover()
        found = raw.listing(room) or {}
        beside = {n: c for n, c in found.items() if n.split("/")[0] not in ("t", ".fstx")}
        beside = {n: c for n, c in beside.items() if not n.endswith("/")}
        lab.check(beside == strangers, f"beside the target: {diff(beside, strangers)}")


@case(
    Level.SEMANTICS,
    "strangers",
    "BACKEND-41",
    seams=("ops", "store", "files"),
)
def strangers(lab: Lab) -> None:
    """What another program put in the way of a dead transaction is there after recovery."""
    scene = SCENES["update"]
    content = b"by a program that knows nothing of transactions"
    steps = {"quick": 40 if lab.dear else 5, "standard": 2}
    k, step = 1 + lab.rng.randrange(3), steps.get(lab.profile, 1)
    while True:
        lab.runs += 1
        with lab.room() as room, Process.alone():
            write = raw.stranger(room)
            if write is None:
                raise NotApplicable("other programs can't write by name what readers find here")
            with room.begin(mode="create") as tx:
                stage_all(scene.old)(tx)
            process = Injector([Fault("+", k, "kill-after")])
            told = perform(room, scene, process, Trial(scene, Schedule()))
            process.die()
            if told.word != "died":
                lab.seen[told.word] += 1
                return
            write("t/a", content)
            with contextlib.suppress(RecoveryError):
                room.recover()
            found = room.read().get("a")
            if found != content:
                call = process.names[process.fired[0][1]][0]
                shown = "nothing" if found is None else repr(found[:30])
                lab.problem(
                    f"killed after {call} (changing call {k}): a stranger's file became {shown}"
                )
        k += step


@case(Level.SEMANTICS, "credentials", "BACKEND-44")
def credentials(lab: Lab) -> None:
    """No value of a credential is in a text, a receipt, an error's pickle or a stored object."""
    secrets = _secrets(lab.subject.options)
    if not secrets:
        raise NotApplicable("the storage options have no credential")
    with place(lab) as room:
        backend = room.open()
        tx = room.begin()
        stager = tx.stager()
        receipt = stager.stage("p", b"p")
        told = {
            "repr of the backend": repr(backend),
            "repr of the transaction": repr(tx),
            "repr of the stager": repr(stager),
            "the receipt": repr(receipt),
            "the URL": f"{tx.url} {getattr(backend, 'url', '')}",
            "the guarantee": str(tx.guarantee),
        }
        error = refused(lab, TransactionError, lambda: create(room, b""), "create of what is there")
        told["an error"] = f"{error!r} {getattr(error, '__notes__', '')}"
        told["the pickle of an error"] = pickle.dumps(error).decode("latin-1")
        for name, content in (raw.listing(room) or {}).items():
            told[f"the object {name}"] = f"{name} {content.decode('latin-1')}"
        tx.commit()
        lab.seen["committed"] += 1
        for name, content in (raw.listing(room) or {}).items():
            told[f"the object {name}"] = f"{name} {content.decode('latin-1')}"
        for where, shown in told.items():
            lab.check(not any(s in shown for s in secrets), f"{where} has a credential in it")


_SECRET = ("secret", "password", "token", "key", "connection", "sas", "credential", "passphrase")


def _secrets(options: Any, name: str = "") -> list[str]:
    if isinstance(options, dict):
        return [s for key, value in options.items() for s in _secrets(value, str(key).lower())]
    secret = any(word in name for word in _SECRET)
    return [options] if secret and isinstance(options, str) and len(options) >= 6 else []
