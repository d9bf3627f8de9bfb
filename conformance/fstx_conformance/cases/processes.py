"""Real processes: killed, stopped and let go on, and several that write at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from fstx.errors import TransactionError
from fstx.types import Capability, OutcomeState
from fstx_conformance.cases import case
from fstx_conformance.fences import RIVAL
from fstx_conformance.injector import Injector
from fstx_conformance.lab import Lab, NotApplicable
from fstx_conformance.races import LANDED, word_of
from fstx_conformance.results import Level
from fstx_conformance.scenes import Scene, stage_all
from fstx_conformance.schedule import Fault, Schedule
from fstx_conformance.subjects.base import Process, Room, Subject
from fstx_conformance.trial import Told, Trial, afterwards, diff, look, prepare, settle

_MORE = ("standard", "exhaustive")
_SEAMS = ("ops", "store")
_WAIT_S = 300.0  # no test waits so long; a worker that hangs is an error


def _must_have_processes(lab: Lab) -> None:
    if not lab.subject.processes:
        raise NotApplicable("other processes don't see this storage")
    if os.name != "posix":
        raise NotApplicable("the signals are those of POSIX")


def _start(subject: Subject, room: Room, job: str, schedule: Schedule) -> subprocess.Popen[str]:
    """A worker; its options go through a pipe, for they may hold credentials."""
    command = [sys.executable, "-m", "fstx_conformance.worker", room.url, job, str(schedule)]
    pipe = subprocess.PIPE
    worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(subject.options))
    worker.stdin.close()
    worker.stdin = None
    return worker


def _told(worker: subprocess.Popen[str]) -> dict[str, Any]:
    """What a worker was told; {} if it was killed."""
    try:
        out, error = worker.communicate(timeout=_WAIT_S)
    finally:
        worker.kill()
    if worker.returncode == -signal.SIGKILL:
        return {}
    if worker.returncode != 0:
        raise RuntimeError(f"the worker ended with {worker.returncode}: {error[-2000:]}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def _each(lab: Lab, scenes: Sequence[Scene], action: str, points: int, run: Any) -> None:
    """The action at `points` calls in all, spread evenly over the scenes, or at all of them."""
    if lab.replay is not None:
        for scene in scenes:
            lab.experiment(scene.name, lab.replay, partial(run, lab, scene))
        return
    for scene in scenes:
        calls = lab.trial(scene, Schedule(seed=lab.seed)).calls["writer"]
        count = sum(changing for _, _, changing in calls)
        some = count if lab.profile == "exhaustive" else min(count, points // len(scenes))
        for n in range(some):
            k = 1 + int((n + lab.rng.random()) * count / some)
            schedule = Schedule((Fault("+", k, action),), lab.seed)
            lab.experiment(scene.name, schedule, partial(run, lab, scene))


# --- killed ---------------------------------------------------------------------------------------------


@case(
    Level.CRASH,
    "sigkill",
    "BACKEND-35",
    "BACKEND-36",
    "BACKEND-30",
    fires=("sigkill",),
    sees=("died",),
    seams=_SEAMS,
    profiles=_MORE,
)
def sigkill(lab: Lab) -> None:
    """A real process is killed at numbered calls: old or new, and the next transaction works."""
    _must_have_processes(lab)
    _each(lab, lab.scenes("update", "create", "index", "keyed"), "sigkill", 20, _killed)


def _killed(lab: Lab, scene: Scene, room: Room, schedule: Schedule) -> Trial:
    trial = Trial(scene, schedule)
    with Process.alone():
        promised = trial.promised = prepare(room, scene)
    found = _told(_start(lab.subject, room, scene.name, schedule))
    trial.fired["sigkill"] += not found
    told = Told(found.get("word", "died"), found.get("txid"))
    trial.told.append(told.word)
    trial.problems += found.get("problems", [])
    trial.history.lines += found.get("history", [])
    look(room, trial, told, promised, "when the process is gone")
    settle(room, trial, told, promised)
    afterwards(room, trial, told, leftovers=True)
    return trial


# --- stopped --------------------------------------------------------------------------------------------


@case(
    Level.FENCING,
    "sigstop",
    "BACKEND-39",
    "BACKEND-40",
    "BACKEND-25",
    fires=("sigstop",),
    seams=_SEAMS,
    profiles=_MORE,
)
def sigstop(lab: Lab) -> None:
    """A real process stands still while others recover and commit: left alone, or given up for good."""
    _must_have_processes(lab)
    _each(lab, lab.scenes("update", "create"), "sigstop", 10, _stopped)


def _stopped(lab: Lab, scene: Scene, room: Room, schedule: Schedule) -> Trial:
    trial = Trial(scene, schedule)
    with Process.alone():
        trial.promised = prepare(room, scene)
    worker = _start(lab.subject, room, scene.name, schedule)
    states: set[OutcomeState] = set()
    second = ""
    try:
        if _stands_still(worker):
            trial.fired["sigstop"] += 1
            states, second = _others(room, trial)
            worker.send_signal(signal.SIGCONT)
        found = _told(worker)
    finally:
        worker.kill()
    trial.problems += found["problems"]
    trial.told.append(found["word"])
    trial.history.add(f"writer: told {found['word']} {found['error']}")
    _judge(room, trial, found["word"], states, second in LANDED)
    if not trial.problems:
        with Process.alone():
            room.recover()
        afterwards(room, trial, Told(found["word"], found["txid"]), leftovers=True)
    return trial


def _stands_still(worker: subprocess.Popen[str]) -> bool:
    """Whether the worker came to its stop; False: it ended without."""
    end_s = time.monotonic() + _WAIT_S
    while time.monotonic() < end_s:
        pid, status = os.waitpid(worker.pid, os.WUNTRACED | os.WNOHANG)
        if pid == 0:
            time.sleep(0.005)
        elif os.WIFSTOPPED(status):
            return True
        else:
            worker.returncode = os.waitstatus_to_exitcode(status)
            return False
    raise RuntimeError("the worker neither stops nor ends")


def _others(room: Room, trial: Trial) -> tuple[set[OutcomeState], str]:
    """Recover, and commit elsewhere in the target; what was settled, and what the second one was told."""
    word, error = "committed", ""
    with Process.alone():
        process = Injector(agent="recoverer", history=trial.history)
        process.patience_s = 0.05  # of locks: whoever holds one stands still
        states = {s.state for s in room.recover(process).settled}
        process.die()
        second = Injector(agent="second", history=trial.history)
        second.patience_s = 0.05
        try:
            with room.begin(second) as tx:
                stage_all(RIVAL)(tx)
        except TransactionError as found:
            word, error = word_of(found), f"{type(found).__name__}: {found}"
        second.die()
    trial.history.add(f"recoverer: {', '.join(sorted(states)) or 'nothing to settle'}")
    trial.history.add(f"second: told {word} {error}".rstrip())
    if word not in (*LANDED, "conflict"):
        trial.problem(f"beside a process that stands still another was told {word}: {error}")
    if word == "conflict" and len(error) < 30:
        trial.problem(f"beside a process that stands still another was told only {error!r}")
    return states, word


def _judge(room: Room, trial: Trial, word: str, states: set[OutcomeState], rival: bool) -> None:
    scene, tree = trial.scene, room.read()
    more = RIVAL if rival else {}
    old, new = {**scene.old, **more}, {**scene.new, **more}
    if word in LANDED:
        if OutcomeState.ABORTED in states:
            trial.problem(f"recovery gave it up, and then it was told {word} (BACKEND-40)")
        if tree != new:
            trial.problem(
                f"told {word}, and readers find {diff(tree, new)} (BACKEND-24)", Capability.FENCED
            )
    elif word in ("aborted", "conflict", "fenced"):
        if tree != old:
            trial.problem(
                f"told {word}, and readers find {diff(tree, old)} (BACKEND-25)", Capability.FENCED
            )
        if not rival and OutcomeState.ABORTED not in states:
            trial.problem(f"it was left alone, and is told {word} (BACKEND-39)")
    elif word != "unknown" or tree not in (old, new):
        trial.problem(f"told {word}, and readers find {diff(tree, old)}")


# --- several --------------------------------------------------------------------------------------------


@case(
    Level.ISOLATION,
    "processes",
    "BACKEND-21",
    "BACKEND-24",
    "STORE-1",
    sees=("committed",),
    profiles=_MORE,
)
def processes(lab: Lab) -> None:
    """Four processes each add to one number, some times: it counts the commits that were told."""
    _must_have_processes(lab)
    room = lab.subject.room()
    try:
        with Process.alone(), room.begin(mode="create") as tx:
            tx.stage("count", b"0")
        each = 5 if lab.profile == "standard" else 25
        workers = [_start(lab.subject, room, f"count:{each}", Schedule()) for _ in range(4)]
        told = sum(_told(worker)["count"] for worker in workers)
        lab.runs += 1
        lab.seen["committed"] += told
        found = room.read()["count"]
        lab.check(found == b"%d" % told, f"told of {told} commits, the number is {found!r}")
        lab.check(told == 4 * each, f"of {4 * each} commits {told} came through")
        with Process.alone():
            room.recover()
        left = room.leftovers()
        lab.check(not left, f"left over: {', '.join(left[:5])} (BACKEND-42)")
    finally:
        room.close()
