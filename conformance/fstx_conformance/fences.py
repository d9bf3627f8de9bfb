"""Fences: a writer stops at a call, is taken for dead and settled, and goes on."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from fstx import seams
from fstx.errors import RecoveryError
from fstx.types import Capability, OutcomeState, Settled
from fstx_conformance.injector import Injector
from fstx_conformance.lab import NotApplicable
from fstx_conformance.races import note
from fstx_conformance.scenes import Scene, stage_all, text
from fstx_conformance.schedule import Schedule
from fstx_conformance.subjects.base import Process, Room, Tree
from fstx_conformance.trial import Trial, afterwards, diff, perform, prepare
from fstx_conformance.turns import elsewhere

RIVAL: Tree = {"rival/r": text("of the rival")}
_REFUSED = ("aborted", "conflict", "fenced")


@dataclass(frozen=True)
class Fence:
    """What happens while the writer stands still; `rival`: another writer commits, too."""

    rival: bool = False

    def __str__(self) -> str:
        return ", then a rival" if self.rival else ""


@dataclass
class _Stop:
    """What others did and found while the writer stood still."""

    settled: tuple[Settled, ...] = ()
    tree: Tree | None = None  # None: it never stopped
    early: bool = True  # it stopped before its begin had returned
    held: bool = False  # recovery could not take what the writer had open, and changed nothing
    problems: list[str] = field(default_factory=list)

    @property
    def given_up(self) -> bool:
        """Whether recovery said that a writer was given up."""
        return any(s.state is OutcomeState.ABORTED for s in self.settled)


def run_fence(scene: Scene, fence: Fence, room: Room, schedule: Schedule) -> Trial:
    """One run in a fresh room; the schedule says at which call the writer stops."""
    trial = Trial(scene, schedule)
    with Process.alone():
        promised = trial.promised = prepare(room, scene)
    if Capability.FENCED not in promised:
        raise NotApplicable(f"FENCED is not promised: {promised[Capability.FENCED].reason}")
    stop = _Stop()

    def work(tx: Any) -> None:
        stop.early = stop.tree is not None
        scene.work(tx)

    process = Injector(schedule.faults, history=trial.history)
    process.hooks["fence"] = partial(_stopped, room, process, fence, stop)
    with Process.alone():
        told = perform(room, replace(scene, work=work), process, trial)
        told.error = None
    trial.told.append(told.word)
    trial.history.add(f"writer: told {told.word}")
    process.die()
    gc.collect()
    note(trial, process)
    for problem in stop.problems:
        trial.problem(problem, Capability.FENCED)
    _judge(room, trial, fence, stop, told.word)
    process.deliver()
    _judge(room, trial, fence, stop, told.word, "after late requests: ")
    if not trial.problems:
        before = room.read()
        with Process.alone():
            room.recover()
        if (tree := room.read()) != before and told.word not in ("unknown", "pending"):
            trial.problem(f"recovery changed what was over: {diff(tree, before)} (BACKEND-24)")
        afterwards(room, trial, told, leftovers=True)
    return trial


def _stopped(room: Room, process: Injector, fence: Fence, stop: _Stop) -> None:
    """Everybody else takes the process for dead; what they do and find."""

    def others() -> None:
        recoverer = Injector(agent="recoverer", history=process.history)
        try:
            stop.settled = room.recover(recoverer).settled
        except RecoveryError:  # what a process has open can't be taken away on every system
            stop.held = True
        recoverer.die()
        if fence.rival and not stop.held:
            with room.begin() as tx:
                stage_all(RIVAL)(tx)
        stop.tree = room.read()

    room.lose_locks(process)
    seams.end_of_process()
    elsewhere(others)
    told = ", ".join(f"{s.state} {s.txid[:8]}" for s in stop.settled)
    told = told or ("could not settle it now" if stop.held else "nothing to settle")
    process.history.add(f"recoverer: {told}")
    if process.deliver():
        after = elsewhere(room.read)
        if after != stop.tree and stop.given_up:
            stop.problems.append(
                f"a request of a writer that was given up arrived, and readers find "
                f"{diff(after, stop.tree or {})} (BACKEND-40)"
            )


def _judge(room: Room, trial: Trial, fence: Fence, stop: _Stop, word: str, when: str = "") -> None:
    if trial.problems:
        return
    scene = trial.scene
    try:
        tree = room.read()
    except OSError as error:
        trial.problem(
            f"{when}told {word}, and readers miss what the newest version names: {error} (BACKEND-40)",
            Capability.FENCED,
        )
        return
    if stop.tree is None:
        if word in ("committed", "pending") and tree != scene.new:
            trial.problem(f"{when}told {word}; readers find {diff(tree, scene.new)} (BACKEND-24)")
        return
    rival = RIVAL if fence.rival and not stop.held else {}
    old, new = {**scene.old, **rival}, {**scene.new, **rival}
    if scene.mode == "replace" and stop.early and tree == scene.new:
        new = scene.new  # it began after the rival
    if stop.tree not in (old, {**scene.new, **rival}):
        trial.problem(
            f"{when}recovery left {diff(stop.tree, old)}: neither old nor new (BACKEND-35)",
            Capability.RECOVERABLE,
        )
    elif word in ("committed", "pending"):
        if stop.given_up and stop.tree == old:
            trial.problem(
                f"{when}recovery gave it up, and then it was told {word} (BACKEND-40)",
                Capability.FENCED,
            )
        elif tree != new:
            trial.problem(
                f"{when}told {word}, and readers find {diff(tree, new)} (BACKEND-24)",
                Capability.FENCED,
            )
    elif word in _REFUSED:
        if tree != old:
            trial.problem(
                f"{when}told {word}, and readers find {diff(tree, old)} (BACKEND-25)",
                Capability.FENCED,
            )
    elif word == "unknown":
        if tree not in (old, new) or (stop.given_up and tree != stop.tree):
            trial.problem(
                f"{when}told {word}; others had left {diff(stop.tree, old)} from the old, and readers find "
                f"{diff(tree, stop.tree)} from that (BACKEND-40)",
                Capability.FENCED,
            )
    else:
        trial.problem(f"{when}told {word}, though nothing interrupted it")
